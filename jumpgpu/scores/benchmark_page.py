"""The benchmark's files: one table, one figure, one page."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..profiles.files import write_table
from ..storage.atomic import write_whole
from .benchmark import Benchmark
from .figures import panels, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "baseline": "#8a8a8a",
    "classical": "#1f4e8c",
    "family": "#7fa7d6",
    "compartment": "#4f84c4",
    "embedding": "#c46a1f",
    "together": "#7a3f9d",
}
INTRODUCTION = """<h1>Representations side by side</h1>
<p>Bars are values, lines their 95&nbsp;% intervals (treatments resampled), dashes chance. <em>Controls</em> is the percent
of negative controls that share only a position and pass the same threshold, with its interval: what of a score may be the
place.</p>"""
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
table{border-collapse:collapse;font-size:13px}td,th{padding:.2rem .6rem;border-bottom:1px solid #dde3ea;text-align:right}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}svg{max-width:100%;height:auto}
.warn{color:#a33}"""


def write_benchmark(
    results: Sequence[Benchmark], folder: Path, name: str = "benchmark", with_figures: bool = True
) -> list[Path]:
    """`<name>.parquet`, `.json`, and with figures `.png`, `.svg` and `.html`; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.concat([r.table for r in results], ignore_index=True)
    write_table(table, folder / f"{name}.parquet")
    rows = [{k: None if v != v else v for k, v in row.items()} for row in table.to_dict("records")]  # JSON has no nan
    record = {"rows": rows, "settings": [r.settings for r in results], "findings": [f for r in results for f in r.findings]}
    write_whole(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    written = [folder / f"{name}.parquet", folder / f"{name}.json"]
    if with_figures:
        written += save(figure(results), folder / name)
        write_whole(folder / f"{name}.html", page(results, written[-1].read_text(encoding="utf-8")))
        written.append(folder / f"{name}.html")
    return written


def figure(results: Sequence[Benchmark]) -> "Figure":
    """A panel per condition, task and measure: each representation's value with its interval, and chance."""
    table = pd.concat([r.table for r in results], ignore_index=True)
    groups = list(table.groupby(["condition", "task", "measure"], sort=False))
    tallest = max(len(rows) for _, rows in groups)
    drawn, axes = panels(len(groups), width=4.2, height=0.9 + 0.19 * tallest)
    for axis, ((condition, _, measure), rows) in zip(axes, groups, strict=True):
        rows = rows.iloc[::-1]
        y = np.arange(len(rows))
        value = rows["value"].to_numpy(float)
        reach = np.nan_to_num(np.abs(np.stack([value - rows["low"], rows["high"] - value]).astype(float)))
        axis.barh(y, value, color=[COLOURS[k] for k in rows["kind"]], height=0.7)
        axis.errorbar(value, y, xerr=reach, fmt="none", ecolor="#222222", elinewidth=1)
        if np.isfinite(chance := float(rows["chance"].iloc[0])):
            axis.axvline(chance, color="#222222", linestyle="--", linewidth=1)
        axis.set_yticks(y, list(rows["representation"]), fontsize=6)
        axis.tick_params(axis="x", labelsize=6)
        axis.set_title(f"{condition}: {measure}" if condition else str(measure), fontsize=7)
    return drawn


def page(results: Sequence[Benchmark], svg: str) -> str:
    """One HTML file: figure, table, what was found, settings. Nothing is loaded from elsewhere."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Representations side by side</title><style>{STYLE}</style>"
    ]
    parts.append(
        "<h1>Representations side by side</h1><p>Bars are values, lines their 95&nbsp;% intervals (treatments resampled), "
        "dashes chance. <em>Controls</em> is the percent of negative controls that share only a position and pass the same "
        "threshold, with its interval: what of a score may be the place.</p>"
    )
    parts.append(svg[svg.index("<svg") :])
    for result in results:
        for (task, measure), rows in result.table.groupby(["task", "measure"], sort=False):
            where = f"{result.settings.get('condition') or 'all plates'}: {task}, {measure}"
            heads = "".join(f"<th>{h}" for h in ("representation", "kind", "features", "value", "95 %", "n", "controls"))
            parts.append(f"<h2>{html.escape(where)}</h2><table><tr>{heads}</tr>")
            for row in rows.sort_values("value", ascending=False, kind="stable").to_dict("records"):
                cells = [html.escape(str(row["representation"])), row["kind"], row["features"], number(row["value"])]
                cells += [f"{number(row['low'])} to {number(row['high'])}", row["n"], controls(row)]
                parts.append("<tr>" + "".join(f"<td>{c}" for c in cells) + "</tr>")
            parts.append("</table>")
        if result.findings:
            parts.append("<h2>Read with it</h2><ul>" + "".join(f"<li>{html.escape(f)}" for f in result.findings) + "</ul>")
        parts.append(f"<p>{html.escape(json.dumps(result.settings))}</p>")
    return "\n".join(parts) + "\n"


def number(value: float) -> str:
    return "" if value != value else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def controls(row: dict[str, float]) -> str:
    """The self-check of a row, marked where its interval lies above chance."""
    percent = row.get("controls_percent", float("nan"))
    if percent != percent:
        return ""
    text = f"{percent:.1f} % [{row['controls_low']:.1f}, {row['controls_high']:.1f}]"
    return f"<span class=warn>{text}</span>" if row["controls_low"] > 5 else text
