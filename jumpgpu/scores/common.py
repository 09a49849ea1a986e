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
from ..profiles.platemap import SAMPLE, feature_columns, some
from ..profiles.text_tables import as_text
from ..profiles.together import concatenate as concatenate
from ..profiles.together import few_in_common as few_in_common
from ..profiles.together import no_features as no_features
from ..settings.names import BRIGHTFIELD, CHANNELS

DRAWS = 10_000
PERCENTILE = 95.0  # of the null: 5 % false positives
MISSING = 0.05  # most of the features that a well may lack and still be scored
FEWEST_KEPT = 0.05  # of drawn sets; where fewer hold k different groups, groups are drawn instead
LARGEST = 25_000  # profiles whose correlation matrix (5 GB) is still made


@dataclass(frozen=True)
class Score:
    """A score of one condition against its null.

    name, condition   which score, and of what
    table             one row a group or pair: labels, n_wells, value (nan: not scored), then what `judge` adds
    null              float64 [draws]: the null's medians (of the typical size, where sizes have nulls of their own)
    settings          what the numbers depend on
    findings          what the reader of the score has to know, a line each
    interval          95 % interval of `percent`, by resampling treatments with their wells
    checks            what the score says of negative controls that share only a place
    """

    name: str
    condition: str
    table: pd.DataFrame
    null: np.ndarray
    settings: dict[str, Any]
    findings: tuple[str, ...] = ()
    interval: tuple[float, float] = (float("nan"), float("nan"))
    checks: tuple[Any, ...] = ()

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
            "percent_low": self.interval[0],
            "percent_high": self.interval[1],
            "percent_below": self.share("below"),
            "percent_absolute": self.share("beyond"),
            "scored": scored,
            "unscored": len(self.table) - scored,
            "null_5th": float(np.percentile(self.null, 100 - PERCENTILE)),
            "null_95th": float(np.percentile(self.null, PERCENTILE)),
            **self.settings,
            **{k: v for check in self.checks for k, v in check.record().items()},
            "findings": list(self.findings),
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


@dataclass(frozen=True)
class Complete:
    """Profiles without a gap: the wells and features that a score is of, and what was left out for it.

    profiles        the wells kept, all columns, rows numbered anew
    features        those finite in every well kept
    n_features      how many there were
    left_out        `plate well (why)` of the wells left out, in order
    """

    profiles: pd.DataFrame
    features: list[str]
    n_features: int
    left_out: tuple[str, ...]

    @property
    def values(self) -> np.ndarray:
        """float64 [P, F]."""
        return self.profiles[self.features].to_numpy(float)

    def settings(self) -> dict[str, Any]:
        """What a score's record says of it."""
        return {
            "wells": len(self.profiles),
            "features": len(self.features),
            "features_given": self.n_features,
            "wells_left_out": list(self.left_out),
        }

    def findings(self) -> list[str]:
        """What was left out, a line each."""
        result = []
        if n := len(self.left_out):
            result.append(
                f"{n} {'wells are' if n > 1 else 'well is'} left out because features are missing: {some(self.left_out)}"
            )
        if lost := self.n_features - len(self.features):
            result.append(f"{len(self.features)} of {self.n_features} features are used; {lost} are missing in some well")
        return result


