"""Gaussians of single-precision images against SciPy, to the last bit, and tubes against centrosome."""

import numpy as np
import pytest
import torch
from centrosome.filter import hessian
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.gaussian import EPSILON, edge_weights, fits, gaussian_singles, gaussian_taps
from jumpgpu.steps.images import tubeness, tubeness_of_doubles

SIGMAS = (0.3, 2.0, 8.5, 60.0, 240.0)


def drawn(height: int = 61, width: int = 1101) -> np.ndarray:
    """Wider than one block's piece of a row."""
    return (np.random.default_rng(4).random((2, height, width)) ** 3).astype(np.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("sigma", SIGMAS)
def test_mirrored_at_the_border(sigma: float, device: Device) -> None:
    images = drawn()
    result = gaussian_singles(device.tensor(images), sigma, device, mirrored=True).cpu().numpy()
    for plane, image in zip(result, images, strict=True):
        np.testing.assert_array_equal(plane, ndimage.gaussian_filter(image, sigma, mode="reflect"))


@pytest.mark.oracle
@pytest.mark.parametrize("sigma", SIGMAS)
def test_over_the_weight_within_the_image(sigma: float, device: Device) -> None:
    images = drawn()
    taps = gaussian_taps(sigma, widest=1024)
    weight = edge_weights(taps, images.shape[1])[:, None] * edge_weights(taps, images.shape[2])
    result = gaussian_singles(device.tensor(images), sigma, device).cpu().numpy()
    for plane, image in zip(result, images, strict=True):
        wanted = ndimage.gaussian_filter(image, sigma, mode="constant") / (weight + EPSILON)
        np.testing.assert_array_equal(plane, wanted.astype(np.float32))


def test_how_wide_it_can_be() -> None:
    assert fits(256)
    assert not fits(257)


@pytest.mark.oracle
@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_tubeness(sigma: float, device: Device) -> None:
    image = drawn(50, 70)[:1]
    result = tubeness(device.tensor(image), sigma, device).cpu().numpy()[0]
    lines = hessian(ndimage.gaussian_filter(image[0], sigma), return_hessian=False, return_eigenvectors=False)
    wanted = -lines[:, :, 0] * (lines[:, :, 0] < 0) * sigma**2
    np.testing.assert_allclose(result, wanted, rtol=1e-12, atol=1e-18)
    in_torch = tubeness_of_doubles(torch.from_numpy(image), sigma)[0].numpy()
    np.testing.assert_allclose(result, in_torch, rtol=1e-14, atol=1e-18)  # torch's square root may be off by one unit
