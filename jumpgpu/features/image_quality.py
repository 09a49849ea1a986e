"""Quality of whole images, for quality control (CellProfiler MeasureImageQuality).

One row a field, one set of columns a channel: `Image_ImageQuality_FocusScore_DNA`. Off by default. Sums run as kernels;
medians are taken by torch; power spectrum and threshold by SciPy and NumPy on the host, the same on every device.

Values are of corrected pixels: divided by the illumination function and clipped to 0..1, as of an image measured after
CorrectIlluminationApply. Of raw images, as some quality-control pipelines take them, MaxIntensity and PercentMaximal differ:
a saturated pixel is no longer at 1 where the function is not.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..gpu.device import Device
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
OTSU_BINS = 256


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
    float64 [B, F] on the host, F = `columns`. A black image's focus scores and slope are 0, as CellProfiler's;
    LocalFocusScore is nan at a scale beyond the image's smaller side.
    """
    fields, n_channels, height, width = pixels.shape
    planes, area = fields * n_channels, height * width
    if any(s < 1 for s in scales):
        raise ValueError(f"image quality scales {tuple(scales)} must be 1 pixel at least")
    sums = device.empty(planes, height, dtype=torch.float64)
    row_extremes = device.empty(planes, height, 2, dtype=torch.int32)
    device.launch("quality_rows", planes * height, pixels=pixels, width=width, sums=sums, extremes=row_extremes)
    total = sums.cumsum(1)[:, -1].contiguous()  # rows in order
    mean = total / area
    extremes = torch.stack([row_extremes[..., 0].amin(1), row_extremes[..., 1].amax(1)], 1)
    squares = torch.empty_like(sums)
    counts = device.empty(planes, height, 2, dtype=torch.int64)
    device.launch(
        "quality_spread",
        planes * height,
        pixels=pixels,
        mean=mean,
        extremes=extremes,
        height=height,
        width=width,
        squares=squares,
        counts=counts,
    )
    variance = squares.cumsum(1)[:, -1] / area
    percent = 100.0 * counts.sum(1).to(torch.float64) / area
    flat = pixels.reshape(planes, area)
    median = middle(flat)
    deviation = middle((flat - median[:, None]).abs())
    limits = extremes.view(torch.float32)
    host = pixels.reshape(planes, height, width).cpu().numpy()
    found = {
        "FocusScore": torch.where(mean > 0, variance / torch.where(mean > 0, mean, 1.0), 0.0),
        "PowerLogLogSlope": torch.from_numpy(np.array([power_slope(image) for image in host])),
        "TotalArea": torch.full((planes,), float(area)),
        "TotalIntensity": total,
        "MeanIntensity": mean,
        "MedianIntensity": median,
        "StdIntensity": variance.sqrt(),
        "MADIntensity": deviation,
        "MinIntensity": limits[:, 0],
        "MaxIntensity": limits[:, 1],
        "PercentMaximal": percent[:, 1],
        "PercentMinimal": percent[:, 0],
        "ThresholdOtsu": torch.from_numpy(np.array([otsu_threshold(image) for image in host])),
    }
    parts = []
    for measurement in MEASUREMENTS:
        if measurement == "LocalFocusScore":
            absent = torch.full((planes,), torch.nan, dtype=torch.float64)  # columns stay, whatever the image's size
            parts += [local_focus(pixels, s, device) if s <= min(height, width) else absent for s in scales]
        else:
            parts.append(found[measurement].cpu().to(torch.float64))
    table = torch.stack(parts, 1).reshape(fields, n_channels, -1)
    return table[:, [list(channels).index(c) for c in channel_order(channels)]].reshape(fields, -1)


