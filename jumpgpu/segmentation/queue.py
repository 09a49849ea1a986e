"""Floods from one queue, with CellProfiler's order among equals: kernels/segmentation/queue.cu.

`watershed` and `propagate` give the same where no two heights, or ways, are equal, and by many threads; these are for
images whose
equals matter, such as raw ones of whole counts.
"""

import torch

from ..gpu.device import Device, on_a_core

ENTERS = 3  # times that a pixel enters the queue of ways at most


@on_a_core
def flood_in_queue(
    values: torch.Tensor, mask: torch.Tensor, seeds: torch.Tensor, device: Device, *, corners: bool = True
) -> torch.Tensor:
    """scikit-image 0.18.3's watershed of float64 or float32 [B, H, W] heights in a bool or uint8 mask, from int32 seeds, in
    eight directions, or without `corners` in four:
    int32 [B, H, W]. Heights may be float32, which the queue has in half the room."""
    b, h, w = values.shape
    singles = values.dtype == torch.float32 and not bool(values.isnan().any())
    labels = device.empty(b, h, w, dtype=torch.int32)
    device.launch(
        "flood_in_queue",
        b,
        value=values.double().contiguous(),
        mask=mask.to(torch.uint8).contiguous(),
        seeds=seeds.contiguous(),
        height=h,
        width=w,
        directions=8 if corners else 4,
        singles=int(singles),
        labels=labels,
        heap=device.empty(b, 2 * h * w, dtype=torch.float64),
    )
    return labels


@on_a_core
def spread_in_queue(mask: torch.Tensor, seeds: torch.Tensor, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """centrosome's propagate over an image that is the same everywhere.

    Parameters
    ----------
    mask : bool or uint8 [B, H, W]
    seeds : int32 [B, H, W]
        They keep their label, in the mask or out of it, and spread within the mask only.

    Returns
    -------
    labels : int32 [B, H, W], of the seed with the shortest way, steps being 1 or the root of 2 pixels
    way : float64 [B, H, W], pixels; -1 where none leads
    """
    b, h, w = seeds.shape
    labels, way = device.empty(b, h, w, dtype=torch.int32), device.empty(b, h, w, dtype=torch.float64)
    device.launch(
        "spread_in_queue",
        b,
        mask=mask.to(torch.uint8).contiguous(),
        seeds=seeds.contiguous(),
        height=h,
        width=w,
        capacity=ENTERS * h * w,
        labels=labels,
        way=way,
        heap=device.empty(b, 2 * ENTERS * h * w, dtype=torch.float64),
    )
    return labels, way
