"""Plate maps, treatment tables and experiment tables: who sits where, and under which condition.

A metadata folder is laid out as CPJUMP1's: `barcode_platemap.csv` (here or in `platemaps/`), the plate maps it names as
`<map>.txt`, treatment tables as `external/*.tsv` (`<X>_metadata.tsv` goes with the map `<X>_platemap`), and
`experiment-metadata.tsv`.
"""

import fnmatch
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..settings.names import COMPARTMENTS, check_file_name
from .text_tables import as_text, as_wells, drop_repeats, read_table

SUFFIXES = (".txt", ".tsv", ".csv")
CONTROL = "Metadata_control_type"
NEGCON = "negcon"
NEGATIVE = "Metadata_negative_control"  # true for the wells that --control named; absent where nobody did
SAMPLE = "Metadata_broad_sample"
EXPERIMENTS = "experiment-metadata.tsv"
IDENTITY = (  # of a profile itself; no plate map or treatment table replaces it
    "Metadata_Plate",
    "Metadata_Well",
    "Metadata_Site_Count",
    "Metadata_Object_Count",
    NEGATIVE,
)
BARCODE_COLUMNS = ("Assay_Plate_Barcode", "Plate_Map_Name")


def find_platemap(folder: str | Path, plate: str) -> Path:
    """The plate map file of a barcode; FileNotFoundError or ValueError say what is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such metadata folder; give one by --metadata, or a plate map by --platemap")
    tables = [p for p in (folder / "barcode_platemap.csv", folder / "platemaps" / "barcode_platemap.csv") if p.is_file()]
    tables = tables or sorted(folder.rglob("barcode_platemap.csv"))
    if not tables:
        raise FileNotFoundError(f"{folder}: no barcode_platemap.csv here; give a plate map by --platemap")
    names, barcodes = set[str](), set[str]()
    for table in tables:
        maps = read_table(table, BARCODE_COLUMNS, text=BARCODE_COLUMNS)
        barcodes |= set(maps["Assay_Plate_Barcode"].dropna())
        names |= set(maps.loc[maps["Assay_Plate_Barcode"] == plate, "Plate_Map_Name"].dropna())
    if len(names) != 1:
        result = f"{len(names)} plate maps ({', '.join(sorted(names))})" if names else "no plate map"
        alike = sorted(b for b in barcodes if b.lstrip("0") == plate.lstrip("0"))
        hint = f"; {alike[0]} is another barcode" if alike and not names else ""
        raise ValueError(f"{plate}: {result} in {tables[0]}{hint}; give one by --platemap")
    name = check_file_name(names.pop(), f"{tables[0]}: {plate}: Plate_Map_Name")
    wanted = {f"{name}{suffix}" for suffix in SUFFIXES}
    files = sorted(p for p in folder.rglob("*") if p.name in wanted and p.is_file())
    if len(files) != 1:
        raise FileNotFoundError(f"{plate}: {len(files)} files for plate map {name} below {folder}; give one by --platemap")
    return files[0]


def find_treatments(folder: str | Path, platemap: Path) -> Path | None:
    """The treatment table that goes with a plate map, or None where there is no table at all."""
    tables = sorted(p for s in SUFFIXES for p in (Path(folder) / "external").glob(f"*{s}"))
    stem = platemap.stem.removesuffix("_platemap")
    matching = [p for p in tables if p.stem == f"{stem}_metadata"]
    if matching or not tables:
        return matching[0] if matching else None
    if len(tables) == 1:
        return tables[0]
    raise ValueError(
        f"{len(tables)} treatment tables in {Path(folder) / 'external'} and none is {stem}_metadata.tsv; "
        "give one by --treatments"
    )


def read_platemap(path: str | Path) -> pd.DataFrame:
    """A plate map: well_position, broad_sample and whatever else the file carries, one row per well.

    Rows that repeat another are dropped (`attrs["findings"]` says so); two rows of one well that differ are a ValueError.
    """
    keys = ("well_position", "broad_sample")
    table = read_table(path, keys, text=keys)
    table["well_position"] = as_wells(table["well_position"], f"{path}: well_position")
    return drop_repeats(table, "well_position", str(path))


def read_treatments(path: str | Path) -> pd.DataFrame:
    """A treatment table: broad_sample, one row each, and what is known of it.

    Negative controls of compound plates are the row whose broad_sample is empty. Rows that repeat another are dropped
    (`attrs["findings"]` says so); two rows of one broad_sample that differ are a ValueError that names the column.
    """
    return drop_repeats(read_table(path, ("broad_sample",), text=("broad_sample",)), "broad_sample", str(path))


def annotate(profiles: pd.DataFrame, platemap: pd.DataFrame, treatments: pd.DataFrame | None = None) -> pd.DataFrame:
    """Profiles with their plate map's and treatment's columns, prefixed `Metadata_`.

    Wells join by position, treatments by broad_sample; an empty broad_sample joins the table's empty row. Rows are in the
    plate map's order. A well that the map misses is a ValueError: it would vanish. What a profile knows of itself
    (`IDENTITY`) stays: a column of that name comes in as `..._platemap` or `..._treatments`, `attrs["findings"]` says so.
    """
    import pycytominer  # takes seconds to import, and scoring needs none of it

    well = "Metadata_well_position"
    profiles = profiles.assign(Metadata_Well=as_wells(profiles["Metadata_Well"], "the profiles"))
    platemap, findings = beside_identity(platemap, "platemap")
    platemap[well] = as_wells(platemap[well], "the plate map")
    platemap[SAMPLE] = as_text(platemap[SAMPLE])
    platemap = drop_repeats(platemap, well, "the plate map")
    if lost := sorted(set(profiles["Metadata_Well"]) - set(platemap[well])):
        plate = profiles["Metadata_Plate"].iloc[0]
        raise ValueError(f"{plate}: the plate map misses {len(lost)} wells of the profiles, first {lost[0]}")
    brought = set(platemap)
    if treatments is not None:
        treatments, more = beside_identity(treatments, "treatments")
        findings += more
        treatments[SAMPLE] = as_text(treatments[SAMPLE])
        treatments = drop_repeats(treatments, SAMPLE, "the treatment table")
        treatments = treatments.drop(columns=[c for c in treatments if c in brought - {SAMPLE}])
        brought |= set(treatments)
    profiles = profiles.drop(columns=[c for c in profiles if c in brought])  # an earlier annotation gives way
    metadata = metadata_columns(profiles)
    annotated = pycytominer.annotate(  # of the metadata alone: it compares rows by every column it is given
        profiles[metadata].assign(Metadata_row=range(len(profiles))),
        platemap,
        join_on=[well, "Metadata_Well"],
        external_metadata=treatments,
        external_join_on=None if treatments is None else SAMPLE,
    )
    values = profiles.drop(columns=metadata).iloc[annotated.pop("Metadata_row")].reset_index(drop=True)
    annotated = pd.concat([annotated.reset_index(drop=True), values], axis=1)
    annotated.attrs["findings"] = findings
    return annotated


def beside_identity(table: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, list[str]]:
    """A table's columns prefixed `Metadata_`, those that a profile has of itself renamed; and a finding for each."""
    table = table.rename(columns=lambda c: c if c.startswith("Metadata_") else f"Metadata_{c}")
    if twice := sorted(table.columns[table.columns.duplicated()]):
        raise ValueError(f"the {kind} table has the column {twice[0]} with and without Metadata_")
    renamed = {c: f"{c}_{kind}" for c in IDENTITY if c in table}
    words = {"platemap": "plate map", "treatments": "treatment table"}[kind]
    findings = [f"the {words}'s column {old.removeprefix('Metadata_')} is kept as {new}" for old, new in renamed.items()]
    return table.rename(columns=renamed), findings


