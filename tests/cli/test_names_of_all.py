"""Every command with names that lead astray, from a table, a record, a settings file or a user: nothing outside --output."""

import importlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from jumpgpu.__main__ import COMMANDS, module_of
from jumpgpu.store.layout import node, sealed
from tests.helpers.plates import write_images, write_plate

UP, ROOT, DEEP = "../../escaped", "/tmp/jumpgpu_escaped", "a/b"
NAMES = [UP, ROOT, DEEP]
EXTRACT = "{0} --images images --config {1} --device cpu --illumination {2} --output out --quiet"
TABLES = "--plate P1.csv --plate P2.csv --output out"
SCORES = {
    "replicating": "--null-wells 2 --draws 20 --no-figures",
    "matching": "--label pair --draws 20 --no-figures",
    "map": "--null-size 20 --no-figures",
    "hits": "--null-size 20 --no-figures",
    "embed": "",
    "similarity": "",
}


def wells(plate: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Metadata_Plate": plate,
            "Metadata_Well": [f"A{n:02d}" for n in range(1, 9)],
            "Metadata_broad_sample": ["x", "y"] * 4,
            "Metadata_pair": ["g"] * 8,
            "Metadata_control_type": ["negcon", ""] * 4,
            "Cells_AreaShape_Area": [1.0, 2, 3, 4, 5, 6, 7, 8],
            "Nuclei_AreaShape_Area": [3.0, 1, 3, 5, 5, 6, 2, 8],
        }
    )


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A folder deep below `tmp_path`, with what the commands read; `..` from its output stays below `tmp_path`."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    write_images(folder)
    write_plate(folder, {"A01": [1], "A02": [1]}, plate="P")
    (folder / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    for plate in ("P1", "P2"):
        wells(plate).to_csv(f"{plate}.csv", index=False)
    (folder / "meta" / "external").mkdir(parents=True)
    (folder / "meta" / "external" / "x.tsv").write_text("broad_sample\tpert_iname\nx\tone\n")
    Path("map.txt").write_text("well_position\tbroad_sample\tcontrol_type\nA01\tx\tnegcon\nA02\ty\t\n")
    return folder


def run(line: str) -> int:
    name, *words = line.split()
    main = importlib.import_module(module_of(name)).main
    try:
        return int(main(words))
    except SystemExit as end:
        return int(end.code or 0)


def files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_file() and ".jumpgpu.lock" not in p.name}


def ends(line: str, top: Path, *told: str, capsys: pytest.CaptureFixture[str], may_pass: bool = False) -> None:
    """The command is bad use and says all of `told`, or may pass; nothing new lies outside of `out`."""
    before = files(top)
    status = run(line)
    said = capsys.readouterr()
    astray = [p for p in files(top) - before if "out" not in p.relative_to(top).parts[3:4]]
    assert not astray, (line, astray)
    assert not Path(ROOT).exists(), line
    assert not Path(ROOT).parent.joinpath("escaped").exists(), line
    assert "Traceback" not in said.err
    if not (may_pass and status == 0):
        assert status == 2, (line, status, said)
        for word in told:
            assert word in said.err, (line, word, said.err)


@pytest.mark.parametrize("name", NAMES)
def test_plates_named_by_a_user(inside, tmp_path, capsys, name):
    """Options that name a plate, or what is written of it."""
    for line in (
        "extract " + EXTRACT.format(name, "small.toml", "none"),
        "segment " + EXTRACT.format(name, "small.toml", "none"),
        f"check-plate {name} --images images",
        f"synthetic --output out --plate {name} --wells 1 --sites 1 --size 64 --cells 1",
        f"profile {name} --output out --platemap map.txt",
        f"score replicating {name} --output out",
        f"score map {TABLES} --name {name}",
        f"benchmark {TABLES} --name {name} --draws 20",
        f"benchmark {name} --output out",
        f"export {name} --format csv --output out",
        f"report {name} --output out",
        f"compare {name} P1.csv --output out",
        f"export P.zarr --format csv --objects {name} --output out",
    ):
        ends(line, tmp_path, name, capsys=capsys)
    for kind in SCORES:
        ends(f"score {kind} {TABLES} --name {name}", tmp_path, "--name", name, capsys=capsys)


@pytest.mark.parametrize("name", NAMES)
def test_plates_and_wells_of_a_foreign_table(inside, tmp_path, capsys, name):
    """Metadata_Plate, in the column of that name and in another; every other column of text, where a table may say it."""
    foreign = wells(name)
    foreign.to_csv("P1.csv", index=False)
    ends(f"profile {TABLES}", tmp_path, "P1.csv", "Metadata_Plate", name, capsys=capsys)
    for kind, more in SCORES.items():
        ends(f"score {kind} {TABLES} {more}", tmp_path, capsys=capsys, may_pass=True)
    ends(f"benchmark {TABLES} --draws 20 --null-wells 2", tmp_path, capsys=capsys, may_pass=True)
    foreign.rename(columns={"Metadata_Plate": "Barcode"}).to_csv("P1.csv", index=False)
    ends(f"profile {TABLES} --plate-column Barcode", tmp_path, "P1.csv", name, capsys=capsys)
    text = ("Metadata_Well", "Metadata_broad_sample", "Metadata_pair", "Metadata_control_type")
    for column in text:
        table = wells("P1")
        table.loc[1, column] = name
        table.to_csv("P1.csv", index=False)
        for line in (f"profile {TABLES} --overwrite", f"benchmark {TABLES} --draws 20 --null-wells 2"):
            ends(line, tmp_path, "P1.csv", capsys=capsys, may_pass=True)
        for kind, more in SCORES.items():
            ends(f"score {kind} {TABLES} {more}", tmp_path, capsys=capsys, may_pass=True)


