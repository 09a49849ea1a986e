"""How sure a profile value is: the bootstrap of a well's cells.

Cells are drawn again with replacement, as many as there are, and the standard deviation of the well's mean (or median)
over the draws is its standard error. It says how much the well's own cells scatter, not how much wells do.
"""

import hashlib

import numpy as np
import pandas as pd

from .aggregate import COUNT, Plate, each_well, summarize
from .recipe import STATISTICS

RESAMPLES = 200
BLOCK = 16 * 2**20  # bytes of drawn values at once, of each well that is worked at


def standard_errors(plate: Plate, statistic: str = "mean", resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Standard error of every value that `aggregate` gives.

    Parameters
    ----------
    plate : an open plate
    statistic : {"mean", "median"}
    resamples : int
        Draws of a well's cells, 2 at least.
    seed : int
        A well's draws follow from seed, plate and well alone, whatever other wells there are.

    Returns
    -------
    DataFrame
        As `aggregate`'s: one row per well with Metadata_Plate, _Well, _Object_Count, then the features: float64
        standard errors, in the feature's unit; nan for a well of one cell, and where the value itself is nan.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"unknown statistic {statistic!r}; expected one of {STATISTICS}")
    if resamples < 2:
        raise ValueError(f"resamples must be 2 or more, got {resamples}")

    def error(well: str) -> tuple[dict[str, object], list[str], np.ndarray] | None:
        cells = plate.to_pandas(wells=[well])
        if len(cells) == 0:
            return None
        features = [c for c in cells.columns if not c.startswith("Metadata_")]
        barcode = str(cells["Metadata_Plate"].iloc[0])
        random = np.random.Generator(np.random.PCG64(well_seed(seed, barcode, well)))
        values = standard_error(cells[features].to_numpy(float), statistic, resamples, random)
        return {"Metadata_Plate": barcode, "Metadata_Well": well, COUNT: len(cells)}, features, values

    wells = [result for result in each_well(plate, error) if result is not None]
    if not wells:
        raise ValueError("the plate has no well with cells; nothing to resample")
    identities, features, errors = zip(*wells, strict=True)
    return pd.concat([pd.DataFrame(identities), pd.DataFrame(np.stack(errors), columns=features[0])], axis=1)


def well_seed(seed: int, plate: str, well: str) -> int:
    digest = hashlib.sha256(f"{seed}\x1f{plate}\x1f{well}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def standard_error(values: np.ndarray, statistic: str, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Bootstrap standard error of each column's mean or median: float64 [N, F] to [F]; nan counts as absent."""
    n, n_features = values.shape
    if n < 2:
        return np.full(n_features, np.nan)
    rows = random.integers(n, size=(resamples, n))
    if statistic == "mean":
        counts = np.stack([np.bincount(r, minlength=n) for r in rows]).astype(float)  # [resamples, N]
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (counts @ np.where(known, values, 0)) / (counts @ known)
    else:
        step = max(1, BLOCK // (8 * resamples * n))
        parts = [
            np.stack([summarize(values[r, start : start + step], "median") for r in rows])
            for start in range(0, n_features, step)
        ]
        means = np.concatenate(parts, axis=1)
    drawn = np.isfinite(means)
    few = drawn.sum(axis=0) < 2
    center = np.where(drawn, means, 0).sum(axis=0) / np.maximum(drawn.sum(axis=0), 1)
    squares = np.where(drawn, (means - center) ** 2, 0).sum(axis=0) / np.maximum(drawn.sum(axis=0) - 1, 1)
    return np.where(few, np.nan, np.sqrt(squares))
