"""JPEG 2000 and JPEG XL, in segments of a TIFF and chunks of zarr: only those that can hold the camera's counts, and no more
than declared.

A codestream says itself how large it is and how it was made. It is refused where the making loses counts for certain: JPEG
2000's irreversible transform or quantisation, JPEG XL's XYB colours, a JPEG inside. Source: ISO/IEC 15444-1, annex A (marker
segments); ISO/IEC 18181-1, annex D (image headers).
"""

import struct
from dataclasses import dataclass

JPEG_2000 = frozenset((33003, 33004, 33005, 34712))
JPEG_XL = frozenset((50002, 52546))
MAX_BOXES = 64


@dataclass(frozen=True)
class Codestream:
    """What a codestream declares. `loses`: why its counts are not the camera's, '' where nothing says so."""

    height: int
    width: int
    bits: int
    loses: str


def check_segment(data: bytes, compression: int, maximum: tuple[int, int], bits: int) -> None:
    """ValueError for a strip or tile larger than `maximum` (height, width), of other bits, or with loss."""
    result = jpeg_2000(data) if compression in JPEG_2000 else jpeg_xl(data)
    if result.height > maximum[0] or result.width > maximum[1] or result.bits != bits:
        raise ValueError(
            f"a segment declares {result.height} x {result.width} pixels of {result.bits} bits, "
            f"expected {maximum[0]} x {maximum[1]} of {bits}"
        )
    if result.loses:
        raise ValueError(f"not without loss: {result.loses}")


def check_whole(data: bytes, compression: int, size: tuple[int, int]) -> None:
    """ValueError for a chunk that is no image of this (height, width) and 9 to 16 bits, or one with loss."""
    result = jpeg_2000(data) if compression in JPEG_2000 else jpeg_xl(data)
    if (result.height, result.width) != size or not 9 <= result.bits <= 16:
        raise ValueError(
            f"a chunk declares {result.height} x {result.width} pixels of {result.bits} bits, expected {size[0]} x {size[1]}"
        )
    if result.loses:
        raise ValueError(f"not without loss: {result.loses}")


def jpeg_2000(data: bytes) -> Codestream:
    """A JPEG 2000 codestream, in a JP2 file or not."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 46:
        raise ValueError("no JPEG 2000 codestream")
    length, _, x1, y1, x0, y0 = struct.unpack(">HHIIII", data[at + 4 : at + 24])
    components, depth = struct.unpack(">HB", data[at + 40 : at + 43])
    if components != 1:
        raise ValueError(f"a JPEG 2000 segment of {components} components, expected 1")
    loses = "JPEG 2000 of signed numbers" if depth & 0x80 else ""
    seen = set()
    at += 4 + length
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0x90:  # until the first tile
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0x52, 0x53):  # COD, COC: the last byte but precincts is the transform
            first = at + (9 if marker == 0x52 else 6)
            if first + 5 > len(data):
                raise ValueError("truncated: a JPEG 2000 header")
            loses = loses or "JPEG 2000's irreversible transform" * (data[first + 4] != 1)
        elif marker in (0x5C, 0x5D):  # QCD, QCC
            loses = loses or "JPEG 2000 with quantisation" * bool(data[at + (4 if marker == 0x5C else 5)] & 0x1F)
        seen.add(marker)
        at += 2 + max(length, 2)
    if not {0x52, 0x5C} <= seen:
        raise ValueError("truncated: a JPEG 2000 header")
    return Codestream(y1 - y0, x1 - x0, (depth & 0x7F) + 1, loses)


def jpeg_xl(data: bytes) -> Codestream:
    """A JPEG XL codestream, in its container or not."""
    stream, loses = data, ""
    if data[4:8] == b"JXL ":
        stream = b""
        at = 0
        for _ in range(MAX_BOXES):
            if at + 8 > len(data):
                break
            n, kind = struct.unpack(">I4s", data[at : at + 8])
            start = at + 8
            if n == 1:
                n, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            end = len(data) if n == 0 else at + n
            if kind == b"jbrd":
                loses = "JPEG XL with a JPEG inside"
            if kind in (b"jxlc", b"jxlp") and not stream:
                stream = data[start + 4 * (kind == b"jxlp") : min(end, start + 64)]
            if end <= at:
                break
            at = end
    if stream[:2] != b"\xff\x0a":
        raise ValueError("no JPEG XL codestream")
    bits = Bits(stream[2:64])
    height, width = bits.size()
    if bits.read(1):
        return Codestream(height, width, 8, "JPEG XL's XYB colours")
    if bits.read(1):  # further fields
        bits.read(3)
        if bits.read(1):
            bits.size()
        if bits.read(1) or bits.read(1):
            raise ValueError("JPEG XL with a preview or frames, expected one image")
    if bits.read(1):
        raise ValueError("JPEG XL of floating point, expected whole numbers")
    depth = bits.choice(((0, 8), (0, 10), (0, 12), (6, 1)))
    bits.read(1)
    if bits.choice(((0, 0), (0, 1), (4, 2), (12, 1))):
        raise ValueError("JPEG XL with further channels, expected grey")
    return Codestream(height, width, depth, loses or "JPEG XL's XYB colours" * bits.read(1))


class Bits:
    """A JPEG XL header's bits, the lowest of a byte first; 0 past its end."""

    def __init__(self, data: bytes):
        self.value = int.from_bytes(data, "little")

    def read(self, n: int) -> int:
        result = self.value & ((1 << n) - 1)
        self.value >>= n
        return result

    def choice(self, ways: tuple[tuple[int, int], ...]) -> int:
        """One of four ways to write a number: so many bits, and what is added."""
        n, plus = ways[self.read(2)]
        return self.read(n) + plus

    def size(self) -> tuple[int, int]:
        """Height and width."""
        ways = ((9, 1), (13, 1), (18, 1), (30, 1))
        small = self.read(1)
        height = 8 * (self.read(5) + 1) if small else self.choice(ways)
        if not (ratio := self.read(3)):
            return height, 8 * (self.read(5) + 1) if small else self.choice(ways)
        a, b = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        return height, height * a // b
