"""Steps that filter images by SciPy, scikit-image and centrosome on the host, a field at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..gpu.device import Device
from ..settings import filter_steps as kinds
from ..settings import steps as image_kinds
from .state import State

Plane = NDArray[Any]
Filter = Callable[[Plane, NDArray[np.bool_] | None], Plane]
ONCE = ("branchpoints", "endpoints", "vbreak")  # operations of Morph that are not repeated


def per_plane(state: State, source: str, output: str, of_plane: Filter, device: Device, *, single: bool = False) -> None:
    """An image of every field's plane and mask; `single`: float32 whatever comes, as CellProfiler converts it."""
    image = state.images[source]
    planes = []
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing counts
        for b, plane in enumerate(image.pixels.cpu().numpy()):
            planes.append(of_plane(plane, None if image.valid is None else image.valid[b].cpu().numpy()))
    result = device.tensor(np.stack(planes))
    if single and result.dtype != torch.bool:
        result = result.float()
    state.images[output] = replace(image, pixels=result)


def footprint(element: str, size: float) -> NDArray[np.bool_]:
    """A structuring element; its sides are odd."""
    from skimage import morphology

    if element == "square":
        return np.ones((int(size), int(size)), bool)
    shapes = {"disk": morphology.disk, "diamond": morphology.diamond, "star": morphology.star}
    return np.asarray(shapes[element](int(size)), bool)


def greyscale(plane: Plane, method: str, element: NDArray[np.bool_]) -> Plane:
    """Erosion, dilation, or one after the other; mirrored at the border."""
    values = plane.astype(np.uint8) if plane.dtype == bool else plane
    erode, dilate = ndimage.grey_erosion, ndimage.grey_dilation
    of = {"erosion": (erode,), "dilation": (dilate,), "opening": (erode, dilate), "closing": (dilate, erode)}[method]
    for function in of:
        values = function(values, footprint=element)
    return values.astype(plane.dtype)


def filter_image(state: State, step: kinds.FilterImage, device: Device) -> None:
    def of_plane(plane: Plane, _: NDArray[np.bool_] | None) -> Plane:
        if step.method == "gaussian":
            values = plane.astype(float) if plane.dtype == bool else plane
            return ndimage.gaussian_filter(values, step.size, mode="nearest")
        if step.method == "median":
            return ndimage.median_filter(plane, int(step.size), mode="constant")
        if step.method == "remove_holes":
            inside = plane if plane.dtype == bool else plane > 0.5
            return without_holes(inside, np.pi * (step.size / 2) ** 2)
        return greyscale(plane, step.method, footprint(step.element, step.size))

    per_plane(state, step.image, step.output, of_plane, device, single=step.method == "gaussian")


def without_holes(inside: Plane, area: float) -> NDArray[np.bool_]:
    """A mask whose holes, of pixels that touch by their sides, are filled where they have fewer pixels than `area`."""
    holes, _ = ndimage.label(~inside.astype(bool))
    small = np.bincount(holes.ravel()) < area
    small[0] = False
    return np.asarray(inside, bool) | small[holes]


def rescale(state: State, step: kinds.Rescale, device: Device) -> None:
    def of_plane(plane: Plane, mask: NDArray[np.bool_] | None) -> Plane:
        counted = plane if mask is None else plane[mask]
        if step.method == "range":
            return stretched(1.0 * plane, counted, step)
        if not counted.size:
            return plane
        if step.method == "match":
            return matched(state, step, plane, float(counted.max()))
        of_image = {"minimum": counted.min, "maximum": counted.max}
        if step.method == "measurement":
            divisor = float(state.image_measured[step.measurements[0]][0])
        else:
            divisor = float(of_image[step.method]()) if step.method in of_image else step.divisor
        if divisor == 0:
            raise ValueError(f"image {step.image} would be divided by 0")
        return plane / divisor

    per_plane(state, step.image, step.output, of_plane, device)


def stretched(plane: Plane, counted: Plane, step: kinds.Rescale) -> Plane:
    """scikit-image 0.18's rescale_intensity: clipped to the range, and float64 after it."""
    own = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 1.0)
    low, high = (own[i] if v is None else v for i, v in enumerate((step.low, step.high)))
    plane = np.clip(plane, low, high)
    if low == high:
        return np.clip(plane, step.out_low, step.out_high).astype(float)
    return np.asarray((plane - low) / (high - low) * (step.out_high - step.out_low) + step.out_low, float)


def matched(state: State, step: kinds.Rescale, plane: Plane, maximum: float) -> Plane:
    """An image whose maximum becomes that of another."""
    like = state.images[step.like]
    if len(like.pixels) > 1:
        raise ValueError("matching another image's maximum needs batches of one field")
    values = like.pixels if like.valid is None else like.pixels[like.valid]
    other = values.cpu().numpy().max() if values.numel() else np.float32(1)
    return plane if maximum == 0 else plane * other / maximum


def morph(state: State, step: kinds.Morph, device: Device) -> None:
    def of_plane(plane: Plane, mask: NDArray[np.bool_] | None) -> Plane:
        for operation, repeats, whole in zip(step.operations, step.repeats, step.rescale, strict=True):
            plane = morphed(plane, mask, operation, repeats, rescale=whole)
        return plane

    per_plane(state, step.image, step.output, of_plane, device, single=True)


