"""Squared distances against SciPy's Euclidean transform of every label by itself."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.distance_transform import FAR, WIDEST, squared_distance


def expected(labels: np.ndarray, outside: bool) -> np.ndarray:
    out = np.zeros(labels.shape, np.int64)
    for field, result in zip(labels, out, strict=True):
        for label in np.unique(field[field > 0]):
            mask = field == label
            if outside:
                distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
            elif mask.all():
                result[:] = FAR
                continue
            else:
                distance = ndimage.distance_transform_edt(mask)
            result[mask] = np.rint(distance[mask] ** 2)
    return out


def cells(seed: int, shape: tuple[int, int, int], n: int, reach: float) -> np.ndarray:
    """Labels by nearest of n points, background beyond `reach`: touching regions, borders and gaps."""
    random = np.random.default_rng(seed)
    _, h, w = shape
    y, x = np.mgrid[:h, :w]
    labels = np.zeros(shape, np.int32)
    for field in labels:
        points = random.integers(0, [h, w], (n, 2))
        squared = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
        field[:] = np.where(squared.min(-1) <= reach**2, squared.argmin(-1) + 1, 0)
    return labels


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize(
    ("shape", "n", "reach"),
    [((2, 47, 83), 12, 9), ((2, 61, 300), 3, 400), ((1, 200, 151), 4, 90), ((2, 1, 290), 5, 30), ((1, 97, 1), 2, 8)],
)
def test_matches_scipy(device: Device, shape: tuple[int, int, int], n: int, reach: float, outside: bool) -> None:
    labels = cells(len(shape) + n, shape, n, reach)
    labels[:, : shape[1] // 8, : shape[2] // 8] = 0
    result = squared_distance(torch.from_numpy(labels), device, outside=outside)
    np.testing.assert_array_equal(result.numpy(), expected(labels, outside))


@pytest.mark.parametrize("outside", [True, False])
def test_empty_full_single_pixel_and_holes(device: Device, outside: bool) -> None:
    labels = np.zeros((4, 90, 260), np.int32)
    labels[1] = 7  # everything: with nothing outside there is no distance
    labels[2, 40, 50] = labels[2, 0, 0] = 3
    labels[3] = 1
    labels[3][np.random.default_rng(0).random(labels[3].shape) < 0.003] = 0
    result = squared_distance(torch.from_numpy(labels), device, outside=outside)
    np.testing.assert_array_equal(result.numpy(), expected(labels, outside))


def test_too_wide_is_an_error(device: Device) -> None:
    with pytest.raises(ValueError, match="at most"):
        squared_distance(torch.zeros((1, 1, WIDEST + 1), dtype=torch.int32), device)
