"""Steps that make images: corrections, arithmetic, filters, crops and masks (CellProfiler's image modules)."""

from functools import reduce

import torch

from ..features.granularity import opening
from ..features.skeleton import thin, thin_by_table
from ..gpu.device import Device
from ..segmentation.background import subtract_background
from ..segmentation.gaussian import EPSILON, gaussian_taps, smooth, smooth_valid
from ..segmentation.threshold import Planes, above_threshold, find_threshold, mean_of, whole_planes
from ..settings import steps as kinds
from ..settings.config import BackgroundSettings, ThresholdSettings
from .image_tables import parted, record
from .state import Image, State

TINY = 3  # pixels of radius up to which CellProfiler takes the slow filter, which gives the same


def illuminate(state: State, step: kinds.Illuminate, device: Device) -> None:
    """The image divided by its function, or less it, clipped. A background of the image's own is subtracted in one go."""
    image = state.images[step.image]
    background = state.backgrounds.get(step.function)
    if background is not None:
        pixels = image.pixels.float().unsqueeze(1).contiguous()
        result = subtract_background(pixels, 0, background, device)
    else:
        function = state.images[step.function].pixels
        result = image.pixels / function if step.method == "divide" else image.pixels - function
        if step.method == "subtract":
            result = torch.where(result < 0, 0, result)
    if step.clip_low:
        result = torch.where(result < 0, 0, result)
    if step.clip_high:
        result = torch.where(result > 1, 1, result)
    state.images[step.output] = Image(result, image.valid, image.crop, image.scale)


def background(state: State, step: kinds.Background, device: Device) -> None:
    state.backgrounds[step.output] = BackgroundSettings(step.block, step.filter_size)  # type: ignore[arg-type]


def image_math(state: State, step: kinds.Math, device: Device) -> None:
    """Numbers are rounded as NumPy rounds them: a float32 image stays one."""
    images = [state.images[name] for name in step.images if name]
    values: list[torch.Tensor] = []
    for name, measurement, factor in zip(
        step.images, step.measurements or [""] * len(step.images), step.factors, strict=True
    ):
        value = state.images[name].pixels if name else state.image_measured[measurement].view(-1, 1, 1)
        if not name or factor != 1:  # a Python number beside float32 stays out of the way
            value = value * factor
        values.append(value)
    dtype = reduce(torch.promote_types, [v.dtype for v, name in zip(values, step.images, strict=True) if name])
    values = [v.to(dtype) for v in values]
    result = OPERATIONS[step.operation](values)
    if step.operation == "average":
        result = result / sum(step.factors)
    if step.exponent != 1:
        result = result.double().pow(step.exponent).to(result.dtype)
    if step.factor != 1:
        result = result * step.factor
    if step.addend != 0:
        result = result + step.addend
    if step.clip_low:
        result = torch.where(result < 0, 0, result)
    if step.clip_high:
        result = torch.where(result > 1, 1, result)
    if step.replace_nan:
        result = torch.where(result.isnan(), 0, result)
    valid = [i.valid for i in images if i.valid is not None]
    both = reduce(torch.logical_and, valid) if valid else None
    if both is not None:
        result = result * both
    state.images[step.output] = Image(result, both, images[0].crop)


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
    "none": lambda v: v[0],
}


def smooth_image(state: State, step: kinds.Smooth, device: Device) -> None:
    image = state.images[step.image]
    _, h, w = image.pixels.shape
    size = min(30.0, max(1.0, (h + w) / 2 / 40)) if step.size is None else step.size
    pixels = image.pixels.double().contiguous()
    if step.method == "gaussian":
        taps = gaussian_taps(size / 2.35)
        if image.valid is None:
            result = smooth(pixels, taps, device, epsilon=EPSILON)
        else:
            result = smooth_valid(pixels, image.valid, taps, device)
    else:
        raise ValueError(f"smoothing by {step.method} is not supported")
    state.images[step.output] = Image(result, image.valid, image.crop, image.scale)


def enhance(state: State, step: kinds.Enhance, device: Device) -> None:
    image = state.images[step.image]
    data = image.pixels if image.valid is None else torch.where(image.valid, image.pixels, 0)
    if step.feature == "tubeness":
        result = tubeness(data, step.sigma)
        if step.rescale:
            result = stretch(result)
    else:
        reader = open_by_disk(data, int(step.size / 2), device)
        result = reader if step.feature == "suppress" else data - reader
    if image.valid is not None:
        result = torch.where(image.valid, result, image.pixels.to(result.dtype))
    state.images[step.output] = Image(result, image.valid, image.crop, image.scale)


def open_by_disk(data: torch.Tensor, radius: int, device: Device) -> torch.Tensor:
    """Grey opening by a disk. A float64 image is opened by the ranks of its values, which float32 holds."""
    if data.dtype == torch.float32 and bool((data >= 0).all()):
        return opening(data.contiguous(), radius, device)
    result = torch.empty_like(data)
    for b, plane in enumerate(data):
        values, rank = torch.unique(plane, return_inverse=True)
        result[b] = values[opening(rank.float().unsqueeze(0).contiguous(), radius, device)[0].long()]
    return result


def tubeness(data: torch.Tensor, sigma: float) -> torch.Tensor:
    """The negative curvature across bright lines, float64 [B, H, W]: of the Hessian's larger eigenvalue (centrosome's
    hessian)."""
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
    if not (0 <= top < bottom <= h and 0 <= left < right <= w):
        raise ValueError(f"Crop to rows {top} to {bottom} and columns {left} to {right} leaves nothing of {h} x {w} pixels")
    pixels = image.pixels[:, top:bottom, left:right].contiguous()
    valid = None if image.valid is None else image.valid[:, top:bottom, left:right].contiguous()
    state.images[step.output] = Image(pixels, valid, (top, bottom, left, right), image.scale)
    record(state, f"Crop_AreaRetainedAfterCropping_{step.output}", [(bottom - top) * (right - left)] * len(pixels))
    record(state, f"Crop_OriginalImageArea_{step.output}", [h * w] * len(pixels))


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
    image = state.images[step.image]
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
    state.images[step.output] = Image(state.objects[step.objects].labels > 0)
