"""Mean average precision by copairs: how well a treatment's replicates, or a label's treatments, retrieve each other.

Two conventions for the p-value of a group, which differ on the same data; every table has both:

map         p of the group's mAP against the mean of nulls of its wells' configurations (copairs now; it reuses one null
            for all wells of a configuration)
geometric   the geometric mean of the wells' own p-values (scores published before December 2023)

q-values are Benjamini-Hochberg's over the groups of a condition, and the fraction retrieved is the share with q < 0.05.
"""

import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.design_checks import treated_wells
from ..profiles.platemap import SAMPLE, control_values, is_negcon, metadata_columns
from ..profiles.text_tables import as_text, label_text, split_labels
from .common import Complete, complete, generator

CONVENTIONS = ("map", "geometric")
NULL_SIZE = 10_000
THRESHOLD = 0.05


@dataclass(frozen=True)
class MeanPrecision:
    """mAP of one condition: a row a group with n_wells, value (the mAP), p, q and retrieved by both conventions."""

    name: str
    condition: str
    table: pd.DataFrame
    settings: dict[str, Any]
    findings: tuple[str, ...] = ()

    def fraction_retrieved(self, convention: str = "map") -> float:
        """Share of the groups with q < 0.05."""
        if convention not in CONVENTIONS:
            raise ValueError(f"unknown p-value convention {convention!r}; expected one of {CONVENTIONS}")
        return float(self.table[f"retrieved_{convention}"].mean())

    def summary(self) -> dict[str, Any]:
        """The result as a flat record."""
        return {
            "score": self.name,
            "condition": self.condition,
            "groups": len(self.table),
            "mean_map": float(self.table["value"].mean()),
            **{f"fraction_retrieved_{c}": self.fraction_retrieved(c) for c in CONVENTIONS},
            **self.settings,
            "findings": list(self.findings),
        }

    def tidy(self) -> pd.DataFrame:
        """The table with its score and condition, to be put below others."""
        table = self.table.copy()
        table.insert(0, "condition", self.condition)
        table.insert(0, "score", self.name)
        return table


def replicability(
    profiles: pd.DataFrame,
    group: str = SAMPLE,
    condition: str = "",
    null_size: int = NULL_SIZE,
    seed: int = 0,
    also: Sequence[str] = (),
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
    """
    check_null(null_size)
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
    meta = pd.DataFrame({"sample": sample, "plate": rows["Metadata_Plate"], "negcon": negcon.astype(int)})
    precision = average_precision(meta, rows[chosen.features].to_numpy(float), ["sample"], [], ["plate"], ["negcon"])
    precision = precision[precision["negcon"] == 0]
    table = significance(precision, "sample", ("replicability", condition), null_size, seed).rename(
        columns={"sample": group}
    )
    return MeanPrecision(
        "map-replicability", condition, table, settings_of(group, null_size, seed, chosen), tuple(chosen.findings())
    )


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
            raise ValueError(f"{name} has {several[name]} values of {column}; a treatment has one")
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
    return MeanPrecision("map-matching", condition, table, settings, tuple(chosen.findings()))


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
    known = sorted({v for found in labels for v in found})
    carried = np.array([[v in found for v in known] for found in labels], dtype=np.int32).reshape(len(labels), -1)
    shared = carried @ carried.T > 0
    differ = np.array([[a != b for b in across] for a in across]) if len(across) else ~np.eye(len(labels), dtype=bool)
    if not (shared & differ).any():
        raise ValueError(f"{where}: no two treatments share a label, so nothing can match")
    if (alone := (shared & differ).any(axis=1) & ~(~shared & differ).any(axis=1)).any():
        name = names[int(np.flatnonzero(alone)[0])]
        raise ValueError(f"{where}: {name} shares a label with every other treatment: there is none to rank them among")


def average_precision(
    meta: pd.DataFrame,
    values: np.ndarray,
    same: list[str],
    differ: list[str],
    negative_same: list[str],
    negative_differ: list[str],
    multilabel: str | None = None,
) -> pd.DataFrame:
    """copairs' average precision a row (a row and label where labels are lists); RuntimeError without copairs."""
    try:
        import copairs.map
        from copairs.map import multilabel as lists
    except ImportError as error:
        raise RuntimeError("mean average precision needs copairs: pip install 'jumpgpu[map]'") from error
    arguments = (meta, values, same, differ, negative_same, negative_differ)
    if multilabel is None:
        return copairs.map.average_precision(*arguments, progress_bar=False)
    return lists.average_precision(*arguments, multilabel_col=multilabel, distance="abs_cosine", progress_bar=False)


def significance(precision: pd.DataFrame, group: str, served: tuple[str, str], null_size: int, seed: int) -> pd.DataFrame:
    """mAP, p and q of each group by both conventions."""
    from copairs.compute import random_ap
    from copairs.map import mean_average_precision
    from scipy.stats import false_discovery_control

    precision = precision[precision["average_precision"].notna() & (precision["n_pos_pairs"] > 0)]
    copairs_seed = int(generator("map", *served, null_size, seed).integers(2**31))
    with tempfile.TemporaryDirectory() as cache:  # copairs would otherwise keep its nulls in the home folder
        table = mean_average_precision(
            precision, [group], null_size, THRESHOLD, copairs_seed, progress_bar=False, max_workers=2, cache_dir=cache
        )
    p = np.empty(len(precision))
    configurations = precision[["n_pos_pairs", "n_total_pairs"]].to_numpy(int)
    for positives, total in np.unique(configurations, axis=0):
        own = int(generator("average precision", positives, total, null_size, seed).integers(2**31))
        null = np.sort(random_ap(null_size, int(positives), int(total), own))
        here = (configurations == (positives, total)).all(axis=1)
        reached = np.searchsorted(null, precision["average_precision"].to_numpy()[here])
        p[here] = (null_size - reached + 1) / (null_size + 1)
    logs = pd.Series(np.log(p), index=precision.index).groupby(precision[group].to_numpy())
    geometric = np.exp(logs.mean())
    wells = logs.size()
    table = table.sort_values(group, ignore_index=True)
    result = pd.DataFrame({group: table[group], "n_wells": wells.reindex(table[group]).to_numpy()})
    result["value"] = table["mean_average_precision"]
    result["p_map"], result["q_map"] = table["p_value"], table["corrected_p_value"]
    result["p_geometric"] = geometric.reindex(table[group]).to_numpy()
    result["q_geometric"] = false_discovery_control(result["p_geometric"])
    for convention in CONVENTIONS:
        result[f"retrieved_{convention}"] = result[f"q_{convention}"] < THRESHOLD
    return result
