"""Whole-number sums over label images against NumPy."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.label_sums import label_sums, shared_pixels


def labels_of(seed: int, n: int, shape: tuple[int, ...] = (2, 23, 37)) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.repeat(random.integers(0, n, (*shape[:2], shape[2])), 1, 2).astype(np.int32) * (random.random(shape) > 0.2)


@pytest.mark.oracle
def test_pixels_and_places(device: Device) -> None:
    labels = labels_of(0, 6)
    labels[0, :, 5:20] = 4  # long runs
    result = label_sums(device.tensor(labels.astype(np.int32)), 8, device).cpu().numpy()
    y, x = np.mgrid[:23, :37]
    for field, plane in enumerate(labels):
        for k, weight in enumerate((np.ones_like(x), x, y)):
            wanted = np.bincount(plane.ravel(), weight.ravel(), minlength=8).astype(int)
            assert result[field, 0, k] == 0
            assert result[field, 1:, k].tolist() == wanted[1:].tolist()


@pytest.mark.oracle
def test_what_two_sets_share(device: Device) -> None:
    first, second = (labels_of(k, n).astype(np.int32) for k, n in ((1, 4), (2, 7)))
    first[1] = second[1] = 3
    result = shared_pixels(device.tensor(first), device.tensor(second), 4, 7, device).cpu().numpy()
    for a, b, shared in zip(first, second, result, strict=True):
        wanted = np.bincount((a * 7 + b).ravel(), minlength=28).reshape(4, 7)
        wanted[0], wanted[:, 0] = 0, 0
        assert shared.tolist() == wanted.tolist()


def test_no_objects(device: Device) -> None:
    nothing = torch.zeros(1, 4, 5, dtype=torch.int32)
    assert label_sums(nothing, 1, device).tolist() == [[[0, 0, 0]]]
    assert shared_pixels(nothing, nothing, 1, 1, device).tolist() == [[[0]]]
