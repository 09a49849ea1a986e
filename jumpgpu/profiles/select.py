"""Feature selection: which features go, and why.

Every operation sees all features, and what they exclude is united (pycytominer's `feature_select` chains them). The rules
are pycytominer's; two are written out here, with the same answers, because its forms take minutes at 5792 features.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from pycytominer.cyto_utils import drop_outlier_features, get_blocklist_features
from pycytominer.operations import get_na_columns, variance_threshold

from .platemap import feature_columns
from .recipe import SelectSettings

BLOCK = 512  # features at a time, where all at once would take much memory


class Correlations:
    """Pearson r of features over wells, kept for the next selection among the same wells.

    A plate normalised by other wells is the same up to a factor and an offset per feature, which r does not see.
    """

    def __init__(self) -> None:
        self._features: list[str] = []
        self._r = np.empty((0, 0))

    def of(self, profiles: pd.DataFrame, features: list[str]) -> np.ndarray:
        """float64 [F, F] of these features; computed where they were not among those before. Not to be changed."""
        if self._features == features:
            return self._r
        place = {feature: i for i, feature in enumerate(self._features)}
        if all(feature in place for feature in features):
            here = [place[feature] for feature in features]
            return self._r[np.ix_(here, here)]
        self._features, self._r = features, correlations(profiles[features].to_numpy(float))
        return self._r


def select(
    profiles: pd.DataFrame, settings: SelectSettings, also: Sequence[str] = (), known: Correlations | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Profiles without the features that the operations exclude, and those features with their reasons.

    Parameters
    ----------
    profiles : DataFrame
        Normalised profiles of a plate, or of all plates of a batch.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.
    known : Correlations, optional
        Of the selections before among the same wells, each feature the same up to a factor and an offset.

    Returns
    -------
    DataFrame, dict
        Feature to reason, such as "frequency" or "correlation; blocklist", in the order of the operations.
    """
    features = feature_columns(profiles, also)
    reasons: dict[str, str] = {}
    for operation in settings.operations:
        if operation == "correlation":
            excluded = set(correlated((known or Correlations()).of(profiles, features), features, settings))
        else:
            excluded = set(OPERATIONS[operation](profiles, features, settings))
        for feature in features:
            if feature in excluded:
                reasons[feature] = f"{reasons[feature]}; {operation}" if feature in reasons else operation
    return profiles.drop(columns=list(reasons)), reasons


def frequency(profiles: pd.DataFrame, features: list[str], settings: SelectSettings) -> list[str]:
    """The variance rule of 2021: too few distinct values, or one value far more common than the next.

    Out goes a feature with count(second most common) / count(most common) < `frequency_cut` (0 where only one value
    occurs) or distinct values / wells < `unique_cut`; missing values are no values but their wells count.
    """
    excluded = []
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK]
        columns = np.sort(profiles[block].to_numpy(float).T, axis=1)  # nan sorts last
        known = columns.shape[1] - np.isnan(columns).sum(axis=1)
        tied = (columns[:, 1:] == columns[:, :-1]).any(axis=1)
        for feature, n, values, repeats in zip(block, known, columns, tied, strict=True):
            if not repeats and n > 1:  # each value once
                if settings.frequency_cut > 1 or n / len(profiles) < settings.unique_cut:
                    excluded.append(feature)
                continue
            starts = np.flatnonzero(np.concatenate([[True], values[1:n] != values[: n - 1]])) if n else np.zeros(0, int)
            counts = np.sort(np.diff(starts, append=n))
            ratio = counts[-2] / counts[-1] if len(counts) > 1 else 0.0
            if ratio < settings.frequency_cut or len(counts) / len(profiles) < settings.unique_cut:
                excluded.append(feature)
    return excluded


