"""The DNA background against SciPy's Gaussian over centrosome's blocks."""

import numpy as np
import pytest
import torch
from centrosome.cpmorphology import block
from numpy.testing import assert_allclose
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.background import background_of, subtract_background
from jumpgpu.settings.config import BackgroundSettings


def fields(shape: tuple[int, int, int, int]) -> np.ndarray:
    """float32 [B, C, H, W]: spots on light that falls off; the middle field, of three or more, is empty."""
    random = np.random.default_rng(shape)
    h, w = shape[2:]
    y, x = np.mgrid[:h, :w]
    light = 0.1 + 0.2 * np.exp(-((y / h - 0.3) ** 2) - (x / w - 0.6) ** 2)
    spots = ndimage.gaussian_filter(random.random(shape) > 0.999, (0, 0, 4, 4), output=np.float64) * 30
    pixels = (light + spots + random.normal(0, 0.003, shape)).clip(0, 1)
    pixels[0, :, h // 4 : h // 2, w // 4 : w // 2] = 1  # a saturated patch, wider than a block on large fields
    pixels[-1, :, h // 2 :, : w // 3] = 0.05  # a constant one
    if shape[0] > 2:
        pixels[1] = 0
    return np.asarray(pixels, np.float32)


def by_scipy(image: np.ndarray, settings: BackgroundSettings) -> np.ndarray:
    """Block minima, smoothed in doubles and divided by the smoothed ones, subtracted."""
    index, ids = block(image.shape, (settings.block, settings.block))
    minima = np.asarray(ndimage.minimum(image, index, ids), np.float64)[index]
    sigma = settings.filter_size / 2.35
    smooth, ones = (ndimage.gaussian_filter(v, sigma, mode="constant") for v in (minima, np.ones(image.shape)))
    return np.asarray((image - smooth / ones).clip(0, 1))


@pytest.mark.parametrize("shape", [(2, 2, 331, 457), (3, 1, 29, 95), (1, 2, 47, 2213)])
def test_background_of_odd_sizes(device: Device, shape: tuple[int, int, int, int]) -> None:
    settings = BackgroundSettings()
    assert all(n % settings.block for n in shape[2:])
    pixels = fields(shape)
    for channel in range(shape[1]):
        ours = subtract_background(torch.from_numpy(pixels), channel, settings, device).numpy()
        for b in range(shape[0]):
            theirs = by_scipy(pixels[b, channel].astype(np.float64), settings)
            # Both sum in doubles, in another order: terms of at most 1. Near 0 the difference has no digits of its own.
            assert_allclose(ours[b], theirs, rtol=1e-12, atol=1e-12)


def test_background_with_other_settings(device: Device) -> None:
    pixels = fields((2, 1, 130, 171))
    for settings in (BackgroundSettings(block=7, filter_size=20), BackgroundSettings(block=200, filter_size=9)):
        ours = subtract_background(torch.from_numpy(pixels), 0, settings, device).numpy()
        for b in range(2):
            theirs = by_scipy(pixels[b, 0].astype(np.float64), settings)
            assert_allclose(ours[b], theirs, rtol=1e-12, atol=1e-12)  # as above


@pytest.mark.parametrize("settings", [BackgroundSettings(), BackgroundSettings(13, 111), BackgroundSettings(200, 9)])
def test_background_as_cellprofiler_stores_it(device: Device, settings: BackgroundSettings) -> None:
    """In float32, rounded after each axis: to the last bit."""
    pixels = fields((2, 2, 131, 257))
    ours = background_of(torch.from_numpy(pixels), 1, settings, device).numpy()
    for b in range(2):
        index, ids = block(pixels.shape[2:], (settings.block, settings.block))
        minima = np.asarray(ndimage.minimum(pixels[b, 1], index, ids), np.float32)[index]
        sigma = settings.filter_size / 2.35
        smooth, ones = (ndimage.gaussian_filter(v, sigma, mode="constant") for v in (minima, np.ones(minima.shape)))
        assert smooth.dtype == np.float32
        assert np.array_equal(ours[b], (smooth / (ones + np.finfo(float).eps)).astype(np.float32))
