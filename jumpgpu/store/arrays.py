"""Arrays as zarr v3 files, and back. An array has one chunk; a table of features has one for every few columns, in one file.

What is written is what zarr itself writes for the same request, and zarr reads it; calling zarr costs 3 ms an array, and
0.15 s to import (tests/store/test_arrays.py compares the bytes).
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from ..storage.atomic import check_key

COLUMNS_PER_CHUNK = 16  # of a table; docs/design/columns-in-chunks.md
LZ4 = 1  # of the codecs in a Blosc chunk
HEX = 64  # characters of a SHA-256
MAX_RATIO = 512  # bytes of an array per stored byte; LZ4 does not reach 256
SLACK = 1 << 20  # bytes that a small array may have beyond that
ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}


def digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def array_files(key: str, array: np.ndarray, attributes: Mapping[str, Any], axes: str = "") -> dict[str, bytes]:
    """An array of numbers or strings as the files of a zarr array with one chunk, shuffled and LZ4.

    `axes` names the dimensions of an image, a letter each.
    """
    from numcodecs import VLenUTF8, blosc

    strings = array.dtype.kind in "OU"
    metadata = array_metadata(array.shape, "string" if strings else array.dtype.name) | {"attributes": dict(attributes)}
    if axes:
        metadata["dimension_names"] = list(axes)
    files = {check_key(f"{key}/zarr.json"): json.dumps(metadata).encode()}
    if array.size:
        chunk = VLenUTF8().encode(array.astype(object)) if strings else np.ascontiguousarray(array)
        files[chunk_key(key, array.ndim)] = blosc.compress(chunk, b"lz4", 5, blosc.NOSHUFFLE if strings else blosc.SHUFFLE)
    return files


def table_files(key: str, parts: Sequence[np.ndarray], n_columns: int, dtype: str = "float32") -> dict[str, bytes]:
    """A table, its rows given in parts [rows, columns], as the files of a zarr array: one file with a chunk per 16 columns.

    A chunk holds its columns one after the other, shuffled and LZ4 (0.83 of the size at 0.8 GB/s), so that a few columns
    are read without the others. Sizes and SHA-256 of the chunks stand in the array's attributes, which the well's record
    covers: a chunk is checked by itself.
    """
    from google_crc32c import value as crc32c
    from numcodecs.blosc import SHUFFLE, compress  # `Blosc` takes as long to look at a small chunk as to pack it

    n_rows = sum(len(part) for part in parts)
    n_chunks = -(-n_columns // COLUMNS_PER_CHUNK)
    columns = np.empty((n_chunks * COLUMNS_PER_CHUNK, n_rows), dtype)
    columns[n_columns:] = 0
    row = 0
    for part in parts:
        turn(part, columns[:n_columns, row : row + len(part)])
        row += len(part)
    starts = range(0, len(columns), COLUMNS_PER_CHUNK) if n_rows else ()
    chunks = [compress(columns[i : i + COLUMNS_PER_CHUNK], b"lz4", 5, SHUFFLE, 0) for i in starts]
    sizes = [len(chunk) for chunk in chunks]
    record = {"bytes": sizes, "sha256": "".join(map(digest, chunks))}
    metadata = table_metadata((n_rows, n_columns), dtype) | {"attributes": {**ARRAY, "jumpgpu": record}}
    files = {check_key(f"{key}/zarr.json"): json.dumps(metadata).encode()}
    if chunks:
        index = chunk_index(sizes)
        files[chunk_key(key, 2)] = joined([*chunks, index, struct.pack("<I", crc32c(index))])
    return files


def turn(part: np.ndarray, into: np.ndarray) -> None:
    """Rows to columns; NumPy lets go of Python's lock meanwhile."""
    into[:] = part.T


def joined(parts: Sequence[bytes]) -> bytes:
    """Bytes one after the other; Python lets go of its lock meanwhile where they are a megabyte and more."""
    return b"".join(parts)


def chunk_key(key: str, ndim: int) -> str:
    """The file of an array's only chunk. Parts joined by dots save two folders an array."""
    return f"{key}/{'.'.join(['c', *'0' * ndim])}"


def chunk_index(sizes: Iterable[int]) -> bytes:
    """Where a table's chunks are in its file: offset and bytes of each, uint64."""
    index = np.array([[0, n] for n in sizes], "<u8").reshape(-1, 2)
    index[1:, 0] = np.cumsum(index[:-1, 1])
    return index.tobytes()


