"""Intensity of an image's pixels, or of those in objects (CellProfiler MeasureImageIntensity and MeasureImageQuality).

The pixels are sorted once, and what depends on their values alone comes of that (kernels/images/image_quality.cu). Sums are
float64 where CellProfiler adds float32, so that totals, means and deviations differ from its by up to 1e-6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..features.image_quality import of_sorted
from ..gpu.device import Device
from ..segmentation.ranks import ascending
from ..settings.steps import IMAGE_INTENSITY

COLUMNS = (  # of `of_sorted` without scales, after the focus score and the spectrum's slope
    *("TotalArea", "TotalIntensity", "MeanIntensity", "MedianIntensity", "StdIntensity", "MADIntensity"),
    *("MinIntensity", "MaxIntensity", "PercentMaximal", "PercentMinimal", "ThresholdOtsu"),
)
QUARTILES = {"LowerQuartileIntensity": 25, "UpperQuartileIntensity": 75}


@dataclass(frozen=True)
class Values:
    """Pixels in ascending order, float32 [n] on the device, and what comes of them by name; all 0 of no pixel."""

    ordered: torch.Tensor
    measures: dict[str, float]
    focus: float

    def count(self, value: float) -> int:
        """How many pixels have a value."""
        if torch.tensor(value).item() != value:  # not of single precision
            return 0
        of = self.ordered.new_tensor([value])
        ends = (torch.searchsorted(self.ordered, of, right=right) for right in (True, False))
        return int(next(ends)) - int(next(ends))

    def percentile(self, percent: float) -> float:
        """A percentile, interpolated between neighbours as NumPy does."""
        n = len(self.ordered)
        if not n:
            return 0.0
        at = (n - 1) * percent / 100
        low = math.floor(at)
        a, b = (self.ordered[i].item() for i in (low, min(low + 1, n - 1)))
        part = at - low
        return a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part)


def values_of(pixels: torch.Tensor, device: Device, scale: float = math.nan, *, otsu: bool = True) -> Values:
    """What the values of some pixels come to.

    Parameters
    ----------
    pixels : any float type, any shape; NaN and infinities are left out
    scale : whole counts divided by it are what they may be, and are then in order sooner
    otsu : whether ThresholdOtsu is wanted; there is none else
    """
    flat = pixels.float().flatten()
    if not bool(flat.sum().isfinite()):
        flat = flat[flat.isfinite()]
    if not flat.numel():
        return Values(flat, dict.fromkeys(COLUMNS, 0.0), 0.0)
    plane = flat.view(1, -1).contiguous()
    ordered = ascending(plane, device, scale) if bool(plane.amin() >= 0) else torch.sort(plane).values
    table, _ = of_sorted(ordered, 0, device, otsu=otsu)
    row = table[0].tolist()
    measures = dict(zip(COLUMNS, row[2:], strict=True))
    if not otsu:
        del measures["ThresholdOtsu"]
    return Values(ordered[0], measures, row[0])


def measure(values: Values, percentiles: Sequence[int] = ()) -> dict[str, float]:
    """MeasureImageIntensity's measures by name; all 0 of no pixel."""
    result = {name: values.measures[name] for name in IMAGE_INTENSITY if name in values.measures}
    result |= {name: values.percentile(percent) for name, percent in QUARTILES.items()}
    return {name: result[name] for name in IMAGE_INTENSITY} | {f"Percentile_{p}": values.percentile(p) for p in percentiles}
