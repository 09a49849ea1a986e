"""Flags of single cells before they are averaged: debris, mis-segmentation, blur, saturation, by rules that a file states.

The rule of outliers is coSMicQC's: z-scores of a feature over all cells of the plate (standard deviation with n, as
scipy.stats.zscore), beyond every threshold of the rule at once. A missing value is no outlier and takes no part in means.
"""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from ..settings.config import build, config_folder
from .aggregate import Plate

if TYPE_CHECKING:
    import anndata

PREFIX = "Metadata_Flag_"  # a bool column for each rule
FLAGGED = "Metadata_Flagged"  # any of them
KEYS = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"]


@dataclass(frozen=True)
class CellRules:
    """Rules by name: features and thresholds. In `z` all of a rule must hold, in `at_least` any."""

    z: dict[str, dict[str, float]] = field(default_factory=dict)
    at_least: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.z, *self.at_least]

    @property
    def features(self) -> list[str]:
        return list(dict.fromkeys(f for rule in (*self.z.values(), *self.at_least.values()) for f in rule))


class Cells(Protocol):
    """What an open plate gives: cells of chosen columns."""

    @property
    def columns(self) -> list[str]: ...

    def to_pandas(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> pd.DataFrame: ...


def load_cell_rules(path: str | Path | None = None) -> CellRules:
    """Rules from a TOML file, or the ones in `configs/rules/cell_quality.toml`; ValueError for what is wrong in it."""
    path = config_folder() / "rules" / "cell_quality.toml" if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of cell rules")
    with open(path, "rb") as file:
        try:
            table = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from error
    rules: CellRules = build(CellRules, table, str(path))
    check_rules(rules, str(path))
    return rules


def check_rules(rules: CellRules, where: str = "cell rules") -> None:
    """ValueError for a rule without features, a threshold that is no number, or a name given twice."""
    for kind, result in (("z", rules.z), ("at_least", rules.at_least)):
        for name, thresholds in result.items():
            if not thresholds:
                raise ValueError(f"{where}: {kind}.{name} names no feature")
            for feature, threshold in thresholds.items():
                if not np.isfinite(threshold) or (kind == "z" and threshold == 0):
                    raise ValueError(f"{where}: {kind}.{name}: {feature} is {threshold}; expected a number other than 0")
    if twice := sorted(set(rules.z) & set(rules.at_least)):
        raise ValueError(f"{where}: {twice[0]} is a rule of z and of at_least; a rule has one name")
    if not rules.names:
        raise ValueError(f"{where}: no rule; write [z.NAME] or [at_least.NAME]")


def flag_cells(cells: pd.DataFrame, rules: CellRules) -> pd.DataFrame:
    """The flags of a plate's cells.

    Parameters
    ----------
    cells : DataFrame
        All cells of one plate, a row each, with the rules' features: z-scores are over these rows.
    rules : CellRules

    Returns
    -------
    DataFrame
        On the same index: a bool column `Metadata_Flag_<rule>` for each rule, and `Metadata_Flagged`, any of them.
        `attrs["findings"]` names features without a spread, by which no cell can be an outlier.
    """
    from scipy.stats import zscore

    check_features(rules, list(cells.columns))
    scores, findings = {}, []
    for feature in dict.fromkeys(f for rule in rules.z.values() for f in rule):
        values = cells[feature].to_numpy(float)
        values = np.where(np.isfinite(values), values, np.nan)
        known = values[~np.isnan(values)]
        if len(known) == 0 or known.max() == known.min():
            findings.append(f"{feature} has no spread over the plate's cells: no cell is an outlier by it")
            scores[feature] = np.full(len(values), np.nan)
        else:
            scores[feature] = zscore(values, nan_policy="omit")
    flags = pd.DataFrame(index=cells.index)
    for name, rule in rules.z.items():
        beyond = [scores[f] > t if t > 0 else scores[f] < t for f, t in rule.items()]
        flags[PREFIX + name] = np.logical_and.reduce(beyond) if len(cells) else np.zeros(0, bool)
    for name, rule in rules.at_least.items():
        flags[PREFIX + name] = np.logical_or.reduce([cells[f].to_numpy(float) >= t for f, t in rule.items()])
    flags[FLAGGED] = flags.any(axis=1)
    flags.attrs["findings"] = findings
    return flags


def check_features(rules: CellRules, columns: Sequence[str]) -> None:
    """ValueError that names the first feature that a rule needs and the cells lack."""
    known = set(columns)
    if lost := [f for f in rules.features if f not in known]:
        by = next(n for result in (rules.z, rules.at_least) for n, rule in result.items() if lost[0] in rule)
        raise ValueError(
            f"the cells have no {lost[0]}, by which rule {by} flags (they lack {len(lost)} of {len(rules.features)} "
            "features of the rules); give rules of your own (--flag-cells FILE)"
        )


def flag_plate(plate: Cells, rules: CellRules) -> pd.DataFrame:
    """Every cell of an open plate with its flags: plate, well, site, object number, then the columns of `flag_cells`."""
    check_features(rules, plate.columns)
    cells = plate.to_pandas(columns=rules.features)
    flags = flag_cells(cells, rules)
    table = pd.concat([cells[KEYS], flags], axis=1)
    table.attrs["findings"] = flags.attrs["findings"]
    return table


def shares(flags: pd.DataFrame) -> pd.DataFrame:
    """By well, the share of cells with each flag: float64, index Metadata_Well, columns `Metadata_Flag_<rule>_Share`."""
    columns = [c for c in flags if c.startswith(PREFIX) or c == FLAGGED]
    share = flags.groupby("Metadata_Well", sort=False)[columns].mean()
    return share.rename(columns=lambda c: f"{c}_Share")


def add_shares(wells: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """A plate's table of wells with the share of each flag among all of a well's cells, beside its other metadata."""
    columns = shares(flags).reindex(wells["Metadata_Well"]).set_axis(wells.index)
    at = sum(c.startswith("Metadata_") for c in wells)
    return pd.concat([wells.iloc[:, :at], columns, wells.iloc[:, at:]], axis=1)


def flags_of(cells: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """The flags of these rows of cells among `flag_plate`'s: bool columns on their index. ValueError where one has none."""
    columns = [c for c in flags if c.startswith(PREFIX) or c == FLAGGED]
    of = flags.set_index(pd.MultiIndex.from_frame(flags[KEYS].astype(str)))[columns]
    wanted = pd.MultiIndex.from_frame(cells[KEYS].astype(str))
    if missing := int((~wanted.isin(of.index)).sum()):
        raise ValueError(f"{missing} of {len(wanted)} cells have no flags; flag the plate they are of")
    return of.loc[wanted].set_axis(cells.index)


def add_flags(cells: "anndata.AnnData", flags: pd.DataFrame) -> None:
    """`flag_plate`'s columns into the `obs` of `plate.to_anndata()`; ValueError where a cell has none."""
    for column, values in flags_of(cells.obs, flags).items():
        cells.obs[column] = values.to_numpy(bool)


class WithoutFlagged:
    """A plate without its flagged cells, for `aggregate`."""

    def __init__(self, plate: Plate, flags: pd.DataFrame) -> None:
        self.plate = plate
        self.keys = KEYS[1:]
        self.flagged = {str(w): rows for w, rows in flags[flags[FLAGGED]].groupby("Metadata_Well", sort=False)[self.keys]}

    @property
    def wells(self) -> Sequence[str]:
        return self.plate.wells

    def to_pandas(self, wells: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame:
        cells = self.plate.to_pandas(wells=wells, columns=columns)
        gone = [self.flagged[w] for w in (wells if wells is not None else self.wells) if w in self.flagged]
        if not gone:
            return cells
        drop = pd.MultiIndex.from_frame(cells[self.keys]).isin(pd.MultiIndex.from_frame(pd.concat(gone)))
        return cells[~drop].reset_index(drop=True)
