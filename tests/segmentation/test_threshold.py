"""Thresholds against scikit-image, centrosome and NumPy, as CellProfiler calls them."""

import centrosome.threshold
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import filters

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.planes import Planes, channel_planes, whole_planes
from jumpgpu.segmentation.threshold import find_threshold
from jumpgpu.settings.config import ThresholdSettings

TOLERANCE = 1e-6  # the agreement asked of thresholds; values are 0..1


def fields(dtype: type) -> np.ndarray:
    """Smooth bright spots on a noisy background; a field of 8-bit values; a saturated one; two values only."""
    random = np.random.default_rng(5)
    values = np.zeros((4, 71, 93))
    spots = ndimage.gaussian_filter((random.random((71, 93)) > 0.99).astype(float), 3)
    values[0] = spots * 4 + random.random((71, 93)) * 0.02
    values[1] = np.round(values[0] * 255) / 255
    values[2] = np.minimum(values[0] * 6, 1)
    values[3] = np.where(values[0] > 0.05, 0.75, 0.125)
    return values.clip(0, 1).astype(dtype)


def planes_of(values: np.ndarray, device: Device) -> Planes:
    if values.dtype == np.float64:
        return whole_planes(device.tensor(torch.from_numpy(values)))
    return channel_planes(device.tensor(torch.from_numpy(values[:, None].repeat(2, 1))), 1)


def entropy(values: np.ndarray) -> float:
    tolerance = max(np.diff(np.unique(values)).min() / 2, 0.5 / 65536)
    return float(filters.threshold_li(values.copy(), tolerance=tolerance))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("method", ["minimum_cross_entropy", "otsu2", "otsu3"])
def test_methods(device: Device, method: str, log: bool, dtype: type) -> None:
    values = fields(dtype)
    if method != "otsu2":
        values = values[:3]  # two values: three classes are refused, and the entropy stops earlier than in 0.18.3
    theirs = {
        "minimum_cross_entropy": entropy,
        "otsu2": filters.threshold_otsu,
        "otsu3": lambda v: filters.threshold_multiotsu(v, nbins=128)[1],
    }[method]
    settings = ThresholdSettings(method=method, log_transform=log, middle_class="background", correction=1.5, upper=0.4)
    original, final = find_threshold(planes_of(values, device), settings, device)
    for b, field in enumerate(values):
        if log:
            transformed, back = centrosome.threshold.log_transform(field)
            want = float(centrosome.threshold.inverse_log_transform(theirs(transformed), back))
        else:
            want = float(theirs(field))
        assert abs(original[b].item() - want) <= TOLERANCE, (b, original[b].item(), want)
        assert final[b].item() == min(max(original[b].item() * 1.5, 0.0), 0.4)


@pytest.mark.parametrize("averaging", ["mean", "median", "mode"])
@pytest.mark.parametrize("variance", ["sd", "mad"])
@pytest.mark.parametrize("lower", [0.0, 0.05])
def test_robust_background(device: Device, averaging: str, variance: str, lower: float) -> None:
    values = fields(np.float64)
    settings = ThresholdSettings(
        method="robust_background", averaging=averaging, variance=variance, lower_outliers=lower, deviations=1.5
    )
    original, _ = find_threshold(planes_of(values, device), settings, device)
    average = {"mean": np.mean, "median": np.median, "mode": centrosome.threshold.binned_mode}[averaging]
    spread = {"sd": np.std, "mad": centrosome.threshold.mad}[variance]
    for b, field in enumerate(values[:3]):
        ordered = np.sort(field.ravel())
        n = len(ordered)
        kept = ordered if round(n * lower) == 0 else ordered[round(n * lower) : n - round(n * 0.05)]
        assert abs(original[b].item() - (average(kept) + 1.5 * spread(kept))) <= TOLERANCE


@pytest.mark.parametrize("method", ["minimum_cross_entropy", "otsu2", "otsu3", "robust_background"])
@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_a_constant_field_has_its_value(device: Device, method: str, value: float) -> None:
    settings = ThresholdSettings(method=method, log_transform=True)
    original, _ = find_threshold(planes_of(np.full((2, 5, 7), value), device), settings, device)
    assert original.tolist() == [value, value]


def test_manual_and_unknown(device: Device) -> None:
    planes = planes_of(np.zeros((2, 3, 4)), device)
    _, final = find_threshold(planes, ThresholdSettings(method="manual", manual=0.3, upper=0.2), device)
    assert final.tolist() == [0.3, 0.3]
    with pytest.raises(ValueError, match=r"unknown threshold method 'otsu'.*minimum_cross_entropy"):
        find_threshold(planes, ThresholdSettings(method="otsu"), device)
