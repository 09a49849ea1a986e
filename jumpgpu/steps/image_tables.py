"""Steps that measure whole images (rows of CellProfiler's Image table), and FlagImage, which may end a site."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..features.families import family
from ..features.objects import make_batch
from ..gpu.device import Device
from ..image_features import colocalization, granularity, intensity, overlap, quality, texture, thresholds
from ..segmentation.planes import whole_planes
from ..segmentation.threshold import find_threshold
from ..settings import object_steps, table_steps
from ..settings import steps as kinds
from ..settings.config import FeatureSettings, GranularitySettings, ShapeSettings, ThresholdSettings
from .state import Image, Skipped, State


def record(state: State, name: str, values: Sequence[float]) -> None:
    """A measurement of every field."""
    state.image_measured[name] = torch.tensor(values, dtype=torch.float64)


def planes_of(state: State, image: Image) -> torch.Tensor:
    """An image's pixels [B, H, W]; a function, which is alike in all fields, as one plane."""
    return image.pixels if image.pixels.ndim == 3 else image.pixels[None]


def fields_of(state: State) -> int:
    return max((len(i.pixels) for i in state.images.values() if i.pixels.ndim == 3), default=1)


def record_each(state: State, image: str, parts: Sequence[dict[str, float]], form: str) -> None:
    """Measurements of an image's planes: `form` has `{}` for the measurement's name, which may have one for the image's."""
    n = fields_of(state)
    if not parts[0]:
        return
    table = torch.tensor([list(part.values()) for part in parts], dtype=torch.float64).expand(n, -1)
    for name, values in zip(parts[0], table.unbind(1), strict=True):
        state.image_measured[form.format(name).replace("{}", image)] = values


def image_intensity(state: State, step: kinds.MeasureImageIntensity, device: Device) -> None:
    """Of the pixels that are not masked; within objects CellProfiler adds each set's name to that of the one before."""
    image, name = state.images[step.image], step.image
    planes = planes_of(state, image)
    for objects in step.objects or ("",):
        if objects:
            name += f"_{objects}"
        parts = []
        for b, plane in enumerate(planes):
            inside = None if image.valid is None else image.valid[b]
            if objects:
                labels = state.objects[objects].labels[b]
                if labels.shape != plane.shape:
                    raise ValueError(
                        f"image {step.image} is {list(plane.shape)}, objects {objects} are {list(labels.shape)} pixels"
                    )
                inside = labels > 0 if inside is None else (labels > 0) & inside
            parts.append(intensity.measure(values_of(state, name, image, plane, inside, device), step.percentiles))
        record_each(state, name, parts, "Intensity_{}_" + name)


def values_of(
    state: State,
    name: str,
    image: Image,
    plane: torch.Tensor,
    inside: torch.Tensor | None,
    device: Device,
    *,
    otsu: bool = False,
) -> intensity.Values:
    """What one of an image's planes comes to; of a single field's whole image kept for the next module that asks."""
    if inside is not None:
        return intensity.values_of(plane.masked_select(inside), device, image.scale, otsu=otsu)
    pixels, values = state.values.get(name, (None, None))
    same = pixels is not None and pixels.data_ptr() == plane.data_ptr() and pixels.shape == plane.shape
    if values is None or not same or (otsu and "ThresholdOtsu" not in values.measures):
        values = intensity.values_of(plane, device, image.scale, otsu=otsu)
        if fields_of(state) == 1:
            state.values[name] = plane, values
    return values


def image_quality(state: State, step: table_steps.MeasureImageQuality, device: Device) -> None:
    wanted = {"blur": bool(step.scales), "saturation": step.saturation, "intensity": step.intensity}
    for name in step.images:
        image = state.images[name]
        if step.scaling:
            record(state, f"ImageQuality_Scaling_{name}", [image.scale] * fields_of(state))
        parts = []
        for plane in planes_of(state, image):
            values = values_of(state, name, image, plane, None, device, otsu="Otsu_2W" in step.thresholds)
            parts.append(quality.measure(plane, values, step.scales, step.thresholds, device, **wanted))
        if parts[0]:
            record_each(state, name, parts, "ImageQuality_{}")


def area_occupied(state: State, step: table_steps.MeasureAreaOccupied, device: Device) -> None:
    for name in step.objects:
        labels, valid = state.objects[name].labels, state.valid.get(name)
        labels = labels if valid is None else torch.where(valid, labels, 0)
        whole = [labels[0].numel()] * len(labels) if valid is None else [int(plane.sum()) for plane in valid]
        area_columns(state, name, [int((plane > 0).sum()) for plane in labels], perimeters(labels, device), whole)
    for name in step.images:
        mask = planes_of(state, state.images[name]) > 0
        areas = [int(plane.sum()) for plane in mask]
        lengths = perimeters(mask.to(torch.int32), device, rounded=False)
        area_columns(state, name, areas, lengths, [mask[0].numel()] * len(mask))


def area_columns(state: State, name: str, areas: Sequence[int], lengths: Sequence[float], whole: Sequence[int]) -> None:
    record(state, f"AreaOccupied_AreaOccupied_{name}", areas)
    record(state, f"AreaOccupied_Perimeter_{name}", lengths)
    record(state, f"AreaOccupied_TotalArea_{name}", whole)


