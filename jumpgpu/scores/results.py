"""Results of scores as files, figures and a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..profiles.files import write_table
from ..storage.atomic import write_whole
from . import figures
from .common import Score
from .embedding import Picture
from .hits import Hits
from .mean_average_precision import CONVENTIONS, MeanPrecision
from .transfer import Baselines


def headline(result: Score | MeanPrecision | Hits | Picture | Baselines) -> str:
    """The result in a few words, with what the score says of controls that share a position (or what else is known)."""
    known = [c for c in getattr(result, "checks", ()) if not c.reason]
    controls = f"  controls by {known[0].place} {known[0].percent:.1f} %" if known else ""
    if known:
        controls += f" ({known[0].low:.1f} to {known[0].high:.1f})"
    if isinstance(result, Score):
        scored = int(result.table["value"].notna().sum())
        low, high = result.interval
        interval = "" if low != low else f"  95 % interval {low:.1f} to {high:.1f}"
        return f"{result.percent:.1f} % above  {result.share('below'):.1f} % below  {scored} scored{interval}{controls}"
    if isinstance(result, MeanPrecision):
        shares = "  ".join(f"{result.fraction_retrieved(c):.3f} retrieved (p {c})" for c in CONVENTIONS)
        return f"{shares}  {len(result.table)} scored{controls}"
    if isinstance(result, Hits):
        counts = {k: v for k, v in result.summary().items() if k.startswith("n_")}
        return "  ".join(
            [f"{len(result.table)} rows", *(f"{v} {k.removeprefix('n_').replace('_', ' ')}" for k, v in counts.items())]
        )
    if isinstance(result, Picture):
        explained = [f"{100 * share:.1f} % of variance" for share in result.settings.get("explained", ())]
        return "  ".join([f"{len(result.table)} wells", f"{result.settings['features']} features", *explained])
    rows = result.table.itertuples()
    return "  ".join(
        f"{r.baseline}: r {r.correlation:.2f}, retrieval {r.retrieval:.2f} (chance {r.chance:.2f})" for r in rows
    )


def write_results(results: Sequence[Any], folder: Path, name: str, with_figures: bool) -> None:
    """`<name>.parquet` (one row per group), `<name>.json` (one record per condition), figures as PNG and SVG."""
    write_table(pd.concat([r.tidy() for r in results], ignore_index=True), folder / f"{name}.parquet")
    for summary in {s for r in results if isinstance(r, Hits) for s in r.summaries}:
        parts = [r.summaries[summary].assign(condition=r.condition) for r in results]
        write_table(pd.concat(parts, ignore_index=True), folder / f"{name}_{summary}.parquet")
    records = [
        {k: None if v != v else v for k, v in r.summary().items()}  # JSON has no nan
        | ({"histogram": r.histogram()} if isinstance(r, Score) else {})
        for r in results
    ]
    write_whole(folder / f"{name}.json", json.dumps(records, indent=1) + "\n")
    if not with_figures:
        return
    if all(isinstance(r, Score) for r in results):
        figures.save(figures.distributions(results), folder / name)
        if len(results) > 1:
            figures.save(figures.bars(results), folder / f"{name}_percent")
    elif all(isinstance(r, MeanPrecision) for r in results):
        figures.save(figures.precisions(results), folder / name)
    elif all(isinstance(r, Hits) for r in results):
        figures.save(
            figures.doses(results) if str(results[0].name) == "dose" else figures.named_hits(results), folder / name
        )
