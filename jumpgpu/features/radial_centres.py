"""Rings of objects around the centres (or edges) of other objects (CellProfiler MeasureObjectIntensityDistribution).

A pixel belongs to the centre that reaches it first by way of the objects' pixels; an object that none reaches takes the one
nearest to its centroid, as the crow flies. Rings are scaled to the object, as those of `radial_distribution`, or reach
out to a radius, with one more for what lies beyond.
"""

import torch

from ..gpu.device import Device
from ..segmentation.queue import spread_in_queue
from .distance_map import depths
from .objects import ObjectBatch
from .radial_distribution import BLOCKS, sums_of_rings

Centres = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def find_centres(labels: torch.Tensor, others: torch.Tensor, device: Device, *, edges: bool = False) -> Centres:
    """Which centre each pixel of the objects belongs to, and how far it is.

    Parameters
    ----------
    labels, others : int32 [B, H, W]
        The objects that are measured, and those whose centres are meant.
    edges : bool
        Ways begin at the others' edges, and their own pixels are in no ring.

    Returns
    -------
    of : int32 [B, H, W], the number of the other object, 0 for none
    way : float64 [B, H, W], pixels
    centre : int32 [B, most + 1, 2], y and x by number
    """
    fields, height, width = labels.shape
    maximum = int(others.max()) if others.numel() else 0
    flat = others.flatten(1).long()
    ones = torch.ones(flat.shape, dtype=torch.float64, device=flat.device)
    y = torch.arange(height, dtype=torch.float64, device=flat.device).repeat_interleave(width).expand_as(ones)
    x = torch.arange(width, dtype=torch.float64, device=flat.device).repeat(height).expand_as(ones)
    sums = [
        torch.zeros(fields, maximum + 1, dtype=torch.float64, device=flat.device).scatter_add_(1, flat, v)
        for v in (ones, y, x)
    ]
    centroid = torch.stack([sums[1] / sums[0], sums[2] / sums[0]], 2)  # whole numbers: any order of sums gives the same
    there = sums[0] > 0
    there[:, 0] = False
    centre = torch.where(there[..., None], (centroid + 0.5).nan_to_num(0).to(torch.int32), 0).to(torch.int32)
    seeds = others
    if not edges:
        seeds = torch.zeros_like(others)
        b, number = there.nonzero(as_tuple=True)
        place = centre[b, number].long()
        seeds[b, place[:, 0], place[:, 1]] = number.to(torch.int32)
    inside = labels > 0
    of, way = spread_in_queue(inside, seeds, device)
    of = torch.where(inside, of, 0)
    for field in range(fields):
        nearest_centres(labels[field], of[field], way[field], centre[field], there[field])
    return (torch.where(others > 0, 0, of) if edges else of).contiguous(), way, centre.contiguous()


def nearest_centres(
    labels: torch.Tensor, of: torch.Tensor, way: torch.Tensor, centre: torch.Tensor, there: torch.Tensor
) -> None:
    """Pixels that no centre reached take the one nearest to their object's centroid, in place."""
    missing = (labels > 0) & (of == 0)
    numbers = torch.unique(labels[missing]).long()
    known = there.nonzero()[:, 0]
    if not len(numbers) or not len(known):
        return
    y, x = labels.nonzero(as_tuple=True)
    mine = labels[y, x].long()
    sums = torch.zeros(3, 1 + int(mine.max()), dtype=torch.float64, device=labels.device)  # whole numbers, in any order
    n, *middles = (
        total.scatter_add_(0, mine, v.double()) for total, v in zip(sums, (torch.ones_like(y), y, x), strict=True)
    )
    middle = torch.stack([total / n for total in middles], 1)[numbers]
    apart = middle[:, None, :] - centre[known].double()
    best = known[((apart * apart).sum(2)).argmin(1)]
    chosen = torch.zeros(int(numbers.max()) + 1, dtype=torch.int64, device=labels.device)
    chosen[numbers] = best
    number = chosen[labels[missing].long()]
    of[missing] = number.to(torch.int32)
    y, x = missing.nonzero(as_tuple=True)
    from_centre = torch.stack([y, x], 1).double() - centre[number].double()
    way[missing] = torch.sqrt((from_centre * from_centre).sum(1))


def measure(batch: ObjectBatch, centres: Centres, rings: int, reach: int, device: Device) -> torch.Tensor:
    """float64 [rows, C, 3, rings + 1]: FracAtD, MeanFrac, RadialCV, of each ring and at last of what lies beyond.

    `reach` is the outermost ring's radius in pixels; 0: rings are scaled to the object, and nothing lies beyond.
    """
    objects = batch.objects
    of, way, centre = centres
    _, height, width = objects.shape
    depth = depths(batch, device)
    ring = device.empty(depth.n_map, dtype=torch.uint8)
    device.launch(
        "radial_centre_rings",
        device.scratch_blocks(objects.rows, 0, per_core=2, maximum=BLOCKS),
        box=objects.box,
        schedule=objects.schedule,
        map_start=depth.map_start,
        squared=depth.squared,
        field=objects.field,
        of=of,
        way=way,
        centre=centre,
        rows=objects.rows,
        cells=objects.n,
        maximum=centre.shape[1],
        height=height,
        width=width,
        rings=rings,
        reach=reach,
        ring=ring,
    )
    return sums_of_rings(batch, depth, ring, rings + 1, device)
