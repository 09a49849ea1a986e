"""Steps that make images: corrections, arithmetic, filters, crops and masks (CellProfiler's image modules)."""

import math
from dataclasses import replace
from functools import reduce

import numpy as np
import torch

from ..features.granularity import opening
from ..features.skeleton import thin, thin_by_table
from ..gpu.device import Device
from ..segmentation.gaussian import fits, gaussian_singles, gaussian_taps
from ..segmentation.planes import Planes, whole_planes
from ..segmentation.ranks import ranked
from ..segmentation.threshold import above_threshold, find_threshold, mean_of
from ..settings import steps as kinds
from ..settings.config import ThresholdSettings
from .filters import enhance_on_host
from .illumination import fitted, weighed
from .image_tables import parted, record
from .state import Image, State, thresholdable

MAX_PIXELS = 1 << 28  # of a resized image


def illuminate(state: State, step: kinds.Illuminate, device: Device) -> None:
    """The image divided by its function, or less it, clipped."""
    image, function = state.images[step.image], state.images[step.function].pixels
    if function.shape[-2:] != image.pixels.shape[-2:]:
        raise ValueError(
            f"image {step.image} is {list(image.pixels.shape[-2:])} pixels, function {step.function} is "
            f"{list(function.shape[-2:])}"
        )
    result = image.pixels / function if step.method == "divide" else image.pixels - function
    clip(result, step.clip_low or step.method == "subtract", step.clip_high)
    state.images[step.output] = Image(result.float(), image.valid, image.crop, image.scale)


def clip(image: torch.Tensor, low: bool, high: bool) -> None:
    """In place, to 0 and 1; NaN stays."""
    if (low or high) and image.is_floating_point():
        image.clamp_(0.0 if low else None, 1.0 if high else None)


def resize(state: State, step: kinds.Resize, device: Device) -> None:
    """By scikit-image, on the host. A mask is resized to the nearest pixel."""
    image = state.images[step.image]
    h, w = image.pixels.shape[-2:]
    size = (round(h * step.factor_y), round(w * step.factor_x)) if step.factor_y else (step.height, step.width)
    if step.like:
        like = state.images[step.like].pixels
        size = like.shape[-2], like.shape[-1]
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"an image of {h} x {w} pixels becomes {size[0]} x {size[1]}")
    planes = image.pixels.float().reshape(-1, h, w).cpu().numpy()
    result = np.stack([resized(p, size, step.order, "symmetric") for p in planes])
    pixels = device.tensor(result).reshape(*image.pixels.shape[:-2], *size)
    valid = None
    if image.valid is not None:
        masks = [resized(m.astype(np.float32), size, 0, "constant", smooth=False) for m in image.valid.cpu().numpy()]
        valid = device.tensor(np.stack(masks) > 0)
    state.images[step.output] = Image(pixels, valid)


def resized(plane: np.ndarray, size: tuple[int, int], order: int, mode: str, *, smooth: bool = True) -> np.ndarray:
    """A float32 image warped to a size as scikit-image 0.18 resizes it; smoothed before where it becomes smaller."""
    from scipy import ndimage
    from skimage.transform import AffineTransform, warp

    factor_y, factor_x = (n / m for n, m in zip(plane.shape, size, strict=True))
    if smooth:
        sigma = [max(0.0, (factor - 1) / 2) for factor in (factor_y, factor_x)]
        plane = ndimage.gaussian_filter(plane, sigma, mode="reflect" if mode == "symmetric" else mode)
    place = AffineTransform(np.array([[factor_x, 0, factor_x / 2 - 0.5], [0, factor_y, factor_y / 2 - 0.5], [0, 0, 1]]))
    result = warp(plane, place, output_shape=size, order=order, mode=mode, clip=True, preserve_range=True)
    return np.asarray(result, np.float32)


def gray_of_colors(state: State, step: kinds.GrayOfColors, device: Device) -> None:
    """In double precision, one plane after the other."""
    images = [state.images[name] for name in step.images]
    total = sum(step.weights)
    planes = [i.pixels.double() * (w / total) for i, w in zip(images, step.weights, strict=True)]
    state.images[step.output] = Image(reduce(torch.add, planes).float(), scale=images[0].scale)


