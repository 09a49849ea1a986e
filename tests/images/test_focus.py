"""Saturation and sharpness of raw images: against NumPy's covariance, and against what they should and should not notice."""

import numpy as np
import pytest
from scipy import ndimage

from jumpgpu.images.focus import EVERY, check_image, count_image

RNG = np.random.default_rng(8)
FIELD = ndimage.gaussian_filter(RNG.uniform(0, 1, (160, 240)), 1.5)
FIELD = np.rint(2000 + 20000 * (FIELD - FIELD.min()) / np.ptp(FIELD)).astype(np.uint16)


def sharpness(image: np.ndarray) -> float:
    return check_image(count_image(image))[1]


def test_it_is_vollaths_measure_over_the_covariance_of_neighbours() -> None:
    rows = FIELD[::EVERY].astype(float)
    here, one, two = rows[:, :-2].ravel(), rows[:, 1:-1].ravel(), rows[:, 2:].ravel()
    near, far = np.cov(here, one)[0, 1], np.cov(here, two)[0, 1]
    assert sharpness(FIELD) == pytest.approx((near - far) / near, rel=1e-9)


def test_blur_lowers_it_and_gain_offset_and_noise_do_not() -> None:
    sharp = sharpness(FIELD)
    blurred = [sharpness(np.rint(ndimage.gaussian_filter(FIELD.astype(float), s)).astype(np.uint16)) for s in (1, 2, 4)]
    assert sharp > 1.2 * blurred[0] > 1.2 * blurred[1] > 1.2 * blurred[2] > 0
    assert sharpness(2 * FIELD + 500) == pytest.approx(sharp, rel=1e-12)
    noisy = FIELD + RNG.normal(0, 0.3 * FIELD.std(), FIELD.shape)
    assert sharpness(np.rint(noisy).astype(np.uint16)) == pytest.approx(sharp, rel=0.05)


def test_saturation_is_the_share_of_full_counts() -> None:
    image = FIELD.copy()
    image[3, :12] = 65535
    assert check_image(count_image(image))[0] == 12 / image.size
    assert check_image(count_image(FIELD))[0] == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (40, 50)])
def test_a_constant_or_tiny_image_has_no_sharpness(shape: tuple[int, int]) -> None:
    assert np.isnan(sharpness(np.full(shape, 77, np.uint16)))
