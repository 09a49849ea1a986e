"""Exporting: files whole or absent, memory by wells, what is chosen, the command, and text that is no formula."""

import errno
import os
import sqlite3
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jumpgpu.export import main
from jumpgpu.outputs import export as module
from jumpgpu.outputs.export import SUFFIXES, export, system_errors
from jumpgpu.profiles.files import write_table
from jumpgpu.store.reader import StoredPlate, open_plate
from tests.helpers.plates import COLUMNS, write_plate
from tests.helpers.profiles_drawn import feature_names, write_store

FORMATS = sorted(SUFFIXES)
PLATE = "BR00117010"


@pytest.fixture
def plate(tmp_path: Path) -> StoredPlate:
    write_plate(tmp_path / "out", {"A01": [1, 2], "B02": [1, 2]})
    return open_plate(tmp_path / "out" / PLATE)


def test_the_command_writes_beside_the_plate(plate: StoredPlate, tmp_path: Path, capsys) -> None:
    path = str(tmp_path / "out" / PLATE)
    assert main([path]) == 0
    out = capsys.readouterr().out
    n_cells = len(plate.to_pandas())
    assert out.startswith(f"{tmp_path / 'out' / PLATE}.parquet  2 wells  {n_cells} cells  {len(COLUMNS)} features")
    assert list(pd.read_parquet(tmp_path / "out" / f"{PLATE}.parquet").columns[4:]) == COLUMNS
    assert main([path]) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert main([path, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("format", ["parquet", "csv", "h5ad"])
def test_wells_and_columns_are_chosen(plate: StoredPlate, format: str, tmp_path: Path) -> None:
    status = main(
        [str(plate.path), "--format", format, "--output", str(tmp_path / "x"), "--wells", "B02", "--columns", "Texture"]
    )
    assert status == 0
    path = tmp_path / "x" / f"{PLATE}{SUFFIXES[format]}"
    textures = [c for c in COLUMNS if "_Texture_" in c]
    if format == "h5ad":
        import anndata

        read = anndata.read_h5ad(path)
        assert list(read.var_names) == textures
        assert read.obs["Metadata_Well"].unique().tolist() == ["B02"]
        return
    table = pd.read_parquet(path) if format == "parquet" else pd.read_csv(path)
    assert list(table.columns[4:]) == textures
    assert table["Metadata_Well"].unique().tolist() == ["B02"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_whole_or_absent(plate: StoredPlate, format: str, tmp_path: Path, monkeypatch) -> None:
    """The second well cannot be read: neither the file nor anything beside it is left, and a file that was there stays."""
    real = StoredPlate._fill
    target = tmp_path / "x" / f"cells{SUFFIXES[format]}"
    target.parent.mkdir()
    target.write_text("mine")

    def fail(self, out, well, *rest):
        if well == "B02":
            raise ValueError("B02 is damaged")
        real(self, out, well, *rest)

    monkeypatch.setattr(StoredPlate, "_fill", fail)
    monkeypatch.setattr(module, "LINKS", ())
    with pytest.raises(ValueError, match="B02 is damaged"):
        export(plate, target, overwrite=True)
    assert target.read_text() == "mine"
    assert os.listdir(target.parent) == [target.name]


def test_a_full_disk_is_worth_trying_again(plate: StoredPlate, monkeypatch, capsys) -> None:
    def full(source, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setitem(module.WRITERS, "parquet", full)
    assert main([str(plate.path)]) == 75
    assert "No space left on device" in capsys.readouterr().err


def test_bad_use(plate: StoredPlate, tmp_path: Path, capsys) -> None:
    def said(*arguments: str) -> str:
        assert main([str(plate.path), *arguments]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        return err

    assert "no column 'Cells_AreaShape_Aera'; the nearest are" in said("--columns", "Cells_AreaShape_Aera")
    assert f"{PLATE} has no well C03; it has 2" in said("--wells", "C03")
    assert "SQLite needs the column Cytoplasm_Parent_Cells" in said("--format", "sqlite")
    assert "no profiles of BR00117010; jumpgpu profile makes them" in said("--level", "profile")
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no plate at" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"unknown format '\.xlsx'"):
        export(plate, tmp_path / "cells.xlsx")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> StoredPlate:
    """Twelve wells of 0.8 MB."""
    output = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    wells = {f"A{i:02d}": rng.normal(size=(1000, 200)).astype(np.float32) for i in range(1, 13)}
    write_store(output, "P", wells, feature_names(200))
    return open_plate(output / "P")


@pytest.mark.parametrize("format", ["parquet", "csv", "h5ad"])
def test_memory_is_bounded_by_parts(large: StoredPlate, format: str, tmp_path: Path, monkeypatch) -> None:
    """Eight wells more are 6.4 MB more of features; the most that is held at once grows by a quarter of that at most."""
    monkeypatch.setattr(module, "PART_BYTES", 1 << 20)
    maximum = {}
    for n in (1, 4, 12):  # the first for imports and caches
        tracemalloc.start()
        export(large, tmp_path / f"{n}{SUFFIXES[format]}", wells=large.wells[:n])
        maximum[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert maximum[12] - maximum[4] < 1.6e6
    if format == "parquet":
        assert pq.ParquetFile(tmp_path / "12.parquet").num_row_groups == 6  # two wells each


def test_text_that_would_be_a_formula_is_made_safe(tmp_path: Path, capsys) -> None:
    evil = ["=HYPERLINK(1)", "+1-2", "-666", "@SUM(A1)", "\tx", "-2e3", 'plain, with "quotes"', None]
    table = pd.DataFrame(
        {
            "Nuclei_AreaShape_Area": np.arange(8.0),
            "Metadata_Plate": "P1",
            "Metadata_Well": [f"A{i:02d}" for i in range(1, 9)],
            "Metadata_pert_iname": evil,
        }
    )
    write_plate(tmp_path, {"A01": [1]}, plate="P1")
    write_table(table, tmp_path / "profiles" / "P1" / "P1_augmented.parquet")
    write_table(table, tmp_path / "profiles" / "P1" / "P1.parquet")
    assert main([str(tmp_path / "P1"), "--level", "profile", "--format", "csv", "--output", str(tmp_path / "csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    read = pd.read_csv(tmp_path / "csv" / "P1_augmented.csv", dtype={"Metadata_pert_iname": str})
    assert list(read.columns) == ["Metadata_Plate", "Metadata_Well", "Metadata_pert_iname", "Nuclei_AreaShape_Area"]
    assert read["Metadata_pert_iname"].tolist()[:7] == [
        "'=HYPERLINK(1)", "'+1-2", "-666", "'@SUM(A1)", "'\tx", "-2e3", 'plain, with "quotes"',
    ]  # fmt: skip
    assert read["Metadata_pert_iname"].isna().tolist() == [False] * 7 + [True]
    assert main([str(tmp_path / "P1"), "--level", "profile", "--format", "h5ad", "--output", str(tmp_path / "h5ad")]) == 0
    assert sorted(p.name for p in (tmp_path / "h5ad").iterdir()) == ["P1.h5ad", "P1_augmented.h5ad"]
    assert main([str(tmp_path / "P1"), "--level", "profile", "--format", "sqlite", "--output", str(tmp_path)]) == 2
    assert "choose parquet, csv or h5ad" in capsys.readouterr().err


@pytest.mark.parametrize("error", ["OperationalError", "DatabaseError"])
def test_what_sqlite_says_of_a_failing_disk_is_an_error_of_the_system(error, tmp_path):
    failure = getattr(sqlite3, error)("database disk image is malformed")
    failure.sqlite_errorcode = sqlite3.SQLITE_FULL if error == "OperationalError" else sqlite3.SQLITE_CORRUPT
    with pytest.raises(OSError, match="database disk image") as raised, system_errors(tmp_path / "x.sqlite"):
        raise failure
    assert raised.value.errno == (errno.ENOSPC if error == "OperationalError" else errno.EIO)
    with pytest.raises(sqlite3.IntegrityError), system_errors(tmp_path):
        raise sqlite3.IntegrityError("a mistake of ours")
