"""Branches of a skeleton around seed objects (CellProfiler MeasureObjectSkeleton), and the skeletons themselves.

Seeds are joined with the skeleton, hollowed to rings and thinned again, so that every branch leaves a ring. A pixel of
the skeleton
belongs to the seed that reaches it first along the skeleton.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from ..gpu.device import Device, kept_by_device, on_a_core
from ..segmentation.distance_transform import squared_distance
from ..segmentation.label import BACKGROUND, find_components
from ..segmentation.queue import spread_in_queue

MEASUREMENTS = ("NumberTrunks", "NumberNonTrunkBranches", "NumberBranchEnds", "TotalObjectSkeletonLength")
ONE = 2.0**24  # of lengths (skeleton.cu)
NEAR = 1.5  # pixels of way from a seed within which a branch point is a trunk's
FOURS = ((-1, 0), (0, -1), (0, 1), (1, 0))


def measure(skeleton: torch.Tensor, seeds: torch.Tensor, hole_size: int | None, device: Device) -> torch.Tensor:
    """Of every number up to the highest: trunks, branch points beyond them, ends, and the skeleton's length in pixels.

    Parameters
    ----------
    skeleton : bool [B, H, W]
    seeds : int32 [B, H, W]
    hole_size : pixels of the largest hole that is filled before the skeleton is thinned again; None: none

    Returns
    -------
    float64 [B, highest + 1, 4]; row 0 is of no meaning
    """
    maximum = 1 + (int(seeds.max()) if seeds.numel() else 0)
    wide = extreme(seeds, torch.maximum)
    centre = extreme(wide, torch.minimum) > 0
    joined = (skeleton | (wide > 0)) & ~centre
    if hole_size is not None:
        joined = fill(joined, ~centre, hole_size, device)
    joined = thin(joined, device)
    outside = joined & (wide == 0)
    of, way = spread_in_queue(joined, wide, device)
    sums = device.zeros(len(seeds), maximum, len(MEASUREMENTS), dtype=torch.int64)
    what, lengths = tables()
    device.launch(
        "skeleton_points",
        seeds.shape[0] * seeds.shape[1],
        points=(joined & (of != 0)).view(torch.uint8),
        outside=outside.view(torch.uint8),
        of=of,
        way=way,
        what=device.tensor(what),
        length=device.tensor(lengths),
        near_by=NEAR,
        height=seeds.shape[1],
        width=seeds.shape[2],
        capacity=maximum,
        sums=sums.view(torch.uint64),
    )
    result = sums.double()
    result[..., 3] /= ONE
    return result


def extreme(labels: torch.Tensor, pick: Callable[..., torch.Tensor]) -> torch.Tensor:
    """The greatest, or least, label of each pixel's 3 x 3 neighbourhood within the image."""
    for axis in (1, 2):
        n = labels.shape[axis]
        best = labels.clone()
        before, after = labels.narrow(axis, 0, n - 1), labels.narrow(axis, 1, n - 1)
        for at, other in ((1, before), (0, after)):
            part = best.narrow(axis, at, n - 1)
            pick(part, other, out=part)
        labels = best
    return labels


def fill(joined: torch.Tensor, allowed: torch.Tensor, size: int, device: Device) -> torch.Tensor:
    """Pieces of the background (in four directions, where it is allowed) of at most `size` pixels that the border does
    not touch."""
    free = allowed & ~joined
    root = find_components((~free).to(torch.uint8), BACKGROUND, device).root.flatten(1).long()
    inside = root >= 0
    area = torch.zeros(root.shape, dtype=torch.int32, device=root.device)
    area.scatter_add_(1, root.clamp(min=0), inside.to(torch.int32))
    small = inside & (area.gather(1, root.clamp(min=0)) <= size)
    return joined | small.view(joined.shape)


def thin(mask: torch.Tensor, device: Device) -> torch.Tensor:
    """A skeleton of a bool [B, H, W] mask: pixels go in the order of their distance to the background, unless that parts
    what is
    joined or shortens a line (centrosome's skeletonize)."""
    fields, height, width = mask.shape
    corners = 9 - count_around(mask)
    # Where nothing is background SciPy's distances are from beyond the image; such a field has no meaning as a skeleton
    # either.
    squared = squared_distance(mask.to(torch.int32).contiguous(), device, outside=False)
    ties = tiebreaker(height, width, device)
    order, count = [], []
    for field in range(fields):
        place = mask[field].flatten().nonzero()[:, 0]
        by = place[torch.argsort(ties[place], stable=True)]
        by = by[torch.argsort(corners[field].flatten()[by], stable=True)]
        by = by[torch.argsort(squared[field].flatten()[by], stable=True)]
        order.append(by.to(torch.int32))
        count.append(len(by))
    start = torch.tensor(np.cumsum([0, *count]), dtype=torch.int64)
    whole = torch.cat(order) if sum(count) else device.zeros(1, dtype=torch.int32)
    return thin_in_order(mask.to(torch.uint8), whole, device.tensor(start), device) > 0


@on_a_core
def thin_in_order(mask: torch.Tensor, order: torch.Tensor, start: torch.Tensor, device: Device) -> torch.Tensor:
    """What is left of a uint8 [B, H, W] mask: of each field's pixels, from `start` on in `order`, those that must stay."""
    fields, height, width = mask.shape
    points = mask.clone(memory_format=torch.contiguous_format)
    device.launch(
        "thin_in_order",
        fields,
        order=order,
        start=start,
        table=device.tensor(keep_table()),
        height=height,
        width=width,
        points=points,
    )
    return points


