"""Texture: Haralick's features of an object in every channel (CellProfiler MeasureTexture).

Each channel is scaled to 8 bits over the full 0..1 range, times 255 and rounded, so that pixels below 1/510 become 0 and
are left out. Names end in scale (pixels), direction (00 right, 01 down right, 02 down, 03 down left) and grey levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device, few_blocks, kept_by_device
from ..gpu.kernel_source import measures
from ..settings.config import FeatureSettings, TextureSettings
from ..settings.names import channel_order, feature_name
from .objects import ObjectBatch, start_of

MEASUREMENTS = measures("features/texture.cuh", "Haralick")
DIRECTIONS = 4
TOTALS = 11  # sums a direction, texture.cuh's Total
CAPACITY = 821760  # entries of a block's matrices in texture_parts.cu
LARGEST = 1 << 22  # pixels of an object: beyond, products of the 64-bit totals could overflow


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    texture = settings.texture
    return [
        feature_name(compartment, "Texture", m, c, scale, f"{direction:02d}", texture.levels)
        for m in MEASUREMENTS
        for c in channel_order(channels)
        for scale in texture.scales
        for direction in range(DIRECTIONS)
    ]


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """Texture of every object, float64 [N, F]: the compartments' columns one after the other.

    0 where an object has no pair of counted pixels in one of a scale's directions, as CellProfiler; nan for an empty one.
    ValueError for more than 256 or fewer than 2 grey levels, or an object of more than 2^22 pixels.
    """
    texture = settings.texture
    if not 2 <= texture.levels <= 256:
        raise ValueError(f"texture.levels is {texture.levels}; expected 2 .. 256")
    counts = count(batch, texture, device, together=not device.massively_parallel)
    return finish(batch, counts, device)


@dataclass(frozen=True)
class Counts:
    """What is summed over the matrices: totals uint64 [R, C, S, 4, 11], moment float64 [R, C, S, 4], highest int32 [R, C];
    and the logarithms they were summed with (log_table)."""

    totals: torch.Tensor
    moment: torch.Tensor
    highest: torch.Tensor
    logs: torch.Tensor


@lru_cache(maxsize=8)
def grey_levels(n: int) -> np.ndarray:
    """The grey level of each of 256 values, of n: uint8 [256]."""
    levels = np.arange(256) if n == 256 else np.arange(256) / 255 * (n - 1)  # truncated
    return levels.astype(np.uint8)


def count(batch: ObjectBatch, texture: TextureSettings, device: Device, *, together: bool) -> Counts:
    """The matrices' sums. `together`: a cell's compartments from one count where that pays, as it does on a CPU."""
    objects = batch.objects
    rows, channels, scales = objects.rows, len(batch.channels), len(texture.scales)
    areas = objects.stop - objects.start
    if objects.largest > LARGEST:
        raise ValueError(f"an object of {objects.largest} pixels is too large for Texture; the limit is {LARGEST}")
    _, height, width = objects.shape
    distances = [min(scale, max(height, width)) for scale in texture.scales]  # no object has a pair farther apart
    pad = max(distances)
    counts = Counts(
        device.empty(rows, channels, scales, DIRECTIONS, TOTALS, dtype=torch.uint64),
        device.empty(rows, channels, scales, DIRECTIONS, dtype=torch.float64),
        device.empty(rows, channels, dtype=torch.int32),
        log_table(max(16, 2 * objects.largest + 1).bit_length(), device),
    )
    wanted = torch.ones(rows, channels, dtype=torch.uint8, device=device.torch)
    common: dict[str, Any] = {
        "values": batch.values,
        "n_pixels": objects.pixel.numel(),
        "start": objects.start,
        "stop": objects.stop,
        "box": objects.box,
        "schedule": objects.schedule,
        "wanted": wanted,
        "remap": device.constant(grey_levels(texture.levels)),
        "logs": counts.logs,
        "scale": device.constant(tuple(distances), torch.int32),
        "scales": scales,
        "pad": pad,
        "channels": channels,
        "totals": counts.totals,
        "moment": counts.moment,
        "highest": counts.highest,
    }
    if together:
        capacity = objects.largest_box + pad * (height + width) + pad * pad  # a box of that many pixels, padded
        at_once = device.scratch_blocks(objects.n, 10 * capacity + 4 * CAPACITY, per_core=2, maximum=2)
        device.launch(
            "texture_parts",
            at_once,
            pixel=objects.pixel,
            cell_start=objects.cell_start,
            compartments=len(objects.compartments),
            cells=objects.n,
            capacity=capacity,
            spots=device.empty(at_once, capacity, dtype=torch.int32),
            rows=device.empty(at_once, capacity, dtype=torch.int32),
            codes=device.empty(at_once, capacity, dtype=torch.uint16),
            counts=device.empty(at_once, CAPACITY, dtype=torch.uint32),
            **common,
        )
    box = objects.box.to(torch.int64)
    sizes = (box[:, 2] - box[:, 0] + pad) * (box[:, 3] - box[:, 1] + pad)
    crop_start, spot_start = start_of((sizes + 3) // 4 * 4), start_of(areas)
    crop_stride = objects.n_box_pixels + pad * (objects.n_lines + objects.n_columns) + rows * (pad * pad + 3)  # no less
    crop_stride += -crop_stride % 4  # the kernel clears words of 4 bytes, in every channel
    spot = device.empty(objects.n_row_pixels, dtype=torch.int32)
    device.launch(
        "texture_spots",
        rows,
        pixel=objects.pixel,
        start=objects.start,
        stop=objects.stop,
        spot_start=spot_start,
        box=objects.box,
        pad=pad,
        spot=spot,
    )
    device.launch(
        "texture_count",
        rows * channels,
        spot=spot,
        spot_start=spot_start,
        crop_start=crop_start,
        crop_stride=crop_stride,
        crops=device.empty(channels * crop_stride, dtype=torch.uint8),
        **common,
    )
    return counts


def finish(batch: ObjectBatch, counts: Counts, device: Device) -> torch.Tensor:
    """The features of every cell from the sums: float64 [N, F]."""
    objects = batch.objects
    rows, channels, scales, _ = counts.moment.shape
    features = device.empty(rows, channels, scales, DIRECTIONS, len(MEASUREMENTS), dtype=torch.float64)
    n_items = rows * channels * scales
    device.launch(
        "texture_finish",
        few_blocks(n_items),
        totals=counts.totals,
        moment=counts.moment,
        highest=counts.highest,
        logs=counts.logs,
        start=objects.start,
        stop=objects.stop,
        n_items=n_items,
        channels=channels,
        scales=scales,
        features=features,
    )
    by_row = batch.by_name(features, 1, device).permute(0, 4, 1, 2, 3).flatten(1)
    return by_row.reshape(len(objects.compartments), objects.n, by_row.shape[1]).transpose(0, 1).flatten(1)


@kept_by_device
def log_table(bits: int, device: Device) -> torch.Tensor:
    """int64 [2^bits]: log2 m for m = 0, 1, 2, ... in fixed point (2^-41), the same on every machine."""
    table = device.empty(1 << bits, dtype=torch.int64)
    device.launch("texture_logs", few_blocks(table.numel()), entries=table.numel(), logs=table)
    return table