def image_math(state: State, step: kinds.Math, device: Device) -> None:
    """Numbers are rounded as NumPy rounds them: a float32 image stays one."""
    images = [state.images[name] for name in step.images if name]
    values: list[torch.Tensor] = []
    for name, measurement, factor in zip(
        step.images, step.measurements or [""] * len(step.images), step.factors, strict=True
    ):
        value = state.images[name].pixels if name else state.image_measured[measurement].to(device.torch).view(-1, 1, 1)
        if not name or factor != 1:  # a Python number beside float32 stays out of the way
            value = (value.double() if value.dtype == torch.bool else value) * factor
        values.append(value)
    logical = all(v.dtype == torch.bool for v in values) and LOGICAL.get(step.operation)
    if binary := BINARY.get(step.operation) or logical:
        state.images[step.output] = with_mask(binary(values), images, step)
        return
    dtype = reduce(torch.promote_types, [v.dtype for v, name in zip(values, step.images, strict=True) if name])
    values = [v.to(torch.float64 if dtype == torch.bool else dtype) for v in values]  # NumPy's promotion
    result = OPERATIONS[step.operation](values)
    if step.operation == "average":
        result = result / sum(step.factors)
    if step.exponent != 1:
        result = result.double().pow(step.exponent).to(result.dtype)
    if step.factor != 1:
        result = result * step.factor
    if step.addend != 0:
        result = result + step.addend
    if any(result is value for value in values) and result.is_floating_point():
        result = result.clone()
    clip(result, step.clip_low, step.clip_high)
    if step.replace_nan and result.is_floating_point():
        result.nan_to_num_(0.0, torch.inf, -torch.inf)
    state.images[step.output] = with_mask(result, images, step)


def with_mask(result: torch.Tensor, images: list[Image], step: kinds.Math) -> Image:
    """ImageMath's output: what every operand's mask leaves, or (`ignore_mask`) the first one's."""
    valid = [i.valid for i in images[: 1 if step.ignore_mask else None] if i.valid is not None]
    both = reduce(torch.logical_and, valid) if valid else None
    if both is not None and not step.ignore_mask:
        result = result * both
    return Image(result, both, images[0].crop, images[0].scale)


def deviation(values: list[torch.Tensor]) -> torch.Tensor:
    """The standard deviation over images, in NumPy's order and their type."""
    return torch.from_numpy(np.std(np.stack([v.cpu().numpy() for v in values]), axis=0)).to(values[0].device)


def logarithm(values: torch.Tensor) -> torch.Tensor:
    """To base 2 and in the image's type."""
    return torch.from_numpy(np.log2(values.cpu().numpy())).to(values.device)


BINARY = {
    "and": lambda v: reduce(torch.logical_and, v),
    "or": lambda v: reduce(torch.logical_or, v),
    "equals": lambda v: reduce(torch.logical_and, [v[0] == other for other in v[1:]]),
    "not": lambda v: torch.logical_not(v[0]),
}
LOGICAL = {  # what arithmetic is of binary images
    **dict.fromkeys(("add", "average", "maximum"), BINARY["or"]),
    **dict.fromkeys(("multiply", "minimum"), BINARY["and"]),
    "subtract": lambda v: reduce(lambda a, b: a & ~b, v),
    "difference": lambda v: reduce(torch.logical_xor, v),
    "invert": BINARY["not"],
    "none": lambda v: v[0],
}
OPERATIONS = {
    "add": lambda v: reduce(torch.add, v),
    "average": lambda v: reduce(torch.add, v),
    "subtract": lambda v: reduce(torch.sub, v),
    "difference": lambda v: reduce(lambda a, b: (a - b).abs(), v),
    "multiply": lambda v: reduce(torch.mul, v),
    "divide": lambda v: reduce(torch.div, v),
    "minimum": lambda v: reduce(torch.minimum, v),
    "maximum": lambda v: reduce(torch.maximum, v),
    "invert": lambda v: 1 - v[0],
    "deviation": deviation,
    "log": lambda v: logarithm(v[0] + 1),
    "log_legacy": lambda v: logarithm(v[0]),
    "none": lambda v: v[0],
}


