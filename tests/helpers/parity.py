"""Our features against CellProfiler's own tables, on its own labels and flat fields (six real fields, 526 cells).

    python -m tests.helpers.parity --families intensity location --worst 20     # the columns with the worst gaps
    python -m tools.parity_page docs/parity.md                          # the comparison as a page

A column agrees when |ours - theirs| <= atol + rtol |theirs| for 99.9 % of the cells, NaN equal to NaN.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jumpgpu.features import families as features
from jumpgpu.features.objects import ObjectBatch
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.settings.config import FeatureSettings
from jumpgpu.settings.names import COMPARTMENTS, family_of, stored_order
from tests.helpers.real import TABLES, WELLS, real_batch, segmented_batch, unique_centres

LEVELS = {"1e-6 + 1e-4": (1e-6, 1e-4), "1e-6 + 1e-6": (1e-6, 1e-6), "1e-9 + 1e-7": (1e-9, 1e-7)}
IDENTITY = ("ImageNumber", "Metadata_Plate", "Metadata_Site")  # columns of its tables that are no measurements
SHARE = 0.999
ONE_PERCENT = 0.01


def tables(shared: Path, preset: str = "cpjump1") -> pd.DataFrame:
    """All of CellProfiler's numbers, a row per cell by well and object number, compartments before the names."""
    tables = []
    for compartment in COMPARTMENTS:
        table = pd.read_parquet(shared / TABLES[preset] / f"{compartment}.parquet")
        table = table.sort_values(["Metadata_Well", "ObjectNumber"]).set_index(["Metadata_Well", "ObjectNumber"])
        tables.append(table.drop(columns=[c for c in table if c in IDENTITY]).add_prefix(f"{compartment}_"))
    return pd.concat(tables, axis=1)


def reference(shared: Path, columns: Sequence[str], preset: str = "cpjump1") -> pd.DataFrame:
    """CellProfiler's numbers of these columns; KeyError for a column that it lacks."""
    return tables(shared, preset)[list(columns)]


def ours(
    shared: Path,
    device: Device,
    families: Sequence[str] | None = None,
    preset: str = "cpjump1",
    settings: FeatureSettings | None = None,
) -> pd.DataFrame:
    """Our numbers for the same cells; Neighbors from the raw images on, since the saved label images lack border objects."""
    families = tuple(families or features.FAMILIES)
    settings = settings or FeatureSettings()
    parts = []
    if others := tuple(f for f in families if f != "neighbors"):
        parts.append(measured(real_batch(shared, device, preset=preset), replace(settings, families=others), device))
    if "neighbors" in families:
        batch = segmented_batch(shared, device, preset)
        parts.append(measured(batch, replace(settings, families=("neighbors",)), device))
    table = pd.concat(parts, axis=1)
    return table.iloc[:, stored_order(list(table.columns))]