def read_experiments(path: str | Path, batch: str | None = None) -> pd.DataFrame:
    """The experiment table: one row per barcode with the condition it was treated under, columns prefixed `Metadata_`.

    A barcode may appear in several batches (CPJUMP1 imaged plates again); then `batch` picks one.
    """
    barcode = "Assay_Plate_Barcode"
    table = read_table(path, (barcode,), text=(barcode, "Batch"))
    if batch is not None:
        if "Batch" not in table:
            raise ValueError(f"{path}: no column 'Batch', by which --batch {batch} chooses; found {', '.join(table)}")
        known = sorted(set(table["Batch"].dropna()))
        if batch not in known:
            raise ValueError(f"{path}: no batch {batch!r}; expected one of {', '.join(known)}")
        table = table[table["Batch"] == batch].reset_index(drop=True)
    if table[barcode].isna().any():
        raise ValueError(f"{path}: {int(table[barcode].isna().sum())} rows have no {barcode}")
    if "Batch" in table:
        batches = table.drop_duplicates([barcode, "Batch"])
        if (several := batches[barcode].duplicated()).any():
            plate = batches.loc[several, barcode].iloc[0]
            names = ", ".join(sorted(batches.loc[batches[barcode] == plate, "Batch"].fillna("none")))
            raise ValueError(f"{path}: {plate} is in several batches ({names}); choose one by --batch")
    table = drop_repeats(table, barcode, str(path))
    findings = table.attrs["findings"]
    table = table.rename(columns=lambda c: "Metadata_Plate" if c == barcode else f"Metadata_{c}")
    table.attrs["findings"] = findings
    return table


