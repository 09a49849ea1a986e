"""Quality of whole images, for quality control (CellProfiler MeasureImageQuality).

One row per field, one set of columns per channel: `Image_ImageQuality_FocusScore_DNA`. Off by default. Each image is sorted
once, and what depends on its values alone comes of that (image_quality.cu); its power spectrum has a Fourier transform of
its own (power_spectrum.cu), so that the bits are the same on every device.

Values are of corrected pixels: divided by the illumination function and clipped to 0..1, as of an image measured after
CorrectIlluminationApply. Of raw images, as some quality-control pipelines take them, MaxIntensity and PercentMaximal differ:
a saturated pixel is no longer at 1 where the function is not.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..gpu.device import Device, blocks
from ..segmentation.ranks import ascending
from ..settings.names import channel_order, feature_name

MEASUREMENTS = (
    "FocusScore",  # variance over mean
    "LocalFocusScore",  # the same in grid cells of a scale: its variance over its median
    "PowerLogLogSlope",  # of the radial power spectrum: falls with blur
    "TotalArea",
    "TotalIntensity",
    "MeanIntensity",
    "MedianIntensity",
    "StdIntensity",
    "MADIntensity",
    "MinIntensity",
    "MaxIntensity",
    "PercentMaximal",  # pixels as bright as the brightest: saturation
    "PercentMinimal",
    "ThresholdOtsu",  # two classes, weighted variance, of the logarithms; its name ends in 2W
)
OTSU_BINS = 256  # thresholds tried, of an image that has so many pixels (image_quality.cu)
RINGS = 8  # the spectrum's greatest radius is the smaller side over this
MIN_RINGS = 3  # rings 2 and 3 make a slope
LINES = 32  # columns or rows that are transformed together (power_spectrum.cu)
TRANSFORMS = 256  # blocks of a GPU that transform at a time, each with scratch of its own


def columns(channels: Sequence[str], scales: Sequence[int] = (5, 10, 20, 50)) -> list[str]:
    """Column names of `measure_images`, in its order."""
    return [
        feature_name("Image", "ImageQuality", measurement, channel, *scale)
        for channel in channel_order(channels)
        for measurement in MEASUREMENTS
        for scale in scales_of(measurement, scales)
    ]


def scales_of(measurement: str, scales: Sequence[int]) -> list[tuple[int | str, ...]]:
    """What a measurement's names end in."""
    if measurement == "LocalFocusScore":
        return [(s,) for s in scales]
    return [("2W",)] if measurement == "ThresholdOtsu" else [()]


def measure_images(
    pixels: torch.Tensor, channels: Sequence[str], device: Device, scales: Sequence[int] = (5, 10, 20, 50)
) -> torch.Tensor:
    """Quality measures of every field.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    channels : names of the C axis
    scales : pixels
        Grid cell sizes of LocalFocusScore, at least 1.

    Returns
    -------
    float64 [B, F], F = `columns`. A black image's focus scores and slope are 0, as CellProfiler's;
    LocalFocusScore is nan at a scale beyond the image's smaller side.
    """
    fields, n_channels, height, width = pixels.shape
    planes, area = fields * n_channels, height * width
    if any(s < 1 for s in scales):
        raise ValueError(f"image quality scales {tuple(scales)} must be 1 pixel at least")
    table, means = of_sorted(ascending(pixels.reshape(planes, area), device), len(scales), device)
    for i, scale in enumerate(scales):
        if scale <= min(height, width):
            local_focus(pixels, scale, i, table, device)
    power_slope(pixels, means, 1 + len(scales), table, device)
    order = device.tensor([list(channels).index(c) for c in channel_order(channels)], torch.int64)
    return table.reshape(fields, n_channels, -1).index_select(1, order).reshape(fields, -1)


def of_sorted(ordered: torch.Tensor, scales: int, device: Device, *, otsu: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """What sorted planes of pixels give.

    ordered : float32 [P, n], each row in ascending order
    scales : how many columns LocalFocusScore gets
    otsu : whether ThresholdOtsu is wanted; it is of no meaning else

    Returns
    -------
    table : float64 [P, F], nan where LocalFocusScore and PowerLogLogSlope go
    means : float64 [P, 2], each plane's mean and whether it has a spectrum
    """
    planes, n = ordered.shape
    columns = len(MEASUREMENTS) - 1 + scales
    table = torch.full((planes, columns), torch.nan, dtype=torch.float64, device=device.torch)
    step = n // min(OTSU_BINS, n)
    pieces = -(-(n - 1) // step) + 1
    sums = device.empty(planes, pieces, 4, dtype=torch.float64)
    device.launch("quality_sums", planes * pieces, sorted=ordered, n=n, logs=int(otsu), sums=sums)
    means = device.empty(planes, 2, dtype=torch.float64)
    device.launch(
        "quality_finish",
        planes,
        block=32,
        sorted=ordered,
        sums=sums,
        n=n,
        scales=scales,
        columns=columns,
        table=table,
        planes=means,
    )
    return table, means


def local_focus(pixels: torch.Tensor, scale: int, column: int, table: torch.Tensor, device: Device) -> None:
    """Variance over median of the grid cells' variance over mean, into the table's column of that scale."""
    fields, channels, height, width = pixels.shape
    planes, m, n = fields * channels, -(-height // scale), -(-width // scale)
    focus, sums = (device.empty(planes, m * n, dtype=torch.float64) for _ in range(2))
    device.launch("quality_grid", planes * m, pixels=pixels, height=height, width=width, m=m, n=n, focus=focus, sums=sums)
    device.launch("quality_focus", planes, focus=focus, cells=m * n, scale=column, columns=table.shape[1], table=table)


def power_slope(pixels: torch.Tensor, means: torch.Tensor, column: int, table: torch.Tensor, device: Device) -> None:
    """Slope of log power against log radius, into the table's column; 0 of an image of fewer than 32 pixels per side."""
    fields, channels, height, width = pixels.shape
    planes, longest, rings = fields * channels, max(height, width), min(height, width) // RINGS - 1
    if rings < MIN_RINGS:
        table[:, column] = 0.0
        return
    low = device.empty(planes, rings + 1, 2, width, dtype=torch.float64)
    power = device.empty(planes, rings + 1, 2 * rings + 1, dtype=torch.float64)
    at_once = device.scratch_blocks(planes * -(-width // 2 // LINES), 32 * longest * LINES, per_core=1, maximum=TRANSFORMS)
    scratch = device.empty(at_once, 4, longest, LINES, dtype=torch.float64)
    tables = []
    for n in (height, width):
        tables.append(device.empty(n, 2, dtype=torch.float64))
        device.launch("fourier_table", blocks(n), n=n, table=tables[-1])
    of_both: dict[str, Any] = {
        "planes": planes,
        "width": width,
        "longest": longest,
        "rings": rings,
        "low": low,
        "scratch": scratch,
    }
    device.launch("power_columns", at_once, pixels=pixels, means=means, table=tables[0], height=height, **of_both)
    device.launch("power_rows", at_once, table=tables[1], power=power, **of_both)
    ring = device.empty(planes, 2, rings + 1, dtype=torch.float64)
    device.launch(
        "power_slope",
        planes,
        power=power,
        means=means,
        rings=rings,
        column=column,
        columns=table.shape[1],
        ring=ring,
        table=table,
    )
