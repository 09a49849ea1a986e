"""The store: what is written is read back, by us and by others; only whole wells; only equal settings."""

import csv
import errno
import json
import os
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest
import zarr

import jumpgpu
from jumpgpu.settings.numbers import differences
from jumpgpu.storage.atomic import check_key, commit_folder
from jumpgpu.store.annotation import PARSED, scale_of, variables
from jumpgpu.store.layout import Layout, Quarantined, SiteTable, sealed
from jumpgpu.store.writer import PlateWriter, fingerprint
from tests.conftest import CHECKOUT
from tests.helpers.plates import CHANNELS, COLUMNS, SETTINGS, contents, draw_site, write_plate

FIELDS = ["compartment", "family", "channel", "channel_2", "n_channels", "scale", "unit", "feature_type"]
WELLS = {"B10": [1, 2], "A02": [2, 1], "AA01": [7]}


@pytest.fixture
def output(tmp_path):
    assert write_plate(tmp_path, WELLS, images=True) == ["A02", "B10", "AA01"]
    return tmp_path


def rows(well, site):
    return draw_site(well, site).values.astype(np.float32)


def test_pandas_gives_back_what_was_appended(output):
    plate = jumpgpu.open_plate(output / "BR00117010.zarr")
    assert plate.wells == ["A02", "B10", "AA01"]
    assert plate.columns == COLUMNS
    table = plate.to_pandas()
    assert list(table.columns) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber", *COLUMNS]
    assert set(table["Metadata_Plate"]) == {"BR00117010"}
    for well, sites in WELLS.items():
        for site in sites:
            part = table[(table.Metadata_Well == well) & (table.Metadata_Site == site)]
            np.testing.assert_array_equal(part[COLUMNS].to_numpy(), rows(well, site))
            np.testing.assert_array_equal(part.Metadata_ObjectNumber, draw_site(well, site).numbers)
    assert table[COLUMNS].dtypes.eq(np.float32).all()


def test_chosen_wells_and_columns_come_in_the_order_asked(output):
    plate = jumpgpu.open_plate(output / "BR00117010")
    chosen = [COLUMNS[7], COLUMNS[2]]
    table = plate.to_pandas(wells=["AA01", "A02"], columns=["Metadata_Well", *chosen])
    assert list(table.columns[4:]) == chosen
    assert list(dict.fromkeys(table.Metadata_Well)) == ["AA01", "A02"]
    np.testing.assert_array_equal(table[chosen].to_numpy()[-1], rows("A02", 2)[-1][[7, 2]])
    with pytest.raises(ValueError, match="no column 'Cells_Nope'"):
        plate.to_pandas(columns=["Cells_Nope"])
    with pytest.raises(ValueError, match="no well C01"):
        plate.to_pandas(wells=["C01"])


def test_polars_and_anndata_hold_the_same_table(output):
    plate = jumpgpu.open_plate(output / "BR00117010")
    table = plate.to_pandas()
    frame = plate.to_polars()
    assert frame.schema["Metadata_Well"] == pl.String
    pd.testing.assert_frame_equal(frame.to_pandas(), table, check_dtype=False)
    whole = plate.to_anndata()
    np.testing.assert_array_equal(whole.X, table[COLUMNS].to_numpy())
    assert whole.obs_names.is_unique
    assert list(whole.var.columns) == [*FIELDS, "object", "feature_group", *PARSED]


