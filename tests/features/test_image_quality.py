"""Image quality against what CellProfiler's own module gives (tests/helpers/oracles/image_quality.py made the numbers)."""

import numpy as np
import torch
from centrosome.threshold import get_otsu_threshold
from numpy.testing import assert_allclose

from jumpgpu.features import image_quality as quality
from tests.helpers.oracles.image_quality import draw

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
