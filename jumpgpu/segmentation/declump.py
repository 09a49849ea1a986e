"""Touching nuclei are told apart: a seed for each, and the watershed between seeds (CellProfiler IdentifyPrimaryObjects)."""

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device, blocks, kept_by_device
from ..gpu.list_capacity import Capacity
from ..settings.config import PrimarySettings
from .declump_low import low_resolution_maxima
from .distance_transform import squared_distance
from .gaussian import gaussian_taps, smooth, smooth_valid
from .label import BACKGROUND, FOREGROUND, Components, find_components, label_components, number_points
from .queue import flood_in_queue, spread_in_queue
from .watershed import flood

JITTER = 0.001  # pixels: the random numbers that part equal distances
WIDE_BLOCK = 512  # threads of the kernels that give a whole field to one block
BAND = 4  # rows per block (kernels/segmentation/declump.cu, contested.cu: BAND)
INTENSITY, DISTANCE, JITTERED = range(3)  # depths of list_contested


def separate(
    images: torch.Tensor,
    mask: torch.Tensor,
    settings: PrimarySettings,
    device: Device,
    capacity: Capacity | None = None,
    *,
    single: bool = False,
    valid: torch.Tensor | None = None,
    queue: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects of the mask, numbered by their seeds in raster order.

    Parameters
    ----------
    images : float64 [B, H, W]
        What was thresholded.
    mask : uint8 [B, H, W]
    room : gives the list of contested pixels its length; where None, the device is asked, which waits for it
    single : the images are float32 values, and are smoothed and inverted in float32
    valid : bool [B, H, W], pixels that count in smoothing; None: all
    queue : pixels of equal depth go in the order in which CellProfiler's queue has them, which one thread per field follows

    Returns
    -------
    labels : int32 [B, H, W]
    counts : int64 [B]
    """
    if settings.declump == "none" or settings.dividing_lines == "none":
        return label_components(mask, device)
    by_shape = "shape" in (settings.declump, settings.dividing_lines)
    components = find_components(mask, FOREGROUND | BACKGROUND if by_shape else FOREGROUND, device)
    squared = None
    if by_shape:
        # CellProfiler fills holes for the distances alone when it is told never to fill them.
        filled = settings.declump == "shape" and settings.fill_holes == "never"
        inside = components.filled if filled else (mask != 0).to(torch.int32)
        squared = squared_distance(inside, device, outside=False)
    number, counts = find_seeds(images, mask, components, squared, settings, device, single, valid)
    if settings.dividing_lines == "propagate":
        return spread_in_queue(mask, number, device)[0], counts
    labels, contested = single_seeds(mask, components, number, device)
    if settings.dividing_lines == "intensity":
        seen = (
            1.0 - (1.0 - images.float()).double() if single else images
        )  # the valleys of 1 - image, as float32 tells them apart
        landscape: dict[str, Any] = {"image": seen, "kind": INTENSITY}
    else:
        landscape = {"squared": squared, "kind": JITTERED if settings.declump == "shape" else DISTANCE}
    if queue:
        if settings.dividing_lines == "intensity":
            seen = 1.0 - (images.float() if single else images)
        else:
            seen = valleys(squared, settings, device)
        return flood_in_queue(seen, mask, number, device), counts
    labels += flood(contested_keys(contested, landscape, device, capacity), number, device)
    return labels, counts


def valleys(squared: torch.Tensor | None, settings: PrimarySettings, device: Device) -> torch.Tensor:
    """Less the distance, from the least of the field on: float64 [B, H, W], as CellProfiler has it."""
    assert squared is not None
    distance = torch.sqrt(squared.double())
    if settings.declump == "shape":
        distance = distance + jitter(*squared.shape[1:], device)
    return -distance + distance.flatten(1).amax(1).view(-1, 1, 1)


def fill_small_holes(mask: torch.Tensor, settings: PrimarySettings, device: Device) -> torch.Tensor:
    """The mask with its holes of less than max_diameter^2 pixels filled: uint8 [B, H, W]."""
    root = find_components(mask, BACKGROUND, device).root.view(len(mask), -1).long()
    ones = (root >= 0).to(torch.int32)
    area = torch.zeros(root.shape, dtype=torch.int32, device=root.device).scatter_add_(1, root.clamp_min(0), ones)
    small = (area.gather(1, root.clamp_min(0)) < settings.max_diameter**2) & (root >= 0)
    return mask | small.view(mask.shape).to(torch.uint8)


def find_seeds(
    images: torch.Tensor,
    mask: torch.Tensor,
    components: Components,
    squared: torch.Tensor | None,
    settings: PrimarySettings,
    device: Device,
    single: bool = False,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Seeds, numbered in raster order: int32 [B, H, W]; and how many each field has: int64 [B]."""
    b, h, w = mask.shape
    scale = 10.0 / settings.min_diameter if settings.low_resolution_maxima and settings.min_diameter > 10 else 1.0
    side = math.ceil(max(h, w) * scale)
    offsets = device.constant(disk(max(1.0, suppression(settings, scale) - 0.5), side))
    maxima = device.empty(b, h, w, dtype=torch.uint8)
    inside: dict[str, Any] = {"height": h, "width": w, "mask": mask, "root": components.root}
    inside |= {"offset": offsets, "n_offsets": len(offsets), "maxima": maxima}
    if settings.declump == "shape":
        assert squared is not None
        if scale == 1:  # no two neighbours are equal, so maxima are points
            device.launch("shape_maxima", b * -(-h // BAND), squared=squared, jitter=jitter(h, w, device), **inside)
            return number_points(maxima, device)
        values = torch.sqrt(squared.double()) + jitter(h, w, device)
    else:
        values = images
        if smoothing_size(settings) and valid is None:
            values = smooth(images, declump_taps(settings), device, single=single)
        elif smoothing_size(settings) and valid is not None:
            values = torch.where(valid, smooth_valid(images, valid, declump_taps(settings), device), images)
    if scale == 1:
        device.launch("value_maxima", b * h, value=values, **inside)
    else:
        rounded = single and settings.declump == "intensity"
        maxima = low_resolution_maxima(values, mask, components, scale, offsets, device, single=rounded)
    device.launch(
        "shrink",
        b,
        block=WIDE_BLOCK,
        table=device.tensor(shrink_tables()),
        height=h,
        width=w,
        list=device.empty(b, h * w, dtype=torch.int32),
        stays=device.empty(b, h * w, dtype=torch.uint8),
        points=maxima,
    )
    number, counts = label_components(maxima, device)
    return number * mask, counts


def single_seeds(
    mask: torch.Tensor, components: Components, number: torch.Tensor, device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels where a component has one seed: int32 [B, H, W]; and the pixels of those that have several: uint8 [B, H, W]."""
    b, h, w = mask.shape
    seeds, one = device.zeros(b, h * w, dtype=torch.int32), device.zeros(b, h * w, dtype=torch.int32)
    labels, contested = device.empty(b, h, w, dtype=torch.int32), device.empty(b, h, w, dtype=torch.uint8)
    size: dict[str, Any] = {"root": components.root, "height": h, "width": w, "seeds": seeds, "one": one}
    device.launch("count_seeds", b * -(-h // BAND), number=number, **size)
    device.launch("label_single_seeds", b * -(-h // BAND), mask=mask, labels=labels, contested=contested, **size)
    return labels, contested


def contested_keys(
    contested: torch.Tensor, landscape: dict[str, Any], device: Device, capacity: Capacity | None = None
) -> torch.Tensor:
    """Framed keys of the contested pixels for `flood`, uint32 [B, H + 2, W + 2]: places in order of depth, then raster.

    Parameters
    ----------
    contested : uint8 [B, H, W]
    landscape : the kind of depth, and what it is made of: `image` float64 or `squared` int32, [B, H, W]
    room : see `separate`
    """
    b, h, w = contested.shape
    in_row = device.empty(b * h, dtype=torch.int32)
    device.launch("count_points", b * h, points=contested, width=w, in_row=in_row)
    upto = torch.cumsum(in_row, 0)  # int64
    places = int(upto[-1]) if capacity is None else capacity.give(upto[-1], contested.numel())
    place = device.empty(places, dtype=torch.int64)
    depth = torch.full((places,), torch.inf, dtype=torch.float64, device=device.torch)
    unread = device.empty(0, dtype=torch.float64), device.empty(0, dtype=torch.int32)
    device.launch(
        "list_contested",
        -(-b * h // BAND),
        contested=contested,
        upto=upto,
        height=h,
        width=w,
        rows=b * h,
        capacity=places,
        place=place,
        depth=depth,
        jitter=jitter(h, w, device) if landscape["kind"] == JITTERED else unread[0],
        **{"image": unread[0], "squared": unread[1]} | landscape,
    )
    key = torch.full((b, h + 2, w + 2), -1, dtype=torch.int32, device=device.torch).view(torch.uint32)
    device.launch(
        "rank_contested",
        blocks(places),
        order=torch.sort(depth, stable=True).indices,
        place=place,
        count=upto[-1:],
        capacity=places,
        height=h,
        width=w,
        key=key,
    )
    return key


def suppression(settings: PrimarySettings, scale: float) -> float:
    """Maxima nearer than this are one, in pixels of the image at that scale."""
    if scale < 1:
        return 7.0 if settings.suppression is None else settings.suppression * scale + 0.5
    return settings.min_diameter / 1.5 if settings.suppression is None else settings.suppression


def smoothing_size(settings: PrimarySettings) -> float:
    return 2.35 * settings.min_diameter / 3.5 if settings.smoothing is None else settings.smoothing


def declump_taps(settings: PrimarySettings) -> tuple[float, ...]:
    """The declumping filter: a Gaussian cut at half its size."""
    size = smoothing_size(settings)
    return gaussian_taps(size / 2.35, max(int(size / 2.0), 1), normalised=False)


@lru_cache(maxsize=16)
def disk(radius: float, side: int) -> np.ndarray:
    """Offsets (dy, dx) within a radius and less than `side`, nearest first, without the centre: int32 [K, 2]."""
    r = min(int(radius), side - 1)
    dy, dx = np.mgrid[-r : r + 1, -r : r + 1]
    squared = (dy * dy + dx * dx).ravel()
    order = np.argsort(squared, kind="stable")
    order = order[(squared[order] > 0) & (squared[order] <= radius * radius)]
    return np.stack([dy.ravel()[order], dx.ravel()[order]], 1).astype(np.int32)


@kept_by_device
def jitter(height: int, width: int, device: Device) -> torch.Tensor:
    """The fixed random numbers that CellProfiler adds to distances: float64 [H, W], pixels."""
    return device.tensor(np.random.RandomState(0).uniform(0, JITTER, (height, width)))


@cache
def shrink_tables() -> np.ndarray:
    """Whether a set point stays, by its neighbourhood, in the four passes of a shrink: uint8 [4, 512].

    Bit 3 (dy + 1) + dx + 1 of the index is the neighbour at dy, dx. A pass removes points that hang on to the left alone, or
    by the upper left corner alone (each further pass turns both by a quarter), unless the rest of the neighbours would fall
    apart; a point with all eight neighbours stays.
    """
    around = [0, 1, 2, 5, 8, 7, 6, 3]
    bits = (np.arange(512)[:, None] >> np.arange(9)) & 1
    ring = bits[:, around]
    pieces = ((ring == 0) & (np.roll(ring, -1, 1) == 1)).sum(1) + ring.all(1)
    keep = (bits[:, 4] == 1) & (pieces != 1)
    keep[511] = True
    tables = []
    for turn in range(4):
        up_left, _, _, right, down_right, down, _, left = np.roll(ring, -2 * turn, 1).T
        by_side = (left == 1) & (right == 0)
        by_corner = (up_left == 1) & (right == 0) & (down_right == 0) & (down == 0)
        tables.append(keep | ((bits[:, 4] == 1) & ~by_side & ~by_corner))
    return np.stack(tables).astype(np.uint8)
