"""One image file: judged by what it declares, then decoded into memory that is there already.

A file is a grey TIFF of one page or a grey PNG, of 8 or 16 bits, or a plane of an OME-Zarr plate; it lies in a folder or a
bucket (`Files`). For a GPU that decodes LZW itself (`load`) its strips are taken as they are.
Whatever is wrong with it is an error of `MALFORMED`.
"""

import contextlib
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import imagecodecs
import numpy as np
import tifffile

from ..storage.local import Files, has_planes
from .lossless import JPEG_2000, JPEG_XL, check_segment
from .png import decode_png, header, is_png
from .strips import Strips, copied, decode_lzw_strips, lzw_strips, plain_strips
from .tiff_tags import ASKED, PHOTOMETRIC, PHOTOMETRICS, UIC2, Grey, judge_tags

MAX_SIDE = 8192  # pixels; the largest camera of these microscopes has 2160
JPEG = b"\xff\xd8\xff"
OTHER_KINDS = {
    b"\x1f\x8b": "a file packed by gzip",
    b"PK\x03\x04": "a ZIP archive",
    b"\0\0\0\x0cjP": "a JPEG 2000 file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL": "a JPEG XL file",
    b"BM": "a BMP file",
    b"GIF8": "a GIF file",
    b"RIFF": "a WebP file",
}
MAX_OVERHEAD = 1 << 20  # bytes of a TIFF beside its pixels; Harmony's tags have 85,000
COMPRESSIONS = (1, 5, 8, 32773, 32946, 50000)  # none, LZW, deflate, PackBits, deflate, zstd: all lossless
# What tifffile and imagecodecs raise on malformed files; ImcdError and TiffFileError are among them.
MALFORMED = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    struct.error,
)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, at most 200 characters."""
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def decode(file: str, images: Files, out: np.ndarray) -> Grey:
    """Decode a single-page grey TIFF, a PNG or a plane into `out`, uint16 [H, W], contiguous; what it says of its counts.

    An error of `MALFORMED` where it is anything else.

    Everything the file declares is checked before its pixels are touched; nothing is allocated by what it declares.
    """
    if has_planes(images):
        images.read_plane(file, out)
        return Grey()
    data, status = images.read_with_status(file, file_limit(out.shape))
    if is_png(data):
        grey = decode_png(data, out)
    elif (strips := plain_strips(data, out.shape)) is not None:
        decode_lzw_strips(data, strips, out)
        grey = Grey()
    else:
        with reader(data, out.shape) as page:
            grey = judge_page(page)
            decode_page(data, page, out, grey)
    return replace(grey, status=status)


def load(
    file: str, images: Files, size: tuple[int, int], reserve: Callable[[int], tuple[int, np.ndarray]]
) -> tuple[int, Strips | None, Grey]:
    """An image for the device: its LZW strips as they are, or, where it has none that are fit for that, its pixels, decoded.

    What `decode` checks is checked here but for the codes, which only decoding can.

    Parameters
    ----------
    reserve : asked once for so many bytes, not more than `capacity_of(size)`; gives their number in all that is
        reserved, and them, uint8 [n]

    Returns
    -------
    That number; the strips, by their places within what was reserved, None where it holds the pixels, lowest byte first;
    and what the file says of its counts.
    """
    n = 2 * size[0] * size[1]
    if has_planes(images):
        at, memory = reserve(n)
        images.read_plane(file, memory.view(np.uint16).reshape(size))
        return at, None, Grey()
    data, status = images.read_with_status(file, file_limit(size))
    if is_png(data):
        at, memory = reserve(n)
        return at, None, replace(decode_png(data, memory.view(np.uint16).reshape(size)), status=status)
    plain = plain_strips(data, size)
    if plain is not None and int(plain.places[:, 1].sum()) <= capacity_of(size):
        at, strips = copied(data, plain, reserve)
        return at, strips, Grey(status=status)
    with reader(data, size) as page:
        grey = replace(judge_page(page), status=status)
        result = None if grey.white else lzw_strips(page, size)
        total = 0 if result is None else int(result.places[:, 1].sum())
        if result is None or total > capacity_of(size):  # strips may lie over each other
            at, memory = reserve(n)
            decode_page(data, page, memory.view(np.uint16).reshape(size), grey)
            return at, None, grey
        at, strips = copied(data, result, reserve)
        return at, strips, grey


@contextlib.contextmanager
def reader(data: bytes, size: tuple[int, ...]) -> Iterator[tifffile.TiffPage]:
    """A TIFF's page, which has the type and size of a field's image and strips within the file."""
    check_kind(data)
    with io.BytesIO(data) as stream, tifffile.TiffFile(stream, is_ome=False) as tiff:
        page = single_page(tiff)
        if page.shape != size:
            raise ValueError(f"{' x '.join(map(str, page.shape))} pixels, expected {' x '.join(map(str, size))}")
        offsets, counts = page.dataoffsets, page.databytecounts
        if len(offsets) != len(counts) or not 0 < len(offsets) <= size[0]:
            raise ValueError(f"{len(offsets)} strips for {size[0]} rows")
        if any(o <= 0 or n <= 0 or o + n > len(data) for o, n in zip(offsets, counts, strict=True)):
            raise ValueError(f"truncated: {len(data)} bytes, and a strip of its pixels lies beyond them")
        if page.compression in (*JPEG_2000, *JPEG_XL):
            tile = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, size[0]), size[1])
            for offset, count in zip(offsets, counts, strict=True):
                check_segment(data[offset : offset + count], int(page.compression), tile, page.bitspersample)
        yield page


def check_kind(data: bytes) -> None:
    """ValueError, by name, for a file of another format that is often called .tif or .png."""
    if data.startswith(JPEG):
        raise ValueError("a JPEG file, whose grey values are not the camera's; expected TIFF or PNG")
    if not data:
        raise ValueError("an empty file")
    if name := next((name for mark, name in OTHER_KINDS.items() if data.startswith(mark)), ""):
        raise ValueError(f"{name}, expected TIFF or PNG")


def judge_page(page: tifffile.TiffPage) -> Grey:
    """What a page's tags say of its counts; ValueError where they are no plain grey values."""
    tags: dict[int, tuple[float, ...] | str] = {}
    if (planes := page.tags.get(UIC2)) and planes.count > 1:
        raise ValueError(f"UIC2tag of {planes.count} planes in one page (a MetaMorph stack)")
    for code in ASKED - {UIC2}:
        if not (tag := page.tags.get(code)):
            continue
        value = tuple(tag.value) if tag.dtype in (1, 7) and isinstance(tag.value, bytes) else tag.value
        if isinstance(value, (str, bytes)):
            tags[code] = value if isinstance(value, str) else value.decode(errors="replace")
            continue
        numbers = [float(v) for v in (value if isinstance(value, (tuple, list, np.ndarray)) else (value,))[:8]]
        if tag.dtype in (5, 10):  # fractions, as two numbers each
            numbers = [a / b if b else float("nan") for a, b in zip(numbers[::2], numbers[1::2], strict=False)]
        tags[code] = tuple(numbers)
    colours = page.colormap if tags.get(PHOTOMETRIC) == (3.0,) else None
    if colours is not None and colours.shape == (3, 256) and (colours >> 8 == np.arange(256)).all():
        tags[PHOTOMETRIC] = (1.0,)  # a palette of the greys themselves
    return judge_tags(tags)