def test_anndata_and_zarr_open_a_well_by_themselves(output):
    table = anndata.read_zarr(output / "BR00117010.zarr" / "B" / "10" / "tables" / "cells")
    np.testing.assert_array_equal(table.X, np.concatenate([rows("B10", 1), rows("B10", 2)]))
    assert table.X.dtype == np.float32
    assert list(table.obs.columns) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"]
    assert list(table.var_names) == COLUMNS
    assert list(table.var.columns) == [*FIELDS, "mean"]
    told = table.var.loc["Nuclei_Texture_Variance_DNA_5_03_256", FIELDS].to_list()
    assert told == ["Nuclei", "Texture", "DNA", "", 1, "5", "", "texture"]
    group = zarr.open_group(output / "BR00117010.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert len(list(group["AA/01"].members(max_depth=None))) > 12  # no warning: nothing foreign lies in the group


def test_variables_of_the_real_columns(shared):
    columns = (shared / "spec" / "columns.txt").read_text().split()
    table = pd.DataFrame(variables(columns, ["AGP", "DNA", "ER", "Mito", "RNA"]), index=columns)
    assert set(table.scale) == {
        "",
        "3",
        "5",
        "10",
        "1",
        "Adjacent",
        *(str(k) for k in range(1, 17)),
        *(f"{k}of4" for k in range(1, 5)),
    }
    assert table.loc["Cells_Correlation_RWC_ER_RNA", ["channel", "channel_2", "n_channels"]].to_list() == ["ER", "RNA", 2]
    assert (table[table.family == "Texture"].channel != "").all()
    assert scale_of("Cells_AreaShape_Zernike_9_9") == ""


def test_label_images_and_overviews_are_ome_zarr(output):
    plate = jumpgpu.open_plate(output / "BR00117010")
    drawn = draw_site("B10", 2, labels=True, overview=True)
    labels = plate.labels("B10", 2)
    assert sorted(labels) == ["Cells", "Cytoplasm", "Nuclei"]
    for compartment, image in labels.items():
        assert image.dtype == np.int32
        np.testing.assert_array_equal(image, drawn.labels[compartment])
    np.testing.assert_array_equal(plate.overview("B10", 2), drawn.overview)
    with pytest.raises(ValueError, match=r"site 9 has no label images; extract with --save-labels"):
        plate.labels("B10", 9)
    root = json.loads((plate.path / "zarr.json").read_text())["attributes"]["ome"]
    assert root["version"] == "0.5"
    assert [w["path"] for w in root["plate"]["wells"]] == ["A/02", "B/10", "AA/01"]
    group = zarr.open_group(plate.path, mode="r")
    for well in root["plate"]["wells"]:
        assert root["plate"]["rows"][well["rowIndex"]]["name"] == well["path"].split("/")[0]
        for image in group[well["path"]].attrs["ome"]["well"]["images"]:
            site = group[f"{well['path']}/{image['path']}"]
            scale = site.attrs["ome"]["multiscales"][0]["datasets"][0]
            assert site[scale["path"]].ndim == len(scale["coordinateTransformations"][0]["scale"]) == 3
            assert sorted(site["labels"].attrs["ome"]["labels"]) == ["cells", "cytoplasm", "nuclei"]
            assert "image-label" in site["labels/cells"].attrs["ome"]


def test_a_second_run_makes_only_what_is_missing_and_the_same_bits(tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    write_plate(once, WELLS)
    assert write_plate(twice, {"A02": WELLS["A02"]}) == ["A02"]
    before = (twice / "BR00117010.zarr/A/02/zarr.json").stat()
    assert write_plate(twice, WELLS) == ["B10", "AA01"]
    assert write_plate(twice, WELLS) == []
    assert (twice / "BR00117010.zarr/A/02/zarr.json").stat() == before
    assert contents(once / "BR00117010.zarr") == contents(twice / "BR00117010.zarr")
    assert sorted(p.name for p in twice.iterdir()) == [".jumpgpu.lock", "BR00117010.zarr"]


def test_an_unfinished_well_is_absent(tmp_path):
    layout = Layout("BR00117010", COLUMNS, CHANNELS)
    with PlateWriter(tmp_path, layout, SETTINGS, WELLS) as writer:
        assert not writer.append(draw_site("B10", 1))
        assert writer.append(draw_site("AA01", 7))
        assert writer.missing_wells() == ["A02", "B10"]
        with pytest.raises(ValueError, match="B10 site 1 is not expected, or came twice"):
            writer.append(draw_site("B10", 1))
    assert jumpgpu.open_plate(tmp_path / "BR00117010").wells == ["AA01"]


def test_other_settings_are_refused_with_what_differs(output):
    other = {"config": {"features": {"scales": [3]}}, "device": "cpu", "kernels": "abd"}
    with pytest.raises(ValueError, match=r"config.features.scales: stored \[3, 5\], asked \[3\]\n.*kernels: stored abc"):
        write_plate(output, WELLS, settings=other)
    with pytest.raises(ValueError, match=r"holds 2 wells not asked for.*would lose them"):
        write_plate(output, {"A02": [1, 2]}, settings=other, overwrite=True)
    assert jumpgpu.open_plate(output / "BR00117010").wells == ["A02", "B10", "AA01"]
    assert write_plate(output, WELLS, settings=other, overwrite=True) == ["A02", "B10", "AA01"]
    assert jumpgpu.open_plate(output / "BR00117010").fingerprint == fingerprint(other)


def test_overwrite_with_equal_settings_makes_the_wells_again(output):
    before = contents(output / "BR00117010.zarr")
    assert write_plate(output, {"A02": WELLS["A02"]}, overwrite=True, images=True) == ["A02"]
    assert contents(output / "BR00117010.zarr") == before


def test_differences_name_every_setting():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}) == [
        "a.c: stored 2, asked absent",
        "a.d: stored absent, asked 3",
    ]


