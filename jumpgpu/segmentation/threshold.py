"""The global threshold of each field, and the pixels above it (CellProfiler Threshold).

Values are intensities, 0..1. A field of one value has that value as its threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..gpu.device import Device, blocks
from ..settings.config import ThresholdSettings
from .gaussian import gaussian_taps, smooth_above

CELLS = 65537  # cells of 1/65536 (kernels/segmentation/cross_entropy.cu: CELLS)
PIECE = 8192  # values of a block that puts them into cells (kernels/segmentation/cross_entropy.cu: PIECE)
CHUNK = 16384  # values of a block of extrema and histogram
WIDE_BLOCK = 1024  # threads of the kernels that give a whole field to one block
CELL_BLOCK = 256  # threads of one that reads a cell of a field at a time
METHODS = ("minimum_cross_entropy", "otsu2", "otsu3", "robust_background", "manual")


@dataclass(frozen=True)
class Planes:
    """One plane of values a field: float32 or float64, plane b at `offset + b * stride` of `values`."""

    values: torch.Tensor
    offset: int
    stride: int
    shape: tuple[int, int, int]  # B, H, W

    @property
    def n(self) -> int:
        return self.shape[1] * self.shape[2]

    @property
    def single(self) -> bool:
        return self.values.dtype == torch.float32

    def launch(self, device: Device, kernel: str, grid: int, *, block: int = 128, **values: Any) -> None:
        """Launch the kernel of this element type over these planes."""
        device.launch(
            f"{kernel}_{32 if self.single else 64}",
            grid,
            block=block,
            values=self.values,
            offset=self.offset,
            stride=self.stride,
            n=self.n,
            **values,
        )


def channel_planes(pixels: torch.Tensor, channel: int) -> Planes:
    """One channel of float32 pixels [B, C, H, W]."""
    b, c, h, w = pixels.shape
    return Planes(pixels, channel * h * w, c * h * w, (b, h, w))


def whole_planes(images: torch.Tensor) -> Planes:
    """Images [B, H, W] as they stand."""
    b, h, w = images.shape
    return Planes(images, 0, h * w, (b, h, w))


def check_words(settings: ThresholdSettings) -> None:
    """ValueError for a method, or a word of a method, that is not known."""
    if settings.middle_class not in ("foreground", "background"):
        raise ValueError(f"unknown middle_class {settings.middle_class!r}; expected 'foreground' or 'background'")
    if settings.method not in METHODS:
        raise ValueError(f"unknown threshold method {settings.method!r}; expected one of {METHODS}")


def find_threshold(planes: Planes, settings: ThresholdSettings, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Thresholds of each field by the method of `settings`.

    Returns
    -------
    original, final : float64 [B]
        As the method gives it, and after correction and bounds (a manual threshold has neither).
    """
    check_words(settings)
    b = planes.shape[0]
    if settings.method == "manual":
        manual = torch.full((b,), settings.manual, dtype=torch.float64, device=device.torch)
        return manual, manual.clone()
    original, final = device.empty(b, dtype=torch.float64), device.empty(b, dtype=torch.float64)
    if b == 0 or planes.n == 0:
        return original.zero_(), final.zero_()
    extrema = find_extrema(planes, device)
    logarithm = settings.log_transform and settings.method != "robust_background"
    scaled, scaled_extrema = planes, extrema
    if logarithm:
        logs = device.empty(*planes.shape, dtype=planes.values.dtype)
        planes.launch(device, "log_stretch", b * planes.shape[1], height=planes.shape[1], extrema=extrema, logarithm=logs)
        scaled = whole_planes(logs)
        scaled_extrema = find_extrema(scaled, device)
    METHOD[settings.method](scaled, scaled_extrema, settings, device, original)
    device.launch(
        "finish_threshold",
        blocks(b),
        extrema=extrema,
        n_fields=b,
        logarithm=int(logarithm),
        single=int(planes.single),
        correction=settings.correction,
        lower=settings.lower,
        upper=settings.upper,
        original=original,
        threshold=final,
    )
    return original, final


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
    chosen = planes.values.reshape(b, -1, h * w)[:, planes.offset // planes.n].double()
    ordered = torch.sort(chosen, dim=1).values
    kept = ordered[:, low:high]
    n = kept.shape[1]
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


def above_threshold(planes: Planes, threshold: torch.Tensor, smoothing: float, device: Device) -> torch.Tensor:
    """Pixels at or above the threshold, after a Gaussian when `smoothing` is not 0: uint8 [B, H, W].

    `smoothing` is CellProfiler's scale: half of a point's intensity stays within that diameter.
    """
    b, h, w = planes.shape
    if smoothing:
        images = planes.values.reshape(b, -1, h, w)[:, planes.offset // planes.n].double().contiguous()
        return smooth_above(images, threshold, gaussian_taps(smoothing / 0.6744 / 2.0), device)
    above = device.empty(b, h, w, dtype=torch.uint8)
    planes.launch(device, "above_threshold", b * h, height=h, threshold=threshold, above=above)
    return above
