"""CorrectIlluminationCalculate: from an image, or the mean of a plate's images, to an illumination function.

The arithmetic is CellProfiler's, image by image: every stage's outcome is rounded to float32, as CellProfiler stores images.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..gpu.device import Device
from ..segmentation.background import MAX, background_of, blocks_of
from ..segmentation.gaussian import EPSILON, fits, gaussian_singles
from ..settings import steps as kinds
from ..settings.config import BackgroundSettings
from .state import Image, State

ROBUST = 0.02  # the share of positive pixels below what becomes 1
Plane = NDArray[Any]


def illumination(state: State, step: kinds.Illumination, device: Device) -> None:
    """The function of each image by itself."""
    image = state.images[step.image]
    if quick(step, image):
        settings = BackgroundSettings(step.block, step.size)  # type: ignore[arg-type]
        pixels = image.pixels.float().unsqueeze(1).contiguous()
        state.images[step.output] = Image(background_of(pixels, 0, settings, device), None, image.crop)
        return
    parts: dict[str, list[Plane]] = {name: [] for name in (step.output, step.average, step.dilated) if name}
    for b, plane in enumerate(image.pixels.cpu().numpy()):
        mask = None if image.valid is None else image.valid[b].cpu().numpy()
        average = to_average(plane, mask, step)
        dilated, function = function_of(average, mask, step, device)
        for name, part in ((step.average, average), (step.dilated, dilated), (step.output, function)):
            if name:
                parts[name].append(part)
    for name, planes in parts.items():
        state.images[name] = Image(device.tensor(np.stack(planes)), None, image.crop)


def quick(step: kinds.Illumination, image: Image) -> bool:
    """Whether the kernels of the presets' background do it."""
    return (
        step.background
        and step.smoothing == "gaussian"
        and step.size is not None
        and step.rescale == "no"
        and not step.dilation
        and not (step.average or step.dilated)
        and image.valid is None
        and int(image.pixels.shape[-1] / step.block) <= MAX
        and bool((image.pixels >= 0).all())
    )