def test_quarantined_sites_are_recorded_and_an_empty_well_is_present(tmp_path):
    layout = Layout("BR00117010", COLUMNS, CHANNELS)
    bad = [
        Quarantined("BR00117010", "A01", 1, "DNA", "=cmd.tiff", "missing"),
        Quarantined("BR00117010", "A01", 2, "ER", "b.tiff", "truncated"),
        Quarantined("BR00117010", "B10", 1, "ER", "c.tiff", "saturated", used=True),
    ]
    with PlateWriter(tmp_path, layout, SETTINGS, {"A01": [1, 2], "B10": [1]}) as writer:
        assert not writer.leave_out(bad[:1])
        assert writer.leave_out(bad[1:2])
        writer.flag(bad[2])
        assert writer.append(draw_site("B10", 1))
    plate = jumpgpu.open_plate(tmp_path / "BR00117010")
    assert plate.wells == ["A01", "B10"]
    assert len(plate.to_pandas(wells=["A01"])) == 0
    assert anndata.read_zarr(plate.path / "A" / "01" / "tables" / "cells").shape == (0, len(COLUMNS))
    assert plate.quarantine.reason.to_list() == ["missing", "truncated", "saturated"]
    assert [q["reason"] for q in plate.manifest["quarantine"]] == ["missing", "truncated", "saturated"]
    assert plate.verify() == []
    write_plate(tmp_path, {"A01": [1]}, plate="BR00117011")
    with open(tmp_path / "quarantine.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [r["file"] for r in listed] == ["'=cmd.tiff", "b.tiff", "c.tiff"]
    assert list(listed[0]) == ["plate", "well", "site", "channel", "file", "reason", "used"]


def test_nonfinite_values_are_counted_by_column(output):
    record = jumpgpu.open_plate(output / "BR00117010").record("B10")
    assert record["nonfinite"] == {COLUMNS[1]: {"nan": 2, "inf": 0}, COLUMNS[2]: {"nan": 0, "inf": 2}}
    total = jumpgpu.open_plate(output / "BR00117010").nonfinite
    assert total.to_dict("index") == {COLUMNS[1]: {"nan": 5, "inf": 0}, COLUMNS[2]: {"nan": 0, "inf": 5}}
    assert record["cells"] == sum(len(draw_site("B10", s).numbers) for s in (1, 2))
    assert record["sites"][1]["inputs"][0] == {"channel": "DNA", "file": "B10_2_DNA.tiff", "bytes": 1002, "mark": ""}


def test_changed_inputs_are_named(output):
    layout = Layout("BR00117010", COLUMNS, CHANNELS, pixel_size_um=0.6)
    with PlateWriter(output, layout, SETTINGS, WELLS) as writer:
        now = {s: draw_site("B10", s).inputs for s in (1, 2)}
        assert writer.changed_inputs("B10", now) == []
        now = {2: (now[2][0],), 3: now[1]}
        assert writer.changed_inputs("B10", now) == [
            "B10 site 3: was not there",
            "B10 site 1: is no longer there",
            "B10 site 2 ER: stored B10_2_ER.tiff (1002 bytes), asked absent",
        ]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def reseal(path, record):
    path.write_text(json.dumps(record | {"attributes": sealed(record["attributes"])}))


@pytest.mark.parametrize("key", ["tables/cells/X/c.0.0", "tables/cells/var/_index/c.0", "2/labels/nuclei/0/c.0.0"])
def test_one_flipped_bit_is_found(output, key):
    plate = jumpgpu.open_plate(output / "BR00117010")
    assert plate.verify() == []
    flip(plate.path / "B" / "10" / key)
    read = {"2": lambda: plate.labels("B10", 2), "tables": plate.to_pandas}[key.split("/")[0]]
    if "var" not in key:  # the columns are read once a plate, from its first well
        with pytest.raises(ValueError, match=f"B10: {key} is not as it was written"):
            read()
    (problem,) = plate.verify()
    assert key in problem


def test_verify_finds_what_checksums_cannot(output):
    plate = jumpgpu.open_plate(output / "BR00117010")
    (plate.path / "B" / "10" / "extra.bin").write_bytes(b"x")
    os.remove(plate.path / "A" / "02" / "tables" / "zarr.json")
    record_file = plate.path / "AA" / "01" / "zarr.json"
    record = json.loads(record_file.read_text())
    record["attributes"]["jumpgpu"] |= {"fingerprint": "0", "nonfinite": {}}
    reseal(record_file, record)
    problems = plate.verify()
    for words in (
        "extra.bin is not in its record",
        "tables/zarr.json is not as it was",
        "other settings",
        "1 NaN and 0 inf",
    ):
        assert sum(words in p for p in problems) == 1, problems


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/../b", "", "a/./../b", ".hidden", "a\\b", "ä", "a\0b"])
def test_keys_that_leave_the_store_are_refused(key, tmp_path):
    with pytest.raises(ValueError, match="not a key of a store"):
        check_key(key)
    with pytest.raises(ValueError, match="not a key of a store"):
        commit_folder({key: b"x"}, tmp_path / "well", tmp_path)
    assert not (tmp_path / "well").exists()


def test_a_record_that_leads_out_of_the_plate_is_refused(output):
    plate = jumpgpu.open_plate(output / "BR00117010")
    outside = output / "secret"
    outside.write_bytes(b"secret")
    record_file = plate.path / "B" / "10" / "zarr.json"
    record = json.loads(record_file.read_text())
    known = {"bytes": 6, "sha256": "0"}
    record["attributes"]["jumpgpu"]["files"] = {"tables/cells/X/../../../../../../secret": known}
    reseal(record_file, record)
    with pytest.raises(ValueError, match="not a key of a store"):
        plate.to_pandas(wells=["B10"])
    (plate.path / "B" / "10" / "tables" / "cells" / "X" / "link").symlink_to(outside)
    record["attributes"]["jumpgpu"]["files"] = {"tables/cells/X/link": known}
    reseal(record_file, record)
    with pytest.raises(ValueError, match="leads out of the plate"):
        plate.to_pandas(wells=["B10"])


def test_what_is_no_plate_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no plate at"):
        jumpgpu.open_plate(tmp_path / "BR00117010")
    folder = tmp_path / "BR00117010.zarr"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"not a plate or well written by jumpgpu"):
        write_plate(tmp_path, WELLS)
    for text in ("{", "[]", '{"attributes": {"jumpgpu": 3}}', '{"attributes": {"jumpgpu": {"format": 99}}}', "[" * 100000):
        (folder / "zarr.json").write_text(text)
        with pytest.raises(ValueError, match=r"not a record of jumpgpu's|has format"):
            jumpgpu.open_plate(folder)


