"""Images of 8 bits and PNGs, by both readers, with the scale and the counts that CellProfiler 4.2.8 reads.

Recorded with its own reader: 8 bits are divided by 255, 16 by 65535, whatever gAMA, sBIT and the palette's upper bytes say.
"""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.lossless import check_segment
from jumpgpu.images.reader import field_size, read_fields
from jumpgpu.images.tiff import MALFORMED, decode, load
from jumpgpu.images.tiff_tags import FULL_SCALE, Grey
from jumpgpu.storage.local import Local
from tests.helpers.image_plates import NUMBERS, load_data_csv, write_plate
from tests.helpers.tiff_writer import SHORT, tiff

WIDE = (np.arange(120).reshape(12, 10) * 30 + 5).astype(np.uint16)
NARROW = (WIDE // 30).astype(np.uint8)
RAMP = tuple(257 * (i % 256) for i in range(768))
LOW_RAMP = tuple(256 * (i % 256) for i in range(768))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes, image: np.ndarray = WIDE) -> bytes:
    whole = imagecodecs.png_encode(image)
    return whole[:33] + chunk(kind, data) + whole[33:]


READ = {  # bytes, counts, scale, remarks
    "TIFF of 8 bits": (tiff(NARROW), NARROW, 255, 0),
    "TIFF of 8 bits, LZW": (tiff(NARROW, lzw=True), NARROW, 255, 0),
    "TIFF of 8 bits, big-endian": (tiff(NARROW, order=">"), NARROW, 255, 0),
    "TIFF of 8 bits, MaxSampleValue": (tiff(NARROW, {281: (SHORT, (100,))}), NARROW, 100, 0),
    "TIFF of 8 bits, MinIsWhite": (tiff(NARROW, {262: (SHORT, (0,))}), 255 - NARROW, 255, 0),
    "TIFF with a palette of greys": (tiff(NARROW, {262: (SHORT, (3,)), 320: (SHORT, RAMP)}), NARROW, 255, 0),
    "TIFF with a palette of greys of 8 bits": (tiff(NARROW, {262: (SHORT, (3,)), 320: (SHORT, LOW_RAMP)}), NARROW, 255, 0),
    "PNG of 8 bits": (imagecodecs.png_encode(NARROW), NARROW, 255, 0),
    "PNG of 16 bits": (imagecodecs.png_encode(WIDE), WIDE, 65535, 0),
    "PNG with gAMA": (with_chunk(b"gAMA", struct.pack(">I", 45455)), WIDE, 65535, 0),
    "PNG with sBIT": (with_chunk(b"sBIT", b"\x0c"), WIDE, 65535, 1),
    "PNG with sBIT of all": (with_chunk(b"sBIT", b"\x10"), WIDE, 65535, 0),
}
REFUSED = {
    "TIFF with a palette of colours": (tiff(NARROW, {262: (SHORT, (3,)), 320: (SHORT, RAMP[::-1])}), r"palette colour"),
    "PNG of RGB": (imagecodecs.png_encode(np.dstack([NARROW] * 3)), "a PNG of RGB, expected grey"),
    "PNG of grey and alpha": (imagecodecs.png_encode(np.dstack([NARROW] * 2)), "a PNG of grey and alpha"),
    "PNG with a transparent colour": (with_chunk(b"tRNS", struct.pack(">H", 5)), "transparent colour"),
    "PNG of another size": (imagecodecs.png_encode(WIDE.T.copy()), "10 x 12 pixels, expected 12 x 10"),
    "PNG cut short": (imagecodecs.png_encode(WIDE)[:70], ""),
    "PNG without more than its signature": (imagecodecs.png_encode(WIDE)[:8], "without its header"),
    "PNG that claims more": (
        imagecodecs.png_encode(WIDE)[:16] + struct.pack(">II", 10, 2**31 - 1) + imagecodecs.png_encode(WIDE)[24:],
        "2147483647 x 10 pixels",
    ),
    "PNG of 1 bit": (imagecodecs.png_encode(NARROW)[:24] + b"\x01" + imagecodecs.png_encode(NARROW)[25:], "a PNG of 1 bits"),
    "JPEG": (imagecodecs.jpeg_encode(NARROW), "a JPEG file"),
    "TIFF of 16 bits that says 8": (tiff(WIDE, {258: (SHORT, (8,))}), "more than its 120 pixels of 8 bits"),
    "TIFF of 16 bits that says 8, LZW": (tiff(WIDE, {258: (SHORT, (8,))}, lzw=True), "more than its 120 pixels of 8 bits"),
    "TIFF of 8 bits cut short": (tiff(NARROW, {279: (SHORT, (60,))}), "truncated|incorrect|60"),
}


