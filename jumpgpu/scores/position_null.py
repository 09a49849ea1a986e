"""The null by position: what replicates that keep their well are judged against.

Where the plates have several layouts, a null set is wells of one position that hold different treatments: what the place
alone does. Where every treatment keeps its well, only negative controls share a position without a treatment, and a set is
the wells of one control position. Where neither is there, the layout makes this null impossible, and that is an error.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .control_check import FEWEST

TREATMENTS, CONTROLS = "wells of one position and different treatments", "negative controls that share a position"


@dataclass(frozen=True)
class PositionSets:
    """Sets of wells that share a position and no treatment.

    kind     `TREATMENTS` or `CONTROLS`: which wells the rows index
    rows     int [sets, k]
    units    int [sets]: the position of each
    """

    kind: str
    rows: np.ndarray
    units: np.ndarray


def position_sets(
    wells: pd.DataFrame,
    codes: np.ndarray,
    controls: pd.DataFrame,
    k: int,
    draws: int,
    random: np.random.Generator,
    where: str,
) -> PositionSets:
    """Null sets of k wells of one position.

    Parameters
    ----------
    wells, codes : DataFrame [P], int [P]
        Treated wells and their treatments.
    controls : DataFrame
        Negative controls.
    where : str
        What is scored, for errors.
    """
    sets, units = different_treatments(wells, codes, k, draws, random)
    positions = wells["Metadata_Well"].nunique()
    if len(np.unique(units)) >= max(FEWEST, positions / 2):
        return PositionSets(TREATMENTS, sets, units)
    at = pd.factorize(controls["Metadata_Well"], sort=True)[0]
    plates = pd.factorize(controls["Metadata_Plate"], sort=True)[0]
    by_position = [np.flatnonzero(at == u) for u in range(at.max(initial=-1) + 1)]
    shared = [rows for rows in by_position if len(np.unique(plates[rows])) >= k]
    if len(shared) < FEWEST:
        raise ValueError(
            f"{where}: no null by position in this layout: {k} plates hold different treatments at "
            f"{len(np.unique(units))} of {positions} positions, and negative controls at {len(shared)} positions "
            f"({FEWEST} at least); use --null wells, or plates of several layouts"
            + (f"; sets of fewer wells need fewer plates (--null-wells {n})" if 2 <= (n := len(set(plates))) < k else "")
        )
    if all(len(rows) == k for rows in shared):
        return PositionSets(CONTROLS, np.stack(shared), np.arange(len(shared)))
    unit = random.integers(len(shared), size=draws)
    rows = np.stack([random.permutation(shared[u])[:k] for u in unit])
    return PositionSets(CONTROLS, rows, unit)


def different_treatments(
    wells: pd.DataFrame, codes: np.ndarray, k: int, draws: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sets of k wells of one position, all of different treatments: int [sets, k] and their positions, int [sets]."""
    at = pd.factorize(wells["Metadata_Well"], sort=True)[0]
    order = np.argsort(at, kind="stable")
    starts = np.searchsorted(at[order], np.arange(at.max(initial=-1) + 2))
    able = [u for u in range(len(starts) - 1) if len(np.unique(codes[order[starts[u] : starts[u + 1]]])) >= k]
    if not able:
        return np.empty((0, k), np.int64), np.empty(0, np.int64)
    sets, units = [], []
    for u, n in zip(able, np.bincount(random.integers(len(able), size=draws), minlength=len(able)), strict=True):
        rows = order[starts[u] : starts[u + 1]]
        treatments = np.unique(codes[rows])
        for _ in range(n):
            chosen = random.permutation(treatments)[:k]
            sets.append([random.choice(rows[codes[rows] == c]) for c in chosen])
            units.append(u)
    return np.array(sets, np.int64).reshape(-1, k), np.array(units, np.int64)