def decode_page(data: bytes, page: tifffile.TiffPage, out: np.ndarray, grey: Grey) -> None:
    """The pixels of an opened file's page into `out` [H, W]."""
    strips = lzw_strips(page, out.shape)
    if strips is None:
        expected = out.size * page.dtype.itemsize  # type: ignore[union-attr]
        if page.compression == 1 and sum(page.databytecounts) < expected:
            raise ValueError(f"truncated: {sum(page.databytecounts)} bytes of pixels, expected {expected}")
        if page.dtype == out.dtype:
            page.asarray(out=out, maxworkers=1)
        else:
            check_strips(data, page)
            out[...] = page.asarray(maxworkers=1)
    else:
        decode_lzw_strips(data, strips, out)
    if grey.white:
        np.subtract(65535 if page.dtype == out.dtype else 255, out, out=out)


def check_strips(data: bytes, page: tifffile.TiffPage) -> None:
    """ValueError where a strip holds more than its rows of 8 bits: its pixels have others than the file says."""
    if page.is_tiled or page.compression not in (1, 5):
        return
    n = min(page.rowsperstrip, page.imagelength) * page.imagewidth
    for k, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        held = count if page.compression == 1 else len(imagecodecs.lzw_decode(data[offset : offset + count], out=n + 1))
        if held > n:
            raise ValueError(f"strip {k} holds more than its {n} pixels of 8 bits")


