"""Mean average precision by copairs: how well a treatment's replicates, or a label's treatments, retrieve each other.

Two conventions for the p-value of a group, which differ on the same data; every table has both:

map         p of the group's mAP against the mean of nulls of its wells' configurations (copairs now; it reuses one null
            for all wells of a configuration)
geometric   the geometric mean of the wells' own p-values (scores published before December 2023)

q-values are Benjamini-Hochberg's over the groups of a condition, and the fraction retrieved is the share with q < 0.05.
"""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.design_checks import treated_wells
from ..profiles.platemap import SAMPLE, control_values, is_negcon, metadata_columns
from ..profiles.text_tables import as_text, label_text, split_labels
from .average_precision import CONVENTIONS as CONVENTIONS
from .average_precision import NULL_SIZE as NULL_SIZE
from .average_precision import THRESHOLD as THRESHOLD
from .average_precision import average_precision, significance
from .common import Complete, complete, generator
from .control_check import FEWEST, ControlCheck, check_precision, control_precision, negative_controls, own_features, places
from .intervals import mean_interval
from .position_null import CONTROLS, TREATMENTS


@dataclass(frozen=True)
class MeanPrecision:
    """mAP of one condition: one row per group with n_wells, value (the mAP), p, q and retrieved by both conventions."""

    name: str
    condition: str
    table: pd.DataFrame
    settings: dict[str, Any]
    findings: tuple[str, ...] = ()
    checks: tuple[ControlCheck, ...] = ()

    def fraction_retrieved(self, convention: str = "map") -> float:
        """Share of the groups with q < 0.05."""
        if convention not in CONVENTIONS:
            raise ValueError(f"unknown p-value convention {convention!r}; expected one of {CONVENTIONS}")
        return float(self.table[f"retrieved_{convention}"].mean())

    def interval(self, column: str) -> tuple[float, float]:
        """95 % interval of a column's mean, by resampling groups with their wells."""
        random = generator("map interval", self.name, self.condition, column)
        return mean_interval(self.table[column].to_numpy(float), random)

    def summary(self) -> dict[str, Any]:
        """The result as a flat record."""
        intervals = {"mean_map": self.interval("value")}
        intervals |= {f"fraction_retrieved_{c}": self.interval(f"retrieved_{c}") for c in CONVENTIONS}
        return {
            "score": self.name,
            "condition": self.condition,
            "groups": len(self.table),
            "mean_map": float(self.table["value"].mean()),
            **{f"fraction_retrieved_{c}": self.fraction_retrieved(c) for c in CONVENTIONS},
            **{f"{k}_{end}": v for k, ends in intervals.items() for end, v in zip(("low", "high"), ends, strict=True)},
            **self.settings,
            **{k: v for check in self.checks for k, v in check.record().items()},
            "findings": list(self.findings),
        }

    def tidy(self) -> pd.DataFrame:
        """The table with its score and condition, to be put below others."""
        table = self.table.copy()
        table.insert(0, "condition", self.condition)
        table.insert(0, "score", self.name)
        return table


def mean_average_precision(
    profiles: pd.DataFrame,
    *,
    label: str | None = None,
    group: str = SAMPLE,
    keep: Sequence[str] | None = None,
    across: str | None = None,
    condition: str = "",
    null_size: int = NULL_SIZE,
    seed: int = 0,
    also: Sequence[str] = (),
    null: str = "wells",
    controls: pd.DataFrame | str | None = None,
) -> MeanPrecision:
    """Mean average precision of a treatment's replicates, or with `label` of the treatments that share a label.

    Parameters
    ----------
    profiles : DataFrame
        Profiles of the plates together, a row per well, with `Metadata_` columns.
    label : str, optional
        Column of labels, several separated by `|`; where None, the replicates of `group` are retrieved (`replicability`).
    group : str
        The column that names a treatment.
    keep, across : optional
        With `label`: only these treatments; a column column in which the two treatments of a pair must differ.
    condition : str
        What is scored; the null is seeded by it.
    null_size, seed : int
        Random rankings in the null; another seed, another null.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.
    null : {"wells", "position"}
        Without `label`: rank against the controls of the plate, or against wells of the same position.
    controls : DataFrame or str, optional
        Negative controls to check the score by, or why there is no check.

    Returns
    -------
    MeanPrecision
        A row per group: n_wells, value (the mAP), p, q and retrieved by both conventions.

    Raises
    ------
    ValueError
        For a column that is not there, or nothing to score.
    """
    if label is None:
        if keep is not None or across is not None:
            raise ValueError("keep and across go with label")
        return replicability(profiles, group, condition, null_size, seed, also, null, controls)
    return matching(profiles, label, group, keep, across, condition, null_size, seed, also, controls)


