"""Intensity of whole images against NumPy, whose functions CellProfiler calls; a pipeline's own quality measures."""

import numpy as np
import pytest
import torch

from jumpgpu.features import image_quality
from jumpgpu.gpu.device import Device
from jumpgpu.image_features import intensity, quality
from jumpgpu.segmentation.ranks import ascending


def expected(values: np.ndarray) -> dict[str, float]:
    wide = values.astype(float)
    median = np.median(values)
    return {
        "TotalIntensity": wide.sum(),
        "MeanIntensity": wide.mean(),
        "MedianIntensity": float(median),
        "StdIntensity": wide.std(),
        "MADIntensity": float(np.median(np.abs(values - median))),
        "MaxIntensity": float(values.max()),
        "MinIntensity": float(values.min()),
        "TotalArea": values.size,
        "PercentMaximal": 100 * np.mean(values == values.max()),
        "LowerQuartileIntensity": float(np.percentile(wide, 25)),
        "UpperQuartileIntensity": float(np.percentile(wide, 75)),
        "Percentile_3": float(np.percentile(wide, 3)),
        "Percentile_97": float(np.percentile(wide, 97)),
    }


@pytest.mark.oracle
@pytest.mark.parametrize("n", [1, 2, 3, 16, 517, 3001])
@pytest.mark.parametrize("sign", [1, -1])
def test_measures_of_values(n: int, sign: int, device: Device) -> None:
    values = (np.random.default_rng(n).integers(0, 900, n) / 65535).astype(np.float32) * np.float32(sign)
    result = intensity.measure(intensity.values_of(device.tensor(values), device), (3, 97))
    wanted = expected(values)
    assert list(result) == list(wanted)
    # sums in float64 on both sides, in another order
    np.testing.assert_allclose(list(result.values()), list(wanted.values()), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [255.0, 4095.0, 65535.0])
def test_counts_come_into_order_as_any_values(scale: float, device: Device) -> None:
    """And where one pixel is none of them."""
    counts = np.random.default_rng(2).integers(0, int(scale) + 1, 70_000).astype(np.float32)
    for odd in (None, 69_999):
        values = counts / np.float32(scale)
        if odd is not None:
            values[odd] = np.nextafter(values[odd], np.float32(1))
        of_counts = ascending(torch.from_numpy(values)[None], device, scale)
        np.testing.assert_array_equal(of_counts[0].numpy(), np.sort(values))


def test_no_pixel_gives_0_and_infinite_ones_are_left_out(device: Device) -> None:
    assert set(intensity.measure(intensity.values_of(torch.zeros(0), device), (10,)).values()) == {0.0}
    values = torch.tensor([0.5, float("nan"), 0.25, float("inf")])
    result = intensity.measure(intensity.values_of(values, device))
    assert (result["TotalArea"], result["TotalIntensity"], result["MaxIntensity"]) == (2, 0.75, 0.5)


def test_quality_is_that_of_the_image_quality_family(device: Device) -> None:
    """The same kernels by another way; scales of the pipeline's own, one of them beyond the image's smaller side."""
    rng = np.random.default_rng(5)
    image = device.tensor(torch.from_numpy((rng.integers(0, 3000, (70, 90)) / 65535).astype(np.float32)))
    family = image_quality.measure_images(image[None, None], ("DNA",), device, (7, 20))[0].tolist()
    named = dict(zip(image_quality.columns(("DNA",), (7, 20)), family, strict=True))
    values = intensity.values_of(image, device)
    result = quality.measure(image, values, (7, 20, 80), ("Otsu_2W", "MCT"), device)
    for name, value in named.items():
        assert result[name.removeprefix("Image_ImageQuality_").replace("DNA", "{}")] == value, name
    assert {"LocalFocusScore_{}_80", "Correlation_{}_7", "ThresholdMCT_{}"} <= set(result)
    only = quality.measure(image, values, (), ("Kapur",), device, blur=False, saturation=False, intensity=False)
    assert list(only) == ["ThresholdKapur_{}"]
