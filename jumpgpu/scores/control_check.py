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

from ..profiles.platemap import CONTROL, NEGCON, feature_columns
from ..settings.names import well_position
from .common import PERCENTILE, correlations, generator, medians_within

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
            return f"negative controls that share only a {self.place}: no check: {self.reason}"
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
            f"{self.percent:.1f} % of negative controls that share only a {self.place} pass (95 % interval {self.low:.1f} to "
            f"{self.high:.1f}, chance {CHANCE:.0f}): part of this score is the {self.place}"
            + ("; judge by --null position, or correct it (recipe: corrections = [\"position\"])" if self.place == "position" else "")
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


def negative_controls(profiles: pd.DataFrame) -> pd.DataFrame:
    """The negative controls in (plate, well) order, with their row and column from 1; none where nothing says which."""
    if CONTROL not in profiles:
        return profiles.iloc[:0]
    wells = profiles[profiles[CONTROL] == NEGCON]
    return wells.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)


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
    at: pd.DataFrame, k: int, draws: int, random: np.random.Generator, rows: np.ndarray | None = None, differ: Sequence[str] = ()
) -> np.ndarray:
    """Sets of k wells that differ pairwise in each place of `differ`: int [draws or fewer, k]; none where there are none."""
    rows = np.arange(len(at)) if rows is None else rows
    if len(rows) < k:
        return np.empty((0, k), np.int64)
    codes = [at[place].to_numpy()[rows] for place in differ]
    if any(len(np.unique(c)) < k for c in codes):
        return np.empty((0, k), np.int64)
    found, n = np.empty((0, k), np.int64), 0
    for _ in range(50):
        pick = random.integers(len(rows), size=(draws, k))
        good = (np.diff(np.sort(pick, axis=1), axis=1) > 0).all(axis=1)
        for c in codes:
            good &= (np.diff(np.sort(c[pick], axis=1), axis=1) > 0).all(axis=1)
        found = np.concatenate([found, rows[pick[good]]])
        n = len(found)
        if n >= draws:
            break
    return found[:draws]


def shared_sets(at: pd.DataFrame, place: str, k: int, random: np.random.Generator) -> list[np.ndarray]:
    """For each unit of a place, sets of k controls that share it and nothing else: int [sets, k] each.

    Of a position all wells together, one a plate, where it has no more than k; else drawn sets.
    """
    differ = {"position": ("plate",), "row": ("column", "plate"), "column": ("row", "plate"), "plate": ("row", "column")}[place]
    sets = []
    for unit in range(int(at[place].max(initial=-1)) + 1):
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
    profiles: pd.DataFrame, k: int, condition: str = "", seed: int = 0, which: Sequence[str] = PLACES, circular: str = ""
) -> list[ControlCheck]:
    """Percent Replicating of negative controls that share a place.

    Parameters
    ----------
    profiles : DataFrame
        The profiles that are scored, negative controls included.
    k : int
        Wells in a set, as in the score's null.
    circular : str
        Why these controls cannot be judged at all (a step was fitted on them); every check then says so.
    """
    wells = negative_controls(profiles)
    if why := circular or unfit(wells):
        return [ControlCheck(place, reason=why) for place in which]
    r, at = correlations(wells[feature_columns(wells)].to_numpy(float)), places(wells)
    checks = []
    for place in which:
        random = generator("control check", "replicating", condition, place, k, seed)
        size = min(k, at["plate"].nunique()) if place == "position" else k
        if place == "position" and size < 2:
            checks.append(ControlCheck(place, reason="one plate; controls share a position across plates"))
            continue
        sets = shared_sets(at, place, size, random)
        null = medians_within(r, unlike_sets(at, size, NULL_SETS, random))
        checks.append(judge_units(place, [medians_within(r, s) for s in sets], null, random))
    return checks


def unfit(wells: pd.DataFrame) -> str:
    """Why negative controls cannot be checked; empty where they can."""
    if len(wells) == 0:
        return "no negative control in these profiles"
    if wells["Metadata_Well"].nunique() < FEWEST:
        return f"negative controls at {wells['Metadata_Well'].nunique()} positions; {FEWEST} at least"
    if not np.isfinite(wells[feature_columns(wells)].to_numpy(float)).all(axis=0).sum() >= 2:
        return "fewer than two features are finite in all negative controls"
    return ""


def judge_units(place: str, units: list[np.ndarray], null: np.ndarray, random: np.random.Generator) -> ControlCheck:
    """A check from each unit's values [sets] and the controls' null."""
    fewest = {"position": FEWEST, "plate": 2}.get(place, 3)
    if len(units) < fewest or len(null) < 100:
        return ControlCheck(place, n=len(units), reason=f"negative controls share a {place} in {len(units)} places only")
    threshold = np.percentile(null, PERCENTILE)
    shares = np.array([(u > threshold).mean() for u in units])
    values = np.array([np.median(u) for u in units])
    if all(len(u) == 1 for u in units):
        low, high = proportion_interval(shares > 0.5)
    else:
        low, high = bootstrap_interval(shares, random)
    return ControlCheck(place, 100 * float(shares.mean()), low, high, len(units), values=values)
