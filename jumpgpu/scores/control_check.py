"""What a score says of negative controls that share only a place: a position, a row, a column or a plate.

Negative controls do nothing, so controls that share a place and "replicate" show how much of a score is the place. By
chance 5 % of them pass. The check runs beside every score, on the same features, with a null drawn from the controls
themselves in the way the score draws its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.platemap import CONTROL, NEGATIVE, feature_columns, is_negcon
from ..settings.names import counted, well_position
from .average_precision import THRESHOLD, average_precision, significance
from .common import FEWEST_KEPT, PERCENTILE, complete, correlations, draw_groups, generator, medians_within, standardize

PLACES = ("position", "row", "column", "plate")
CHANCE = 100 - PERCENTILE  # percent of controls that pass where places do nothing
FEWEST = 8  # units below which a percentage means nothing
SETS = 200  # drawn for each row, column or plate
NULL_SETS = 5_000
RESAMPLES = 2_000


@dataclass(frozen=True)
class ControlCheck:
    """The score of negative controls that share a place, or why there is none.

    place     what they share: position, row, column, plate
    percent   percent of these controls that pass the score's own threshold; nan where `reason` says why there is none
    low, high its 95 % interval: exact binomial over positions, bootstrap over rows, columns or plates
    n         positions, rows, columns or plates
    values    float64 [n], the controls' values: the null by position
    """

    place: str
    percent: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0
    reason: str = ""
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    further: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The check as a flat record, its keys beginning with `controls_<place>_`."""
        keys: dict[str, Any] = {"percent": self.percent, "low": self.low, "high": self.high, "n": self.n, **self.further}
        if self.reason:
            keys["reason"] = self.reason
        return {f"controls_{self.place}_{k}": v for k, v in keys.items()}

    def line(self) -> str:
        """The check in words."""
        if self.reason:
            return f"negative controls that share only a {self.place}: not checked: {self.reason}"
        units = f"{self.n} {self.place}s"
        more = "".join(f", {k.replace('_', ' ')} {v:.3f}" for k, v in self.further.items())
        return (
            f"negative controls that share only a {self.place}: {self.percent:.1f} % pass [{self.low:.1f}, {self.high:.1f}] "
            f"over {units} (chance {CHANCE:.0f} %){more}"
        )

    def finding(self) -> str:
        """Why the score beside it cannot be read as it stands; empty where it can."""
        if not self.low > CHANCE:
            return ""
        return (
            f"{self.percent:.1f} % of negative controls that share only a {self.place} pass (95 % interval {self.low:.1f} "
            f"to {self.high:.1f}, chance {CHANCE:.0f}): part of this score is the {self.place}"
            + (
                '; judge by --null position, or correct it (recipe: corrections = ["position"])'
                if self.place == "position"
                else ""
            )
        )


def proportion_interval(passed: np.ndarray) -> tuple[float, float]:
    """Exact 95 % interval (Clopper and Pearson), in percent, of a share of independent units: bool [n]."""
    from scipy.stats import binomtest

    interval = binomtest(int(passed.sum()), len(passed)).proportion_ci(0.95, "exact")
    return 100 * float(interval.low), 100 * float(interval.high)