def measured(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> pd.DataFrame:
    o = batch.objects
    table = features.measure_batch(batch, settings, device).cpu().numpy()
    index = pd.MultiIndex.from_arrays(
        [np.array(WELLS)[o.field.cpu().numpy()], o.number.cpu().numpy()], names=["Metadata_Well", "ObjectNumber"]
    )
    return pd.DataFrame(table, index, features.columns(o.compartments, batch.channels, settings)).sort_index()


def comparable(column: str, scene_index: pd.MultiIndex, shared: Path, preset: str = "cpjump1") -> np.ndarray:
    """Which cells a column is judged on."""
    if family_of(column) == "RadialDistribution":  # CellProfiler's choice among several centres is its sort's
        unique = unique_centres(shared, preset)[column.split("_", 1)[0]]
        return np.array([cell in unique for cell in scene_index])
    return np.ones(len(scene_index), bool)


def gaps(mine: pd.DataFrame, theirs: pd.DataFrame, shared: Path, preset: str = "cpjump1") -> pd.DataFrame:
    """Per column: the share of cells within each tolerance, the worst gap, and the cell that has it with both values."""
    assert mine.index.equals(theirs.index), "the cells differ from CellProfiler's"
    rows = []
    for column in mine.columns:
        use = comparable(column, mine.index, shared, preset)
        a, b = mine[column].to_numpy(float)[use], theirs[column].to_numpy(float)[use]
        if not len(a):
            continue
        gap = np.where(np.isnan(a) & np.isnan(b), 0, np.abs(a - b))
        gap = np.where((a == b), 0, np.where(np.isnan(gap), np.inf, gap))
        scale = np.nan_to_num(np.abs(b))
        within = {name: float(np.mean(gap <= atol + rtol * scale)) for name, (atol, rtol) in LEVELS.items()}
        worst = int(np.argmax(gap / (1e-6 + 1e-4 * scale)))
        rows.append(
            {
                "column": column,
                "family": family_of(column),
                **within,
                "gap": gap[worst],
                "relative": gap[worst] / scale[worst] if scale[worst] else np.inf if gap[worst] else 0.0,
                "ours": a[worst],
                "theirs": b[worst],
                "cell": "/".join(map(str, mine.index[use][worst])),
            }
        )
    return pd.DataFrame(rows).set_index("column")


def end_to_end(shared: Path, device: Device) -> pd.DataFrame:
    """From the raw images on: per column the largest relative gap between our well means and CellProfiler's, and where.

    Our own segmentation, every family, every cell; both means leave out NaN, and two NaN means agree.
    """
    mine = measured(segmented_batch(shared, device), FeatureSettings(families=features.FAMILIES), device)
    ours, theirs = (t.groupby(level="Metadata_Well").mean() for t in (mine, reference(shared, mine.columns)))
    gap = (ours - theirs).abs().where(ours.notna() | theirs.notna(), 0.0)
    relative = (gap / theirs.abs()).where(gap > 0, 0.0).fillna(np.inf)
    well = relative.idxmax()
    picked = [(c, well[c]) for c in mine.columns]
    return pd.DataFrame(
        {
            "family": [family_of(c) for c in mine.columns],
            "relative": relative.max().to_numpy(),
            "well": well.to_numpy(),
            "ours": [ours.at[w, c] for c, w in picked],
            "theirs": [theirs.at[w, c] for c, w in picked],
        },
        index=mine.columns,
    )


def agreeing(result: pd.DataFrame) -> pd.DataFrame:
    """Per family: columns compared, and how many agree at each tolerance."""
    table = result.groupby("family", sort=False)[list(LEVELS)].agg(lambda s: int((s >= SHARE).sum()))
    table.insert(0, "columns", result.groupby("family", sort=False).size())
    table.loc["all"] = table.sum()
    return table


def misses(result: pd.DataFrame, level: str = "1e-6 + 1e-4") -> pd.DataFrame:
    """The columns that do not agree, worst first."""
    return result[result[level] < SHARE].sort_values(level)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=TABLES, default="cpjump1")
    parser.add_argument("--families", nargs="+", choices=features.FAMILIES, help="default: all")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--worst", type=int, default=15, help="how many of the worst columns to print")
    parser.add_argument("--level", choices=LEVELS, default="1e-6 + 1e-4", help="the tolerance by which they are ranked")
    args = parser.parse_args()
    device = open_device("cpu")
    start = time.process_time()
    mine = ours(args.shared, device, args.families, args.preset)
    print(f"{time.process_time() - start:.2f} s of CPU for {len(mine)} cells, {mine.shape[1]} columns (reading included)")
    both = [c for c in mine.columns if c in tables(args.shared, args.preset).columns]  # a preset's tables may have few
    result = gaps(mine[both], reference(args.shared, both, args.preset), args.shared, args.preset)
    print(agreeing(result).to_string())
    shown = result.sort_values([args.level, "gap"], ascending=[True, False]).head(args.worst)
    print(shown.drop(columns="family").to_string(float_format=lambda v: f"{v:.6g}"))


if __name__ == "__main__":
    main()
