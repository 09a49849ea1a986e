"""Crops of cells from a batch of fields on the device: cut, normalised, masked and resized by one kernel (crops.cu)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device

PADDINGS = ("zero", "reflect", "edge")  # crops.cu: Padding
RESIZES = ("area", "bilinear")
MAX_SIDE = 1024  # pixels of a window's side; crops.cu: WINDOW
COUNTS = 65535.0  # of the intensity 1; crops.cu


@dataclass(frozen=True)
class CropRule:
    """What a crop is.

    side     pixels of the field along the window's side; a fraction for a size in micrometres
    size     pixels of the crop along its side
    resize   area: the mean over the part of the window that a pixel covers; bilinear: between the two nearest centres
    padding  what lies beyond the field: 0, the field mirrored in its border's pixels, or the border's pixel
    masked   pixels that are not the cell's are 0, beyond the field too
    half     float16, rounded to the nearest, in place of float32
    """

    side: float
    size: int
    resize: str = "area"
    padding: str = "zero"
    masked: bool = False
    half: bool = False

    @property
    def window(self) -> int:
        """Whole pixels that the window touches along its side."""
        return math.ceil(self.side)


@dataclass(frozen=True)
class CropBatch:
    """N crops to be cut from B fields.

    pixels  float32 [B, C, H, W], 0..1
    labels  int32 [B, H, W]; the masks, where crops are masked
    field   int32 [N], position in the batch
    number  int32 [N], the cell's label
    origin  int32 [N, 2], y and x of the window's first pixel
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    field: torch.Tensor
    number: torch.Tensor
    origin: torch.Tensor

    def part(self, start: int, stop: int) -> "CropBatch":
        rows = (t[start:stop] for t in (self.field, self.number, self.origin))
        return CropBatch(self.pixels, self.labels, *rows)

    def arguments(self, channel: torch.Tensor) -> dict[str, Any]:
        """What all kernels of crops.cu are given."""
        return {
            "pixels": self.pixels,
            "labels": self.labels,
            "field": self.field,
            "number": self.number,
            "origin": self.origin,
            "channel": channel,
            "channels": channel.numel(),
            "n_channels": self.pixels.shape[1],
            "height": self.pixels.shape[2],
            "width": self.pixels.shape[3],
        }


def origins(centers: torch.Tensor, side: float) -> torch.Tensor:
    """First pixel of windows about centres: int32 [N, 2] of float64 [N, 2], y and x, from 0 at the first pixel's centre.

    The corner that is nearest to centre - side / 2, on whole pixels, ties upwards; 0 for a centre that is nan.
    """
    corner = torch.floor(torch.nan_to_num(centers) + (1 - side / 2))
    return corner.to(torch.int32).contiguous()


@lru_cache(maxsize=32)
def weights(side: float, size: int, resize: str) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel along a crop's side is made of: its first pixel of the window int32 [S], weights float32 [S, taps]."""
    scale, window = side / size, math.ceil(side)
    if resize == "area" or scale == 1:
        begin, end = np.arange(size)[:, None] * scale, (np.arange(size)[:, None] + 1) * scale
        pixel = np.arange(window)
        share = np.minimum(end, pixel + 1) - np.maximum(begin, pixel)
        share[share < 1e-9] = 0  # what rounding leaves of a whole number
    else:
        at = np.clip((np.arange(size) + 0.5) * scale - 0.5, 0, window - 1)
        share = np.clip(1 - np.abs(at[:, None] - np.arange(window)), 0, None)
    share /= share.sum(1, keepdims=True)
    taps = int((share > 0).sum(1).max())
    first = np.minimum((share > 0).argmax(1), window - taps).astype(np.int32)
    return first, np.take_along_axis(share, first[:, None] + np.arange(taps), 1).astype(np.float32)


def cut(
    batch: CropBatch, channel: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, rule: CropRule, device: Device
) -> torch.Tensor:
    """float32 or float16 [N, K, S, S]: normalised crops; K = len(channel), places on the C axis (int32).

    mean, deviation : float32 [N, K]
    """
    n, k, size = batch.field.numel(), channel.numel(), rule.size
    first, weight = (device.tensor(a) for a in weights(rule.side, size, rule.resize))
    crops = device.empty(n, k, size, size, dtype=torch.float16 if rule.half else torch.float32)
    device.launch(
        "cut_crops",
        n * k,
        **batch.arguments(channel),
        mean=mean,
        deviation=deviation,
        first=first,
        weight=weight,
        size=size,
        window=rule.window,
        taps=weight.shape[1],
        padding=PADDINGS.index(rule.padding),
        masked=int(rule.masked),
        half=int(rule.half),
        crops=crops.view(torch.uint8),
    )
    return crops


def count(batch: CropBatch, channel: torch.Tensor, window: Sequence[int], masked: bool, device: Device) -> torch.Tensor:
    """int64 [N, K, 3]: pixels, sum and sum of squares of 16-bit counts over windows of height x width, within the field."""
    counts = device.empty(batch.field.numel(), channel.numel(), 3, dtype=torch.int64)
    device.launch(
        "count_crops",
        counts.shape[0] * counts.shape[1],
        **batch.arguments(channel),
        window_height=window[0],
        window_width=window[1],
        masked=int(masked),
        counts=counts,
    )
    return counts


def moments(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, float32 [..., K], of what was counted: int64 [..., K, 3]. A deviation of 0 is 1.

    nan where nothing was counted.
    """
    n, total, squares = counts.to(torch.float64).unbind(-1)
    full = torch.full_like(n, COUNTS)  # a tensor divides alike on both devices, a number does not
    variance = (squares - total * total / n) / n
    deviation = torch.sqrt(torch.clamp(variance, min=0)) / full
    deviation = torch.where(deviation == 0, 1.0, deviation)
    return (total / n / full).to(torch.float32).contiguous(), deviation.to(torch.float32).contiguous()


def count_fields(pixels: torch.Tensor, channel: torch.Tensor, device: Device) -> torch.Tensor:
    """int64 [B, K, 3]: the counts of whole fields, float32 [B, C, H, W]."""
    fields, _, height, width = pixels.shape  # no mask is asked for: any int32 stands for the labels
    whole = device.zeros(fields, 2, dtype=torch.int32)
    field = torch.arange(fields, dtype=torch.int32, device=device.torch)
    pixels = pixels.contiguous()
    return count(CropBatch(pixels, pixels.view(torch.int32), field, field, whole), channel, (height, width), False, device)
