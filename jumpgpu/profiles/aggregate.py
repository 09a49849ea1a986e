"""Cells to wells: one profile a well, the well's cells read one well at a time."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from .recipe import STATISTICS

OBJECT_COLUMNS = ("Metadata_Site", "Metadata_ObjectNumber")  # identify a cell within its well
COUNT = "Metadata_Object_Count"  # cells of the well (pycytominer's name)
BLOCK = 256  # columns that are added at a time: a well's rows of them fit a cache


class Plate(Protocol):
    """What `jumpgpu.open_plate` gives: complete wells and their cells."""

    @property
    def wells(self) -> Sequence[str]: ...

    def to_pandas(self, wells: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame: ...


def aggregate(plate: Plate, statistic: str = "mean") -> pd.DataFrame:
    """Mean or median of every feature over each well's cells.

    Parameters
    ----------
    plate : an open plate
        Its cells are read well by well, so memory does not grow with the plate.
    statistic : {"mean", "median"}
        Cells where a feature is nan do not count for it; a feature that is nan in every cell is nan.

    Returns
    -------
    DataFrame
        One row a well that has cells: Metadata_Plate, Metadata_Well, Metadata_Site_Count, Metadata_Object_Count, then the
        features as float64 in stored order.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"unknown statistic {statistic!r}; expected one of {STATISTICS}")
    identities, profiles = [], []
    features: list[str] = []
    columns: pd.Index | None = None
    for well, cells in read_wells(plate):
        if columns is None or not cells.columns.equals(columns):
            names = [c for c in cells.columns if not c.startswith("Metadata_")]
            if features and names != features:
                raise ValueError(f"well {well} has other features than the wells before it; extract the plate again")
            features, columns = names, cells.columns
            last = list(columns[len(columns) - len(names) :]) == names
        if len(cells) == 0:
            continue
        values = cells.iloc[:, len(columns) - len(features) :] if last else cells[features]  # the one is no copy
        profiles.append(summarize(values.to_numpy(), statistic))
        identities.append(
            {
                "Metadata_Plate": str(cells["Metadata_Plate"].iloc[0]),
                "Metadata_Well": well,
                "Metadata_Site_Count": int(cells["Metadata_Site"].nunique()),
                COUNT: len(cells),
            }
        )
    if not profiles:
        raise ValueError("the plate has no well with cells; nothing to profile")
    return pd.concat([pd.DataFrame(identities), pd.DataFrame(np.stack(profiles), columns=features)], axis=1)


def read_wells(plate: Plate) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each well's cells, one well in memory at a time."""
    for well in plate.wells:
        yield well, plate.to_pandas(wells=[well])


def summarize(values: np.ndarray, statistic: str) -> np.ndarray:
    """float [N, F] to float64 [F], over the rows; nan counts as absent."""
    if statistic == "median":
        missing = np.isnan(values)
        sorted_values = np.sort(values.astype(np.float64), axis=0)  # nan last
        n = len(values) - missing.sum(axis=0)
        low = np.take_along_axis(sorted_values, np.maximum(n - 1, 0)[None] // 2, axis=0)[0]
        high = np.take_along_axis(sorted_values, np.minimum(n // 2, len(values) - 1)[None], axis=0)[0]
        return np.where(n > 0, np.where(low == high, low, (low + high) / 2), np.nan)
    n_columns = values.shape[1]
    mean = np.empty(n_columns)
    starts = range(0, max(1, n_columns - 1), BLOCK)  # the last block has two columns or more: of one, NumPy adds by halves
    with np.errstate(invalid="ignore"):  # nan from no value, or from infinities of both signs
        for start in starts:
            here = slice(start, start + BLOCK if start != starts[-1] else n_columns)
            rows = np.array(values[:, here], order="C")  # one order of summation, however the rows lie in memory
            missing = np.isnan(rows)
            rows[missing] = 0
            mean[here] = rows.sum(axis=0, dtype=np.float64) / (len(values) - missing.sum(axis=0))
    return mean