def count_around(mask: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W]: how many of a pixel's neighbourhood are set in a bool mask, itself too; beyond the image none is."""
    for axis in (1, 2):
        n = mask.shape[axis]
        counts = mask.to(torch.uint8, copy=True)
        counts.narrow(axis, 1, n - 1).add_(mask.narrow(axis, 0, n - 1))
        counts.narrow(axis, 0, n - 1).add_(mask.narrow(axis, 1, n - 1))
        mask = counts
    return mask


@kept_by_device
def tiebreaker(height: int, width: int, device: Device) -> torch.Tensor:
    """The fixed random numbers by which centrosome settles which of equals goes first: int64 [H W]."""
    return device.tensor(np.random.RandomState(0).permutation(np.arange(height * width)))


@cache
def keep_table() -> np.ndarray:
    """uint8 [512]: whether a set pixel stays, by its neighbourhood: because it ends a line, or joins what would fall
    apart."""
    result = np.zeros(512, np.uint8)
    for i in range(512):
        if i & 16:
            result[i] = bin(i).count("1") < 3 or pieces(i, 8) != pieces(i & ~16, 8)
    return result


def pieces(index: int, connectivity: int) -> int:
    """Connected pieces of a 3 x 3 pattern, in four or eight directions."""
    left = {divmod(bit, 3) for bit in range(9) if index >> bit & 1}
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)] if connectivity == 8 else list(FOURS)
    result = 0
    while left:
        result += 1
        due = [left.pop()]
        while due:
            y, x = due.pop()
            near = {(y + dy, x + dx) for dy, dx in steps} & left
            left -= near
            due += near
    return result


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """What a pixel of a skeleton is, by its neighbourhood, uint8 and int32 [512] as skeleton_points takes them: a branch
    point, an end, and how many trunks it is of the branches that leave it; its share of length, in single precision: half of
    the steps to its neighbours, but for a corner's where the way around it is there too."""
    what, length = np.zeros(512, np.uint8), np.zeros(512, np.int32)
    for i in range(512):
        if not i & 16:
            continue
        around = i & ~16
        branches = pieces(around, 4)
        what[i] = (branches > 2) + 2 * (bin(around).count("1") < 2) + 4 * max(branches - 2, 0)
        own = np.float32(0)
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                if (y, x) == (0, 0) or not i >> (3 * (y + 1) + x + 1) & 1:
                    continue
                beside = [(y, 0), (0, x)] if y and x else []
                if not any(i >> (3 * (dy + 1) + dx + 1) & 1 for dy, dx in beside):
                    own += np.float32(np.sqrt(y * y + x * x) / 2)
        length[i] = int(float(own) * ONE)
    return what, length


def thin_by_table(mask: torch.Tensor, device: Device) -> torch.Tensor:
    """The skeleton of a bool [B, H, W] mask by scikit-image's skeletonize (CellProfiler MorphologicalSkeleton)."""
    return thin_in_turns(mask.to(torch.uint8), device) > 0


@on_a_core
def thin_in_turns(mask: torch.Tensor, device: Device) -> torch.Tensor:
    """What is left of a uint8 [B, H, W] mask when no turn of Zhang's takes a pixel any more."""
    fields, height, width = mask.shape
    points = mask.clone(memory_format=torch.contiguous_format)
    device.launch(
        "thin_in_turns",
        fields,
        table=device.tensor(turns_table()),
        height=height,
        width=width,
        points=points,
        due=torch.empty_like(points),
        list=device.empty(fields, 3, height, width, dtype=torch.int32),
    )
    return points


RING = (0, 1, 2, 5, 8, 7, 6, 3)  # bits of a neighbourhood around its middle, from the upper left corner
APART = {  # neighbours, by their place on the ring, of pixels that go otherwise in scikit-image than by Zhang's rule
    0: "07 45",
    1: "01 12 23 013 017 057 123 127 167 1267",
    2: "34 56 67 134 345 356 457 567 2356",
    3: "13 17 35 57",
}


@cache
def turns_table() -> np.ndarray:
    """uint8 [512]: bit 0 that a set pixel goes in the first turn, bit 1 in the second, by its neighbourhood.

    By Zhang's rule it goes where two to six neighbours are set, all in a row around it, and, of the first turn, one of
    those above, right and below is not and one of right, below and left; of the second, of above, right and left, and of
    above, below and left.
    """
    goes = {tuple(map(int, places)): turns for turns, all_ in APART.items() for places in all_.split()}
    result = np.zeros(512, np.uint8)
    for i in range(512):
        ring = [i >> bit & 1 for bit in RING]
        places = tuple(k for k in range(8) if ring[k])
        above, right, below, left = ring[1::2]
        first = not (above & right & below or right & below & left)
        second = not (above & right & left or above & below & left)
        in_a_row = sum(a < b for a, b in zip(ring, ring[1:] + ring[:1], strict=True)) == 1
        by_rule = (first + 2 * second) * (in_a_row and 2 <= sum(ring) <= 6)
        result[i] = goes.get(places, by_rule) if i & 16 else 0
    return result
