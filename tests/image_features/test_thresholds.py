"""Thresholds of whole images, and how well a threshold parts one, against centrosome."""

import warnings

import centrosome.haralick
import centrosome.threshold as oracle
import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.image_features import quality, thresholds

# Both read float32 logarithms off sorted pixels; ours adds their squares in float64, theirs in float32.
RELATIVE = 1e-5


def drawn(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:97, :61]
    blobs = 9000.0 * ((y - 30) ** 2 + (x - 20) ** 2 < 200) + 21000.0 * ((y - 70) ** 2 + (x - 45) ** 2 < 150)
    image = rng.integers(200, 2000, (97, 61)) + blobs
    if kind == "saturated":
        image[10:20, 5:9] = 65535
    if kind == "dark":
        image[: 97 // 2] = 0
    return (image / 65535).astype(np.float32)


def arguments(method: str) -> tuple[str, dict]:
    name, _, variant = method.partition("_")
    if name == "Otsu":
        two, weighted = variant.startswith("2"), variant.endswith("W")
        foreground = "F" in variant
        return name, {
            "two_class_otsu": two,
            "use_weighted_variance": weighted,
            "assign_middle_to_foreground": foreground,
        }
    return name, {"object_fraction": int(variant) / 100} if name == "MoG" else {}


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["plain", "saturated", "dark"])
@pytest.mark.parametrize("method", thresholds.ALL)
def test_methods(method: str, kind: str, device: Device) -> None:
    image = drawn(kind)
    name, options = arguments(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = oracle.get_threshold(name, oracle.TM_GLOBAL, image, **options)[1]
    found = thresholds.threshold_of(method, np.sort(image.ravel()), image, device)
    assert found == pytest.approx(float(expected), rel=RELATIVE)


@pytest.mark.oracle
def test_a_sample_of_a_large_image(device: Device) -> None:
    image = np.tile(drawn("plain"), (9, 9))
    assert image.size > thresholds.SAMPLE
    expected = oracle.get_threshold("MoG", oracle.TM_GLOBAL, image, object_fraction=0.25)[1]
    found = thresholds.threshold_of("MoG_25", np.sort(image.ravel()), image, device)
    assert found == pytest.approx(float(expected), rel=RELATIVE)


@pytest.mark.parametrize("method", thresholds.ALL)
def test_one_value_is_its_own_threshold(method: str, device: Device) -> None:
    image = np.full((20, 30), 0.25, np.float32)
    assert thresholds.threshold_of(method, np.sort(image.ravel()), image, device) == pytest.approx(0.25)


def test_an_unknown_method_is_named(device: Device) -> None:
    with pytest.raises(ValueError, match="'Triangle'"):
        thresholds.threshold_of("Triangle", np.ones(4, np.float32), np.ones(4, np.float32), device)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["plain", "saturated", "dark"])
@pytest.mark.parametrize("masked", [False, True])
def test_how_well_a_threshold_parts_an_image(kind: str, masked: bool) -> None:
    image = drawn(kind)
    above = image > 0.02
    valid = np.random.default_rng(1).random(image.shape) > 0.3 if masked else np.ones(image.shape, bool)
    ours = valid if masked else None
    assert thresholds.weighted_variance(image, above, ours) == pytest.approx(
        float(oracle.weighted_variance(image, valid, above)), rel=1e-5
    )
    assert thresholds.sum_of_entropies(image, above, ours) == pytest.approx(
        float(oracle.sum_of_entropies(image, valid, above)), rel=1e-6
    )


def test_a_black_image_parts_into_nothing() -> None:
    image, none = np.zeros((5, 7), np.float32), np.zeros((5, 7), bool)
    assert thresholds.weighted_variance(image, none) == thresholds.sum_of_entropies(image, none) == 0


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["plain", "saturated", "dark"])
def test_correlations_of_eight_grey_levels(kind: str, device: Device) -> None:
    image = drawn(kind)
    scales = (1, 5, 20, 60)
    with np.errstate(invalid="ignore"):  # of one column there is none, which CellProfiler records as 0
        expected = [centrosome.haralick.Haralick(image, np.ones(image.shape, int), 0, s).H3()[0] for s in scales]
    assert quality.correlations(device.tensor(image), scales, device) == pytest.approx(np.nan_to_num(expected), rel=1e-9)


def test_correlations_that_do_not_exist_are_0(device: Device) -> None:
    assert quality.correlations(torch.full((5, 7), 0.5), (1, 6, 7, 100), device) == [0, 0, 0, 0]
