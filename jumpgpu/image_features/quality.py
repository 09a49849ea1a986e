"""Quality of an image as a pipeline's MeasureImageQuality asks for it: scaling, blur, saturation, intensity, thresholds.

Focus scores, the spectrum's slope and what sorted pixels give are those of features/image_quality.py; the texture
correlation and the thresholds other than Otsu's of two classes are done here.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..features.image_quality import local_focus, power_slope
from ..features.texture import DIRECTIONS
from ..gpu.device import Device
from .intensity import Values
from .texture import levels_of, pairs
from .thresholds import threshold_of

INTENSITY = (  # in CellProfiler's order
    *("TotalArea", "TotalIntensity", "MeanIntensity", "MedianIntensity", "StdIntensity", "MADIntensity"),
    *("MaxIntensity", "MinIntensity"),
)
SATURATION = ("PercentMaximal", "PercentMinimal")
GREY_LEVELS = 8  # of the texture correlation


def measure(
    pixels: torch.Tensor,
    values: Values,
    scales: Sequence[int],
    thresholds: Sequence[str],
    device: Device,
    *,
    blur: bool = True,
    saturation: bool = True,
    intensity: bool = True,
) -> dict[str, float]:
    """Measures of one image by name, `{}` where the image's name goes: `FocusScore_{}`, `LocalFocusScore_{}_20`.

    Parameters
    ----------
    pixels : float32 [H, W]
    values : of these pixels
    scales : of LocalFocusScore and Correlation, pixels, at least 1
    thresholds : methods, with what tells one method's variants apart: `Otsu_2W`, `Otsu_3FS`, `MoG_25`, `Kapur`
    """
    result: dict[str, float] = {}
    if blur:
        result |= focus(pixels, values, scales, device)
    if saturation:
        result |= {f"{name}_{{}}": values.measures[name] for name in SATURATION}
    if intensity:
        result |= {f"{name}_{{}}": values.measures[name] for name in INTENSITY}
    for method in thresholds:
        name, _, variant = method.partition("_")
        if method == "Otsu_2W" and bool((values.ordered[:1] >= 0).all()):
            value = values.measures["ThresholdOtsu"]
        else:
            value = threshold_of(method, values.ordered.cpu().numpy(), pixels.float().cpu().numpy(), device)
        result[f"Threshold{name}_{{}}" + f"_{variant}" * bool(variant)] = value
    return result


def focus(pixels: torch.Tensor, values: Values, scales: Sequence[int], device: Device) -> dict[str, float]:
    """Focus scores, texture correlations and the slope of the power spectrum."""
    plane = pixels.float()[None, None].contiguous()
    table = torch.zeros(1, len(scales) + 2, dtype=torch.float64, device=device.torch)
    for i, scale in enumerate(scales):
        local_focus(plane, scale, i, table, device)
    mean = values.measures["MeanIntensity"]
    at_mean = values.count(mean)
    varied = values.measures["MinIntensity"] < values.measures["MaxIntensity"] and at_mean <= len(values.ordered) // 2
    power_slope(plane, device.tensor([[mean, float(varied)]], torch.float64), 1 + len(scales), table, device)
    scores = table[0].tolist()
    result = {"FocusScore_{}": values.focus}
    result |= {f"LocalFocusScore_{{}}_{s}": score for s, score in zip(scales, scores[1:], strict=False)}
    result |= {f"Correlation_{{}}_{s}": value for s, value in zip(scales, correlations(pixels, scales, device), strict=True)}
    return result | {"PowerLogLogSlope_{}": scores[-1]}


def correlations(pixels: torch.Tensor, scales: Sequence[int], device: Device) -> list[float]:
    """Haralick's correlation of pixels that stand a scale apart in a row, of eight grey levels from the darkest to the
    brightest (centrosome's H3); 0 where it does not exist."""
    image = pixels.float()
    minimum, maximum = (float(v) for v in image.aminmax())
    span = float(np.float32(maximum) - np.float32(minimum)) if maximum > minimum else 1.0
    grey = levels_of(image, GREY_LEVELS, device, (minimum, span))
    steps = [(0, scale) for scale in scales]
    groups = [(steps[i : i + DIRECTIONS] + [(0, image.shape[1])] * DIRECTIONS)[:DIRECTIONS] for i in range(0, len(steps), 4)]
    counts = pairs(grey, groups, GREY_LEVELS, device).view(torch.int32).sum(1, dtype=torch.int64).movedim(3, 1).flatten(0, 1)
    return [correlation_of(table) for table in counts[: len(steps)].tolist()]


def correlation_of(counts: Sequence[Sequence[int]]) -> float:
    """The correlation of a table of counts, in whole numbers up to the last division."""
    index = range(len(counts))
    n = sum(map(sum, counts))
    row, column = [sum(counts[i]) for i in index], [sum(counts[i][j] for i in index) for j in index]
    x, y = sum(i * row[i] for i in index), sum(j * column[j] for j in index)
    xx, yy = sum(i * i * row[i] for i in index), sum(j * j * column[j] for j in index)
    xy = sum(i * j * counts[i][j] for i in index for j in index)
    spread = (n * xx - x * x) * (n * yy - y * y)
    return float((n * xy - x * y) / spread**0.5) if spread > 0 else 0.0
