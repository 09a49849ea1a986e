"""The watershed against a sequential queue in the same order: equal labels everywhere."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.segmentation.watershed import watershed
from tests.helpers.reference.flood import flood


def values_of(kind: str, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    if kind == "noise":
        return rng.random(shape) - 0.5
    if kind == "smooth":
        return ndimage.gaussian_filter(rng.random(shape), (0, 2, 2))
    if kind == "ties":
        return rng.integers(0, 4, shape).astype(float)
    return np.zeros(shape)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("kind", ["noise", "smooth", "ties", "constant"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_watershed(device: Device, kind: str, connectivity: int, dtype: type) -> None:
    rng = np.random.default_rng([connectivity, len(kind)])
    for inside, seeded in ((1.0, 0.02), (0.9, 0.002), (0.6, 0.2)):
        shape = (3, 29, 41)
        values = values_of(kind, rng, shape).astype(dtype)
        mask = rng.random(shape) < inside
        mask[1] = False  # an empty field inside the batch
        seeds = np.where(rng.random(shape) < seeded, rng.integers(1, 9, shape), 0).astype(np.int32)
        seeds[0, 0, 0] = 2**31 - 1  # the largest label, on the border
        got = watershed(*(torch.from_numpy(a) for a in (values, mask, seeds)), device, connectivity)
        want = np.stack([flood(*field, connectivity) for field in zip(values, mask, seeds, strict=True)])
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("workers", [1, 3])
def test_ways_longer_than_a_band(workers: int) -> None:
    """Descents that wind through all rows, up and down, wider than the stretches that are passed over together."""
    height, width = 40, 200
    walls = np.zeros((height, width), bool)
    walls[1:, 1::4] = walls[:-1, 3::4] = True
    y, x = np.mgrid[:height, :width]
    values = (x * height + np.where(x // 2 % 2, height - y, y)).astype(np.float32)
    values = np.stack([values, -values])
    mask = np.stack([~walls, ~walls])
    mask[:, :, 70:140] &= y[:, 70:140] == np.where(x[:, 70:140] // 2 % 2, height - 1, 0)
    seeds = np.zeros(values.shape, np.int32)
    seeds[:, 5, [0, 64]] = 3, 7
    seeds[:, 20, 198] = 9
    got = watershed(*(torch.from_numpy(a) for a in (values, mask, seeds)), open_device("cpu", workers), 4)
    want = np.stack([flood(*field, 4) for field in zip(values, mask, seeds, strict=True)])
    assert set(np.unique(want)) == {0, 3, 7, 9}
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (17, 1), (2, 2)])
def test_thin_fields(device: Device, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 3, (2, *shape)).astype(np.float32)
    mask = np.ones((2, *shape), bool)
    seeds = np.zeros((2, *shape), np.int32)
    seeds[:, -1, -1] = 3
    got = watershed(*(torch.from_numpy(a) for a in (values, mask, seeds)), device)
    np.testing.assert_array_equal(got.numpy(), np.stack([flood(*field) for field in zip(values, mask, seeds, strict=True)]))


def test_what_no_seed_reaches_stays_0(device: Device) -> None:
    values = np.arange(35, dtype=np.float32).reshape(1, 5, 7)
    mask = np.ones((1, 5, 7), bool)
    mask[:, :, 3] = False
    seeds = np.zeros((1, 5, 7), np.int32)
    seeds[0, 2, 1] = 4
    seeds[0, 2, 3] = 9  # outside the mask: does not count
    got = watershed(*(torch.from_numpy(a) for a in (values, mask, seeds)), device).numpy()[0]
    assert (got[:, :3] == 4).all()
    assert (got[:, 3:] == 0).all()


def test_refused(device: Device) -> None:
    values, seeds = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match="connectivity must be 4 or 8, got 6"):
        watershed(values, torch.ones(1, 4, 4, dtype=torch.bool), seeds, device, 6)
    with pytest.raises(ValueError, match="mask is"):
        watershed(values, torch.ones(1, 4, 5, dtype=torch.bool), seeds, device)
