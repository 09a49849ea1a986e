"""Exported files as pycytominer, anndata, pandas and SQLite read them, against what was stored."""

import contextlib
import sqlite3
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from pycytominer.cyto_utils import infer_cp_features, load_profiles

from jumpgpu.outputs.export import LINKS, export
from jumpgpu.profiles.aggregate import aggregate
from jumpgpu.settings.names import COMPARTMENTS, feature_name
from jumpgpu.store.reader import StoredPlate, open_plate
from tests.helpers.profiles_drawn import write_store

PLATE = "BR00117010"
WELLS = {"A01": 7, "A02": 1, "B10": 0, "P24": 12}  # cells
PARENTS = ["Cells_Parent_Nuclei", "Cytoplasm_Parent_Cells", "Cytoplasm_Parent_Nuclei"]
COLUMNS = sorted(
    [
        *(feature_name(c, "AreaShape", m) for c in COMPARTMENTS for m in ("Area", "Orientation")),
        *(feature_name(c, "Texture", "Variance", "DNA", "5", "03", "256") for c in COMPARTMENTS),
        *PARENTS,
    ]
)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> StoredPlate:
    """Wells of two sites, with awkward values: denormal, huge, negative zero, NaN and infinite ones."""
    output = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    wells = {}
    for well, n in WELLS.items():
        values = rng.normal(size=(n, len(COLUMNS))) * 10.0 ** rng.integers(-20, 20, (n, len(COLUMNS)))
        numbers = np.r_[1 : n // 2 + 1, 1 : n - n // 2 + 1]
        for name in PARENTS:
            values[:, COLUMNS.index(name)] = numbers
        wells[well] = values.astype(np.float32)
    odd = COLUMNS.index("Nuclei_AreaShape_Orientation")
    wells["A01"][:6, odd] = [np.nan, np.inf, -np.inf, -0.0, 1e-42, np.finfo(np.float32).max]
    write_store(output, PLATE, wells, COLUMNS)
    return open_plate(output / f"{PLATE}.zarr")


def same_bits(read: pd.DataFrame, plate: StoredPlate) -> None:
    """The same columns in the same order, the same text and integers, and features of the same float32."""
    stored = plate.to_pandas()
    assert list(read.columns) == list(stored.columns)
    assert list(read.columns[:4]) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"]
    for name in read.columns[:4]:
        assert read[name].tolist() == stored[name].tolist()
    values = read[COLUMNS].to_numpy()
    np.testing.assert_array_equal(values.astype(np.float32), stored[COLUMNS].to_numpy())
    np.testing.assert_array_equal(values.astype(float), stored[COLUMNS].to_numpy().astype(float))
    assert np.signbit(values[3, COLUMNS.index("Nuclei_AreaShape_Orientation")])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_pycytominer_loads_the_table_column_for_column(plate: StoredPlate, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cells.{suffix}"
    assert export(plate, path) == sum(WELLS.values())
    loaded = load_profiles(str(path))
    assert infer_cp_features(loaded) == COLUMNS
    if suffix == "parquet":
        assert set(loaded[COLUMNS].dtypes) == {np.dtype(np.float32)}
        same_bits(loaded, plate)
    else:
        stored = plate.to_pandas()
        np.testing.assert_array_equal(loaded[COLUMNS].to_numpy().astype(np.float32), stored[COLUMNS].to_numpy())
        same_bits(pd.read_csv(path, float_precision="round_trip"), plate)


@pytest.mark.filterwarnings("ignore:The SingleCells class is deprecated:DeprecationWarning")
@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_pycytominer_aggregates_the_sqlite_as_we_do(plate: StoredPlate, statistic: str, tmp_path: Path) -> None:
    from pycytominer.cyto_utils.cells import SingleCells

    path = tmp_path / "cells.sqlite"
    export(plate, path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ResourceWarning)
        cells = SingleCells(f"sqlite:///{path}", aggregation_operation=statistic)
        theirs = cells.aggregate_profiles()
        merged = cells.merge_single_cells()
        cells.conn.close()
        cells.engine.dispose()
    ours = aggregate(plate, statistic)
    assert theirs["Metadata_Well"].tolist() == ours["Metadata_Well"].tolist() == ["A01", "A02", "P24"]
    assert theirs["Metadata_Plate"].unique().tolist() == [PLATE]
    shared = [c for c in COLUMNS if c not in LINKS]  # pycytominer makes metadata of those
    assert [c for c in theirs.columns if not c.startswith("Metadata_")] == [
        c for compartment in COMPARTMENTS for c in shared if c.startswith(compartment)
    ]
    finite = np.isfinite(ours[shared].to_numpy())  # the one column with infinities sums them in another order
    np.testing.assert_allclose(theirs[shared].to_numpy()[finite], ours[shared].to_numpy()[finite], rtol=1e-12)
    assert len(merged) == sum(WELLS.values())
    one = merged.set_index(["Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"]).loc[("P24", 2, 3)]
    stored = plate.to_pandas(["P24"]).set_index(["Metadata_Site", "Metadata_ObjectNumber"]).loc[(2, 3)]
    assert one["Cells_AreaShape_Area"] == stored["Cells_AreaShape_Area"]
    assert one["Nuclei_AreaShape_Area"] == stored["Nuclei_AreaShape_Area"]


def test_sqlite_is_laid_out_as_cytominer_databases(plate: StoredPlate, tmp_path: Path) -> None:
    path = tmp_path / "cells.sqlite"
    export(plate, path)
    with contextlib.closing(sqlite3.connect(path)) as base:
        tables = {r[0] for r in base.execute("select name from sqlite_master where type = 'table'")}
        assert tables == {"Image", "Cells", "Cytoplasm", "Nuclei"}
        images = pd.read_sql("select * from Image", base)
        nuclei = pd.read_sql("select * from Nuclei", base)
    base.close()
    assert list(nuclei.columns[:3]) == ["TableNumber", "ImageNumber", "ObjectNumber"]
    assert list(nuclei.columns[3:]) == [c for c in COLUMNS if c.startswith("Nuclei_")]
    assert images["ImageNumber"].tolist() == list(range(1, len(images) + 1))
    assert images["Image_Metadata_Well"].tolist() == images["Metadata_Well"].tolist()
    assert images["Image_Count_Cells"].sum() == len(nuclei) == sum(WELLS.values())
    stored = plate.to_pandas(columns=list(nuclei.columns[3:]))
    values = nuclei[nuclei.columns[3:]].to_numpy(float)
    np.testing.assert_array_equal(values, stored[nuclei.columns[3:]].to_numpy(float))


def test_anndata_reads_what_is_stored(plate: StoredPlate, tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    export(plate, path)
    read, stored = anndata.read_h5ad(path), plate.to_anndata().to_memory()
    assert read.X.dtype == np.float32
    np.testing.assert_array_equal(read.X, stored.X)
    assert list(read.var_names) == COLUMNS
    assert read.var["family"].tolist() == stored.var["family"].tolist()
    assert list(read.obs_names) == list(stored.obs_names)
    assert read.obs["Metadata_Well"].tolist() == plate.to_pandas()["Metadata_Well"].tolist()


def test_polars_and_arrow_read_the_parquet(plate: StoredPlate, tmp_path: Path) -> None:
    import polars

    export(plate, tmp_path / "cells.parquet")
    read = polars.read_parquet(tmp_path / "cells.parquet")
    assert read.columns == list(plate.to_pandas().columns)
    assert read.schema["Metadata_Plate"] == polars.String
    same_bits(read.to_pandas(), plate)