def replicability(
    profiles: pd.DataFrame,
    group: str = SAMPLE,
    condition: str = "",
    null_size: int = NULL_SIZE,
    seed: int = 0,
    also: Sequence[str] = (),
    null: str = "wells",
    controls: pd.DataFrame | str | None = None,
) -> MeanPrecision:
    """Each well ranks its replicates among the negative controls of its plate by cosine similarity.

    Parameters
    ----------
    profiles : DataFrame
        Profiles of the replicate plates together, negative controls included; empty wells (no treatment, or "")
        are left out.
    group : str
        The column whose equal values are replicates.
    null_size : int
        Random rankings for each configuration (number of positives, number of all).
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.
    null : {"wells", "position"}
        "position": replicates are ranked among wells of their position on other plates that hold another treatment
        (copairs' `neg_sameby`), where the layouts allow it. Where every treatment keeps its well they are ranked as ever,
        and p is the share of control positions whose controls retrieve each other as well: its least value is
        1 / (positions + 1).
    controls : DataFrame or str, optional
        Profiles of the negative controls to check the score by, where those in `profiles` were fitted on; or why there is
        no check.
    """
    check_null(null_size)
    if null not in ("wells", "position"):
        raise ValueError(f"null must be 'wells' or 'position', got {null!r}")
    where = condition or "these plates"
    negcon = is_negcon(profiles)
    if not negcon.any():
        raise ValueError(f"{where}: no negative controls to rank replicates among; {control_values(profiles)}")
    chosen = complete(profiles[negcon | treated_wells(profiles, group)], also)
    rows = chosen.profiles.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)
    negcon = is_negcon(rows)
    sample = as_text(rows[group])
    if not sample[~negcon].duplicated().any():
        raise ValueError(f"{where}: no value of {group} has two wells, so nothing can be retrieved")
    if lost := sorted(set(rows["Metadata_Plate"]) - set(rows.loc[negcon, "Metadata_Plate"])):
        raise ValueError(
            f"{where}: plate {lost[0]} ({len(lost)} in all) has no negative controls to rank its wells among; leave it out"
        )
    sample[negcon] = [f"negative control {i}" for i in range(int(negcon.sum()))]  # no control is another's replicate
    meta = pd.DataFrame({"sample": sample, "plate": rows["Metadata_Plate"], "well": rows["Metadata_Well"]})
    meta["negcon"] = negcon.astype(int)
    values = rows[chosen.features].to_numpy(float)
    settings = settings_of(group, null_size, seed, chosen) | {"null": null, "null_of": "negative controls of the plate"}
    findings, circular, own_place = chosen.findings(), [], False
    served = ("replicability", condition)
    others = others_at_position(meta)
    if null == "position" and 2 * (others[~negcon] >= FEWEST_OTHERS).sum() >= (~negcon).sum():
        settings["null_of"], own_place = TREATMENTS, True
        able = (others >= FEWEST_OTHERS) & ~negcon
        if lost_wells := int((~negcon & ~able).sum()):
            findings.append(
                f"{lost_wells} of {int((~negcon).sum())} wells have no other treatment at their position: left out"
            )
        precision = average_precision(meta, values, ["sample"], [], ["well"], ["sample"])
        table = significance(precision[able.to_numpy()], "sample", served, null_size, seed)
    else:
        precision = average_precision(meta, values, ["sample"], [], ["plate"], ["negcon"])
        table = significance(precision[precision["negcon"] == 0], "sample", served, null_size, seed)
        if null == "position":
            settings["null_of"], circular = CONTROLS, ["position"]
            if isinstance(controls, str):
                raise ValueError(f"{where}: no null by position: {controls}")
            table = judge_by_controls(table, profiles, chosen.features, condition, null_size, seed, where)
    table = table.rename(columns={"sample": group})
    judged: pd.DataFrame | str
    judged, own = (profiles, chosen.features) if controls is None else (controls, own_features(controls, also))
    if own_place:  # what controls do among their plate's other controls would be another score
        judged = "replicates are ranked among wells of their own position, where controls have none of another treatment"
    checks = check_precision(judged, own, condition, null_size, seed, circular=circular)
    findings += filter(None, (c.finding() for c in checks))
    return MeanPrecision("map-replicability", condition, table, settings, tuple(findings), tuple(checks))


FEWEST_OTHERS = 2  # wells of another treatment at its position that a well is ranked among


def others_at_position(meta: pd.DataFrame) -> pd.Series:
    """Wells of each row's position that hold another sample: int a row."""
    wells = meta.groupby("well")["sample"].transform("size")
    same = meta.groupby(["well", "sample"])["sample"].transform("size")
    return wells - same


def judge_by_controls(
    table: pd.DataFrame,
    profiles: pd.DataFrame,
    features: Sequence[str],
    condition: str,
    null_size: int,
    seed: int,
    where: str,
) -> pd.DataFrame:
    """The table with p, q and retrieved by how many control positions do as well as the treatment, by both conventions."""
    from scipy.stats import false_discovery_control

    wells, values, why = negative_controls(profiles, features)
    at = places(wells) if not why else pd.DataFrame()
    control = pd.DataFrame() if why else control_precision(at, values, "position", condition, null_size, seed)
    if len(control) < FEWEST:
        raise ValueError(
            f"{where}: no null by position in this layout: every treatment keeps its well, and negative controls share "
            f"{len(control)} positions across plates ({FEWEST} at least){': ' + why if why else ''}; use --null wells"
        )
    strengths = {"map": ("value", 1.0), "geometric": ("p_geometric", -1.0)}  # larger is stronger
    judged = table.copy()
    for convention, (column, sign) in strengths.items():
        null = np.sort(sign * control[column].to_numpy())
        as_well = len(null) - np.searchsorted(null, sign * table[column].to_numpy(), side="left")
        judged[f"p_{convention}"] = (as_well + 1) / (len(null) + 1)
        judged[f"q_{convention}"] = false_discovery_control(judged[f"p_{convention}"])
        judged[f"retrieved_{convention}"] = judged[f"q_{convention}"] < THRESHOLD
    return judged


