"""Fields are read in order, whatever the threads; a bad image costs its site only; threads end with the iterator."""

import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from jumpgpu.gpu.cpu import StaleLibrary
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import FieldBatch, read_fields
from jumpgpu.settings.names import CHANNELS
from tests.helpers.image_plates import NUMBERS, SHAPE, image_name, noise, write_plate, write_tiff

BARCODE = "BR00000001"


def collect(batches) -> tuple[list[tuple[str, int]], np.ndarray]:  # type: ignore[no-untyped-def]
    """Sites and pixels of all batches, copied as they come."""
    sites, pixels = [], []
    for batch in batches:
        assert isinstance(batch, FieldBatch)
        assert batch.pixels.dtype == torch.uint16
        sites += batch.sites
        pixels.append(batch.pixels.numpy().copy())
    return sites, np.concatenate(pixels)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("batch", "ahead"), [(1, 0), (2, 1), (4, 2), (50, 2)])
def test_all_fields_in_plate_order(tmp_path: Path, workers: int, batch: int, ahead: int) -> None:
    write_plate(tmp_path, wells=("B03", "A02", "A10"), sites=(1, 2, 7))
    plate = find_plate(BARCODE, tmp_path)
    sites, pixels = collect(read_fields(plate, batch=batch, ahead=ahead, workers=workers))
    assert sites == [(w, s) for w in ("A02", "A10", "B03") for s in (1, 2, 7)]
    for (well, site), images in zip(sites, pixels, strict=True):
        for channel, image in zip(CHANNELS, images, strict=True):
            np.testing.assert_array_equal(image, noise(well, site, NUMBERS[channel]))


def test_selection_and_channel_order(tmp_path: Path) -> None:
    write_plate(tmp_path)
    plate = find_plate(BARCODE, tmp_path)
    sites, pixels = collect(read_fields(plate, wells=["B03"], sites=[5, 1], channels=["Mito", "DNA"]))
    assert sites == [("B03", 1), ("B03", 5)]
    assert pixels.shape == (2, 2, *SHAPE)
    np.testing.assert_array_equal(pixels[1, 0], noise("B03", 5, NUMBERS["Mito"]))
    with pytest.raises(ValueError, match="no channel 'XYZ'"):
        read_fields(plate, channels=["XYZ"])
    with pytest.raises(ValueError, match="no images of well"):
        read_fields(plate, wells=["H12"])


def test_a_stale_library_is_no_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the run, where it would have left out every site as unreadable."""

    def stale(*_: object) -> None:
        raise StaleLibrary("built from other sources")

    write_plate(tmp_path)
    plate = find_plate(BARCODE, tmp_path)
    monkeypatch.setattr("jumpgpu.images.site.decode", stale)
    with pytest.raises(StaleLibrary, match="built from other sources"):
        list(read_fields(plate))


def test_finished_wells(tmp_path: Path) -> None:
    write_plate(tmp_path, wells=("A01", "A02", "A03"), sites=(1, 2))
    plate = find_plate(BARCODE, tmp_path)
    finished = [b.finished for b in read_fields(plate, batch=3)]
    assert finished == [("A01",), ("A02", "A03")]


@pytest.mark.parametrize(
    "options",
    [
        {"compression": None},
        {"compression": "zlib"},
        {"compression": "zstd"},
        {"compression": "lzw", "predictor": True},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "lzw", "tile": (16, 16)},
        {"compression": "lzw", "byteorder": ">"},
        {"compression": None, "byteorder": ">", "bigtiff": True},
    ],
)
def test_lossless_tiffs_of_every_kind(tmp_path: Path, options: dict[str, object]) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1,))
    for channel in NUMBERS.values():
        write_tiff(images / image_name("A01", 1, channel), noise("A01", 1, channel), **options)
    _, pixels = collect(read_fields(find_plate(BARCODE, tmp_path)))
    for channel, image in zip(CHANNELS, pixels[0], strict=True):
        np.testing.assert_array_equal(image, noise("A01", 1, NUMBERS[channel]))


def missing(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-900])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4000))


def wrong_size(path: Path) -> None:
    write_tiff(path, np.ones((40, 40), np.uint16))


def wrong_dtype(path: Path) -> None:
    write_tiff(path, np.ones(SHAPE, np.float32))


def colour(path: Path) -> None:
    write_tiff(path, np.ones((*SHAPE, 3), np.uint16), photometric="rgb")


def two_pages(path: Path) -> None:
    write_tiff(path, np.ones((2, *SHAPE), np.uint16))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def jpeg(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(1000))


def short_lzw(path: Path) -> None:
    """A strip that decodes to fewer bytes than the image has."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["StripByteCounts"]
        count = tiff.pages[0].databytecounts[0]
        at = tag.offset + 8  # one strip: the value stands in the tag itself
    assert int.from_bytes(data[at : at + 4], "little") == count
    data[at : at + 4] = (count // 2).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (missing, "file is missing"),
        (truncated, "truncated|unreadable"),
        (short_lzw, "truncated"),
        (cut_short, "unreadable"),
        (empty, "unreadable"),
        (garbage, "unreadable"),
        (wrong_size, "40 x 40 pixels, expected 40 x 56"),
        (wrong_dtype, "float32"),
        (colour, "RGB pixels of shape"),
        (two_pages, "more than one page"),
        (folder, "regular file|directory"),
        (jpeg, "unreadable"),
    ],
)
def test_a_bad_image_costs_its_site_only(tmp_path: Path, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    images = write_plate(tmp_path, sites=(1, 2, 3))
    damage(images / image_name("A01", 2, NUMBERS["RNA"]))
    plate = find_plate(BARCODE, tmp_path)
    batches = []
    for batch in read_fields(plate, batch=4):
        batches.append((batch.sites, batch.quarantined, batch.finished, batch.pixels.numpy().copy()))
    sites = [s for b in batches for s in b[0]]
    assert sites == [("A01", 1), ("A01", 3), ("B03", 1), ("B03", 2), ("B03", 3)]
    (problem,) = [p for b in batches for p in b[1]]
    assert (problem.plate, problem.well, problem.site, problem.channel) == (BARCODE, "A01", 2, "RNA")
    assert problem.file.endswith(image_name("A01", 2, NUMBERS["RNA"]))
    assert re.search(reason, problem.reason), problem.reason
    np.testing.assert_array_equal(batches[0][3][1, 0], noise("A01", 3, NUMBERS["DNA"]))
    assert [w for b in batches for w in b[2]] == ["A01", "B03"]


def test_a_well_without_a_usable_site_is_still_finished(tmp_path: Path) -> None:
    images = write_plate(tmp_path, wells=("A01", "A02"), sites=(1, 2))
    for site in (1, 2):
        missing(images / image_name("A01", site, 1))
    batches = [
        (b.sites, b.skipped, b.finished, tuple(b.pixels.shape)) for b in read_fields(find_plate(BARCODE, tmp_path), batch=2)
    ]
    assert batches[0] == ((), (("A01", 1), ("A01", 2)), ("A01",), (0, 5, *SHAPE))
    assert batches[1][0] == (("A02", 1), ("A02", 2))


def test_odd_images_are_flagged_and_measured(tmp_path: Path) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1, 2, 3, 4, 5))
    write_tiff(images / image_name("A01", 1, 5), np.zeros(SHAPE, np.uint16))
    write_tiff(images / image_name("A01", 2, 4), np.full(SHAPE, 777, np.uint16))
    half = noise("A01", 3, 3)
    half[20:] = 0
    write_tiff(images / image_name("A01", 3, 3), half)
    bright = noise("A01", 4, 2)
    bright[:5] = 65535
    write_tiff(images / image_name("A01", 4, 2), bright)
    shutil.copy(images / image_name("A01", 5, 1), images / image_name("A01", 5, 2))
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path)))
    assert len(batch.sites) == 5
    assert not batch.quarantined
    assert [(f.site, f.channel, f.reason) for f in batch.flags] == [
        (1, "DNA", "zero-filled: every count is 0"),
        (2, "ER", "constant: every count is 777"),
        (3, "RNA", "zero-filled: 20 of 40 rows are 0"),
        (4, "AGP", "saturated: 12.5 % of counts are 65535"),
        (5, "Mito", "the Mito image is the AGP image again"),
    ]


