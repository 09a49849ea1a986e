"""The granular spectrum of whole images against SciPy and scikit-image, step by step as MeasureGranularity does it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from skimage.morphology import dilation, disk, erosion, reconstruction

from jumpgpu.gpu.device import Device
from jumpgpu.image_features import granularity
from jumpgpu.settings.config import GranularitySettings


def sample(image: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    i, j = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    return map_coordinates(image, (i * scale[0], j * scale[1]), order=1)


def expected(image: np.ndarray, settings: GranularitySettings) -> list[float]:
    half, again = settings.subsampling, settings.background_subsampling
    shape = np.array(image.shape) * half
    pixels = sample(image, shape, np.full(2, 1 / half)) if half < 1 else image.copy()
    small = shape * again
    back = sample(pixels, small, np.full(2, 1 / again)) if again < 1 else pixels
    back = dilation(erosion(back, disk(settings.radius)), disk(settings.radius))
    if again < 1:
        back = sample(back, shape, (small - 1) / (shape - 1))
    pixels = np.maximum(pixels - back, 0)
    eroded, result = pixels, []
    before = start = float(np.mean(pixels))
    for _ in range(settings.spectrum):
        eroded = erosion(eroded, disk(1))
        mean = float(np.mean(reconstruction(eroded, pixels, footprint=disk(1))))
        result.append((before - mean) * 100 / max(start, np.finfo(float).eps))
        before = mean
    return result


@pytest.mark.oracle
@pytest.mark.parametrize(
    "settings", [GranularitySettings(), GranularitySettings(0.5, 1.0, 4, 6), GranularitySettings(1.0, 0.5, 3, 5)]
)
def test_against_scipy(settings: GranularitySettings, device: Device) -> None:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:150, :190]
    planes = [
        rng.integers(300, 900, (150, 190)) + 4000 * (np.hypot((y + 9 * k) % 40 - 20, x % 46 - 23) < 9 + k) for k in (0, 3)
    ]
    images = np.stack(planes).astype(np.float32) / np.float32(65535)
    result = granularity.spectrum(device.tensor(torch.from_numpy(images)), settings, device)
    # NumPy's own mean of float32 begins the spectrum
    np.testing.assert_allclose(result, [expected(image, settings) for image in images], rtol=0, atol=1e-4)


def test_a_black_image_has_none(device: Device) -> None:
    assert not granularity.spectrum(torch.zeros(1, 64, 80), GranularitySettings(), device).any()
