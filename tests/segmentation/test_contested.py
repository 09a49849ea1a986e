"""Contested pixels are listed and ranked as torch's nonzero and sort do it."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.list_capacity import Capacity
from jumpgpu.segmentation.declump import DISTANCE, INTENSITY, JITTERED, contested_keys, jitter

OUTSIDE = 0xFFFFFFFF


def drawn(share: float, shape: tuple[int, int, int] = (3, 37, 53)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(3)
    contested = (random.random(shape) < share).astype(np.uint8)
    contested[1] = 0  # an empty field inside a batch
    images = torch.from_numpy(random.integers(0, 40, shape) / 64)  # many are equal
    squared = torch.from_numpy(random.integers(1, 9, shape).astype(np.int32))
    return torch.from_numpy(contested), images, squared


def expected(contested: torch.Tensor, depth: torch.Tensor) -> np.ndarray:
    place = torch.nonzero(contested.view(-1)).view(-1)
    order = torch.sort(depth.view(-1)[place], stable=True).indices
    keys = torch.full((contested.numel(),), OUTSIDE, dtype=torch.int64)
    keys[place[order]] = torch.arange(len(place))
    return np.pad(keys.view(contested.shape).numpy(), ((0, 0), (1, 1), (1, 1)), constant_values=OUTSIDE).astype(np.uint32)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 1.0])
@pytest.mark.parametrize("kind", [INTENSITY, DISTANCE, JITTERED])
def test_keys(kind: int, share: float, device: Device) -> None:
    contested, images, squared = drawn(share)
    depth = 1.0 - images if kind == INTENSITY else -torch.sqrt(squared.double())
    if kind == JITTERED:
        depth = depth - jitter(37, 53, device)
    landscape = {"kind": kind, "image": images} if kind == INTENSITY else {"kind": kind, "squared": squared}
    want = expected(contested, depth)
    np.testing.assert_array_equal(contested_keys(contested, landscape, device).numpy(), want)
    np.testing.assert_array_equal(contested_keys(contested, landscape, device, Capacity(1.0)).numpy(), want)


def test_a_list_that_is_too_short_is_filled_and_says_so(device: Device) -> None:
    contested, images, _ = drawn(0.6)
    capacity = Capacity(0.1)
    keys = contested_keys(contested, {"kind": INTENSITY, "image": images}, device, capacity).numpy()
    places = -(-contested.numel() // 10)
    listed = np.flatnonzero(keys != OUTSIDE)
    assert sorted(keys.ravel()[listed]) == list(range(places))
    framed = np.pad(contested.numpy(), ((0, 0), (1, 1), (1, 1)))
    np.testing.assert_array_equal(listed, np.flatnonzero(framed)[:places])  # the first ones in raster order
    counts = [int(c) for c in capacity.counts]
    assert counts == [int(contested.sum())]
    assert not capacity.enough(counts)
    assert capacity.share > counts[0] / contested.numel()
    assert capacity.give(torch.tensor(counts[0]), contested.numel()) >= counts[0]
    assert capacity.enough(counts)
    assert capacity.counts == []


def test_one_pixel_and_each_border(device: Device) -> None:
    contested = torch.zeros(4, 5, 7, dtype=torch.uint8)
    for field, (y, x) in enumerate(((0, 0), (0, 6), (4, 0), (4, 6))):
        contested[field, y, x] = 1
    want = expected(contested, torch.zeros(contested.shape, dtype=torch.float64))
    result = contested_keys(contested, {"kind": INTENSITY, "image": torch.ones(4, 5, 7, dtype=torch.float64)}, device)
    np.testing.assert_array_equal(result.numpy(), want)
