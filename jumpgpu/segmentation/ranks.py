"""An image's values in 255 levels and fewer, as centrosome ranks them for its medians: kernels/segmentation/quicksort.cu."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..gpu.device import Device, on_a_core

WAITING = 160  # quicksort.cu
LEVELS = 255
COUNTS = 65536  # sort_pixels.cu
SORT_SCRATCH = 33, 2048  # bins, and those of an image's parts (sort_pixels.cu)


@on_a_core
def order_by_quicksort(values: torch.Tensor, device: Device, wanted: torch.Tensor | None = None) -> torch.Tensor:
    """Places of int32 [B, N] counts, the smallest first, of equals in the order of NumPy 1.23's argsort: int32 [B, N].

    With `wanted`, different values that rise (int32 [M]), only places of those are where the sort puts them.
    """
    b, n = values.shape
    order = device.empty(b, n, dtype=torch.int32)
    device.launch(
        "order_by_quicksort",
        b,
        value=values.contiguous(),
        wanted=device.zeros(1, dtype=torch.int32) if wanted is None else wanted.contiguous(),
        n=n,
        n_wanted=0 if wanted is None else wanted.numel(),
        order=order,
        stack=device.empty(b, WAITING, dtype=torch.int32),
    )
    return order


def ranked(values: NDArray[Any], device: Device) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The level of each value [N], and what the levels stand for.

    The rarest values are merged with the next ones, until few enough are left; of those that stand next to each other not
    all at once.
    """
    levels, table = np.unique(values, return_inverse=True)
    counts = np.bincount(table)
    while len(levels) > LEVELS:
        n = len(levels)
        order = order_by_quicksort(device.tensor(counts[None].astype(np.int32)), device)[0].cpu().numpy()
        rare = np.zeros(n + 1, bool)
        rare[order[: n + 1 - LEVELS]] = True
        merged = rare[:-1] & ((np.arange(n) & 2 == 0) | ~rare[1:])
        merged[0] = False
        new = np.cumsum(~merged) - 1
        table, levels = new[table], levels[~merged]
        counts = np.bincount(new, counts).astype(np.int64)
    return table.astype(np.uint8), levels


def ascending(planes: torch.Tensor, device: Device, scale: float = math.nan) -> torch.Tensor:
    """Each row's values in order, float32 [rows, n], none negative; `scale`: what counts up to 65535 may be divided by."""
    if device.library_sort:  # a row at a time: a sort takes four times its values' memory
        return torch.stack([row.sort().values for row in planes])
    rows, n = planes.shape
    if 0 < scale < COUNTS and n >= COUNTS:
        output, odd = in_order_of_counts(planes, scale, device)
        if not bool(odd.any()):
            return output
    output, other = torch.empty_like(planes), torch.empty_like(planes)
    counts = device.empty(rows, *SORT_SCRATCH, dtype=torch.uint32)
    device.launch("sort_pixels", rows, values=planes, n=n, sorted=output, other=other, counts=counts)
    return output


def in_order_of_counts(planes: torch.Tensor, scale: float, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of whole counts, up to 65535, over a scale, float32 [rows, n]: in order; and 1 for each in which a value is none
    such, int32 [rows], whose order is of no meaning."""
    rows, n = planes.shape
    output, other = torch.empty_like(planes), device.empty(rows, dtype=torch.int32)
    counts = device.empty(rows, 2, COUNTS, dtype=torch.uint32)
    device.launch("sort_counts", rows, values=planes, n=n, scale=scale, sorted=output, counts=counts, other=other)
    return output, other