def perimeters(labels: torch.Tensor, device: Device, *, rounded: bool = True) -> list[float]:
    """The perimeters of each field's objects together, every one rounded to whole pixels where CellProfiler does."""
    result = []
    for plane in labels:
        if not bool(plane.any()):
            result.append(0.0)
            continue
        there = torch.bincount(plane.flatten()) > 0  # numbers may have gaps
        there[0] = False
        dense = (there.cumsum(0) * there).to(torch.int32)[plane.long()][None]
        pixels = torch.zeros(1, 1, *plane.shape, dtype=torch.float32, device=plane.device)
        batch = make_batch(["~"], pixels, {"0": dense.contiguous()}, {}, device)
        settings = FeatureSettings(shape=ShapeSettings(zernike=False))
        shape = family("shape")
        at = shape.columns("0", (), settings).index("0_AreaShape_Perimeter")
        values = shape.measure(batch, settings, device)[:, at].tolist()
        result.append(float(sum(map(round, values)) if rounded else sum(values)))
    return result


def image_texture(state: State, step: table_steps.MeasureImageTexture, device: Device) -> None:
    for name in step.images:
        planes = planes_of(state, state.images[name])
        record_each(state, name, [texture.measure(p, step.scales, step.levels, device) for p in planes], "Texture_{}")


def image_granularity(state: State, step: table_steps.MeasureImageGranularity, device: Device) -> None:
    settings = GranularitySettings(step.subsampling, step.background_subsampling, step.radius, step.spectrum)
    for name in step.images:
        spectra = granularity.spectrum(planes_of(state, state.images[name]).float(), settings, device)
        parts = [{f"{k}_{{}}": float(v) for k, v in enumerate(row, 1)} for row in spectra]
        record_each(state, name, parts, "Granularity_{}")


def image_correlation(state: State, step: table_steps.MeasureImageCorrelation, device: Device) -> None:
    images = {name: state.images[name] for name in step.images}
    parts = []
    for b in range(fields_of(state)):
        planes = {
            name: (planes_of(state, i)[min(b, len(planes_of(state, i)) - 1)], None if i.valid is None else i.valid[b])
            for name, i in images.items()
        }
        known = state.costes.setdefault(step.images, {}) if fields_of(state) == 1 else None
        mode, levels = step.costes_mode, state.levels(step.images)
        parts.append(colocalization.measure(planes, step.threshold, step.metrics, device, mode, levels, known))
    record_each(state, "", parts, "Correlation_{}")


def image_skeleton(state: State, step: object_steps.MeasureImageSkeleton, device: Device) -> None:
    planes = planes_of(state, state.images[step.image])
    record_each(state, step.image, [overlap.nodes(p.bool().cpu().numpy()) for p in planes], "Skeleton_{}_" + step.image)


def measure_overlap(state: State, step: object_steps.MeasureOverlap, device: Device) -> None:
    parts = []
    if step.of == "objects":
        truth, test = (state.objects[n].labels.cpu().numpy() for n in (step.truth, step.test))
    else:
        truth, test = (planes_of(state, state.images[n]).bool().cpu().numpy() for n in (step.truth, step.test))
    if truth.shape != test.shape:
        raise ValueError(f"{step.truth} is {list(truth.shape[1:])}, {step.test} {list(test.shape[1:])} pixels")
    for b, (a, other) in enumerate(zip(truth, test, strict=True)):
        if step.of == "objects":
            parts.append(overlap.of_objects(a, other))
            continue
        mask = np.ones(a.shape, bool)
        for name in (step.truth, step.test):
            valid = state.images[name].valid
            mask &= True if valid is None else valid[b].cpu().numpy()
        parts.append(overlap.of_images(a, other, mask))
    name = f"{step.truth}_{step.test}" if step.of == "objects" else step.test
    record_each(state, name, parts, "Overlap_{}_" + name)


def parted(state: State, name: str, image: Image, settings: ThresholdSettings, above: torch.Tensor, device: Device) -> None:
    """How well the threshold of module output `name` parts the image; and the global one, where it is a window's."""
    if settings.window is not None:
        whole = replace(settings, window=None)
        _, guide = find_threshold(whole_planes(image.pixels.contiguous()), whole, device, image.valid)
        state.image_measured[f"Threshold_GuideThreshold_{name}"] = guide
    planes = [p.cpu().numpy() for p in image.pixels]
    foreground = [p.bool().cpu().numpy() for p in above]
    valid = [None] * len(planes) if image.valid is None else [p.cpu().numpy() for p in image.valid]
    for measure, work in MEASURES_OF_THRESHOLDS.items():
        values = [work(*each) for each in zip(planes, foreground, valid, strict=True)]
        record(state, f"Threshold_{measure}_{name}", values)


MEASURES_OF_THRESHOLDS = {
    "SumOfEntropies": thresholds.sum_of_entropies,
    "WeightedVariance": thresholds.weighted_variance,
}


def flag(state: State, step: table_steps.Flag, device: Device) -> None:
    """1 where a measurement is out of its limits. NaN is within; no objects are out."""
    n = fields_of(state)
    if n > 1:
        raise ValueError("a flag needs batches of one field")
    wrong = []
    for name, source, objects, low, high in zip(
        step.measurements, step.sources, step.objects, step.lowest, step.highest, strict=True
    ):
        if source == "image":
            values = torch.tensor([state.site]) if name == "Metadata_Site" else state.image_measured[name]
        else:
            values = state.measured[objects][name].cpu()
            if source == "average" and len(values):
                values = values.mean()[None]
        minimum, greatest = (float(values.min()), float(values.max())) if len(values) else (math.nan, math.nan)
        if not len(values) or minimum < low or greatest > high:
            wrong.append(f"{name} is {minimum:.6g}" if minimum == greatest else f"{name} is {minimum:.6g} to {greatest:.6g}")
    failed = bool(wrong) if step.any else len(wrong) == len(step.measurements)
    record(state, step.name, [float(failed)])
    if failed and step.skip:
        raise Skipped(f"{step.module or 'FlagImage'}: {step.name}, skipped: {'; '.join(wrong)}")
