"""Kernels beside their library rivals, in the same run on the same data: CPU seconds, median and spread, and their ratio.

    python -m benchmarks.kernels [--only watershed ...] [--repeats 5] [--json FILE]

A case is a function with the decorator `case`: it takes a `Setting` and returns our work, and the rival's by name. Work is a
callable without arguments; what both need is made before, so that neither is charged for it. To add a kernel, add a case.
"""

import argparse
import contextlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_li
from skimage.measure import regionprops_table
from skimage.morphology import disk, reconstruction
from skimage.segmentation import expand_labels
from skimage.segmentation import watershed as flood_by_age
from torch.nn import functional

from benchmarks.machine import Spread, machine, seconds, write_json
from jumpgpu.features import area_shape as shape
from jumpgpu.features import correlation, costes, granularity, intensity, texture
from jumpgpu.features import radial_distribution as radial
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.features.order_statistics import order_statistics
from jumpgpu.gpu.cpu import decode_lzw
from jumpgpu.gpu.device import ITEMS, Device
from jumpgpu.gpu.open import open_device
from jumpgpu.image_features import granularity as image_granularity
from jumpgpu.image_features import texture as image_texture
from jumpgpu.image_features.thresholds import threshold_of
from jumpgpu.networks import crops
from jumpgpu.segmentation.background import background_of
from jumpgpu.segmentation.basins import find_basins
from jumpgpu.segmentation.distance_transform import squared_distance
from jumpgpu.segmentation.expand import grow_by_distance, propagate
from jumpgpu.segmentation.gaussian import gaussian_singles, gaussian_taps, smooth
from jumpgpu.segmentation.label import label_components
from jumpgpu.segmentation.label_sums import label_sums, shared_pixels
from jumpgpu.segmentation.planes import whole_planes
from jumpgpu.segmentation.ranks import order_by_quicksort
from jumpgpu.segmentation.threshold import find_threshold
from jumpgpu.segmentation.watershed import watershed
from jumpgpu.settings.config import BackgroundSettings, FeatureSettings, GranularitySettings, ThresholdSettings
from jumpgpu.steps.images import tubeness


@dataclass(frozen=True)
class Setting:
    """What every case gets: the device, and one drawn field of `size` x `size` pixels with about `cells` cells."""

    device: Device
    size: int = 1080
    cells: int = 90
    seed: int = 1

    @cached_property
    def nuclei(self) -> np.ndarray:
        """int32 [H, W]: disks that do not touch, numbered in raster order."""
        rng = np.random.default_rng(self.seed)
        centres = np.zeros((self.size, self.size), bool)
        centres[tuple(rng.integers(15, self.size - 15, (2, self.cells)))] = True
        result, _ = ndimage.label(ndimage.distance_transform_edt(~centres) < 14)
        return result.astype(np.int32)

    @cached_property
    def cells_of_nuclei(self) -> np.ndarray:
        """int32 [H, W]: what is within 30 pixels of a nucleus, to the nearest."""
        distance, at = ndimage.distance_transform_edt(self.nuclei == 0, return_indices=True)
        return np.where(distance < 30, self.nuclei[tuple(at)], 0).astype(np.int32)

    @cached_property
    def image(self) -> np.ndarray:
        """float32 [H, W] in 0..1: bright, textured cells on a dim background, with shot noise of a 16-bit camera."""
        rng = np.random.default_rng(self.seed + 1)
        texture = ndimage.gaussian_filter(rng.standard_normal(self.nuclei.shape), 3) * 8
        inside = ndimage.gaussian_filter((self.cells_of_nuclei > 0).astype(float), 4)
        expected = 400 + 2500 * inside * np.exp(0.4 * texture)
        return (rng.poisson(expected) / 65535).astype(np.float32)

    def batch(self, compartments: tuple[str, ...], channels: tuple[str, ...]) -> ObjectBatch:
        labels = {"Cells": self.cells_of_nuclei, "Nuclei": self.nuclei}
        labels["Cytoplasm"] = np.where(labels["Nuclei"] > 0, 0, labels["Cells"])
        pixels = np.stack([np.roll(self.image, 7 * c, 1) for c in range(len(channels))])[None]
        tensors = {c: self.device.tensor(labels[c][None]) for c in compartments}
        return make_batch(channels, self.device.tensor(pixels), tensors, {}, self.device)