def test_two_runs_share_a_plate_but_not_a_well(tmp_path):
    layout = Layout("BR00117010", COLUMNS, CHANNELS)
    with PlateWriter(tmp_path, layout, SETTINGS, {"A02": [1], "B10": [1]}) as first:
        with pytest.raises(
            BlockingIOError, match=rf"process {os.getpid()} on .* is already at work on 1 of these wells \(B10\)"
        ):
            PlateWriter(tmp_path, layout, SETTINGS, {"B10": [1], "C03": [1]})
        with PlateWriter(tmp_path, layout, SETTINGS, {"C03": [1]}) as second:
            second.append(draw_site("C03", 1))
        with pytest.raises(BlockingIOError, match="is at work on it; wait for it before --overwrite"):
            PlateWriter(tmp_path, layout, {"x": 1}, {"C03": [1], "D04": [1]}, overwrite=True)
        first.append(draw_site("A02", 1))
        first.append(draw_site("B10", 1))
    assert jumpgpu.open_plate(tmp_path / "BR00117010").wells == ["A02", "B10", "C03"]


def test_runs_side_by_side_make_the_bits_of_one(tmp_path):
    wells = {f"{row}{column:02d}": [1, 2] for row in "ABC" for column in range(1, 9)}
    write_plate(tmp_path / "one", wells)
    program = f"""
import sys
from pathlib import Path
from tests.helpers.plates import write_plate
wells = {wells!r}
mine = list(wells)[int(sys.argv[1]) :: 3]
write_plate(Path({str(tmp_path / "many")!r}), {{well: wells[well] for well in mine}})
"""
    runs = [subprocess.Popen([sys.executable, "-c", program, str(i)], cwd=CHECKOUT) for i in range(3)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    assert contents(tmp_path / "one" / "BR00117010.zarr") == contents(tmp_path / "many" / "BR00117010.zarr")
    assert write_plate(tmp_path / "many", wells) == []


def test_a_folder_that_is_there_is_not_replaced_unasked(tmp_path):
    commit_folder({"a": b"1"}, tmp_path / "well", tmp_path / "..")
    with pytest.raises(FileExistsError):
        commit_folder({"a": b"2"}, tmp_path / "well", tmp_path / "..")
    assert (tmp_path / "well" / "a").read_bytes() == b"1"
    commit_folder({"a": b"3"}, tmp_path / "well", tmp_path / "..", replace=True)
    assert (tmp_path / "well" / "a").read_bytes() == b"3"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOTEMPTY])
