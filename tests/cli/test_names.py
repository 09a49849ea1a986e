"""Names that come from tables, records and users become files only where those belong."""

import json
from pathlib import Path

import pandas as pd
import pytest

from jumpgpu.export import main as export
from jumpgpu.images.channels import check_channels
from jumpgpu.profile import main as profile
from jumpgpu.profiles.platemap import find_platemap
from jumpgpu.score import main as score
from jumpgpu.settings.config import PlateSettings
from jumpgpu.settings.names import check_file_name
from jumpgpu.store.layout import node, sealed
from tests.helpers.plates import write_plate

ASTRAY = ["../../../escaped", "/tmp/escaped", "..", ".", "", "a/b", "a\\b", "C:x", "a\0b", "a\nb", "x" * 201, "a*", " a"]


def wells(plate: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Metadata_Plate": plate,
            "Metadata_Well": [f"A{n:02d}" for n in range(1, 9)],
            "Metadata_broad_sample": ["x", "y"] * 4,
            "Metadata_control_type": ["negcon", ""] * 4,
            "Cells_AreaShape_Area": [1.0, 2, 3, 4, 5, 6, 7, 8],
            "Nuclei_AreaShape_Area": [3.0, 1, 3, 5, 5, 6, 2, 8],
        }
    )


@pytest.mark.parametrize("name", ASTRAY)
def test_what_cannot_name_a_file(name):
    with pytest.raises(ValueError, match=r"Plate_Map_Name .* cannot be the name of a file"):
        check_file_name(name, "Plate_Map_Name")


@pytest.mark.parametrize("name", ["BR00117010", "SQ 15 (2)", "a..b", "Größe=1", ".x", "-1"])
def test_what_can(name):
    assert check_file_name(name, "the plate") == name


@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped_by_jumpgpu", "a/b"])
def test_a_foreign_tables_plate_writes_nothing_outside_the_output(tmp_path, capsys, name):
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    wells(name).to_csv(folder / "foreign.csv", index=False)
    before = set(tmp_path.rglob("*"))
    assert profile(["--plate", str(folder / "foreign.csv"), "--output", str(folder / "out")]) == 2
    assert "the plate (Metadata_Plate)" in capsys.readouterr().err
    assert {p for p in tmp_path.rglob("*") if p.is_file()} <= before
    assert not Path("/tmp/escaped_by_jumpgpu").exists()


@pytest.mark.parametrize("name", ["../../secret", "*", "[a-z]*", "/etc/passwd"])
def test_a_plate_map_is_no_path_and_no_pattern(tmp_path, name):
    (tmp_path / "meta" / "platemap").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("well_position\tbroad_sample\nA01\tx\n")
    (tmp_path / "meta" / "platemap" / "map.txt").write_text("well_position\tbroad_sample\nA01\tx\n")
    (tmp_path / "meta" / "barcode_platemap.csv").write_text(f"Assay_Plate_Barcode,Plate_Map_Name\nP1,{name}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=r"Plate_Map_Name|0 files for plate map"):
        find_platemap(tmp_path / "meta", "P1")


def test_scores_and_channels_are_named_plainly(tmp_path, capsys):
    wells("P1").to_parquet(tmp_path / "P1.parquet")
    wells("P2").to_parquet(tmp_path / "P2.parquet")
    tables = ["--plate", str(tmp_path / "P1.parquet"), "--plate", str(tmp_path / "P2.parquet")]
    options = [*tables, "--output", str(tmp_path / "out"), "--name", "../../escaped", "--no-figures", "--null-wells", "2"]
    assert score(["replicating", *options]) == 2
    assert "--name '../../escaped'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*escaped*"))
    with pytest.raises(ValueError, match=r"plate\.channels: '\.\./DNA'"):
        check_channels(PlateSettings(channels=("../DNA",), stains={"x": "../DNA"}))


def test_a_stored_plates_tables_are_named_plainly(tmp_path, capsys):
    write_plate(tmp_path / "a", {"A01": [1]}, plate="P")
    path = tmp_path / "a" / "P.zarr" / "zarr.json"
    ours = json.loads(path.read_bytes())["attributes"]["jumpgpu"]
    ours["tables"]["../../x"] = ours["columns"]
    path.write_bytes(node("group", sealed({"jumpgpu": ours})))
    assert export([str(tmp_path / "a" / "P.zarr"), "--format", "csv", "--objects", "../../x"]) == 2
    assert "'P_../../x.csv' cannot be the name of a file" in capsys.readouterr().err
