"""Cells to wells: one profile a well, the well's cells read one well at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

from .recipe import STATISTICS

OBJECT_COLUMNS = ("Metadata_Site", "Metadata_ObjectNumber")  # identify a cell within its well
COUNT = "Metadata_Object_Count"  # cells of the well (pycytominer's name)
READERS = 2  # threads that read wells; more of them wait for each other
Result = TypeVar("Result")
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

    def profile(well: str, cells: pd.DataFrame) -> tuple[dict[str, object], pd.Index, np.ndarray] | None:
        if len(cells) == 0:
            return None
        names = [c for c in cells.columns if not c.startswith("Metadata_")]
        last = cells.columns[len(cells.columns) - len(names) :]
        values = (  # the one is no copy
            cells.iloc[:, len(cells.columns) - len(names) :] if list(last) == names else cells[names]
        )
        identity = {
            "Metadata_Plate": str(cells["Metadata_Plate"].iloc[0]),
            "Metadata_Well": well,
            "Metadata_Site_Count": int(cells["Metadata_Site"].nunique()),
            COUNT: len(cells),
        }
        return identity, values.columns, summarize(values.to_numpy(), statistic)

    wells = [result for result in each_well(plate, profile) if result is not None]
    if not wells:
        raise ValueError("the plate has no well with cells; nothing to profile")
    identities, names, profiles = zip(*wells, strict=True)
    for identity, columns in zip(identities, names, strict=True):
        if not columns.equals(names[0]):
            well = identity["Metadata_Well"]
            raise ValueError(f"well {well} has other features than the wells before it; extract the plate again")
    return pd.concat([pd.DataFrame(identities), pd.DataFrame(np.stack(profiles), columns=names[0])], axis=1)


def each_well(plate: Plate, work: Callable[[str, pd.DataFrame], Result]) -> Iterator[Result]:
    """What `work` makes of each well's cells, in the plate's order; `READERS` wells are in memory, each with its thread.

    Reading a well is mostly digests and unpacking, during which other Python threads run.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="well") as threads:
        waiting: deque[Future[Result]] = deque()
        try:
            for well in plate.wells:
                if len(waiting) == READERS:
                    yield waiting.popleft().result()
                waiting.append(threads.submit(lambda well: work(well, plate.to_pandas(wells=[well])), well))
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


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
            n, sums = len(values), rows.sum(axis=0, dtype=np.float64)
            if not np.isfinite(sums).all():
                missing = np.isnan(rows)
                rows[missing] = 0
                n, sums = n - missing.sum(axis=0), rows.sum(axis=0, dtype=np.float64)
            mean[here] = sums / n
    return mean