def test_a_folder_that_is_there_is_named_so_by_every_file_system(tmp_path, monkeypatch, number):
    """sshfs refuses the rename by EPERM where another's folder came first, Windows by EACCES."""
    (tmp_path / "row").mkdir()

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(FileExistsError):
        commit_folder({"a": b"1"}, tmp_path / "row", tmp_path / "..")
    if number != errno.ENOTEMPTY:
        with pytest.raises(PermissionError):
            commit_folder({"a": b"1"}, tmp_path / "absent", tmp_path / "..")


def test_a_dead_runs_claim_is_swept_away(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from tests.helpers.plates import *
writer = PlateWriter(Path({str(tmp_path)!r}), Layout("BR00117010", COLUMNS, CHANNELS), SETTINGS, {{"A02": [1, 2]}})
writer.append(draw_site("A02", 1))
(writer._claim.staging / "A02").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=CHECKOUT).returncode == -9
    assert len(list(tmp_path.glob(".BR00117010.run-*"))) == 1
    write_plate(tmp_path, {"A02": [1, 2]})
    assert list(tmp_path.glob(".BR00117010.run-*")) == []


def test_a_table_of_the_wrong_shape_is_refused(tmp_path):
    layout = Layout("BR00117010", COLUMNS, CHANNELS)
    with (
        PlateWriter(tmp_path, layout, SETTINGS, {"A02": [1]}) as writer,
        pytest.raises(ValueError, match=r"A02 site 1: table is"),
    ):
        writer.append(SiteTable("A02", 1, np.arange(3), np.zeros((3, 2))))


def test_a_barcode_that_is_no_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a plate barcode"):
        write_plate(tmp_path, WELLS, plate="../x")
    assert list(tmp_path.iterdir()) == []
