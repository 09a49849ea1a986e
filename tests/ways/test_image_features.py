"""Measures of whole images give the same bits in every way there is to run them."""

import numpy as np
import pytest
import torch

from jumpgpu.image_features import granularity, quality, texture, thresholds
from jumpgpu.segmentation.ranks import in_order_of_counts
from jumpgpu.settings.config import GranularitySettings

SCALES = {"within the image": (1, 3), "wider than it is high": (7, 16), "beyond it": (40,)}


def drawn(height: int, width: int, spread: float) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(3)) * spread


@pytest.mark.parametrize("scales", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("levels", [256, 17])
def test_texture_of_an_image_in_all_ways(way, scales, levels):
    pixels = drawn(13, 31, 0.04 if levels == 256 else 1.0)
    way.check(lambda device: torch.tensor([*texture.measure(device.tensor(pixels), scales, levels, device).values()]))


def test_correlations_of_grey_levels_in_all_ways(way):
    pixels = drawn(11, 29, 0.7) - 0.1
    way.check(lambda device: torch.tensor(quality.correlations(device.tensor(pixels), (1, 2, 5, 13, 30), device)))


def test_counts_in_order_in_all_ways(way):
    counts = torch.round(drawn(2, 300, 90.0))
    way.check(lambda device: in_order_of_counts(device.tensor(counts / 255), 255.0, device))


def test_running_variances_in_all_ways(way):
    values = np.sort(drawn(9, 41, 0.7).numpy().ravel())
    at = np.array([0, 1, 5, 200, 368])
    way.check(lambda device: torch.from_numpy(thresholds.running_variance(values, at, at, device).copy()))


def test_granularity_of_an_image_in_all_ways(way):
    pixels, settings = drawn(74, 38, 0.7)[None], GranularitySettings(0.5, 0.5, 3, 4)
    way.check(lambda device: torch.from_numpy(granularity.spectrum(device.tensor(pixels), settings, device)))
