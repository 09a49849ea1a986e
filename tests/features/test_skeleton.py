"""Skeletons and their branches: centrosome's, and what CellProfiler 4.2.8 makes of them, written in NumPy.

A pixel's share of length is a float32 sum, whose order of terms is not theirs: 1e-7 of a length.
"""

import numpy as np
import pytest
import torch
from centrosome import cpmorphology
from centrosome.propagate import propagate
from scipy import ndimage
from skimage.morphology import skeletonize

from jumpgpu.features import skeleton
from jumpgpu.gpu.device import Device


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of lines and blobs, and seed objects on some of them; the last field has neither."""
    random = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(random.random((3, 71, 93)), (0, 2.5, 2.5)) > 0.51
    seeds = np.zeros(masks.shape, np.int32)
    for k in range(2):
        blobs, _ = ndimage.label(ndimage.gaussian_filter(random.random((71, 93)), 4) > 0.53)
        seeds[k] = blobs
    masks[2] = False
    return masks, seeds


@pytest.mark.parametrize("seed", range(3))
def test_thinning_is_centrosomes(device: Device, seed: int) -> None:
    masks, _ = drawn(seed)
    ours = skeleton.thin(torch.from_numpy(masks), device).numpy()
    for mine, mask in zip(ours, masks, strict=True):
        np.testing.assert_array_equal(mine, cpmorphology.skeletonize(mask))


@pytest.mark.parametrize("seed", range(3))
def test_thinning_in_turns_is_scikit_images(device: Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = np.concatenate([drawn(seed)[0], random.random((6, 71, 93)) < np.linspace(0.3, 0.97, 6)[:, None, None]])
    masks[3, :, 0] = masks[4, 70] = True  # along the border
    ours = skeleton.thin_by_table(torch.from_numpy(masks), device).numpy()
    for mine, mask in zip(ours, masks, strict=True):
        np.testing.assert_array_equal(mine, skeletonize(mask))


@pytest.mark.parametrize(("seed", "hole_size"), [(0, 10), (1, None), (2, 3)])
def test_branches_are_cellprofilers(device: Device, seed: int, hole_size: int | None) -> None:
    masks, seeds = drawn(seed)
    lines = np.stack([skeletonize(m) for m in masks])
    result = skeleton.measure(torch.from_numpy(lines), torch.from_numpy(seeds), hole_size, device).numpy()
    for k in range(2):
        np.testing.assert_allclose(result[k, 1 : seeds[k].max() + 1], branches_of(lines[k], seeds[k], hole_size), rtol=1e-7)
    assert not result[2, 1:].any()


def branches_of(lines: np.ndarray, seeds: np.ndarray, hole_size: int | None) -> np.ndarray:
    """MeasureObjectSkeleton's four measures by label, step by step as CellProfiler 4.2.8 takes them."""
    square, count = np.ones((3, 3), bool), seeds.max()
    wide = ndimage.grey_dilation(seeds, footprint=square)
    centre = ndimage.grey_erosion(wide, footprint=square) > 0
    joined = (lines | (wide > 0)) & ~centre
    if hole_size is not None:
        joined = cpmorphology.fill_labeled_holes(
            joined, ~centre, lambda area, is_object: not is_object and area <= hole_size
        )
    joined = cpmorphology.skeletonize(joined)
    outside = joined & (wide == 0)
    of, way = propagate(np.zeros(lines.shape), wide, joined, 1)
    joined = joined & (of != 0)
    points = cpmorphology.branchpoints(joined)
    odd = joined[:-1, :-1] & joined[1:, :-1] & joined[:-1, 1:] & joined[1, 1]
    points[:-1, :-1][odd] = points[1:, 1:][odd] = True
    trunks = np.array([0, 0, 0, 1, 2])[cpmorphology.branchings(joined)]
    trunks[~ndimage.binary_dilation(outside, square)] = 0
    near = np.where(way > 1.5, 0, of)
    far = np.where(near > 0, 0, of)
    index = np.arange(1, count + 1)
    sums = [
        ndimage.sum(v, labels, index) for v, labels in ((trunks, near), (points, far), (cpmorphology.endpoints(joined), far))
    ]
    return np.stack([*sums, cpmorphology.skeleton_length(of * outside, index)], 1)