def test_the_field_size_is_what_most_images_have(tmp_path: Path) -> None:
    images = write_plate(tmp_path, wells=("A01", "A02", "A03"), sites=(1,))
    for channel in NUMBERS.values():
        wrong_size(images / image_name("A01", 1, channel))
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path)))
    assert batch.sites == (("A02", 1), ("A03", 1))
    assert len(batch.quarantined) == 5


def test_no_readable_image_at_all(tmp_path: Path) -> None:
    images = write_plate(tmp_path)
    for file in images.iterdir():
        garbage(file)
    with pytest.raises(ValueError, match=f"{BARCODE}: no image can be read; the first is .*tiff"):
        read_fields(find_plate(BARCODE, tmp_path))


def test_symlinks_must_stay_inside_the_root(tmp_path: Path) -> None:
    images = write_plate(tmp_path / "root", wells=("A01",), sites=(1, 2))
    outside = tmp_path / "outside.tiff"
    inside = images / "copy.tif"
    for site, target in ((1, outside), (2, inside)):
        link = images / image_name("A01", site, 1)
        shutil.move(link, target)
        link.symlink_to(target)
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path / "root")))
    assert batch.sites == (("A01", 2),)
    assert "outside the images root" in batch.quarantined[0].reason


def decoder_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("decode")]


def test_threads_end_with_the_iterator(tmp_path: Path) -> None:
    write_plate(tmp_path, wells=tuple(f"A{c:02d}" for c in range(1, 9)), sites=(1, 2))
    plate = find_plate(BARCODE, tmp_path)
    iterator = read_fields(plate, batch=2, workers=2)
    next(iterator)
    assert decoder_threads()
    iterator.close()
    assert not decoder_threads()
    for _ in read_fields(plate, batch=2, workers=2):
        break
    list(read_fields(plate, batch=2, workers=2))
    assert not decoder_threads()


def test_real_fields_match_tifffile(shared: Path) -> None:
    plate = find_plate("BR00117010", shared / "data/fields")
    assert plate.wells == ("A21", "D08", "D14", "F10", "M02", "N09")
    for batch in read_fields(plate, batch=4):
        for (well, site), images in zip(batch.sites, batch.pixels.numpy(), strict=True):
            for file, image in zip(plate.select([well], [site])[0].files, images, strict=True):
                np.testing.assert_array_equal(image, tifffile.imread(file))
        assert not batch.quarantined
        assert not batch.flags