def morphed(plane: Plane, mask: NDArray[np.bool_] | None, operation: str, repeats: int, *, rescale: bool) -> Plane:
    """One operation of Morph."""
    from centrosome import cpmorphology
    from centrosome import filter as filters

    plane = plane != 0
    if operation == "distance":
        result = ndimage.distance_transform_edt(plane)
        return np.asarray(result / result.max() if rescale else result)
    if operation == "convex hull":
        return np.asarray(cpmorphology.convex_hull_image(plane if mask is None else plane & mask))
    if operation in ("skel", "skelpe"):
        order = ndimage.distance_transform_edt(plane) * filters.poisson_equation(plane) if operation == "skelpe" else None
        return np.asarray(cpmorphology.skeletonize(plane, mask, order))
    if operation == "shrink":
        return np.asarray(cpmorphology.binary_shrink(plane, repeats))
    function = getattr(cpmorphology, operation)
    return np.asarray(function(plane, mask) if operation in ONCE else function(plane, mask, repeats))


def edges(state: State, step: kinds.Edges, device: Device) -> None:
    def of_plane(plane: Plane, mask: NDArray[np.bool_] | None) -> Plane:
        from centrosome import filter as filters
        from centrosome import otsu

        inside = np.ones(plane.shape, bool) if mask is None else mask
        prefix = {"all": "", "horizontal": "h", "vertical": "v"}[step.direction]
        if step.method == "sobel":
            return np.asarray(getattr(filters, f"{prefix}sobel")(plane, inside))
        if step.method == "prewitt":  # of all directions CellProfiler leaves out the mask
            of_all = not prefix
            return np.asarray(filters.prewitt(plane) if of_all else getattr(filters, f"{prefix}prewitt")(plane, inside))
        if step.method == "log":
            return np.asarray(filters.laplacian_of_gaussian(plane, inside, int(step.sigma * 4) + 1, step.sigma))
        if step.method == "roberts":
            return np.asarray(filters.roberts(plane, inside))
        if step.method == "kirsch":
            return kirsch(plane)
        low, high = step.low, step.high
        if low is None or high is None:
            found = [v * step.factor for v in otsu.otsu3(filters.sobel(plane, inside)[inside])]
            low, high = found[0] if low is None else low, found[1] if high is None else high
        return np.asarray(filters.canny(plane, inside, step.sigma, low, high))

    per_plane(state, step.image, step.output, of_plane, device, single=True)


def kirsch(plane: Plane) -> Plane:
    """The steepest of eight directions: three neighbours in a row count 5, the other five -3; none below 0, float64."""
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    result = np.zeros(plane.shape)
    for k in range(8):
        weights = np.zeros((3, 3))
        for i, at in enumerate(around):
            weights[at] = 5 if (i - k) % 8 < 3 else -3
        result = np.maximum(result, ndimage.convolve(plane, weights))
    return result


def enhance_on_host(state: State, step: image_kinds.Enhance, device: Device) -> None:
    """What EnhanceOrSuppressFeatures enhances but for tubes, and speckles of an odd size."""

    def of_plane(plane: Plane, mask: NDArray[np.bool_] | None) -> Plane:
        data = plane if mask is None else np.where(mask, plane, 0).astype(plane.dtype)
        if step.feature == "dark_holes":
            return dark_holes(plane, mask, step.holes)
        if step.feature == "dic":
            from centrosome.filter import line_integration

            return np.asarray(line_integration(plane, step.angle, step.decay, step.sigma or float(np.finfo(float).eps)))
        if step.feature == "texture":
            result = local_variance(data, mask, step.sigma)
        else:
            result = enhanced(data, step)
        return result if mask is None else np.where(mask, result, plane)

    per_plane(state, step.image, step.output, of_plane, device, single=True)


def enhanced(data: Plane, step: image_kinds.Enhance) -> Plane:
    """Lines by the gradient, or speckles, of a disk that may have even sides."""
    x = np.arange(-step.size / 2, step.size / 2 + 1)
    disk = x[:, None] ** 2 + x**2 <= (step.size / 2) ** 2
    if step.feature == "gradient":
        white, black = ndimage.white_tophat(data, footprint=disk), ndimage.black_tophat(data, footprint=disk)
        return np.clip(data + white - black, 0, 1)
    if step.slow or step.size <= 6:
        return ndimage.white_tophat(data, footprint=disk)
    return data - ndimage.maximum_filter(ndimage.minimum_filter(data, footprint=disk), footprint=disk)


def local_variance(data: Plane, mask: NDArray[np.bool_] | None, sigma: float) -> Plane:
    inside = np.ones(data.shape) if mask is None else mask.astype(float)
    near, mean, squares = (ndimage.gaussian_filter(v, sigma, mode="constant") for v in (inside, data, np.square(data)))
    return squares / near - (mean / near) ** 2


def dark_holes(plane: Plane, mask: NDArray[np.bool_] | None, holes: tuple[int, ...]) -> Plane:
    """What openings by reconstruction of the inverted image take away between the least and the greatest radius."""
    from skimage.morphology import reconstruction

    cross = ndimage.generate_binary_structure(2, 1)
    least, greatest = max(1, int(holes[0] / 2)), int((holes[1] + 1) / 2)
    inverted = plane.max() - plane
    before = eroded = inverted
    result = np.zeros(plane.shape)
    for i in range(greatest + 1):
        eroded = ndimage.grey_erosion(eroded, footprint=cross)
        eroded = eroded if mask is None else eroded * mask
        after = reconstruction(eroded, inverted, "dilation", cross)
        if i >= least:
            result = np.maximum(result, before - after)
        before = after
    return result
