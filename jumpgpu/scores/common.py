"""What all scores share: which wells and features take part, how alike profiles are, and nulls that any machine repeats.

A null is seeded by what it serves (score, condition, wells a draw), and rows are put into (plate, well) order first, so
neither the order of plates nor of conditions changes a score.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.design_checks import is_inner, treated_wells
from ..profiles.platemap import SAMPLE, common_features
from ..settings.names import BRIGHTFIELD, CHANNELS

DRAWS = 10_000
PERCENTILE = 95.0  # of the null: 5 % false positives
LARGEST = 25_000  # profiles whose correlation matrix (5 GB) is still made


@dataclass(frozen=True)
class Score:
    """A score of one condition against its null.

    name, condition   which score, and of what
    table             one row a group or pair: labels, n_wells, value (nan: not scored), then what `judge` adds
    null              float64 [draws]: the null's medians (of the typical size, where sizes have nulls of their own)
    settings          what the numbers depend on
    """

    name: str
    condition: str
    table: pd.DataFrame
    null: np.ndarray
    settings: dict[str, Any]

    def share(self, column: str) -> float:
        """Percent of the scored rows for which a column of `judge` is true."""
        scored = self.table["value"].notna()
        return float(100 * self.table.loc[scored, column].mean()) if scored.any() else float("nan")

    @property
    def percent(self) -> float:
        """Percent above the null's 95th percentile: the published, one-sided score."""
        return self.share("above")

    def summary(self) -> dict[str, Any]:
        """The score as a flat record."""
        scored = int(self.table["value"].notna().sum())
        return {
            "score": self.name,
            "condition": self.condition,
            "percent": self.percent,
            "percent_below": self.share("below"),
            "percent_absolute": self.share("beyond"),
            "scored": scored,
            "unscored": len(self.table) - scored,
            "null_5th": float(np.percentile(self.null, 100 - PERCENTILE)),
            "null_95th": float(np.percentile(self.null, PERCENTILE)),
            **self.settings,
        }

    def histogram(self, bins: int = 40) -> dict[str, list[float]]:
        """Shares of the scored values and of the null in equal bins: `edges` [bins + 1], `values`, `null` [bins]."""
        values = self.table["value"].dropna().to_numpy(float)
        edges = np.histogram_bin_edges(np.concatenate([values, self.null]), bins)
        shares = {k: np.histogram(v, edges)[0] / max(1, len(v)) for k, v in (("values", values), ("null", self.null))}
        return {"edges": edges.tolist(), **{k: v.tolist() for k, v in shares.items()}}

    def tidy(self) -> pd.DataFrame:
        """The table with its score and condition, to be put below others."""
        table = self.table.copy()
        table.insert(0, "condition", self.condition)
        table.insert(0, "score", self.name)
        return table


def judge(table: pd.DataFrame, null: np.ndarray) -> pd.DataFrame:
    """Where values lie against a null: above its 95th percentile, below its 5th, |value| beyond the 95th of the |null|."""
    upper, lower = np.percentile(null, PERCENTILE), np.percentile(null, 100 - PERCENTILE)
    value = table["value"]
    beyond = value.abs() > np.percentile(np.abs(null), PERCENTILE)
    return table.assign(threshold=upper, above=value > upper, below=value < lower, beyond=beyond)


