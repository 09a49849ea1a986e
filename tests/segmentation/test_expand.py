"""Growing seeds: SciPy's nearest seed and centrosome's propagation, to the pixel."""

import numpy as np
import pytest
import torch
from centrosome.propagate import propagate as centrosome_propagate
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.expand import grow_by_distance, propagate, propagate_distances
from jumpgpu.segmentation.planes import channel_planes
from tests.simulators.ways import Way


def drawn(seed: int, shape: tuple[int, int, int], density: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(random.random(shape), (0, 2, 2)).astype(np.float32)
    seeds = np.zeros(shape, np.int32)
    points = random.random(shape) < density
    seeds[points] = random.permutation(points.sum()) + 1
    seeds[0, 1:4, 2:6] = 1000
    return image, (ndimage.gaussian_filter(random.random(shape), (0, 3, 3)) > 0.47).astype(np.uint8), seeds


@pytest.mark.parametrize("reach", [0, 1, 4, 30])
def test_distance_takes_scipys_nearest_seed(device: Device, reach: int) -> None:
    for density in (0.002, 0.05):
        _, _, seeds = drawn(reach, (3, 41, 57), density)
        seeds[2] = 0
        labels = grow_by_distance(torch.from_numpy(seeds), reach, device).numpy()
        for ours, given in zip(labels, seeds, strict=True):
            if not given.any():
                assert not ours.any()
                continue
            distance, (y, x) = ndimage.distance_transform_edt(given == 0, return_indices=True)
            np.testing.assert_array_equal(ours, np.where(distance <= reach, given[y, x], 0))


@pytest.mark.parametrize("weight", [0.0, 0.001, 0.05, 1.0, 10.0])
def test_propagation_is_centrosomes(device: Device, weight: float) -> None:
    image, mask, seeds = drawn(7, (2, 61, 83), 0.004)
    planes = channel_planes(torch.from_numpy(image[:, None].repeat(2, 1)), 1)
    inputs = torch.from_numpy(mask), torch.from_numpy(seeds)
    labels = propagate(planes, *inputs, weight, device).numpy()
    np.testing.assert_array_equal(labels, propagate(planes, *inputs, weight, device, rounds=0))
    for b in range(2):
        theirs, _ = centrosome_propagate(image[b].astype(np.float64), seeds[b], mask[b] > 0, weight)
        np.testing.assert_array_equal(labels[b], theirs)


def test_propagation_without_weight_ends_in_flat_images(device: Device) -> None:
    """Where no step costs anything the lowest label that a way leads to wins, in any order of tiles."""
    image, mask, seeds = drawn(7, (2, 61, 83), 0.004)
    planes = channel_planes(torch.from_numpy(np.zeros_like(image)[:, None]), 0)
    inputs = torch.from_numpy(np.ones_like(mask)), torch.from_numpy(seeds)
    labels = propagate(planes, *inputs, 0.0, device).numpy()
    np.testing.assert_array_equal(labels, propagate(planes, *inputs, 0.0, device, rounds=0))
    given = seeds > 0
    np.testing.assert_array_equal(labels[given], seeds[given])
    assert (labels > 0).all()


def test_ways(way: Way) -> None:
    image, mask, seeds = drawn(3, (2, 5, 8), 0.06)

    def work(device: Device) -> object:
        planes = channel_planes(device.tensor(torch.from_numpy(image[:, None])), 0)
        start = device.tensor(torch.from_numpy(seeds))
        grown = propagate(planes, device.tensor(torch.from_numpy(mask)), start, 0.05, device)
        return grown, grow_by_distance(start, 3, device)

    way.check(work)


@pytest.mark.parametrize(("levels", "weight"), [(3, 0.0), (12, 0.0), (60, 0.05), (60, 1.0)])
def test_ways_of_one_length_are_taken_as_from_centrosomes_queue(device: Device, levels: int, weight: float) -> None:
    """Few counts, so that many ways are equally long; the lowest label is not always the first in the queue."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, levels, (2, 150, 130)).astype(np.float32) / np.float32(255)
    seeds = np.zeros(image.shape, np.int32)
    for k, (y, x) in enumerate(rng.integers(5, 120, (30, 2)), 1):
        seeds[:, y : y + 4, x : x + 5] = k
    mask = (ndimage.uniform_filter(rng.random(image.shape), (0, 7, 7)) > 0.47).astype(np.uint8)
    inputs = channel_planes(torch.from_numpy(image[:, None]), 0), torch.from_numpy(mask), torch.from_numpy(seeds)
    labels, _ = propagate_distances(*inputs, weight, device, queued=True)
    theirs = [
        centrosome_propagate(i.astype(np.float64), s, m > 0, weight)[0] for i, s, m in zip(image, seeds, mask, strict=True)
    ]
    np.testing.assert_array_equal(labels, theirs)
    if (levels, weight) == (3, 0.0):
        assert (propagate(*inputs, weight, device).numpy() != theirs).any()
