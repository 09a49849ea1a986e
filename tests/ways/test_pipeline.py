"""The segmentation's kernels give the same bits in all their ways."""

import numpy as np
import torch
from scipy import ndimage

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.list_capacity import Capacity
from jumpgpu.segmentation.background import background_of, subtract_background
from jumpgpu.segmentation.declump import INTENSITY, JITTERED, contested_keys, find_seeds, single_seeds
from jumpgpu.segmentation.distance_transform import squared_distance
from jumpgpu.segmentation.gaussian import gaussian_taps, smooth, smooth_above
from jumpgpu.segmentation.label import (
    BACKGROUND,
    FOREGROUND,
    Kept,
    fill_holes,
    find_components,
    keep_objects,
    label_components,
    number_objects,
)
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.segmentation.planes import channel_planes, whole_planes
from jumpgpu.segmentation.threshold import above_threshold, entropy_rounds, find_extrema, find_threshold
from jumpgpu.settings.config import (
    BackgroundSettings,
    PrimarySettings,
    SecondarySettings,
    SegmentationSettings,
    ThresholdSettings,
)
from tests.simulators.ways import Way


def blobs(seed: int, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Smooth random values, 0..1."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (0,) * (len(shape) - 2) + (scale, scale))
    return (values - values.min()) / (values.max() - values.min())


def test_background(way: Way) -> None:
    pixels = torch.from_numpy(blobs(0, (2, 2, 23, 37), 2).astype(np.float32))
    settings = BackgroundSettings(block=6, filter_size=8)
    way.check(lambda device: subtract_background(device.tensor(pixels), 1, settings, device))
    way.check(lambda device: background_of(device.tensor(pixels), 1, settings, device))


def test_objects_kept_and_numbered(way: Way) -> None:
    random = np.random.default_rng(3)
    result = torch.tensor([0, 1, 150, 299])  # more labels than a block has threads
    area, border, filled = (torch.from_numpy(random.integers(0, n, (4, 300)).astype(np.int32)) for n in (60, 3, 2))

    def work(device: Device) -> object:
        there = device.tensor(result)
        kept = Kept(there, device.tensor(area), device.tensor(border), sizes=(10.5, 40.0))
        last = torch.arange(300, device=device.torch) > there[:, None]  # entries that are of no meaning
        alive = keep_objects(kept, device).masked_fill(last, 0)
        tables = number_objects(kept, device, device.tensor(filled), absent=True)
        return alive, [t.masked_fill(last, 0) if t.dim() == 2 else t for t in tables]

    way.check(work)


def test_cross_entropy(way: Way) -> None:
    pixels = torch.from_numpy(blobs(1, (2, 2, 5, 9), 1).astype(np.float32))
    pixels[0, :, 0, :2] = torch.tensor([0.5, 0.500003])  # closer than 1/65536: the search for the least gap ends at once
    pixels[1] = 0.25  # a constant field
    pixels[1, :, 0, 0] = 0.250003

    def work(device: Device) -> object:
        wide, narrow = whole_planes(device.tensor(pixels[:, 0].double())), channel_planes(device.tensor(pixels), 1)
        plain, log = ThresholdSettings(correction=1.1, lower=0.1), ThresholdSettings(log_transform=True)
        original, final = find_threshold(narrow, log, device)
        return find_threshold(wide, plain, device), original, above_threshold(narrow, final, 0.0, device)

    way.check(work)


def test_cross_entropy_in_cells(way: Way) -> None:
    pixels = torch.from_numpy(blobs(1, (3, 2, 5, 19), 1).astype(np.float32))
    pixels[0, :, 2:] = pixels[0, 0, 2, 3]  # most pixels in one cell
    pixels[1, :, 1:3] = pixels[1].amin()
    pixels[2] = 0.25

    def work(device: Device) -> object:
        result = []
        for planes in (whole_planes(device.tensor(pixels[:, 1].double())), channel_planes(device.tensor(pixels), 1)):
            thresholds = device.empty(2, 3, dtype=torch.float64)
            tolerance = torch.full((3,), 0.5 / 65536, dtype=torch.float64, device=device.torch)
            extrema = find_extrema(planes, device)
            for in_cells in (False, True):
                entropy_rounds(planes, extrema, tolerance, device, thresholds[int(in_cells)], in_cells=in_cells)
            assert torch.equal(thresholds[0], thresholds[1])
            result.append(thresholds)
        return tuple(result)

    way.check(work)


def test_least_gap_of_few_values() -> None:
    """Fibers only: the search over all 65537 cells is long for the interpreter."""
    values = torch.from_numpy(np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0], (2, 5, 7)))

    def work(device: Device) -> object:
        return find_threshold(whole_planes(device.tensor(values)), ThresholdSettings(), device)

    Way("fibers").check(work)


def test_otsu(way: Way) -> None:
    pixels = torch.from_numpy(blobs(2, (2, 1, 11, 19), 1).astype(np.float32))
    pixels[1, 0, :, 5:] = 0.5

    def work(device: Device) -> object:
        wide, narrow = whole_planes(device.tensor(pixels[:, 0].double())), channel_planes(device.tensor(pixels), 0)
        two = ThresholdSettings(method="otsu2")
        return find_threshold(wide, two, device), find_threshold(narrow, two, device)

    way.check(work)


def test_robust_background(way: Way) -> None:
    pixels = torch.from_numpy(blobs(8, (2, 5, 11), 1))
    pixels[1] = 0.5

    def work(device: Device) -> object:
        planes = whole_planes(device.tensor(pixels))
        mode = ThresholdSettings(method="robust_background", averaging="mode", variance="mad")
        mean = ThresholdSettings(method="robust_background", lower_outliers=0.1)
        return find_threshold(planes, mode, device), find_threshold(planes, mean, device)

    way.check(work)


