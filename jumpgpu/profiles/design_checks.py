"""What a plate's design means for its scores: said before scoring, one line a finding."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..settings.names import counted, well_position
from .platemap import CONTROL, NEGATIVE, SAMPLE, control_values, is_negcon, some
from .text_tables import as_text

FORMATS = {96: (8, 12), 384: (16, 24), 1536: (32, 48)}  # wells to rows and columns
EMPTY = {"Metadata_JCP2022": ("JCP2022_999999",), "Metadata_pert_type": ("empty",)}  # wells that JUMP calls so
MARGIN = 2  # rows and columns nearest the edge that are outer wells
FEW_CONTROLS = 8  # fewer give medians and MADs that are mostly noise


def fits(wells: pd.Series, plate_format: int) -> bool:
    """Whether a plate of that format has all these wells."""
    rows, columns = FORMATS[plate_format]
    positions = [well_position(well) for well in wells.unique()]
    return all(row <= rows and column <= columns for row, column in positions)


def is_inner(wells: pd.Series, plate_format: int = 384) -> pd.Series:
    """bool a well: not in the two rows and columns nearest the edge; ValueError for a well the format lacks."""
    rows, columns = FORMATS[plate_format]

    def inner(well: str) -> bool:
        row, column = well_position(well)
        if row > rows or column > columns:
            raise ValueError(f"well {well} is not on a plate of {plate_format} wells; choose the format by --plate-format")
        return MARGIN < row <= rows - MARGIN and MARGIN < column <= columns - MARGIN

    return wells.map({well: inner(well) for well in wells.unique()}).astype(bool)


def check_plate(
    profiles: pd.DataFrame, platemap: pd.DataFrame | None = None, plate_format: int = 384, group: str = SAMPLE
) -> list[str]:
    """Findings about one annotated plate: wells, controls, edges, treatments without metadata."""
    plate, result = profiles["Metadata_Plate"].iloc[0], []
    if platemap is not None and (lost := sorted(set(as_text(platemap["well_position"])) - set(profiles["Metadata_Well"]))):
        result.append(f"{len(lost)} of the plate map's {len(platemap)} wells have no profile: {some(lost)}")
    if group not in profiles:
        return [f"{plate}: no {group} column: nothing says what is in which well"]
    treated = treated_wells(profiles, group)
    if n := int(empty_wells(profiles).sum()):
        result.append(f"{counted(n, 'well')} without a treatment (JCP2022_999999 or empty) take no part")
    controls = is_negcon(profiles) if {CONTROL, NEGATIVE} & set(profiles) else None
    if controls is None or not controls.any():
        result += check_controls(profiles)
    elif (n := int(controls.sum())) < FEW_CONTROLS:
        result.append(f"{counted(n, 'negative control')}; medians and MADs of fewer than {FEW_CONTROLS} are mostly noise")
    if "Metadata_pert_type" in profiles and SAMPLE in profiles:
        named = profiles[SAMPLE].notna()
        if bare := sorted(set(profiles.loc[named & profiles["Metadata_pert_type"].isna(), SAMPLE].astype(str))):
            result.append(f"{counted(len(bare), 'treatment')} missing from the treatment table: {some(bare)}")
    inner = is_inner(profiles["Metadata_Well"], plate_format)
    samples = as_text(profiles[group])
    if outer := sorted(set(samples[treated]) - set(samples[treated & inner])):
        result.append(f"{len(outer)} of {samples[treated].nunique()} treatments only in outer wells")
    if controls is not None and controls.any() and not (controls & inner).any():
        result.append("all negative controls are in outer wells: edge effects and treatment effects cannot be told apart")
    return [f"{plate}: {line}" for line in result]


def check_controls(profiles: pd.DataFrame) -> list[str]:
    """A finding where no well is a negative control."""
    if {CONTROL, NEGATIVE} & set(profiles) and is_negcon(profiles).any():
        return []
    return [f"no well is a negative control, so controls count as treatments: {control_values(profiles)}"]


def check_replicates(profiles: pd.DataFrame, group: str = SAMPLE) -> list[str]:
    """Findings about plates scored together: layouts, replicates of each treatment."""
    result, treated = [], treated_wells(profiles, group)
    if twice := int(profiles.duplicated(["Metadata_Plate", "Metadata_Well"]).sum()):
        result.append(f"{twice} wells are given more than once: replicates would correlate with themselves")
    layouts: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for plate, rows in profiles.groupby("Metadata_Plate", sort=True):
        layout = tuple(sorted(zip(rows["Metadata_Well"], as_text(rows[group]).fillna(""), strict=True)))
        layouts.setdefault(layout, []).append(str(plate))
    counts = as_text(profiles.loc[treated, group]).value_counts()
    if len(layouts) == 1 and profiles["Metadata_Plate"].nunique() > 1:
        result.append(
            "every treatment is in the same well on all plates: position and treatment effects cannot be told apart"
        )
    elif len(layouts) > 1:
        result.append(f"{profiles['Metadata_Plate'].nunique()} plates have {len(layouts)} layouts")
    if single := sorted(counts.index[counts == 1].astype(str)):
        result.append(f"{len(single)} of {len(counts)} treatments have one well and no score: {some(single)}")
    if len(counts) and counts.min() != counts.max():
        sizes = ", ".join(f"{n} with {size}" for size, n in counts.value_counts().sort_index().items())
        result.append(f"treatments have unlike numbers of wells: {sizes}")
    return result


def check_numbers(plates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Findings about plates taken together: numbers versions (plate -> name -> version) in which they differ.

    A plate without versions (tables made elsewhere) says nothing; a family that one plate lacks is no difference.
    """
    result = []
    for name in sorted({name for versions in plates.values() for name in versions} - {"kernels"}):
        holders: dict[str, list[str]] = {}
        for plate, versions in plates.items():
            if name in versions:
                holders.setdefault(str(versions[name]), []).append(plate)
        if len(holders) > 1:
            listed = "; ".join(f"version {version} in {some(sorted(those))}" for version, those in sorted(holders.items()))
            result.append(
                f"the plates have different numbers of {name} ({listed}): extract them with one version to compare them"
            )
    older = sorted(plate for plate, versions in plates.items() if "kernels" in versions)
    if older and len({json.dumps(versions, sort_keys=True) for versions in plates.values() if versions}) > 1:
        result.append(f"{some(older)}: older than numbers versions, and its values may differ from the other plates'")
    return result


def treated_wells(profiles: pd.DataFrame, group: str = SAMPLE) -> pd.Series:
    """bool a row: a treatment or positive control, neither empty nor a negative control."""
    if group not in profiles:
        raise ValueError(f"the profiles have no column {group}; annotate them (jumpgpu profile)")
    treated = pd.Series(True, index=profiles.index)
    for column in {group, SAMPLE} & set(profiles.columns):
        treated &= as_text(profiles[column]).notna()
    if {CONTROL, NEGATIVE} & set(profiles.columns):
        treated &= ~is_negcon(profiles)
    return treated & ~empty_wells(profiles)


def empty_wells(profiles: pd.DataFrame) -> pd.Series:
    """bool a row: a well that the metadata call empty by a word."""
    empty = pd.Series(False, index=profiles.index)
    for column, words in EMPTY.items():
        if column in profiles:
            empty |= as_text(profiles[column]).isin(words)
    return empty