@pytest.mark.parametrize("name", NAMES)
def test_plate_maps_and_treatments(inside, tmp_path, capsys, name):
    """Plate_Map_Name, and every column of a plate map and a treatment table."""
    Path("meta/barcode_platemap.csv").write_text(f"Assay_Plate_Barcode,Plate_Map_Name\nP,{name}\n")
    for line in (
        "profile P --output . --metadata meta --overwrite",
        "export P.zarr --format csv --metadata meta --output out",
        "report P.zarr --metadata meta --output out",
        "check-plate DEMO --images images --metadata meta",
    ):
        if line.startswith("check-plate"):
            Path("meta/barcode_platemap.csv").write_text(f"Assay_Plate_Barcode,Plate_Map_Name\nDEMO,{name}\n")
        ends(line, tmp_path, "barcode_platemap.csv", "Plate_Map_Name", name, capsys=capsys)
    for column in range(3):
        row = ["A01", "x", "negcon"]
        row[column] = name
        Path("map.txt").write_text("well_position\tbroad_sample\tcontrol_type\n" + "\t".join(row) + "\nA02\ty\t\n")
        for line in (
            "export P.zarr --format csv --platemap map.txt --output out --overwrite",
            "export P.zarr --format h5ad --platemap map.txt --output out --overwrite",
            "export P.zarr --format cellprofiler --platemap map.txt --output out --overwrite",
        ):
            ends(line, tmp_path, "map.txt", capsys=capsys, may_pass=True)
    Path("meta/external/x.tsv").write_text(f"broad_sample\tgene\ttarget_list\nx\t{name}\t{name}|{name}\n")
    shutil.copy("meta/external/x.tsv", f"meta/external/{name.replace('/', '_')}.tsv")
    ends("tables --metadata meta --output out", tmp_path, capsys=capsys, may_pass=True)


@pytest.mark.parametrize("name", NAMES)
def test_records_of_a_stored_plate(inside, tmp_path, capsys, name):
    """The plate, its channels, tables and columns as a foreign `zarr.json` names them."""
    record = Path("P.zarr/zarr.json")
    whole = json.loads(record.read_bytes())["attributes"]["jumpgpu"]
    for change in (
        {"plate": name},
        {"channels": [name, *whole["channels"][1:]]},
        {"tables": {**whole["tables"], name: whole["columns"]}},
        {
            "quarantine": [
                {"plate": name, "well": name, "site": 1, "channel": name, "file": name, "reason": "x", "used": True}
            ]
        },
    ):
        record.write_bytes(node("group", sealed({"jumpgpu": whole | change})))
        kinds = ("parquet", "csv", "h5ad", "sqlite", "cellprofiler")
        for line in (
            *(f"export P.zarr --format {kind} --output out --overwrite" for kind in kinds),
            f"export P.zarr --format csv --objects {name} --output out --overwrite",
            "report P.zarr --output out --overwrite",
            "report P.zarr --multiqc out/x_mqc.json",
            "profile P --output out --platemap map.txt --overwrite",
            "compare P.zarr P1.csv --output out",
        ):
            ends(line, tmp_path, capsys=capsys, may_pass=True)
        before = files(tmp_path)
        assert run("verify P.zarr") in (0, 1, 2)
        assert files(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_indexes(inside, tmp_path, capsys, name):
    """Channels and models of a settings file; channels, images and plates of a LoadData table."""
    for text in (
        f'[plate]\nchannels = ["{name}"]\n[plate.stains]\nx = "{name}"\n',
        f'[[features.embedding.models]]\nname = "{name}"\nmodel = "random"\n',
    ):
        Path("other.toml").write_text(text)
        for line in ("extract " + EXTRACT.format("DEMO", "other.toml", "estimate"), "config other.toml"):
            ends(line, tmp_path, capsys=capsys, may_pass=line.startswith("config"))
    image = next(Path("images").rglob("r01c01f01*ch5*"))
    for column in range(4):
        row = ["DEMO", "A01", "1", str(image.name)]
        row[column] = name
        heading = "Metadata_Plate,Metadata_Well,Metadata_Site,FileName_OrigDNA,PathName_OrigDNA"
        Path("load_data.csv").write_text(f"{heading}\n{','.join(row)},{image.parent.absolute()}\n")
        line = "extract " + EXTRACT.format(name if not column else "DEMO", "small.toml", "estimate")
        ends(line.replace("--images images", "--images load_data.csv"), tmp_path, capsys=capsys)


def test_every_command_has_names_tried():
    """Those that are not above read no name: they print, or write to the file they are given."""
    text = Path(__file__).read_text()
    others = {"columns", "config", "import-cppipe", "doctor", "completion"}
    assert all(f"{name} " in text for name in set(COMMANDS) - others)