def test_otsu_of_three_classes(way: Way) -> None:
    counts = torch.zeros((2, 17), dtype=torch.int32)
    counts[0] = torch.arange(17) % 5
    counts[1, 3:9] = 2
    extrema = torch.from_numpy(np.array([[0.0, 1.0], [0.1, 0.9]]).view(np.int64)).view(torch.uint64)

    def work(device: Device) -> object:
        results = []
        for single, upper in ((0, 0), (1, 1)):
            threshold = device.empty(2, dtype=torch.float64)
            device.launch(
                "otsu_3",
                2,
                counts=device.tensor(counts).view(torch.uint32),
                bins=17,
                n=40,
                extrema=extrema.to(device.torch),
                single=single,
                upper=upper,
                threshold=threshold,
            )
            results.append(threshold)
        return tuple(results)

    way.check(work)


def test_smooth(way: Way) -> None:
    images = torch.from_numpy(blobs(3, (2, 35, 49), 1) ** 4)
    threshold = torch.tensor([0.5, 0.6], dtype=torch.float64)

    def work(device: Device) -> object:
        inputs = device.tensor(images)
        taps = gaussian_taps(1.3)
        singles, limit = device.tensor(images.float().double()), device.tensor(threshold)
        return tuple(
            (smooth(image, taps, device, single=single), smooth_above(image, limit, taps, device, single=single))
            for image, single in ((inputs, False), (singles, True))
        )

    way.check(work)


def test_components_across_tiles(way: Way) -> None:
    four = torch.from_numpy((blobs(4, (1, 66, 67), 0.6) > 0.5).astype(np.uint8))  # tiles that meet in a corner
    wide = torch.from_numpy((blobs(4, (2, 5, 131), 1.5) > 0.5).astype(np.uint8))

    def work(device: Device) -> object:
        both = find_components(device.tensor(four), FOREGROUND | BACKGROUND, device)
        return both, find_components(device.tensor(wide), BACKGROUND, device), label_components(device.tensor(wide), device)

    way.check(work)


def test_distance(way: Way) -> None:
    labels = torch.from_numpy((blobs(5, (2, 19, 31), 2) * 4).astype(np.int32))
    wide = torch.ones((1, 2, 101), dtype=torch.int32)
    wide[0, 1, [0, 100]] = 0

    def work(device: Device) -> object:
        narrow = squared_distance(device.tensor(labels), device, outside=True)
        return narrow, squared_distance(device.tensor(wide), device, outside=False)

    way.check(work)


def test_seeds_by_shape_and_intensity(way: Way) -> None:
    values = blobs(6, (2, 9, 13), 1.5)
    values[1, 3:6, 4:8] = 1.0  # a plateau, shrunk to a point
    mask = (values > 0.45).astype(np.uint8)

    def work(device: Device) -> object:
        images, inside = device.tensor(torch.from_numpy(values)), device.tensor(torch.from_numpy(mask))
        components = find_components(inside, FOREGROUND | BACKGROUND, device)
        squared = squared_distance(components.filled, device, outside=False)
        shape, counts = find_seeds(images, inside, components, squared, PrimarySettings(suppression=2.0), device)
        settings = PrimarySettings(declump="intensity", suppression=2.0, smoothing=0.0)
        intensity, _ = find_seeds(images, inside, components, None, settings, device)
        return shape, counts, intensity, single_seeds(inside, components, shape, device)

    way.check(work)


def test_holes(way: Way) -> None:
    labels = torch.from_numpy((blobs(7, (2, 17, 29), 1.2) * 3.2).astype(np.int32))
    labels[1, 2:14, 2:20] = 4
    labels[1, 4:12, 4:16] = 0
    labels[1, 6:10, 6:12] = 5
    labels[1, 7:9, 8:10] = 0

    def work(device: Device) -> object:
        inputs = device.tensor(labels)
        return fill_holes(inputs, 6, device, objects=True), fill_holes(inputs, 6, device, objects=False)

    way.check(work)


def test_segmentation(way: Way) -> None:
    dna = np.zeros((2, 13, 23), np.float32)
    for field, y, x in ((0, 5, 5), (0, 6, 11), (0, 9, 21), (1, 6, 8)):
        yy, xx = np.mgrid[:13, :23]
        dna[field] = np.maximum(dna[field], np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / 8).astype(np.float32))
    pixels = torch.from_numpy(np.stack([dna * 0.5, np.sqrt(dna) * 0.3], 1))
    settings = SegmentationSettings(
        nuclei=PrimarySettings(background=None, min_diameter=3.0, suppression=2.0),
        cells=SecondarySettings(threshold=ThresholdSettings(method="manual", manual=0.05)),
        filter_border_nuclei=True,
    )

    def work(device: Device) -> object:
        return segment(device.tensor(pixels), ("DNA", "RNA"), settings, device)

    way.check(work)


def test_contested_pixels(way: Way) -> None:
    contested = torch.from_numpy((np.random.default_rng(4).random((2, 9, 43)) < 0.3).astype(np.uint8))
    squared = torch.from_numpy(np.random.default_rng(5).integers(1, 9, (2, 9, 43)).astype(np.int32))

    def work(device: Device) -> object:
        marks, depths = device.tensor(contested), device.tensor(squared)
        shape = contested_keys(marks, {"kind": JITTERED, "squared": depths}, device)
        return shape, contested_keys(marks, {"kind": INTENSITY, "image": depths.double()}, device, Capacity(0.1))

    way.check(work)
