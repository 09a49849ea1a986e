"""docs/parity.md: the comparison with CellProfiler's tables as a page, with the CPU time of every family.

python -m tools.parity_page docs/parity.md
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from jumpgpu.features import families as features
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.features.order_statistics import order_statistics
from jumpgpu.features.outline import outlines
from jumpgpu.gpu.open import open_device
from jumpgpu.settings.config import FeatureSettings, load_config
from jumpgpu.settings.names import CHANNELS, family_of
from tests.helpers.parity import LEVELS, ONE_PERCENT, SHARE, agreeing, end_to_end, gaps, misses, ours, reference, tables
from tests.helpers.real import real_labels, real_pixels

CELLPROFILER = {  # CPU seconds a field of its modules for these fields, as stated with the reference tables
    "shape": 4.0,
    "correlation": 6.1,
    "granularity": 19.4,
    "intensity": 3.8,
    "neighbors": 0.9,
    "radial": 3.6,
    "texture": 9.7,
}
SHARED_WORK = "objects, pixel lists, order statistics, outlines"  # what several families use

HEAD = """# Parity with CellProfiler

Every column of CellProfiler 4.2.8.1's own tables for six real CPJUMP1 fields (526 cells, five channels) beside ours. Both
measured the same label images (CellProfiler's) in the same images (raw / 65535 over the same flat fields), but for
Neighbors, which counts border objects that its saved label images lack: those columns come from our own segmentation of the
raw images. A column agrees when |ours - theirs| <= absolute + relative |theirs| for 99.9 % of the cells, NaN equal to NaN.
RadialDistribution is compared over objects whose farthest pixel from the edge is unique: where several tie, CellProfiler's
choice is its unstable sort's.
"""
WELL_MEANS = """## End to end: well means

From the raw images on, with our own segmentation, over all cells (those with tied radial centres too): {within} of {columns}
columns have well means within 1 % of CellProfiler's in all six wells. {others}
"""
BEYOND = {  # why a family's well means may be further apart
    "RadialDistribution": "Where several pixels are farthest from the edge (40 % of nuclei), CellProfiler's centre is "
    "whichever an unstable sort\nputs first, ours is the first in raster order; there is no setting for its choice, since "
    "it differs between NumPy versions.",
}
PRODUCTION = """## The JUMP production pipeline

The same six fields through that pipeline (508 cells after FilterObjects), beside preset `jump-production`: all columns that
its tables hold, and Neighbors again from our own segmentation.
"""
TIE = "three pixels of A21 between cells 4 and 6 are equally bright,\nand the watershed gives them to the other cell."
CHOICES = """## Where CellProfiler leaves a choice

- Location_MaxIntensity: of several equally bright pixels CellProfiler takes whichever NumPy's unstable sort puts last,
  as a rule neither the first nor the last in the image. Ours is the first in raster order.
- Zernike: a pixel exactly on the enclosing circle counts or not by the last bit of the radius, and that bit depends on
  which of several vertices on one circle define it. Ours follows centrosome's arithmetic, with angles rounded to nearest.
- Orientation: an object with equal moments along both axes gets -45 or 45 by the sign that scikit-image 0.18.3 gives it;
  later versions turned it.
- FormFactor is infinite for an object without perimeter (one pixel), as CellProfiler's.
- An empty object (a nucleus that fills its cell leaves no cytoplasm) has area and integrated intensity 0 and NaN otherwise;
  CellProfiler's rows shift where a label is missing.
"""
TIMES = """## CPU seconds per field

One thread, median of five runs over the six fields. CellProfiler's are those of its modules for the same fields, as stated
with the reference tables, not measured in the same run. Location comes with Intensity, as in CellProfiler's module.

| family | ours | CellProfiler | ratio |
|---|---|---|---|
"""


def cpu_seconds(shared: Path, repeats: int = 5) -> dict[str, float]:
    """CPU seconds a field of each family on one thread: medians over the six fields, what families share apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    device = open_device("cpu", workers=1)
    settings = FeatureSettings()
    pixels = device.tensor(real_pixels(shared))
    labels = {c: device.tensor(v) for c, v in real_labels(shared).items()}
    taken: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        taken.setdefault(name, []).append((time.process_time() - start) / len(pixels))
        return result

    def prepared() -> ObjectBatch:
        batch = make_batch(CHANNELS, pixels, labels, {}, device)
        outlines(batch, device)
        order_statistics(batch, device)
        return batch

    for _ in range(repeats):
        batch = timed(SHARED_WORK, prepared)
        for family in features.FAMILIES:
            timed(family, partial(features.family(family).measure, batch, settings, device))
    torch.set_num_threads(threads)
    return {name: float(np.median(times)) for name, times in taken.items()}


def compared(result: pd.DataFrame) -> list[str]:
    """A table of families: columns that agree at each tolerance, and the largest gap."""
    levels = list(LEVELS)
    lines = [
        "| family | columns | " + " | ".join(levels) + " | largest gap | of |",
        "|---|---|" + "---|" * (len(levels) + 2),
    ]
    for family, row in agreeing(result).iterrows():
        part = result if family == "all" else result[result["family"] == family]
        # the largest in the measure of the first tolerance, so that small numbers do not hide behind large ones
        worst = (part["gap"] / (1e-6 + 1e-4 * part["theirs"].abs())).fillna(0).idxmax()
        shown = f"{part.at[worst, 'gap']:.1e} | `{worst}` = {part.at[worst, 'theirs']:.4g}" if part["gap"].any() else "0 |"
        lines.append(f"| {family} | " + " | ".join(str(v) for v in row) + f" | {shown} |")
    return lines


def production(shared: Path) -> list[str]:
    """What the tables of the JUMP production pipeline hold, beside the preset's numbers."""
    preset, device = "jump-production", open_device("cpu")
    settings = load_config(preset).features
    settings = replace(settings, shape=replace(settings.shape, convex_area=True))
    families = ("shape", "intensity", "location", "number", "neighbors")
    mine, theirs = ours(shared, device, families, preset, settings), tables(shared, preset)
    both = [column for column in mine if column in theirs]
    result = gaps(mine[both], theirs[both], shared, preset)
    missed = misses(result)
    return [
        PRODUCTION,
        *compared(result),
        "",
        f"{len(missed)} columns miss {next(iter(LEVELS))}: " + TIE,
        "",
        *table_of(missed),
    ]


def page(result: pd.DataFrame, wells: pd.DataFrame, seconds: dict[str, float], other: list[str]) -> str:
    """The comparison as Markdown."""
    levels = list(LEVELS)
    lines = [HEAD, *compared(result)]
    lines += ["", f"## Columns that miss {levels[0]}", "", *table_of(misses(result))]
    strictest = result[result[levels[-1]] < SHARE].sort_values("gap", ascending=False)
    lines += ["", f"## Columns that miss {levels[-1]}", "", *table_of(strictest)]
    if len(strictest) and strictest.index.str.contains("InfoMeas2").all():
        lines += [
            "",
            "InfoMeas2 is the root of 1 - exp(-2 x) with x near 0: a difference of 1e-16 in x is one of 1e-9 there.",
        ]
    beyond = wells[~(wells["relative"] <= ONE_PERCENT)].sort_values("relative", ascending=False)
    lines += ["", WELL_MEANS.format(within=len(wells) - len(beyond), columns=len(wells), others=others(beyond.index))]
    if len(beyond):
        lines += ["| column | relative gap | well | ours | theirs |", "|---|---|---|---|---|"]
        lines += [
            f"| `{c}` | {r['relative']:.2%} | {r['well']} | {r['ours']:.6g} | {r['theirs']:.6g} |"
            for c, r in beyond.iterrows()
        ]
    lines += ["", *other, "", CHOICES, TIMES.rstrip("\n")]
    for name, s in seconds.items():
        peer = CELLPROFILER.get(name)
        lines.append(f"| {name} | {s:.4f} | {peer or ''} | {f'{peer / s:.0f}' if peer else ''} |")
    total, peers = sum(seconds.values()), sum(CELLPROFILER.values())
    lines += [f"| all | {total:.3f} | {peers:.1f} | {peers / total:.0f} |", ""]
    return "\n".join(lines).rstrip() + "\n\n*Generated by `python -m tools.parity_page docs/parity.md`; do not edit.*\n"


def others(columns: Iterable[str]) -> str:
    """What the columns beyond 1 % are, by family, and why where that is known."""
    counts = Counter(family_of(c) for c in columns)
    if not counts:
        return "There are no others."
    said = "The others are " + ", ".join(f"{family} ({n})" for family, n in counts.most_common()) + "."
    reasons = [BEYOND.get(family, f"{family} has no known reason.") for family in sorted(counts)]
    return "\n".join([said, *reasons])


def table_of(result: pd.DataFrame) -> list[str]:
    if not len(result):
        return ["None."]
    rows = [
        f"| `{c}` | {r['gap']:.1e} | {r['relative']:.1e} | {r['ours']:.6g} | {r['theirs']:.6g} |"
        for c, r in result.iterrows()
    ]
    return ["| column | gap | relative | ours | theirs |", "|---|---|---|---|---|", *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    args = parser.parse_args()
    mine = ours(args.shared, open_device("cpu"))
    result = gaps(mine, reference(args.shared, mine.columns), args.shared)
    wells = end_to_end(args.shared, open_device("cpu"))
    args.output.write_text(page(result, wells, cpu_seconds(args.shared), production(args.shared)))


if __name__ == "__main__":
    main()
