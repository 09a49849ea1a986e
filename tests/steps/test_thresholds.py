"""Images that steps before a threshold left with signed zeros, or outside 0 and 1."""

import numpy as np
import pytest
import torch
from skimage.filters import threshold_li

from jumpgpu.gpu.device import Device
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.config import PrimarySettings, ThresholdSettings
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import State

IMAGE = np.random.default_rng(0).gamma(2.0, 0.03, (1, 60, 70)).clip(0, 1).astype(np.float32)


def run(image: np.ndarray, step: kinds.Step, device: Device) -> State:
    pixels = torch.from_numpy(image.astype(np.float32))
    return run_steps([kinds.Load("DNA", "DNA"), step], {"DNA": pixels}, {}, device)


@pytest.mark.parametrize("method", ["minimum_cross_entropy", "otsu2", "otsu3", "robust_background"])
def test_a_zero_with_a_sign_is_zero(method: str, device: Device) -> None:
    step = kinds.Threshold("DNA", "Out", ThresholdSettings(method))
    dark = IMAGE < 0.02
    signed, plain = (run(np.where(dark, np.float32(zero), IMAGE), step, device) for zero in (-0.0, 0.0))
    a, b = (float(state.image_measured["Threshold_OrigThreshold_Out"][0]) for state in (signed, plain))
    assert a == b
    assert torch.equal(signed.images["Out"].pixels, plain.images["Out"].pixels)
    if method == "minimum_cross_entropy":
        assert a == pytest.approx(threshold_li(np.where(dark, 0, IMAGE[0])), rel=1e-3)


@pytest.mark.parametrize(
    "image", [IMAGE - 0.05, IMAGE * 9, np.where(IMAGE < 0.02, np.nan, IMAGE)], ids=["negative", "above", "nan"]
)
@pytest.mark.parametrize("method", ["minimum_cross_entropy", "otsu2"])
def test_an_image_outside_0_and_1_is_refused(method: str, image: np.ndarray, device: Device) -> None:
    settings = ThresholdSettings(method)
    steps = (kinds.Threshold("DNA", "Out", settings), kinds.Primary("DNA", "Nuclei", PrimarySettings(threshold=settings)))
    for step in steps:
        with pytest.raises(ValueError, match=rf"image DNA has values from .* by {method} is of values from 0 to 1"):
            run(image, step, device)


def test_a_manual_threshold_is_of_any_image(device: Device) -> None:
    step = kinds.Threshold("DNA", "Out", ThresholdSettings("manual", manual=0.5, smoothing=0.0))
    image = IMAGE * 9 - 0.5
    assert np.array_equal(run(image, step, device).images["Out"].pixels.numpy(), image >= 0.5)
