"""Plates under the names that people type, and folders that are the measurement itself."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

import jumpgpu
from jumpgpu.export import main as export
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import Config, FeatureSettings, PlateSettings, load_config
from jumpgpu.settings.names import CHANNELS, check_barcode
from jumpgpu.verify import main as verify
from tests.helpers.image_plates import NUMBERS, index_xml, noise, write_plate
from tests.helpers.plates import write_images

NAMES = [
    "Plate 1",
    "Plate (2)",
    "A549 [rep 1]",
    "U2OS+DMSO",
    "#12",
    "Zürich_Platte",
    "BR0011.7010",
    "x{1},2",
    "24h @ 37 & 5",
]
REFUSED = [
    "",
    " x",
    "x ",
    "x.",
    ".x",
    "-x",
    "=1+1",
    "+1",
    "a/b",
    "a\\b",
    "a:b",
    "a*",
    "a?",
    'a"b',
    "a<b",
    "a|b",
    "a\nb",
    "..",
    "a..b",
    "x" * 129,
]


@pytest.mark.parametrize("name", NAMES)
def test_plates_of_any_name_are_found_measured_and_exported(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, plate=name, wells=("A01",), sites=(1,))
    config = Config(features=FeatureSettings(families=("number", "shape")))
    given = {"images": tmp_path / "images", "masks": tmp_path / "masks", "illumination": "none", "quiet": True}
    plate = jumpgpu.extract(name, output=tmp_path / "out", config=config, **given)
    assert plate.barcode == name
    assert len(plate.to_pandas()) == 4
    again = jumpgpu.extract(name, output=tmp_path / "out", config=config, **given)  # what is there is left alone
    assert again.wells == ("A01",) or list(again.wells) == ["A01"]
    assert verify([str(tmp_path / "out" / f"{name}.zarr")]) == 0
    assert export([str(tmp_path / "out" / f"{name}.zarr"), "--format", "csv", "--output", str(tmp_path / "tables")]) == 0
    assert list((tmp_path / "tables").rglob("*.csv"))


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_no_folder_can_have_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a plate barcode"):
        check_barcode(name)


def test_an_umlaut_of_one_character_or_two(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write_plate(tmp_path / form, barcode=unicodedata.normalize(form, "Zürich"))
        for typed in ("NFC", "NFD"):  # macOS completes names to the second
            plate = find_plate(unicodedata.normalize(typed, "Zürich"), tmp_path / form)
            assert [len(plate.sites), plate.barcode] == [6, "Z\u00fcrich"]


@pytest.mark.parametrize("given", ["the folder", "its Images"])
@pytest.mark.parametrize("with_index", [False, True])
def test_images_that_are_a_measurement_are_taken_under_the_barcode(tmp_path: Path, given: str, with_index: bool) -> None:
    images = write_plate(tmp_path, barcode="whatever").rename(tmp_path / "exported 2024") if given == "its Images" else None
    images = images or write_plate(tmp_path, barcode="whatever")
    if with_index:
        (images / "index.xml").write_text(index_xml(name="whatever"))
    root = images.parent if given == "the folder" else images
    plate = find_plate("MINE", root)
    assert plate.barcode == "MINE"
    (batch,) = read_fields(plate, batch=6)
    np.testing.assert_array_equal(batch.pixels[0, 0].numpy(), noise("A01", 1, NUMBERS[CHANNELS[0]]))
    assert plate.notes == (("index.xml calls the plate 'whatever', not MINE",) if with_index else ())


def test_a_folder_of_plates_is_no_measurement(tmp_path: Path) -> None:
    write_plate(tmp_path, barcode="P1")
    write_plate(tmp_path, barcode="P2")
    with pytest.raises(FileNotFoundError, match=r"no plate P3 in .*there is P1__"):
        find_plate("P3", tmp_path)
    (tmp_path / "Images").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no plate P3"):
        find_plate("P3", tmp_path, PlateSettings())


@pytest.mark.parametrize("key", ["dna", "DNA", " Dna "])
@pytest.mark.parametrize("table", ["numbers", "c_axis", "planes", "assign"])
def test_keys_of_channels_in_any_case(tmp_path: Path, key: str, table: str) -> None:
    path = tmp_path / "c.toml"
    value = "'x'" if table == "assign" else "7"
    path.write_text(f'[plate]\nchannels = [" dna", "ER"]\n[plate.{table}]\n"{key}" = {value}\n')
    plate = load_config(path).plate
    assert plate.channels == ("DNA", "ER")
    assert getattr(plate, table)["DNA"] == {"assign": "x", "planes": (7,)}.get(table, 7)
    assert not [k for k in getattr(plate, table) if k.strip() != k or (k.lower() == "dna" and k != "DNA")]


@pytest.mark.parametrize("table", ["numbers", "c_axis", "planes"])
def test_a_number_of_a_channel_that_nothing_knows_is_refused(tmp_path: Path, table: str) -> None:
    """A misspelled key took the number from the channel that has it by default."""
    path = tmp_path / "c.toml"
    path.write_text(f"[plate.{table}]\nMitoo = 5\n")
    with pytest.raises(ValueError, match=rf"plate: {table}: unknown channel 'Mitoo'; did you mean Mito\? known are DNA"):
        load_config(path)
    path.write_text(f'[plate.stains]\n"my dye" = "Actin2"\n[plate.{table}]\nActin2 = 5\n')
    assert "Actin2" in getattr(load_config(path).plate, table)
