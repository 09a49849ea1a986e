"""Segmentation beside the tools it stands in for, in one run: each step's time, and nuclei against known answers.

python -m benchmarks.segmentation --shared ../shared --runs 5
python -m benchmarks.segmentation --shared ../shared --truth
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import centrosome.cpmorphology as morphology
import numpy as np
import tifffile
import torch
from centrosome.propagate import propagate as centrosome_propagate
from scipy import ndimage
from skimage import feature, filters, segmentation

from benchmarks.machine import RESULTS, seconds, write_json
from benchmarks.peers import ENVIRONMENTS
from benchmarks.pipelines import run_cellprofiler
from jumpgpu.drawing.fields import Effects, draw_field, falloff, make_tiles
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.segmentation.background import block_weights, subtract_background
from jumpgpu.segmentation.declump import find_seeds, jitter, separate
from jumpgpu.segmentation.distance_transform import squared_distance
from jumpgpu.segmentation.expand import propagate
from jumpgpu.segmentation.label import fill_holes, find_components, label_components
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.segmentation.planes import channel_planes, whole_planes
from jumpgpu.segmentation.threshold import above_threshold, find_threshold
from jumpgpu.segmentation.watershed import watershed
from jumpgpu.settings.config import BackgroundSettings, PrimarySettings, SegmentationSettings, ThresholdSettings, load_config

EIGHT = np.ones((3, 3), bool)
DENSITIES = (20, 100, 300, 800)  # nuclei a field
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # IoU from which a nucleus counts as found


def real_field(shared: Path, well: str = "M02") -> torch.Tensor:
    """float32 [1, 2, 1080, 1080]: DNA and RNA of a crowded real field, corrected."""
    images = next((shared / "data/fields").iterdir()) / "Images"
    planes = []
    for channel, number in (("DNA", 5), ("RNA", 3)):
        raw = tifffile.imread(images / f"r{ord(well[0]) - 64:02d}c{well[1:]}f05p01-ch{number}sk1fk1fl1.tiff")
        function = np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz")["illum"]
        planes.append((raw.astype(np.float32) / np.float32(65535) / function).clip(0, 1))
    return torch.from_numpy(np.stack(planes)[None])


def steps(shared: Path) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Step -> ours and the other tool's, on the same input."""
    device = open_device("cpu", 1)
    settings = SegmentationSettings()
    pixels = real_field(shared)
    dna, rna = pixels[0, 0].numpy(), pixels[0, 1].numpy()
    background = BackgroundSettings()
    corrected = subtract_background(pixels, 0, background, device)
    image = corrected[0].numpy()
    planes, cell_planes = whole_planes(corrected), channel_planes(pixels, 1)
    _, threshold = find_threshold(planes, settings.nuclei.threshold, device)
    mask = above_threshold(planes, threshold, settings.nuclei.threshold.smoothing, device)
    components = find_components(mask, 3, device)
    squared = squared_distance(components.filled, device, outside=False)
    filled = components.filled[0].numpy() > 0
    labels = ndimage.label(mask[0].numpy(), EIGHT)[0]
    distance = np.sqrt(squared[0].numpy()) + jitter(1080, 1080, device).numpy()
    seeds, _ = separate(corrected, mask, settings.nuclei, device)
    depth = 1 - pixels[:, 1].contiguous()
    inside = (pixels[:, 1] >= 0.014) | (seeds > 0)
    cells = watershed(depth, inside, seeds, device)
    capacity = int(cells.max()) + 1
    sigma = 3.0 / 0.6744 / 2

    def background_by_scipy() -> np.ndarray:
        index, ids = morphology.block(dna.shape, (30, 30))
        minima = np.asarray(ndimage.minimum(dna, index, ids))[index]
        ones, smooth = (ndimage.gaussian_filter(v, 50 / 2.35, mode="constant") for v in (np.ones(dna.shape), minima))
        return (dna - smooth / ones).clip(0, 1)

    def entropy(values: np.ndarray) -> float:
        tolerance = max(np.min(np.diff(np.unique(values))) / 2, 0.5 / 65536)
        return float(filters.threshold_li(values, tolerance=tolerance))

    def smoothed() -> np.ndarray:
        ones = ndimage.gaussian_filter(np.ones(image.shape), sigma, mode="constant")
        return np.asarray(ndimage.gaussian_filter(image, sigma, mode="constant") / ones >= threshold.item())

    def maxima() -> np.ndarray:
        result = morphology.is_local_maximum(distance, labels, morphology.strel_disk(7.5))
        return np.asarray(ndimage.label(morphology.binary_shrink(result), EIGHT)[0])

    nuclei_seeds = maxima()
    block_weights(1080, background)
    return {
        "background": (lambda: subtract_background(pixels, 0, background, device), background_by_scipy),
        "entropy, DNA": (lambda: find_threshold(planes, settings.nuclei.threshold, device), lambda: entropy(image)),
        "entropy, RNA": (lambda: find_threshold(cell_planes, settings.cells.threshold, device), lambda: entropy(rna)),
        "smoothing and threshold": (lambda: above_threshold(planes, threshold, 3.0, device), smoothed),
        "components": (lambda: label_components(mask, device), lambda: ndimage.label(mask[0].numpy(), EIGHT)),
        "holes of the mask": (lambda: find_components(mask, 3, device), lambda: morphology.fill_labeled_holes(labels)),
        "distance": (
            lambda: squared_distance(components.filled, device, outside=False),
            lambda: ndimage.distance_transform_edt(filled),
        ),
        "maxima": (lambda: find_seeds(corrected, mask, components, squared, settings.nuclei, device), maxima),
        "declumping, all of it": (
            lambda: separate(corrected, mask, settings.nuclei, device),
            lambda: segmentation.watershed(-distance, nuclei_seeds, connectivity=EIGHT, mask=labels > 0),
        ),
        "cells: watershed": (
            lambda: watershed(depth, inside, seeds, device),
            lambda: segmentation.watershed(1 - rna, seeds[0].numpy(), connectivity=EIGHT, mask=inside[0].numpy()),
        ),
        "cells: holes": (
            lambda: fill_holes(cells, capacity, device, objects=False),
            lambda: morphology.fill_labeled_holes(cells[0].numpy(), mask=cells[0].numpy() == 0),
        ),
        "cells: propagation": (
            lambda: propagate(cell_planes, inside.view(torch.uint8), seeds, 0.05, device),
            lambda: centrosome_propagate(rna.astype(np.float64), seeds[0].numpy(), inside[0].numpy(), 0.05),
        ),
        "segmentation, all of it": (lambda: segment(pixels, ("DNA", "RNA"), settings, device), lambda: None),
    }


