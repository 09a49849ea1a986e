"""Granular spectrum of an object in every channel (CellProfiler MeasureGranularity), by granularity*.cu.

Column k is the share of the object's mean intensity, in percent, that an opening by reconstruction of size k takes away
beyond size k - 1, of the channel at `subsampling` with its background removed. Percentages may be negative for k = 1,
where the background goes too. An object without pixels has nan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device
from ..segmentation.basins import FOREST_BLOCK, Basins, bands, find_basins
from ..segmentation.resample import Axis, Grid, Shares, axis, sample, shares, stretched
from ..settings.config import FeatureSettings, GranularitySettings
from ..settings.names import channel_order, feature_name
from .objects import ObjectBatch, Objects

DOUBTFUL = 1000.0  # percent
BEYOND = "cells with Granularity beyond 1000 %: next to no intensity of their own, beside bright pixels"
SCALES = 16  # levels of the kernels
COLUMNS = 256  # full-resolution columns of a tile of weights (kernels/features/granularity_spectrum.cu)
ERODE_BLOCK = 544  # threads: a warp for every level
RING = 12  # rows of an erosion that are kept, with those of the highest (kernels/features/granularity.cu)
LINE = 16  # pixels: rows of the ring of erosions are whole lines of a cache (kernels/features/granularity.cu)
STEPS, TILE, TILE_BLOCK = 8, (80, 64), 512  # scales, rows and columns, and threads of granularity_erode_tile
CLEAR_BLOCK, PARTS = 128, 64  # blocks per plane where there are many
DISK_COLUMNS, LARGEST_RADIUS = 256, 128  # of a block of the disk (kernels/features/granularity_background.cu: TILE, RADIUS)
FIELDS_AT_ONCE = 2  # fields whose basins are held at a time, on a CPU
ALL_AT_ONCE = (
    0.4  # sampled pixels per pixel up to which a GPU holds a whole batch's: 85 bytes each, of the 80 planned a pixel
)


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    return [
        feature_name(compartment, "Granularity", k, c)
        for k in range(1, settings.granularity.spectrum + 1)
        for c in channel_order(channels)
    ]


def doubtful(values: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Channel -> objects (rows) with a granularity beyond `DOUBTFUL` percent: their own mean intensity is next to nothing.

    values [N, F] of columns `names`. CellProfiler divides by that mean, or by 2^-52 where it is 0, and so does this; beside
    bright pixels that makes 10^10 percent and more, which no mean or correlation over cells survives.
    """
    at, channels = places(tuple(names))
    beyond = np.abs(values[:, at]) > DOUBTFUL
    if not beyond.any():
        return {}
    rows = {channel: beyond[:, channels == channel].any(axis=1).sum() for channel in sorted(set(channels))}
    return {channel: int(n) for channel, n in rows.items() if n}


