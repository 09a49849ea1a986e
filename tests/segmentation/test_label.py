"""Components, holes, seeds and outlines against SciPy and centrosome."""

import numpy as np
import pytest
import torch
from centrosome.cpmorphology import binary_shrink, fill_labeled_holes, is_local_maximum, strel_disk
from centrosome.outline import outline
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.declump import declump_taps, fill_small_holes, find_seeds, jitter
from jumpgpu.segmentation.distance_transform import squared_distance
from jumpgpu.segmentation.gaussian import edge_weights, gaussian_taps, smooth, smooth_above
from jumpgpu.segmentation.label import BACKGROUND, FOREGROUND, fill_holes, find_components, label_components
from jumpgpu.settings.config import PrimarySettings

EIGHT = np.ones((3, 3), bool)


def masks(seed: int, shape: tuple[int, int, int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    if seed % 3 == 0:
        return random.random(shape) < random.random()
    scale = random.choice([0.3, 1, 2])
    return np.asarray(ndimage.gaussian_filter(random.random(shape), (0, scale, scale)) > 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_components_and_their_numbers(device: Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = masks(seed, (2, int(random.integers(1, 150)), int(random.integers(1, 300))))
    given = torch.from_numpy(mask.astype(np.uint8))
    labels, counts = label_components(given, device)
    filled = find_components(given, FOREGROUND | BACKGROUND, device).filled.numpy()
    for b, field in enumerate(mask):
        theirs, n = ndimage.label(field, EIGHT)
        assert counts[b] == n
        np.testing.assert_array_equal(labels[b].numpy(), theirs)
        np.testing.assert_array_equal(filled[b], ndimage.binary_fill_holes(field))


@pytest.mark.parametrize("objects", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_holes_of_labels(device: Device, seed: int, objects: bool) -> None:
    """Rings within rings within touching labels. Where a hole lies in several holes of different labels either may win."""
    random = np.random.default_rng(seed)
    shape = (2, 61, 97)
    labels = np.zeros(shape, np.int32)
    y, x = np.mgrid[: shape[1], : shape[2]]
    for field in labels:
        points = random.integers(0, shape[1:], (4, 2))
        squared = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
        field[:] = np.where(masks(seed, (1, *shape[1:]))[0] | (random.random(shape[1:]) < 0.9), squared.argmin(-1) + 1, 0)
        for _ in range(3):
            cy, cx, radius = random.integers(0, shape[1]), random.integers(0, shape[2]), random.integers(2, 25)
            for r in range(radius, 0, -int(random.integers(2, 6))):
                field[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = random.choice([0, 0, 1, 2, 5])
    filled = fill_holes(torch.from_numpy(labels), 6, device, objects=objects).numpy()
    for ours, given in zip(filled, labels, strict=True):
        theirs = fill_labeled_holes(given) if objects else fill_labeled_holes(given, mask=given == 0)
        np.testing.assert_array_equal(ours, theirs)


def test_small_holes_are_filled_before_declumping(device: Device) -> None:
    mask = masks(1, (2, 71, 83))
    settings = PrimarySettings(max_diameter=4.0)
    ours = fill_small_holes(torch.from_numpy(mask.astype(np.uint8)), settings, device).numpy()
    for field, result in zip(mask, ours, strict=True):
        theirs = fill_labeled_holes(field, size_fn=lambda size, _: size < 16)
        np.testing.assert_array_equal(result, theirs)


@pytest.mark.parametrize("suppression", [2.0, 5.5, 8.0])
def test_seeds_by_shape(device: Device, suppression: float) -> None:
    mask = masks(5, (2, 131, 170))
    given = torch.from_numpy(mask.astype(np.uint8))
    components = find_components(given, FOREGROUND | BACKGROUND, device)
    squared = squared_distance(components.filled, device, outside=False)
    settings = PrimarySettings(suppression=suppression)
    ours, counts = find_seeds(torch.zeros(mask.shape, dtype=torch.float64), given, components, squared, settings, device)
    for b, field in enumerate(mask):
        labels = ndimage.label(field, EIGHT)[0]
        distance = ndimage.distance_transform_edt(fill_labeled_holes(labels) > 0) + jitter(*field.shape, device).numpy()
        maxima = binary_shrink(is_local_maximum(distance, labels, strel_disk(max(1, suppression - 0.5))))
        theirs, n = ndimage.label(maxima, EIGHT)
        np.testing.assert_array_equal(ours[b].numpy(), theirs)
        assert counts[b] == n


def test_seeds_by_intensity_with_plateaus(device: Device) -> None:
    mask = masks(4, (2, 90, 120))
    values = np.round(ndimage.gaussian_filter(np.random.default_rng(2).random(mask.shape), (0, 4, 4)), 2)
    given = torch.from_numpy(mask.astype(np.uint8))
    components = find_components(given, FOREGROUND, device)
    settings = PrimarySettings(declump="intensity", suppression=6.0, smoothing=0.0)
    ours, _ = find_seeds(torch.from_numpy(values), given, components, None, settings, device)
    for b, field in enumerate(mask):
        maxima = is_local_maximum(values[b], ndimage.label(field, EIGHT)[0], strel_disk(5.5))
        assert maxima.sum() > ndimage.label(maxima, EIGHT)[1]
        np.testing.assert_array_equal(ours[b].numpy(), ndimage.label(binary_shrink(maxima), EIGHT)[0])


@pytest.mark.parametrize("sigma", [0.74, 2.22, 7.3])
def test_smoothing(device: Device, sigma: float) -> None:
    images = np.random.default_rng(0).random((2, 37, 1100))
    taps = gaussian_taps(sigma)
    weight = np.outer(edge_weights(taps, 37), edge_weights(taps, 1100))
    threshold = torch.tensor([0.5, 0.48], dtype=torch.float64)
    above = smooth_above(torch.from_numpy(images), threshold, taps, device).numpy()
    for b, image in enumerate(images):
        theirs = ndimage.gaussian_filter(image, sigma, mode="constant") / (weight + np.finfo(float).eps)
        np.testing.assert_array_equal(above[b], theirs >= threshold[b].item())
    # Most of it dark, where nothing need be filtered: points on every border and beside where blocks and chunks end.
    dark = np.random.default_rng(1).random((2, 75, 1100)) / 1000
    dark[0][np.ix_([0, 7, 8, 31, 32, 55, 74], [0, 15, 16, 300, 511, 512, 700, 1023, 1024, 1099])] = 1
    weight = np.outer(edge_weights(taps, 75), edge_weights(taps, 1100))
    above = smooth_above(torch.from_numpy(dark), torch.tensor([0.002, 0.002], dtype=torch.float64), taps, device).numpy()
    assert above[0].any()
    assert not above[0].all()
    for b, image in enumerate(dark):
        theirs = ndimage.gaussian_filter(image, sigma, mode="constant") / (weight + np.finfo(float).eps)
        np.testing.assert_array_equal(above[b], theirs >= 0.002)
    declump = declump_taps(PrimarySettings(smoothing=7.0))
    ours = smooth(torch.from_numpy(images), declump, device).numpy()
    kernel = np.array([*declump[:0:-1], *declump])
    for b, image in enumerate(images):
        filtered, ones = (
            ndimage.convolve1d(ndimage.convolve1d(v, kernel, axis=0, mode="constant"), kernel, axis=1, mode="constant")
            for v in (image, np.ones_like(image))
        )
        np.testing.assert_allclose(ours[b], filtered / ones, rtol=1e-14)  # the edge weight's product rounds otherwise


@pytest.mark.parametrize("shrunk", [0, 1])
def test_cytoplasm(device: Device, shrunk: int) -> None:
    cells = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((9, 11))).astype(np.int32)[None].repeat(2, 0)
    nuclei = cells * masks(2, cells.shape)
    nuclei[1, :, :3] = 0
    cytoplasm = device.empty(*cells.shape, dtype=torch.int32)
    device.launch(
        "cytoplasm_of",
        cells.shape[0] * cells.shape[1],
        nuclei=torch.from_numpy(nuclei),
        cells=torch.from_numpy(cells),
        height=cells.shape[1],
        width=cells.shape[2],
        outline=shrunk,
        cytoplasm=cytoplasm,
    )
    for b in range(2):
        stays = (nuclei[b] == 0) | ((outline(nuclei[b]) > 0) if shrunk else False)
        np.testing.assert_array_equal(cytoplasm[b].numpy(), np.where(stays, cells[b], 0))


@pytest.mark.parametrize("sigma", [0.7, 1.0379, 5.0])
def test_smoothing_of_single_precision(device: Device, sigma: float) -> None:
    """SciPy gives an axis of a float32 image in float32: every bit is the same, and so is what reaches a threshold."""
    images = (np.random.default_rng(5).random((2, 41, 700)) ** 6).astype(np.float32)
    given, taps = torch.from_numpy(images).double(), gaussian_taps(sigma)
    edge = ndimage.gaussian_filter(np.ones(images.shape[1:]), sigma, mode="constant")
    result = smooth(given, taps, device, single=True).numpy()
    for image, ours in zip(images, result, strict=True):
        blurred = ndimage.gaussian_filter(image, sigma, mode="constant", cval=0)
        assert blurred.dtype == np.float32
        np.testing.assert_array_equal(ours, (blurred / edge).astype(np.float32))
    for rank in (0.1, 0.5, 0.9, 0.999):
        corrected = [ndimage.gaussian_filter(i, sigma, mode="constant") / (edge + np.finfo(float).eps) for i in images]
        limits = [float(np.quantile(c, rank, method="nearest")) for c in corrected]  # values that are there
        above = smooth_above(given, torch.tensor(limits, dtype=torch.float64), taps, device, single=True).numpy()
        for ours, theirs, limit in zip(above, corrected, limits, strict=True):
            np.testing.assert_array_equal(ours > 0, theirs >= limit)
