"""Branches of a skeleton around seed objects (CellProfiler MeasureObjectSkeleton), and the skeletons themselves.

Seeds are joined with the skeleton, hollowed to rings and thinned again, so that every branch leaves a ring. A pixel of
the skeleton
belongs to the seed that reaches it first along the skeleton.
"""

from functools import cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device, kept_by_device, on_a_core
from ..segmentation.distance_transform import squared_distance
from ..segmentation.label import BACKGROUND, find_components
from ..segmentation.queue import spread_in_queue

MEASUREMENTS = ("NumberTrunks", "NumberNonTrunkBranches", "NumberBranchEnds", "TotalObjectSkeletonLength")
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
    wide = extreme(seeds, maximum=True)
    centre = extreme(wide, maximum=False) > 0
    joined = (skeleton | (wide > 0)) & ~centre
    if hole_size is not None:
        joined = fill(joined, ~centre, hole_size, device)
    joined = thin(joined, device)
    outside = joined & (wide == 0)
    of, way = spread_in_queue(joined, wide, device)
    joined = joined & (of != 0)
    index = neighbourhood(joined)
    branch = lookup(index, "branch_point")
    odd = joined[:, :-1, :-1] & joined[:, 1:, :-1] & joined[:, :-1, 1:] & joined[:, 1:2, 1:2]  # as CellProfiler writes it
    branch[:, :-1, :-1] |= odd
    branch[:, 1:, 1:] |= odd
    extra = torch.tensor([0, 0, 0, 1, 2], device=seeds.device)[lookup(index, "branches").long()]
    extra = torch.where(extreme(outside.to(torch.int32), maximum=True) > 0, extra, 0)
    ends = lookup(index, "end")
    near = torch.where(way > NEAR, 0, of)
    far = torch.where(near > 0, 0, of)
    result = torch.zeros(len(seeds), maximum, 4, dtype=torch.float64, device=seeds.device)
    for i, (values, labels) in enumerate(((extra, near), (branch, far), (ends, far))):
        result[..., i].scatter_add_(1, labels.flatten(1).long(), values.flatten(1).double())
    own = torch.where(outside, of, 0)
    result[..., 3].scatter_add_(1, own.flatten(1).long(), length(own).flatten(1))
    return result


def extreme(labels: torch.Tensor, *, maximum: bool) -> torch.Tensor:
    """The greatest, or least, label of each pixel's 3 x 3 neighbourhood within the image."""
    _, h, w = labels.shape
    best = labels
    for axis, n in ((1, h), (2, w)):
        at = torch.arange(n, device=labels.device)
        before, after = best.index_select(axis, (at - 1).clamp(min=0)), best.index_select(axis, (at + 1).clamp(max=n - 1))
        pick = torch.maximum if maximum else torch.minimum
        best = pick(pick(before, after), best)
    return best


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
    corners = 9 - neighbourhood_count(mask)
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


def neighbourhood(mask: torch.Tensor) -> torch.Tensor:
    """int64 [B, H, W]: bit 3 (dy + 1) + dx + 1 says whether the pixel at (dy, dx) is set; beyond the image none is."""
    padded = torch.nn.functional.pad(mask.to(torch.int64), (1, 1, 1, 1))
    _, h, w = mask.shape
    result = torch.zeros_like(mask, dtype=torch.int64)
    for bit in range(9):
        y, x = divmod(bit, 3)
        result |= padded[:, y : y + h, x : x + w] << bit
    return result


def neighbourhood_count(mask: torch.Tensor) -> torch.Tensor:
    """int32 [B, H, W]: how many of a set pixel's neighbourhood are set, itself too; 0 where it is not."""
    table = torch.tensor([bin(i).count("1") if i & 16 else 9 for i in range(512)], dtype=torch.int32, device=mask.device)
    return table[neighbourhood(mask)]


def lookup(index: torch.Tensor, what: str) -> torch.Tensor:
    return torch.from_numpy(tables()[what]).to(index.device)[index]


def length(labels: torch.Tensor) -> torch.Tensor:
    """float64 [B, H, W]: half of the steps from each pixel to its neighbours of the same label; a corner's step does not
    count where
    the way around it is there too."""
    padded = torch.nn.functional.pad(labels, (1, 1, 1, 1))
    _, h, w = labels.shape
    index = torch.zeros(labels.shape, dtype=torch.int64, device=labels.device)
    for bit in range(9):
        y, x = divmod(bit, 3)
        index |= ((padded[:, y : y + h, x : x + w] == labels) & (labels > 0)).to(torch.int64) << bit
    return lookup(index, "length").double()


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
def tables() -> dict[str, Any]:
    """What a pixel of a skeleton is, by its neighbourhood: a branch point, an end; how many branches leave it; its share
    of length."""
    branch, end = np.zeros(512, bool), np.zeros(512, bool)
    branches, lengths = np.zeros(512, np.uint8), np.zeros(512, np.float32)
    for i in range(512):
        if not i & 16:
            continue
        around = i & ~16
        branches[i] = pieces(around, 4)
        end[i] = bin(around).count("1") < 2
        branch[i] = branches[i] > 2
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                if (y, x) == (0, 0) or not i >> (3 * (y + 1) + x + 1) & 1:
                    continue
                beside = [(y, 0), (0, x)] if y and x else []
                if not any(i >> (3 * (dy + 1) + dx + 1) & 1 for dy, dx in beside):
                    lengths[i] += np.float32(np.sqrt(y * y + x * x) / 2)
    return {"branch_point": branch, "end": end, "branches": branches, "length": lengths}


def thin_by_table(mask: torch.Tensor, device: Device) -> torch.Tensor:
    """The skeleton of a bool [B, H, W] mask by scikit-image's skeletonize, on the host (CellProfiler
    MorphologicalSkeleton)."""
    from skimage.morphology import skeletonize

    return device.tensor(np.stack([skeletonize(plane) for plane in mask.cpu().numpy()]))
