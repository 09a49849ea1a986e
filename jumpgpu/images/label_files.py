"""A label image's file to an array: TIFF, NPY, or a zarr array with its folder.

The field's size is known, so what a file declares is held against it before anything is allocated. Nothing outside the
folder is opened, no pickle is loaded, no codec runs that could be one, and an OME description that names other files is
not followed.
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import tifffile

from ..storage.faults import may_pass, patiently
from ..storage.local import Status, read_inside
from .tiff import COMPRESSIONS, MALFORMED, MAX_OVERHEAD, lone_page, one_line

CODECS = {"bytes", "transpose", "blosc", "gzip", "zstd", "crc32c", "sharding_indexed"}  # of zarr 3
COMPRESSORS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma"}  # of zarr 2
MAX_METADATA = 1 << 20  # bytes of a zarr.json or .zarray
MAX_FILES = 10_000  # of a zarr array


def read_labels(path: Path, folder: Path, size: tuple[int, int]) -> tuple[np.ndarray, Status | None]:
    """A label image of `folder`, int64 [H, W] of this size, and the status of its file, None where it is a folder.

    ValueError says what is wrong with it, Unreachable what is wrong with the system.
    """
    return patiently(lambda: _read_labels(path, folder, size), path)


def _read_labels(path: Path, folder: Path, size: tuple[int, int]) -> tuple[np.ndarray, Status | None]:
    status = None
    try:
        if path.is_dir():
            image = read_zarr(path, folder, size)
        else:
            limit = 2 * 8 * size[0] * size[1] + MAX_OVERHEAD
            data, status = read_inside(str(path), (folder.resolve(),), limit)
            image = read_npy(data, size) if path.suffix == ".npy" else read_tiff(data, size)
    except (*MALFORMED, EOFError, SyntaxError, TokenError) as error:
        if may_pass(error):
            raise
        raise ValueError(f"cannot be read as a label image: {one_line(error)}") from error
    if image.size and (image.min() < 0 or image.max() > 2**31 - 1):
        raise ValueError(f"labels from {image.min()} to {image.max()}; expected 0 .. 2147483647")
    return image.reshape(size).astype(np.int64), status


def check(shape: Iterable[Any], dtype: np.dtype[Any], size: tuple[int, int]) -> None:
    """ValueError for what is no plane of integers of this size; axes of length 1 do not count."""
    plane = tuple(n for n in shape if n != 1)
    if plane != tuple(n for n in size if n != 1) or dtype.kind not in "iub":
        raise ValueError(f"{dtype} {' x '.join(map(str, shape))} pixels, expected integers, {size[0]} x {size[1]}")


def read_tiff(data: bytes, size: tuple[int, int]) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data), is_ome=False) as tiff:
        page = lone_page(tiff)
        check(page.shape, np.dtype(page.dtype or "V"), size)
        if page.compression not in COMPRESSIONS:
            raise ValueError(f"compression {page.compression}, expected none, LZW, deflate, PackBits or zstd")
        offsets, counts = page.dataoffsets, page.databytecounts
        if len(offsets) != len(counts) or not 0 < len(offsets) <= size[0] * size[1]:
            raise ValueError(f"{len(offsets)} strips or tiles")
        if any(o <= 0 or n <= 0 or o + n > len(data) for o, n in zip(offsets, counts, strict=True)):
            raise ValueError(f"truncated: {len(data)} bytes, and a strip of its pixels lies beyond them")
        if max(page.tilewidth, page.tilelength, page.rowsperstrip if page.is_tiled else 0) > 4 * max(size):
            raise ValueError(f"tiles of {page.tilelength} x {page.tilewidth} pixels")
        image = np.empty(page.shape, page.dtype)
        page.asarray(out=image, maxworkers=1)
    return image


def read_npy(data: bytes, size: tuple[int, int]) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    try:
        shape, fortran, dtype = header(stream)
    except (RecursionError, MemoryError) as error:  # of Python's parser, on too many brackets
        raise ValueError("its header is not an array's") from error
    check(shape, dtype, size)
    values = stream.read()
    if len(values) != dtype.itemsize * size[0] * size[1]:
        raise ValueError(f"{len(values)} bytes of values, expected {dtype.itemsize * size[0] * size[1]}")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C")


def read_zarr(path: Path, folder: Path, size: tuple[int, int]) -> np.ndarray:
    """A zarr 2 or 3 array, or the array `0` of a group."""
    import zarr

    if not (path / ".zarray").exists() and (path / "0").is_dir():
        path = path / "0"
    home = folder.resolve()
    for number, part in enumerate((path, *path.rglob("*"))):
        if number > MAX_FILES:
            raise ValueError(f"more than {MAX_FILES} files")
        if not part.resolve().is_relative_to(home):
            raise ValueError(f"a symlink leads outside {folder}")
    old = (path / ".zarray").is_file()
    described = json.loads(read_inside(str(path / (".zarray" if old else "zarr.json")), (home,), MAX_METADATA)[0])
    if old:
        compressor = described["compressor"]
        used = {f["id"] for f in [*(described["filters"] or ()), *([compressor] if compressor else [])]} - COMPRESSORS
        dtype, chunk = np.dtype(described["dtype"]), described["chunks"]
    else:
        used = names_of(described["codecs"]) - CODECS
        dtype, chunk = np.dtype(described["data_type"]), described["chunk_grid"]["configuration"]["chunk_shape"]
    check(described["shape"], dtype, size)
    if used:
        raise ValueError(f"codec {sorted(used)[0]!r}; expected some of {', '.join(sorted(COMPRESSORS if old else CODECS))}")
    if any(not 0 < n <= 4 * max(size) for n in chunk):
        raise ValueError(f"chunks of {' x '.join(map(str, chunk))} pixels")
    return np.asarray(zarr.open_array(str(path), mode="r", zarr_format=2 if old else 3)[...])


def names_of(codecs: Iterable[Any]) -> set[str]:
    """The names of zarr 3 codecs, those within others too."""
    result = set()
    for codec in codecs:
        result.add(str(codec["name"]))
        inner = codec.get("configuration") or {}
        result |= names_of([*inner.get("codecs", ()), *inner.get("index_codecs", ())])
    return result