def packed(image: np.ndarray, compression: str, **more: object) -> bytes:
    file = io.BytesIO()
    tags = {"photometric": "minisblack", "metadata": None, "compression": compression, **more}
    tifffile.imwrite(file, image, **tags)  # type: ignore[arg-type]
    return file.getvalue()


LARGE = np.random.default_rng(0).integers(0, 4096, (70, 90)).astype(np.uint16)
LOSSLESS = {
    "JPEG 2000": ("jpeg2000", {"reversible": True}),
    "JPEG XL": ("jpegxl", {"lossless": True}),
}
LOSSY = {
    "JPEG 2000": ("jpeg2000", {"level": 40}),
    "JPEG XL": ("jpegxl", {"level": 80}),
}


@pytest.mark.parametrize(
    "more", [{}, {"rowsperstrip": 32}, {"tile": (32, 48)}, {"bigtiff": True}], ids=["one", "strips", "tiles", "big"]
)
@pytest.mark.parametrize("image", [LARGE, (LARGE >> 4).astype(np.uint8)], ids=["16", "8"])
@pytest.mark.parametrize("name", LOSSLESS)
def test_jpeg_2000_and_xl_without_loss(tmp_path: Path, name: str, image: np.ndarray, more: dict[str, object]) -> None:
    kind, how = LOSSLESS[name]
    result, grey = read_both(tmp_path, packed(image, kind, compressionargs=how, **more), image.shape)
    np.testing.assert_array_equal(result, image)
    assert grey.scale == (255 if image.dtype == np.uint8 else None)


@pytest.mark.parametrize("name", LOSSY)
def test_jpeg_2000_and_xl_with_loss_are_refused(tmp_path: Path, name: str) -> None:
    kind, how = LOSSY[name]
    for image in (LARGE, (LARGE >> 4).astype(np.uint8)):
        with pytest.raises(ValueError, match=f"not without loss: {name}"):
            read_both(tmp_path, packed(image, kind, compressionargs=how), image.shape)


@pytest.mark.parametrize("name", LOSSLESS)
def test_segments_that_declare_more_than_their_file_are_refused(tmp_path: Path, name: str) -> None:
    """Before anything is decoded, and so before anything of that size is allocated."""
    kind, how = LOSSLESS[name]
    whole, small = packed(LARGE, kind, compressionargs=how), packed(LARGE[:30, :40].copy(), kind, compressionargs=how)
    with tifffile.TiffFile(io.BytesIO(whole)) as tiff, tifffile.TiffFile(io.BytesIO(small)) as other:
        segment = whole[tiff.pages[0].dataoffsets[0] :][: tiff.pages[0].databytecounts[0]]
        at, n = other.pages[0].dataoffsets[0], other.pages[0].tags[279].valueoffset
    data = bytearray(small[:at] + segment)
    data[n : n + 4] = struct.pack("<I", len(segment))
    with pytest.raises(ValueError, match="a segment declares 70 x 90 pixels of 16 bits, expected 30 x 40 of 16"):
        read_both(tmp_path, bytes(data), (30, 40))
    random = np.random.default_rng(3)
    for _ in range(60):  # damaged ones end in an error, or in what is there
        spoilt = bytearray(segment)
        for place in random.integers(0, min(len(segment), 200), 3):
            spoilt[place] = int(random.integers(256))
        with contextlib.suppress(ValueError):
            check_segment(bytes(spoilt), 34712 if kind == "jpeg2000" else 50002, (70, 90), 16)
        with contextlib.suppress(ValueError):
            check_segment(bytes(spoilt[: random.integers(0, 60)]), 34712 if kind == "jpeg2000" else 50002, (70, 90), 16)


