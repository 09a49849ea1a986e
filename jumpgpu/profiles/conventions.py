"""Profiles of anyone: which columns name plate, well, treatment, label and negative controls, by the conventions in use.

CPJUMP1 and CHAMMI-75 (Metadata_broad_sample, Metadata_control_type), JUMP (Metadata_JCP2022, Metadata_pert_type negcon),
LINCS (Metadata_pert_type control, Metadata_moa), plates of cell lines (Metadata_cell_line), plain tables (Plate, Well), in
any case and with any sign between the words (`PLATE`, `Plate ID`); a row and a column are a well.
What was chosen other than by CPJUMP1's convention is said in one line.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from ..settings.names import well_name
from .platemap import CONTROL, NEGATIVE, NEGCON, SAMPLE, column_name, mark_controls, metadata_columns
from .text_tables import as_text

PLATE = (
    *("Metadata_Plate", "Image_Metadata_Plate", "Metadata_plate", "Metadata_Assay_Plate_Barcode", "Metadata_plate_barcode"),
    *("Metadata_Barcode", "Plate_ID", "Plate_Name"),
)
WELL = ("Metadata_Well", "Image_Metadata_Well", "Metadata_well_position", "Metadata_pert_well", "Well_ID", "Well_Name")
ROW, COLUMN = ("Metadata_row", "Well_Row", "Plate_Row"), ("Metadata_column", "Metadata_col", "Well_Column", "Well_Col")
COUNT = (
    *("Metadata_Object_Count", "Metadata_Count_Cells", "Metadata_Cells_Count", "Metadata_Cell_Count", "Metadata_n_cells"),
    *("Metadata_num_cells", "Metadata_number_of_cells", "Metadata_Count_Nuclei", "Metadata_Nuclei_Count"),
)
GROUP = (
    *(SAMPLE, "Metadata_JCP2022", "Metadata_pert_id", "Metadata_pert_iname", "Metadata_compound_id", "Metadata_compound"),
    *("Metadata_compound_name", "Metadata_treatment", "Metadata_treatment_id", "Metadata_treatment_name"),
    *("Metadata_perturbation", "Metadata_perturbation_id", "Metadata_perturbation_name", "Metadata_drug"),
    *("Metadata_drug_name", "Metadata_gene_symbol", "Metadata_Symbol", "Metadata_gene", "Metadata_cell_line"),
)
LABEL = (
    *("Metadata_gene", "Metadata_moa", "Metadata_target", "Metadata_target_list", "Metadata_gene_symbol", "Metadata_Symbol"),
    "Metadata_mechanism_of_action",
)
KIND = (
    *("Metadata_pert_type", "Metadata_broad_sample_type", "Metadata_perturbation_type", "Metadata_control", CONTROL),
    *("Metadata_treatment_type", "Metadata_compound_type", "Metadata_sample_type", "Metadata_well_type", "Metadata_role"),
)
NEGATIVES = {  # kinds of a well that are negative controls, as `plain` spells them
    *("negcon", "negcontrol", "negctrl", "negativecontrol", "negative", "vehicle", "vehiclecontrol", "ctlvehicle"),
    *("solventcontrol", "dmso", "dmsocontrol"),
}
CONTROLS = {"control", "ctrl", "ctl"}  # and these where the wells are of one treatment
DMSO = {  # treatments that are negative controls; the numbers are JUMP's DMSO, guides without a target, and its ORFs
    *("dmso", "dmsocontrol", "dmsovehicle", "vehicle", "vehiclecontrol", "nontargeting", "nontargetingcontrol"),
    *("jcp2022033924", "jcp2022800001", "jcp2022800002", *(f"jcp20229151{n}" for n in (28, 29, 30, 31))),
}


@lru_cache(1 << 16)
def plain(name: object) -> str:
    """A name as conventions compare it: `Metadata_Plate_ID`, `PlateID` and `plate id` are all `plateid`."""
    word = str(name).casefold().removeprefix("image_").removeprefix("metadata_")
    return "".join(c for c in word if c.isalnum())


def named(columns: Iterable[object], known: Sequence[str]) -> list[str]:
    """The columns that a convention knows, in its order; its own spelling before others of the same word."""
    order = {word: i for i, word in reversed(list(enumerate(map(plain, known))))}
    place = {name: i for i, name in enumerate(known)}
    result = [c for c in columns if isinstance(c, str) and plain(c) in order]
    return sorted(result, key=lambda c: (order[plain(c)], place.get(c, len(known))))


def identity_columns(path: Path, table: pd.DataFrame, plate: str | None, well: str | None) -> tuple[pd.DataFrame, list[str]]:
    """A table whose plate and well are Metadata_Plate and Metadata_Well, and what was chosen for them, a line.

    `plate` and `well` name the columns; None takes the first of `PLATE` and of `WELL` that is there.
    """
    chosen, said = dict[str, str](), []
    for wanted, asked, known, option in (
        ("Metadata_Plate", plate, PLATE, "--plate-column"),
        ("Metadata_Well", well, WELL, "--well-column"),
    ):
        own = [c for c in (asked, f"Metadata_{asked}") if c in table]
        result = next(iter(own if asked else named(table.columns, known)), None)
        if result is None and wanted == "Metadata_Well" and not asked and (lines := rows_and_columns(table)):
            table = table.assign(**{wanted: wells_of(*(table[c] for c in lines))})
            said.append(f"well of {' and '.join(lines)} ({option})")
            continue
        if result is None:
            name = asked or wanted
            some = ", ".join(map(str, metadata_columns(table) or table.columns[:10]))
            raise ValueError(f"{path}: no column {name}; profiles name their plate and well ({option}); there are {some}")
        if result != wanted:
            chosen[wanted] = result
            said.append(f"{wanted.removeprefix('Metadata_').lower()} {result} ({option})")
    return table.assign(**{wanted: table[result] for wanted, result in chosen.items()}), said


def with_count(table: pd.DataFrame) -> pd.DataFrame:
    """The table with Metadata_Object_Count, of a known number of cells; `attrs["findings"]` says of which."""
    known = [c for c in named(table.columns, COUNT) if pd.api.types.is_numeric_dtype(table[c].dtype)]
    if COUNT[0] in table or not known:
        return table
    findings = [*table.attrs.get("findings", ()), *one_line([f"number of cells {known[0]}"])]
    table = table.assign(**{COUNT[0]: table[known[0]]})
    table.attrs["findings"] = findings
    return table


def rows_and_columns(table: pd.DataFrame) -> list[str]:
    """The columns of rows and of columns that together name a well; none where one is absent."""
    lines = [named(table.columns, known)[:1] for known in (ROW, COLUMN)]
    return [*lines[0], *lines[1]] if all(lines) else []


def wells_of(rows: pd.Series, columns: pd.Series) -> pd.Series:
    """Wells of rows (letters, or numbers from 1) and columns; missing where one is."""
    letters = as_text(rows).map(
        lambda r: well_name(int(r), 1)[:-2] if isinstance(r, str) and r.isdecimal() and int(r) else r
    )
    return letters.str.cat(as_text(columns)).astype(object)


def prefixed(table: pd.DataFrame, features: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Text columns that are no features, under `Metadata_`; the names that changed."""
    known = {*features, *table.columns}
    dtypes = table.dtypes.items()
    text = [c for c, d in dtypes if not c.startswith("Metadata_") and not pd.api.types.is_numeric_dtype(d)]
    changed = {c: f"Metadata_{c}" for c in text if c not in set(features) and f"Metadata_{c}" not in known}
    return table.rename(columns=changed), list(changed)


