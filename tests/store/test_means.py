"""Means that a well keeps beside its cells: those of the cells read back, and what is damaged in them is found."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import jumpgpu
from jumpgpu.profiles.aggregate import aggregate, summarize
from jumpgpu.store.layout import sealed
from tests.helpers.plates import COLUMNS, write_plate

KEY = "tables/cells/var/mean"
WELLS = {"B10": [1, 2], "A02": [2, 1], "AA01": [7]}


@pytest.fixture
def plate(tmp_path):
    write_plate(tmp_path, WELLS)
    return jumpgpu.open_plate(tmp_path / "BR00117010")


class Cells:
    """A plate of which only cells can be had."""

    def __init__(self, plate):
        self.wells, self.to_pandas = plate.wells, plate.to_pandas


def change(plate, well, edit):
    path = plate.path / f"{well[:-2]}/{well[-2:]}/zarr.json"
    record = json.loads(path.read_text())
    edit(record["attributes"]["jumpgpu"])
    path.write_text(json.dumps(record | {"attributes": sealed(record["attributes"])}))


def without_means(plate, well):
    """The well as it was written before means were stored."""
    change(plate, well, lambda r: [r["files"].pop(key) for key in list(r["files"]) if key.startswith(KEY)])
    shutil.rmtree(plate.path / f"{well[:-2]}/{well[-2:]}/{KEY}")


def test_profiles_have_the_bits_of_cells_read_back(plate):
    for well in plate.wells:
        record, means = plate.means(well)
        assert record["cells"] == len(plate.to_pandas([well]))
        assert means.tobytes() == summarize(plate.to_pandas([well])[COLUMNS].to_numpy(), "mean").tobytes()
    pd.testing.assert_frame_equal(aggregate(plate), aggregate(Cells(plate)), check_exact=True)


def test_profiles_read_no_cells(plate):
    expected = aggregate(plate)
    (plate.path / "B" / "10" / "tables/cells/X/c.0.0").write_bytes(b"damaged, and of the same rows" * 1000)
    pd.testing.assert_frame_equal(aggregate(plate), expected, check_exact=True)
    with pytest.raises(ValueError, match="B10: tables/cells/X"):
        aggregate(plate, "median")
    assert any("tables/cells/X" in problem for problem in plate.verify())


def test_a_well_of_before_there_were_means_is_read(plate):
    expected = aggregate(plate)
    without_means(plate, "A02")
    assert plate.means("A02")[1] is None
    assert plate.verify() == []
    pd.testing.assert_frame_equal(aggregate(plate), expected, check_exact=True)


def test_damaged_and_false_means_are_found(plate):
    path = plate.path / "B" / "10" / KEY / "c.0"
    sound, other = path.read_bytes(), (plate.path / "A" / "02" / KEY / "c.0").read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"B10: {KEY}/c.0 is not as it was written"):
        aggregate(plate)
    path.write_bytes(other)
    change(plate, "B10", lambda r: r["files"].update({f"{KEY}/c.0": json_record(plate, "A/02")}))
    assert plate.verify() == ["BR00117010 B10: the means of its columns in cells are not those of its rows"]


def json_record(plate, well):
    return json.loads((plate.path / well / "zarr.json").read_text())["attributes"]["jumpgpu"]["files"][f"{KEY}/c.0"]


def test_a_well_without_cells_has_no_mean_and_no_profile(tmp_path):
    from jumpgpu.store.layout import Layout, SiteTable
    from jumpgpu.store.writer import PlateWriter
    from tests.helpers.plates import CHANNELS

    with PlateWriter(tmp_path, Layout("P", COLUMNS, CHANNELS), {}, {"A01": [1], "A02": [1]}) as store:
        for well, n in (("A01", 0), ("A02", 3)):
            values = np.ones((n, len(COLUMNS)), np.float32)
            store.append(SiteTable(well, 1, np.arange(1, n + 1, dtype=np.int32), values))
    plate = jumpgpu.open_plate(tmp_path / "P")
    assert np.isnan(plate.means("A01")[1]).all()
    assert plate.verify() == []
    assert list(aggregate(plate)["Metadata_Well"]) == ["A02"]
