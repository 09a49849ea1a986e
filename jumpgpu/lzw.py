"""TIFF's LZW strips decoded on the device, from the compressed bytes (lzw.cu).

A strip is cut at its clear codes, of which a full table leaves one every 5.7 KB, and the pieces are decoded side by side.
On the CPU `device.decode_lzw` is the faster way, a strip a thread.
"""

from typing import Any

import torch

from .device import Device

SEGMENT = 5687  # bytes of codes that fill the table


def decode_strips(data: torch.Tensor, strips: torch.Tensor, out: torch.Tensor, device: Device, most: int) -> torch.Tensor:
    """Decode strips of LZW into `out`.

    Parameters
    ----------
    data : uint8 [D], on the device
    strips : int64 [S, 4], on the device
        Of each: where its codes begin in `data`, how many bytes they are, where its bytes begin in `out`, how many they are;
        within `data` and `out`, which the caller has checked.
    out : uint8 [...], on the device
    most : segments that a strip may have; a strip with more is not decoded. `segments_of` gives one for a strip's size

    Returns
    -------
    int32 [S] : 0, or 1 for a strip whose codes do not stand for exactly its bytes; its part of `out` is as it was.
    """
    count = len(strips)
    start = device.empty(count, most, dtype=torch.int64)
    codes, found = device.empty(count, most, dtype=torch.int32), device.empty(count, dtype=torch.int32)
    length = device.empty(count, most, dtype=torch.int64)
    status = device.zeros(count, dtype=torch.int32)
    if not count:
        return status
    segments: dict[str, Any] = {"data": data, "strips": strips, "most": most, "start": start, "codes": codes, "found": found}
    device.launch("lzw_segments", count, **segments)
    device.launch("lzw_lengths", count * most, bytes=length, **segments)
    wrong = (found < 1) | (found > most) | (length < 0).any(1) | (length.sum(1) != strips[:, 3])
    status = wrong.to(torch.int32)
    place = length.cumsum(1) - length
    device.launch("lzw_bytes", count * most, place=place, status=status, out=out, **segments)
    return status


def segments_of(n_bytes: int) -> int:
    """Room for the segments of a strip of so many bytes of codes: twice as many as full ones, and some."""
    return 2 * n_bytes // SEGMENT + 8
