"""Texture: Haralick's features of an object in every channel (CellProfiler MeasureTexture).

Each channel is scaled to 8 bits over the full 0..1 range, times 255 and rounded, so that pixels below 1/510 become 0 and
are left out. Names end in scale (pixels), direction (00 right, 01 down right, 02 down, 03 down left) and grey levels.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from ..config import FeatureSettings
from ..device import Device, blocks
from ..names import channel_order, feature_name
from ..objects import Scene, start_of

MEASUREMENTS = (  # order of the kernel
    "AngularSecondMoment",
    "Contrast",
    "Correlation",
    "Variance",
    "InverseDifferenceMoment",
    "SumAverage",
    "SumVariance",
    "SumEntropy",
    "Entropy",
    "DifferenceVariance",
    "DifferenceEntropy",
    "InfoMeas1",
    "InfoMeas2",
)
DIRECTIONS = 4
TOTALS = 11  # sums a direction, texture.cu's Total
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


def measure(scene: Scene, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """Texture of every object, float64 [N, F]: the compartments' columns one after the other.

    0 where an object has no pair of counted pixels in one of a scale's directions, as CellProfiler; nan for an empty one.
    ValueError for more than 256 or fewer than 2 grey levels, or an object of more than 2^22 pixels.
    """
    texture, objects = settings.texture, scene.objects
    if not 2 <= texture.levels <= 256:
        raise ValueError(f"texture.levels is {texture.levels}; expected 2 .. 256")
    rows, channels, scales = objects.rows, len(scene.channels), len(texture.scales)
    areas = objects.stop - objects.start
    largest = int(areas.max()) if rows else 0
    if largest > LARGEST:
        raise ValueError(f"an object of {largest} pixels is too large for Texture; the limit is {LARGEST}")
    pad = max(texture.scales)
    box = objects.box.to(torch.int64)
    sizes = (box[:, 2] - box[:, 0] + pad) * (box[:, 3] - box[:, 1] + pad)
    crop_start, spot_start = start_of((sizes + 3) // 4 * 4), start_of(areas)
    crop_stride = int(crop_start[-1])
    spot = device.empty(int(spot_start[-1]), dtype=torch.int32)
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
    remap = np.arange(256) if texture.levels == 256 else np.arange(256) / 255 * (texture.levels - 1)  # truncated
    logs = log_table(max(16, 2 * largest + 1).bit_length(), device)
    totals = device.empty(rows, channels, scales, DIRECTIONS, TOTALS, dtype=torch.uint64)
    moment = device.empty(rows, channels, scales, DIRECTIONS, dtype=torch.float64)
    highest = device.empty(rows, channels, dtype=torch.int32)
    device.launch(
        "texture_count",
        rows * channels,
        values=scene.values,
        n_pixels=objects.pixel.numel(),
        start=objects.start,
        stop=objects.stop,
        spot=spot,
        spot_start=spot_start,
        box=objects.box,
        schedule=objects.schedule,
        remap=device.tensor(remap.astype(np.uint8)),
        crop_start=crop_start,
        crop_stride=crop_stride,
        logs=logs,
        scale=device.tensor(texture.scales, dtype=torch.int32),
        scales=scales,
        pad=pad,
        channels=channels,
        crops=device.empty(channels * crop_stride, dtype=torch.uint8),
        totals=totals,
        moment=moment,
        highest=highest,
    )
    features = device.empty(rows, channels, scales, DIRECTIONS, len(MEASUREMENTS), dtype=torch.float64)
    n_items = rows * channels * scales
    device.launch(
        "texture_finish",
        blocks(n_items),
        totals=totals,
        moment=moment,
        highest=highest,
        logs=logs,
        start=objects.start,
        stop=objects.stop,
        n_items=n_items,
        channels=channels,
        scales=scales,
        features=features,
    )
    order = [scene.channels.index(c) for c in channel_order(scene.channels)]
    by_row = features[:, order].permute(0, 4, 1, 2, 3).flatten(1)
    return by_row.reshape(len(objects.compartments), objects.n, by_row.shape[1]).transpose(0, 1).flatten(1)


@lru_cache(maxsize=8)
def log_table(bits: int, device: Device) -> torch.Tensor:
    """int64 [2^bits]: log2 m for m = 0, 1, 2, ... in fixed point (2^-41), the same on every machine."""
    table = device.empty(1 << bits, dtype=torch.int64)
    device.launch("texture_logs", blocks(table.numel()), entries=table.numel(), logs=table)
    return table
