"""Haralick's features of a whole image (CellProfiler MeasureTexture, "Across entire image").

Unlike an object's, level 0 counts: mahotas is not asked to leave it out. Pairs are counted as whole numbers, the sums over
them are those of kernels/features/texture.cuh, and its texture_finish makes the features.
"""

from collections.abc import Sequence

import torch

from ..features.texture import DIRECTIONS, MEASUREMENTS, TOTALS, log_table
from ..gpu.device import Device, few_blocks

FINE = 18  # bits of a sum's count at full precision of the logarithms (texture.cuh)
SQUARE, LOG_CELLS, PAIRS, I1, I2, LOG_I, S2, LOG_S, D2, LOG_D, SQUARE_D = range(TOTALS)  # texture.cuh's Total
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
    grey = (pixels.double() * 255).float() if pixels.dtype == torch.bool else pixels.float() * 255
    grey = grey.clamp(0, 255).round().to(torch.int32)
    if levels < 256:
        grey = (grey.double() / 255 * (levels - 1)).to(torch.int32)
    highest = int(grey.max())
    bits = 0
    while (2 * height * width) >> (FINE + bits):
        bits += 1
    logs = log_table((2 * height * width + 1).bit_length(), device) >> bits
    totals, moments = [], []
    for scale in scales:
        for down, right in STEPS:
            counts = pairs(grey, down * scale, right * scale, highest + 1)
            total, moment = sums(counts, logs)
            totals.append(total)
            moments.append(moment)
    features = finished(torch.stack(totals), torch.stack(moments), highest, height * width, len(scales), device)
    result = {}
    for i, measure_name in enumerate(MEASUREMENTS):
        for k, scale in enumerate(scales):
            for d in range(DIRECTIONS):
                result[f"{measure_name}_{{}}_{scale}_{d:02d}_{levels}"] = features[k][d][i]
    return result


def pairs(grey: torch.Tensor, down: int, right: int, levels: int) -> torch.Tensor:
    """How often levels i and j stand apart by a step, either way round: int64 [levels, levels]."""
    height, width = grey.shape
    if down >= height or abs(right) >= width:
        return torch.zeros(levels, levels, dtype=torch.int64, device=grey.device)
    first = grey[: height - down, max(0, -right) : width - max(0, right)]
    second = grey[down:, max(0, right) : width + min(0, right)]
    one_way = torch.bincount((first * levels + second).flatten(), minlength=levels * levels).view(levels, levels)
    return one_way + one_way.T


def sums(counts: torch.Tensor, logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The totals over a matrix of counts, int64 [TOTALS], and its inverse difference moment, float64 []."""
    n = len(counts)
    index = torch.arange(n, device=counts.device)
    level = counts.sum(1)
    both = torch.zeros(2 * n, dtype=torch.int64, device=counts.device)
    apart = torch.zeros(n, dtype=torch.int64, device=counts.device)
    both.index_add_(
        0, (index[:, None] + index[None, :]).flatten(), counts.flatten()
    )  # whole numbers: any order gives the same
    apart.index_add_(0, (index[:, None] - index[None, :]).abs().flatten(), counts.flatten())
    sum_index = torch.arange(2 * n, device=counts.device)
    total = torch.zeros(TOTALS, dtype=torch.int64, device=counts.device)
    total[SQUARE] = (counts * counts).sum()
    total[LOG_CELLS] = (counts * logs[counts]).sum()
    total[PAIRS] = level.sum()
    total[I1], total[I2], total[LOG_I] = (level * index).sum(), (level * index * index).sum(), (level * logs[level]).sum()
    total[S2], total[LOG_S] = (both * sum_index * sum_index).sum(), (both * logs[both]).sum()
    total[D2], total[LOG_D] = (apart * index * index).sum(), (apart * logs[apart]).sum()
    total[SQUARE_D] = (apart * apart).sum()
    near = apart.double().cpu() / (1 + index.cpu() * index.cpu()).double()
    return total, near.cumsum(0)[-1].to(counts.device)


def finished(
    totals: torch.Tensor, moments: torch.Tensor, highest: int, n: int, scales: int, device: Device
) -> list[list[list[float]]]:
    """The features of totals [S * 4, 11]: [scale][direction][feature]."""
    features = device.empty(scales, DIRECTIONS, len(MEASUREMENTS), dtype=torch.float64)
    device.launch(
        "texture_finish",
        few_blocks(scales),
        totals=totals.contiguous().view(torch.uint64),
        moment=moments.contiguous(),
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