def groups(columns: Iterable[object]) -> list[str]:
    """The metadata columns that may name a treatment, the likeliest first."""
    return named(metadata_columns([c for c in columns if isinstance(c, str)]), GROUP)


def choose_group(profiles: pd.DataFrame, asked: str | None) -> tuple[str, list[str]]:
    """The column that names a treatment: the one asked for, else the first of `GROUP` that tells wells apart."""
    if asked is not None:
        return asked, []
    result = [c for c in groups(profiles) if as_text(profiles[c]).nunique() > 1]
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
    known = named(metadata_columns(profiles), LABEL)
    result = next((c for c in known if as_text(profiles[c]).notna().any()), LABEL[0])
    return result, [] if result == LABEL[0] else [f"labels {result} (--label)"]


def choose_controls(profiles: pd.DataFrame, asked: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Profiles with their negative controls marked, by `COLUMN=VALUE` or else by convention.

    In this order: wells that are marked, Metadata_control_type negcon, a kind of negative control, a kind of control where
    those wells are of one treatment (positive controls are several), a treatment called DMSO or as JUMP calls its own.
    """
    if asked:
        return mark_controls(profiles, asked), []
    if NEGATIVE in profiles or (CONTROL in profiles and (as_text(profiles[CONTROL]) == NEGCON).any()):
        return profiles, []
    names = groups(profiles)
    for column in named(metadata_columns(profiles), KIND):
        words = as_text(profiles[column]).map(plain, na_action="ignore")
        for values in (NEGATIVES, CONTROLS):
            here = words.isin(values)
            alone = not names or as_text(profiles.loc[here, names[0]]).nunique() <= 1
            if here.any() and not here.all() and (values is NEGATIVES or alone):
                return marked(profiles, column, here)
    for column in names:
        here = as_text(profiles[column]).map(plain, na_action="ignore").isin(DMSO)
        if here.any() and not here.all():
            return marked(profiles, column, here)
    return profiles, []


def marked(profiles: pd.DataFrame, column: str, here: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    value = ", ".join(sorted(as_text(profiles.loc[here, column]).unique()))
    return profiles.assign(**{NEGATIVE: here}), [f"negative controls {column}={value}, {int(here.sum())} wells (--control)"]


def one_line(chosen: Sequence[str]) -> list[str]:
    """What was chosen, as one finding."""
    return [f"read by convention: {'; '.join(chosen)}"] if chosen else []
