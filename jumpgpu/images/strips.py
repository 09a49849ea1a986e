"""LZW strips of grey TIFFs as microscopes write them: found without a reader of tags, copied for a GPU, or decoded here."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from ..gpu.cpu import decode_lzw
from .tiff_tags import ASKED, DESCRIPTION, USUAL

# Tags of `plain_strips`, what they are where a file has none (0: it must have one) and must be: width, height,
# bits, compression, first bit, offsets, samples, rows, byte counts, planes, predictor, kind of number.
PLAIN = {256: 0, 257: 0, 258: 0, 259: 0, 266: 1, 273: 0, 277: 1, 278: 0, 279: 0, 284: 1, 317: 1, 339: 1}
DEFAULTS = {code: (default,) if default else () for code, default in PLAIN.items()}
FIXED = {258: 16, 259: 5, 266: 1, 277: 1, 284: 1, 339: 1}
OTHERS = {322, 323, 324, 325, 330, 33628, 34412, 34710, 65420} | (ASKED - PLAIN.keys() - {DESCRIPTION})  # left to tifffile


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
    result = DEFAULTS | tags
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
    """`Strips.places` of the strips of an image, of so many rows each but the last."""
    step, n = 2 * rows * size[1], len(offsets)
    places = np.empty((n, 4), np.int64)
    places[:, 0], places[:, 1], places[:, 2], places[:, 3] = offsets, counts, np.arange(0, n * step, step), step
    places[-1, 3] = 2 * size[0] * size[1] - (n - 1) * step
    return places


def copied(data: bytes, strips: Strips, reserve: Callable[[int], tuple[int, np.ndarray]]) -> tuple[int, Strips]:
    """Strips copied one after the other into reserved memory: its number, and where they are there."""
    places = strips.places.copy()
    offsets, ends, starts = strips.places[:, 0], places[:, 1].cumsum(), places[:, 0]
    starts[0], starts[1:] = 0, ends[:-1]
    at, memory = reserve(int(ends[-1]))
    first = int(offsets[0])
    if len(starts) == 1 or (starts == offsets - first).all():  # as most writers lay them
        copy_bytes(memory, data, first)
    else:
        for to, offset, end in zip(starts.tolist(), offsets.tolist(), ends.tolist(), strict=True):
            memory[to:end] = np.frombuffer(data, np.uint8, end - to, offset)
    return at, Strips(places, strips.swap, strips.predict)


def copy_bytes(memory: np.ndarray, data: bytes, offset: int) -> None:
    """Fill memory, uint8, with bytes from an offset on; NumPy lets go of Python's lock meanwhile."""
    memory[:] = np.frombuffer(data, np.uint8, len(memory), offset)


def decode_lzw_strips(data: bytes, strips: Strips, out: np.ndarray) -> None:
    """The pixels that LZW strips stand for into `out` [H, W]."""
    decode_strips(data, strips.places, out)
    if strips.swap:
        out.byteswap(inplace=True)
    if strips.predict:
        np.add.accumulate(out, axis=1, dtype=np.uint16, out=out)


def decode_strips(data: bytes, strips: np.ndarray, out: np.ndarray) -> None:
    """LZW strips, as `Strips.places`, into `out` [H, W]; ValueError for one cut short."""
    target = out.reshape(-1).view(np.uint8)
    view = memoryview(data)
    for k in np.flatnonzero(~decode_lzw(data, strips, target)):  # unusual: to be read or refused by imagecodecs
        offset, count, first, n = strips[k].tolist()
        decoded: Any = imagecodecs.lzw_decode(view[offset : offset + count], out=target[first : first + n])  # type: ignore[arg-type]
        if len(decoded) != n:
            raise ValueError(f"truncated: strip {k} has {len(decoded)} bytes of pixels, expected {n}")