Work = Callable[[], object]
Case = Callable[[Setting], tuple[Work, dict[str, Work]]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    """Registers a case under its function's name."""
    CASES[make.__name__] = make
    return make


@case
def watershed_8(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Cells of one field from its nuclei, eight neighbours."""
    depth, seeds = 1 - setting.image, setting.nuclei
    mask = (setting.cells_of_nuclei > 0) | (ndimage.gaussian_filter(setting.image, 2) > 0.012)
    tensors = [setting.device.tensor(a[None]) for a in (depth, mask, seeds)]
    return lambda: watershed(*tensors, setting.device), {
        "skimage.segmentation.watershed": lambda: flood_by_age(depth, seeds, np.ones((3, 3)), mask=mask)
    }


@case
def reconstruction_16(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """One half-resolution plane: 16 erosions and their reconstructions, as levels of basins; the rival writes 16 images."""
    plane = np.ascontiguousarray(setting.image[::2, ::2])
    height, width = plane.shape
    bits = np.full((1, height + 2, width + 2), 0xFFFFFFFF, np.uint32)
    bits[0, 1:-1, 1:-1] = 0x7FFFFFFF - plane.view(np.uint32)
    key = setting.device.tensor(bits)

    def rival() -> None:
        eroded = plane
        for _ in range(16):
            eroded = ndimage.grey_erosion(eroded, footprint=disk(1))
            reconstruction(eroded, plane, footprint=disk(1))

    return lambda: granularity.levels_of(find_basins(key, 4, setting.device), setting.device), {
        "skimage.morphology.reconstruction": rival
    }


@case
def texture_image(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """13 Haralick features of a whole image, three scales, four directions, 256 levels."""
    from mahotas.features import haralick

    pixels = setting.device.tensor(setting.image)
    levels = np.rint(setting.image * 255).astype(np.uint8)
    return lambda: image_texture.measure(pixels, (3, 5, 10), 256, setting.device), {
        "mahotas.features.haralick": lambda: [haralick(levels, distance=scale) for scale in (3, 5, 10)]
    }


@case
def otsu_3(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Otsu's threshold of three classes of a whole image, its pixels in order (theirs sorts them)."""
    from centrosome.threshold import get_otsu_threshold

    image = setting.image
    ordered = np.sort(image.ravel())
    return lambda: threshold_of("Otsu_3FW", ordered, image, setting.device), {
        "centrosome.threshold": lambda: get_otsu_threshold(image, two_class_otsu=False)
    }


@case
def granularity_image(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The granular spectrum of a whole image, 16 scales; the rival takes no background from it."""
    plane = np.ascontiguousarray(setting.image[::4, ::4])

    def rival() -> None:
        eroded = plane
        for _ in range(16):
            eroded = ndimage.grey_erosion(eroded, footprint=disk(1))
            reconstruction(eroded, plane, footprint=disk(1)).mean()

    pixels = setting.device.tensor(setting.image[None])
    return lambda: image_granularity.spectrum(pixels, GranularitySettings(), setting.device), {
        "skimage.morphology.reconstruction": rival
    }


@case
def opening_10(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The background of one channel: an opening with a disk of radius 10 at a quarter of the resolution."""
    plane = np.ascontiguousarray(setting.image[::4, ::4])
    tensor = setting.device.tensor(plane[None])
    return lambda: granularity.opening(tensor, 10, setting.device), {
        "scipy.ndimage": lambda: ndimage.grey_opening(plane, footprint=disk(10))
    }


@case
def granularity_field(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The spectrum of one compartment in one channel, 16 scales."""
    from cp_measure.core.measuregranularity import get_granularity

    batch, wanted = setting.batch(("Cells",), ("RNA",)), FeatureSettings(granularity=GranularitySettings())
    return lambda: granularity.measure(batch, wanted, setting.device), {
        "cp_measure": lambda: get_granularity(
            setting.cells_of_nuclei, setting.image, subsample_size=0.5, image_sample_size=0.5, element_size=10
        )
    }


@case
def squared_distance_nuclei(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Distance of every nucleus's pixel to the nearest that is not its own; the rival's to the background."""
    labels = setting.device.tensor(setting.nuclei[None])
    return lambda: squared_distance(labels, setting.device), {
        "scipy.ndimage.distance_transform_edt": lambda: ndimage.distance_transform_edt(setting.nuclei)
    }


@case
def components(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Eight-connected components of what is bright."""
    mask = setting.image > 0.02
    tensor = setting.device.tensor(mask[None].astype(np.uint8))
    return lambda: label_components(tensor, setting.device), {
        "scipy.ndimage.label": lambda: ndimage.label(mask, np.ones((3, 3)))
    }


@case
def smooth_3(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """A Gaussian of sigma 3 in float64; torch's as two convolutions."""
    plane = setting.image.astype(np.float64)
    tensor, taps = setting.device.tensor(plane[None]), gaussian_taps(3.0)
    column = torch.tensor(taps, dtype=torch.float64)[None, None, :, None]
    reach = len(taps) // 2

    def by_torch() -> torch.Tensor:
        across = functional.conv2d(tensor[None], column, padding=(reach, 0))
        return functional.conv2d(across, column.transpose(2, 3), padding=(0, reach))

    return lambda: smooth(tensor, taps, setting.device), {
        "scipy.ndimage.gaussian_filter": lambda: ndimage.gaussian_filter(plane, 3, mode="constant"),
        "torch.nn.functional.conv2d": by_torch,
    }


@case
def cross_entropy_threshold(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The minimum cross-entropy threshold of one field."""
    planes = whole_planes(setting.device.tensor(setting.image[None]))
    return lambda: find_threshold(planes, ThresholdSettings(), setting.device), {
        "skimage.filters.threshold_li": lambda: threshold_li(setting.image)
    }


@case
def propagate_cells(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Cells of one field from its nuclei by the shortest way over the image."""
    from centrosome.propagate import propagate as by_queue

    mask, image = setting.cells_of_nuclei > 0, setting.image.astype(np.float64)
    planes = whole_planes(setting.device.tensor(setting.image[None]))
    tensors = [setting.device.tensor(a[None]) for a in (mask.astype(np.uint8), setting.nuclei)]
    return lambda: propagate(planes, *tensors, 0.05, setting.device), {
        "centrosome.propagate": lambda: by_queue(image, setting.nuclei, mask, 0.05)
    }


@case
def grow_10(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Nuclei grown by ten pixels."""
    seeds = setting.device.tensor(setting.nuclei[None])
    return lambda: grow_by_distance(seeds, 10, setting.device), {
        "skimage.segmentation.expand_labels": lambda: expand_labels(setting.nuclei, 10)
    }


@case
def texture_cells(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """13 Haralick features of every cell in one channel, three scales, four directions, 256 levels."""
    import mahotas

    batch = setting.batch(("Cells",), ("RNA",))
    levels = np.round(setting.image * 255).astype(np.uint8)

    def rival() -> None:
        for k, box in enumerate(ndimage.find_objects(setting.cells_of_nuclei), start=1):
            crop = np.where(setting.cells_of_nuclei[box] == k, levels[box], 0)
            for scale in (3, 5, 10):
                with contextlib.suppress(ValueError):  # no pairs
                    mahotas.features.haralick(crop, distance=scale, ignore_zeros=True)

    return lambda: texture.measure(batch, FeatureSettings(), setting.device), {"mahotas.features.haralick": rival}


@case
def shape_cells(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """54 measures of every cell's shape, 30 Zernike moments among them; each rival makes a part of them."""
    from centrosome.zernike import get_zernike_indexes, zernike

    batch, numbers = setting.batch(("Cells",), ("RNA",)), np.arange(1, setting.cells_of_nuclei.max() + 1)
    names = ("area", "eccentricity", "euler_number", "extent", "feret_diameter_max", "moments_hu", "perimeter", "solidity")
    return lambda: shape.measure(fresh(batch), FeatureSettings(), setting.device), {
        "skimage.measure.regionprops_table": lambda: regionprops_table(setting.cells_of_nuclei, properties=names),
        "centrosome.zernike": lambda: zernike(get_zernike_indexes(10), setting.cells_of_nuclei, numbers),
    }


@case
def order_of_pixels(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Every cell's pixels sorted, and every pixel's dense rank among all cells' of the field, in one channel."""
    batch = setting.batch(("Cells",), ("RNA",))
    inside = setting.cells_of_nuclei > 0
    labels, values = setting.cells_of_nuclei[inside], setting.image[inside]
    keys = torch.from_numpy((labels.astype(np.int64) << 32) | values.view(np.int32))
    plain = torch.from_numpy(values)

    def by_numpy() -> None:
        np.lexsort((values, labels))
        np.unique(values, return_inverse=True)

    return lambda: order_statistics(fresh(batch), setting.device), {
        "numpy.lexsort and numpy.unique": by_numpy,
        "torch.sort and torch.unique": lambda: (torch.sort(keys), torch.unique(plain, return_inverse=True)),
    }


@case
def intensity_cells(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Intensity of every cell in one channel, its order statistics included."""
    from cp_measure.core.measureobjectintensity import get_intensity

    batch = setting.batch(("Cells",), ("RNA",))
    image = setting.image.astype(np.float64)
    return lambda: intensity.measure(fresh(batch), FeatureSettings(), setting.device), {
        "cp_measure": lambda: get_intensity(setting.cells_of_nuclei, image)
    }


@case
def radial_cells(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Radial distribution of every cell in one channel, four rings."""
    from cp_measure.bulk import get_core_measurements

    batch, image = setting.batch(("Cells",), ("RNA",)), setting.image.astype(np.float64)
    rival = get_core_measurements()["radial_distribution"]
    return lambda: radial.measure(fresh(batch), FeatureSettings(), setting.device), {
        "cp_measure": lambda: rival(setting.cells_of_nuclei, image)
    }


@case
def correlation_cells(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Correlation, overlap, Manders and RWC of every cell in two channels, ranks included."""
    from cp_measure.bulk import get_correlation_measurements

    batch = setting.batch(("Cells",), ("DNA", "RNA"))
    first, second = (batch.pixels[0, c].numpy().astype(np.float64) for c in range(2))
    rivals = [f for name, f in get_correlation_measurements().items() if name != "costes"]
    return lambda: correlation.measure(fresh(batch), FeatureSettings(), setting.device), {
        "cp_measure": lambda: [f(first, second, setting.cells_of_nuclei) for f in rivals]
    }


@case
def decode_lzw_image(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """One image of 16 bits, one strip of TIFF's LZW."""
    import imagecodecs

    raw = np.round(setting.image * 65535).astype(np.uint16)
    data = imagecodecs.lzw_encode(raw.tobytes())
    strips, out = np.array([[0, len(data), 0, raw.nbytes]]), np.empty(raw.nbytes, np.uint8)
    return lambda: decode_lzw(data, strips, out), {"imagecodecs": lambda: imagecodecs.lzw_decode(data, out=raw.nbytes)}


@case
def crops_64(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """64 crops of 96 x 96 in five channels, each normalised by its own mean and deviation; roi_align normalises none."""
    batch, pixels, channel = crops_of(setting)
    ours, rule = crops.CropRule(96, 96), torch.arange(5)
    corner = batch.origin.to(torch.float32)
    boxes = torch.cat([torch.zeros(64, 1), corner.flip(1), corner.flip(1) + 96], 1)

    def work() -> torch.Tensor:
        counts = crops.count(batch, channel, (96, 96), False, setting.device)
        return crops.cut(batch, channel, *crops.moments(counts), ours, setting.device)

    def loop() -> torch.Tensor:
        result = torch.empty(64, 5, 96, 96)
        for i, (y, x) in enumerate(batch.origin.tolist()):
            crop = pixels[0, rule, y : y + 96, x : x + 96]
            deviation, mean = torch.std_mean(crop, (1, 2), correction=0, keepdim=True)
            result[i] = (crop - mean) / deviation
        return result

    return work, {"a torch loop": loop, **by_roi_align(pixels, boxes, 96)}


@case
def crops_224(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The same crops resized to 224 x 224, bilinear, masked by the cell; roi_align neither masks nor normalises."""
    batch, pixels, channel = crops_of(setting)
    rule, labels = crops.CropRule(96, 224, "bilinear", masked=True), batch.labels[0]
    unit = torch.ones(64, 5)
    corner = batch.origin.to(torch.float32)
    boxes = torch.cat([torch.zeros(64, 1), corner.flip(1), corner.flip(1) + 96], 1)

    def loop() -> torch.Tensor:
        result = torch.empty(64, 5, 224, 224)
        for i, ((y, x), number) in enumerate(zip(batch.origin.tolist(), batch.number.tolist(), strict=True)):
            box = slice(y, y + 96), slice(x, x + 96)
            crop = pixels[0][:, *box] * (labels[box] == number)
            result[i] = functional.interpolate(crop[None], size=(224, 224), mode="bilinear")[0]
        return result

    ours = lambda: crops.cut(batch, channel, unit * 0, unit, rule, setting.device)  # noqa: E731
    return ours, {"a torch loop": loop, **by_roi_align(pixels, boxes, 224)}


def by_roi_align(pixels: torch.Tensor, boxes: torch.Tensor, size: int) -> dict[str, Work]:
    """torchvision's crops; none where there is no torchvision that fits torch."""
    try:
        from torchvision.ops import roi_align
    except (ImportError, RuntimeError) as error:
        print(f"no torchvision.ops.roi_align: {error}")
        return {}
    return {"torchvision.ops.roi_align": lambda: roi_align(pixels, boxes, size, sampling_ratio=1, aligned=True)}


def crops_of(setting: Setting) -> tuple[crops.CropBatch, torch.Tensor, torch.Tensor]:
    """64 cells of the drawn field in windows of 96 x 96 moved into it, the pixels of five channels, and their places."""
    pixels = np.stack([np.roll(setting.image, 7 * c, 1) for c in range(5)])[None]
    centers = np.array(ndimage.center_of_mass(setting.nuclei > 0, setting.nuclei, range(1, setting.nuclei.max() + 1)))
    chosen = np.resize(np.arange(len(centers)), 64)  # a cell twice, where there are too few
    number, field = (setting.device.tensor(v.astype(np.int32)) for v in (chosen + 1, np.zeros(64)))
    corner = crops.origins(setting.device.tensor(centers[chosen].clip(48, setting.size - 49)), 96)
    tensors = (setting.device.tensor(a) for a in (pixels, setting.cells_of_nuclei[None]))
    batch = crops.CropBatch(*tensors, field, number, corner)
    return batch, batch.pixels, torch.arange(5, dtype=torch.int32)


@case
def project_5_planes(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The maximum of five planes of an image, plane by plane."""
    raw = np.round(setting.image * 65535).astype(np.uint16)
    planes = [np.roll(raw, 7 * k, 0) for k in range(5)]
    given, places = [setting.device.tensor(p) for p in planes], setting.device.tensor([0], torch.int32)

    def work() -> None:
        images = setting.device.zeros(1, *raw.shape, dtype=torch.int16).view(torch.uint16)
        for plane in given:
            grid = -(-raw.size // ITEMS)
            setting.device.launch("project_max", grid, planes=plane, places=places, n_pixels=raw.size, images=images)

    def by_numpy() -> None:
        images = np.zeros_like(raw)
        for plane in planes:
            np.maximum(images, plane, out=images)

    return work, {"NumPy": by_numpy}


@case
def smoothed_background_100(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """The background of one field: minima of blocks of 100 pixels, a Gaussian of 200, as an image of single precision."""
    from centrosome.cpmorphology import block

    image, sigma = setting.image, 200 / 2.35
    tensor = setting.device.tensor(image[None, None])
    work = lambda: background_of(tensor, 0, BackgroundSettings(100, 200.0), setting.device)  # noqa: E731

    def rival() -> None:
        labels, index = block(image.shape, (100, 100))
        minima = np.asarray(ndimage.minimum(image, labels, index), np.float32)[labels]
        ndimage.gaussian_filter(minima, sigma, mode="constant") / ndimage.gaussian_filter(np.ones(image.shape), sigma)

    return work, {"SciPy": rival}


@case
def gaussian_singles_20(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """A Gaussian of size 20 (sigma 8.5) of an image of single precision, with SciPy's bits."""
    tensor = setting.device.tensor(setting.image[None])
    return lambda: gaussian_singles(tensor, 20 / 2.35, setting.device, mirrored=True), {
        "scipy.ndimage.gaussian_filter": lambda: ndimage.gaussian_filter(setting.image, 20 / 2.35)
    }


@case
def order_by_quicksort_of_counts(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """How often each value of a field occurs, in the order of an older NumPy's sort."""
    counts = np.bincount(np.unique(setting.image, return_inverse=True)[1].ravel())
    tensor = setting.device.tensor(counts[None].astype(np.int32))
    return lambda: order_by_quicksort(tensor, setting.device), {"numpy.argsort": lambda: np.argsort(counts)}


@case
def tubeness_2(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Tubes of sigma 2 by the Hessian's eigenvalues."""
    from centrosome.filter import hessian

    tensor = setting.device.tensor(setting.image[None])
    return lambda: tubeness(tensor, 2.0, setting.device), {
        "centrosome.filter.hessian": lambda: hessian(
            ndimage.gaussian_filter(setting.image, 2.0), return_hessian=False, return_eigenvectors=False
        )
    }


@case
def costes_thresholds(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Costes' thresholds of two whole images of 16 bits, CellProfiler's "Faster"."""
    from cp_measure.core.measurecolocalization import bisection_costes

    second = np.clip(0.5 * setting.image + 0.5 * np.roll(setting.image, 7, 1), 0, 1).astype(np.float32)
    pixels = setting.device.tensor(np.stack([setting.image, second])[None])
    a, b = setting.image.ravel().astype(float), second.ravel().astype(float)
    return lambda: costes.thresholds(pixels, [[0, 1]], 65535, setting.device), {
        "cp_measure": lambda: bisection_costes(None, None, a, b, 65535)
    }


@case
def zernike_of_intensity(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """30 Zernike moments of every cell's intensity in two channels."""
    from cp_measure.bulk import get_core_measurements

    batch, rival = setting.batch(("Cells",), ("DNA", "RNA")), get_core_measurements()["radial_zernikes"]
    images = [plane.numpy().astype(np.float64) for plane in batch.pixels[0]]
    return lambda: radial.zernike(fresh(batch), setting.device), {
        "cp_measure": lambda: [rival(setting.cells_of_nuclei, image) for image in images]
    }


@case
def places_of_objects(setting: Setting) -> tuple[Work, dict[str, Work]]:
    """Pixels and centres of every cell, and what cells share with nuclei."""
    cells, nuclei = setting.cells_of_nuclei, setting.nuclei
    n, m = int(cells.max()) + 1, int(nuclei.max()) + 1
    a, b = (setting.device.tensor(v[None]) for v in (cells, nuclei))
    y, x = np.mgrid[: setting.size, : setting.size]

    def rival() -> None:
        for weight in (None, x.ravel(), y.ravel()):
            np.bincount(cells.ravel(), weight, minlength=n)
        np.bincount((cells * m + nuclei).ravel(), minlength=n * m)

    work = lambda: (label_sums(a, n, setting.device), shared_pixels(a, b, n, m, setting.device))  # noqa: E731
    return work, {"numpy.bincount": rival}


def fresh(batch: ObjectBatch) -> ObjectBatch:
    """The batch without what was made for it by an earlier run."""
    return replace(batch, derived={})


@dataclass(frozen=True)
class Figure:
    """CPU seconds of one case, ours and the rival's, and the ratio of the medians (above 1: ours is faster)."""

    case: str
    rival: str
    ours_s: Spread
    rival_s: Spread
    ratio: float


def measure(setting: Setting, names: list[str], repeats: int) -> list[Figure]:
    figures = []
    warnings.simplefilter("ignore", RuntimeWarning)  # rivals divide by the pixels of rings that have none
    for name in names:
        ours, rivals = CASES[name](setting)
        for rival, work in rivals.items():
            a, b = seconds(ours, repeats), seconds(work, max(1, repeats // 2), warm_up=0)
            figures.append(Figure(name, rival, a, b, b.median / a.median))
    return figures


NOTE = "*Generated by `python -m benchmarks.kernels --page docs/kernels.md`; do not edit.*"


def page(figures: list[Figure], size: int, on: dict[str, Any]) -> str:
    """docs/kernels.md."""
    lines = [
        "# Kernels compared with libraries",
        "",
        f"{on['processor']}, one thread, no GPU. Milliseconds of CPU, medians, for one drawn field of {size} x {size} "
        "pixels, both in the same run on the same data. Ours include the launches and everything a family needs besides the "
        "kernel that a line is named for; where a library computes less or more than jumpgpu, the line says so.",
        "",
        "| what | ours | library | its | ratio |",
        "|---|---|---|---|---|",
    ]
    for f in figures:
        what = (CASES[f.case].__doc__ or "").rstrip(".")
        ours, rival = 1000 * f.ours_s.median, 1000 * f.rival_s.median
        lines.append(f"| {what} | {ours:.2f} | {f.rival} | {rival:.1f} | {f.ratio:.1f} |")
    return "\n".join([*lines, "", NOTE]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=1080, help="pixels a side of the drawn field")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--page", type=Path, help="where to write them as Markdown")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    setting = Setting(open_device("cpu", 1), args.size, max(2, args.size**2 * 90 // 1080**2))
    figures = measure(setting, args.only, args.repeats)
    for f in figures:
        print(f"{f.case:24s} {f.ours_s} s   {f.rival}: {f.rival_s} s   ratio {f.ratio:.1f}")
    if args.page:
        args.page.write_text(page(figures, args.size, machine()))
    if args.json:
        write_json(args.json, {"size": args.size, "cases": [asdict(f) for f in figures]})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