def smooth_image(state: State, step: kinds.Smooth, device: Device) -> None:
    """A Gaussian by the kernels, the rest by SciPy, scikit-image and centrosome on the host; float32, as CellProfiler's."""
    image = state.images[step.image]
    _, h, w = image.pixels.shape
    size = min(30.0, max(1.0, (h + w) / 2 / 40)) if step.size is None else step.size
    if step.method == "gaussian" and image.valid is None and image.pixels.dtype == torch.float32 and fits(size / 2.35):
        result = gaussian_singles(image.pixels, size / 2.35, device)
    else:
        planes = []
        for b, plane in enumerate(image.pixels.cpu().numpy()):
            mask = None if image.valid is None else image.valid[b].cpu().numpy()
            planes.append(smoothed_plane(plane, mask, step, size, device))
        result = device.tensor(np.stack(planes))
    state.images[step.output] = Image(result.float(), image.valid, image.crop, image.scale)


def smoothed_plane(
    plane: np.ndarray, mask: np.ndarray | None, step: kinds.Smooth, size: float, device: Device
) -> np.ndarray:
    """One image of any type, smoothed; of a masked image only what counts does."""
    from scipy import ndimage

    inside = np.ones(plane.shape, bool) if mask is None else mask
    if step.method == "gaussian":
        return weighed(plane, mask, lambda v: ndimage.gaussian_filter(v, size / 2.35, mode="constant"))
    if step.method == "median":
        from centrosome.filter import median_filter

        if not inside.any():
            return plane
        level, levels = ranked(plane[inside], device)
        whole = np.zeros(plane.shape, int)  # whole numbers that it ranks no further
        whole[inside] = level
        return np.asarray(levels[median_filter(whole, inside, size / 2 + 1)])
    if step.method == "circular_average":
        from centrosome.filter import circular_average_filter

        return np.asarray(circular_average_filter(plane, size / 2 + 1, inside))
    if step.method == "keeping_edges":
        from skimage.restoration import denoise_bilateral

        return np.asarray(
            denoise_bilateral(plane.astype(float), sigma_color=step.edge_range, sigma_spatial=size / 2.35, channel_axis=None)
        )
    if step.method == "polynomial":
        return fitted(plane, mask, clip=step.clip)
    assert step.method == "average"
    return np.full(plane.shape, np.mean(plane[inside]), np.float32)


def enhance(state: State, step: kinds.Enhance, device: Device) -> None:
    image = state.images[step.image]
    on_host = step.feature in ("gradient", "dark_holes", "texture", "dic")
    if on_host or (step.feature == "speckles" and step.size % 2):
        enhance_on_host(state, step, device)
        if step.feature == "gradient" and step.rescale:
            enhanced = state.images[step.output]
            state.images[step.output] = replace(enhanced, pixels=stretch(enhanced.pixels).float())
        return
    data = image.pixels if image.valid is None else torch.where(image.valid, image.pixels, 0)
    if step.feature == "tubeness":
        result = tubeness(data, step.sigma, device)
        if step.rescale:
            result = stretch(result)
    else:
        reader = open_by_disk(data, int(step.size / 2), device)
        result = reader if step.feature == "suppress" else data - reader
    if image.valid is not None:
        result = torch.where(image.valid, result, image.pixels.to(result.dtype))
    state.images[step.output] = Image(result.float(), image.valid, image.crop, image.scale)


def open_by_disk(data: torch.Tensor, radius: int, device: Device) -> torch.Tensor:
    """Grey opening by a disk. A float64 image is opened by the ranks of its values, which float32 holds."""
    if data.dtype == torch.float32 and bool((data >= 0).all()):
        return opening(data.contiguous(), radius, device)
    result = torch.empty_like(data)
    for b, plane in enumerate(data):
        values, rank = torch.unique(plane, return_inverse=True)
        result[b] = values[opening(rank.float().unsqueeze(0).contiguous(), radius, device)[0].long()]
    return result


