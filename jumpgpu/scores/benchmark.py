"""Representations against CPJUMP1's tasks, in one table: perturbation detection, matching and condition transfer.

Every score is what `jumpgpu score` gives for the same wells, with its 95 % interval and what it makes of negative controls
that share only a position.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..profiles.platemap import SAMPLE, is_negcon
from ..profiles.text_tables import label_text
from .common import DRAWS
from .control_check import ControlCheck, check_retrieval
from .mean_average_precision import NULL_SIZE, replicability
from .percent_matching import percent_matching
from .percent_replicating import percent_replicating
from .representations import Representation, representations
from .transfer import SPLITS, baselines, pairs, split_of

TASKS = ("replicating", "map", "matching", "transfer")
ALL = "all"


@dataclass(frozen=True)
class Benchmark:
    """A row per representation, task and measure.

    table     representation, kind, features, condition, task, measure, value, low, high (95 %), chance, n, and
              controls_percent, controls_low, controls_high: percent of negative controls that share only a position and pass
              (of transfer: that the identity retrieves by their position)
    findings  what was not judged, and what the scores found, a line each
    settings  what the numbers depend on
    """

    table: pd.DataFrame
    findings: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def measure(self, task: str, measure: str) -> pd.DataFrame:
        """The rows of one measure, best first."""
        rows = self.table[(self.table["task"] == task) & (self.table["measure"] == measure)]
        return rows.sort_values("value", ascending=False, kind="stable")


def benchmark(
    profiles: pd.DataFrame,
    others: pd.DataFrame | None = None,
    *,
    group: str = SAMPLE,
    label: str | None = None,
    condition: str = "",
    tasks: Sequence[str] = TASKS,
    only: Sequence[str] | None = None,
    split: str = ALL,
    null_wells: int | str = "typical",
    draws: int = DRAWS,
    null_size: int = NULL_SIZE,
    seed: int = 0,
    also: Sequence[str] = (),
    controls: pd.DataFrame | str | None = None,
    advance: Callable[[str], None] = lambda text: None,
) -> Benchmark:
    """Judge every representation that a table of profiles holds, on the same wells.

    Parameters
    ----------
    profiles : DataFrame
        Profiles of all plates of a condition together, a row per well, embeddings among their features.
    others : DataFrame, optional
        Of another condition: matching is then between the two, and transfer from the first to the second.
    group : str
        The column that names a treatment.
    label : str, optional
        The column by which treatments match, such as Metadata_gene; without it nothing is matched.
    tasks : of "replicating", "map", "matching", "transfer"
    only : names of representations; all where None
    split : {"all", "train", "validation", "test"}
        Only treatments of one part of the split that `pairs` makes by name and seed: "test" for networks trained on
        the others. Negative controls stay.
    null_wells, draws, null_size, seed, also, controls
        As in `percent_replicating` and `mean_average_precision`.
    advance : called with what is judged next

    Returns
    -------
    Benchmark

    Raises ValueError for an unknown task or split, and where no representation can be judged.
    """
    if unknown := [t for t in tasks if t not in TASKS]:
        raise ValueError(f"unknown task {unknown[0]!r}; expected some of {', '.join(TASKS)}")
    if split not in (ALL, *SPLITS):
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join((ALL, *SPLITS))}")
    sides = [chosen(t, group, split, seed) for t in (profiles, *([] if others is None else [others]))]
    judged, findings = representations(sides[0], also)
    if unknown := [name for name in only or () if name not in [r.name for r in judged]]:
        raise ValueError(f"no representation {unknown[0]!r}; these profiles hold {', '.join(r.name for r in judged)}")
    judged = [r for r in judged if only is None or r.name in only]
    second = {} if others is None else {r.name: r for r in representations(sides[1], also)[0]}
    rows: list[dict[str, Any]] = []
    for one in judged:
        advance(one.name)
        other = second.get(one.name)
        if others is not None and other is None:
            findings.append(f"{one.name}: the other condition has no such features: no matching and no transfer")
        common: dict[str, Any] = {"group": group, "condition": condition, "seed": seed, "also": also}
        nulls = {"null_wells": null_wells, "draws": draws, "null_size": null_size, "label": label}
        own = controls if controls is None or isinstance(controls, str) else like(one, controls, also)
        for task in tasks:
            if (task == "matching" and label is None) or (task == "transfer" and others is None):
                continue
            if others is not None and other is None and task in ("matching", "transfer"):
                continue
            try:
                for row in measured(task, one, other, own, common, nulls, findings):
                    shown = {"representation": one.name, "kind": one.kind, "features": one.n_features}
                    rows.append(shown | {"condition": condition, "task": task} | row)
            except ValueError as error:
                findings.append(f"{one.name}: {task}: not judged: {error}")
    if not rows:
        raise ValueError(f"{condition or 'these plates'}: nothing can be judged: {'; '.join(findings)}")
    settings = {"group": group, "label": label, "split": split, "draws": draws, "null_size": null_size, "seed": seed}
    settings |= {"null_wells": null_wells, "condition": condition}
    return Benchmark(pd.DataFrame(rows), tuple(dict.fromkeys(findings)), settings)


def chosen(profiles: pd.DataFrame, group: str, split: str, seed: int) -> pd.DataFrame:
    """The wells of one part of the split by treatment, and all negative controls."""
    if split == ALL:
        return profiles
    names = label_text(profiles[group])
    part = split_of(names.dropna().unique(), seed=seed)
    return profiles[(names.map(part) == split) | is_negcon(profiles)].reset_index(drop=True)


def like(one: Representation, controls: pd.DataFrame, also: Sequence[str]) -> pd.DataFrame | str:
    """The same representation of negative controls that were given apart."""
    result = {r.name: r.profiles for r in representations(controls, also)[0]}
    return result.get(one.name, "the controls that were held out lack its features")


def measured(
    task: str,
    one: Representation,
    other: Representation | None,
    controls: pd.DataFrame | str | None,
    common: dict[str, Any],
    nulls: dict[str, Any],
    findings: list[str],
) -> Iterator[dict[str, Any]]:
    """The rows of one representation and task; `findings` gets what their intervals are not."""
    if task == "replicating":
        given = {k: nulls[k] for k in ("null_wells", "draws")}
        score = percent_replicating(one.profiles, **common, **given, controls=controls)
        findings += [f"{task}: {held}" for held in [score.settings["interval_held"]] if held]
        yield (
            {"measure": "percent replicating", "value": score.percent, "chance": 5.0, "n": len(score.table)}
            | ends(score.interval)
            | self_check(score.checks)
        )
    elif task == "map":
        precision = replicability(one.profiles, **common, null_size=nulls["null_size"], controls=controls)
        shown = {"n": len(precision.table)} | self_check(precision.checks)
        for measure, column, value in (
            ("mean mAP", "value", float(precision.table["value"].mean())),
            ("fraction retrieved (map)", "retrieved_map", precision.fraction_retrieved("map")),
            ("fraction retrieved (geometric)", "retrieved_geometric", precision.fraction_retrieved("geometric")),
        ):
            yield {"measure": measure, "value": value, "chance": math.nan} | ends(precision.interval(column)) | shown
    elif task == "matching":
        between = None if other is None else other.profiles
        score = percent_matching(
            one.profiles, between, str(nulls["label"]), **common, draws=nulls["draws"], controls=controls
        )
        findings += [f"{task}: {held}" for held in [score.settings["interval_held"]] if held]
        yield (
            {"measure": "percent matching", "value": score.percent, "chance": 5.0, "n": len(score.table)}
            | ends(score.interval)
            | self_check(score.checks)
        )
    else:
        assert other is not None
        matched = pairs(one.profiles, other.profiles, common["group"], seed=common["seed"], also=common["also"])
        result = baselines(matched, common["condition"])
        check = transfer_check(one, other, controls, matched.features, common)
        if check.low > check.further.get("chance", math.inf):
            findings.append(
                f"{one.name}: transfer: {check.percent:.1f} % of negative controls find their position in the other "
                f"condition (chance {check.further['chance']:.1f}): part of retrieval is the position"
            )
        for row in result.table.to_dict("records"):
            for measure in ("explained_variance", "retrieval"):
                yield {
                    "measure": f"{measure.replace('_', ' ')}, {str(row['baseline']).partition(',')[0]}",
                    "value": row[measure],
                    "low": row[f"{measure}_low"],
                    "high": row[f"{measure}_high"],
                    "chance": row["chance"] if measure == "retrieval" else 0.0,
                    "n": row["treatments"],
                    **(self_check([check]) if (measure, row["baseline"]) == ("retrieval", "identity") else {}),
                }


def transfer_check(
    one: Representation,
    other: Representation,
    controls: pd.DataFrame | str | None,
    features: Sequence[str],
    common: dict[str, Any],
) -> ControlCheck:
    """What retrieval says of negative controls that share only a position, by those that may judge it."""
    sides: list[pd.DataFrame | str] = [one.profiles, other.profiles]
    if isinstance(controls, str):
        sides = [controls, controls]
    elif controls is not None:
        sides = [controls[controls["Metadata_Plate"].isin(set(r.profiles["Metadata_Plate"]))] for r in (one, other)]
    return check_retrieval(sides[0], sides[1], features, common["condition"], common["seed"])


def ends(interval: tuple[float, float]) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def self_check(checks: Sequence[Any]) -> dict[str, float]:
    """What negative controls that share only a position make of the score."""
    check = next((c for c in checks if c.place == "position"), None)
    if check is None or check.reason:
        return {"controls_percent": math.nan, "controls_low": math.nan, "controls_high": math.nan}
    return {"controls_percent": check.percent, "controls_low": check.low, "controls_high": check.high}
