"""Wells whose fields differ in size: each is measured at its own, as a plate of that size alone would be."""

from pathlib import Path

import numpy as np
import pandas
import pytest

import jumpgpu
from jumpgpu.drawing.fields import Effects, draw_field, falloff, make_tiles
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import field_size, well_sizes
from jumpgpu.settings.config import Config, FeatureSettings
from jumpgpu.settings.names import CHANNELS
from jumpgpu.store.reader import StoredPlate
from tests.helpers.image_plates import NUMBERS, STAINS, image_name, index_xml, write_tiff

SMALL, LARGE = (150, 180), (260, 230)
SIZES = {"A01": SMALL, "A02": LARGE, "B01": SMALL, "B02": SMALL}
CONFIG = Config(features=FeatureSettings(families=("shape", "number", "intensity", "location")))


def write_wells(root: Path, wells: list[str], sites: tuple[int, ...] = (1, 2)) -> Path:
    images = root / "P1" / "Images"
    images.mkdir(parents=True)
    for well in wells:
        for site in sites:
            rng = np.random.default_rng([ord(well[0]), int(well[1:]), site])
            size = SIZES[well]
            drawn = draw_field(rng, size, 8 * size[0] * size[1] / 180**2, Effects(), make_tiles(rng, size), falloff(size))
            for channel, number in NUMBERS.items():
                write_tiff(images / image_name(well, site, number), drawn.images[CHANNELS.index(channel)])
    return images


def measured(root: Path, name: str, **options: object) -> StoredPlate:
    return jumpgpu.extract("P1", root, output=root / name, config=CONFIG, device="cpu", quiet=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("illumination", ["none", "estimate"])
def test_each_well_is_as_in_a_plate_of_its_size(
    tmp_path: Path, illumination: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    write_wells(whole, list(SIZES))
    plate = measured(whole, "out", illumination=illumination, save_labels=True)
    assert "3 wells of 150x180 pixels, 1 wells of 260x230 pixels" in capsys.readouterr().err
    assert plate.quarantine["used"].all()
    for size in (SMALL, LARGE):
        wells = [well for well in SIZES if SIZES[well] == size]
        alone = tmp_path / f"{size[0]}"
        write_wells(alone, wells)
        expected = measured(alone, "out", illumination=illumination, save_labels=True)
        for well in wells:
            left, right = plate.to_pandas([well]), expected.to_pandas([well])
            assert len(left) > 4
            pandas.testing.assert_frame_equal(left, right, check_exact=True)
            for site in (1, 2):
                assert plate.labels(well, site)["Cells"].shape == size
                np.testing.assert_array_equal(plate.labels(well, site)["Cells"], expected.labels(well, site)["Cells"])
    assert not plate.verify()


def test_a_run_goes_on_and_wells_may_be_chosen(tmp_path: Path) -> None:
    write_wells(tmp_path, list(SIZES), (1,))
    first = measured(tmp_path, "out", illumination="estimate", wells=["A02"])
    n = len(first.to_pandas())
    again = measured(tmp_path, "out", illumination="estimate")
    assert list(again.wells) == list(SIZES)
    assert len(again.to_pandas(["A02"])) == n


def test_a_field_of_another_size_than_its_well_is_left_out(tmp_path: Path) -> None:
    images = write_wells(tmp_path, list(SIZES))
    odd = np.zeros((90, 90), np.uint16)
    write_tiff(images / image_name("B02", 1, NUMBERS["DNA"]), odd)
    write_tiff(images / image_name("A02", 2, NUMBERS["ER"]), odd)
    plate = find_plate("P1", tmp_path)
    assert well_sizes(plate) == SIZES
    stored = measured(tmp_path, "out", illumination="none")
    bad = stored.quarantine
    bad = bad[~bad["used"].astype(bool)]
    assert sorted(zip(bad["well"], bad["site"], strict=True)) == [("A02", 2), ("B02", 1)]
    assert "90 x 90 pixels, expected 260 x 230" in " ".join(bad["reason"])


def test_metadata_of_one_size_is_believed_and_of_several_is_looked_into(tmp_path: Path) -> None:
    images = write_wells(tmp_path, list(SIZES), (1,))
    (images / "Index.idx.xml").write_text(index_xml(tuple(SIZES), (1,), STAINS, "P1", shape=SMALL))
    assert well_sizes(find_plate("P1", tmp_path)) == {}
    text = (images / "Index.idx.xml").read_text()
    parts = text.split("<Image Version")
    parts = [p.replace(">180<", ">230<").replace(">150<", ">260<") if "<Row>1</Row><Col>2</Col>" in p else p for p in parts]
    (images / "Index.idx.xml").write_text("<Image Version".join(parts))
    plate = find_plate("P1", tmp_path)
    assert plate.mixed
    assert field_size(plate) == SMALL
    assert well_sizes(plate) == SIZES


def test_above_8192_pixels_is_refused(tmp_path: Path) -> None:
    images = write_wells(tmp_path, ["A01"], (1,))
    for number in NUMBERS.values():
        write_tiff(images / image_name("A01", 1, number), np.zeros((4, 8193), np.uint16))
    with pytest.raises(ValueError, match="declares 4 x 8193 pixels; a field has 1 to 8192 per side"):
        measured(tmp_path, "out", illumination="none")