@lru_cache(maxsize=4)
def places(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the granularity columns, and the channel of each."""
    result = [(i, *name.split("_", 3)) for i, name in enumerate(names) if "_Granularity_" in name]
    kept = [(i, channel) for i, _, family, _, channel in result if family == "Granularity"]
    return np.array([i for i, _ in kept], int), np.array([channel for _, channel in kept], object)


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """The spectrum of every object.

    Returns
    -------
    float64 [N, F]
        F = `columns` of the batch's compartments one after the other; percent.
    """
    wanted = settings.granularity
    check(wanted)
    objects, channels = batch.objects, len(batch.channels)
    fields, _, height, width = batch.pixels.shape
    grid = sampled(height, width, wanted, device)
    if not objects.rows:
        return device.empty(0, len(objects.compartments) * wanted.spectrum * channels, dtype=torch.float64)
    parts = find_parts(objects, device)
    weights = part_weights(batch, parts, wanted, device)
    sizes = objects.cell_start[1:] - objects.cell_start[:-1]
    schedule = torch.argsort(sizes, descending=True, stable=True).to(torch.int32)
    spectrum = device.empty(objects.rows, channels, SCALES, dtype=torch.float64)
    levels = None  # of the first fields, which are as many as any
    at_once = fields_at_once(fields, wanted, device)
    for first in range(0, fields, at_once):
        last = min(first + at_once, fields)
        planes = batch.pixels[first:last].reshape(-1, height, width)
        key = foreground(planes, grid, wanted, device)
        basins = find_basins(key, 4, device)
        size = {"height": grid.shape[0], "width": grid.shape[1], "capacity": basins.capacity}
        levels = levels_of(basins, device, levels)
        device.launch(
            "granularity_spectrum",
            objects.n * channels,
            values=batch.values,
            low=parts.low,
            high=parts.high,
            pattern=parts.pattern,
            box=weights.box,
            start=weights.start,
            weights=weights.weights,
            schedule=schedule,
            field=objects.field,
            key=key,
            basin=basins.basin,
            levels=levels,
            n_values=batch.values.shape[1],
            cells=objects.n,
            compartments=len(objects.compartments),
            parts=parts.pattern.shape[1],
            channels=channels,
            first_field=first,
            last_field=last,
            **size,
            spectrum=spectrum,
        )
    table = spectrum.view(len(objects.compartments), objects.n, channels, SCALES)[..., : wanted.spectrum]
    return batch.by_name(table, 2, device).permute(1, 0, 3, 2).flatten(1)


def check(settings: GranularitySettings) -> None:
    """ValueError for settings that have no meaning here."""
    if not 1 <= settings.spectrum <= SCALES:
        raise ValueError(f"granularity.spectrum must be 1..{SCALES}, got {settings.spectrum}")
    for name in ("subsampling", "background_subsampling"):
        if not 0 < getattr(settings, name) <= 1:
            raise ValueError(f"granularity.{name} must be above 0 and at most 1, got {getattr(settings, name)}")
    if not 1 <= settings.radius <= LARGEST_RADIUS:
        raise ValueError(f"granularity.radius must be 1..{LARGEST_RADIUS}, got {settings.radius}")


def fields_at_once(fields: int, settings: GranularitySettings, device: Device) -> int:
    """Fields whose basins are held at a time: few where they should stay in a cache, many where there are blocks to fill."""
    if not device.massively_parallel:
        return FIELDS_AT_ONCE
    return max(1, int(fields * min(1.0, ALL_AT_ONCE / settings.subsampling**2)))


def levels_of(
    basins: Basins, device: Device, levels: torch.Tensor | None = None, *, tiled: bool | None = None
) -> torch.Tensor:
    """int32 [P, capacity, SCALES]: the bits of every basin's E_k, so that R_k is the lesser of it and the pixel.

    `levels` is written to where it is given, of P planes or more: it is large, and little of it is ever touched. `tiled`: by
    tiles and without rounds, as many blocks as there are, or by one block per plane, which does less; levels are the same.
    """
    planes, height, width = basins.shape
    if levels is None:
        levels = device.empty(planes, basins.capacity, SCALES, dtype=torch.int32)
    if tiled is None:
        tiled = device.massively_parallel
    common: dict[str, Any] = {"capacity": basins.capacity, "levels": levels}
    parts = PARTS if tiled else 1
    clear = {"row_end": basins.row_end, "height": height, "parts": parts}
    device.launch("granularity_clear", planes * parts, block=CLEAR_BLOCK, **clear, **common)
    plane: dict[str, Any] = {"key": basins.key, "basin": basins.basin, "height": height, "width": width, **common}
    if not tiled:
        ring = device.empty(planes, SCALES + 2, RING, (-(-width // LINE) + 2) * LINE, dtype=torch.int32)
        device.launch("granularity_erode", planes, block=ERODE_BLOCK, **plane, ring=ring)
        device.launch("granularity_raise", planes, block=FOREST_BLOCK, **basins.forest(), **common)
        return levels
    tiles = math.prod(-(-n // (t - 2 * STEPS)) for n, t in zip((height, width), TILE, strict=True))
    eroded, other = (device.empty(planes, height, width, dtype=torch.int32) for _ in range(2))
    for first in range(0, SCALES, STEPS):
        device.launch(
            "granularity_erode_tile",
            planes * tiles,
            block=TILE_BLOCK,
            **plane,
            **{"from": eroded},
            first=first,
            to=other,
        )
        eroded, other = other, eroded
    for kernel in ("granularity_rise", "granularity_sink"):
        device.launch(kernel, planes * parts, **basins.forest(), **common, parts=parts)
    return levels


def sampled(height: int, width: int, settings: GranularitySettings, device: Device) -> Grid:
    """The sampling of a field's planes."""
    y, x = (axes(n, settings.subsampling, settings.background_subsampling)[0] for n in (height, width))
    return Grid.of(y, x, device)


@lru_cache(maxsize=16)
def axes(n: int, half: float, again: float) -> tuple[Axis, Axis, Axis]:
    """Along an axis of n pixels: their sampling, that sampled once more for the background, and the way back from there."""
    whole = axis(np.arange(math.ceil(n * half)) / half, n)
    small = axis(np.arange(math.ceil(n * half * again)) / again, whole.n)
    return whole, small, axis(stretched(whole.n, n * half * again, n * half), small.n)


def foreground(planes: torch.Tensor, grid: Grid, settings: GranularitySettings, device: Device) -> torch.Tensor:
    """Framed keys of the sampled planes [P, H, W] without their background, and without lone peaks; see
    granularity_background.cu."""
    return shaved(foreground_keys(planes, grid, settings, device), device)


def foreground_keys(planes: torch.Tensor, grid: Grid, settings: GranularitySettings, device: Device) -> torch.Tensor:
    """Framed keys of the sampled planes [P, H, W] without their background."""
    n, height, width = planes.shape
    image = sample(planes, grid, device)
    y, x = (axes(side, settings.subsampling, settings.background_subsampling) for side in (height, width))
    small = Grid.of(y[1], x[1], device)
    background = opening(sample(image, small, device), settings.radius, device)
    key = device.empty(n, grid.shape[0] + 2, grid.shape[1] + 2, dtype=torch.uint32)
    device.launch(
        "granularity_keys",
        bands(n, grid.shape[0] + 2),
        image=image,
        background=background,
        **Grid.of(y[2], x[2], device).tables(),
        back_height=small.shape[0],
        back_width=small.shape[1],
        height=grid.shape[0],
        width=grid.shape[1],
        key=key,
    )
    return key


def shaved(key: torch.Tensor, device: Device) -> torch.Tensor:
    """Framed keys without lone peaks, which move no level."""
    n, rows, columns = key.shape
    result = torch.empty_like(key)
    device.launch("granularity_shave", bands(n, rows), key=key, height=rows - 2, width=columns - 2, out=result)
    return result


def opening(planes: torch.Tensor, radius: int, device: Device) -> torch.Tensor:
    """Grey opening of float32 [P, H, W], not negative, with the disk dy^2 + dx^2 <= radius^2."""
    n, height, width = planes.shape
    half = device.constant(tuple(math.isqrt(radius * radius - dx * dx) for dx in range(radius + 1)), torch.int32)
    for maximum in (0, 1):
        image, planes = planes, device.empty(n, height, width, dtype=torch.float32)
        device.launch(
            "granularity_disk",
            n * height * -(-width // DISK_COLUMNS),
            image=image,
            half=half,
            radius=radius,
            maximum=maximum,
            height=height,
            width=width,
            out=planes,
        )
    return planes


@dataclass(frozen=True)
class Parts:
    """The pixels of each cell that lie in the same compartments: stretches of its list that no object's range cuts.

    low, high  int64 [N, 2 K - 1]     range of `Objects.pixel`
    pattern    int32 [N, 2 K - 1]     bit k: in compartment k; 0: no part
    care       int32 [N, 2 K - 1]     the compartments by whose labels its pixels are known
    box        int64 [4, N, 2 K - 1]  y0, x0, y1, x1 that hold it; y0 == y1 for none
    """

    low: torch.Tensor
    high: torch.Tensor
    pattern: torch.Tensor
    care: torch.Tensor
    box: torch.Tensor


def find_parts(objects: Objects, device: Device) -> Parts:
    """The parts of every cell, in list order."""
    kinds = len(objects.compartments)
    start, stop = (a.view(kinds, -1, 1) for a in (objects.start, objects.stop))
    cuts = torch.sort(torch.cat([start, stop]).squeeze(2).T, 1).values
    low, high = cuts[:, :-1].contiguous(), cuts[:, 1:].contiguous()
    within = (start <= low) & (high <= stop) & (low < high)
    bits = (1 << torch.arange(kinds, dtype=torch.int32, device=device.torch)).view(-1, 1, 1)
    pattern = (within * bits).sum(0).to(torch.int32)
    # Compartments that share pixels are listed together, and a part lies outside all the others.
    together = (within.sum(0) > 1).any(1, keepdim=True)
    care = torch.where(together, (1 << kinds) - 1, pattern).to(torch.int32).contiguous()
    boxes = objects.box.view(kinds, -1, 1, 4).long()
    corners = [torch.where(within, boxes[..., i], 0).amax(0) for i in (0, 1)]
    beyond = [torch.where(within, boxes[..., i], max(objects.shape)).amin(0) for i in (2, 3)]
    box = torch.stack([*corners, *beyond])
    return Parts(low, high, pattern, care, torch.where(pattern > 0, box, 0))


@dataclass(frozen=True)
class Weights:
    """Every part's weights on the sampled pixels: box int32 [N, E, 4], first weight int64 [N, E], and all of them, dense."""

    box: torch.Tensor
    start: torch.Tensor
    weights: torch.Tensor


def part_weights(batch: ObjectBatch, parts: Parts, settings: GranularitySettings, device: Device) -> Weights:
    """How often each sampled pixel counts in the sum over a part of the sampled image taken back to full resolution."""
    objects = batch.objects
    _, height, width = objects.shape
    (y, rows), (x, across) = (sampled_back(n, settings.subsampling) for n in (height, width))
    filled = parts.pattern > 0
    low, high = [], []
    for side, sampling in enumerate((y, x)):
        at = device.constant(sampling.at)
        first = at[parts.box[side]].long()
        last = at[(parts.box[2 + side] - 1).clamp(min=0)].long() + 2
        low.append(first)
        high.append(torch.where(filled, last.clamp(max=sampling.size), first))
    box = torch.stack([*low, *high], 2).to(torch.int32)
    area = (high[0] - low[0]) * (high[1] - low[1])
    end = torch.cumsum(area.flatten(), 0)
    start = end.view(area.shape) - area
    weights = device.empty(max_weights(objects, settings.subsampling), dtype=torch.float64)
    planes = [batch.labels[c].contiguous() for c in objects.compartments]
    planes += [planes[0]] * (4 - len(planes))
    named: dict[str, Any] = dict(zip(("first", "second", "third", "fourth"), planes, strict=True))
    device.launch(
        "granularity_weights",
        parts.pattern.numel(),
        **named,
        field=objects.field,
        number=objects.number,
        pattern=parts.pattern,
        care=parts.care,
        box=box,
        start=start,
        row_first=device.constant(rows.first),
        row_count=device.constant(rows.count),
        row_share=device.constant(rows.share),
        column_first=device.constant(across.first),
        column_count=device.constant(across.count),
        column_share=device.constant(across.share),
        compartments=len(objects.compartments),
        parts=parts.pattern.shape[1],
        row_reach=rows.share.shape[1],
        column_reach=across.share.shape[1],
        tile=tile_of(width, settings.subsampling),
        full_height=height,
        full_width=width,
        weights=weights,
    )
    return Weights(box, start, weights)


def max_weights(objects: Objects, subsampling: float) -> int:
    """No fewer than the sampled pixels of all parts' boxes, known without asking the device.

    A box of h x w pixels is used by fewer than (s h + 3)(s w + 3) sampled ones, and each part can be put to the account of a
    compartment that holds it so that none has more than K.
    """
    s, kinds = subsampling, len(objects.compartments)
    return kinds * math.ceil(s * s * objects.n_box_pixels + 3 * s * (objects.n_lines + objects.n_columns) + 9 * objects.rows)


@lru_cache(maxsize=16)
def sampled_back(n: int, subsampling: float) -> tuple[Axis, Shares]:
    """The sampling of a subsampled axis at its n full-resolution pixels, and its transpose."""
    size = math.ceil(n * subsampling)
    back = axis(stretched(n, n * subsampling, n), size)
    return back, shares(back)


@lru_cache(maxsize=64)
def tile_of(n: int, subsampling: float) -> int:
    """The most sampled columns whose users always fit in COLUMNS."""
    users = sampled_back(n, subsampling)[1]
    ends, tile = users.first + users.count, 1
    while tile < ends.size and (ends[tile:] - users.first[: ends.size - tile]).max() <= COLUMNS:
        tile += 1
    return tile