def bootstrap_interval(shares: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of a mean of units, in percent: float64 [n] shares."""
    means = shares[random.integers(len(shares), size=(RESAMPLES, len(shares)))].mean(axis=1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return float(low), float(high)


def own_features(controls: pd.DataFrame | str, also: Sequence[str]) -> list[str]:
    """The features of controls that were given apart from the profiles."""
    return [] if isinstance(controls, str) else feature_columns(controls, also)


def negative_controls(profiles: pd.DataFrame, features: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray, str]:
    """The negative controls in (plate, well) order, their values of these features, and why they cannot be checked.

    Features and wells with gaps are left out by the rule of `common.complete`; the reason is empty where all is well.
    """
    none = np.empty((0, 0))
    if not {CONTROL, NEGATIVE} & set(profiles.columns) or not (negcon := is_negcon(profiles)).any():
        return profiles.iloc[:0], none, "no negative control in these profiles"
    wells = profiles.loc[negcon, ["Metadata_Plate", "Metadata_Well", *features]]
    if (n := wells["Metadata_Well"].nunique()) < FEWEST:
        return wells, none, f"negative controls at {counted(n, 'position')}, at least {FEWEST} are needed"
    wells = wells.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)
    try:
        chosen = complete(wells, features)
    except ValueError as error:
        return wells, none, str(error)
    return chosen.profiles, chosen.values, ""


def places(wells: pd.DataFrame) -> pd.DataFrame:
    """Each well's position, row, column and plate as codes from 0: int columns named so."""
    at = np.array([well_position(str(w)) for w in wells["Metadata_Well"]]).reshape(-1, 2)
    codes = {
        "position": pd.factorize(wells["Metadata_Well"], sort=True)[0],
        "row": pd.factorize(at[:, 0], sort=True)[0],
        "column": pd.factorize(at[:, 1], sort=True)[0],
        "plate": pd.factorize(wells["Metadata_Plate"], sort=True)[0],
    }
    return pd.DataFrame(codes)


def draw_sets(
    at: pd.DataFrame,
    k: int,
    draws: int,
    random: np.random.Generator,
    rows: np.ndarray | None = None,
    differ: Sequence[str] = (),
) -> np.ndarray:
    """Sets of k wells that differ pairwise in each place of `differ`: int [draws or fewer, k]; none where there are none."""
    rows = np.arange(len(at)) if rows is None else rows
    if len(rows) < k:
        return np.empty((0, k), np.int64)
    codes = [at[place].to_numpy()[rows] for place in differ]
    if any(len(np.unique(c)) < k for c in codes):
        return np.empty((0, k), np.int64)
    result, n = np.empty((0, k), np.int64), 0
    fewest = min(codes, key=lambda c: len(np.unique(c)), default=np.arange(len(rows)))
    for turn in range(50):
        if turn and n < FEWEST_KEPT * draws * turn:  # few sets differ in all: those that differ in the rarest are drawn
            pick = draw_groups(fewest, k, draws, random)
        else:
            pick = random.integers(len(rows), size=(draws, k))
        good = (np.diff(np.sort(pick, axis=1), axis=1) > 0).all(axis=1)
        for c in codes:
            good &= (np.diff(np.sort(c[pick], axis=1), axis=1) > 0).all(axis=1)
        result = np.concatenate([result, rows[pick[good]]])
        n = len(result)
        if n >= draws:
            break
    return result[:draws]


def shared_sets(at: pd.DataFrame, place: str, k: int, random: np.random.Generator) -> list[np.ndarray]:
    """For each unit of a place, sets of k controls that share it and nothing else: int [sets, k] each.

    Of a position all wells together, one a plate, where it has no more than k; else drawn sets.
    """
    differ = {"position": ("plate",), "row": ("column", "plate"), "column": ("row", "plate"), "plate": ("row", "column")}[
        place
    ]
    sets = []
    for unit in range(int(at[place].max()) + 1):
        rows = np.flatnonzero(at[place].to_numpy() == unit)
        if place == "position" and 2 <= len(rows) <= k:
            sets.append(rows[None])
        else:
            sets.append(draw_sets(at, k, SETS, random, rows, differ))
    return [s for s in sets if len(s)]


def unlike_sets(at: pd.DataFrame, k: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """Sets of k controls of different positions, and of different plates where there are so many: the controls' null."""
    differ = ("position", "plate") if at["plate"].nunique() >= k else ("position",)
    return draw_sets(at, k, draws, random, differ=differ)


def check_replicating(
    profiles: pd.DataFrame | str,
    features: Sequence[str],
    k: int,
    condition: str = "",
    seed: int = 0,
    which: Sequence[str] = PLACES,
    own_null: np.ndarray | None = None,
    circular: Sequence[str] = (),
) -> list[ControlCheck]:
    """Percent Replicating of negative controls that share a place.

    Parameters
    ----------
    profiles : DataFrame, or str
        Profiles with the negative controls; or why they cannot be judged (a step was fitted on them), which every check
        then says.
    features : list of str
        Those of the score.
    k : int
        Wells in a set, as in the score's null.
    own_null : float64 [N], optional
        The score's null where it is no null of wells of different treatments; without, the controls' own is drawn.
    circular : places that cannot be checked, because the score's null is made of these controls
    """
    if isinstance(profiles, str):
        return [ControlCheck(place, reason=profiles) for place in which]
    wells, values, why = negative_controls(profiles, features)
    if why:
        return [ControlCheck(place, reason=why) for place in which]
    r, at = correlations(values), places(wells)
    checks = []
    for place in which:
        random = generator("control check", "replicating", condition, place, k, seed)
        if place in circular:
            checks.append(ControlCheck(place, reason="circular: the null is made of these very controls"))
            continue
        size = min(k, at["plate"].nunique()) if place == "position" else k
        if size < 2:
            checks.append(ControlCheck(place, reason="one plate: controls share a position across plates"))
            continue
        sets = shared_sets(at, place, size, random)
        null = own_null if own_null is not None else medians_within(r, unlike_sets(at, size, NULL_SETS, random))
        if not len(null):
            checks.append(ControlCheck(place, reason=f"no {size} controls of different positions to judge them by"))
            continue
        checks.append(judge_units(place, [medians_within(r, s) for s in sets], null, random))
    return checks


def check_matching(
    profiles: pd.DataFrame | str,
    others: pd.DataFrame | str | None,
    features: Sequence[str],
    condition: str = "",
    seed: int = 0,
) -> list[ControlCheck]:
    """Percent Matching of negative controls: each position a treatment, pairs that share a place beside pairs that do not.

    Between two sets of plates a pair shares a position, a row or a column; within one, a row or a column.
    """
    which = ("row", "column") if others is None else ("position", "row", "column")
    if isinstance(profiles, str) or isinstance(others, str):
        why = profiles if isinstance(profiles, str) else str(others)
        return [ControlCheck(place, reason=why) for place in which]
    sides = [negative_controls(t, features) for t in ([profiles] if others is None else [profiles, others])]
    if why := next((s[2] for s in sides if s[2]), ""):
        return [ControlCheck(place, reason=why) for place in which]
    shared = [f for f in sides[0][0].columns if f in set(features) and f in set(sides[-1][0].columns)]
    a, b = ((wells, np.isfinite(wells[shared].to_numpy(float)).all(axis=0)) for wells in (sides[0][0], sides[-1][0]))
    used = [f for f, ok in zip(shared, a[1] & b[1], strict=True) if ok]
    if len(used) < 2:
        return [ControlCheck(place, reason="fewer than two features are finite in all negative controls") for place in which]
    (means_a, at_a), (means_b, at_b) = (position_means(wells, used) for wells in (a[0], b[0]))
    r = means_a @ means_b.T
    same = {place: at_a[place].to_numpy()[:, None] == at_b[place].to_numpy() for place in ("position", "row", "column")}
    pairs = np.triu(np.ones(r.shape, bool), 1) if others is None else np.ones(r.shape, bool)
    null = r[pairs & ~same["row"] & ~same["column"]]
    checks = []
    for place in which:
        random = generator("control check", "matching", condition, place, seed)
        chosen = pairs & same[place] & (~same["position"] if place != "position" else True)
        units = [r[i][chosen[i]] for i in range(len(r)) if chosen[i].any()]
        checks.append(judge_units(place, units, null, random))
    return checks


def check_retrieval(
    profiles: pd.DataFrame | str,
    others: pd.DataFrame | str,
    features: Sequence[str],
    condition: str = "",
    seed: int = 0,
) -> ControlCheck:
    """Percent of negative controls of one condition that are nearest, by r, to those of their own position in another.

    By chance one over the number of positions (`further["chance"]`, in percent) are; the interval resamples positions.
    """
    if isinstance(profiles, str) or isinstance(others, str):
        return ControlCheck("position", reason=profiles if isinstance(profiles, str) else str(others))
    sides = [negative_controls(t, [f for f in features if f in t]) for t in (profiles, others)]
    if why := next((s[2] for s in sides if s[2]), ""):
        return ControlCheck("position", reason=why)
    a, b = (s[0] for s in sides)
    used = [f for f in features if f in a and f in b and np.isfinite(a[f]).all() and np.isfinite(b[f]).all()]
    shared = sorted(set(a["Metadata_Well"]) & set(b["Metadata_Well"]))
    if len(shared) < FEWEST or len(used) < 2:
        return ControlCheck("position", reason=f"negative controls of both share {counted(len(shared), 'position')}")
    a = a[a["Metadata_Well"].isin(shared)]
    means = b.groupby("Metadata_Well")[used].mean().loc[shared]
    r = standardize(a[used].to_numpy(float)) @ standardize(means.to_numpy(float)).T
    codes = a["Metadata_Well"].map({w: i for i, w in enumerate(shared)}).to_numpy()
    shares = pd.Series(np.nan_to_num(r, nan=-2).argmax(axis=1) == codes).groupby(codes).mean().to_numpy(float)
    low, high = bootstrap_interval(shares, generator("control check", "transfer", condition, seed))
    chance = {"chance": 100 / len(shared)}
    return ControlCheck("position", 100 * float(shares.mean()), low, high, len(shared), values=shares, further=chance)


def position_means(wells: pd.DataFrame, features: Sequence[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Standardised mean profile of each control position, float64 [P, F], and its row and column."""
    means = wells.groupby("Metadata_Well", sort=True)[list(features)].mean()
    at = pd.DataFrame([well_position(str(w)) for w in means.index], columns=["row", "column"])
    return standardize(means.to_numpy(float)), at.assign(position=at["row"] * 100 + at["column"])


def check_precision(
    profiles: pd.DataFrame | str,
    features: Sequence[str],
    condition: str = "",
    null_size: int = 10_000,
    seed: int = 0,
    which: Sequence[str] = PLACES,
    circular: Sequence[str] = (),
) -> list[ControlCheck]:
    """mAP of negative controls: those that share a place retrieve each other among the other controls of their plate.

    percent is the share of positions (rows, columns, plates) with p < 0.05; mean_map their mean average precision, which is
    what to hold the treatments' against.
    """
    if isinstance(profiles, str):
        return [ControlCheck(place, reason=profiles) for place in which]
    wells, values, why = negative_controls(profiles, features)
    if why:
        return [ControlCheck(place, reason=why) for place in which]
    at, checks = places(wells), []
    for place in which:
        n, plates = int(at[place].nunique()), int(at["plate"].nunique())
        fewest = {"position": FEWEST, "plate": 2}.get(place, 3)
        if place in circular:
            checks.append(ControlCheck(place, reason="circular: the null is made of these very controls"))
            continue
        if n < fewest or (place == "position" and plates < 2):
            checks.append(ControlCheck(place, n=n, reason=f"controls at {counted(n, place)} of {counted(plates, 'plate')}"))
            continue
        table = control_precision(at, values, place, condition, null_size, seed)
        if len(table) < fewest:
            checks.append(ControlCheck(place, n=len(table), reason=f"{len(table)} {place}s have two controls to rank"))
            continue
        passed, maps = table["p_map"].to_numpy() < THRESHOLD, table["value"].to_numpy()
        low, high = proportion_interval(passed)
        further = {"mean_map": float(maps.mean())}
        checks.append(ControlCheck(place, 100 * float(passed.mean()), low, high, len(maps), values=maps, further=further))
    return checks


def control_precision(
    at: pd.DataFrame, values: np.ndarray, place: str, condition: str, null_size: int, seed: int
) -> pd.DataFrame:
    """mAP of the controls of each position (row, column, plate): `average_precision.significance`'s table; maybe empty.

    Positives share the place and nothing else; negatives are the other controls of the plate (of a plate: the others').
    """
    positive_differ = {"position": ["plate"], "row": ["position", "plate"], "column": ["position", "plate"]}
    if not (at.groupby(place)["plate" if place == "position" else "position"].nunique() > 1).any():
        return pd.DataFrame()
    negative_same, negative_differ = ([], ["plate", "position"]) if place == "plate" else (["plate"], [place])
    differ = positive_differ.get(place, ["position"])
    try:
        precision = average_precision(at, values, [place], differ, negative_same, negative_differ)
    except ValueError:  # copairs, where no pair is left
        return pd.DataFrame()
    return significance(precision, place, ("control check", condition), null_size, seed)


def judge_units(place: str, units: list[np.ndarray], null: np.ndarray, random: np.random.Generator) -> ControlCheck:
    """A check from each unit's values [sets] and the controls' null."""
    fewest = {"position": FEWEST, "plate": 2}.get(place, 3)
    if len(units) < fewest or len(null) < FEWEST:
        n, why = len(units), f"{len(null)} null sets of controls" if len(null) < FEWEST else ""
        return ControlCheck(place, n=n, reason=why or f"negative controls share a {place} and nothing else {n} times only")
    threshold = np.percentile(null, PERCENTILE)
    shares = np.array([(u > threshold).mean() for u in units])
    values = np.array([np.median(u) for u in units])
    if all(len(u) == 1 for u in units):
        low, high = proportion_interval(shares > 0.5)
    else:
        low, high = bootstrap_interval(shares, random)
    return ControlCheck(place, 100 * float(shares.mean()), low, high, len(units), values=values)
