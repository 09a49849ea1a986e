"""How the channels of an object go together (CellProfiler MeasureColocalization), for every pair of channels.

Pearson's correlation, the overlap coefficient with its two halves K, Manders' coefficients and their rank-weighted form.
All but the correlation look at pixels where both channels reach a share of the object's own maximum.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch

from ..gpu.device import Device
from ..settings.config import FeatureSettings
from ..settings.names import channel_order, feature_name
from . import costes
from .objects import ObjectBatch
from .order_statistics import order_statistics

BOTH = ("Correlation", "Overlap")  # one number per pair
EACH = ("K", "Manders", "RWC")  # one for either channel first
COSTES = "Costes"  # off by default
LEVELS = 65535  # steps of Costes' search: 16-bit images; a batch of others may say `levels` in `derived`
MEASURED = len(BOTH) + 2 * len(EACH)  # order of the kernel: BOTH, EACH of (a, b), EACH of (b, a)


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order: pair by pair."""
    each = (*EACH, COSTES) if settings.correlation.costes else EACH
    return [
        feature_name(compartment, "Correlation", *parts)
        for a, b in pairs_of(channels, settings)
        for parts in [(m, a, b) for m in BOTH + each] + [(m, b, a) for m in each]
    ]


def pairs_of(channels: Sequence[str], settings: FeatureSettings) -> list[tuple[str, str]]:
    """Pairs of channels, each in the order of its name; ValueError for an order that names a channel that is not there.

    Costes' thresholds depend on which channel is first: CellProfiler takes the order in which its module lists the images.
    """
    order = settings.correlation.order
    if unknown := [c for c in order if c not in channels]:
        raise ValueError(f"features.correlation.order names {unknown[0]!r}; the channels are {', '.join(channels)}")
    return list(combinations(channel_order(channels, order), 2))


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: coefficients without unit, the compartments' columns one after the other.

    nan where a coefficient is 0 / 0: correlation of an object in which a channel is constant, overlap and K where no pixel
    reaches both thresholds, everything of an empty object. Where no object of the field has such a pixel, overlap, K,
    Manders and RWC are 0, as in CellProfiler.
    """
    objects, order = batch.objects, order_statistics(batch, device)
    pairs = [[batch.channels.index(c) for c in pair] for pair in pairs_of(batch.channels, settings)]
    rows, n, n_channels = objects.rows, objects.n, len(batch.channels)
    stats = device.empty(rows, n_channels, 4, dtype=torch.float64)
    common: dict[str, Any] = {
        "values": batch.values,
        "row_start": order.row_start,
        "start": objects.start,
        "schedule": objects.schedule,
        "n_pixels": objects.pixel.numel(),
        "channels": n_channels,
    }
    device.launch(
        "correlation_channels",
        rows * n_channels,
        quantiles=order.quantiles,
        share=settings.correlation.threshold / 100,
        stats=stats,
        **common,
    )
    result = device.empty(rows, len(pairs), MEASURED + 1, dtype=torch.float64)
    device.launch(
        "correlation_pairs",
        rows * len(pairs),
        ranks=order.ranks,
        n_row_pixels=order.ranks.shape[1],
        levels=order.levels,
        stats=stats,
        field=objects.field,
        pairs=device.constant(tuple(map(tuple, pairs)), torch.int32),
        compartments=len(objects.compartments),
        cells=n,
        n_pairs=len(pairs),
        result=result,
        **common,
    )
    result = result.view(len(objects.compartments), n, len(pairs), MEASURED + 1)
    counted = result.new_zeros(len(objects.compartments), objects.shape[0], len(pairs))
    counted.index_add_(1, objects.field.long(), result[..., MEASURED])  # whole numbers: any order gives the same
    none = counted[:, objects.field.long()] == 0
    table = result[..., :MEASURED]
    table[..., 1:] = torch.where(none[..., None], 0.0, table[..., 1:])
    if settings.correlation.costes:
        levels = batch.derived.get("levels", LEVELS)
        above = costes.coefficients(batch, pairs, levels, device, settings.correlation.costes_mode).view(*table.shape[:3], 2)
        ahead = len(BOTH + EACH)
        table = torch.cat([table[..., :ahead], above[..., :1], table[..., ahead:], above[..., 1:]], dim=3)
    return table.permute(1, 0, 2, 3).flatten(1)
