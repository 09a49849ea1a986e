"""Profiles of anyone: which columns name plate, well, treatment, label and negative controls, by the conventions in use.

CPJUMP1 and CHAMMI-75 (Metadata_broad_sample, Metadata_control_type), JUMP (Metadata_JCP2022, Metadata_pert_type negcon),
LINCS (Metadata_pert_type control, Metadata_moa), plates of cell lines (Metadata_cell_line), plain tables (Plate, Well).
What was chosen other than by CPJUMP1's convention is said in one line.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .platemap import CONTROL, NEGATIVE, NEGCON, SAMPLE, column_name, mark_controls, metadata_columns
from .text_tables import as_text

PLATE = (
    *("Metadata_Plate", "Image_Metadata_Plate", "Metadata_plate", "Metadata_Assay_Plate_Barcode", "Metadata_plate_barcode"),
    *("Metadata_Barcode", "Metadata_barcode", "Assay_Plate_Barcode", "Plate", "plate", "Barcode", "barcode", "plate_id"),
)
WELL = (
    *("Metadata_Well", "Image_Metadata_Well", "Metadata_well", "Metadata_well_position", "Metadata_pert_well"),
    *("Metadata_well_id", "Well", "well", "well_position", "well_id"),
)
GROUP = (
    *(SAMPLE, "Metadata_JCP2022", "Metadata_pert_id", "Metadata_pert_iname", "Metadata_compound_id", "Metadata_compound"),
    *("Metadata_compound_name", "Metadata_treatment", "Metadata_perturbation", "Metadata_perturbation_id", "Metadata_drug"),
    *("Metadata_gene_symbol", "Metadata_Symbol", "Metadata_symbol", "Metadata_gene", "Metadata_cell_line"),
)
LABEL = (
    "Metadata_gene",
    "Metadata_moa",
    "Metadata_target",
    "Metadata_target_list",
    "Metadata_gene_symbol",
    "Metadata_Symbol",
)
KIND = ("Metadata_pert_type", "Metadata_broad_sample_type", "Metadata_perturbation_type", "Metadata_control")
DMSO = ("dmso", "jcp2022_033924")  # the last is JUMP's name for it


def identity_columns(path: Path, table: pd.DataFrame, plate: str | None, well: str | None) -> tuple[pd.DataFrame, list[str]]:
    """A table whose plate and well are Metadata_Plate and Metadata_Well, and what was chosen for them, a line.

    `plate` and `well` name the columns; None takes the first of `PLATE` and of `WELL` that is there.
    """
    chosen, said = dict[str, str](), []
    for wanted, asked, known, option in (
        ("Metadata_Plate", plate, PLATE, "--plate-column"),
        ("Metadata_Well", well, WELL, "--well-column"),
    ):
        result = next((c for c in ([asked, f"Metadata_{asked}"] if asked else known) if c in table), None)
        if result is None:
            name = asked or wanted
            some = ", ".join(map(str, metadata_columns(table) or table.columns[:10]))
            raise ValueError(f"{path}: no column {name}; profiles name their plate and well ({option}); there are {some}")
        if result != wanted:
            chosen[wanted] = result
            said.append(f"{wanted.removeprefix('Metadata_').lower()} {result} ({option})")
    return table.assign(**{wanted: table[result] for wanted, result in chosen.items()}), said


def prefixed(table: pd.DataFrame, features: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Text columns that are no features, under `Metadata_`; the names that changed."""
    known = {*features, *table.columns}
    text = [c for c in table if not c.startswith("Metadata_") and not pd.api.types.is_numeric_dtype(table[c].dtype)]
    changed = {c: f"Metadata_{c}" for c in text if c not in set(features) and f"Metadata_{c}" not in known}
    return table.rename(columns=changed), list(changed)


def choose_group(profiles: pd.DataFrame, asked: str | None) -> tuple[str, list[str]]:
    """The column that names a treatment: the one asked for, else the first of `GROUP` that tells wells apart."""
    if asked is not None:
        return asked, []
    result = [c for c in GROUP if c in profiles and as_text(profiles[c]).nunique() > 1]
    if not result:
        known = ", ".join(metadata_columns(profiles))
        raise ValueError(f"no column names the treatments as {SAMPLE} would; choose one by --group: {known}")
    return result[0], [] if result[0] == SAMPLE else [f"treatments {result[0]} (--group)"]


def join_columns(profiles: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Profiles with one column for several, `X @ 3.3`, missing where one of them is; and its name."""
    parts = [as_text(profiles[name]) for name in names]
    joined = parts[0].str.cat(parts[1:], sep=" @ ").astype(object)
    name = f"Metadata_{','.join(n.removeprefix('Metadata_') for n in names)}"
    return profiles.assign(**{name: joined}), name


def group_columns(profiles: pd.DataFrame, asked: str | None) -> tuple[pd.DataFrame, str, list[str]]:
    """Profiles with the column that names a treatment: the one asked for, several (`A,B`) joined, or by convention."""
    names = [column_name(name.strip()) for name in asked.split(",")] if asked and asked not in profiles else []
    if lost := [name for name in names if name not in profiles]:
        known = ", ".join(metadata_columns(profiles))
        raise ValueError(f"no column {lost[0]} in profiles or experiment table; there are {known}")
    if len(names) > 1:
        return *join_columns(profiles, names), []
    group, said = choose_group(profiles, names[0] if names else asked)
    return profiles, group, said


def choose_label(profiles: pd.DataFrame, asked: str | None) -> tuple[str, list[str]]:
    """The column of labels that treatments share: the one asked for, else the first of `LABEL` that holds any."""
    if asked is not None:
        return asked, []
    result = next((c for c in LABEL if c in profiles and as_text(profiles[c]).notna().any()), LABEL[0])
    return result, [] if result == LABEL[0] else [f"labels {result} (--label)"]


def choose_controls(profiles: pd.DataFrame, asked: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Profiles with their negative controls marked, by `COLUMN=VALUE` or else by convention.

    In this order: wells that are marked, Metadata_control_type negcon, a kind of negcon, a kind of control where those
    wells are of one treatment (positive controls are several), a treatment called DMSO (JUMP: JCP2022_033924).
    """
    if asked:
        return mark_controls(profiles, asked), []
    if NEGATIVE in profiles or (CONTROL in profiles and (as_text(profiles[CONTROL]) == NEGCON).any()):
        return profiles, []
    words = {c: as_text(profiles[c]).str.casefold() for c in (*KIND, *GROUP) if c in profiles}
    names = [c for c in GROUP if c in profiles]
    for column in KIND:
        for value in (NEGCON, "control"):
            here = words[column] == value if column in words else pd.Series(False, index=profiles.index)
            alone = not names or as_text(profiles.loc[here, names[0]]).nunique() <= 1
            if here.any() and not here.all() and (value == NEGCON or alone):
                return marked(profiles, column, here)
    for column in names:
        here = words[column].isin(DMSO)
        if here.any() and not here.all():
            return marked(profiles, column, here)
    return profiles, []


def marked(profiles: pd.DataFrame, column: str, here: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    value = as_text(profiles.loc[here, column]).iloc[0]
    return profiles.assign(**{NEGATIVE: here}), [f"negative controls {column}={value}, {int(here.sum())} wells (--control)"]


def one_line(chosen: Sequence[str]) -> list[str]:
    """What was chosen, as one finding."""
    return [f"read by convention: {'; '.join(chosen)}"] if chosen else []