def compare_speed(shared: Path, runs: int) -> list[dict[str, Any]]:
    rows = []
    torch.set_num_threads(1)
    for step, (ours, theirs) in steps(shared).items():
        mine, other = seconds(ours, runs), seconds(theirs, max(1, runs // 2))
        rows.append({"step": step, "ours_ms": mine.median * 1e3, "theirs_ms": other.median * 1e3})
        ratio = f"{other.median / mine.median:6.1f} x" if min(mine.median, other.median) > 1e-5 else ""
        print(f"{step:26} {mine.median * 1e3:8.2f} ms {other.median * 1e3:8.1f} ms {ratio}", flush=True)
    return rows


@dataclasses.dataclass(frozen=True)
class Score:
    """Nuclei found against nuclei that are there.

    f1      at each of LEVELS
    aji     aggregated Jaccard index: overlaps of true nuclei with what fits each best, over their unions and what fits none
    missed  true nuclei that no found one covers by half or more
    split   true nuclei of which two or more found ones lie mostly inside
    merged  found nuclei in which two or more true ones lie mostly
    """

    truth: int
    n_segmented: int
    f1: tuple[float, ...]
    aji: float
    missed: int
    split: int
    merged: int


def score(result: np.ndarray, truth: np.ndarray) -> Score:
    """Matches by overlap; at IoU above 0.5 a match is one to one."""
    n, m = int(result.max()), int(truth.max())
    overlap = np.bincount(result.ravel() * (m + 1) + truth.ravel(), minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)
    area_found, area_truth = overlap.sum(1), overlap.sum(0)
    shared = overlap[1:, 1:]
    union = area_found[1:, None] + area_truth[None, 1:] - shared
    iou = shared / np.maximum(union, 1)
    present = int((area_truth[1:] > 0).sum())
    f1 = tuple(2 * float((iou > level).any(0).sum()) / max(1, n + present) for level in LEVELS)
    covered = shared.max(0, initial=0) >= 0.5 * area_truth[1:]
    of_found, of_truth = shared > 0.5 * area_found[1:, None], shared > 0.5 * area_truth[None, 1:]
    missed = int((~covered & (area_truth[1:] > 0)).sum())
    best = iou.argmax(0) if n else np.zeros(m, int)
    fits = (iou.max(0, initial=0) > 0) & (area_truth[1:] > 0)
    chosen = np.unique(best[fits])
    joined = shared[best, np.arange(m)][fits].sum() if n else 0
    unions = np.where(fits, union[best, np.arange(m)] if n else 0, area_truth[1:]).sum()
    aji = float(joined / max(1, unions + np.delete(area_found[1:], chosen).sum()))
    return Score(present, n, f1, aji, missed, int((of_found.sum(0) > 1).sum()), int((of_truth.sum(1) > 1).sum()))


def by_skimage(image: np.ndarray) -> np.ndarray:
    """The usual recipe: Otsu on a smoothed image, peaks of the distance, watershed between them."""
    smooth = filters.gaussian(image, 1)
    mask = smooth > filters.threshold_otsu(smooth)
    distance = ndimage.distance_transform_edt(mask)
    peaks = feature.peak_local_max(distance, min_distance=8, labels=ndimage.label(mask)[0])
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(segmentation.watershed(-distance, seeds, mask=mask))


def by_cellprofiler(dna: np.ndarray, settings: PrimarySettings) -> np.ndarray:
    """CellProfiler's own IdentifyPrimaryObjects with the same settings, of an image without a background."""
    t = settings.threshold
    theirs = {
        "x_name": "DNA",
        "y_name": "Nuclei",
        "use_advanced": True,
        "size_range": [int(settings.min_diameter), int(settings.max_diameter)],
        "exclude_size": settings.discard_size,
        "exclude_border_objects": settings.discard_border,
        "unclump_method": "Shape",
        "watershed_method": "Shape",
        "automatic_smoothing": False,
        "smoothing_filter_size": settings.smoothing,
        "automatic_suppression": False,
        "maxima_suppression_size": settings.suppression,
        "low_res_maxima": settings.low_resolution_maxima,
        "fill_holes": "Never",
        "threshold.threshold_scope": "Global",
        "threshold.global_operation": "Minimum Cross-Entropy",
        "threshold.threshold_smoothing_scale": t.smoothing,
        "threshold.threshold_correction_factor": t.correction,
        "threshold.threshold_range": [t.lower, t.upper],
    }
    module = {"module": "identifyprimaryobjects.IdentifyPrimaryObjects", "settings": theirs}
    with tempfile.TemporaryDirectory() as folder:
        (line,) = run_cellprofiler({"modules": [module]}, {"DNA": (dna, None)}, Path(folder))
        if line["error"]:
            raise RuntimeError(line["error"])
        return np.asarray(np.load(Path(folder) / "labels_Nuclei.npy", allow_pickle=False), np.int64)


@dataclasses.dataclass(frozen=True)
class ObjectBatch:
    """A DNA image float32 [H, W], its true nuclei int64 [H, W], and the settings to find them with."""

    name: str
    dna: np.ndarray
    truth: np.ndarray
    settings: PrimarySettings


def drawn_by_hand(shared: Path) -> ObjectBatch:
    """A real image whose nuclei people outlined: it has no background, smaller nuclei and nuclei on the border."""
    nuclei = load_config("cpjump1").segmentation.nuclei
    loose = ThresholdSettings(smoothing=1.3488)
    settings = dataclasses.replace(nuclei, discard_border=False, background=None, threshold=loose, discard_size=False)
    image = tifffile.imread(shared / "data/nuclei/img2d.tif").astype(np.float32) / 255
    return ObjectBatch(
        "nuclei, by hand", image, tifffile.imread(shared / "data/nuclei/mask2d.tif").astype(np.int64), settings
    )


def drawn_by_us(density: int) -> ObjectBatch:
    """A synthetic field of `density` nuclei."""
    nuclei = load_config("cpjump1").segmentation.nuclei
    size, rng = (1080, 1080), np.random.default_rng(density)
    drawn = draw_field(rng, size, density, Effects(), make_tiles(rng, size), np.ones_like(falloff(size)))
    dna = drawn.images[0].astype(np.float32) / 65535
    settings = dataclasses.replace(nuclei, discard_border=False)
    return ObjectBatch(f"drawn, {density} a field", dna, drawn.nuclei.astype(np.int64), settings)


def nuclei_of(batch: ObjectBatch, device: Device) -> np.ndarray:
    """The nuclei that are found: int64 [H, W]."""
    pixels = torch.from_numpy(np.stack([batch.dna, batch.dna])[None])
    chosen = dataclasses.replace(load_config("cpjump1").segmentation, nuclei=batch.settings)
    return np.asarray(segment(pixels, ("DNA", "RNA"), chosen, device).labels["Nuclei"][0].numpy(), np.int64)


def compare_truth(shared: Path) -> list[dict[str, Any]]:
    device = open_device("cpu")
    rows = []
    for batch in (drawn_by_hand(shared), *map(drawn_by_us, DENSITIES)):
        tools = {"jumpgpu": nuclei_of(batch, device), "scikit-image": by_skimage(batch.dna).astype(np.int64)}
        if batch.settings.background is None and (ENVIRONMENTS / "cellprofiler").is_dir():
            tools["CellProfiler"] = by_cellprofiler(batch.dna, batch.settings)
            print(f"pixels that differ from CellProfiler: {int((tools['jumpgpu'] != tools['CellProfiler']).sum())}")
        for tool, labels in tools.items():
            result = score(labels, batch.truth)
            rows.append({"scene": batch.name, "tool": tool, **dataclasses.asdict(result)})
            f1 = " ".join(f"{v:.3f}" for v in result.f1)
            faults = f"{result.missed} {result.split} {result.merged}"
            print(f"{batch.name:22} {tool:12} {result.truth:4d} {result.n_segmented:4d}  {f1}  {result.aji:.3f}  {faults}")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    output = argparse.ArgumentParser(prog="python -m benchmarks.segmentation", description=__doc__)
    output.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with the real fields")
    output.add_argument("--runs", type=int, default=5)
    output.add_argument("--truth", action="store_true", help="nuclei against known answers instead of times")
    output.add_argument("--output", type=Path, default=RESULTS)
    given = output.parse_args(arguments)
    rows = compare_truth(given.shared) if given.truth else compare_speed(given.shared, given.runs)
    write_json(given.output / f"segmentation{'-truth' if given.truth else ''}.json", {"rows": rows})


if __name__ == "__main__":
    main()
