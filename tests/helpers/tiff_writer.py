"""TIFFs with any tags, for tests: written here, tag by tag, so that no library has an opinion on what they say."""

import struct
from collections.abc import Mapping

import imagecodecs
import numpy as np

SHORT, LONG, ASCII, RATIONAL, FLOAT, DOUBLE = 3, 4, 2, 5, 11, 12
LETTERS = {1: "B", SHORT: "H", LONG: "I", FLOAT: "f", DOUBLE: "d", 16: "Q"}
Value = tuple[int, tuple[float, ...] | str] | None  # type and values; None leaves the tag out


def tiff(
    image: np.ndarray,
    tags: Mapping[int, Value] = {},
    order: str = "<",
    lzw: bool = False,
    big: bool = False,
    second: bool = False,
) -> bytes:
    """An image of one strip, uint16 or uint8 [H, W] or anything else, with these tags changed, added or left out."""
    height, width = image.shape[:2]
    pixels = image.astype(image.dtype.newbyteorder(order)).tobytes()
    data = imagecodecs.lzw_encode(pixels) if lzw else pixels
    start = 16 if big else 8
    table: dict[int, Value] = {
        256: (SHORT, (width,)),
        257: (SHORT, (height,)),
        258: (SHORT, (8 * image.dtype.itemsize,)),
        259: (SHORT, (5 if lzw else 1,)),
        262: (SHORT, (1,)),
        273: (LONG, (start,)),
        277: (SHORT, (1,)),
        278: (SHORT, (height,)),
        279: (LONG, (len(data),)),
        **tags,
    }
    kept = {code: value for code, value in sorted(table.items()) if value}
    body = bytearray((b"II" if order == "<" else b"MM") + bytes(start - 2) + data)
    body += bytes(-len(body) % 2)
    cell, count = ("Q", "Q") if big else ("I", "I")
    entries = b""
    for code, (kind, values) in kept.items():  # type: ignore[misc]
        if isinstance(values, str):
            packed, n = values.encode() + b"\0", len(values.encode()) + 1
        elif kind == RATIONAL:
            packed, n = struct.pack(f"{order}{len(values)}I", *map(int, values)), len(values) // 2
        else:
            numbers = values if LETTERS[kind] in "fd" else tuple(map(int, values))
            packed, n = struct.pack(f"{order}{len(values)}{LETTERS[kind]}", *numbers), len(values)
        if len(packed) > struct.calcsize(cell):
            where, body = len(body), body + packed + bytes(len(packed) % 2)
            packed = struct.pack(order + cell, where)
        entries += struct.pack(order + "HH" + count, code, kind, n) + packed.ljust(struct.calcsize(cell), b"\0")
    at = len(body)
    head = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    body[2 : 2 + len(head)] = head
    body += struct.pack(order + ("Q" if big else "H"), len(kept)) + entries + struct.pack(order + cell, at if second else 0)
    return bytes(body)
