"""Hits: what each treatment does, in one table that a laboratory can act on; and its strength by dose.

A hit is a treatment that mean average precision retrieves (q < 0.05). Beside it stands whether it also exceeds negative
controls that share only a position, what it does to the number of cells, and its label.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.consensus import cell_counts
from ..profiles.design_checks import treated_wells
from ..profiles.platemap import is_negcon
from ..profiles.text_tables import as_text, label_text, split_labels
from .average_precision import CONVENTIONS, THRESHOLD
from .common import PERCENTILE, complete
from .mean_average_precision import MeanPrecision

NAMES = ("Metadata_pert_iname", "Metadata_compound_name", "Metadata_gene", "Metadata_symbol")  # what a reader knows it by
TOXIC = 0.5  # of the controls' cells, and three deviations below them: fewer are called toxic
TOXIC_Z = -3.0
SHOWN = 200  # hits in the record that report shows


@dataclass(frozen=True)
class Hits:
    """Treatments of one condition, the surest first, and what they have in common.

    table      a row per treatment (or a treatment's dose)
    summaries  further tables by name: treatments by label, dose response by treatment
    """

    name: str
    condition: str
    table: pd.DataFrame
    settings: dict[str, Any]
    findings: tuple[str, ...] = ()
    summaries: dict[str, pd.DataFrame] = field(default_factory=dict)
    checks: tuple[Any, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The result as a record; `hits` are the first rows, as the table has them."""
        flags = [c for c in ("hit", "position_checked", "toxic", "active") if c in self.table]
        counts = {f"n_{c}": int((self.table[c] == True).sum()) for c in flags}  # noqa: E712  a missing flag is not true
        shown = self.table.head(SHOWN)
        rows = shown.astype(object).where(shown.notna(), None).to_dict("records")
        return {
            "score": self.name,
            "condition": self.condition,
            "rows": len(self.table),
            **counts,
            **self.settings,
            **{k: v for check in self.checks for k, v in check.record().items()},
            "findings": list(self.findings),
            "hits": rows,
        }

    def tidy(self) -> pd.DataFrame:
        """The table with its score and condition, to be put below others."""
        table = self.table.copy()
        table.insert(0, "condition", self.condition)
        table.insert(0, "score", self.name)
        return table


def hits(
    precision: MeanPrecision, profiles: pd.DataFrame, label: str | None = None, toxic: float = TOXIC, convention: str = "map"
) -> Hits:
    """The table of treatments behind a mean average precision.

    Parameters
    ----------
    precision : MeanPrecision
        What `replicability` gives for these profiles.
    profiles : DataFrame
        All wells, negative controls included.
    label : str, optional
        A column such as Metadata_gene; treatments are also counted by it (`summaries["by_label"]`).
    toxic : float
        Share of the controls' cells at which a treatment is called toxic; it is also three deviations below them.
    convention : {"map", "geometric"}
        Whose p and q count.

    Returns
    -------
    Hits
        Columns: the treatment, name, label, n_wells, value (mAP), p, q, hit (q < 0.05), position_checked (whether the mAP
        exceeds the 95th percentile of that of negative controls which share only a position; p < 0.05 where a null by
        position judged it; missing where that cannot be told), cell_count, cell_count_ratio, cell_count_z, toxic. Sorted by
        q, p, then falling mAP.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown p-value convention {convention!r}; expected one of {CONVENTIONS}")
    group = str(precision.settings["group"])
    result = precision.table
    table = pd.DataFrame({group: as_text(result[group])})
    treated = profiles[treated_wells(profiles, group)]
    first = treated.assign(**{group: as_text(treated[group])}).groupby(group).first()
    if known := next((c for c in NAMES if c in first and c != group), None):
        table["name"] = table[group].map(as_text(first[known]))
    if label is not None:
        table["label"] = table[group].map(label_text(first[label]) if label in first else as_text(first.index.to_series()))
    table["n_wells"], table["value"] = result["n_wells"].to_numpy(), result["value"].to_numpy()
    table["p"], table["q"] = result[f"p_{convention}"].to_numpy(), result[f"q_{convention}"].to_numpy()
    table["hit"] = result[f"retrieved_{convention}"].to_numpy(bool)
    controls = next((c.values for c in precision.checks if c.place == "position" and len(c.values)), None)
    threshold = None if controls is None else float(np.percentile(controls, PERCENTILE))
    by_position = precision.settings.get("null") == "position"
    if by_position:
        checked: list[bool | None] = list(table["p"] < THRESHOLD)
    else:
        checked = [None] * len(table) if threshold is None else list(table["value"] > threshold)
    table["position_checked"] = pd.array(checked, dtype="boolean")
    table, findings = with_counts(table, profiles, group, toxic)
    if by_position:
        findings.append("hits are checked by position with p: the null is by position")
    elif threshold is None:
        why = next((c.reason for c in precision.checks if c.place == "position"), "") or "no check of controls"
        findings.append(f"no hit is checked by position: {why}")
    elif unsure := int((table["hit"] & ~table["position_checked"].astype(bool)).sum()):
        findings.append(f"{unsure} of {int(table['hit'].sum())} hits do not exceed controls that share only a position")
    table = table.sort_values(["q", "p", "value", group], ascending=[True, True, False, True], ignore_index=True)
    settings = {"group": group, "label": label, "convention": convention, "toxic_ratio": toxic, "toxic_z": TOXIC_Z}
    settings |= {k: precision.settings[k] for k in ("null", "null_of") if k in precision.settings}
    settings |= {"position_threshold": None if by_position else threshold}
    settings |= {
        k: precision.settings[k] for k in ("wells", "features", "features_given", "wells_left_out", "null_size", "seed")
    }
    summaries = {"by_label": by_label(table)} if label is not None else {}
    return Hits(
        "hits", precision.condition, table, settings, (*precision.findings, *findings), summaries, tuple(precision.checks)
    )


def with_counts(table: pd.DataFrame, profiles: pd.DataFrame, group: str, toxic: float) -> tuple[pd.DataFrame, list[str]]:
    """The table with cell counts and the flag `toxic`, or why there are none."""
    if not 0 < toxic < 1:
        raise ValueError(f"the share of cells below which a treatment is toxic must lie between 0 and 1, got {toxic}")
    try:
        counts = cell_counts(profiles, group).reindex(table[group])
    except ValueError as error:
        return table, [f"no treatment is flagged as toxic: {error}"]
    table = table.assign(**{c: counts[c].to_numpy() for c in counts})
    flag = (table["cell_count_ratio"] <= toxic) & ~(table["cell_count_z"] > TOXIC_Z)
    flag = pd.array(flag, dtype="boolean")
    flag[table["cell_count_ratio"].isna().to_numpy()] = pd.NA
    return table.assign(toxic=flag), []


def by_label(table: pd.DataFrame) -> pd.DataFrame:
    """Treatments by label (a target or mechanism): label, treatments, hits, their names, least q; most hits first."""
    rows = table.assign(label=split_labels(table["label"])).explode("label")
    rows = rows[rows["label"].notna()]
    shown = rows["name"].fillna(rows.iloc[:, 0]) if "name" in rows else rows.iloc[:, 0]
    output = rows.assign(named=shown.where(rows["hit"])).groupby("label", sort=True)
    result = pd.DataFrame(
        {
            "treatments": output.size(),
            "hits": output["hit"].sum().astype(int),
            "named": output["named"].agg(lambda v: ", ".join(sorted(v.dropna()))),
            "least_q": output["q"].min(),
        }
    )
    return result.reset_index().sort_values(["hits", "least_q", "label"], ascending=[False, True, True], ignore_index=True)


def dose_response(
    profiles: pd.DataFrame, group: str, dose: str, condition: str = "", toxic: float = TOXIC, also: Sequence[str] = ()
) -> Hits:
    """How strong a treatment's profile is at each dose.

    Parameters
    ----------
    profiles : DataFrame
        All wells, negative controls included.
    group, dose : str
        The columns of the treatment and of its dose, a number.

    Returns
    -------
    Hits
        Its table: treatment, dose, n_wells, strength, active, cell counts, toxic. strength is the root mean square over
        features of the wells' median, each feature less the median and over 1.4826 MAD of its plate's negative controls;
        active is above the 95th percentile of single controls' strength. `summaries["dose_response"]`: by treatment the
        doses, Spearman's rho and p of strength with dose (p exact up to 8 doses), the least active and the least toxic dose.
    """
    for column in (group, dose):
        if column not in profiles:
            raise ValueError(f"the profiles have no column {column}")
    where = condition or "these plates"
    chosen = complete(profiles[is_negcon(profiles) | treated_wells(profiles, group)], also)
    wells = chosen.profiles
    negcon = is_negcon(wells)
    if lost := sorted(set(wells["Metadata_Plate"]) - set(wells.loc[negcon, "Metadata_Plate"])):
        raise ValueError(f"{where}: plate {lost[0]} has no negative controls to measure strength by")
    z = robust_z(chosen.values, negcon.to_numpy(), wells["Metadata_Plate"].to_numpy())
    threshold = float(np.percentile(strength(z[negcon]), PERCENTILE))
    doses = pd.to_numeric(as_text(wells[dose]), errors="coerce")
    treated = (~negcon & doses.notna()).to_numpy()
    if not treated.any():
        raise ValueError(f"{where}: no treated well has a number in {dose}")
    keys = [as_text(wells[group])[treated], doses[treated]]
    medians = pd.DataFrame(z[treated], index=keys[0].index).groupby(keys, sort=True)
    values = medians.median()
    names = values.index.get_level_values(0)
    table = pd.DataFrame({group: names, dose: values.index.get_level_values(1).astype(float)})
    table["n_wells"], table["strength"] = medians.size().to_numpy(), strength(values.to_numpy())
    table["active"] = table["strength"] > threshold
    joined = f"{group} @ {dose}"
    both = as_text(wells[group]).str.cat(doses.astype(str), sep=" @ ").astype(object)
    table[joined] = table[group].str.cat(table[dose].astype(str), sep=" @ ")
    table, findings = with_counts(table, wells.assign(**{joined: both}), joined, toxic)
    table = table.drop(columns=joined)
    if without := int((~negcon).sum() - treated.sum()):
        findings.append(f"{without} treated wells have no number in {dose} and are left out")
    settings = {"group": group, "dose": dose, "strength_95th": threshold, "toxic_ratio": toxic, **chosen.settings()}
    summaries = {"dose_response": by_treatment(table, group, dose)}
    return Hits("dose", condition, table, settings, (*chosen.findings(), *findings), summaries)


def robust_z(values: np.ndarray, negcon: np.ndarray, plates: np.ndarray) -> np.ndarray:
    """Features less the median and over 1.4826 MAD of their plate's controls; a feature without spread somewhere goes."""
    z = np.empty_like(values)
    spread = np.ones(values.shape[1], bool)
    for plate in np.unique(plates):
        here = plates == plate
        controls = values[here & negcon]
        median = np.median(controls, axis=0)
        mad = 1.4826 * np.median(np.abs(controls - median), axis=0)
        spread &= mad > 1e-12 * np.abs(median)
        z[here] = (values[here] - median) / np.where(mad > 0, mad, 1)
    if not spread.any():
        raise ValueError("no feature varies among the negative controls of every plate; strength has no unit")
    return z[:, spread]


def strength(z: np.ndarray) -> np.ndarray:
    """Root mean square over features: float [N, F] to [N]."""
    root: np.ndarray = np.sqrt((z**2).mean(axis=1))
    return root


def by_treatment(table: pd.DataFrame, group: str, dose: str) -> pd.DataFrame:
    """Spearman's rho of strength with dose, the least active and the least toxic dose, by treatment."""
    rows = []
    for name, doses in table.groupby(group, sort=True):
        rho, p = spearman(doses[dose].to_numpy(float), doses["strength"].to_numpy(float))
        flagged = {k: doses[k].fillna(False).astype(bool) for k in ("active", "toxic") if k in doses}
        rows.append(
            {
                group: name,
                "doses": len(doses),
                "rho": rho,
                "p": p,
                "strongest": float(doses["strength"].max()),
                **{f"least_{k}_dose": doses.loc[here, dose].min() for k, here in flagged.items()},
            }
        )
    return pd.DataFrame(rows)


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's rho and its two-sided p, over every order of up to 8 values; nan for fewer than 3, or for equal ones."""
    from scipy.stats import rankdata, spearmanr

    if len(x) < 3 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return float("nan"), float("nan")
    if len(x) > 8:
        rho, p = spearmanr(x, y)
        return float(rho), float(p)
    a, b = (v - v.mean() for v in (rankdata(np.asarray(values, float)) for values in (x, y)))
    orders = np.array(list(itertools.permutations(a)))
    every = orders @ b / np.sqrt((a @ a) * (b @ b))
    return float(every[0]), float((np.abs(every) >= abs(every[0]) - 1e-12).mean())
