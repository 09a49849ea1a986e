"""Profiles as files: Parquet and AnnData written, Parquet and CSV read, ours or others'."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .platemap import feature_columns

RECORD = "recipe.json"  # beside a plate's tables, after `<plate>_`: the recipe as run and the tables it made


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A Parquet file, complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    doubles = set(table.select_dtypes("float64"))
    features = [c for c in feature_columns(table) if c in doubles]
    others = table.drop(columns=features)
    data = pa.Table.from_pandas(others, preserve_index=False)
    columns = dict(zip(features, np.asfortranarray(table[features].to_numpy(float)).T, strict=True))
    arrays = {c: data.column(c) if c in others else pa.array(columns[c], from_pandas=False) for c in table}
    pq.write_table(
        pa.table(arrays), beside, use_dictionary=list(others.columns)
    )  # thousands of columns: pandas takes seconds
    beside.replace(path)


def write_anndata(table: pd.DataFrame, path: Path) -> None:
    """The same table as AnnData (.h5ad): features in X, metadata in obs, `<plate>_<well>` as names."""
    import anndata

    features = feature_columns(table)
    obs = table.drop(columns=features)
    obs = obs.set_axis([f"{p}_{w}" for p, w in zip(obs["Metadata_Plate"], obs["Metadata_Well"], strict=True)], axis=0)
    for column in obs.columns[obs.isna().all()]:
        obs[column] = obs[column].astype(float)  # a column of None has no type to store
    data = anndata.AnnData(table[features].to_numpy(), obs=obs, var=pd.DataFrame(index=features))
    beside = path.with_name(f".{path.name}.part")
    data.write_h5ad(beside)
    beside.replace(path)


def numbers_beside(path: Path, plate: str) -> dict[str, Any]:
    """The numbers versions that `profile` recorded beside a plate's table; none for a table made elsewhere."""
    try:
        found = json.loads((path.parent / f"{plate}_{RECORD}").read_text())["numbers"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def read_profiles(path: str | Path) -> pd.DataFrame:
    """Profiles from Parquet, CSV or CSV.gz, ours or others'; they need Metadata_Plate and Metadata_Well."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such profile file")
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    elif path.name.endswith((".csv", ".csv.gz")):
        table = pd.read_csv(path, low_memory=False)
    else:
        raise ValueError(f"{path}: profiles are read from .parquet, .csv and .csv.gz")
    table = table.rename(columns={"Image_Metadata_Plate": "Metadata_Plate", "Image_Metadata_Well": "Metadata_Well"})
    if missing := {"Metadata_Plate", "Metadata_Well"} - set(table.columns):
        raise ValueError(f"{path}: no column {sorted(missing)[0]}; profiles name their plate and well")
    return table.assign(Metadata_Plate=table["Metadata_Plate"].astype(str))