@cache
def _template(kind: str, ndim: int, dtype: str) -> bytes:
    size = 1 if dtype == "string" else np.dtype(dtype).itemsize
    values: dict[str, Any] = {"name": "bytes"}
    if size > 1:
        values["configuration"] = {"endian": "little"}
    if dtype == "string":
        values = {"name": "vlen-utf8", "configuration": {}}
    shuffle = "noshuffle" if dtype == "string" else "shuffle"
    blosc = {"typesize": size, "cname": "lz4", "clevel": 5, "shuffle": shuffle, "blocksize": 0}
    codecs: list[dict[str, Any]] = [values, {"name": "blosc", "configuration": blosc}]
    if kind != "whole":
        codecs.insert(0, {"name": "transpose", "configuration": {"order": [1, 0]}})
    if kind == "columns":
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {"chunk_shape": [1, COLUMNS_PER_CHUNK], "codecs": codecs, "index_codecs": index, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    metadata = {
        "shape": [1] * ndim,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1] * ndim}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "" if dtype == "string" else 0.0 if dtype.startswith("float") else 0,
        "codecs": codecs,
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(metadata).encode()


def array_metadata(shape: Sequence[int], dtype: str, kind: str = "whole") -> dict[str, Any]:
    """The zarr.json of an array with one chunk; `kind` "transposed" is a table as format 1 stored it."""
    metadata: dict[str, Any] = json.loads(_template(kind, len(shape), dtype))
    metadata["shape"] = list(shape)
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [max(1, n) for n in shape]
    return metadata