def add_conditions(profiles: pd.DataFrame, experiments: pd.DataFrame) -> pd.DataFrame:
    """Profiles with their plate's row of the experiment table; a plate the table misses is a ValueError.

    A column that the profiles have already stays as it is.
    """
    plates = as_text(profiles["Metadata_Plate"])
    experiments = experiments.assign(Metadata_Plate=as_text(experiments["Metadata_Plate"]))
    if lost := sorted(set(plates) - set(experiments["Metadata_Plate"])):
        raise ValueError(f"the experiment table misses plate {lost[0]} ({len(lost)} in all); choose another by --batch")
    new = ["Metadata_Plate", *(c for c in experiments if c not in profiles)]
    return profiles.assign(Metadata_Plate=plates).merge(experiments[new], on="Metadata_Plate", how="left")


def is_negcon(profiles: pd.DataFrame) -> pd.Series:
    """bool a row: a negative control, by `mark_controls` or else Metadata_control_type; ValueError where nothing says."""
    if CONTROL not in profiles and NEGATIVE not in profiles:
        raise ValueError(f"the profiles have no {CONTROL}; {control_values(profiles)}")
    negcon = pd.Series(False, index=profiles.index)
    if CONTROL in profiles:
        negcon |= as_text(profiles[CONTROL]) == NEGCON
    if NEGATIVE in profiles:
        marked = as_text(profiles[NEGATIVE])
        negcon = negcon.where(marked.isna(), marked == "True")
    return negcon.astype(bool)


def mark_controls(profiles: pd.DataFrame, controls: Sequence[str]) -> pd.DataFrame:
    """Profiles whose negative controls are the wells that `COLUMN=VALUE` names (any of several), and no others.

    They are marked in `Metadata_negative_control`, which normalisation and scores go by. ValueError names the values that
    are there where no well has the one asked for.
    """
    negcon = pd.Series(False, index=profiles.index)
    for control in controls:
        name, equals, value = control.partition("=")
        name = column_name(name.strip())
        if not equals:
            raise ValueError(f"--control {control}: expected COLUMN=VALUE, such as Metadata_pert_type=negcon")
        if name not in profiles:
            raise ValueError(f"--control {control}: no column {name}; there are {', '.join(metadata_columns(profiles))}")
        here = as_text(profiles[name]).fillna("") == value.strip()
        if not here.any():
            raise ValueError(f"--control {control}: no well has it; {name} holds {held(profiles[name])}")
        negcon |= here
    return profiles.assign(**{NEGATIVE: negcon}) if controls else profiles


