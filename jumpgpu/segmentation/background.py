"""The smooth background of block minima, subtracted (CellProfiler CorrectIlluminationCalculate 'Background')."""

from functools import lru_cache

import numpy as np
import torch

from ..gpu.device import Device
from ..settings.config import BackgroundSettings
from .gaussian import EPSILON, edge_weights, gaussian_taps

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
    return less_background(pixels, channel, block_minima(pixels, channel, settings, device), settings, device)


def background_of(pixels: torch.Tensor, channel: int, settings: BackgroundSettings, device: Device) -> torch.Tensor:
    """The background of one channel of float32 [B, C, H, W] pixels, as CellProfiler stores it: float32 [B, H, W]."""
    minima = block_minima(pixels, channel, settings, device)
    b, _, h, w = pixels.shape
    weight_y, _, edge_y = gaussian_sums(h, settings)
    weight_x, reach, edge_x = gaussian_sums(w, settings)
    result = device.empty(b, h, w, dtype=torch.float32)
    device.launch(
        "smoothed_background",
        b * h * -(-w // PIECE),
        minima=minima,
        weight_y=device.tensor(np.ascontiguousarray(weight_y.T)),
        weight_x=device.tensor(weight_x),
        reach=device.tensor(reach),
        edge_y=device.tensor(edge_y),
        edge_x=device.tensor(edge_x),
        epsilon=EPSILON,
        height=h,
        width=w,
        rows=minima.shape[1],
        columns=minima.shape[2],
        background=result,
    )
    return result


def block_minima(pixels: torch.Tensor, channel: int, settings: BackgroundSettings, device: Device) -> torch.Tensor:
    """The least pixel of each block: float32 [B, rows, columns]."""
    b, c, h, w = pixels.shape
    y_start, x_start = block_weights(h, settings)[0], block_weights(w, settings)[0]
    rows, columns = len(y_start) - 1, len(x_start) - 1
    check_width(w, settings)
    minima = device.empty(b, rows, columns, dtype=torch.float32)
    device.launch(
        "block_minimum",
        b * rows,
        pixels=pixels,
        y_start=device.constant(y_start),
        x_start=device.constant(x_start),
        minima=minima,
        channels=c,
        channel=channel,
        height=h,
        width=w,
        rows=rows,
        columns=columns,
    )
    return minima


def less_background(
    pixels: torch.Tensor, channel: int, minima: torch.Tensor, settings: BackgroundSettings, device: Device
) -> torch.Tensor:
    """One channel of pixels less the smoothed minima of blocks, within 0..1: float64 [B, H, W]."""
    b, c, h, w = pixels.shape
    _, weight_x, reach = block_weights(w, settings)
    corrected = device.empty(b, h, w, dtype=torch.float64)
    device.launch(
        "subtract_background",
        b * h * -(-w // PIECE),
        pixels=pixels,
        minima=minima,
        weight_y=device.constant(turned_weights(h, settings)),
        weight_x=device.constant(weight_x),
        reach=device.constant(reach),
        corrected=corrected,
        channels=c,
        channel=channel,
        height=h,
        width=w,
        rows=minima.shape[1],
        columns=minima.shape[2],
    )
    return corrected


def blocks_of(shape: tuple[int, ...], side: int) -> tuple[np.ndarray, int]:
    """The block of each pixel, int64 [H, W], and how many blocks there are."""
    index = [(np.arange(n) * (max(int(n / side), 1) / n)).astype(np.int64) for n in shape]
    columns = max(int(shape[1] / side), 1)
    return index[0][:, None] * columns + index[1], max(int(shape[0] / side), 1) * columns


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
    start = block_starts(n, settings)
    weight, reach, edge = gaussian_sums(n, settings)
    return start, weight / edge, reach


@lru_cache(maxsize=16)
def turned_weights(n: int, settings: BackgroundSettings) -> np.ndarray:
    """The weights of `block_weights` with a row per pixel."""
    return np.ascontiguousarray(block_weights(n, settings)[1].T)


def block_starts(n: int, settings: BackgroundSettings) -> np.ndarray:
    """First pixel of each block along an axis of n pixels, and n: int32 [blocks + 1]."""
    count = max(int(n / settings.block), 1)
    block = (np.arange(n) * (count / n)).astype(np.int64)
    return np.searchsorted(block, np.arange(count + 1)).astype(np.int32)


@lru_cache(maxsize=16)
def gaussian_sums(n: int, settings: BackgroundSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Gaussian's sums over blocks at every pixel, float64 [blocks, n]; their reach; and over the axis, float64 [n]."""
    start = block_starts(n, settings)
    count = len(start) - 1
    taps = gaussian_taps(settings.filter_size / 2.35, widest=WIDEST)
    radius = len(taps) - 1
    weight = np.zeros((count, n))
    for k in range(count):
        inside = np.zeros(n + 2 * radius)
        inside[radius + start[k] : radius + start[k + 1]] = 1
        for j in range(radius, -1, -1):
            sides = inside[radius - j : radius - j + n] + (inside[radius + j : radius + j + n] if j else 0)
            weight[k] += sides * taps[j]
    reach = np.array([[start[k] - radius, start[k + 1] + radius] for k in range(count)]).clip(0, n).astype(np.int32)
    return weight, reach, edge_weights(taps, n)