def table_metadata(shape: Sequence[int], dtype: str) -> dict[str, Any]:
    """The zarr.json of a table: one shard, cut into chunks of columns."""
    n_rows, n_columns = shape
    metadata = array_metadata(shape, dtype, "columns")
    padded = max(1, -(-n_columns // COLUMNS_PER_CHUNK)) * COLUMNS_PER_CHUNK
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [max(1, n_rows), padded]
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [max(1, n_rows), COLUMNS_PER_CHUNK]
    return metadata


def read_metadata(data: bytes, key: str) -> dict[str, Any]:
    """An array's zarr.json that is one of those written here; ValueError for another."""
    try:
        metadata: dict[str, Any] = json.loads(data)
        shape, dtype = metadata["shape"], metadata["data_type"]
        written = {k: v for k, v in metadata.items() if k != "dimension_names"} | {"attributes": {}}
        if all(isinstance(n, int) and n >= 0 for n in shape):
            kinds = (table_metadata, partial(array_metadata, kind="transposed")) if len(shape) == 2 else ()
            if any(written == kind(shape, dtype) for kind in (*kinds, array_metadata)):
                return metadata
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{key} cannot be read: its metadata are not as jumpgpu writes them")


def unpack(data: bytes | memoryview, n_bytes: int, key: str, into: np.ndarray | None = None) -> bytes:
    """A Blosc chunk's content, or that written `into` an array of its size; ValueError where it declares or holds another
    number of bytes, before memory is taken."""
    from numcodecs.blosc import decompress

    declared, packed = struct.unpack_from("<I4xI", data, 4) if len(data) >= 16 else (-1, 0)
    if declared != n_bytes or packed != len(data):
        raise ValueError(f"{key} cannot be read: a chunk holds {declared} bytes, expected {n_bytes}")
    if data[2] >> 5 != LZ4:
        raise ValueError(f"{key} cannot be read: a chunk is not packed by LZ4")
    try:
        result: bytes = decompress(data, into)
    except RuntimeError as error:
        raise ValueError(f"{key} cannot be read: {error}") from error
    return result


@dataclass(frozen=True)
class Chunks:
    """A table that can be read by columns.

    shape, dtype  of the table
    sizes         bytes of each chunk, in the order in which they lie in the file
    digests       SHA-256 of each, one after the other, in hexadecimal
    """

    key: str
    shape: tuple[int, int]
    dtype: np.dtype
    sizes: tuple[int, ...]
    digests: str

    @cached_property
    def offsets(self) -> list[int]:
        return [0, *np.cumsum(self.sizes).tolist()]

    @property
    def file_bytes(self) -> int:
        return self.offsets[-1] + 16 * len(self.sizes) + 4 if self.sizes else 0

    def decode(self, i: int, chunk: bytes | memoryview) -> np.ndarray:
        """Columns of chunk `i`, [columns, rows]; ValueError where it is not as it was written."""
        values = np.empty((COLUMNS_PER_CHUNK, self.shape[0]), self.dtype)
        self._decode(i, chunk, values)
        return values

    def _decode(self, i: int, chunk: bytes | memoryview, into: np.ndarray) -> None:
        """Columns of chunk `i` into [columns, rows], contiguous; as `decode`."""
        if len(chunk) != self.sizes[i] or digest(chunk) != self.digests[HEX * i : HEX * (i + 1)]:
            first = i * COLUMNS_PER_CHUNK
            raise ValueError(
                f"{self.key}/c.0.0 is not as it was written (columns {first} to {first + COLUMNS_PER_CHUNK - 1})"
            )
        unpack(chunk, COLUMNS_PER_CHUNK * self.shape[0] * self.dtype.itemsize, self.key, into)

    def fill(self, out: np.ndarray, file: bytes) -> None:
        """Give `out`, [columns, rows], all of the table from its file; ValueError where that is not as it was written."""
        from google_crc32c import value as crc32c

        index = chunk_index(self.sizes)
        tail = index + struct.pack("<I", crc32c(index)) if self.sizes else b""
        if len(file) != self.file_bytes or not file.endswith(tail):
            raise ValueError(
                f"{self.key}/c.0.0 is not as it was written ({len(file)} bytes of {self.file_bytes}, or other content)"
            )
        whole = memoryview(file)
        for i, start in enumerate(self.offsets[:-1]):
            chunk, here = whole[start : start + self.sizes[i]], out[i * COLUMNS_PER_CHUNK : (i + 1) * COLUMNS_PER_CHUNK]
            if len(here) == COLUMNS_PER_CHUNK and here.flags.c_contiguous:
                self._decode(i, chunk, here)
            else:
                here[:] = self.decode(i, chunk)[: len(here)]


def read_chunks(data: bytes, key: str) -> Chunks | None:
    """A table's chunks by its zarr.json; None for an array with only one. ValueError where its record does not fit it."""
    metadata = read_metadata(data, key)
    if metadata["codecs"][0]["name"] != "sharding_indexed":
        return None
    (n_rows, n_columns), dtype = metadata["shape"], np.dtype(metadata["data_type"])
    n_chunks = -(-n_columns // COLUMNS_PER_CHUNK) if n_rows else 0
    try:
        ours = metadata["attributes"]["jumpgpu"]
        sizes, digests = tuple(map(int, ours["bytes"])), str(ours["sha256"])
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{key} cannot be read: it has no record of its chunks") from error
    if len(sizes) != n_chunks or len(digests) != HEX * n_chunks or min(sizes, default=0) < 0:
        raise ValueError(f"{key} cannot be read: a record of {len(sizes)} chunks, expected {n_chunks}")
    n_bytes = n_rows * COLUMNS_PER_CHUNK * n_chunks * dtype.itemsize
    if n_bytes > SLACK + MAX_RATIO * sum(sizes):
        raise ValueError(f"{key} cannot be read: declares {n_bytes} bytes, more than its files can hold")
    return Chunks(key, (n_rows, n_columns), dtype, sizes, digests)


def read_array(files: Mapping[str, bytes], key: str) -> np.ndarray:
    """An array back from its files; ValueError where they are no such array."""
    if f"{key}/zarr.json" not in files:
        raise ValueError(f"{key} cannot be read: it has no zarr.json")
    metadata = read_metadata(files[f"{key}/zarr.json"], key)
    shape, strings = tuple(metadata["shape"]), metadata["data_type"] == "string"
    dtype = np.dtype(object if strings else metadata["data_type"])
    data = files.get(chunk_key(key, len(shape)))
    n = int(np.prod(shape, dtype=object))
    if not n:
        return np.empty(shape, dtype)
    if data is None:
        raise ValueError(f"{key} cannot be read: its chunk is absent")
    if n * dtype.itemsize > SLACK + MAX_RATIO * len(data):
        raise ValueError(f"{key} cannot be read: declares {n * dtype.itemsize} bytes, more than its files can hold")
    if chunks := read_chunks(files[f"{key}/zarr.json"], key):
        columns = np.empty(shape[::-1], dtype)
        chunks.fill(columns, data)
        return columns.T
    if strings:
        return read_strings(data, n, key).reshape(shape)
    values = np.frombuffer(unpack(data, n * dtype.itemsize, key), dtype)
    transposed = metadata["codecs"][0]["name"] == "transpose"
    return values.reshape(shape[::-1]).T if transposed else values.reshape(shape)


def read_strings(data: bytes, n: int, key: str) -> np.ndarray:
    """`n` strings from their chunk."""
    from numcodecs import VLenUTF8

    declared = struct.unpack_from("<I", data, 4)[0] if len(data) >= 16 else -1
    if not 0 <= declared <= SLACK + MAX_RATIO * len(data):
        raise ValueError(f"{key} cannot be read: declares {declared} bytes, more than its files can hold")
    try:
        result: np.ndarray = VLenUTF8().decode(unpack(data, declared, key))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{key} cannot be read: {error}") from error
    if len(result) != n:
        raise ValueError(f"{key} cannot be read: {len(result)} strings, expected {n}")
    return result
