"""Low-resolution maxima against SciPy's splines and centrosome, put together as CellProfiler's get_maxima does."""

import numpy as np
import pytest
import torch
from centrosome.cpmorphology import binary_shrink, fill_labeled_holes, is_local_maximum, strel_disk
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.declump import find_seeds, jitter
from jumpgpu.segmentation.declump_low import resample
from jumpgpu.segmentation.distance_transform import squared_distance
from jumpgpu.segmentation.label import BACKGROUND, FOREGROUND, find_components
from jumpgpu.settings.config import PrimarySettings
from tests.simulators.ways import Way

EIGHT = np.ones((3, 3), bool)


def theirs(values: np.ndarray, labels: np.ndarray, disk: np.ndarray, scale: float) -> np.ndarray:
    low = np.mgrid[0 : labels.shape[0] * scale, 0 : labels.shape[1] * scale].astype(float) / scale
    shrunk = ndimage.map_coordinates(values, low)
    maxima = is_local_maximum(shrunk, ndimage.map_coordinates(labels, low, order=0), disk)
    maxima[shrunk <= 0] = 0
    ratio = labels.shape[0] / maxima.shape[0]
    back = np.mgrid[0 : labels.shape[0], 0 : labels.shape[1]].astype(float) / ratio
    large = ndimage.map_coordinates(maxima.astype(float), back) > 0.5
    return np.asarray(ndimage.label(binary_shrink(large), EIGHT)[0])


@pytest.mark.parametrize("scale", [0.4, 2 / 3, 1.5, 2.5])
@pytest.mark.parametrize("shape", [(31, 47), (1, 9), (2, 5)])
def test_splines(device: Device, shape: tuple[int, int], scale: float) -> None:
    images = np.random.default_rng(0).random((2, *shape))
    grid = np.mgrid[0 : shape[0] * scale, 0 : shape[1] * scale].astype(float) / scale
    ours = resample(torch.from_numpy(images), scale, grid.shape[1:], device).numpy()
    for b in range(2):
        np.testing.assert_allclose(ours[b], ndimage.map_coordinates(images[b], grid), rtol=0, atol=1e-13)


@pytest.mark.parametrize("declump", ["shape", "intensity"])
@pytest.mark.parametrize(("diameter", "suppression"), [(15.0, 8.0), (20.0, None), (13.0, 5.0)])
def test_seeds(device: Device, diameter: float, suppression: float | None, declump: str) -> None:
    random = np.random.default_rng(int(diameter))
    images = ndimage.gaussian_filter(random.random((2, 150, 201)), (0, 5, 5))
    mask = images > 0.5
    given = torch.from_numpy(mask.astype(np.uint8))
    components = find_components(given, FOREGROUND | BACKGROUND, device)
    squared = squared_distance(components.filled, device, outside=False)
    settings = PrimarySettings(declump=declump, min_diameter=diameter, suppression=suppression, smoothing=0.0)
    ours, _ = find_seeds(torch.from_numpy(images), given, components, squared, settings, device)
    scale = 10 / diameter
    disk = strel_disk(max(1, (7 if suppression is None else suppression * scale + 0.5) - 0.5))
    for b in range(2):
        labels = ndimage.label(mask[b], EIGHT)[0]
        values = images[b]
        if declump == "shape":
            filled = fill_labeled_holes(labels) > 0
            values = ndimage.distance_transform_edt(filled) + jitter(*mask.shape[1:], device).numpy()
        expected = theirs(values, labels, disk, scale)
        assert expected.max() > 10
        np.testing.assert_array_equal(ours[b].numpy(), expected * mask[b])


def test_ways(way: Way) -> None:
    images = np.random.default_rng(1).random((2, 7, 9))
    mask = (images > 0.4).astype(np.uint8)

    def work(device: Device) -> object:
        inside = device.tensor(torch.from_numpy(mask))
        components = find_components(inside, FOREGROUND, device)
        settings = PrimarySettings(declump="intensity", min_diameter=15.0, suppression=2.0, smoothing=0.0)
        return find_seeds(device.tensor(torch.from_numpy(images)), inside, components, None, settings, device)

    way.check(work)
