"""Intensity of an object in every channel (CellProfiler MeasureObjectIntensity).

Values are corrected intensities on the 0..1 scale, MassDisplacement is in pixels. Std is the population form; quartiles and
median stand at position n q of the sorted values, counted from 0, interpolated between neighbours; edge pixels are those
with a 4-neighbour in the image that has another label. An empty object has integrated intensities of 0 and nan otherwise.
"""

from collections.abc import Sequence

import torch

from ..gpu.device import Device, few_blocks
from ..gpu.kernel_source import measures
from ..settings.config import FeatureSettings
from ..settings.names import channel_order, feature_name
from .objects import ObjectBatch
from .order_statistics import order_statistics
from .outline import areas, outlines

MEASUREMENTS = measures("features/intensity.cu", "Intensity")
PLACES = 4  # centre of intensity x, y, first maximum x, y: location.py's
SUMS = 9  # of sum_intensity


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    return [feature_name(compartment, "Intensity", m, c) for m in MEASUREMENTS for c in channel_order(channels)]


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: the compartments' columns one after the other."""
    return by_cell(batch, intensities(batch, device)[..., : len(MEASUREMENTS)], device)


def by_cell(batch: ObjectBatch, result: torch.Tensor, device: Device) -> torch.Tensor:
    """[R, C, M] of object rows and channels in C order, as [N, K * M * C] with channels in the order of names."""
    k, n = len(batch.objects.compartments), batch.objects.n
    result = batch.by_name(result, 1, device)
    return result.reshape(k, n, *result.shape[1:]).permute(1, 0, 3, 2).flatten(1)


def intensities(batch: ObjectBatch, device: Device) -> torch.Tensor:
    """float64 [R, C, 19]: MEASUREMENTS, then PLACES, of every object row; made once and kept with the batch."""
    return batch.once("intensities", _intensities, device)


def _intensities(batch: ObjectBatch, device: Device) -> torch.Tensor:
    objects, channels = batch.objects, len(batch.channels)
    _, height, width = objects.shape
    traced, order = outlines(batch, device), order_statistics(batch, device)
    sums = device.empty(objects.rows, channels, SUMS, dtype=torch.float64)
    result = device.empty(objects.rows, channels, len(MEASUREMENTS) + PLACES, dtype=torch.float64)
    device.launch(
        "sum_intensity",
        objects.rows * channels,
        pixels=batch.pixels,
        values=batch.values,
        pixel=objects.pixel,
        start=objects.start,
        stop=objects.stop,
        schedule=objects.schedule,
        field=objects.field,
        edge=traced.edge,
        counts=traced.counts,
        quantiles=order.quantiles,
        cells=objects.n,
        channels=channels,
        height=height,
        width=width,
        n_pixels=objects.pixel.numel(),
        sums=sums,
    )
    device.launch(
        "finish_intensity",
        few_blocks(objects.rows * channels),
        sums=sums,
        quantiles=order.quantiles,
        counts=traced.counts,
        area=areas(batch, device),
        rows=objects.rows,
        channels=channels,
        result=result,
    )
    return result


def count_brightest(batch: ObjectBatch, device: Device) -> torch.Tensor:
    """int32 [R, C]: how many pixels of each object row and channel have its largest value."""
    objects, channels = batch.objects, len(batch.channels)
    result = device.empty(objects.rows, channels, dtype=torch.int32)
    device.launch(
        "count_brightest",
        objects.rows * channels,
        values=batch.values,
        start=objects.start,
        stop=objects.stop,
        schedule=objects.schedule,
        quantiles=order_statistics(batch, device).quantiles,
        channels=channels,
        n_pixels=objects.pixel.numel(),
        brightest=result,
    )
    return result
