"""Image quality against what CellProfiler's own module gives (tests/helpers/oracles/image_quality.py made the numbers)."""

import numpy as np
import pytest
import torch
from centrosome.radial_power_spectrum import rps
from centrosome.threshold import get_otsu_threshold
from numpy.testing import assert_allclose

from jumpgpu.features import image_quality as quality
from jumpgpu.gpu.open import open_device
from jumpgpu.settings.names import CHANNELS
from tests.helpers.oracles.image_quality import draw
from tests.helpers.real import real_pixels
from tests.simulators.standin_cuda import standin
from tests.simulators.ways import assert_equal_bits

CELLPROFILER = {  # 4.2.8.1
    "Image_ImageQuality_FocusScore_DNA": 0.1342305041960873,
    "Image_ImageQuality_LocalFocusScore_DNA_10": 1.0753969688296157,
    "Image_ImageQuality_LocalFocusScore_DNA_20": 3.5991276631341216,
    "Image_ImageQuality_LocalFocusScore_DNA_5": 0.2604689153834014,
    "Image_ImageQuality_LocalFocusScore_DNA_50": 0.1376665198462468,
    "Image_ImageQuality_MADIntensity_DNA": 0.013702603057026863,
    "Image_ImageQuality_MaxIntensity_DNA": 1.0,
    "Image_ImageQuality_MeanIntensity_DNA": 0.0744376695421007,
    "Image_ImageQuality_MedianIntensity_DNA": 0.03820859268307686,
    "Image_ImageQuality_MinIntensity_DNA": 0.00012207217514514923,
    "Image_ImageQuality_PercentMaximal_DNA": 0.2,
    "Image_ImageQuality_PercentMinimal_DNA": 0.005555555555555556,
    "Image_ImageQuality_PowerLogLogSlope_DNA": -1.6476517166932545,
    "Image_ImageQuality_StdIntensity_DNA": 0.09995902329683304,
    "Image_ImageQuality_TotalArea_DNA": 18000.0,
    "Image_ImageQuality_TotalIntensity_DNA": 1339.8780517578125,
}


OTSU = "Image_ImageQuality_ThresholdOtsu_DNA_2W"  # the module's value is centrosome's


def test_quality_equals_cellprofiler(device):
    image = torch.from_numpy(draw())
    pixels = torch.stack([torch.zeros_like(image), image]).reshape(2, 1, *image.shape)  # a black field beside it
    got = quality.measure_images(pixels, ("DNA",), device).numpy()
    names = quality.columns(("DNA",))
    assert sorted(names) == sorted([*CELLPROFILER, OTSU])
    # CellProfiler sums float32 in float32: about 1e-7 a sum, and the roots and ratios of such sums
    otsu = get_otsu_threshold(draw())
    assert_allclose(got[1], [CELLPROFILER.get(n, otsu) for n in names], rtol=2e-6)
    black = dict(zip(names, got[0], strict=True))
    assert black.pop("Image_ImageQuality_TotalArea_DNA") == image.numel()
    assert black.pop("Image_ImageQuality_PercentMaximal_DNA") == 100
    assert black.pop("Image_ImageQuality_PercentMinimal_DNA") == 100
    assert_allclose(black.pop(OTSU), np.finfo(np.float32).eps, rtol=2e-6)  # its logarithms have a floor
    assert not any(black.values())


def test_quality_equals_cellprofiler_in_any_channel_order(device):
    image = torch.from_numpy(draw())
    pixels = torch.stack([image, image.flip(0) / 2]).reshape(1, 2, *image.shape)
    names = quality.columns(("RNA", "AGP"))
    got = dict(zip(names, quality.measure_images(pixels, ("RNA", "AGP"), device)[0].tolist(), strict=True))
    total = CELLPROFILER["Image_ImageQuality_TotalIntensity_DNA"]
    assert_allclose(got["Image_ImageQuality_TotalIntensity_RNA"], total, rtol=2e-6)  # float32 sums, as above
    assert_allclose(got["Image_ImageQuality_TotalIntensity_AGP"], total / 2, rtol=2e-6)
    assert np.argmax(["AGP" in n for n in names]) == 0


def test_scales_beyond_the_image_are_nan(device):
    """Columns stay whatever the image's size; the scales that fit are what they are alone."""
    pixels = torch.from_numpy(draw())[None, None, :37, :53].contiguous()
    got = dict(zip(quality.columns(("DNA",)), quality.measure_images(pixels, ("DNA",), device)[0].tolist(), strict=True))
    assert [n for n, v in got.items() if np.isnan(v)] == ["Image_ImageQuality_LocalFocusScore_DNA_50"]
    fitting = (5, 10, 20)
    alone = quality.measure_images(pixels, ("DNA",), device, fitting)[0].tolist()
    assert alone == [got[n] for n in quality.columns(("DNA",), fitting)]


class WithPtp(np.ndarray):
    """An array with the method that NumPy 2 took away and centrosome asks for."""

    def ptp(self):
        return np.ptp(np.asarray(self))


