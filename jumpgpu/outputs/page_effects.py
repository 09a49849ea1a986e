"""What the plate's page says of effects: wells against negative controls, treatments by effect, wells in a plane.

All of it follows from the well means. z is (x - median) / (1.4826 MAD), median and MAD over the plate's negative controls,
or over all wells where fewer than three are known.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.platemap import NEGCON
from ..scores.embedding import plane_of
from ..settings.names import counted
from ..store.annotation import variables

MIN_CONTROLS = 3
MIN_WELLS = 4  # that make a plane
UMAP_WELLS = 15  # fewer are drawn by principal components
CHANGED = 3.0  # robust standard deviations
TOP = 12  # features of a well
SHOWN = 5  # treatments that the page's first sentence names
SCORE_NAMES = {"replicating": "Percent Replicating", "matching": "Percent Matching"}
CLIP = 20.0  # of z, in effects, correlations and the plane


@dataclass(frozen=True)
class Effects:
    """Well means against a reference.

    names      features whose reference has a spread
    z          float [W, F], nan where a well has no value
    reference  in words, such as "16 negative controls"
    median, mad  by every feature of the profiles; mad is 1.4826 MAD, 0 for one without spread
    """

    names: list[str]
    z: np.ndarray
    reference: str
    median: np.ndarray
    mad: np.ndarray


def effects_of(profiles: pd.DataFrame, features: list[str], known: dict[str, dict[str, str]]) -> Effects:
    """z of every well's features. `profiles` has a row per well, its name as index; `known` is what `treatments` gives."""
    values = profiles[features].to_numpy(float).reshape(len(profiles), len(features))
    values = np.where(np.isfinite(values), values, np.nan)
    controls = np.array([known.get(w, {}).get("control") == NEGCON for w in profiles.index], bool)
    if controls.sum() >= MIN_CONTROLS:
        reference = f"{controls.sum()} negative controls"
    else:
        n = int(controls.sum())
        few = f"{n or 'no'} negative control{'s' * (n != 1)}"
        reference = f"all {len(profiles)} wells ({few} known, three are needed)"
        controls = np.ones(len(profiles), bool)
    median, mad = np.zeros(len(features)), np.zeros(len(features))
    some = ~np.isnan(values[controls]).all(0) if len(profiles) else np.zeros(len(features), bool)
    if some.any():
        median[some] = np.nanmedian(values[controls][:, some], axis=0)
        mad[some] = 1.4826 * np.nanmedian(np.abs(values[controls][:, some] - median[some]), axis=0)
    mad[mad <= 1e-9 * np.abs(median)] = 0
    varies = mad > 0
    z = (values[:, varies] - median[varies]) / mad[varies]
    return Effects([f for f, v in zip(features, varies, strict=True) if v], z, reference, median, mad)


def top_features(effects: Effects, features: list[str], channels: tuple[str, ...]) -> list[list[tuple[int, float]]]:
    """Of each well the features furthest from the reference, one of every compartment, family and channel.

    A list per well of (index in `features`, z).
    """
    said = variables(effects.names, channels)
    groups = list(zip(*(said[k] for k in ("compartment", "family", "channel", "channel_2")), strict=True))
    place = {f: i for i, f in enumerate(features)}
    result = []
    for row in effects.z:
        size = np.where(np.isnan(row), -1, np.abs(row))
        chosen: dict[Any, int] = {}
        for i in np.argsort(-size, kind="stable")[: 40 * TOP]:
            if size[i] >= 0 and len(chosen) < TOP:
                chosen.setdefault(groups[i], int(i))
        result.append([(place[effects.names[i]], float(f"{row[i]:.4g}")) for i in chosen.values()])
    return result


def size_of_effect(z: np.ndarray) -> np.ndarray:
    """float [W, F] to [W]: the root mean square over features of z clipped to +-20, nan for a well without any."""
    result = np.full(len(z), np.nan)
    some = ~np.isnan(z).all(1) if z.size else np.zeros(len(z), bool)
    if some.any():
        result[some] = np.sqrt(np.nanmean(np.clip(z[some], -CLIP, CLIP) ** 2, axis=1))
    return result


