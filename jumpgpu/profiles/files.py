"""Profiles as files: Parquet and AnnData written, Parquet and CSV read, ours or others'."""

import csv
import dataclasses
import fnmatch
import gzip
import importlib.metadata
import json
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS, check_file_name
from ..storage.atomic import read_file, whole_file, write_whole
from ..storage.faults import may_pass
from ..store.annotation import schema_variables
from ..store.h5ad import write_h5ad
from .conventions import identity_columns, one_line, prefixed
from .platemap import feature_columns, some
from .recipe import Recipe
from .text_tables import as_text, as_wells, check_header, numbers

SELECTED = tuple(f"normalized_feature_select_{word}" for word in ("negcon_batch", "negcon_plate", "batch", "plate"))
STEPS = ("_spherized_combat_harmony", "_combat_harmony", "_spherized_harmony", "_harmony", "_spherized_combat", "_combat")
TABLES = (  # of a plate's profiles, the first there is, the one of the last step, is scored, and returned
    *(f"{table}{steps}" for table in SELECTED for steps in (*STEPS, "_spherized", "")),
    "normalized_negcon",
    "normalized",
)

MISSING = (
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "-nan",
    "NULL",
    "null",
    "None",
    "<NA>",
    "#N/A",
)  # a feature's value that is none
MAX_RECORD = 1 << 26  # bytes
SCHEMA = "1"  # of a profile table as AnnData
RECORD = "recipe.json"  # beside a plate's tables, after `<plate>_`: the recipe as run and the tables it made


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A Parquet file, complete or absent. What is missing is null, so that any reader leaves it out of a mean."""
    doubles = set(table.select_dtypes("float64"))
    features = [c for c in feature_columns(table) if c in doubles]
    others = table.drop(columns=features)
    data = pa.Table.from_pandas(others, preserve_index=False)
    columns = dict(zip(features, np.asfortranarray(table[features].to_numpy(float)).T, strict=True))
    arrays = {c: pa.array(columns[c], from_pandas=True) if c in columns else data.column(c) for c in table}
    with whole_file(path) as part:  # thousands of columns: pandas takes seconds
        pq.write_table(pa.table(arrays), part, use_dictionary=list(others.columns))


def write_anndata(table: pd.DataFrame, path: Path, also: Sequence[str] = (), stage: str = "profiles") -> None:
    """The same table as AnnData (.h5ad): features in X, metadata in obs, `<plate>_<well>` as names.

    `stage` is the last step that made the table (`normalized`), for `uns["processing_stage"]`.
    """
    import anndata

    features = feature_columns(table, also)
    obs = table.drop(columns=features)
    identity = [c for c in ("Metadata_Plate", "Metadata_Well") if c in obs] or [obs.columns[0]]
    obs = obs.set_axis(obs[identity].astype(str).agg("_".join, axis=1).to_numpy(), axis=0)
    for column in obs.columns[obs.isna().all()]:
        obs[column] = obs[column].astype(float)  # a column of None has no type to store
    data = anndata.AnnData(table[features].to_numpy(float), obs=obs, var=described(features))
    data.uns = {"schema_id": "jumpgpu.profiles", "schema_version": SCHEMA, "processing_stage": stage}
    with whole_file(path) as part:
        write_h5ad(data, part)


def numbers_beside(path: Path, plate: str) -> dict[str, Any]:
    """The numbers versions that `profile` recorded beside a plate's table; none for a table made elsewhere."""
    try:
        check_file_name(plate, "the plate")
        result = json.loads(read_file(path.parent / f"{plate}_{RECORD}", MAX_RECORD))["numbers"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        if may_pass(error):
            raise
        return {}
    return result if isinstance(result, dict) else {}


def read_profiles(
    path: str | Path,
    also: Sequence[str] = (),
    plate_column: str | None = None,
    well_column: str | None = None,
) -> pd.DataFrame:
    """Profiles from Parquet, CSV or CSV.gz, ours or others'.

    Plate and well are found by the conventions in use (`conventions`) and become Metadata_Plate, text, and Metadata_Well,
    `A01`. Other metadata are text but where every cell is a plain number, and get the prefix `Metadata_` where a text column
    has none. Features are numbers. `attrs["findings"]` says what was chosen.

    Parameters
    ----------
    also : patterns of columns that are features besides those of Cells, Cytoplasm and Nuclei
    plate_column, well_column : the columns that name plate and well, instead of the usual ones

    Raises FileNotFoundError, or ValueError that names the file and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such profile file")
    if not path.name.endswith((".parquet", ".csv", ".csv.gz")):
        raise ValueError(f"{path}: profiles are read from .parquet, .csv and .csv.gz")
    try:
        table = read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (
        ValueError,
        EOFError,
        zlib.error,
        csv.Error,
        gzip.BadGzipFile,
        pd.errors.ParserWarning,
        pa.ArrowException,
    ) as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    table, chosen = identity_columns(path, table, plate_column, well_column)
    if table.empty:
        raise ValueError(f"{path}: no rows; a profile has one row per well")
    named = [c for c in table if str(c).startswith(COMPARTMENTS) or any(fnmatch.fnmatchcase(str(c), p) for p in also)]
    table, renamed = prefixed(table, named)
    chosen += [f"{some(renamed)} as Metadata_"] if renamed else []
    plates = as_text(table["Metadata_Plate"])
    if plates.isna().any():
        raise ValueError(f"{path}: {int(plates.isna().sum())} of {len(table)} rows have no plate")
    changed = {"Metadata_Plate": plates, "Metadata_Well": as_wells(table["Metadata_Well"], f"{path}: Metadata_Well")}
    for column, dtype in table.dtypes.items():
        if not pd.api.types.is_numeric_dtype(dtype):
            if column in set(named):
                changed[column] = feature_numbers(table[column], path)
            elif column not in changed and isinstance(dtype, pd.CategoricalDtype):
                changed[column] = numbers(as_text(table[column]))
    table = table.assign(**changed)
    table.attrs["findings"] = one_line(chosen)
    return table


def described(features: Sequence[str]) -> pd.DataFrame:
    """What features' names say, by feature, as `schema_variables` has it; all empty for a name of another kind."""
    ours = [c for c in features if c.startswith(COMPARTMENTS) and c.count("_") > 1]
    table = pd.DataFrame(schema_variables(ours, (*CHANNELS, *BRIGHTFIELD)), index=pd.Index(ours))
    fill = {"n_channels": 0, "angle": np.nan, "gray_levels": np.nan, "is_feature": True}
    columns = {c: table[c].reindex(list(features), fill_value=fill.get(c, "")) for c in table}
    return pd.DataFrame(columns, index=list(features))


def recorded(folder: Path, plate: str) -> dict[str, Any]:
    """A plate's record: the recipe that made its tables, and their names; empty where there is none."""
    path = folder / f"{plate}_{RECORD}"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(record["tables"], list) and isinstance(record["recipe"], dict)):
            raise ValueError("no list of tables or no recipe")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a record of profiles ({error}); run jumpgpu profile again") from error
    return dict(record)


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV's features as numbers, its other columns as text where they are not numbers throughout."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise ValueError(f"{path}: empty; a table has a line of column names")
    index = [""] if header[0] == "" else []  # pandas' own row numbers
    check_header(header[len(index) :], path)
    features = [c for c in header if c.startswith(COMPARTMENTS)]
    text: dict[str, Any] = {c: str for c in header[len(index) :] if not c.startswith(COMPARTMENTS)}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row of more cells than the header
        table = pd.read_csv(
            path,
            dtype=text,
            keep_default_na=False,
            na_values={c: ["", *MISSING] for c in features},
            encoding="utf-8-sig",
            low_memory=False,
            index_col=False,
        )
    table = table.drop(columns=[c for c in table if c.startswith("Unnamed: 0")] if index else [])
    table = pd.concat([table[list(text)].apply(lambda c: numbers(as_text(c))), table[features]], axis=1)[
        header[len(index) :]
    ]
    return table.dropna(how="all", ignore_index=True).copy()  # thousands of columns in few blocks


