"""The smooth background of block minima, subtracted (CellProfiler CorrectIlluminationCalculate 'Background')."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device
from ..settings.config import BackgroundSettings
from .gaussian import edge_weights, gaussian_taps

PIECE = 2048  # pixels of a row a block of subtract_background does
MAX = 512  # columns of blocks at most
WIDEST = 4096  # half filter in pixels


def subtract_background(pixels: torch.Tensor, channel: int, settings: BackgroundSettings, device: Device) -> torch.Tensor:
    """One channel less its background.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.

    Returns
    -------
    float64 [B, H, W]
        Intensity above the background, clipped to 0..1; double, as CellProfiler has it here.
    """
    b, c, h, w = pixels.shape
    y_start, weight_y, _ = block_weights(h, settings)
    x_start, weight_x, reach = block_weights(w, settings)
    rows, columns = len(y_start) - 1, len(x_start) - 1
    check_width(w, settings)
    minima = device.empty(b, rows, columns, dtype=torch.float32)
    corrected = device.empty(b, h, w, dtype=torch.float64)
    where: dict[str, Any] = {"channels": c, "channel": channel, "height": h, "width": w, "rows": rows, "columns": columns}
    device.launch(
        "block_minimum",
        b * rows,
        pixels=pixels,
        y_start=device.tensor(y_start),
        x_start=device.tensor(x_start),
        minima=minima,
        **where,
    )
    device.launch(
        "subtract_background",
        b * h * -(-w // PIECE),
        pixels=pixels,
        minima=minima,
        weight_y=device.tensor(np.ascontiguousarray(weight_y.T)),
        weight_x=device.tensor(weight_x),
        reach=device.tensor(reach),
        corrected=corrected,
        **where,
    )
    return corrected


def check_width(width: int, settings: BackgroundSettings) -> None:
    """ValueError where a field of this width has more blocks in a row than fit."""
    if int(width / settings.block) > MAX:
        raise ValueError(
            f"segmentation.nuclei.background.block is {settings.block}: a field {width} pixels wide has "
            f"{int(width / settings.block)} such blocks in a row, of {MAX} at most; use {-(-width // MAX)} pixels or more"
        )


@lru_cache(maxsize=16)
def block_weights(n: int, settings: BackgroundSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks along an axis of n pixels and what the Gaussian gives each of them at every pixel.

    Returns
    -------
    start : int32 [blocks + 1]
        First pixel of each block.
    weight : float64 [blocks, n]
        Sums to 1 over the blocks.
    reach : int32 [blocks, 2]
        Half-open range of pixels where a block's weight is not 0.
    """
    count = max(int(n / settings.block), 1)
    block = (np.arange(n) * (count / n)).astype(np.int64)
    start = np.searchsorted(block, np.arange(count + 1)).astype(np.int32)
    taps = gaussian_taps(settings.filter_size / 2.35, widest=WIDEST)
    radius = len(taps) - 1
    weight = np.zeros((count, n))
    for k in range(count):
        inside = np.zeros(n + 2 * radius)
        inside[radius + start[k] : radius + start[k + 1]] = 1
        for j in range(radius, -1, -1):
            sides = inside[radius - j : radius - j + n] + (inside[radius + j : radius + j + n] if j else 0)
            weight[k] += sides * taps[j]
    weight /= edge_weights(taps, n)
    reach = np.array([[start[k] - radius, start[k + 1] + radius] for k in range(count)]).clip(0, n).astype(np.int32)
    return start, weight, reach
