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


# A pixel's eight neighbours: rows and columns away, which of the four steps leads there, and whether that is stored there.
AROUND = (
    *((0, 1, 0, False), (0, -1, 0, True), (1, -1, 1, False), (-1, 1, 1, True)),
    *((1, 0, 2, False), (-1, 0, 2, True), (1, 1, 3, False), (-1, -1, 3, True)),
)


def as_queued(labels: torch.Tensor, distance: torch.Tensor, step: torch.Tensor, seeds: torch.Tensor) -> None:
    """Ways of one length as centrosome's queue takes them, in place: a pixel has the label of that neighbour whose own way
    is shortest. Only pixels beside another label can differ, and what hangs on them. Of several such neighbours the lowest
    label counts; the queue begins as a list that is no heap, and may take another (docs/limits.md).
    """
    height, width = labels.shape[1:]
    label, d, cost, seed = labels.view(-1), distance.view(-1), step.view(4, -1), seeds.reshape(-1)
    edge = torch.zeros_like(labels, dtype=torch.bool)
    for a, b in (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(None), slice(None), slice(1, None)), (slice(None), slice(None), slice(None, -1))),
        ((slice(None), slice(1, None), slice(1, None)), (slice(None), slice(None, -1), slice(None, -1))),
        ((slice(None), slice(1, None), slice(None, -1)), (slice(None), slice(None, -1), slice(1, None))),
    ):
        apart = (labels[a] != labels[b]) & (labels[a] > 0) & (labels[b] > 0)
        edge[a] |= apart
        edge[b] |= apart
    todo = edge.view(-1).nonzero()[:, 0]
    for _ in range(height * width):
        todo = todo[(seed[todo] == 0) & (d[todo] >= 0) & (label[todo] > 0)]
        if not len(todo):
            return
        y, x, own = todo // width % height, todo % width, d[todo]
        nearest, chosen = torch.full_like(own, torch.inf), label[todo]
        for dy, dx, which, stored_there in AROUND:
            inside = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
            there = torch.where(inside, todo + dy * width + dx, todo)
            theirs, name = d[there], label[there]
            leads = inside & (theirs >= 0) & (name > 0) & (theirs + cost[which][there if stored_there else todo] == own)
            better = leads & ((theirs < nearest) | ((theirs == nearest) & (name < chosen)))
            nearest, chosen = torch.where(better, theirs, nearest), torch.where(better, name, chosen)
        changed = todo[chosen != label[todo]]
        label[todo] = chosen
        y, x = changed // width % height, changed % width
        beside = [changed + dy * width + dx for dy, dx, *_ in AROUND]
        fits = [(y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width) for dy, dx, *_ in AROUND]
        todo = torch.cat([q[ok] for q, ok in zip(beside, fits, strict=True)]).unique()


def propagate_distances(
    planes: Planes,
    mask: torch.Tensor,
    seeds: torch.Tensor,
    weight: float,
    device: Device,
    rounds: int = ROUNDS,
    *,
    queued: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `propagate` gives, and the length of each pixel's way, float64 [B, H, W]: 1e300 where none leads, -1 outside
    the mask. `queued`: of ways of one length that counts which a queue takes first (`as_queued`), not the lowest label."""
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
    if queued:
        as_queued(labels, distance, step, seeds)
    return labels, distance
