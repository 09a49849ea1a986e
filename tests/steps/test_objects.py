"""MaskObjects, and lines by Propagate, beside NumPy and centrosome as CellProfiler calls it."""

import numpy as np
import pytest
import torch
from centrosome.propagate import propagate
from numpy.testing import assert_array_equal
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.declump import find_seeds, separate
from jumpgpu.segmentation.label import FOREGROUND, find_components
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.config import PrimarySettings
from jumpgpu.steps.objects import mask_objects
from jumpgpu.steps.state import Image, State

Array = np.ndarray


def drawn(seed: int, shape: tuple[int, int] = (61, 83)) -> tuple[Array, Array]:
    """Labels of one field without gaps in their numbers, and a mask that crosses some of them."""
    random = np.random.default_rng(seed)
    spots = ndimage.gaussian_filter(random.random(shape), 3)
    labels = ndimage.label(spots > np.quantile(spots, 0.75))[0].astype(np.int32)
    smooth = ndimage.gaussian_filter(random.random(shape), 6)
    return labels, np.asarray(smooth > np.median(smooth))


def masked(labels: Array, mask: Array, step: kinds.MaskObjects) -> tuple[Array, Array, Array]:
    """Labels, parents and children as CellProfiler's MaskObjects makes them of one field."""
    mask = ~mask if step.invert else mask
    n = labels.max()
    if step.overlap == "cut":
        result = labels * mask
    else:
        index = np.arange(1, n + 1)
        inside, area = ndimage.sum(mask, labels, index), ndimage.sum(np.ones(labels.shape), labels, index)
        keep = {"any": inside > 0, "all": inside == area, "share": inside / area >= step.share}[step.overlap]
        result = np.where(np.hstack([[False], keep])[labels], labels, 0)
    there = np.unique(result[result > 0])
    children = np.isin(np.arange(1, n + 1), there).astype(float)
    if not step.renumber:
        return result, np.arange(1, result.max() + 1), children
    table = np.zeros(n + 1, int)
    table[there] = np.arange(1, len(there) + 1)
    return table[result], there, children


@pytest.mark.parametrize("renumber", [True, False])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("overlap", ["cut", "any", "all", "share"])
def test_mask_objects(overlap: str, invert: bool, renumber: bool, device: Device) -> None:
    fields = [drawn(0), drawn(1), drawn(2)]
    labels = torch.from_numpy(np.stack([f[0] for f in fields]))
    state = State()
    counts = labels.flatten(1).amax(1).to(torch.int32)
    unedited = labels.clone()
    state.add("All", labels, unedited, labels, counts)
    state.images["In"] = Image(torch.from_numpy(np.stack([f[1] for f in fields])))
    step = kinds.MaskObjects("All", "Left", mask="In", invert=invert, overlap=overlap, share=0.4, renumber=renumber)
    mask_objects(state, step, device)
    output = state.objects["Left"]
    theirs = [masked(*field, step) for field in fields]
    assert_array_equal(output.labels.numpy(), np.stack([t[0] for t in theirs]))
    assert_array_equal(state.measured["Left"]["Parent_All"].numpy(), np.concatenate([t[1] for t in theirs]))
    assert_array_equal(state.measured["All"]["Children_Left_Count"].numpy(), np.concatenate([t[2] for t in theirs]))
    assert output.counts == tuple(int(t[0].max()) for t in theirs)
    assert output.not_small is unedited


def test_mask_by_objects(device: Device) -> None:
    labels, mask = drawn(3)
    state = State()
    for name, plane in (("All", labels), ("Mask", mask.astype(np.int32))):
        image = torch.from_numpy(plane[None])
        state.add(name, image, image, image, image.flatten(1).amax(1).to(torch.int32))
    mask_objects(state, kinds.MaskObjects("All", "Left", by_objects="Mask", overlap="all"), device)
    theirs = masked(labels, mask, kinds.MaskObjects("All", "Left", overlap="all"))[0]
    assert_array_equal(state.objects["Left"].labels[0].numpy(), theirs)


@pytest.mark.parametrize("low_resolution", [True, False])
def test_lines_by_propagate(low_resolution: bool, device: Device) -> None:
    """Labels follow the shortest way within the mask from the same seeds as other lines, as centrosome's do."""
    random = np.random.default_rng(5)
    image = ndimage.gaussian_filter(random.random((97, 131)), 4)
    image = (image - image.min()) / np.ptp(image)
    settings = PrimarySettings(
        declump="intensity",
        dividing_lines="propagate",
        min_diameter=12.0,
        smoothing=4.0,
        suppression=5.0,
        low_resolution_maxima=low_resolution,
    )
    planes, mask = torch.from_numpy(image[None]), torch.from_numpy((image > 0.45)[None].astype(np.uint8))
    ours, n = separate(planes, mask, settings, device)
    seeds, _ = find_seeds(planes, mask, find_components(mask, FOREGROUND, device), None, settings, device, False, None)
    assert int(n) == int(seeds.max()) > 5
    theirs, _ = propagate(np.zeros(image.shape), seeds[0].numpy().astype(np.int32), image > 0.45, 1.0)
    assert_array_equal(ours[0].numpy(), theirs)
