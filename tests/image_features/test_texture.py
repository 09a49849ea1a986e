"""Haralick's features of a whole image against mahotas, as CellProfiler calls it."""

import mahotas
import numpy as np
import pytest
import torch
from skimage.exposure import rescale_intensity
from skimage.util import img_as_ubyte

from jumpgpu.features.texture import MEASUREMENTS
from jumpgpu.gpu.device import Device
from jumpgpu.image_features import texture


def drawn(kind: str) -> np.ndarray:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 65536, (41, 67)) / 65535
    if kind == "dim":  # most pixels are level 0, which counts
        image = image**4 / 40
    if kind in ("white", "black"):
        image[:] = kind == "white"
    return image.astype(np.float32)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["full", "dim", "white", "black"])
@pytest.mark.parametrize("levels", [256, 17])
def test_against_mahotas(kind: str, levels: int, device: Device) -> None:
    image = drawn(kind)
    grey = img_as_ubyte(image)
    if levels < 256:
        grey = rescale_intensity(grey, in_range=(0, 255), out_range=(0, levels - 1)).astype(np.uint8)
    result = texture.measure(device.tensor(torch.from_numpy(image)), (3, 11), levels, device)
    names, wanted = [], []
    for scale in (3, 11):
        for direction, features in enumerate(mahotas.features.haralick(grey, distance=scale)):
            for name, value in zip(MEASUREMENTS, features, strict=True):
                names.append(f"{name}_{{}}_{scale}_{direction:02d}_{levels}")
                wanted.append(value if np.isfinite(value) else 0.0)
    # logarithms in fixed point, 2^-41; InfoMeas2 is the root of a difference near 0
    np.testing.assert_allclose([result[n] for n in names], wanted, rtol=1e-9, atol=1e-9)
    assert sorted(result) == sorted(names)


def test_a_scale_beyond_the_image_gives_0(device: Device) -> None:
    result = texture.measure(torch.rand(9, 37), (12,), 256, device)
    assert set(result.values()) == {0.0}


def test_an_image_too_large_is_refused(device: Device) -> None:
    with pytest.raises(ValueError, match="4096 x 4096"):
        texture.measure(torch.zeros(1).expand(4096, 4096), (3,), 256, device)