def correlated(r: np.ndarray, features: list[str], settings: SelectSettings) -> list[str]:
    """Of each pair with Pearson r above the threshold (signed), the one with the larger sum of |r| over all features.

    Of equal sums (to nine digits) the later in stored order goes.
    """
    strength = np.zeros(len(features))
    for start in range(0, len(features), BLOCK):
        strength[start : start + BLOCK] = sums = np.abs(r[start : start + BLOCK]).sum(axis=1)
        unknown = start + np.flatnonzero(np.isnan(sums))
        strength[unknown] = np.nansum(np.abs(r[unknown]), axis=1)
    order = np.argsort(np.round(strength, 9), kind="stable")
    rank = np.empty(len(features), int)
    rank[order] = np.arange(len(features))
    first = np.full(len(features), len(features))  # of a feature's like, the rank of the weakest
    for start in range(0, len(features), BLOCK):
        rows, like = np.nonzero(r[start : start + BLOCK] > settings.correlation)
        np.minimum.at(first, start + rows, rank[like])
    return [feature for feature, goes in zip(features, first < rank, strict=True) if goes]


def correlations(values: np.ndarray) -> np.ndarray:
    """Pearson r of every two columns over the rows where both are finite: float64 [P, F] to [F, F].

    nan where fewer than two rows are left or one of the two is constant over them.
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    centered = np.where(known, values, 0)  # the one copy: a batch is a gigabyte
    largest = np.maximum(centered.max(axis=0, initial=0), -centered.min(axis=0, initial=0))
    centered -= np.divide(centered.sum(axis=0), n, out=np.zeros(len(n)), where=n > 0)
    centered[~known] = 0
    scale = np.maximum(centered.max(axis=0, initial=0), -centered.min(axis=0, initial=0))
    constant = scale <= 1e-13 * largest
    centered /= np.where(constant, 1, scale)
    centered[:, constant] = 0
    r = np.empty((values.shape[1], values.shape[1]))
    if known.all():
        np.matmul(centered.T, centered, out=r)
        spread = np.sqrt(np.diagonal(r))
        with np.errstate(invalid="ignore", divide="ignore"):
            r /= spread[:, None]
            r /= spread[None]
        return np.clip(r, -1, 1, out=r)
    mask, square = known.astype(float), centered**2
    for start in range(0, r.shape[0], BLOCK):
        a = slice(start, start + BLOCK)
        n_pairs = mask[:, a].T @ mask
        x, y = centered[:, a].T @ mask, mask[:, a].T @ centered  # sums of each over the shared rows
        with np.errstate(invalid="ignore", divide="ignore"):
            xx = square[:, a].T @ mask - x * x / n_pairs
            yy = mask[:, a].T @ square - y * y / n_pairs
            xy = centered[:, a].T @ centered - x * y / n_pairs
            flat = (xx <= 1e-12 * n_pairs) | (yy <= 1e-12 * n_pairs)
            r[a] = np.where(flat | (n_pairs < 2), np.nan, xy / np.sqrt(np.where(flat, 1, xx) * np.where(flat, 1, yy)))
    return np.clip(r, -1, 1, out=r)


def variance(profiles: pd.DataFrame, features: list[str], settings: SelectSettings) -> list[str]:
    """pycytominer's present rule: variance below `min_variance`."""
    return variance_threshold(profiles, features, min_variance=settings.min_variance)


def missing(profiles: pd.DataFrame, features: list[str], settings: SelectSettings) -> list[str]:
    """More than that share of wells has no value."""
    return get_na_columns(profiles, features, cutoff=settings.missing)


def blocklist(profiles: pd.DataFrame, features: list[str], settings: SelectSettings) -> list[str]:
    """The 55 features of pycytominer's block list (figshare 10255811)."""
    return get_blocklist_features(population_df=profiles)


def outliers(profiles: pd.DataFrame, features: list[str], settings: SelectSettings) -> list[str]:
    """A value beyond `outlier` on either side."""
    return drop_outlier_features(profiles, features, outlier_cutoff=settings.outlier)


OPERATIONS: dict[str, Callable[[pd.DataFrame, list[str], SelectSettings], list[str]]] = {
    "frequency": frequency,
    "variance": variance,
    "missing": missing,
    "blocklist": blocklist,
    "outliers": outliers,
}