def matching(
    profiles: pd.DataFrame,
    label: str,
    group: str = SAMPLE,
    keep: Sequence[str] | None = None,
    across: str | None = None,
    condition: str = "",
    null_size: int = NULL_SIZE,
    seed: int = 0,
    also: Sequence[str] = (),
    controls: pd.DataFrame | str | None = None,
) -> MeanPrecision:
    """Each treatment's consensus ranks those that share a label among those that share none, by |cosine|.

    Parameters
    ----------
    profiles : DataFrame
        Profiles of all plates together.
    label : str
        The column of labels; several labels of a treatment are separated by `|`.
    group : str
        The column that names a treatment; its consensus is the median over its wells.
    keep : treatments to take, usually those `replicability` retrieved; None takes all
    across : str
        A column (such as Metadata_Perturbation) in which the two of a pair must differ, positives and negatives alike.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.
    """
    check_null(null_size)
    where = condition or "these plates"
    if lost := [c for c in (label, group, across) if c and c not in profiles]:
        raise ValueError(f"the profiles have no column {lost[0]}; there are {', '.join(metadata_columns(profiles))}")
    named = as_text(profiles[group])
    wells = profiles.assign(**{group: named, label: label_text(profiles[label])})
    wells = wells[treated_wells(wells, group) & wells[label].notna()]
    if keep is not None:
        wells = wells[wells[group].isin({str(k) for k in keep})]
    if wells.empty:
        raise ValueError(f"{where}: no treatment with a {label} is left to match")
    for column in (label, *([across] if across else [])):
        several = wells.groupby(group)[column].nunique()
        if (several > 1).any():
            name = several.index[several > 1][0]
            raise ValueError(f"{name} has {several[name]} values of {column}; a treatment may have only one")
    chosen = complete(wells, also)
    wells = chosen.profiles
    consensus = wells.groupby(group, sort=True)[chosen.features].median()
    first = wells.groupby(group, sort=True)[[label, *([across] if across else [])]].first()
    labels = split_labels(first[label])
    kinds = as_text(first[across]).fillna("") if across else pd.Series(dtype=object)
    check_labels(list(labels), list(consensus.index), list(kinds), where)
    meta = pd.DataFrame({"sample": consensus.index, "label": [list(names) for names in labels]})
    differ = []
    if across:
        meta["across"], differ = kinds.to_numpy(), ["across"]
    precision = average_precision(
        meta, consensus.to_numpy(float), ["label"], differ, [], ["label", *differ], multilabel="label"
    )
    table = significance(precision, "label", ("matching", condition), null_size, seed).rename(columns={"label": label})
    table = table.rename(columns={"n_wells": "n_treatments"})
    settings = {**settings_of(group, null_size, seed, chosen), "label": label, "across": across}
    judged, own = (profiles, chosen.features) if controls is None else (controls, own_features(controls, also))
    checks = check_precision(judged, own, condition, null_size, seed, which=("row", "column"))
    findings = (*chosen.findings(), *filter(None, (c.finding() for c in checks)))
    return MeanPrecision("map-matching", condition, table, settings, findings, tuple(checks))


def check_null(null_size: int) -> None:
    if null_size < 1:
        raise ValueError(f"null_size must be 1 or more, got {null_size}")


def settings_of(group: str, null_size: int, seed: int, chosen: Complete) -> dict[str, Any]:
    return {
        "group": group,
        "null_size": null_size,
        "seed": seed,
        **chosen.settings(),
        "copairs": importlib.metadata.version("copairs"),
    }


def check_labels(labels: Sequence[tuple[str, ...]], names: Sequence[str], across: Sequence[str], where: str) -> None:
    """ValueError where no two treatments share a label, or where one shares a label with every other."""
    known = sorted({v for result in labels for v in result})
    carried = np.array([[v in result for v in known] for result in labels], dtype=np.int32).reshape(len(labels), -1)
    shared = carried @ carried.T > 0
    differ = np.array([[a != b for b in across] for a in across]) if len(across) else ~np.eye(len(labels), dtype=bool)
    if not (shared & differ).any():
        raise ValueError(f"{where}: no two treatments share a label, so nothing can match")
    if (alone := (shared & differ).any(axis=1) & ~(~shared & differ).any(axis=1)).any():
        name = names[int(np.flatnonzero(alone)[0])]
        raise ValueError(f"{where}: {name} shares a label with every other treatment: there is none to rank them among")
