"""Steps that make object sets of others, or of an image, as a whole: ResizeObjects, SplitOrMergeObjects, Watershed."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse

from ..gpu.device import Device
from ..segmentation.queue import flood_in_queue
from ..settings import object_steps
from .objects import highest, locate, record_relation, relate
from .shapes import per_plane
from .state import State

Labels = NDArray[np.int32]
AROUND = np.ones((3, 3), bool)
MAX_PIXELS = 1 << 28  # of a resized label image


def resize_objects(state: State, step: object_steps.ResizeObjects, device: Device) -> None:
    """To the nearest pixel. Each object that is left is the child of its own number."""
    source = state.objects[step.objects]
    h, w = source.labels.shape[-2:]
    size: tuple[float, float] = (step.height, step.width)
    if step.like:
        size = tuple(state.images[step.like].pixels.shape[-2:])  # type: ignore[assignment]
    factors = (step.factor_y, step.factor_x) if step.factor_y else (size[0] / h, size[1] / w)
    if min(h * factors[0], w * factors[1]) < 1 or h * factors[0] * w * factors[1] > MAX_PIXELS:
        raise ValueError(f"label images of {h} x {w} pixels, resized by {factors[0]:g} and {factors[1]:g}")
    labels = per_plane(source.labels, lambda plane: ndimage.zoom(plane, factors, order=0, mode="nearest"), device)
    produced = state.add(step.output, labels, labels, labels, highest(labels, source.counts))
    locate(state, step.output, produced, device, z=True)
    children, parents = [], []
    for plane, n, k in zip(labels, source.counts, produced.counts, strict=True):
        there = torch.bincount(plane.flatten(), minlength=n + 1)[1:] > 0
        children.append(there.double())
        parents.append(torch.where(there[:k], torch.arange(1, k + 1, device=there.device).double(), torch.nan))
    record_relation(state, step.objects, step.output, torch.cat(children), torch.cat(parents))


def regroup(state: State, step: object_steps.Regroup, device: Device) -> None:
    source = state.objects[step.objects]
    parents = np.array([])
    if step.method == "parent":
        parents = state.measured[step.objects][f"Parent_{step.parent}"].cpu().numpy().astype(int)
    planes, at = [], 0
    for b, (plane, n) in enumerate(zip(source.labels.cpu().numpy(), source.counts, strict=True)):
        if step.method == "split":
            result = ndimage.label(plane > 0, AROUND)[0]
        elif step.method == "parent":
            result = of_parents(plane, parents[at : at + n], hull=step.hull)
        else:
            result = merged(plane, None if not step.image else state.images[step.image].pixels[b].cpu().numpy(), step)
        planes.append(np.asarray(result).astype(np.int32))
        at += n
    labels = device.tensor(np.stack(planes))
    unedited, not_small = (carried(p, labels, device) for p in (source.unedited, source.not_small))
    produced = state.add(step.output, labels, unedited, not_small, highest(labels, source.counts))
    locate(state, step.output, produced, device, z=False)
    relate(state, step.objects, step.output, device)


def of_parents(plane: Labels, parents: NDArray[Any], *, hull: bool) -> NDArray[Any]:
    """Each object under its parent's number, numbered anew; those without a parent go."""
    result = np.concatenate([[0], parents])[plane]
    if hull and result.any():
        from centrosome import cpmorphology

        i, j, of = cpmorphology.fill_convex_hulls(*cpmorphology.convex_hull(result)).T
        result[i, j] = of
    return np.searchsorted(np.union1d([0], result), result)


def merged(plane: Labels, image: NDArray[Any] | None, step: object_steps.Regroup) -> NDArray[Any]:
    near = plane > 0
    if step.distance > 0:
        near = ndimage.distance_transform_edt(~near) < step.distance / 2 + 1
    if image is None:
        return np.where(plane > 0, ndimage.label(near, AROUND)[0], 0)
    if image.shape != plane.shape:
        raise ValueError(f"image {step.image} is {list(image.shape)}, objects {step.objects} are {list(plane.shape)} pixels")
    y, x = ndimage.distance_transform_edt(plane == 0, return_distances=False, return_indices=True)
    wide = np.where(near, plane[y, x], 0)
    if step.by == "closest":
        wide[image[y, x] * np.float64(step.fraction) > image] = 0
    a, b = touching(wide)
    if not len(a):
        return plane
    if step.by == "centroids":
        bright = bright_between(plane, image, a, b, step.fraction)
        a, b = a[bright], b[bright]
    n = int(plane.max()) + 1
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), (n, n))
    component = sparse.csgraph.connected_components(graph, directed=False)[1]
    there = np.union1d([0], plane)  # numbers without an object count for nothing
    number = np.zeros(n, int)
    number[there] = np.unique(component[there], return_inverse=True)[1]
    return number[plane]