def complete(profiles: pd.DataFrame, also: Sequence[str] = (), missing: float = MISSING) -> Complete:
    """Wells and features between which no value is missing or infinite.

    The rule: of the features that at least half of the wells have, a well may lack the share `missing`; a well that lacks
    more is left out, as is one whose features all have one value, which correlates with nothing. Then a feature that is
    not finite in some well left takes part in none.
    """
    features = feature_columns(profiles, also)
    finite = np.isfinite(profiles[features].to_numpy(float))
    usual = finite[:, finite.mean(axis=0) >= 0.5] if len(finite) else finite
    lacking = (~usual).sum(axis=1)
    keep = lacking <= missing * usual.shape[1]
    shared = finite[keep].all(axis=0)
    if not keep.any() or shared.sum() < 2:
        raise ValueError(
            f"fewer than two of {len(features)} features are finite in every well of {len(profiles)}; select features first"
        )
    used = [f for f, ok in zip(features, shared, strict=True) if ok]
    values = profiles[used].to_numpy(float)
    flat = keep & (values.max(axis=1) == values.min(axis=1))
    names = [f"{p} {w}" for p, w in zip(profiles["Metadata_Plate"], profiles["Metadata_Well"], strict=True)]
    why = [f"lacks {n} of {usual.shape[1]} features" for n in lacking]
    left_out = sorted(f"{names[i]} ({why[i]})" for i in np.flatnonzero(~keep))
    left_out += sorted(f"{names[i]} (one value in every feature)" for i in np.flatnonzero(flat))
    if not (keep & ~flat).any():
        raise ValueError(f"every one of {len(profiles)} wells has one value in every feature; nothing can be compared")
    return Complete(profiles[keep & ~flat].reset_index(drop=True), used, len(features), tuple(left_out))


def choose_wells(profiles: pd.DataFrame, group: str = SAMPLE, inner: bool = False, plate_format: int = 384) -> pd.DataFrame:
    """Treated wells with a value of `group`, as text: no negative control, no empty well; positive controls stay."""
    keep = treated_wells(profiles, group)
    if inner:
        keep &= is_inner(profiles["Metadata_Well"], plate_format)
    if not keep.any():
        raise ValueError(f"no treated well is left of {len(profiles)}")
    return profiles.assign(**{group: as_text(profiles[group])})[keep].reset_index(drop=True)


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
    if len(i) == 0 or len(rows) == 0:
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

    Each set is uniform over such sets. Wells are drawn alike, and sets that repeat a group are drawn again; where few
    sets would be kept, groups are drawn first, each set of k with the product of its sizes for weight, then a well of each.
    """
    if len(np.unique(codes)) < k:
        raise ValueError(f"a null of {k} wells of different treatments needs {k} treatments, found {len(np.unique(codes))}")
    sets = np.empty((0, k), np.int64)
    while len(sets) < draws:
        rows = random.integers(len(codes), size=(draws, k))
        drawn = np.sort(codes[rows], axis=1)
        kept = rows[(np.diff(drawn, axis=1) > 0).all(axis=1)]
        if len(kept) < FEWEST_KEPT * draws:
            return draw_groups(codes, k, draws, random)
        sets = np.concatenate([sets, kept])
    return sets[:draws]


def draw_groups(codes: np.ndarray, k: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """Sets of k wells of different groups without a draw in vain: int [draws, k], in the order of groups.

    Group g of size n is taken with probability n e(k - 1, later) / e(k, g and later), where e(j, .) is the elementary
    symmetric polynomial of the sizes: the sum over all sets of j groups of the product of their sizes.
    """
    _, codes = np.unique(codes, return_inverse=True)
    sizes = np.bincount(codes)
    order, starts = np.argsort(codes, kind="stable"), np.concatenate([[0], np.cumsum(sizes)[:-1]])
    logs = np.full((len(sizes) + 1, k + 1), -np.inf)  # of e(j, g and later): [g, j]
    logs[:, 0] = 0
    for g in range(len(sizes) - 1, -1, -1):
        logs[g, 1:] = np.logaddexp(logs[g + 1, 1:], np.log(sizes[g]) + logs[g + 1, :-1])
    sets, lacking = np.empty((draws, k), np.int64), np.full(draws, k)
    for g, size in enumerate(sizes):
        with np.errstate(invalid="ignore"):
            share = np.exp(np.log(size) + logs[g + 1, lacking - 1] - logs[g, lacking])
        taken = np.flatnonzero((lacking > 0) & (random.random(draws) < share))
        sets[taken, k - lacking[taken]] = order[starts[g] + random.integers(size, size=len(taken))]
        lacking[taken] -= 1
    return sets