def generator(*served: object) -> np.random.Generator:
    """Random numbers seeded by what they serve: the same words give the same draws, everywhere and in any order."""
    digest = hashlib.sha256("\x1f".join(map(str, served)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def concatenate(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Profiles of several plates: the features they have in common, rows in (plate, well) order."""
    if not tables:
        raise ValueError("no profiles to score")
    features = common_features(tables)
    if not features:
        raise ValueError("the plates have no feature in common; give tables of one recipe")
    names = list(dict.fromkeys(c for t in tables for c in t if c.startswith("Metadata_")))
    parts = [t[[c for c in names if c in t]].dropna(axis=1, how="all") for t in tables]
    metadata = pd.concat(parts, ignore_index=True).reindex(columns=names)
    order = metadata.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable").index
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    values, row = np.empty((len(order), len(features))), 0
    for table in tables:  # one copy of the features, however many plates
        values[place[row : row + len(table)]] = table[features].to_numpy(float)
        row += len(table)
    return pd.concat([metadata.loc[order].reset_index(drop=True), pd.DataFrame(values, columns=features)], axis=1)


def choose_wells(profiles: pd.DataFrame, group: str = SAMPLE, inner: bool = False, plate_format: int = 384) -> pd.DataFrame:
    """Treated wells with a value of `group`: no negative control, no empty well; positive controls stay."""
    keep = treated_wells(profiles, group)
    if inner:
        keep &= is_inner(profiles["Metadata_Well"], plate_format)
    if not keep.any():
        raise ValueError(f"no treated well is left of {len(profiles)}")
    return profiles[keep].reset_index(drop=True)


def choose_features(
    features: Sequence[str],
    channels: Sequence[str] = (),
    families: Sequence[str] = (),
    compartments: Sequence[str] = (),
    without_channels: Sequence[str] = (),
) -> list[str]:
    """Features of these channels, families and compartments; nothing given means all.

    A feature is of the channels its name carries; with `channels`, only features that name one of them and no other stay
    (AreaShape names none and goes). `without_channels` drops every feature that names one of them.
    """
    known = {*CHANNELS, *BRIGHTFIELD}
    if strange := [c for c in (*channels, *without_channels) if c not in known]:
        raise ValueError(f"unknown channel {strange[0]!r}; expected one of {(*CHANNELS, *BRIGHTFIELD)}")
    chosen = []
    for feature in features:
        words = feature.split("_")
        named = known & set(words)
        if channels and (not named or not named <= set(channels)):
            continue
        if named & set(without_channels) or (families and not set(words[1:2]) & set(families)):
            continue
        if compartments and words[0] not in compartments:
            continue
        chosen.append(feature)
    if not chosen:
        raise ValueError(f"no feature of {len(features)} is left after choosing channels, families and compartments")
    return chosen


def correlations(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Pearson r of profiles: float [P, F] (and float [Q, F]) to float64 [P, P] (or [P, Q]).

    A feature that is not finite in some profile takes part in none.
    """
    if len(a) > LARGEST or (b is not None and len(b) > LARGEST):
        raise ValueError(f"{len(a)} profiles in one score; score by condition (--by), {LARGEST} at most")
    finite = np.isfinite(a).all(axis=0) & (True if b is None else np.isfinite(b).all(axis=0))
    if finite.sum() < 2:
        raise ValueError("fewer than two features are finite in all profiles; select features first")
    x = standardize(a[:, finite])
    return x @ (x if b is None else standardize(b[:, finite])).T


def standardize(profiles: np.ndarray) -> np.ndarray:
    """Rows minus their mean, over their norm; a constant row is nan."""
    centered = profiles - profiles.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return centered / np.linalg.norm(centered, axis=1, keepdims=True)


def medians_within(r: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Median correlation over all pairs of each group's rows: int [G, k] into [P, P] to float64 [G]; nan for k < 2."""
    i, j = np.triu_indices(rows.shape[1], 1)
    if len(i) == 0:
        return np.full(len(rows), np.nan)
    return np.concatenate([np.median(r[part[:, i], part[:, j]], axis=1) for part in chunks(rows, len(i))])


def chunks(rows: np.ndarray, pairs: int) -> Iterator[np.ndarray]:
    """Rows in parts whose gathered pairs take at most 64 MB."""
    step = max(1, 8_000_000 // max(1, pairs))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def groups_by_size(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of equal size together: codes [P] (0..G-1) to (group numbers [g], rows [g, size])."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for size in np.unique(counts[counts > 0]):
        groups = np.flatnonzero(counts == size)
        yield groups, order[starts[groups][:, None] + np.arange(size)]


def draw_distinct(codes: np.ndarray, k: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """Rows of `draws` sets of k wells that all belong to different groups: int [draws, k].

    Each set is uniform over such sets: wells are drawn alike, and sets that repeat a group are drawn again.
    """
    if len(np.unique(codes)) < k:
        raise ValueError(f"a null of {k} wells of different treatments needs {k} treatments, found {len(np.unique(codes))}")
    sets = np.empty((0, k), np.int64)
    while len(sets) < draws:
        rows = random.integers(len(codes), size=(draws, k))
        drawn = np.sort(codes[rows], axis=1)
        sets = np.concatenate([sets, rows[(np.diff(drawn, axis=1) > 0).all(axis=1)]])
    return sets[:draws]
