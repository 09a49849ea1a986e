"""Cells to wells: one profile a well, the well's cells read one well at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

from ..store.means import column_means
from ..store.reader import StoredPlate
from .recipe import STATISTICS

OBJECT_COLUMNS = ("Metadata_Site", "Metadata_ObjectNumber")  # identify a cell within its well
COUNT = "Metadata_Object_Count"  # cells of the well (pycytominer's name)
READERS = 2  # threads that read wells; more of them wait for each other
Result = TypeVar("Result")


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
        Of a stored plate the means are taken that its wells keep of their cells; else cells are read, well by well, so that
        memory does not grow with the plate. The bits are the same.
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

    columns = pd.Index(plate.columns if isinstance(plate, StoredPlate) else ())

    def profile(well: str) -> tuple[dict[str, object], pd.Index, np.ndarray]:
        if statistic == "mean" and isinstance(plate, StoredPlate):
            record, means = plate.means(well)
            if means is not None:
                sites = sum(site["cells"] > 0 for site in record["sites"])
                return identity_of(plate.barcode, well, sites, record["cells"]), columns, means
        cells = plate.to_pandas(wells=[well])
        names = [c for c in cells.columns if not c.startswith("Metadata_")]
        last = cells.columns[len(cells.columns) - len(names) :]
        values = (  # the one is no copy
            cells.iloc[:, len(cells.columns) - len(names) :] if list(last) == names else cells[names]
        )
        barcode, sites = next(iter(cells["Metadata_Plate"]), ""), cells["Metadata_Site"].nunique()
        result = summarize(values.to_numpy(), statistic) if len(cells) else np.empty(0)
        return identity_of(str(barcode), well, sites, len(cells)), values.columns, result

    wells = [result for result in each_well(plate, profile) if result[0][COUNT]]
    if not wells:
        raise ValueError("the plate has no well with cells; nothing to profile")
    identities, names, profiles = zip(*wells, strict=True)
    for identity, own in zip(identities, names, strict=True):
        if not own.equals(names[0]):
            well = identity["Metadata_Well"]
            raise ValueError(f"well {well} has other features than the wells before it; extract the plate again")
    return pd.concat([pd.DataFrame(identities), pd.DataFrame(np.stack(profiles), columns=names[0])], axis=1)


def identity_of(plate: str, well: str, sites: int, cells: int) -> dict[str, object]:
    """The Metadata columns of a well's profile; sites are those that have cells."""
    return {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site_Count": sites, COUNT: cells}


def each_well(plate: Plate, work: Callable[[str], Result]) -> Iterator[Result]:
    """What `work` makes of each well, in the plate's order; `READERS` wells are in memory, each with its thread.

    Reading a well is mostly digests and unpacking, during which other Python threads run.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="well") as threads:
        waiting: deque[Future[Result]] = deque()
        try:
            for well in plate.wells:
                if len(waiting) == READERS:
                    yield waiting.popleft().result()
                waiting.append(threads.submit(work, well))
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
    return column_means([values], values.shape[1])
