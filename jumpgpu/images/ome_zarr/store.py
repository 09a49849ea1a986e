"""A zarr store of one array that is not trusted: its metadata as it was judged, its chunks no larger than they may be.

What a compressed chunk declares to hold is checked before it is unpacked.
"""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from functools import cached_property
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import zarr
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from ...storage.faults import Unreachable
from ..lossless import JPEG_2000, JPEG_XL, check_whole
from .layout import IMAGE_PACKERS
from .plate import Field

MAX_METADATA = 1 << 22  # bytes of a zarr.json that is looked for again
SLACK = 1 << 16  # bytes that a packed chunk may have beyond its content
NOTHING: tuple[str, ...] = ()


def open_array(field: Field, read: Callable[[str, int], bytes]) -> zarr.Array[Any]:
    """The field's array, to be read through `read`."""
    store = FieldStore(field, read)
    array = zarr.open_array(store, path=field.array, mode="r", zarr_format=field.version)  # type: ignore[arg-type]
    if array.shape != field.shape or array.dtype.kind != "u" or array.dtype.itemsize != 2:
        raise ValueError(f"{field.array}: zarr finds {array.dtype} of shape {array.shape}")
    return array


def check_chunk(data: bytes, field: Field) -> None:
    """ValueError for a packed chunk that declares or holds another number of bytes than its chunk has."""
    size = 2
    for n in field.chunks:
        size *= n
    if field.packer == "blosc":
        held = struct.unpack_from("<I", data, 4)[0] if len(data) >= 16 else -1
    elif field.packer == "lz4":
        held = struct.unpack_from("<i", data)[0] if len(data) >= 4 else -1
    elif field.packer in ("gzip", "zlib"):
        try:
            held = len(zlib.decompressobj(wbits=47).decompress(data, size + 1))
        except zlib.error as error:
            raise ValueError(f"{field.array}: a chunk cannot be unpacked ({error})") from error
    elif field.packer == "zstd":
        held = zstd_content(data, size)
    else:
        held = len(data)
    if held != size and not (field.packer is None and held == size + 4):  # a checksum
        raise ValueError(f"{field.array}: a chunk holds {held} bytes, expected {size}")


def unpacked(data: bytes, field: Field) -> bytes:
    """A chunk as zarr is to have it: checked, and of an image its pixels; ValueError where it does not serve."""
    if field.packer not in IMAGE_PACKERS:
        check_chunk(data, field)
        return data
    height, width = field.chunks[-2:]
    pixels = np.empty((height, width), "<u2")
    try:
        if field.packer == "imagecodecs_jpegxl":
            check_whole(data, min(JPEG_XL), (height, width))
            imagecodecs.jpegxl_decode(data, numthreads=1, out=pixels)
        else:
            check_whole(data, min(JPEG_2000), (height, width))
            imagecodecs.jpeg2k_decode(data, numthreads=1, out=pixels)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{field.array}: {field.packer}: {error}") from error
    return pixels.tobytes()


def unpacked_shard(data: bytes, field: Field) -> bytes:
    """A file of several chunks, each of them checked; of images, one that holds their pixels."""
    n, checked = field.index_bytes // 16, field.index_bytes % 16
    if len(data) < field.index_bytes:
        raise ValueError(f"{field.array}: a shard of {len(data)} bytes, and its index has {field.index_bytes}")
    index = np.frombuffer(data, "<u8", 2 * n, len(data) - field.index_bytes).reshape(n, 2)
    places, parts, end = index.copy(), [], 0
    for k, (offset, length) in enumerate(index.tolist()):
        if offset == length == 2**64 - 1:  # a chunk that is all of the fill value
            continue
        if offset + length > len(data):
            raise ValueError(f"{field.array}: truncated: a chunk of a shard lies beyond its {len(data)} bytes")
        part = unpacked(data[offset : offset + length], field)
        if field.packer in IMAGE_PACKERS:
            places[k], end = (end, len(part)), end + len(part)
            parts.append(part)
    if field.packer not in IMAGE_PACKERS:
        return data
    numbers = places.tobytes()
    return b"".join([*parts, numbers, struct.pack("<I", google_crc32c.value(numbers)) if checked else b""])


def zstd_content(data: bytes, size: int) -> int:
    """What a zstd frame's header says that it holds; unpacked into at most `size` bytes where it does not say."""
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    single, code = data[4] >> 5 & 1, data[4] >> 6
    at = 5 + (1 - single) + (0, 1, 2, 4)[data[4] & 3]
    width = (single, 2, 4, 8)[code]
    if not width:
        return len(imagecodecs.zstd_decode(data, out=bytearray(size)))
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


class FieldStore(Store):
    """One field's array: its metadata as it was judged, its chunks through `read`."""

    def __init__(self, field: Field, read: Callable[[str, int], bytes]):
        super().__init__(read_only=True)
        self.field, self._read = field, read

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def limit(self) -> int:
        size = 2
        for n in self.field.outer:
            size *= n
        return size + size // 16 + SLACK

    def check_there(self, own: str) -> None:
        """Unreachable where a chunk is absent because all of the array is."""
        try:
            self._read(own, MAX_METADATA)
        except FileNotFoundError as error:
            raise Unreachable(f"{self.field.array} has disappeared: is its share mounted?") from error

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        own = f"{self.field.array}/{'zarr.json' if self.field.version == 3 else '.zarray'}"
        if key == own:
            return prototype.buffer.from_bytes(self.field.metadata)
        if key.endswith(("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")) or ".." in key:
            return None
        try:
            data = await asyncio.to_thread(self._read, key, self.limit)
        except FileNotFoundError:
            await asyncio.to_thread(self.check_there, own)
            return None  # zarr's way to store a chunk that is all zeros
        if isinstance(byte_range, SuffixByteRequest):
            return prototype.buffer.from_bytes(data[-byte_range.suffix :])
        if isinstance(byte_range, RangeByteRequest):
            data = unpacked(data[byte_range.start : byte_range.end], self.field)
        else:
            data = unpacked_shard(data, self.field) if self.field.index_bytes else unpacked(data, self.field)
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(self, prototype: BufferPrototype, key_ranges: Iterable[Any]) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return False

    supports_writes = supports_deletes = supports_listing = False

    async def set(self, key: str, value: Buffer) -> None:
        raise PermissionError(f"{key}: a plate of images is only read")

    async def delete(self, key: str) -> None:
        raise PermissionError(f"{key}: a plate of images is only read")

    async def list(self) -> AsyncIterator[str]:
        for key in NOTHING:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in NOTHING:
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for key in NOTHING:
            yield key
