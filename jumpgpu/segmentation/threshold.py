"""The global threshold of each field, and the pixels above it (CellProfiler Threshold).

Values are intensities, 0..1. A field of one value has that value as its threshold.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ..gpu.device import Device, blocks
from ..settings.config import ThresholdSettings
from .gaussian import EPSILON, gaussian_taps, smooth, smooth_above, smooth_valid
from .planes import Planes, whole_planes
from .ranks import ascending

CELLS = 65537  # cells of 1/65536 (kernels/segmentation/cross_entropy.cu: CELLS)
PIECE = 8192  # values of a block that puts them into cells (kernels/segmentation/cross_entropy.cu: PIECE)
CHUNK = 16384  # values of a block of extrema and histogram
WIDE_BLOCK = 1024  # threads of the kernels that give a whole field to one block
CELL_BLOCK = 256  # threads of one that reads a cell of a field at a time
METHODS = ("minimum_cross_entropy", "otsu2", "otsu3", "robust_background", "manual")


def check_words(settings: ThresholdSettings) -> None:
    """ValueError for a method, or a word of a method, that is not known."""
    if settings.middle_class not in ("foreground", "background"):
        raise ValueError(f"unknown middle_class {settings.middle_class!r}; expected 'foreground' or 'background'")
    if settings.method not in METHODS:
        raise ValueError(f"unknown threshold method {settings.method!r}; expected one of {METHODS}")


def find_threshold(
    planes: Planes, settings: ThresholdSettings, device: Device, valid: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Thresholds of each field by the method of `settings`.

    Parameters
    ----------
    valid : bool [B, H, W]
        Pixels that count; None: all.

    Returns
    -------
    original, final : float64 [B], or where the settings have a window [B, H, W]
        As the method gives it, and after correction and bounds (a manual threshold has neither).
    """
    check_words(settings)
    b = planes.shape[0]
    if settings.method == "manual":
        manual = torch.full((b,), settings.manual, dtype=torch.float64, device=device.torch)
        return manual, manual.clone()
    if b == 0 or planes.n == 0:
        none = torch.zeros(b, dtype=torch.float64, device=device.torch)
        return none, none.clone()
    extrema = find_extrema(planes, device)
    logarithm = settings.log_transform and settings.method != "robust_background"
    scaled, scaled_extrema = planes, extrema
    if logarithm:
        logs = device.empty(*planes.shape, dtype=planes.values.dtype)
        planes.launch(device, "log_stretch", b * planes.shape[1], height=planes.shape[1], extrema=extrema, logarithm=logs)
        scaled = whole_planes(logs)
        scaled_extrema = find_extrema(scaled, device)
    original = device.empty(b, dtype=torch.float64)
    if valid is None:
        METHOD[settings.method](scaled, scaled_extrema, settings, device, original)
    else:
        images = scaled.values.reshape(b, -1, planes.n)[:, scaled.offset // planes.n]
        for k, inside in enumerate(valid.flatten(1)):
            original[k] = of_values(images[k][inside], settings, device)
    final = finish(original, extrema, logarithm, planes.single, settings, device)
    if settings.window is None:
        return original, final
    local = adaptive(scaled, settings, device, valid)
    finish(local, extrema, logarithm, planes.single, settings, device)
    corrected = local * settings.correction
    low = torch.clamp(final * 0.7, min=settings.lower).view(-1, 1, 1)
    high = torch.clamp(final * 1.5, max=settings.upper).view(-1, 1, 1)
    corrected = torch.where(corrected < low, low, corrected)
    return local, torch.where(corrected > high, high, corrected)


def finish(
    original: torch.Tensor, extrema: torch.Tensor, logarithm: bool, single: bool, settings: ThresholdSettings, device: Device
) -> torch.Tensor:
    """Thresholds float64 [B] or [B, H, W], put back in place from the stretched logarithm; returned after correction and
    bounds."""
    n = original.numel()
    final = torch.empty_like(original)
    device.launch(
        "finish_threshold",
        blocks(n),
        extrema=extrema,
        n_thresholds=n,
        of_field=n // len(extrema),
        logarithm=int(logarithm),
        single=int(single),
        correction=settings.correction,
        lower=settings.lower,
        upper=settings.upper,
        original=original,
        threshold=final,
    )
    return final


def of_values(
    values: torch.Tensor, settings: ThresholdSettings, device: Device, tolerance: torch.Tensor | None = None
) -> torch.Tensor:
    """The threshold of some values, float64 []; 0 of none. `tolerance`: that of minimum cross-entropy, where it is not
    theirs."""
    result = torch.zeros(1, dtype=torch.float64, device=device.torch)
    if not values.numel():
        return result[0]
    planes = whole_planes(values.reshape(1, 1, -1).contiguous())
    extrema = find_extrema(planes, device)
    if settings.method == "otsu3" and len(torch.unique(values)) < 3:  # as CellProfiler does in a block
        settings = replace(settings, method="otsu2")
    if tolerance is None:
        METHOD[settings.method](planes, extrema, settings, device, result)
    else:
        entropy_rounds(planes, extrema, tolerance, device, result, in_cells=False)
    return result[0]


def check_window(height: int, width: int, settings: ThresholdSettings) -> None:
    """ValueError where a field of this size has fewer than two blocks of the window along an axis."""
    if settings.window is not None and min(height, width) // settings.window < 2:
        maximum = min(height, width) // 2
        raise ValueError(
            f"threshold.window is {settings.window}; of a field of {height} x {width} it may be {maximum} at most"
        )


def adaptive(planes: Planes, settings: ThresholdSettings, device: Device, valid: torch.Tensor | None = None) -> torch.Tensor:
    """A threshold a pixel, float64 [B, H, W]: those of blocks, joined by a spline through the middles of blocks.

    Blocks of one shape are thresholded together, as if each were a field. The spline is SciPy's, of a few hundred numbers a
    field, which come to the host for it.
    """
    from scipy.interpolate import RectBivariateSpline

    b, h, w = planes.shape
    check_window(h, w, settings)
    assert settings.window is not None
    n_y, n_x = h // settings.window, w // settings.window
    step_y, step_x = h / n_y, w / n_x
    y_cut, x_cut = ([int(i * step) for i in range(n + 1)] for n, step in ((n_y, step_y), (n_x, step_x)))
    images = planes.values.reshape(b, -1, h, w)[:, planes.offset // planes.n]
    tolerance = None
    if settings.method == "minimum_cross_entropy":  # that of the whole image
        tolerance = device.empty(b, dtype=torch.float64)
        cells = device.zeros(b, 2, CELLS, dtype=torch.int64).view(torch.uint64)
        planes.launch(device, "value_gap", b, block=WIDE_BLOCK, cells=cells, tolerance=tolerance)
    result = torch.empty(b, n_y, n_x, dtype=torch.float64, device=device.torch)
    sizes_y, sizes_x = ([j - i for i, j in itertools.pairwise(cut)] for cut in (y_cut, x_cut))
    if valid is not None:
        for k in range(b):
            own = None if tolerance is None else tolerance[k : k + 1]
            for i in range(n_y):
                for j in range(n_x):
                    tile = k, slice(y_cut[i], y_cut[i + 1]), slice(x_cut[j], x_cut[j + 1])
                    result[k, i, j] = of_values(images[tile][valid[tile]], settings, device, own)
    for size_y in sorted(set(sizes_y)) if valid is None else ():
        for size_x in sorted(set(sizes_x)):
            rows = [i for i in range(n_y) if sizes_y[i] == size_y]
            columns = [j for j in range(n_x) if sizes_x[j] == size_x]
            parts = [images[:, y_cut[i] : y_cut[i] + size_y, x_cut[j] : x_cut[j] + size_x] for i in rows for j in columns]
            stack = torch.stack(parts, 1).reshape(-1, size_y, size_x).contiguous()
            tiles = whole_planes(stack)
            extrema = find_extrema(tiles, device)
            original = device.empty(len(stack), dtype=torch.float64)
            if tolerance is not None:
                each = tolerance.repeat_interleave(len(parts)).contiguous()
                entropy_rounds(tiles, extrema, each, device, original, in_cells=False)
            else:
                METHOD[settings.method](tiles, extrema, settings, device, original)
            of_parts = original.view(b, len(rows), len(columns))
            result[:, torch.tensor(rows)[:, None], torch.tensor(columns)[None, :]] = of_parts
    at_y, at_x = (np.linspace(int(s / 2), int((n - 0.5) * s), n) for s, n in ((step_y, n_y), (step_x, n_x)))
    to_y, to_x = (np.linspace(0.5, int(n * s) - 0.5, size) for s, n, size in ((step_y, n_y, h), (step_x, n_x, w)))
    degree = min(3, min(n_y, n_x) - 1)
    box = (0.5, h - 0.5, 0.5, w - 0.5)
    joined = [
        RectBivariateSpline(at_y, at_x, of_blocks, bbox=box, kx=degree, ky=degree)(to_y, to_x)
        for of_blocks in result.cpu().numpy()
    ]
    return device.tensor(np.stack(joined))


def mean_of(threshold: torch.Tensor) -> torch.Tensor:
    """A threshold a field, float64 [B], where it may be one a pixel: NumPy's mean, as CellProfiler takes it."""
    if threshold.ndim == 1:
        return threshold
    return torch.from_numpy(threshold.flatten(1).cpu().numpy().mean(1)).to(threshold.device)


def find_extrema(planes: Planes, device: Device) -> torch.Tensor:
    """Bits of the least and greatest value of each field, as doubles: uint64 [B, 2]."""
    b = planes.shape[0]
    extrema = device.zeros(b, 2, dtype=torch.int64)
    extrema[:, 0] = -1
    bits = extrema.view(torch.uint64)
    planes.launch(device, "extrema", b * -(-planes.n // CHUNK), extrema=bits)
    return bits


def cross_entropy(
    planes: Planes, extrema: torch.Tensor, _: ThresholdSettings, device: Device, original: torch.Tensor
) -> None:
    b = planes.shape[0]
    tolerance = device.empty(b, dtype=torch.float64)
    cells = device.zeros(b, 2, CELLS, dtype=torch.int64).view(torch.uint64)
    planes.launch(device, "value_gap", b, block=WIDE_BLOCK, cells=cells, tolerance=tolerance)
    entropy_rounds(planes, extrema, tolerance, device, original, in_cells=device.massively_parallel)


def entropy_rounds(
    planes: Planes,
    extrema: torch.Tensor,
    tolerance: torch.Tensor,
    device: Device,
    original: torch.Tensor,
    *,
    in_cells: bool,
) -> None:
    """The rounds of minimum cross-entropy. `in_cells`: values are put into cells first, so that a round reads few."""
    b = planes.shape[0]
    if not in_cells:
        common = {"extrema": extrema, "tolerance": tolerance, "threshold": original}
        planes.launch(device, "cross_entropy", b, block=WIDE_BLOCK, **common)
        return
    pieces = b * -(-planes.n // PIECE)
    cells = device.zeros(2, b, CELLS, dtype=torch.int64)
    planes.launch(device, "entropy_cells", pieces, extrema=extrema, fields=b, cells=cells.view(torch.uint64))
    ends = torch.cumsum(cells, 2)
    first = (ends[0] - cells[0]).view(torch.uint64)
    rest = device.empty(b, planes.n, dtype=torch.uint32)
    planes.launch(device, "entropy_place", pieces, extrema=extrema, next=first, rest=rest)
    device.launch(
        "entropy_rounds",
        b,
        block=CELL_BLOCK,
        ends=ends.view(torch.uint64),
        rest=rest,
        fields=b,
        n=planes.n,
        extrema=extrema,
        tolerance=tolerance,
        threshold=original,
    )


def histogram(planes: Planes, extrema: torch.Tensor, bins: int, device: Device) -> torch.Tensor:
    """Counts over `bins` equal bins between a field's extrema: uint32 [B, bins]."""
    counts = device.zeros(planes.shape[0], bins, dtype=torch.int32).view(torch.uint32)
    grid = planes.shape[0] * -(-planes.n // CHUNK)
    planes.launch(device, "histogram", grid, bins=bins, extrema=extrema, counts=counts)
    return counts


def otsu_two(planes: Planes, extrema: torch.Tensor, _: ThresholdSettings, device: Device, original: torch.Tensor) -> None:
    device.launch(
        "otsu_2",
        planes.shape[0],
        counts=histogram(planes, extrema, 256, device),
        bins=256,
        extrema=extrema,
        single=int(planes.single),
        threshold=original,
    )


def otsu_three(
    planes: Planes, extrema: torch.Tensor, settings: ThresholdSettings, device: Device, original: torch.Tensor
) -> None:
    device.launch(
        "otsu_3",
        planes.shape[0],
        counts=histogram(planes, extrema, 128, device),
        bins=128,
        n=planes.n,
        extrema=extrema,
        single=int(planes.single),
        upper=int(settings.middle_class == "background"),
        threshold=original,
    )


def robust_background(
    planes: Planes, extrema: torch.Tensor, settings: ThresholdSettings, device: Device, original: torch.Tensor
) -> None:
    """CellProfiler leaves the highest values in where no low ones are left out; so does this."""
    averages, spreads = ("mean", "median", "mode"), ("sd", "mad")
    if settings.averaging not in averages or settings.variance not in spreads:
        raise ValueError(
            f"robust_background: averaging {settings.averaging!r} is one of {averages}, "
            f"variance {settings.variance!r} one of {spreads}"
        )
    low, high = round(planes.n * settings.lower_outliers), planes.n - round(planes.n * settings.upper_outliers)
    if low == 0:
        high = planes.n
    low = min(low, planes.n - 1)
    high = max(high, low + 1)  # a field of few pixels, most of them outliers
    b, h, w = planes.shape
    chosen = planes.values.reshape(b, -1, h * w)[:, planes.offset // planes.n]
    if planes.single and planes.n >= CHUNK and bool(chosen.amin() >= 0):  # whole images
        ordered = ascending((chosen + 0.0).contiguous(), device).double()
    else:
        ordered = torch.sort(chosen.double(), dim=1).values
    kept = ordered[:, low:high]
    n = kept.shape[1]
    deviation = ordered  # not looked at
    if settings.variance == "mad":
        median = (kept[:, (n - 1) // 2] + kept[:, n // 2]) / 2
        deviation = torch.sort((kept - median[:, None]).abs(), dim=1).values
    device.launch(
        "robust_background",
        b,
        sorted=ordered,
        deviation=deviation,
        stride=planes.n,
        first=low,
        n=n,
        averaging=averages.index(settings.averaging),
        variance=spreads.index(settings.variance),
        deviations=settings.deviations,
        threshold=original,
    )
    original.copy_(torch.where(ordered[:, 0] == ordered[:, -1], ordered[:, 0], original))


METHOD: dict[str, Callable[[Planes, torch.Tensor, ThresholdSettings, Device, torch.Tensor], None]] = {
    "minimum_cross_entropy": cross_entropy,
    "otsu2": otsu_two,
    "otsu3": otsu_three,
    "robust_background": robust_background,
}


def above_threshold(
    planes: Planes, threshold: torch.Tensor, smoothing: float, device: Device, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Pixels at or above the threshold, after a Gaussian when `smoothing` is not 0: uint8 [B, H, W].

    `smoothing` is CellProfiler's scale: half of a point's intensity stays within that diameter. The threshold is float64
    [B] or
    [B, H, W]; pixels that are not `valid`, bool [B, H, W], are left out of the mean, and of the result.
    """
    b, h, w = planes.shape
    taps = gaussian_taps(smoothing / 0.6744 / 2.0) if smoothing else ()
    if threshold.ndim == 1 and valid is None:
        if smoothing:
            images = planes.values.reshape(b, -1, h, w)[:, planes.offset // planes.n].double().contiguous()
            return smooth_above(images, threshold, taps, device, single=planes.single)
        above = device.empty(b, h, w, dtype=torch.uint8)
        planes.launch(device, "above_threshold", b * h, height=h, threshold=threshold, above=above)
        return above
    images = planes.values.reshape(b, -1, h, w)[:, planes.offset // planes.n].double().contiguous()
    if smoothing:
        images = (
            smooth(images, taps, device, epsilon=EPSILON) if valid is None else smooth_valid(images, valid, taps, device)
        )
    result = images >= (threshold.view(-1, 1, 1) if threshold.ndim == 1 else threshold)
    return (result if valid is None else result & valid).to(torch.uint8)
