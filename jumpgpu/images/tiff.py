"""One image file: judged by what it declares, then decoded into memory that is there already.

A file is a grey TIFF of one page or a grey PNG, of 8 or 16 bits, or a plane of an OME-Zarr plate; it lies in a folder or a
bucket (`Files`). For a GPU that decodes LZW itself (`load`) its strips are taken as they are.
Whatever is wrong with it is an error of `MALFORMED`.
"""

import contextlib
import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from ..gpu.cpu import decode_lzw
from ..storage.local import Files, has_planes
from .lossless import JPEG_2000, JPEG_XL, check_segment
from .png import decode_png, header, is_png
from .tiff_tags import ASKED, DESCRIPTION, PHOTOMETRIC, PHOTOMETRICS, UIC2, USUAL, Grey, judge_tags

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
# Tags of `plain_strips`, what they are where a file has none (0: it must have one) and must be: width, height,
# bits, compression, first bit, offsets, samples, rows, byte counts, planes, predictor, kind of number.
PLAIN = {256: 0, 257: 0, 258: 0, 259: 0, 266: 1, 273: 0, 277: 1, 278: 0, 279: 0, 284: 1, 317: 1, 339: 1}
FIXED = {258: 16, 259: 5, 266: 1, 277: 1, 284: 1, 339: 1}
OTHERS = {322, 323, 324, 325, 330, 33628, 34412, 34710, 65420} | (ASKED - PLAIN.keys() - {DESCRIPTION})  # left to tifffile
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


@dataclass(frozen=True)
class Strips:
    """LZW strips of one image as they are put together.

    places : int64 [S, 4]
        Of each: where its codes begin, how many bytes they are, where its bytes begin in the image, how many they are.
    swap : the pixels' bytes are highest first
    predict : a row holds differences (TIFF's predictor 2)
    """

    places: np.ndarray
    swap: bool
    predict: bool


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
    reserve : asked once for so many bytes, not more than `room_of(size)`; gives their number in all that is reserved, and
        them, uint8 [n]

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


def copied(data: bytes, strips: Strips, reserve: Callable[[int], tuple[int, np.ndarray]]) -> tuple[int, Strips]:
    """Strips copied one after the other into reserved memory: its number, and where they are there."""
    offsets, counts = strips.places[:, 0], strips.places[:, 1]
    places = strips.places.copy()
    places[:, 0] = np.cumsum(counts) - counts
    at, memory = reserve(int(counts.sum()))
    if (offsets[1:] == offsets[:-1] + counts[:-1]).all():  # as most writers lay them
        copy_bytes(memory, data, int(offsets[0]))
    else:
        for to, offset, count in zip(places[:, 0].tolist(), offsets.tolist(), counts.tolist(), strict=True):
            memory[to : to + count] = np.frombuffer(data, np.uint8, count, offset)
    return at, replace(strips, places=places)


def copy_bytes(memory: np.ndarray, data: bytes, offset: int) -> None:
    """Fill memory, uint8, with bytes from an offset on; NumPy lets go of Python's lock meanwhile."""
    memory[:] = np.frombuffer(data, np.uint8, len(memory), offset)


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


def decode_lzw_strips(data: bytes, strips: Strips, out: np.ndarray) -> None:
    """The pixels that LZW strips stand for into `out` [H, W]."""
    decode_strips(data, strips.places, out)
    if strips.swap:
        out.byteswap(inplace=True)
    if strips.predict:
        np.add.accumulate(out, axis=1, dtype=np.uint16, out=out)


