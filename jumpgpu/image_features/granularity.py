"""The granular spectrum of whole images (CellProfiler MeasureGranularity), which it measures of every image it is given.

Column k is the share of the mean of the sampled image without its background, in percent, that an opening by
reconstruction of size k takes away beyond size k - 1. The reconstructions are those of features/granularity.py; their means
are over the sampled pixels, not over those of an object at full resolution.
"""

import numpy as np
import torch

from ..features.granularity import SCALES, check, foreground_keys, levels_of, sampled, shaved
from ..gpu.device import Device
from ..segmentation.basins import find_basins
from ..settings.config import GranularitySettings

TOP = 0x7FFFFFFF  # a key is this less the bits of its value (jg.cuh: key_of)
LEAST = 2.220446049250313e-16
BAND = 32  # rows that a block adds up (granularity_spectrum.cu)


def spectrum(pixels: torch.Tensor, settings: GranularitySettings, device: Device) -> np.ndarray:
    """Percent, float64 [P, settings.spectrum], of planes float32 [P, H, W], 0..1.

    The mean that all is divided by is added in float32, by NumPy, as CellProfiler's is.
    """
    check(settings)
    planes, height, width = pixels.shape
    result = np.empty((planes, settings.spectrum))
    grid = sampled(height, width, settings, device)
    for p in range(planes):
        key = foreground_keys(pixels[p : p + 1].contiguous(), grid, settings, device)
        basins = find_basins(shaved(key, device), 4, device)
        levels = levels_of(basins, device)[0]
        bands = -(-basins.shape[1] // BAND)
        sums = device.empty(bands, SCALES, dtype=torch.float64)
        device.launch(
            "granularity_sums",
            bands,
            key=basins.key,
            basin=basins.basin,
            levels=levels,
            height=basins.shape[1],
            width=basins.shape[2],
            sums=sums,
        )
        start = np.mean(bits_of(key).view(torch.float32).cpu().numpy())
        means = sums.sum(0).cpu().numpy()[: settings.spectrum] / (basins.shape[1] * basins.shape[2])
        result[p] = -np.diff(means, prepend=float(start)) * 100 / max(float(start), LEAST)
    return result


def bits_of(key: torch.Tensor) -> torch.Tensor:
    """The bits of the values of one framed plane of keys, int32 [H, W]."""
    return (TOP - key.view(torch.int32)[0, 1:-1, 1:-1]).contiguous()
