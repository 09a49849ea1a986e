"""How intensity is spread from an object's centre to its edge (CellProfiler MeasureObjectIntensityDistribution).

Rings of equal width in scaled distance, 1 the innermost: each pixel stands at d / (d + e), d its way from the centre inside
the object, e its distance to the edge. The centre is the pixel farthest from the edge, of several
the first in raster order.

Off by default: Zernike moments of the intensity on the object's smallest enclosing circle, n up to 9.
"""

from collections.abc import Sequence
from math import factorial

import torch

from ..gpu.device import Device
from ..gpu.kernel_source import measures
from ..settings.config import FeatureSettings
from ..settings.names import channel_order, feature_name
from . import area_shape as shape
from .distance_map import CHUNK, Depths, depths
from .objects import ObjectBatch
from .outline import areas, outlines

MEASUREMENTS = measures("features/radial_sums.cu", "Ring")
MAX_BINS = 31  # radial_distribution.cuh: ring and wedge fit a byte
BLOCKS = 1024  # on a GPU, each with scratch of its own
CHANNELS = 8  # that a block of radial_sums takes at a time

ZERNIKE = {"none": (), "magnitudes": ("ZernikeMagnitude",), "magnitudes_and_phase": ("ZernikeMagnitude", "ZernikePhase")}


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    bins = settings.radial.bins
    return [
        feature_name(compartment, "RadialDistribution", m, c, f"{ring}of{bins}")
        for m in MEASUREMENTS
        for c in channel_order(channels)
        for ring in range(1, bins + 1)
    ] + [
        feature_name(compartment, "RadialDistribution", m, c, *order)
        for m in zernike_measures(settings)
        for c in channel_order(channels)
        for order in shape.ZERNIKE
    ]


def zernike_measures(settings: FeatureSettings) -> tuple[str, ...]:
    """Selected Zernike moments of intensity. Raises ValueError for an unknown option."""
    if settings.radial.zernike not in ZERNIKE:
        raise ValueError(f"radial.zernike is {settings.radial.zernike!r}; expected one of {tuple(ZERNIKE)}")
    return ZERNIKE[settings.radial.zernike]


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: shares and coefficients without unit, the compartments' columns one after the other.

    FracAtD and MeanFrac are nan for an empty object and where a channel is 0 throughout it; RadialCV is 0 for a ring without
    pixels; all are nan for an object that fills its field. ValueError for other than 1 .. 31 rings.
    """
    objects, bins = batch.objects, settings.radial.bins
    if not 1 <= bins <= MAX_BINS:
        raise ValueError(f"radial.bins is {bins}; expected 1 .. {MAX_BINS}")
    _, height, width = objects.shape
    depth = depths(batch, device)
    ring = device.empty(depth.n_map, dtype=torch.uint8)
    capacity = 2 * objects.largest_box + 96 * height + 3 * (width + CHUNK) + 256  # two maps of a box, with margins
    blocks = device.scratch_blocks(objects.rows, 4 * capacity + 2 * height, per_core=2, maximum=BLOCKS)
    device.launch(
        "radial_rings",
        blocks,
        box=objects.box,
        schedule=objects.schedule,
        map_start=depth.map_start,
        line_start=objects.line_start,
        extent=outlines(batch, device).extent,
        bins=bins,
        squared=depth.squared,
        centre=depth.centre,
        rows=objects.rows,
        height=height,
        capacity=capacity,
        ring=ring,
        maps=device.empty(blocks, capacity, dtype=torch.int32),
        asks=device.empty(blocks, 2, height, dtype=torch.uint8),
    )
    result = sums_of_rings(batch, depth, ring, bins, device)
    fills = areas(batch, device)[:, 0] == height * width  # no pixel is outside, so none has a distance to the edge
    result = result.masked_fill(fills[:, None, None, None], torch.nan)
    parts = [batch.by_name(result, 1, device).transpose(1, 2).flatten(1)]
    if wanted := zernike_measures(settings):
        parts.append(batch.by_name(zernike(batch, device)[:, :, : len(wanted)], 1, device).transpose(1, 2).flatten(1))
    table = torch.cat(parts, dim=1)
    return table.view(len(objects.compartments), objects.n, table.shape[1]).transpose(0, 1).flatten(1)


def sums_of_rings(batch: ObjectBatch, depth: Depths, ring: torch.Tensor, bins: int, device: Device) -> torch.Tensor:
    """float64 [rows, C, 3, bins]: FracAtD, MeanFrac and RadialCV in each ring; `ring` is uint8 on the objects' maps."""
    objects, n_channels = batch.objects, len(batch.channels)
    capacity = objects.largest_box + CHUNK * objects.shape[1]
    blocks = device.scratch_blocks(objects.rows, 8 * capacity, per_core=2, maximum=BLOCKS)
    result = device.empty(objects.rows, n_channels, len(MEASUREMENTS), bins, dtype=torch.float64)
    device.launch(
        "radial_sums",
        blocks,
        box=objects.box,
        schedule=objects.schedule,
        map_start=depth.map_start,
        line_start=objects.line_start,
        extent=outlines(batch, device).extent,
        bins=bins,
        values=batch.values,
        pixel=objects.pixel,
        start=objects.start,
        stop=objects.stop,
        ring=ring,
        n_pixels=objects.pixel.numel(),
        channels=n_channels,
        turns=objects.rows * -(-n_channels // CHANNELS),
        capacity=capacity,
        result=result,
        place=device.empty(blocks, 2, capacity, dtype=torch.int32),
    )
    return result


def zernike(batch: ObjectBatch, device: Device) -> torch.Tensor:
    """float64 [R, C, 2, Z]: magnitude and phase (radians) of the Zernike moments of intensity, n up to 9; nan on a point."""
    objects, n_channels = batch.objects, len(batch.channels)
    hull, _, _ = shape.trace_hulls(batch, outlines(batch, device).extent, device)
    polynomials = torch.zeros(len(shape.ZERNIKE), 5, dtype=torch.float64)
    for z, (n, m) in enumerate(shape.ZERNIKE):
        for k in range((n - m) // 2 + 1):
            below = factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
            polynomials[z, k] = (-1) ** k * factorial(n - k) // below
    result = device.empty(objects.rows, n_channels, 2, len(shape.ZERNIKE), dtype=torch.float64)
    capacity = max(1, objects.largest)
    at_once = device.scratch_blocks(objects.rows, 6 * 8 * capacity, per_core=4, maximum=2048)
    device.launch(
        "radial_zernike",
        at_once,
        values=batch.values,
        pixel=objects.pixel,
        start=objects.start,
        stop=objects.stop,
        schedule=objects.schedule,
        hull=hull,
        orders=device.tensor(shape.ZERNIKE, torch.int32),
        polynomials=device.tensor(polynomials),
        n_pixels=objects.pixel.numel(),
        rows=objects.rows,
        channels=n_channels,
        n_orders=len(shape.ZERNIKE),
        capacity=capacity,
        place=device.empty(at_once, 6, capacity, dtype=torch.float64),
        result=result,
    )
    return result
