"""Floods with many equals: scikit-image's watershed and centrosome's propagation, to the pixel."""

import numpy as np
import pytest
import torch
from centrosome.propagate import propagate as centrosome_propagate
from scipy import ndimage
from skimage.segmentation import watershed as skimage_watershed

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.queue import flood_in_queue, spread_in_queue


def drawn(seed: int, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights of few levels, a mask with holes, and seeds of several pixels, some outside the mask."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.random((2, 61, 83)), (0, 2, 2))
    heights = np.floor((smooth - smooth.min()) / np.ptp(smooth) * levels) / levels
    mask = ndimage.gaussian_filter(random.random(heights.shape), (0, 3, 3)) > 0.48
    seeds = np.zeros(heights.shape, np.int32)
    points = random.random(heights.shape) < 0.01
    seeds[points] = random.permutation(points.sum()) + 1
    seeds[0, 3:6, 4:8] = 500
    return heights, mask, seeds


@pytest.mark.parametrize("levels", [1, 100_000])
def test_watershed_is_scikit_images(device: Device, levels: int) -> None:
    """Where all are equal, or hardly any; between the two later versions of scikit-image take neighbours in another
    order than 0.18.3."""
    heights, mask, seeds = drawn(levels, levels)
    ours = flood_in_queue(torch.from_numpy(heights), torch.from_numpy(mask), torch.from_numpy(seeds), device).numpy()
    for k in range(2):
        theirs = skimage_watershed(heights[k], seeds[k], connectivity=np.ones((3, 3), bool), mask=mask[k])
        np.testing.assert_array_equal(ours[k], theirs)


@pytest.mark.parametrize("levels", [2, 3, 20])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_watershed_among_equals_is_a_queue(device: Device, levels: int, dtype: type) -> None:
    heights, mask, seeds = drawn(levels, levels)
    heights = (heights - 0.3).astype(dtype)  # some below 0
    heights[0, :20] *= -0.0 if dtype is np.float32 else 1.0
    ours = flood_in_queue(torch.from_numpy(heights), torch.from_numpy(mask), torch.from_numpy(seeds), device).numpy()
    for k in range(2):
        np.testing.assert_array_equal(ours[k], twin(heights[k], mask[k], np.where(mask[k], seeds[k], 0)))


def twin(heights: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """scikit-image 0.18.3's watershed, whose output on these very images this was held against."""
    height, width = heights.shape
    queue: list[tuple[float, int, int]] = []
    age = 0

    def push(entry: tuple[float, int, int]) -> None:
        queue.append(entry)
        child = len(queue) - 1
        while child and queue[child][:2] < queue[parent := (child - 1) // 2][:2]:
            queue[child], queue[parent] = queue[parent], queue[child]
            child = parent

    def pop() -> int:
        first, last = queue[0][2], queue.pop()
        if queue:
            queue[0], i = last, 0
            while (left := 2 * i + 1) < len(queue):
                minimum = left if queue[left][:2] < queue[i][:2] else i
                if left + 1 < len(queue) and queue[left + 1][:2] < queue[minimum][:2]:
                    minimum = left + 1
                if minimum == i:
                    break
                queue[i], queue[minimum] = queue[minimum], queue[i]
                i = minimum
        return first

    for place in np.flatnonzero(labels):
        push((heights.flat[place], 0, int(place)))
    while queue:
        place = pop()
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            y, x = place // width + dy, place % width + dx
            if 0 <= y < height and 0 <= x < width and mask[y, x] and not labels[y, x]:
                labels[y, x] = labels.flat[place]
                age += 1
                push((heights[y, x], age, y * width + x))
    return labels


def test_an_order_by_raster_would_not_do(device: Device) -> None:
    """What the kernel is for: among equals the first come goes first, from either seed in turn."""
    heights, mask = np.zeros((1, 1, 9)), np.ones((1, 1, 9), bool)
    seeds = np.zeros((1, 1, 9), np.int32)
    seeds[0, 0, 0], seeds[0, 0, 8] = 1, 2
    labels = flood_in_queue(torch.from_numpy(heights), torch.from_numpy(mask), torch.from_numpy(seeds), device)
    assert labels[0, 0].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("seed", range(4))
def test_ways_are_centrosomes(device: Device, seed: int) -> None:
    _, mask, seeds = drawn(seed, 3)
    labels, way = spread_in_queue(torch.from_numpy(mask), torch.from_numpy(seeds), device)
    for k in range(2):
        theirs, distance = centrosome_propagate(np.zeros(mask[k].shape), seeds[k], mask[k], 1)
        np.testing.assert_array_equal(labels[k].numpy(), theirs)
        np.testing.assert_array_equal(way[k].numpy(), distance)
