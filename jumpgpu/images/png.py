"""Grey PNGs of 8 or 16 bits: judged by their header, then decoded into memory that is there already.

What a header says is checked before a pixel is touched; sBIT and gAMA are not applied, as by CellProfiler.
"""

import struct

import imagecodecs
import numpy as np

from .tiff_tags import FULL_SCALE_8, Grey

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {2: "RGB", 3: "palette colour", 4: "grey and alpha", 6: "RGB and alpha"}


def is_png(data: bytes) -> bool:
    return data.startswith(SIGNATURE)


def header(data: bytes) -> tuple[int, int, int]:
    """Height, width and bits that a PNG declares; ValueError for one that is not grey of 8 or 16 bits."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("truncated: a PNG without its header")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    if colour != 0:
        raise ValueError(f"a PNG of {COLOURS.get(colour, 'unknown colours')}, expected grey")
    if bits not in (8, 16):
        raise ValueError(f"a PNG of {bits} bits, expected 8 or 16")
    return height, width, bits


def chunks_before_pixels(data: bytes) -> dict[bytes, bytes]:
    """The chunks between a PNG's header and its pixels."""
    result: dict[bytes, bytes] = {}
    at = 33
    while at + 12 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        n = struct.unpack(">I", data[at : at + 4])[0]
        result[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + min(n, 1024)]
        at += 12 + n
    return result


def decode_png(data: bytes, out: np.ndarray) -> Grey:
    """A PNG's counts into `out`, uint16 [H, W]; ValueError or RuntimeError for another size or kind, or a broken one."""
    height, width, bits = header(data)
    if (height, width) != out.shape:
        raise ValueError(f"{height} x {width} pixels, expected {' x '.join(map(str, out.shape))}")
    extra = chunks_before_pixels(data)
    if b"tRNS" in extra or b"acTL" in extra:
        raise ValueError("a PNG with a transparent colour, or of several frames")
    pixels = imagecodecs.png_decode(data)
    if pixels.shape != out.shape or pixels.dtype != (np.uint8 if bits == 8 else np.uint16):
        raise ValueError(f"{pixels.dtype} pixels of shape {pixels.shape}, expected {bits} bits")
    out[...] = pixels
    significant = extra.get(b"sBIT", bytes([bits]))[:1]
    low = significant != bytes([bits])
    remark = (
        f"PNG's sBIT {significant[0] if significant else '?'}: not taken for the scale, nor by CellProfiler" if low else ""
    )
    return Grey(FULL_SCALE_8 if bits == 8 else None, remarks=(remark,) if remark else ())