def to_average(plane: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    """What is averaged of an image: its pixels, 0 where masked, or the minima of its blocks; float32."""
    if not step.background or step.smoothing == "splines":
        return np.asarray(plane if mask is None else np.where(mask, plane, 0), np.float32)
    index, count = blocks_of(plane.shape, step.block)
    if mask is None:  # blocks are rectangles
        columns = int(index[0, -1]) + 1
        starts = [np.flatnonzero(np.diff(line, prepend=-1)) for line in (index[:, 0] // columns, index[0])]
        least = np.minimum.reduceat(np.minimum.reduceat(plane, starts[0], 0), starts[1], 1)
        return np.asarray(least.ravel()[index], np.float32)
    inside = np.ones(plane.shape, bool) if mask is None else mask
    minima = np.full(count, np.inf)
    np.minimum.at(minima, index[inside], plane[inside])
    minima[np.isinf(minima)] = 0
    return np.where(inside, minima[index], 0).astype(np.float32)


def function_of(average: Plane, mask: Plane | None, step: kinds.Illumination, device: Device) -> tuple[Plane, Plane]:
    """The dilated average and the function, float32 [H, W], of an average of which the pixels in `mask` count.

    Of a plate's average CellProfiler forgets the mask once it has dilated or smoothed it.
    """
    from scipy import ndimage  # here: it is 0.2 s of every start, and few pipelines need it

    dilated = average
    if step.dilation:
        kernel = circular_gaussian(step.dilation, 3 * step.dilation)
        dilated = weighed(average, mask, lambda image: ndimage.convolve(image, kernel, mode="constant"))
        mask = None if step.plate else mask
    if step.smoothing == "gaussian" and mask is None and fits(sigma := filter_size(step, dilated.shape) / 2.35):
        smoothed = gaussian_singles(device.tensor(dilated[None]), sigma, device)[0].cpu().numpy()
    else:
        smoothed = SMOOTHING[step.smoothing](dilated, mask, step)
    mask = None if step.plate and step.smoothing != "none" else mask
    if step.smoothing == "median":
        smoothed = smoothed.astype(np.float32) / np.float32(65535)
    return dilated, rescaled(np.asarray(smoothed, np.float32), mask, step.rescale)


def circular_gaussian(sigma: int, radius: int) -> Plane:
    """CellProfiler's kernel for dilation, which sums to 1: its exponent divides by the fourth power of sigma."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(float) / radius
    inside = y**2 + x**2 <= 1
    y, x = y * radius / sigma, x * radius / sigma
    kernel = np.where(inside, np.e ** (-(y**2 + x**2) / (2 * sigma**2)), 0)
    return np.asarray(kernel / kernel.sum())


def weighed(image: Plane, mask: Plane | None, function: Any) -> Plane:
    """A linear filter over the pixels that count, divided by their weight; float32."""
    inside = np.ones(image.shape, bool) if mask is None else mask
    weight = function(inside.astype(float))
    return np.asarray(function(np.where(inside, image, 0).astype(image.dtype)) / (weight + EPSILON), np.float32)


def filter_size(step: kinds.Illumination, shape: tuple[int, ...]) -> float:
    return min(30.0, max(shape) / 40.0) if step.size is None else step.size


def gaussian(image: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    from scipy import ndimage

    sigma = filter_size(step, image.shape) / 2.35
    return weighed(image, mask, lambda v: ndimage.gaussian_filter(v, sigma, mode="constant"))


def median(image: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    """Over a disk, on 16 bits: uint16."""
    from skimage.filters import median as of_ranks  # half a second to import
    from skimage.morphology import disk

    radius = max(1, int(filter_size(step, image.shape) / 2.35 + 0.5))
    radius = min(radius, int(np.ceil(np.hypot(*image.shape))))  # no farther than the image
    counts = (image * 65535).astype(np.uint16)
    if mask is not None:
        counts = counts * mask.astype(np.uint16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Bad rank filter performance")
        return np.asarray(of_ranks(counts, disk(radius), behavior="rank"))


def polynomial(image: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    return fitted(image, mask, clip=True)


def fitted(image: Plane, mask: Plane | None, *, clip: bool) -> Plane:
    """The polynomial of second degree in rows and columns that fits the positive pixels best."""
    from scipy.linalg import lstsq

    inside = image > 0 if mask is None else (image > 0) & mask
    if not inside.any():
        return image
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    terms = [y, x, y * y, x * x, y * x, np.ones(image.shape)]
    coefficients = lstsq(np.array([term[inside] for term in terms]).T, image[inside])[0]
    result = np.sum([c * term for c, term in zip(coefficients, terms, strict=True)], axis=0)
    return np.clip(result, 0, 1) if clip else np.asarray(result)


def average(image: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    return np.full(image.shape, np.mean(image if mask is None else image[mask]), image.dtype)


def convex_hull(image: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    """Every pixel has the highest level whose pixels' convex hull it is in, without what is thinner than 5 pixels."""
    from centrosome.cpmorphology import grey_dilation, grey_erosion
    from centrosome.filter import convex_hull_transform

    inside = np.ones(image.shape, bool) if mask is None else mask
    result = convex_hull_transform(grey_erosion(image, 2, inside), mask=inside)
    return np.asarray(grey_dilation(result, 2, inside))


def splines(image: Plane, mask: Plane | None, step: kinds.Illumination) -> Plane:
    """A surface of splines through the background, less its mean."""
    from centrosome.bg_compensate import backgr

    inside = np.ones(image.shape, bool) if mask is None else mask
    if not step.spline_points:
        shortest = min(image.shape)
        result = backgr(image, inside, scale=1 if shortest < 200 else shortest / 200)
    else:
        result = backgr(
            image,
            inside,
            mode=step.spline_mode,
            thresh=step.spline_threshold,
            splinepoints=step.spline_points,
            scale=step.spline_scale,
            maxiter=step.spline_iterations,
            convergence=step.spline_convergence,
        )
    result[inside] -= np.mean(result[inside])
    return np.asarray(result)


SMOOTHING = {
    "none": lambda image, mask, step: image,
    "gaussian": gaussian,
    "median": median,
    "polynomial": polynomial,
    "average": average,
    "convex_hull": convex_hull,
    "splines": splines,
}


def rescaled(image: Plane, mask: Plane | None, how: str) -> Plane:
    """Divided by the value at 2 % ("yes", and no lower than 1) or in the middle ("median") of the sorted positive pixels."""
    inside = image > 0 if mask is None else (image > 0) & mask
    if how == "no" or not inside.any():
        return image
    values = np.sort(image[inside])
    value = values[int(len(values) * ROBUST) if how == "yes" else len(values) // 2]
    return (np.maximum(image, value) if how == "yes" else image) / value


class PlateAverage:
    """The mean of what is averaged of each image, field after field, in float32 as CellProfiler adds them up."""

    def __init__(self, step: kinds.Illumination):
        self.step, self.count = step, np.zeros((), np.int32)
        self.sum: Plane | None = None

    def add(self, image: Image) -> None:
        for b, plane in enumerate(image.pixels.cpu().numpy()):
            mask = None if image.valid is None else image.valid[b].cpu().numpy()
            part = to_average(plane, mask, self.step)
            if self.sum is None:
                self.sum, self.count = np.zeros(part.shape, np.float32), np.zeros(part.shape, np.int32)
            inside = np.ones(part.shape, bool) if mask is None else mask
            self.sum = np.where(inside, self.sum + part, self.sum)
            self.count = self.count + inside

    def function(self, device: Device) -> dict[str, Image]:
        """The function, and what is kept besides, by name: [1, H, W]."""
        assert self.sum is not None
        inside = self.count > 0
        mean = np.where(inside, self.sum / np.maximum(self.count, 1), 0).astype(np.float32)
        dilated, function = function_of(mean, None if inside.all() else inside, self.step, device)
        kept = ((self.step.average, mean), (self.step.dilated, dilated), (self.step.output, function))
        return {name: Image(device.tensor(part[None])) for name, part in kept if name}