def capacity_of(size: tuple[int, ...]) -> int:
    """Bytes that an image of this size may take as `load` gives it: noise of 12 bits makes LZW longer than its pixels."""
    return 5 * (2 * size[0] * size[1]) // 4


def file_limit(size: tuple[int, ...]) -> int:
    """Bytes that an image file of a field of this size may have."""
    return 2 * 2 * size[0] * size[1] + MAX_OVERHEAD


def single_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The one page of a grey TIFF of 8 or 16 bits; ValueError where there are more or it is something else."""
    page = lone_page(tiff)
    if page.compression not in (*COMPRESSIONS, *JPEG_2000, *JPEG_XL):
        name = getattr(page.compression, "name", "unknown").replace("_", " ")
        raise ValueError(
            f"compression {int(page.compression)} ({name}), expected none, LZW, deflate, PackBits, zstd, JPEG 2000 or JPEG "
            "XL without loss"
        )
    if len(page.shape) == 3 and (name := PHOTOMETRICS.get(int(page.photometric))):
        raise ValueError(f"{name} pixels of shape {page.shape}, expected grey ones [H, W]")
    if page.dtype not in (np.uint8, np.uint16) or len(page.shape) != 2:
        raise ValueError(f"{page.dtype} pixels of shape {page.shape}, expected uint8 or uint16 [H, W]")
    if page.bitspersample not in (8, 16):
        raise ValueError(f"{page.bitspersample} bits per sample, expected 8 or 16")
    return page


def lone_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The one page of a TIFF; ValueError where there are more."""
    page = tiff.pages[0]
    if not isinstance(page, tifffile.TiffPage):
        raise TypeError("the first page has no tags")
    try:
        tiff.pages[1]
    except IndexError:
        pass
    else:
        raise ValueError("more than one page")
    return page


def header_size(file: str, images: Files) -> tuple[int, int]:
    """Height and width that an image declares."""
    if has_planes(images):
        height, width = images.plane_size(file)
    else:
        data = images.read(file, 4 * MAX_SIDE * MAX_SIDE + MAX_OVERHEAD)
        if is_png(data):
            return checked_size(*header(data)[:2])
        check_kind(data)
        with io.BytesIO(data) as stream, tifffile.TiffFile(stream, is_ome=False) as tiff:
            height, width = single_page(tiff).shape
    return checked_size(height, width)


def check_written(file: str, images: Files) -> None:
    """An error of `MALFORMED` where an image file ends before its pixels do, as one that is being written."""
    if has_planes(images):
        return
    data = images.read(file, 4 * MAX_SIDE * MAX_SIDE + MAX_OVERHEAD)
    if is_png(data):
        if not data.rstrip(b"\0").endswith(b"IEND\xaeB`\x82"):
            raise ValueError("truncated: a PNG without its end")
        return
    check_kind(data)
    with io.BytesIO(data) as stream, tifffile.TiffFile(stream, is_ome=False) as tiff:
        size = single_page(tiff).shape
    with reader(data, size):
        pass


def checked_size(height: int, width: int) -> tuple[int, int]:
    if max(height, width) > MAX_SIDE or min(height, width) < 1:
        raise ValueError(f"declares {height} x {width} pixels; a field has 1 to {MAX_SIDE} per side")
    return height, width
