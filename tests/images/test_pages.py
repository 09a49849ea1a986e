"""Columbus TIFFs of several images: each page is read as tifffile reads it, and what is wrong with one costs its site.

Model: the Columbus export of OME's sample images (PerkinElmer-Columbus/zenodo-6327496): two wells of one field, three planes
and two channels, a file of six pages each, `<URL BufferNo="0">001001-1.tif</URL>`.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from jumpgpu.checks.images import same_files
from jumpgpu.images.locate import find_plate, find_source
from jumpgpu.images.plate import Plate
from jumpgpu.images.reader import field_size, read_fields
from jumpgpu.run.plates import extract
from jumpgpu.settings.config import Config, PlateSettings
from jumpgpu.settings.names import CHANNELS
from jumpgpu.storage import buckets
from jumpgpu.storage.pages import page_name, read_page, split_page
from tests.helpers.buckets import Proxy, serving
from tests.helpers.image_plates import NUMBERS, STAINS

SHAPE = 40, 56
WELLS = {"A01": (1, 1), "B01": (2, 1)}
FORMS = {
    "plain": {},
    "LZW in strips": {"compression": "lzw", "rowsperstrip": 7},
    "LZW, big-endian": {"compression": "lzw", "byteorder": ">"},
    "deflate, in tiles": {"compression": "zlib", "tile": (16, 32)},
    "BigTIFF": {"bigtiff": True, "compression": "lzw"},
    "BigTIFF, big-endian": {"bigtiff": True, "byteorder": ">"},
    "with tags of all kinds": {
        "compression": "lzw",
        "description": "a text of some length",
        "extratags": [
            (65000, "I", 1, 1 << 20, True),
            (65001, "d", 3, (0.1, 0.2, 0.3), True),
            (65002, "B", 5, b"abcde", True),
        ],
    },
}


def page_of(well: str, channel: int, plane: int) -> np.ndarray:
    return np.random.default_rng([*WELLS[well], channel, plane]).integers(100, 60_000, SHAPE, dtype=np.uint16)


def columbus(planes: int) -> str:
    """The index: pages by plane, then channel."""
    images = []
    for row, column in WELLS.values():
        page = 0
        for plane in range(1, planes + 1):
            for channel, stain in STAINS.items():
                images.append(
                    f'<Image Version="1"><id>{row}{page}</id><State>Ok</State><URL BufferNo="{page}">'
                    f"{row:03d}{column:03d}-1.tif</URL><Row>{row}</Row><Col>{column}</Col><FieldID>1</FieldID><PlaneID>{plane}</PlaneID>"
                    f"<TimepointID>1</TimepointID><ChannelID>{channel}</ChannelID><ChannelName>{stain}</ChannelName>"
                    f'<ChannelColor>4278255360</ChannelColor><ImageResolutionX Unit="m">6E-07</ImageResolutionX>'
                    f'<ImageResolutionY Unit="m">6E-07</ImageResolutionY><ImageSizeX>{SHAPE[1]}</ImageSizeX>'
                    f'<ImageSizeY>{SHAPE[0]}</ImageSizeY><PositionX Unit="m">0</PositionX></Image>'
                )
                page += 1
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><EvaluationInputData xmlns="http://www.perkinelmer.com/Columbus">'
        "<Plates><Plate><PlateID>P1</PlateID><PlateRows>2</PlateRows><PlateColumns>3</PlateColumns></Plate></Plates>"
        f"<Images>{''.join(images)}</Images></EvaluationInputData>"
    )


def write_stacks(root: Path, planes: int = 3, **options: object) -> Path:
    folder = root / "P1"
    folder.mkdir(parents=True)
    how = {k: options.pop(k) for k in ("bigtiff", "byteorder") if k in options}
    for well, (row, column) in WELLS.items():
        with tifffile.TiffWriter(folder / f"{row:03d}{column:03d}-1.tif", **how) as tiff:
            for plane in range(1, planes + 1):
                for channel in STAINS:
                    image = page_of(well, channel, plane)
                    tiff.write(image, photometric="minisblack", contiguous=False, metadata=None, **options)
    (folder / "ImageIndex.ColumbusIDX.xml").write_text(columbus(planes))
    (folder / "MeasurementIndex.ColumbusIDX.xml").write_text("<x/>")
    return folder


def check_pixels(plate: Plate, planes: tuple[int, ...]) -> None:
    seen = []
    for fields in read_fields(plate, batch=2, workers=2):
        assert not fields.quarantined
        for row, (well, site) in enumerate(fields.sites):
            seen.append((well, site))
            for c, channel in enumerate(CHANNELS):
                pages = [page_of(well, NUMBERS[channel], p) for p in planes]
                np.testing.assert_array_equal(fields.pixels[row, c].numpy(), np.max(pages, axis=0))
    assert seen == [("A01", 1), ("B01", 1)]


@pytest.mark.parametrize("form", FORMS)
def test_pages_are_those_that_the_index_says(tmp_path: Path, form: str) -> None:
    write_stacks(tmp_path, **FORMS[form])
    plate = find_plate("P1", tmp_path, PlateSettings(projection="max"))
    assert plate.channel_source == "ImageIndex.ColumbusIDX.xml"
    check_pixels(plate, (1, 2, 3))
    check_pixels(find_plate("P1", tmp_path, PlateSettings(plane=2)), (2,))


def test_channels_alone_are_pages_too(tmp_path: Path) -> None:
    folder = write_stacks(tmp_path, 1)
    plate = find_plate("P1", folder)
    assert [split_page(f or "")[1] for f in plate.sites[0].files] == [5, 4, 3, 2, 1]  # as STAINS has the channels
    check_pixels(plate, (1,))
    (folder / "ImageIndex.ColumbusIDX.xml").write_text(columbus(1).replace("ImageSize", "Other"))
    plate = find_plate("P1", folder)
    assert plate.size is None
    assert field_size(plate) == SHAPE


def test_a_page_says_itself_what_its_counts_are(tmp_path: Path) -> None:
    folder = write_stacks(tmp_path, 1)
    with tifffile.TiffWriter(folder / "001001-1.tif") as tiff:
        for channel in STAINS:
            extra = [(281, "H", 1, 4095, True)] if channel == NUMBERS["DNA"] else []
            image = page_of("A01", channel, 1) // 16
            image = (image % 256).astype(np.uint8) if channel == NUMBERS["ER"] else image
            tiff.write(image, photometric="minisblack", contiguous=False, metadata=None, extratags=extra)
    (fields,) = list(read_fields(find_plate("P1", folder)))
    assert fields.scales[0] == (4095.0, 255.0, 65535.0, 65535.0, 65535.0)


def test_stored_records_name_pages_and_check_plate_compares_files(tmp_path: Path) -> None:
    folder = write_stacks(tmp_path, 2)
    config = Config(plate=PlateSettings(projection="max"))
    stored = extract("P1", tmp_path, output=tmp_path / "out", config=config, illumination="none", device="cpu", quiet=True)
    inputs = stored.record("A01")["sites"][0]["inputs"]
    assert [i["file"] for i in inputs[:2]] == ["001001-1.tif#page=5", "001001-1.tif#page=10"]
    assert {i["bytes"] for i in inputs} == {(folder / "001001-1.tif").stat().st_size}
    plate = find_plate("P1", tmp_path, config.plate)
    assert same_files(plate) == []
    (folder / "002001-1.tif").write_bytes((folder / "001001-1.tif").read_bytes())
    assert "B01 site 1 DNA is A01 site 1 DNA" in same_files(plate)[0]


def test_missing_pages_and_broken_files_cost_their_site(tmp_path: Path) -> None:
    folder = write_stacks(tmp_path, 3, compression="lzw")
    with tifffile.TiffWriter(folder / "001001-1.tif") as tiff:
        for _ in range(14):
            tiff.write(page_of("A01", 1, 1), photometric="minisblack", contiguous=False, metadata=None)
    plate = find_plate("P1", folder, PlateSettings(projection="max"))
    bad = [str(p) for fields in read_fields(plate) for p in fields.quarantined]
    assert len(bad) == 1
    assert "A01 site 1 DNA: plane 3: unreadable DNA image: 14 pages, and page 15 is wanted" in bad[0]
    whole = (folder / "002001-1.tif").read_bytes()
    (folder / "002001-1.tif").write_bytes(whole[: len(whole) // 2])
    bad = [p for fields in read_fields(plate) for p in fields.quarantined if p.well == "B01"]
    assert bad
    assert all("truncated" in p.reason or "pages" in p.reason for p in bad)
    (folder / "002001-1.tif").unlink()
    bad = [p for fields in read_fields(plate) for p in fields.quarantined if p.well == "B01"]
    assert len(bad) == 15
    assert bad[0].reason == "plane 1: no DNA image: the file is missing"


def test_a_page_listed_twice_is_refused(tmp_path: Path) -> None:
    folder = write_stacks(tmp_path, 1)
    text = (folder / "ImageIndex.ColumbusIDX.xml").read_text()
    image = text[text.index("<Image ") : text.index("</Image>") + 8]
    (folder / "ImageIndex.ColumbusIDX.xml").write_text(text.replace("</Images>", f"{image}</Images>"))
    with pytest.raises(ValueError, match=r"P1 A01 site 1: .* lists channel Mito twice"):
        find_plate("P1", folder)


def test_stacks_in_a_bucket_are_fetched_once(server, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    write_stacks(tmp_path, 3, compression="lzw")
    server.empty()
    server.make("plates")
    server.upload(tmp_path / "P1", "plates", "batch/P1")
    monkeypatch.setattr(buckets, "PAUSE_S", 0.01)
    with serving(Proxy(server.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        plate = find_source("P1", "s3://plates/batch", PlateSettings(projection="max"))
        check_pixels(plate, (1, 2, 3))
        asked = {path: n for (method, path), n in proxy.asked.items() if method == "GET" and path.endswith("-1.tif")}
    assert sorted(asked.values()) == [1, 1]


def stack_of(pages: int = 3, **options: object) -> bytes:
    stream = io.BytesIO()
    how = {k: options.pop(k) for k in ("bigtiff", "byteorder") if k in options}
    with tifffile.TiffWriter(stream, **how) as tiff:
        for k in range(pages):
            tiff.write(np.full((9, 37), k, np.uint16), contiguous=False, metadata=None, photometric="minisblack", **options)
    return stream.getvalue()


@settings(max_examples=300, deadline=None)
@given(
    at=st.floats(0, 1),
    put_in=st.binary(max_size=8),
    cut=st.integers(0, 8),
    page=st.integers(1, 5),
    big=st.booleans(),
    order=st.sampled_from("<>"),
)
def test_spoilt_stacks_end_in_words(at: float, put_in: bytes, cut: int, page: int, big: bool, order: str) -> None:
    data = stack_of(bigtiff=big, byteorder=order, rowsperstrip=2)
    place = int(at * len(data))
    with io.BytesIO(data[:place] + put_in + data[place + cut :]) as file:
        try:
            whole = read_page(file, page, 5000)
        except ValueError:
            return
    assert len(whole) <= 5000 + 1000


@pytest.mark.parametrize("big", [False, True])
def test_pages_are_bounded(big: bool) -> None:
    data = stack_of(bigtiff=big)
    with io.BytesIO(data) as file, pytest.raises(ValueError, match="a page of more than 600 bytes"):
        read_page(file, 2, 600)
    with io.BytesIO(data) as file, pytest.raises(ValueError, match="3 pages, and page 4 is wanted"):
        read_page(file, 4, 5000)
    with (
        io.BytesIO(b"II*\0\x08\0\0\0\0\0\x08\0\0\0") as file,
        pytest.raises(ValueError, match="1 pages, and page 99999 is wanted"),
    ):
        read_page(file, 99_999, 5000)  # its only directory is the next one
    with (
        io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(40)) as file,
        pytest.raises(ValueError, match="no TIFF, and its page 1 is wanted"),
    ):
        read_page(file, 1, 5000)


def test_names_of_pages() -> None:
    assert split_page(page_name("a#page=2.tif", 7)) == ("a#page=2.tif", 7)
    assert split_page("a#page=0") == ("a#page=0", 0)
    assert split_page("a.tif") == ("a.tif", 0)
