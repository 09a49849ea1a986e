"""Figures of scores, like CPJUMP1's Figures 1 and 2: each condition's values over its null. PNG and SVG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..storage.atomic import whole_file
from .common import Score
from .hits import Hits
from .mean_average_precision import CONVENTIONS, THRESHOLD, MeanPrecision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUE, NULL, LINE = "#3b6fb6", "#b9b9b9", "#222222"
WORDS = {"replicating": "replicates", "matching": "pairs"}


def panels(n: int, width: float = 3.4, height: float = 2.6) -> "tuple[Figure, list[Any]]":
    """A figure of n axes, four a row at most. It draws without a screen and touches no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, max(1, n))
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(n)]
    return figure, axes


def distributions(scores: Sequence[Score]) -> "Figure":
    """One panel a condition: densities of the values and of the null, the null's 95th percentile, the percent above it."""
    figure, axes = panels(len(scores))
    low = min(float(np.nanmin([s.table["value"].min(), s.null.min()])) for s in scores)
    high = max(float(np.nanmax([s.table["value"].max(), s.null.max()])) for s in scores)
    bins = np.linspace(low, high, 41)
    for axis, score in zip(axes, scores, strict=True):
        values = score.table["value"].dropna()
        axis.hist(score.null, bins=bins, density=True, color=NULL, label="null")
        axis.hist(values, bins=bins, density=True, color=TRUE, alpha=0.7, label=WORDS.get(score.name, score.name))
        axis.axvline(np.percentile(score.null, 95), color=LINE, linestyle="--", linewidth=1)
        n = f"n = {len(values)}, null {len(score.null)}"
        axis.set_title(f"{score.condition or 'all plates'}: {score.percent:.1f} % ({n})", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("median Pearson correlation", fontsize=9)
    figure.supylabel("density", fontsize=9)
    return figure


def bars(scores: Sequence[Score]) -> "Figure":
    """The percent of each condition, above and below its null, beside the 5 % of chance."""
    figure, (axis,) = panels(1, width=max(3.4, 0.7 * len(scores) + 1.5), height=3.2)
    x = np.arange(len(scores))
    axis.bar(x - 0.2, [s.percent for s in scores], 0.4, color=TRUE, label="above the null's 95th percentile")
    axis.bar(x + 0.2, [s.share("below") for s in scores], 0.4, color=NULL, label="below its 5th")
    axis.axhline(5, color=LINE, linestyle="--", linewidth=1)
    axis.set_xticks(x, [s.condition or "all plates" for s in scores], rotation=45, ha="right", fontsize=7)
    axis.set_ylabel(f"percent {scores[0].name}", fontsize=9)
    axis.tick_params(axis="y", labelsize=7)
    axis.legend(fontsize=7, frameon=False)
    return figure


def precisions(results: Sequence[MeanPrecision]) -> "Figure":
    """One panel a condition and p-value convention: mAP against -log10 q."""
    figure, axes = panels(len(results) * len(CONVENTIONS))
    pairs = [(r, c) for r in results for c in CONVENTIONS]
    for axis, (result, convention) in zip(axes, pairs, strict=True):
        retrieved = result.table[f"retrieved_{convention}"].to_numpy(bool)
        q = -np.log10(result.table[f"q_{convention}"].to_numpy())
        value = result.table["value"].to_numpy()
        axis.scatter(value[~retrieved], q[~retrieved], s=6, color=NULL)
        axis.scatter(value[retrieved], q[retrieved], s=6, color=TRUE)
        axis.axhline(-np.log10(THRESHOLD), color=LINE, linestyle="--", linewidth=1)
        share = result.fraction_retrieved(convention)
        axis.set_title(f"{result.condition or 'all plates'}, p {convention}: {share:.2f} of {len(result.table)}", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("mean average precision", fontsize=9)
    figure.supylabel("-log10 q", fontsize=9)
    return figure


def named_hits(results: Sequence[Hits], maximum: int = 12) -> "Figure":
    """One panel a condition: mAP against -log10 q, the surest hits by name; hollow: controls of a position reach them."""
    figure, axes = panels(len(results), width=4.6, height=3.8)
    for axis, result in zip(axes, results, strict=True):
        table = result.table
        q, hit = -np.log10(table["q"].to_numpy(float)), table["hit"].to_numpy(bool)
        sure = hit & table["position_checked"].fillna(True).to_numpy(bool)
        value = table["value"].to_numpy(float)
        for here, label, colours in (
            (~hit, "not retrieved", {"color": NULL}),
            (hit & ~sure, "retrieved, as controls of a position", {"facecolors": "none", "edgecolors": TRUE}),
            (sure, "retrieved", {"color": TRUE}),
        ):
            axis.scatter(value[here], q[here], s=10, label=f"{label}, n = {int(here.sum())}", **colours)
        axis.axhline(-np.log10(THRESHOLD), color=LINE, linestyle="--", linewidth=1)
        if (threshold := result.settings.get("position_threshold")) is not None:
            axis.axvline(threshold, color=LINE, linestyle=":", linewidth=1)
        names = table["name"].fillna(table.iloc[:, 0]) if "name" in table else table.iloc[:, 0]
        for k in np.flatnonzero(sure)[:maximum]:
            axis.annotate(names.iloc[k], (value[k], q[k]), fontsize=5, xytext=(2, 2), textcoords="offset points")
        axis.set_title(f"{result.condition or 'all plates'}: {int(hit.sum())} of {len(table)} retrieved", fontsize=9)
        axis.legend(fontsize=6, frameon=False, loc="upper left")
        axis.tick_params(labelsize=7)
    figure.supxlabel("mean average precision", fontsize=9)
    figure.supylabel("-log10 q", fontsize=9)
    return figure


def doses(results: Sequence[Hits], maximum: int = 12) -> "Figure":
    """One panel a condition: strength by dose of the treatments that are strongest, over the controls' 95th percentile."""
    figure, axes = panels(len(results), width=4.6, height=3.8)
    for axis, result in zip(axes, results, strict=True):
        group, dose = result.settings["group"], result.settings["dose"]
        strongest = result.table.groupby(group)["strength"].max().sort_values(ascending=False, kind="stable").index[:maximum]
        for name in strongest:
            rows = result.table[result.table[group] == name].sort_values(dose)
            axis.plot(rows[dose], rows["strength"], marker="o", markersize=3, linewidth=1, label=str(name))
        axis.axhline(result.settings["strength_95th"], color=LINE, linestyle="--", linewidth=1)
        if (result.table[dose] > 0).all():
            axis.set_xscale("log")
        axis.set_xlabel(dose.removeprefix("Metadata_"), fontsize=8)
        n = result.table[group].nunique()
        axis.set_title(f"{result.condition or 'all plates'}: {len(strongest)} strongest of n = {n}", fontsize=9)
        axis.legend(fontsize=5, frameon=False)
        axis.tick_params(labelsize=7)
    figure.supylabel("strength, deviations of controls", fontsize=9)
    return figure


def save(figure: "Figure", path: Path) -> list[Path]:
    """`<path>.png` and `<path>.svg`; the same figure gives the same bytes."""
    import matplotlib

    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        for file in files:
            with whole_file(file) as part:
                figure.savefig(part, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files
