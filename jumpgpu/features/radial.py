"""How intensity is spread from an object's centre to its edge (CellProfiler MeasureObjectIntensityDistribution).

Rings of equal width in scaled distance, 1 the innermost: each pixel stands at d / (d + e), d its way from the centre inside
the object, e its distance to the edge. The centre is the pixel farthest from the edge, of several
the first in raster order.
"""

from collections.abc import Sequence

import torch

from ..config import FeatureSettings
from ..device import CpuDevice, Device
from ..names import channel_order, feature_name
from ..objects import Scene, start_of

MEASUREMENTS = ("FracAtD", "MeanFrac", "RadialCV")  # order of the kernel
MOST_BINS = 31  # radial.cu: ring and wedge fit a byte
BLOCKS = 1024  # blocks of radial_rings on a GPU, each with scratch of its own
CHANNELS = 8  # channels a block of radial_sums takes


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    bins = settings.radial.bins
    return [
        feature_name(compartment, "RadialDistribution", m, c, f"{ring}of{bins}")
        for m in MEASUREMENTS
        for c in channel_order(channels)
        for ring in range(1, bins + 1)
    ]


def measure(scene: Scene, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: shares and coefficients without unit, the compartments' columns one after the other.

    FracAtD and MeanFrac are nan for an empty object and where a channel is 0 throughout it; RadialCV is 0 for a ring without
    pixels. ValueError for other than 1 .. 31 rings.
    """
    objects, bins, n_channels = scene.objects, settings.radial.bins, len(scene.channels)
    if not 1 <= bins <= MOST_BINS:
        raise ValueError(f"radial.bins is {bins}; expected 1 .. {MOST_BINS}")
    _, height, width = objects.shape
    row_start = start_of(objects.stop - objects.start)
    sides = (objects.box[:, 2:] - objects.box[:, :2] + 2).long()
    sizes = torch.stack([row_start[-1], sides.prod(1).max() if objects.rows else row_start[-1]])
    n_row_pixels, room = sizes.tolist()
    blocks = min(objects.rows, 2 * device.workers if isinstance(device, CpuDevice) else BLOCKS)
    place = device.empty(n_row_pixels, dtype=torch.int32)
    ring = device.empty(n_row_pixels, dtype=torch.uint8)
    device.launch(
        "radial_rings",
        blocks,
        pixel=objects.pixel,
        start=objects.start,
        stop=objects.stop,
        box=objects.box,
        schedule=objects.schedule,
        row_start=row_start,
        rows=objects.rows,
        height=height,
        width=width,
        room=room,
        bins=bins,
        place=place,
        ring=ring,
        maps=device.empty(blocks, 4, room, dtype=torch.int32),
        lines=device.empty(blocks, height + width + 4, dtype=torch.int32),
    )
    found = device.empty(objects.rows, n_channels, len(MEASUREMENTS), bins, dtype=torch.float64)
    device.launch(
        "radial_sums",
        objects.rows * -(-n_channels // CHANNELS),
        values=scene.values,
        start=objects.start,
        schedule=objects.schedule,
        row_start=row_start,
        place=place,
        ring=ring,
        n_pixels=objects.pixel.numel(),
        channels=n_channels,
        bins=bins,
        found=found,
    )
    found = found[:, [scene.channels.index(c) for c in channel_order(scene.channels)]]
    table = found.view(len(objects.compartments), objects.n, n_channels, len(MEASUREMENTS), bins)
    return table.permute(1, 0, 3, 2, 4).flatten(1)
