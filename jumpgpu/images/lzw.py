"""TIFF's LZW strips decoded on the device, from the compressed bytes (lzw.cu).

A strip is cut at its clear codes, of which a full table leaves one every 5.7 KB, and the pieces are decoded side by side.
On the CPU `device.decode_lzw` is the faster way, a strip per thread.
"""

from typing import Any

import numpy as np
import torch

from ..gpu.device import Device

SEGMENT = 5687  # bytes of codes that fill the table
BEYOND = 2  # bytes that may be read behind a strip
RUNS = 128  # of a segment's codes (lzw.cu)


def decode_strips(data: torch.Tensor, strips: np.ndarray, out: torch.Tensor, status: torch.Tensor, device: Device) -> None:
    """Decode strips of LZW into `out`.

    Parameters
    ----------
    data : uint8 [D], on the device, `BEYOND` bytes longer than the last strip's end
    strips : int64 [S, 4], on the host
        Of each: where its codes begin in `data`, how many bytes they are, where its bytes begin in `out`, how many they are;
        within `data` and `out`, which the caller has checked.
    out : uint8 [...], on the device
    status : int64 [S], on the device
        Becomes 0, or 1 for a strip whose codes do not stand for exactly its bytes, or that has more segments than
        `segments_of` says; its part of `out` is as it was.
    """
    count = len(strips)
    if not count:
        return
    segments = segments_of(strips[:, 1])
    capacity = np.concatenate([[0], segments.cumsum()])
    n = int(capacity[-1])
    shared: dict[str, Any] = {
        "strips": device.tensor(np.ascontiguousarray(strips, np.int64)),
        "capacity": device.tensor(capacity.astype(np.int64)),
        "result": device.empty(count, dtype=torch.int32),
    }
    codes: dict[str, Any] = {
        "data": data,
        "start": device.empty(n, dtype=torch.int64),
        "codes": device.empty(n, dtype=torch.int32),
    }
    strip_of = device.tensor(np.repeat(np.arange(count, dtype=np.int32), segments))
    length, runs = device.empty(n, dtype=torch.int32), device.empty(n, RUNS, dtype=torch.int32)
    place = device.empty(n, dtype=torch.int64)
    device.launch("lzw_segments", count, **shared, **codes)
    device.launch("lzw_lengths", n, **shared, **codes, strip_of=strip_of, bytes=length, runs=runs)
    device.launch("lzw_places", count, **shared, bytes=length, place=place, status=status)
    device.launch("lzw_bytes", n, **shared, **codes, strip_of=strip_of, runs=runs, place=place, status=status, out=out)


def segments_of(n_bytes: np.ndarray) -> np.ndarray:
    """Room for the segments of strips of so many bytes of codes: half as many again as full ones, and some."""
    return n_bytes * 3 // (2 * SEGMENT) + 8
