"""Cells by distance from their seeds, plain or weighed by the image (CellProfiler's Distance - N and Propagation)."""

from typing import Any

import torch

from ..gpu.device import Device
from .planes import Planes

MIN_WEIGHT = 1e-150  # its square is added to squares of the image's differences, which it does not change
FARTHEST = 1000  # pixels that Distance - N may reach
STRIP = 256  # columns of a block of nearest_in_column (expand.cu)
BAND = 64  # and its rows, more where it must look far beyond them
TILE = 28  # rows and columns of a tile (kernels/segmentation/propagate.cu: TILE)
TILE_BLOCK = 32  # threads of the kernels that take a tile per block
ROUNDS = 6  # over all tiles; six real fields need 3 or 4


def grow_by_distance(seeds: torch.Tensor, reach: int, device: Device) -> torch.Tensor:
    """Labels int32 [B, H, W] of the nearest seed pixel within `reach` pixels; of equals the leftmost, then the topmost."""
    if not 0 <= reach <= FARTHEST:
        raise ValueError(f"segmentation.cells.distance is {reach}; it may be 0 to {FARTHEST} pixels")
    b, h, w = seeds.shape
    rise = device.empty(b, h, w, dtype=torch.int16)
    labels = device.empty(b, h, w, dtype=torch.int32)
    band = max(BAND, 4 * reach)
    blocks = b * -(-w // STRIP) * -(-h // band)
    device.launch("nearest_in_column", blocks, seeds=seeds, height=h, width=w, reach=reach, band=band, rise=rise)
    device.launch("grow_by_distance", b * h, seeds=seeds, rise=rise, width=w, reach=reach, labels=labels)
    return labels


def propagate(
    planes: Planes, mask: torch.Tensor, seeds: torch.Tensor, weight: float, device: Device, rounds: int = ROUNDS
) -> torch.Tensor:
    """Labels int32 [B, H, W] of the seed with the shortest way within the mask.

    Parameters
    ----------
    planes : float32 planes
        The image whose differences lengthen a step.
    mask : uint8 [B, H, W]
        Where cells may be.
    seeds : int32 [B, H, W]
        They keep their label, in the mask or out of it.
    weight : float
        What a step of one pixel costs beside the image's differences; 0 or more.
    rounds : int
        Over all tiles, before one block per field takes what is left; labels do not depend on it.
    """
    return propagate_distances(planes, mask, seeds, weight, device, rounds)[0]


def propagate_distances(
    planes: Planes, mask: torch.Tensor, seeds: torch.Tensor, weight: float, device: Device, rounds: int = ROUNDS
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `propagate` gives, and the length of each pixel's way, float64 [B, H, W]: 1e300 where none leads, -1 outside
    the mask."""
    if weight < 0:
        raise ValueError(f"segmentation.cells.regularization is {weight:g}; it must be 0 or more")
    weight = max(weight, MIN_WEIGHT)  # a way of no length would look like a seed
    b, h, w = seeds.shape
    step = device.empty(4, b, h, w, dtype=torch.float64)
    distance = device.empty(b, h, w, dtype=torch.float64)
    labels = device.empty(b, h, w, dtype=torch.int32)
    device.launch(
        "propagation_steps",
        b * h,
        values=planes.values,
        offset=planes.offset,
        stride=planes.stride,
        height=h,
        width=w,
        n_pixels=seeds.numel(),
        weight=weight,
        step=step,
    )
    down, across = -(-h // TILE), -(-w // TILE)
    due = device.zeros(b, down, across, dtype=torch.int32)
    result: dict[str, Any] = {"distance": distance, "labels": labels, "due": due}
    device.launch("propagate_start", b * h, mask=mask, seeds=seeds, height=h, width=w, **result)
    plane: dict[str, Any] = {"step": step, "height": h, "width": w, "n_pixels": seeds.numel(), **result}
    for _ in range(rounds):
        for colour in range(4):
            grid = b * ((down - colour // 2 + 1) // 2) * ((across - colour % 2 + 1) // 2)
            device.launch("propagate_tiles", grid, block=TILE_BLOCK, colour=colour, **plane)
    device.launch("propagate_rest", b, block=TILE_BLOCK, **plane)
    return labels, distance