def treatment_table(
    effects: Effects, wells: list[str], cells: list[int], known: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Treatments of the plate, the strongest first.

    Per treatment: its wells, cells as percent of the controls' median, effect (root mean square over features of the z
    of its median well), percent of features beyond 3, and the median correlation of its wells. `threshold` is the 95th
    percentile of single negative controls' effect; None where there are none.
    """
    groups: dict[str, list[int]] = {}
    for i, well in enumerate(wells):
        if (name := known.get(well, {}).get("treatment")) and known[well]["control"] != NEGCON:
            groups.setdefault(name, []).append(i)
    controls = [i for i, well in enumerate(wells) if known.get(well, {}).get("control") == NEGCON]
    if not groups or not effects.names:
        return {"rows": [], "threshold": None}
    usual = float(np.median([cells[i] for i in controls])) if controls else float("nan")
    rows: list[dict[str, Any]] = []
    for name, members in groups.items():
        z = effects.z[members]
        some = ~np.isnan(z).all(0)
        middle = np.full(z.shape[1], np.nan)
        middle[some] = np.nanmedian(z[:, some], axis=0)
        effect = size_of_effect(middle[None])[0]
        count = float(np.mean([cells[i] for i in members]))
        rows.append(
            {
                "treatment": name,
                "wells": [wells[i] for i in members],
                "cells": rounded(100 * count / usual) if usual > 0 else None,
                "effect": rounded(effect),
                "changed": rounded(100 * float((np.abs(middle[some]) > CHANGED).mean())) if some.any() else None,
                "correlation": replicate_correlation(z),
            }
        )
    rows.sort(key=lambda r: (-(r["effect"] if r["effect"] is not None else -1), r["treatment"]))
    alone = size_of_effect(effects.z[controls])
    known_alone = alone[~np.isnan(alone)]
    threshold = rounded(float(np.percentile(known_alone, 95))) if len(known_alone) >= MIN_CONTROLS else None
    return {"rows": rows, "threshold": threshold}


def in_short(
    table: dict[str, Any], n_controls: int, scores: Sequence[dict[str, Any]], flagged_wells: int, n_wells: int
) -> str:
    """What happened on the plate, in two or three sentences; "" without treatments, scores and flagged wells."""
    said = []
    if rows := table["rows"]:
        counts = f"{counted(len(rows), 'treatment')}, {counted(n_controls, 'well')} of negative controls."
        strong = [r["treatment"] for r in rows if table["threshold"] is not None and (r["effect"] or 0) > table["threshold"]]
        if strong:
            more = f" and {len(strong) - SHOWN} more" if len(strong) > SHOWN else ""
            verb = "differs" if len(strong) == 1 else "differ"
            counts += (
                f" {len(strong)} {verb} from the controls by more than 95 % of single control wells do: "
                f"{', '.join(strong[:SHOWN])}{more}, the strongest first."
            )
        elif table["threshold"] is not None:
            counts += " None differs from the controls by more than 95 % of single control wells do."
        said.append(counts)
    said += [
        f"{SCORE_NAMES.get(s['name'], s['name'])}{f', {c}' if (c := s['condition']) else ''}: {s['percent']:.0f} %."
        for s in scores
    ]
    if flagged_wells:
        verb = "has" if flagged_wells == 1 else "have"
        said.append(f"{flagged_wells} of {counted(n_wells, 'well')} {verb} flagged or left-out images.")
    return " ".join(said)


def replicate_correlation(z: np.ndarray) -> float | None:
    """The median Pearson r of every two rows of float [W, F], z clipped to +-20; None for one row."""
    complete = np.clip(z[:, ~np.isnan(z).any(0)], -CLIP, CLIP)
    if len(complete) < 2 or complete.shape[1] < 2:
        return None
    with np.errstate(invalid="ignore"):
        r = np.corrcoef(complete)[np.triu_indices(len(complete), 1)]
    r = r[np.isfinite(r)]
    return rounded(float(np.median(r))) if len(r) else None


def plane_of_wells(effects: Effects, method: str = "auto") -> dict[str, Any]:
    """Wells in a plane by z: coordinates [W][2] (None for a well without cells), axes' names and what was done, in words.

    `auto` is UMAP where umap-learn is installed and the plate has 15 wells, else principal components.
    """
    usable = ~np.isnan(effects.z).any(0) if effects.z.size else np.zeros(0, bool)
    values = np.clip(effects.z[:, usable], -CLIP, CLIP)
    varies = values.std(axis=0) > 0 if len(values) else usable[:0]
    if len(values) < MIN_WELLS or varies.sum() < 2:
        return {"points": [], "axes": [], "note": f"{len(values)} wells with cells are too few for a map of wells."}
    installed = importlib.util.find_spec("umap") is not None
    if method == "auto":
        method = "umap" if installed and len(values) >= UMAP_WELLS else "pca"
        why = (
            ""
            if method == "umap"
            else f" (fewer than {UMAP_WELLS} wells)"
            if installed
            else " (for UMAP: pip install 'jumpgpu[umap]')"
        )
    else:
        why = ""
    points, axes, explained = plane_of(values[:, varies], method)
    if explained:
        axes = [f"{axis} ({100 * share:.0f} % of variance)" for axis, share in zip(axes, explained, strict=True)]
    named = "UMAP" if method == "umap" else "Principal components"
    note = f"{named} of the wells' z over {int(varies.sum())} features{why}. Wells that lie together look alike."
    return {"points": [[rounded(x), rounded(y)] for x, y in points], "axes": axes, "note": note}


def rounded(value: float) -> float | None:
    """Four digits; None for what is no number."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
