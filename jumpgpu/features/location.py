"""Where an object is, and its intensity (CellProfiler's Identify modules and MeasureObjectIntensity).

Pixels, X the column and Y the row, from 0 at the centre of the first pixel. Center is the mean over the object's pixels,
CenterMassIntensity the mean weighted by intensity, MaxIntensity the brightest pixel. Where several are equally bright
CellProfiler takes whichever an unstable sort puts last, which differs between NumPy versions; here it is the first in
raster order. Z is 0. An empty object has nan, and so has the centre of mass of one whose intensities are all 0.
"""

from collections.abc import Sequence

import torch

from ..gpu.device import Device
from ..settings.config import FeatureSettings
from ..settings.names import channel_order, feature_name
from .intensity import MEASUREMENTS as INTENSITIES
from .intensity import by_cell, intensities
from .objects import ObjectBatch
from .outline import areas

WITHOUT_Z = "Cytoplasm"  # IdentifyTertiaryObjects gives no Center_Z
AXES = ("X", "Y", "Z")


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order."""
    return [feature_name(compartment, "Location", "Center", a) for a in _axes(compartment)] + [
        feature_name(compartment, "Location", m, a, c)
        for m in ("CenterMassIntensity", "MaxIntensity")
        for a in AXES
        for c in channel_order(channels)
    ]


def _axes(compartment: str) -> tuple[str, ...]:
    return AXES[:2] if compartment == WITHOUT_Z else AXES


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: the compartments' columns one after the other."""
    objects, channels = batch.objects, len(batch.channels)
    area = areas(batch, device)
    flat = torch.where(area[:, :1] > 0, 0.0, torch.nan)
    center = torch.cat([area[:, 1:] / area[:, :1], flat], dim=1).reshape(len(objects.compartments), objects.n, 3)
    x, y, max_x, max_y = intensities(batch, device)[..., len(INTENSITIES) :].unbind(2)
    z = flat.expand(-1, channels)
    mass_z = torch.where(torch.isnan(x), torch.nan, z)
    places = by_cell(batch, torch.stack([x, y, mass_z, max_x, max_y, z], dim=2), device)
    places = places.reshape(objects.n, len(objects.compartments), 6 * channels)
    parts = []
    for k, compartment in enumerate(objects.compartments):
        parts += [center[k, :, : len(_axes(compartment))], places[:, k]]
    return torch.cat(parts, dim=1)