def expected(image: np.ndarray) -> dict[str, float]:
    """What the module computes, in float64: NumPy for sums and ranks, centrosome for the spectrum and the threshold."""
    x = image.astype(np.float64)
    n, middle = x.size, np.median(image)
    result = {
        "FocusScore": x.var() / x.mean(),
        "TotalArea": n,
        "TotalIntensity": x.sum(),
        "MeanIntensity": x.mean(),
        "MedianIntensity": middle,
        "StdIntensity": x.std(),
        "MADIntensity": np.median(np.abs(image - middle)),
        "MinIntensity": image.min(),
        "MaxIntensity": image.max(),
        "PercentMaximal": 100 * (image == image.max()).sum() / n,
        "PercentMinimal": 100 * (image == image.min()).sum() / n,
        "ThresholdOtsu_2W": get_otsu_threshold(image),
    }
    radii, _, power = rps(x.view(WithPtp))
    result["PowerLogLogSlope"] = np.polyfit(np.log(radii), np.log(power), 1)[0]
    for scale in (5, 10, 20, 50):
        rows, columns = (-(-size // scale) for size in x.shape)
        y, c = (np.arange(size) * parts // size for size, parts in zip(x.shape, (rows, columns), strict=True))
        cell = (y[:, None] * columns + c).ravel()
        count = np.bincount(cell)
        mean = np.bincount(cell, x.ravel()) / count
        score = np.bincount(cell, (x.ravel() - mean[cell]) ** 2) / count / mean
        result[f"LocalFocusScore_{scale}"] = score.var() / np.median(score)
    return result


def large_images() -> np.ndarray:
    """float32 [1, 2, 1080, 1071]: what a plate's images are like, of a field that is not square."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:1080, :1071]
    light = 300 + 100 * np.cos(y / 900) * np.cos(x / 700)
    for cy, cx, radius in rng.uniform((0, 0, 6), (1080, 1071, 30), (160, 3)):
        light += 4000 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / radius**2)
    planes = np.stack([rng.poisson(light), rng.poisson(light / 10) * 10]) / 65535 / (0.8 + 0.2 * np.cos(x / 1500))
    return planes.astype(np.float32).clip(0, 1)[None]


def assert_as_expected(pixels: np.ndarray, channels: tuple[str, ...], device) -> None:
    got = quality.measure_images(torch.from_numpy(pixels), channels, device).numpy()
    for b, field in enumerate(pixels):
        row = dict(zip(quality.columns(channels), got[b], strict=True))
        for channel, image in zip(channels, field, strict=True):
            for measure, value in expected(image).items():
                kind, _, end = measure.partition("_")
                name = f"Image_ImageQuality_{kind}_{channel}" + f"_{end}" * bool(end)
                # sums in float64 by other orders; the threshold's logarithms are float32, 2^-24 of values down to -7
                assert_allclose(row[name], value, rtol=1e-6 if kind == "ThresholdOtsu" else 1e-12, err_msg=name)


def test_images_as_large_as_real_ones(device):
    assert_as_expected(large_images(), ("DNA", "ER"), device)


def test_real_images(shared, device):
    assert_as_expected(real_pixels(shared, ("D14",)), CHANNELS, device)


def test_large_images_have_equal_bits_on_the_stand_in_for_cuda(device):
    """A 9 x 37 image has one piece of a scan; torch's CUDA scans and divisions differ from the CPU's in every large one."""
    pixels = torch.from_numpy(large_images())
    want = quality.measure_images(pixels, ("DNA", "ER"), device)
    with standin():
        gpu = open_device("cuda")
        assert_equal_bits(quality.measure_images(gpu.tensor(pixels), ("DNA", "ER"), gpu).cpu(), want, "stand-in")


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 73), (40, 33)])
def test_constant_images(device, value, size):
    """Of any size: no variance, no slope, a threshold at the value, but for the floor under a black image's logarithm."""
    pixels = torch.full((1, 1, *size), value)
    got = dict(
        zip(quality.columns(("DNA",), ()), quality.measure_images(pixels, ("DNA",), device, ())[0].tolist(), strict=True)
    )
    zero = ("FocusScore", "PowerLogLogSlope", "StdIntensity", "MADIntensity")
    assert [got.pop(f"Image_ImageQuality_{n}_DNA") for n in zero] == [0, 0, 0, 0]
    # the floor is 2^-23 above the darkest pixel; the logarithm is float32, of -16 at the least: 2^-21 off
    assert_allclose(got.pop(OTSU), value + np.finfo(np.float32).eps, rtol=5e-7)
    assert got.pop("Image_ImageQuality_TotalArea_DNA") == size[0] * size[1]
    assert_allclose(got.pop("Image_ImageQuality_TotalIntensity_DNA"), value * size[0] * size[1], rtol=1e-15)
    assert set(got.values()) == {value, 100.0}