def middle(values: torch.Tensor) -> torch.Tensor:
    """Median of each row, float32 [rows, n] -> [rows]: of an even number, the mean of the two in the middle (NumPy's)."""
    n = values.shape[1]
    upper = values.kthvalue(n // 2 + 1, dim=1).values
    return upper if n % 2 else (values.kthvalue(n // 2, dim=1).values + upper) / 2


def local_focus(pixels: torch.Tensor, scale: int, device: Device) -> torch.Tensor:
    """Variance over median of the grid cells' variance-over-mean; float64 [B * C] on the host, 0 where undefined."""
    fields, channels, height, width = pixels.shape
    planes, m, n = fields * channels, -(-height // scale), -(-width // scale)
    cells = device.empty(planes, m * n, 2, dtype=torch.float64)
    device.launch("quality_grid", planes * m * n, pixels=pixels, height=height, width=width, m=m, n=n, cells=cells)
    scores = np.zeros(planes)
    edges = [np.diff(-(-np.arange(k + 1) * size // k)) for k, size in ((m, height), (n, width))]
    sizes = np.outer(*edges).ravel()
    for i, (means, squares) in enumerate(np.moveaxis(cells.cpu().numpy(), 2, 1)):
        bright = means != 0
        focus = squares[bright] / (sizes[bright] * means[bright])
        if focus.size and np.median(focus) > 0:
            scores[i] = np.var(focus) / np.median(focus)
    return torch.from_numpy(scores)


def power_slope(image: np.ndarray) -> float:
    """Slope of log power against log radius, radii 2 .. an eighth of the smaller side (centrosome's radial_power_spectrum).

    float32 [H, W]; 0 for a constant image and for one of fewer than 32 pixels a side.
    """
    height, width = image.shape
    labels = np.arange(2, np.floor(min(height, width) / 8))
    spread = np.median(np.abs(image - image.mean(dtype=np.float64)))
    if labels.size < 2 or image.min() == image.max() or spread == 0:
        return 0.0
    scaled = image.astype(np.float64) / spread
    import scipy.fft  # a tenth of a second to import, and few runs ask for image quality

    power = np.abs(scipy.fft.fft2(scaled - scaled.mean())) ** 2
    y, x = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in (height, width))
    radius = (np.sqrt((y**2)[:, None] + x**2)).astype(np.int64) + 1
    ring = np.bincount(radius.ravel(), weights=power.ravel(), minlength=int(labels[-1]) + 1)[labels.astype(np.int64)]
    seen = ring > 0
    if seen.sum() < 2:
        return 0.0
    return float(np.polyfit(np.log(labels[seen]), np.log(ring[seen]), 1)[0])


def otsu_threshold(image: np.ndarray) -> float:
    """The threshold between two classes of the logarithms, at one of 256 quantiles (centrosome's get_otsu_threshold).

    float32 [H, W], and float32 up to the logarithms, as there. A constant image has its own value.
    """
    least, most = image.min(), image.max()
    floor = least + (most - least) / 256 + np.finfo(np.float32).eps
    logs = np.log(np.maximum(image.ravel(), floor)).astype(np.float64)
    low, high = logs.min(), logs.max()
    if low == high:
        return float(np.exp(low))
    values = np.sort((logs - low) / (high - low))
    step = len(values) // min(OTSU_BINS, len(values))
    places = np.arange(0, len(values) - 1, step)
    below = running_variance(values)[places] * places
    above = running_variance(values[::-1])[::-1][places + 1] * (len(values) - 1 - places)
    best = int(np.argmin(below + above))
    quantiles = values[places + 1]
    cut = (quantiles[max(0, best - 1)] + quantiles[min(len(quantiles) - 1, best + 1)]) / 2
    return float(np.exp(cut * (high - low) + low))


def running_variance(values: np.ndarray) -> np.ndarray:
    """Sample variance of the first 1, 2, ... values, by Welford's recurrence; 0 for one."""
    counts = np.arange(1, len(values) + 1)
    means = values.cumsum() / counts
    squares = ((values[1:] - means[:-1]) * (values[1:] - means[1:])).cumsum()
    return np.concatenate([[0], squares / counts[:-1]])
