"""Steps that reshape the objects of a set one by one: CellProfiler's ExpandOrShrinkObjects, Erode-, Dilate-, FillObjects."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..gpu.device import Device
from ..segmentation.expand import grow_by_distance
from ..settings import filter_steps
from ..settings import steps as kinds
from .filters import footprint, greyscale, without_holes
from .objects import highest, locate, relate
from .state import State

Labels = NDArray[np.int32]


def per_plane(labels: torch.Tensor, of_plane: Callable[[NDArray[Any]], NDArray[Any]], device: Device) -> torch.Tensor:
    """int32 [B, H, W] of label images."""
    planes = [np.asarray(of_plane(plane)).astype(np.int32) for plane in labels.cpu().numpy()]
    return device.tensor(np.stack(planes))


def expand(state: State, step: kinds.Expand, device: Device) -> None:
    """Of objects that grow CellProfiler keeps no discarded ones; of those that shrink it shrinks them alike."""
    source = state.objects[step.objects]
    if step.method == "expand":
        labels = grow_by_distance(source.labels, step.pixels, device)
    else:
        labels = per_plane(source.labels, lambda plane: resized(plane, step), device)
    unedited = not_small = labels
    if step.method not in ("expand", "expand_infinite", "divide"):
        inside = source.labels > 0
        unedited, not_small = (
            torch.where(inside, labels, per_plane(other, lambda plane: resized(plane, step), device))
            for other in (source.unedited, source.not_small)
        )
    counts = highest(labels, source.counts)
    produced = state.add(step.output, labels, unedited, not_small, counts, source.family)
    locate(state, step.output, produced, device, z=False)


def resized(plane: Labels, step: kinds.Expand) -> NDArray[Any]:
    """One label image; the numbers stay."""
    if not plane.any():
        return plane
    if step.method == "expand_infinite":
        y, x = ndimage.distance_transform_edt(plane == 0, return_distances=False, return_indices=True)
        return np.asarray(plane[y, x])
    from centrosome import cpmorphology

    if step.method == "divide":
        kept = cpmorphology.binary_shrink(plane, 1) != 0
        return np.where(cpmorphology.adjacent(plane) & ~kept, 0, plane)
    if step.method == "despur":
        return np.asarray(cpmorphology.spur(plane, iterations=step.pixels))
    if step.method == "skeletonize":
        return np.asarray(cpmorphology.skeletonize_labels(plane))
    filled = cpmorphology.fill_labeled_holes(plane) if step.fill_holes else plane
    forever = step.method == "shrink_infinite"
    return np.asarray(cpmorphology.binary_shrink(filled, *([] if forever else [step.pixels])))


def reshape(state: State, step: filter_steps.Reshape, device: Device) -> None:
    source = state.objects[step.objects]
    labels = per_plane(source.labels, lambda plane: reshaped(plane, step), device)
    unedited = not_small = labels
    if step.method == "centers":
        unedited, not_small = (per_plane(p, centers_of, device) for p in (source.unedited, source.not_small))
    family = None if step.renumber or step.method == "centers" else source.family
    produced = state.add(step.output, labels, unedited, not_small, highest(labels, source.counts), family)
    locate(state, step.output, produced, device, z=True)
    relate(state, step.objects, step.output, device)


def reshaped(plane: Labels, step: filter_steps.Reshape) -> NDArray[Any]:
    """One label image."""
    if step.method == "centers":
        return centers_of(plane)
    if step.method == "dilation":  # where objects meet the higher number counts
        return greyscale(plane, "dilation", footprint(step.element, step.size))
    if step.method == "fill_holes":
        result = plane.copy()
        for number in np.unique(plane[plane > 0]):
            result[without_holes(result == number, np.pi * (step.size / 2) ** 2)] = number
        return result
    result = np.zeros_like(plane)
    element = footprint(step.element, step.size)
    reach = 0 if step.method == "convex_hull" else len(element) // 2
    for number, box in enumerate(ndimage.find_objects(plane), 1):
        if box is None:
            continue
        wide = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        inside = plane[wide] == number
        result[wide][hull_of(inside) if step.method == "convex_hull" else eroded(inside, element, step)] = number
    if step.renumber:
        from skimage.measure import label

        return np.asarray(label(result))
    return result


def centers_of(plane: Labels) -> NDArray[Any]:
    """One pixel of each object, its centroid cut to whole numbers; numbered anew."""
    result = np.zeros_like(plane)
    boxes = [(number, box) for number, box in enumerate(ndimage.find_objects(plane), 1) if box is not None]
    for i, (number, box) in enumerate(boxes, 1):
        there = np.nonzero(plane[box] == number)
        result[tuple(int((s.start + c).mean()) for s, c in zip(box, there, strict=True))] = i
    return result


def hull_of(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.morphology import convex_hull_image

    return np.asarray(convex_hull_image(inside), bool)


def eroded(inside: NDArray[np.bool_], element: NDArray[np.bool_], step: filter_steps.Reshape) -> NDArray[np.bool_]:
    """One object, or its middle where nothing is left of it."""
    result = ndimage.binary_erosion(inside, element, border_value=True)
    if step.keep_middle and not result.any():
        depth = ndimage.distance_transform_edt(inside)
        result = depth == depth.max()
    return np.asarray(result)


def as_loaded(counts: Labels, ranked: bool) -> Labels:
    """A label image's counts as CellProfiler numbers objects that it loads, from a table (`ranked`) or by rules."""
    values, rank = np.unique(counts, return_inverse=True)
    if ranked or 2 * len(values) <= max(int(values[-1]), 254):  # few, or far apart
        return rank.reshape(counts.shape).astype(np.int32)
    if np.array_equal(values, np.arange(values[-1] + 1)) or np.array_equal(values, np.arange(1, values[-1] + 1)):
        return counts
    from skimage.measure import label

    return np.asarray(label(counts[:, :, None]))[:, :, 0]  # with CellProfiler's third axis, by which pieces go by columns


def image_to_objects(state: State, step: filter_steps.ImageToObjects, device: Device) -> None:
    image = state.images[step.image]
    pixels = image.pixels

    def of_plane(plane: NDArray[Any]) -> NDArray[Any]:
        if step.values in ("ranked", "gapless"):
            return as_loaded(np.rint(plane * plane.dtype.type(image.scale)).astype(np.int32), step.values == "ranked")
        if step.values == "binary":
            inside = plane if plane.dtype == bool else plane > 0.5
            return np.asarray(ndimage.label(inside, ndimage.generate_binary_structure(2, 2 if step.corners else 1))[0])
        counts = plane.astype(np.uint16) * 65535 if plane.dtype == bool else np.rint(plane * plane.dtype.type(65535))
        counts = np.clip(counts, 0, 65535).astype(np.int32)
        if step.values == "numbers":
            return counts
        from skimage.measure import label

        return np.asarray(label(counts, background=step.background, connectivity=2 if step.corners else 1))

    labels = per_plane(pixels, of_plane, device)
    produced = state.add(step.output, labels, labels, labels, highest(labels, (0,) * len(labels)))
    locate(state, step.output, produced, device, z=True)
