"""One image file: judged by what it declares, then decoded into memory that is there already.

A file is a grey uint16 TIFF of one page, or a plane of an OME-Zarr plate; it lies in a folder or a bucket (`Files`).
Whatever is wrong with it is an error of `MALFORMED`.
"""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from .device import decode_lzw
from .files import Files, Planes

MAX_SIDE = 8192  # pixels; the largest camera of these microscopes has 2160
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


def decode(file: str, images: Files, out: np.ndarray) -> None:
    """Decode a single-page uint16 TIFF, or a plane, into `out` [H, W], contiguous; an error of `MALFORMED` where it is
    anything else.

    Everything the file declares is checked before its pixels are touched; nothing is allocated by what it declares.
    """
    if isinstance(images, Planes):
        images.read_plane(file, out)
        return
    data = images.read(file, file_limit(out.shape))
    with io.BytesIO(data) as stream, tifffile.TiffFile(stream, is_ome=False) as tiff:
        page = single_page(tiff)
        if page.shape != out.shape:
            raise ValueError(f"{' x '.join(map(str, page.shape))} pixels, expected {' x '.join(map(str, out.shape))}")
        offsets, counts = page.dataoffsets, page.databytecounts
        if len(offsets) != len(counts) or not 0 < len(offsets) <= out.shape[0]:
            raise ValueError(f"{len(offsets)} strips for {out.shape[0]} rows")
        if any(o <= 0 or n <= 0 or o + n > len(data) for o, n in zip(offsets, counts, strict=True)):
            raise ValueError(f"truncated: {len(data)} bytes, and a strip of its pixels lies beyond them")
        rows = min(page.rowsperstrip, out.shape[0])
        lzw = page.compression == 5 and page.predictor in (1, 2) and page.fillorder == 1 and not page.is_tiled
        if not lzw or len(offsets) != -(-out.shape[0] // rows):
            if page.compression == 1 and sum(counts) < out.nbytes:
                raise ValueError(f"truncated: {sum(counts)} bytes of pixels, expected {out.nbytes}")
            page.asarray(out=out, maxworkers=1)
            return
        decode_strips(data, np.array([offsets, counts], np.int64).T, rows, out)
        if tiff.byteorder != "<":
            out.byteswap(inplace=True)
        if page.predictor == 2:
            np.add.accumulate(out, axis=1, dtype=np.uint16, out=out)


def decode_strips(data: bytes, places: np.ndarray, rows: int, out: np.ndarray) -> None:
    """LZW strips of `rows` rows at `places` [S, 2] (offset and size in `data`) into `out`; ValueError for one cut short."""
    target, stride = out.reshape(-1).view(np.uint8), rows * out.shape[1] * out.itemsize
    start = np.arange(len(places)) * stride
    strips = np.column_stack([places, start, np.minimum(stride, target.size - start)])
    view = memoryview(data)
    for k in np.flatnonzero(~decode_lzw(data, strips, target)):  # unusual: to be read or refused by imagecodecs
        offset, count, first, n = strips[k].tolist()
        decoded: Any = imagecodecs.lzw_decode(view[offset : offset + count], out=target[first : first + n])  # type: ignore[arg-type]
        if len(decoded) != n:
            raise ValueError(f"truncated: strip {k} has {len(decoded)} bytes of pixels, expected {n}")


def file_limit(size: tuple[int, ...]) -> int:
    """Bytes that an image file of a field of this size may have."""
    return 2 * 2 * size[0] * size[1] + MAX_OVERHEAD


def single_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The one page of a grey uint16 TIFF; ValueError where there are more or it is something else."""
    page = lone_page(tiff)
    if page.dtype != np.uint16 or len(page.shape) != 2 or page.bitspersample != 16:
        raise ValueError(f"{page.dtype} pixels of shape {page.shape}, expected uint16 [H, W]")
    if page.compression not in COMPRESSIONS:
        raise ValueError(f"compression {page.compression}, expected none, LZW, deflate, PackBits or zstd")
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
    if isinstance(images, Planes):
        height, width = images.plane_size(file)
    else:
        data = images.read(file, 4 * MAX_SIDE * MAX_SIDE + MAX_OVERHEAD)
        with io.BytesIO(data) as stream, tifffile.TiffFile(stream, is_ome=False) as tiff:
            height, width = single_page(tiff).shape
    if max(height, width) > MAX_SIDE or min(height, width) < 1:
        raise ValueError(f"declares {height} x {width} pixels; a field has 1 to {MAX_SIDE} a side")
    return height, width
