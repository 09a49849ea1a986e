"""Plate maps, treatment tables and experiment tables: who sits where, and under which condition.

A metadata folder is laid out as CPJUMP1's: `barcode_platemap.csv` (here or in `platemaps/`), the plate maps it names as
`<map>.txt`, treatment tables as `external/*.tsv` (`<X>_metadata.tsv` goes with the map `<X>_platemap`), and
`experiment-metadata.tsv`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

SUFFIXES = (".txt", ".tsv", ".csv")
CONTROL = "Metadata_control_type"
NEGCON = "negcon"
SAMPLE = "Metadata_broad_sample"
EXPERIMENTS = "experiment-metadata.tsv"


def read_table(path: str | Path) -> pd.DataFrame:
    """A .csv (commas) or .tsv/.txt (tabs) file; empty cells are nan."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t")


def find_platemap(folder: str | Path, plate: str) -> Path:
    """The plate map file of a barcode; FileNotFoundError or ValueError say what is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such metadata folder; give one by --metadata, or a plate map by --platemap")
    tables = [p for p in (folder / "barcode_platemap.csv", folder / "platemaps" / "barcode_platemap.csv") if p.is_file()]
    tables = tables or sorted(folder.rglob("barcode_platemap.csv"))
    if not tables:
        raise FileNotFoundError(f"{folder}: no barcode_platemap.csv here; give a plate map by --platemap")
    names = set()
    for table in tables:
        maps = read_table(table).astype(str)
        names |= set(maps.loc[maps["Assay_Plate_Barcode"] == plate, "Plate_Map_Name"])
    if len(names) != 1:
        found = f"{len(names)} plate maps ({', '.join(sorted(names))})" if names else "no plate map"
        raise ValueError(f"{plate}: {found} in {tables[0]}; give one by --platemap")
    name = names.pop()
    files = sorted(p for s in SUFFIXES for p in folder.rglob(f"{name}{s}"))
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
    """A plate map: well_position, broad_sample and whatever else the file carries, one row a well."""
    table = read_table(path)
    if missing := {"well_position", "broad_sample"} - set(table.columns):
        raise ValueError(f"{path}: no column {sorted(missing)[0]!r}; a plate map has well_position and broad_sample")
    if (twice := table["well_position"].duplicated()).any():
        raise ValueError(f"{path}: well {table.loc[twice, 'well_position'].iloc[0]} appears twice")
    return table


def read_treatments(path: str | Path) -> pd.DataFrame:
    """A treatment table: broad_sample, one row each, and what is known of it.

    Negative controls of compound plates are the row whose broad_sample is empty.
    """
    table = read_table(path)
    if "broad_sample" not in table:
        raise ValueError(f"{path}: no column 'broad_sample'; found {', '.join(table.columns)}")
    if (twice := table["broad_sample"].duplicated()).any():
        raise ValueError(f"{path}: broad_sample {table.loc[twice, 'broad_sample'].iloc[0]} appears twice")
    return table


def annotate(profiles: pd.DataFrame, platemap: pd.DataFrame, treatments: pd.DataFrame | None = None) -> pd.DataFrame:
    """Profiles with their plate map's and treatment's columns, prefixed `Metadata_`.

    Wells join by position, treatments by broad_sample; an empty broad_sample joins the table's empty row. Rows are in the
    plate map's order. A well that the map misses is a ValueError: it would vanish.
    """
    import pycytominer  # takes seconds to import, and scoring needs none of it

    if lost := sorted(set(profiles["Metadata_Well"]) - set(platemap["well_position"])):
        plate = profiles["Metadata_Plate"].iloc[0]
        raise ValueError(f"{plate}: the plate map misses {len(lost)} wells of the profiles, first {lost[0]}")
    brought = {f"Metadata_{c}" for t in (platemap, treatments) if t is not None for c in t}
    profiles = profiles.drop(columns=[c for c in profiles if c in brought])  # an earlier annotation gives way
    if treatments is not None:
        treatments = treatments.rename(columns=lambda c: c if c.startswith("Metadata_") else f"Metadata_{c}")
        shared = {f"Metadata_{c}" for c in platemap.columns} - {SAMPLE}
        treatments = treatments.drop(columns=[c for c in treatments if c in shared])
    features = feature_columns(profiles)
    annotated = pycytominer.annotate(  # of the metadata alone: it compares rows by every column it is given
        profiles.drop(columns=features).assign(Metadata_row=range(len(profiles))),
        platemap,
        join_on=["Metadata_well_position", "Metadata_Well"],
        external_metadata=treatments,
        external_join_on=None if treatments is None else SAMPLE,
    )
    values = profiles[features].iloc[annotated.pop("Metadata_row")].reset_index(drop=True)
    return pd.concat([annotated.reset_index(drop=True), values], axis=1)


def read_experiments(path: str | Path, batch: str | None = None) -> pd.DataFrame:
    """The experiment table: a row a barcode with the condition it was treated under, columns prefixed `Metadata_`.

    A barcode may appear in several batches (CPJUMP1 imaged plates again); then `batch` picks one.
    """
    table = read_table(path)
    if batch is not None:
        if batch not in set(table["Batch"]):
            raise ValueError(f"{path}: no batch {batch!r}; expected one of {', '.join(sorted(set(table['Batch'])))}")
        table = table[table["Batch"] == batch]
    if (twice := table["Assay_Plate_Barcode"].duplicated()).any():
        plate = table.loc[twice, "Assay_Plate_Barcode"].iloc[0]
        batches = ", ".join(sorted(set(table.loc[table["Assay_Plate_Barcode"] == plate, "Batch"])))
        raise ValueError(f"{path}: {plate} is in several batches ({batches}); choose one by --batch")
    table = table.rename(columns=lambda c: "Metadata_Plate" if c == "Assay_Plate_Barcode" else f"Metadata_{c}")
    return table.reset_index(drop=True)


def add_conditions(profiles: pd.DataFrame, experiments: pd.DataFrame) -> pd.DataFrame:
    """Profiles with their plate's row of the experiment table; a plate the table misses is a ValueError."""
    if lost := sorted(set(profiles["Metadata_Plate"]) - set(experiments["Metadata_Plate"])):
        raise ValueError(f"the experiment table misses plate {lost[0]} ({len(lost)} in all); choose another by --batch")
    new = ["Metadata_Plate", *(c for c in experiments if c not in profiles)]
    return profiles.merge(experiments[new], on="Metadata_Plate", how="left")


def is_negcon(profiles: pd.DataFrame) -> pd.Series:
    """bool a row: a negative control; ValueError where the profiles do not say."""
    if CONTROL not in profiles:
        raise ValueError(
            f"the profiles have no {CONTROL}; neither plate map nor treatment table says which wells are controls "
            "(--metadata, --treatments)"
        )
    return profiles[CONTROL] == NEGCON


def metadata_columns(columns: Sequence[str]) -> list[str]:
    return [c for c in columns if c.startswith("Metadata_")]


def feature_columns(profiles: pd.DataFrame) -> list[str]:
    """Columns that are features: numeric and not `Metadata_*`; others' file columns such as an index are none."""
    numeric = {d: pd.api.types.is_numeric_dtype(d) for d in set(profiles.dtypes)}
    return [
        c
        for c, d in zip(profiles.columns, profiles.dtypes, strict=True)
        if numeric[d] and not c.startswith(("Metadata_", "Unnamed"))
    ]


def common_features(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Features that all tables have, in the first table's order."""
    shared = set.intersection(*(set(feature_columns(t)) for t in tables))
    return [f for f in feature_columns(tables[0]) if f in shared]