def read_both(folder: Path, data: bytes, shape: tuple[int, int] = WIDE.shape) -> tuple[np.ndarray, Grey]:
    (folder / "x").write_bytes(data)
    files = Local(folder, (folder.resolve(),))
    image, memory = np.zeros(shape, np.uint16), np.zeros(2 * shape[0] * shape[1], np.uint8)
    grey = decode(str(folder / "x"), files, image)
    _, strips, again = load(str(folder / "x"), files, shape, lambda n: (0, memory[:n]))
    assert grey == again
    if strips is None:
        np.testing.assert_array_equal(memory.view(np.uint16).reshape(shape), image)
    return image, grey


@pytest.mark.parametrize("name", READ)
def test_counts_and_scale_are_cellprofiler_s(tmp_path: Path, name: str) -> None:
    data, counts, scale, n_remarks = READ[name]
    image, grey = read_both(tmp_path, data)
    np.testing.assert_array_equal(image, counts)
    assert (grey.scale or FULL_SCALE) == scale
    assert len(grey.remarks) == n_remarks


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_others_are_refused_by_name(tmp_path: Path, name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(MALFORMED, match=message):
        read_both(tmp_path, data)


@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_a_plate_of_8_bits(tmp_path: Path, device: Device, kind: str) -> None:
    images = write_plate(tmp_path)
    for path in images.iterdir():
        drawn = np.random.default_rng(len(path.name)).integers(0, 256, (40, 56)).astype(np.uint8)
        path.write_bytes(tiff(drawn, lzw=True) if kind == "tiff" else imagecodecs.png_encode(drawn))
    table = tmp_path / "load_data.csv"
    table.write_text(load_data_csv(str(images)))
    plate = find_plate("BR00000001", table)
    assert field_size(plate) == (40, 56)
    (batch,) = read_fields(plate)
    assert batch.scales == ((255.0,) * len(NUMBERS),) * 6
    functions = open_illumination(plate, "none", device=device).functions
    result = correct(batch.pixels, functions, device=device, scales=batch.scales).numpy()
    np.testing.assert_array_equal(result, batch.pixels.numpy().astype(np.float32) / np.float32(255))
    assert batch.checks[0][0][0] == (batch.pixels[0, 0].numpy() == 255).mean()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG file"),
        (b"", "an empty file"),
        (b"\x1f\x8b" + bytes(99), "a file packed by gzip"),
        (imagecodecs.jpeg2k_encode(WIDE), "a JPEG 2000 file"),
        (imagecodecs.jpegxl_encode(WIDE), "a JPEG XL file"),
        (
            tiff(np.dstack([WIDE] * 3), {262: (SHORT, (2,)), 277: (SHORT, (3,)), 258: (SHORT, (16, 16, 16))}),
            "RGB pixels of shape",
        ),
        (tiff(NARROW, {259: (SHORT, (7,))}), r"compression 7 \(JPEG\)"),
    ],
)
def test_a_plate_of_another_format_is_refused_by_its_name(tmp_path: Path, data: bytes, message: str) -> None:
    for path in (images := write_plate(tmp_path)).iterdir():
        path.write_bytes(data)
    with pytest.raises(ValueError, match=f"no image can be read; the first is .*{message}"):
        field_size(find_plate("BR00000001", images))