def lzw_strips(page: tifffile.TiffPage, size: tuple[int, ...]) -> Strips | None:
    """A page's strips where they are LZW's and we decode them ourselves."""
    rows = min(page.rowsperstrip, size[0])
    lzw = (
        page.compression == 5
        and page.dtype == np.uint16
        and page.predictor in (1, 2)
        and page.fillorder == 1
        and not page.is_tiled
    )
    if not lzw or len(page.dataoffsets) != -(-size[0] // rows):
        return None
    places = strip_places(page.dataoffsets, page.databytecounts, rows, size)
    return Strips(places, page.parent.byteorder != "<", page.predictor == 2)


def strip_places(offsets: Sequence[int], counts: Sequence[int], rows: int, size: tuple[int, ...]) -> np.ndarray:
    """`Strips.places` of strips of so many rows each."""
    start = np.arange(len(offsets), dtype=np.int64) * (2 * rows * size[1])
    length = np.minimum(2 * rows * size[1], 2 * size[0] * size[1] - start)
    return np.column_stack([np.array([offsets, counts], np.int64).T, start, length])


def plain_strips(data: bytes, size: tuple[int, ...]) -> Strips | None:
    """The LZW strips of a TIFF as microscopes write it, one grey uint16 page of this size; None for anything else.

    What it does not know it leaves to tifffile, which takes ten times as long for a page's tags.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return None
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    n = struct.unpack_from(f"{order}H", data, at)[0] if at + 2 <= len(data) else 0
    end = at + 2 + 12 * n
    if not n or end + 4 > len(data) or data[end : end + 4] != bytes(4):  # another page follows
        return None
    tags: dict[int, tuple[int, ...]] = {}
    seen = 0
    for code, kind, count, value in struct.iter_unpack(f"{order}HHI4s", data[at + 2 : end]):
        if code <= seen:
            return None
        seen = code
        if code in USUAL:
            number = struct.unpack(f"{order}H2x" if kind == 3 else f"{order}I", value)[0]
            if kind not in (3, 4) or count != 1 or number not in USUAL[code]:
                return None
        elif code in OTHERS or (code == DESCRIPTION and described(data, value, count, order)):
            return None
        if code in PLAIN and kind in (3, 4) and 0 < count <= size[0]:
            letter = f"{order}{count}{'H' if kind == 3 else 'I'}"
            where = struct.unpack(f"{order}I", value)[0]
            inside = struct.calcsize(letter) <= 4
            if not inside and where + struct.calcsize(letter) > len(data):
                return None
            tags[code] = struct.unpack_from(letter, value if inside else data, 0 if inside else where)
        elif code in PLAIN:
            return None
    result = {code: tags.get(code, (default,) if default else ()) for code, default in PLAIN.items()}
    height, width, rows = result[257], result[256], result[278]
    fixed = all(result[code] == (value,) for code, value in FIXED.items())
    if not fixed or (*height, *width) != size or result[317] not in ((1,), (2,)) or len(rows) != 1 or not rows[0]:
        return None
    offsets, counts, step = result[273], result[279], min(rows[0], size[0])
    if len(offsets) != -(-size[0] // step) or len(counts) != len(offsets):
        return None
    if any(o == 0 or c == 0 or o + c > len(data) for o, c in zip(offsets, counts, strict=True)):
        return None
    return Strips(strip_places(offsets, counts, step, size), order != "<", result[317] == (2,))


def described(data: bytes, value: bytes, count: int, order: str) -> bool:
    """Whether an ImageDescription is one that says something of counts."""
    at = struct.unpack(f"{order}I", value)[0]
    text = data[at : at + min(count, 1 << 16)] if count > 4 else value
    return text.startswith(b"ImageJ=") or b"SignificantBits" in text


def decode_strips(data: bytes, strips: np.ndarray, out: np.ndarray) -> None:
    """LZW strips, as `Strips.places`, into `out` [H, W]; ValueError for one cut short."""
    target = out.reshape(-1).view(np.uint8)
    view = memoryview(data)
    for k in np.flatnonzero(~decode_lzw(data, strips, target)):  # unusual: to be read or refused by imagecodecs
        offset, count, first, n = strips[k].tolist()
        decoded: Any = imagecodecs.lzw_decode(view[offset : offset + count], out=target[first : first + n])  # type: ignore[arg-type]
        if len(decoded) != n:
            raise ValueError(f"truncated: strip {k} has {len(decoded)} bytes of pixels, expected {n}")


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
