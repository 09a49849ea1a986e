"""95 % intervals of scores, by resampling treatments with all their wells.

Replicates of one treatment belong together: a well drawn twice would correlate with itself, so treatments (or controls'
positions) are resampled whole. A treatment drawn w times counts w times, and a null set counts with the product of its
members' counts, so that the threshold moves with the treatments that make it. Where sets take so many of the treatments that
most resamples leave none whole (16 of 18), the threshold is held as it was drawn, and `held_null` says so.
"""

import numpy as np

from .common import PERCENTILE

RESAMPLES = 500
TRIALS = 100  # resamples that say whether a null's sets outlive them
HELD = (
    "the interval holds the null's threshold as drawn: its sets take {k} of {n} treatments, so that most resamples leave no "
    "set whole"
)


def percent_interval(
    values: np.ndarray,
    members: np.ndarray,
    null: np.ndarray,
    null_members: np.ndarray,
    random: np.random.Generator,
    null_random: np.random.Generator | None = None,
) -> tuple[float, float]:
    """Bootstrap interval of the percent of values above the null's 95th percentile.

    The threshold is resampled with the null's units, and held where half of the resamples or more leave no set whole.

    Parameters
    ----------
    values : float64 [G]
        Of groups or pairs; nan counts for nothing.
    members : int [G] or [G, 2]
        The treatments of each group (itself) or pair.
    null : float64 [N]
    null_members : int [N, k]
        The treatments of each null set, in the same codes; or the controls' positions, in codes of their own.
    null_random : Generator, optional
        Given where the null is of other units than the values: they are resampled by themselves.

    Returns
    -------
    low, high : float
        In percent; nan where nothing is scored.
    """
    scored = np.isfinite(values)
    if not scored.any() or len(null) < 2:
        return float("nan"), float("nan")
    values, members = values[scored], np.atleast_2d(members.T).T[scored]
    null_members = np.atleast_2d(null_members.T).T
    n_units, n_null = int(max(members.max(), 0)) + 1, int(null_members.max()) + 1
    if null_random is None:
        n_units = n_null = max(n_units, n_null)
    order = np.argsort(null, kind="stable")
    ordered, ordered_members = null[order], null_members[order]
    held = held_null(null_members)
    shares = []
    for _ in range(RESAMPLES):
        counts = np.bincount(random.integers(n_units, size=n_units), minlength=n_units).astype(float)
        weights = counts[members].prod(axis=1)
        of_null = counts
        if null_random is not None:
            of_null = np.bincount(null_random.integers(n_null, size=n_null), minlength=n_null).astype(float)
        cumulative = np.cumsum(np.ones(len(ordered)) if held else of_null[ordered_members].prod(axis=1))
        if cumulative[-1] == 0 or weights.sum() == 0:
            continue
        at = np.searchsorted(cumulative, PERCENTILE / 100 * cumulative[-1])
        threshold = ordered[min(int(at), len(ordered) - 1)]
        shares.append(100 * weights[values > threshold].sum() / weights.sum())
    if not shares:
        return float("nan"), float("nan")
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def held_null(null_members: np.ndarray) -> str:
    """Why a null's threshold is not resampled with its units, int [N, k]; empty where it is.

    Half of the resamples of n units or more hold no set whole where the sets that a resample can hold are too few: judged on
    resamples of its own.
    """
    null_members = np.atleast_2d(null_members.T).T
    units = np.unique(null_members)
    random, n = np.random.Generator(np.random.PCG64(0)), int(null_members.max()) + 1
    lost = 0
    for _ in range(TRIALS):
        counts = np.zeros(n, bool)
        counts[random.choice(units, len(units))] = True
        lost += not counts[null_members].all(axis=1).any()
    return HELD.format(k=null_members.shape[1], n=len(units)) if 2 * lost >= TRIALS else ""


def mean_interval(values: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    """Bootstrap interval of a mean over groups: float64 [G]."""
    if len(values) == 0:
        return float("nan"), float("nan")
    means = values[random.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