def tubeness(data: torch.Tensor, sigma: float, device: Device) -> torch.Tensor:
    """The negative curvature across bright lines, float64 [B, H, W]: of the Hessian's larger eigenvalue (centrosome's
    hessian). A float64 image is smoothed and differentiated in doubles."""
    if data.dtype == torch.float32 and fits(sigma):
        b, h, w = data.shape
        result = device.empty(b, h, w, dtype=torch.float64)
        smoothed = gaussian_singles(data, sigma, device, mirrored=True)
        device.launch("tubeness", b * h, image=smoothed, height=h, width=w, square=float(sigma) ** 2, tubes=result)
        return result
    return tubeness_of_doubles(data, sigma)


def tubeness_of_doubles(data: torch.Tensor, sigma: float) -> torch.Tensor:
    smoothed = gaussian_mirrored(data, sigma)
    rows, columns, across = (torch.zeros(data.shape, dtype=torch.float64, device=data.device) for _ in range(3))
    s = smoothed
    rows[:, 1:-1] = (s[:, :-2] - 2 * s[:, 1:-1] + s[:, 2:]).double()
    across[:, 1:-1, 1:-1] = ((s[:, 2:, 2:] + s[:, :-2, :-2] - s[:, 2:, :-2] - s[:, :-2, 2:]) / 4).double()
    columns[:, :, 1:-1] = (s[:, :, :-2] - 2 * s[:, :, 1:-1] + s[:, :, 2:]).double()
    minus = -(rows + columns)
    root = torch.sqrt(minus * minus - 4 * (rows * columns - across * across))
    first, second = (-minus + root) / 2, (-minus - root) / 2
    larger = torch.where(second.abs() > first.abs(), second, first)
    return -larger * (larger < 0) * sigma**2


def gaussian_mirrored(data: torch.Tensor, sigma: float) -> torch.Tensor:
    """SciPy's gaussian_filter of [B, H, W] images, mirrored at the border; each axis is rounded to the image's type."""
    taps = gaussian_taps(sigma)
    radius = len(taps) - 1
    for axis in (1, 2):
        n = data.shape[axis]
        at = torch.arange(-radius, n + radius, device=data.device)
        at = at.remainder(2 * n)
        at = torch.where(at >= n, 2 * n - 1 - at, at)
        wide = data.index_select(axis, at).double()
        result = wide.narrow(axis, radius, n) * taps[0]
        for k in range(radius, 0, -1):
            result = result + (wide.narrow(axis, radius - k, n) + wide.narrow(axis, radius + k, n)) * taps[k]
        data = result.to(data.dtype)
    return data


def stretch(data: torch.Tensor) -> torch.Tensor:
    """Values of each field from their least to their greatest, to 0 .. 1 (scikit-image's rescale_intensity)."""
    minimum, maximum = data.flatten(1).amin(1).view(-1, 1, 1), data.flatten(1).amax(1).view(-1, 1, 1)
    flat = torch.where(minimum < 0, data.clamp(-1, 1), data.clamp(0, 1))
    low = torch.where(minimum < 0, -1.0, 0.0)
    return torch.where(minimum == maximum, flat, (data - minimum) / (maximum - minimum) * (1 - low) + low)


