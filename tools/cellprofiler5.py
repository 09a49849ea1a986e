"""What differs between CellProfiler 4.2.8 and 5, on a real field: its library's numbers beside 4.2.8's tables and ours.

    benchmarks/peers/setup cellprofiler5
    python -m tools.cellprofiler5 [--well D14] [--channels DNA RNA]

Prints the rows of the table in docs/cellprofiler.md: of each family how many columns are within 1e-6 + 1e-4 of themselves
for 99.9 % of the objects (RadialDistribution: of those with one pixel farthest from the edge), and of the others the
measurement, the worst gap and whether ours is 4.2.8's.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import run_command
from benchmarks.peers import ENVIRONMENTS, HERE
from jumpgpu.gpu.open import open_device
from tests.helpers.parity import comparable, ours, tables
from tests.helpers.real import WELLS, real_batch

OBJECTS = ("Cells", "Nuclei")


def by_library(shared: Path, well: str, channels: list[str]) -> pd.DataFrame:
    """CellProfiler 5's numbers of one well's objects, a column each with the object set before its name."""
    python = ENVIRONMENTS / "cellprofiler5" / "bin" / "python"
    if not python.is_file():
        raise FileNotFoundError("no environment for cellprofiler5; run benchmarks/peers/setup cellprofiler5")
    batch = real_batch(shared, open_device("cpu"))
    at = WELLS.index(well)
    chosen = [batch.channels.index(c) for c in channels]
    with tempfile.TemporaryDirectory() as temporary:
        given, result = Path(temporary) / "field.npz", Path(temporary) / "result.npz"
        labels = {k: batch.labels[k][at : at + 1].numpy() for k in OBJECTS}
        np.savez(given, pixels=batch.pixels[at : at + 1, chosen].numpy(), channels=np.array(channels), **labels)
        run_command([python, "-I", HERE / "cellprofiler5.py", given, result], OMP_NUM_THREADS="1")
        with np.load(result, allow_pickle=False) as archive:
            return pd.DataFrame({c.replace("/", "_"): archive[c] for c in archive.files})


def agree(a: np.ndarray, b: np.ndarray) -> tuple[bool, float]:
    """Whether two columns are within tolerance, and the worst gap by the tolerance."""
    gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    gap = np.where(np.isnan(gap), np.inf, gap) / (1e-6 + 1e-4 * np.nan_to_num(np.abs(b)))
    return bool((gap > 1).mean() <= 0.001), float(gap.max(initial=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--well", default="D14")
    parser.add_argument("--channels", nargs="+", default=["DNA", "RNA"])
    args = parser.parse_args()
    five = by_library(args.shared, args.well, args.channels)
    every = tables(args.shared)
    four_index, four = every.index[every.index.get_level_values(0) == args.well], every.loc[args.well]
    mine = ours(args.shared, open_device("cpu"), ["shape", "intensity", "radial", "texture", "granularity", "correlation"])
    mine = mine.loc[args.well]
    families: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    differ: dict[str, list[str]] = defaultdict(list)
    for column in five:
        _, family, measurement = column.split("_", 2)
        if column not in four:
            families[family][2] += 1
            continue
        families[family][0] += 1
        judged = comparable(column, four_index, args.shared)
        same, worst = agree(five[column].to_numpy()[judged], four[column].to_numpy(float)[judged])
        families[family][1] += same
        if not same:
            as_four = column in mine and agree(mine[column].to_numpy(float)[judged], four[column].to_numpy(float)[judged])[0]
            differ[f"{family}_{measurement.split('_')[0]}"].append(f"{worst:.3g}{'' if as_four else ', ours is neither'}")
    print(f"{len(five)} objects of {args.well}, channels {', '.join(args.channels)}")
    print("| family | columns | equal in 4.2.8 and 5 | only in 5 |\n|---|---|---|---|")
    for family, (n, same, only) in sorted(families.items()):
        print(f"| {family} | {n} | {same} | {only} |")
    print("\n| measurement | columns that differ | worst gap by the tolerance |\n|---|---|---|")
    for measurement, gaps in sorted(differ.items()):
        print(f"| {measurement} | {len(gaps)} | {max(gaps, key=lambda g: float(g.split(',')[0]))} |")
    lacking = sorted({c.split("_", 1)[1].split("_")[0] for c in four if c.startswith(OBJECTS)} - set(families))
    print(f"\nnot compared: {', '.join(lacking)}")


if __name__ == "__main__":
    main()