def read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file's columns, whatever pandas index or types its writer noted beside them."""
    with pq.ParquetFile(path) as file:  # `read_table` takes half as long again for thousands of columns
        if twice := [c for c, n in Counter(file.schema_arrow.names).items() if n > 1]:
            raise ValueError(f"{path}: column {twice[0]!r} appears twice")
        table = file.read().to_pandas(ignore_metadata=True)
    return table.drop(columns=[c for c in table if str(c).startswith("__index_level_")])  # pandas' own row numbers


def feature_numbers(values: pd.Series, path: Path) -> pd.Series:
    """A feature's column as float64; ValueError for text that is no number."""
    text = as_text(values)
    text = text.mask(text.isin(MISSING))
    read = pd.to_numeric(text, errors="coerce")
    if (wrong := read.isna() & text.notna()).any():
        raise ValueError(f"{path}: {values.name} holds {str(text[wrong].iloc[0])[:40]!r}, which is not a number")
    return read.astype(float)


def write_record(
    path: Path,
    recipe: Recipe,
    tables: Sequence[str],
    plates: Sequence[str],
    numbers: dict[str, Any],
    excluded: Sequence[str] = (),
) -> None:
    """Beside a plate's tables: recipe, tables and plates of the run, numbers versions of the cells, programs' versions."""
    versions = {name: importlib.metadata.version(name) for name in ("pycytominer", "pandas", "numpy", "scipy")}
    record = {
        "recipe": dataclasses.asdict(recipe),
        "tables": list(tables),
        "plates": list(plates),
        "numbers": numbers,
        "excluded_wells": list(excluded),
        "versions": {"jumpgpu": __version__, **versions},
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")
