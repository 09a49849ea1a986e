"""Haralick's features of a whole image (CellProfiler MeasureTexture, "Across entire image").

Unlike an object's, level 0 counts: mahotas is not asked to leave it out. Pairs and the sums over them are those of
kernels/images/grey_pairs.cu, and an object's texture_finish makes the features.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..features.texture import DIRECTIONS, MEASUREMENTS, TOTALS, log_table
from ..gpu.device import Device, blocks, few_blocks

BANDS = 8  # of rows, counted at once where thousands of blocks run
STEPS = ((0, 1), (1, 1), (1, 0), (1, -1))  # right, down right, down, down left
LARGEST = 1 << 23  # pixels: beyond, sums of logarithms could overflow


def measure(pixels: torch.Tensor, scales: Sequence[int], levels: int, device: Device) -> dict[str, float]:
    """Features of one image by name, `{}` where the image's name goes: `Contrast_{}_3_00_256`.

    Parameters
    ----------
    pixels : float32 or bool [H, W], 0..1
        Masked pixels count, as they stand.
    scales : pixels, at least 1
    levels : 2 to 256

    0 where an image has no pair of pixels in one of a scale's directions. ValueError for an image too large to be summed.
    """
    height, width = pixels.shape
    if height * width > LARGEST:
        raise ValueError(f"an image of {height} x {width} pixels is too large for Texture; the limit is {LARGEST} pixels")
    grey = levels_of(pixels.float(), levels, device)
    highest = int(grey.max())
    steps = [[(down * scale, right * scale) for down, right in STEPS] for scale in scales]
    counts = pairs(grey, steps, highest + 1, device)
    groups, bands = counts.shape[:2]
    totals = device.empty(groups, DIRECTIONS, TOTALS, dtype=torch.uint64)
    moments = device.empty(groups, DIRECTIONS, dtype=torch.float64)
    device.launch(
        "grey_sums",
        groups,
        counts=counts,
        logs=log_table((2 * height * width + 1).bit_length(), device),
        n=highest + 1,
        bands=bands,
        pixels=height * width,
        totals=totals,
        moment=moments,
    )
    features = finished(totals, moments, highest, height * width, len(scales), device)
    result = {}
    for i, measure_name in enumerate(MEASUREMENTS):
        for k, scale in enumerate(scales):
            for d in range(DIRECTIONS):
                result[f"{measure_name}_{{}}_{scale}_{d:02d}_{levels}"] = features[k][d][i]
    return result


def levels_of(pixels: torch.Tensor, levels: int, device: Device, within: tuple[float, float] | None = None) -> torch.Tensor:
    """Grey levels of a float32 [H, W] image, uint8: of 0..1, by 8 bits; or from a minimum on, over a span."""
    remap = np.arange(256) if levels == 256 else np.arange(256) / 255 * (levels - 1)  # truncated
    grey = device.empty(*pixels.shape, dtype=torch.uint8)
    minimum, span = within or (0.0, 1.0)
    device.launch(
        "grey_levels",
        blocks(pixels.numel()),
        pixels=pixels.contiguous(),
        remap=device.tensor(remap.astype(np.uint8)),
        minimum=minimum,
        span=span,
        levels=levels if within else 0,
        n=pixels.numel(),
        level=grey,
    )
    return grey


def pairs(grey: torch.Tensor, steps: Sequence[Sequence[tuple[int, int]]], n: int, device: Device) -> torch.Tensor:
    """How often level j stands a step from level i, in groups of four steps: uint32 [G, bands, n, n, 4], by band of rows."""
    height, width = grey.shape
    far = [[(min(down, height), min(max(right, -width), width)) for down, right in group] for group in steps]
    bands = BANDS if device.massively_parallel else 1
    counts = device.zeros(len(far), bands, n, n, DIRECTIONS, dtype=torch.int32).view(torch.uint32)
    device.launch(
        "grey_pairs",
        len(far) * bands,
        level=grey,
        step=device.tensor(far, torch.int32),
        height=height,
        width=width,
        n=n,
        bands=bands,
        counts=counts,
    )
    return counts


def finished(
    totals: torch.Tensor, moments: torch.Tensor, highest: int, n: int, scales: int, device: Device
) -> list[list[list[float]]]:
    """The features of totals [S, 4, 11]: [scale][direction][feature]."""
    features = device.empty(scales, DIRECTIONS, len(MEASUREMENTS), dtype=torch.float64)
    device.launch(
        "texture_finish",
        few_blocks(scales),
        totals=totals,
        moment=moments,
        highest=device.tensor([highest], torch.int32),
        logs=log_table((2 * n + 1).bit_length(), device),
        start=device.tensor([0], torch.int64),
        stop=device.tensor([n], torch.int64),
        n_items=scales,
        channels=1,
        scales=scales,
        features=features,
    )
    result: list[list[list[float]]] = features.tolist()
    return result