def touching(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pairs of labels that touch, by a corner too, each both ways, in order."""
    padded = np.pad(labels, 1)
    h, w = labels.shape
    pairs = []
    for y, x in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = padded[1 + y : 1 + y + h, 1 + x : 1 + x + w]
        meet = (labels != other) & (labels > 0) & (other > 0)
        pairs += [np.stack([labels[meet], other[meet]]), np.stack([other[meet], labels[meet]])]
    a, b = np.unique(np.concatenate(pairs, 1), axis=1)
    return a, b


def bright_between(plane: Labels, image: NDArray[Any], a: NDArray[Any], b: NDArray[Any], fraction: float) -> NDArray[Any]:
    """Of pairs of objects: whether the line between their centres is nowhere darker than so much of its dimmer end."""
    from centrosome.cpmorphology import centers_of_labels, get_line_pts

    y, x = centers_of_labels(plane)
    start, count, i, j = get_line_pts(y[a - 1], x[a - 1], y[b - 1], x[b - 1])
    values = image[i, j]
    ends = np.minimum(values[start], values[start + count - 1])
    return np.asarray(ends * fraction <= np.minimum.reduceat(values, start))


def carried(every: torch.Tensor, labels: torch.Tensor, device: Device) -> torch.Tensor:
    """`every` object, where new ones lie under the lowest number of theirs."""
    planes = []
    for old, new in zip(every.cpu().numpy(), labels.cpu().numpy(), strict=True):
        number = np.concatenate([[0], ndimage.minimum(old, new, np.arange(1, int(new.max()) + 1))]).astype(np.int32)
        planes.append(np.where(new != 0, number[new], old))
    return device.tensor(np.stack(planes))


def watershed(state: State, step: object_steps.Watershed, device: Device) -> None:
    """Basins that touch and bear one number are one object."""
    from skimage.measure import label

    image = state.images[step.image]
    if step.markers:
        markers = state.images[step.markers].pixels.to(torch.int32)
        inside = state.images[step.mask].pixels != 0 if step.mask else torch.ones_like(markers, dtype=torch.bool)
        if not image.pixels.shape == markers.shape == inside.shape:
            raise ValueError(f"images {step.image}, {step.markers} and {step.mask or 'no mask'} are of different sizes")
        basins = flood_in_queue(image.pixels, inside, markers, device, corners=step.corners)
        labels = per_plane(basins, label, device)
    else:
        labels = per_plane(image.pixels, lambda plane: label(by_distance(plane, step)), device)
    produced = state.add(step.output, labels, labels, labels, highest(labels, (0,) * len(labels)))
    state.valid[step.output] = image.valid
    locate(state, step.output, produced, device, z=True)


def by_distance(plane: NDArray[Any], step: object_steps.Watershed) -> NDArray[Any]:
    """Basins of the distance to the background, which is what is not above Otsu's threshold."""
    import mahotas
    from skimage.filters import threshold_otsu
    from skimage.transform import downscale_local_mean

    from .images import resized

    small = downscale_local_mean(plane, (step.downsample,) * 2) if step.downsample > 1 else plane
    inside = small if small.dtype == bool else small > threshold_otsu(small)
    distance = mahotas.stretch(ndimage.distance_transform_edt(inside))
    peaks = mahotas.regmax(distance, np.ones((step.footprint,) * 2))
    markers, _ = mahotas.label(peaks, np.ones((16, 16)))
    basins = mahotas.cwatershed(distance.max() - distance, markers) * inside
    if step.downsample == 1:
        return np.asarray(basins)
    h, w = plane.shape
    return np.rint(resized(basins.astype(np.float32), (h, w), 0, "edge", smooth=False)).astype(np.uint16)