def control_values(profiles: pd.DataFrame) -> str:
    """What could name controls: the values of the columns that usually do."""
    usual = [c for c in (CONTROL, "Metadata_pert_type", "Metadata_broad_sample_type") if c in profiles]
    parts = [f"{c} holds {held(profiles[c])}" for c in usual] or [f"there is no column {CONTROL} or Metadata_pert_type"]
    return f"{'; '.join(parts)}; name the negative controls by --control COLUMN=VALUE"


def held(values: pd.Series, maximum: int = 8) -> str:
    """A column's values with their wells, the commonest first: `trt (360), control (24)`."""
    counts = as_text(values).fillna("nothing").value_counts()
    counts = counts.iloc[np.lexsort([counts.index.astype(str), -counts.to_numpy()])]
    more = f", ... ({len(counts)} values)" if len(counts) > maximum else ""
    return ", ".join(f"{v} ({n})" for v, n in counts.iloc[:maximum].items()) + more


def column_name(name: str) -> str:
    return name if name.startswith("Metadata_") else f"Metadata_{name}"


def metadata_columns(columns: Sequence[str]) -> list[str]:
    return [c for c in columns if c.startswith("Metadata_")]


def feature_columns(profiles: pd.DataFrame, also: Sequence[str] = ()) -> list[str]:
    """Columns that are features, by pycytominer's rule: numeric, and named after Cells, Cytoplasm or Nuclei.

    `also` are names or patterns (`efficientnet_*`) of further numeric columns that are.
    """
    numeric = {d: pd.api.types.is_numeric_dtype(d) for d in set(profiles.dtypes)}
    asked = chosen_others(profiles, also)
    return [
        c
        for c, d in zip(profiles.columns, profiles.dtypes, strict=True)
        if (numeric[d] and of_a_compartment(c)) or c in asked
    ]


@lru_cache(1 << 16)
def of_a_compartment(column: object) -> bool:
    return str(column).startswith(COMPARTMENTS)


def chosen_others(profiles: pd.DataFrame, also: Sequence[str]) -> set[str]:
    """The columns besides features that names or patterns choose."""
    if not also:
        return set()
    names, patterns = set(also), [p for p in also if set(p) & set("*?[")]
    return {c for c in other_columns(profiles) if c in names or any(fnmatch.fnmatchcase(c, p) for p in patterns)}


def other_columns(profiles: pd.DataFrame) -> list[str]:
    """Numeric columns that are neither features nor `Metadata_*`: counts, numbers, indices, embeddings."""
    numeric = {d: pd.api.types.is_numeric_dtype(d) for d in set(profiles.dtypes)}
    return [
        str(c)
        for c, d in zip(profiles.columns, profiles.dtypes, strict=True)
        if numeric[d] and not str(c).startswith(("Metadata_", *COMPARTMENTS))
    ]


def feature_findings(profiles: pd.DataFrame, also: Sequence[str] = ()) -> list[str]:
    """Which columns count as features and which do not, where that is not plain; ValueError where `also` names none."""
    for pattern in also:
        if not chosen_others(profiles, [pattern]):
            others = some(other_columns(profiles)) or "none"
            raise ValueError(f"--features {pattern}: no numeric column of that name; besides features there are {others}")
    chosen = sorted(chosen_others(profiles, also))
    left = [c for c in other_columns(profiles) if c not in set(chosen)]
    result = [f"{len(chosen)} columns are features by --features: {some(chosen)}"] if chosen else []
    return result + ([f"{len(left)} numeric columns are not features: {some(left)} (--features takes them)"] if left else [])


def some(names: Sequence[str], n: int = 5) -> str:
    """The first few names."""
    return ", ".join(names[:n]) + (f", ... ({len(names)})" if len(names) > n else "")


def common_features(tables: Sequence[pd.DataFrame], also: Sequence[str] = ()) -> list[str]:
    """Features that all tables have, in the first table's order."""
    sets = [feature_columns(t, also) for t in tables]
    shared = set.intersection(*map(set, sets))
    return [f for f in sets[0] if f in shared]