def crop(state: State, step: kinds.Crop, device: Device) -> None:
    image = state.images[step.image]
    h, w = image.pixels.shape[1:]
    if step.like:
        place = state.images[step.like].crop
        assert place is not None
        top, bottom, left, right = place
    else:
        top, bottom = step.top, h if step.bottom is None else min(step.bottom, h)
        left, right = step.left, w if step.right is None else min(step.right, w)
    if step.ellipse or step.objects or step.mask:
        inside = inside_of(state, step, device)
    else:
        inside = torch.zeros(image.pixels.shape, dtype=torch.bool, device=image.pixels.device)
        inside[:, top:bottom, left:right] = True
    if step.ellipse and bool(inside.any()):
        rows, columns = (inside[0].any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    if not (0 <= top < bottom <= h and 0 <= left < right <= w):
        raise ValueError(f"Crop to rows {top} to {bottom} and columns {left} to {right} leaves nothing of {h} x {w} pixels")
    part = (slice(None), slice(None), slice(None)) if step.keep else (slice(None), slice(top, bottom), slice(left, right))
    pixels, within = image.pixels[part], inside[part]
    valid: torch.Tensor | None = within if image.valid is None else (image.valid[part] & within).contiguous()
    if image.valid is None and bool(within.all()):
        valid = None
    pixels = torch.where(within, pixels, torch.zeros_like(pixels)).contiguous()
    state.images[step.output] = Image(pixels, valid, (top, bottom, left, right), image.scale)
    record(state, f"Crop_AreaRetainedAfterCropping_{step.output}", inside.flatten(1).sum(1).tolist())
    record(state, f"Crop_OriginalImageArea_{step.output}", [h * w] * len(pixels))


def inside_of(state: State, step: kinds.Crop, device: Device) -> torch.Tensor:
    """bool [B, H, W]: an ellipse, where distances to its foci sum to at most its longer diameter; or a mask's shape."""
    if step.objects:
        return state.objects[step.objects].labels > 0
    if step.mask:
        return state.images[step.mask].pixels > 0
    shape = state.images[step.image].pixels.shape
    x, y, radius_x, radius_y = step.ellipse
    focus = math.sqrt(abs(radius_x**2 - radius_y**2))
    far_x, far_y = (focus, 0.0) if radius_x > radius_y else (0.0, focus)
    rows, columns = np.mgrid[0 : shape[1], 0 : shape[2]]
    sums = sum(np.sqrt((columns - (x + s * far_x)) ** 2 + (rows - (y + s * far_y)) ** 2) for s in (-1, 1))
    return device.tensor(np.asarray(sums <= 2 * max(radius_x, radius_y))).expand(shape)


def mask_image(state: State, step: kinds.MaskImage, device: Device) -> None:
    image = state.images[step.image]
    if step.objects:
        inside = state.objects[step.objects].labels > 0
    else:
        mask = state.images[step.mask].pixels
        inside = mask if mask.dtype == torch.bool else mask > 0.5
    inside = ~inside if step.invert else inside
    if image.valid is not None:
        inside = inside & image.valid
    state.images[step.output] = Image(torch.where(inside, image.pixels, 0), inside, image.crop, image.scale)


def threshold(state: State, step: kinds.Threshold, device: Device) -> None:
    image = thresholdable(state.images[step.image], step.image, step.threshold.method, negative=True)
    planes = whole_planes(image.pixels.contiguous())
    settings, final = thresholds_of(state, step.threshold, planes, step.output, image, device)
    above = above_threshold(planes, final, settings.smoothing, device, image.valid)
    parted(state, step.output, image, settings, above, device)
    state.images[step.output] = Image(above.bool(), image.valid, image.crop)


def thresholds_of(
    state: State, settings: ThresholdSettings, planes: Planes, name: str, image: Image, device: Device
) -> tuple[ThresholdSettings, torch.Tensor]:
    """The final threshold of a module's output `name`, recorded with the original one."""
    original, final = find_threshold(planes, settings, device, image.valid)
    state.image_measured[f"Threshold_OrigThreshold_{name}"] = mean_of(original)
    state.image_measured[f"Threshold_FinalThreshold_{name}"] = mean_of(final)
    return settings, final


def skeletonize(state: State, step: kinds.Skeletonize, device: Device) -> None:
    image = state.images[step.image]
    mask = image.pixels if image.pixels.dtype == torch.bool else image.pixels > 0
    result = thin_by_table(mask, device) if step.method == "lookup" else thin(mask, device)
    state.images[step.output] = Image(result, image.valid, image.crop, image.scale)


def objects_to_image(state: State, step: kinds.ObjectsImage, device: Device) -> None:
    labels = state.objects[step.objects].labels
    if step.mode == "binary":
        state.images[step.output] = Image(labels > 0)
        return
    highest = labels.flatten(1).amax(1).clamp(min=1).view(-1, 1, 1) if step.mode == "grayscale" else 1
    state.images[step.output] = Image((labels.double() / highest).float())
