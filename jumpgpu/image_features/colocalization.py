"""How two whole images go together (CellProfiler MeasureColocalization, "Across entire image").

The image is one object to the kernels of features/correlation.py and costes.py. Two things are not as within objects: a
pixel counts above a threshold, not at it, and there is the slope of the second image on the first.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from ..features import correlation, costes
from ..features.objects import ObjectBatch, make_batch
from ..features.order_statistics import order_statistics
from ..gpu.device import Device

METRICS = ("correlation", "manders", "rwc", "overlap", "costes")
MEAN, NORM, THRESHOLD, TOTAL, STATS = range(5)  # correlation.cu's Channel
MAX = 5  # order_statistics.cuh's quantiles
CORRELATION, OVERLAP, K, MANDERS, RWC, K_BACK, MANDERS_BACK, RWC_BACK = range(8)  # correlation.cu's Pair


def measure(
    images: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]],
    percent: float,
    metrics: Sequence[str],
    device: Device,
    mode: str = "faster",
    levels: int = correlation.LEVELS,
    known: costes.Known | None = None,
) -> dict[str, float]:
    """Coefficients of every pair of images, in the images' order: `Correlation_DNA_ER`, `K_ER_DNA`.

    Parameters
    ----------
    images : name -> pixels, float32 [H, W], and which count, bool [H, W], None for all
    percent : of the image's maximum, which pixels are above for overlap, K, Manders and RWC
    metrics : of METRICS; `overlap` gives Overlap and K, `correlation` Correlation and Slope
    mode, levels : of Costes' search, see costes.thresholds
    known : thresholds of these images in this order, where another module has looked for them, and where they are kept

    nan where a coefficient is 0 / 0, and everything where no pixel of both images counts. ValueError for images of several
    sizes.
    """
    shapes = {name: pixels.shape for name, (pixels, _) in images.items()}
    first = next(iter(shapes))
    if other := next((n for n, shape in shapes.items() if shape != shapes[first]), ""):
        raise ValueError(f"image {other} is {list(shapes[other])}, image {first} {list(shapes[first])} pixels")
    groups: dict[tuple[int, ...], list[tuple[str, str]]] = {}
    valid: dict[tuple[int, ...], torch.Tensor | None] = {}
    for a, b in combinations(images, 2):
        masks = [mask for mask in (images[a][1], images[b][1]) if mask is not None]
        key = tuple(sorted({id(mask) for mask in masks}))
        valid[key] = masks[0] & masks[-1] if masks else None
        groups.setdefault(key, []).append((a, b))
    rows: dict[tuple[str, str], list[float]] = {}
    for key, pairs in groups.items():
        names = list(dict.fromkeys(n for pair in pairs for n in pair))
        planes = [images[n][0] for n in names]
        places = [(names.index(a), names.index(b)) for a, b in pairs]
        limits = {} if known is None or key else known  # of a mask's pixels there are others
        result = of_pairs(planes, places, valid[key], percent, limits if "costes" in metrics else None, device, mode, levels)
        rows |= dict(zip(pairs, result, strict=True))
    return {
        name: value
        for a, b in combinations(images, 2)
        for name, value in zip(columns(a, b, metrics), values_of(rows[a, b], metrics), strict=True)
    }


def of_pairs(
    planes: Sequence[torch.Tensor],
    pairs: Sequence[tuple[int, int]],
    valid: torch.Tensor | None,
    percent: float,
    known: costes.Known | None,
    device: Device,
    mode: str,
    levels: int,
) -> list[list[float]]:
    """Of pairs of planes of which the same pixels count: the kernel's eight coefficients, the slope, and Costes' two, nan
    where `known` is None."""
    pixels = torch.stack([p.float() for p in planes])[None].contiguous()
    inside = torch.ones_like(pixels[:, 0], dtype=torch.int32) if valid is None else valid[None].to(torch.int32)
    if not bool(inside.any()):
        return [[math.nan] * 11 for _ in pairs]
    batch = make_batch([str(i) for i in range(len(planes))], pixels, {"image": inside}, {}, device)
    table = coefficients(batch, pairs, percent, device)
    above = torch.full((len(pairs), 2), torch.nan, dtype=torch.float64, device=table.device)
    if known is not None:
        searched = pixels if valid is None else pixels[:, :, valid][:, :, None]
        limits = costes.known_thresholds(known, searched.contiguous(), pairs, levels, device, mode)
        above = shares(batch, pairs, torch.tensor(limits, dtype=torch.float64).float(), device)
    result: list[list[float]] = torch.cat([table, above], 1).tolist()
    return result


def columns(a: str, b: str, metrics: Sequence[str]) -> list[str]:
    """Names of a pair's coefficients, in the order of `values_of`."""
    names = {
        "correlation": (f"Correlation_{a}_{b}", f"Slope_{a}_{b}"),
        "overlap": (f"Overlap_{a}_{b}", f"K_{a}_{b}", f"K_{b}_{a}"),
        "manders": (f"Manders_{a}_{b}", f"Manders_{b}_{a}"),
        "rwc": (f"RWC_{a}_{b}", f"RWC_{b}_{a}"),
        "costes": (f"Costes_{a}_{b}", f"Costes_{b}_{a}"),
    }
    return [name for metric in metrics for name in names[metric]]


def values_of(row: Sequence[float], metrics: Sequence[str]) -> list[float]:
    """A pair's coefficients by metric: `row` is the kernel's eight, the slope, and Costes' two."""
    slope, costes_ab, costes_ba = row[8], row[9], row[10]
    values = {
        "correlation": (row[CORRELATION], slope),
        "overlap": (row[OVERLAP], row[K], row[K_BACK]),
        "manders": (row[MANDERS], row[MANDERS_BACK]),
        "rwc": (row[RWC], row[RWC_BACK]),
        "costes": (costes_ab, costes_ba),
    }
    return [value for metric in metrics for value in values[metric]]


def coefficients(batch: ObjectBatch, pairs: Sequence[tuple[int, int]], percent: float, device: Device) -> torch.Tensor:
    """float64 [Q, 9]: the coefficients of correlation.cu above the thresholds, and the slope."""
    objects, order, channels = batch.objects, order_statistics(batch, device), len(batch.channels)
    stats = device.empty(1, channels, STATS, dtype=torch.float64)
    common: dict[str, Any] = {
        "values": batch.values,
        "row_start": order.row_start,
        "start": objects.start,
        "schedule": objects.schedule,
        "n_pixels": objects.pixel.numel(),
        "channels": channels,
    }
    device.launch("correlation_channels", channels, quantiles=order.quantiles, share=percent / 100, stats=stats, **common)
    limit = (order.quantiles[0, :, MAX] * percent / 100).float()
    own = torch.stack([limit, limit], 1)
    stats[0, :, THRESHOLD] = beyond(limit).double()
    stats[0, :, TOTAL] = sums_above(batch, [(c, c) for c in range(channels)], beyond(own), device)[:, 2]
    result = device.empty(1, len(pairs), 9, dtype=torch.float64)
    device.launch(
        "correlation_pairs",
        len(pairs),
        ranks=order.ranks,
        n_row_pixels=order.ranks.shape[1],
        levels=order.levels,
        stats=stats,
        field=objects.field,
        pairs=device.tensor(pairs, torch.int32),
        compartments=1,
        cells=1,
        n_pairs=len(pairs),
        result=result,
        **common,
    )
    first, second = (device.tensor([pair[k] for pair in pairs], torch.int64) for k in (0, 1))
    norm, mean = stats[0, :, NORM], stats[0, :, MEAN]
    slope = result[0, :, CORRELATION] * norm[second] / norm[first]
    # Of a constant image least squares of least norm, as CellProfiler's solver gives it.
    flat = mean[first] * mean[second] / (mean[first] * mean[first] + 1)
    slope = torch.where(norm[first] == 0, flat, torch.where(norm[second] == 0, 0.0, slope))
    return torch.cat([result[0, :, :8], slope[:, None]], 1)


def shares(batch: ObjectBatch, pairs: Sequence[tuple[int, int]], limits: torch.Tensor, device: Device) -> torch.Tensor:
    """float64 [Q, 2]: of each channel's sum above its own limit, float32 [Q, 2], how much lies where both are above."""
    limits = device.tensor(limits)
    both, own = (sums_above(batch, pairs, limit, device) for limit in (limits, beyond(limits)))
    return both[:, :2] / own[:, 2:4]


def sums_above(batch: ObjectBatch, pairs: Sequence[tuple[int, int]], limits: torch.Tensor, device: Device) -> torch.Tensor:
    """float64 [Q, 5]: sums of a and b above both limits, of each at or above its own, and how many are above both."""
    objects = batch.objects
    result = device.empty(1, len(pairs), 5, dtype=torch.float64)
    device.launch(
        "costes_objects",
        len(pairs),
        values=batch.values,
        start=objects.start,
        stop=objects.stop,
        schedule=objects.schedule,
        field=objects.field,
        pairs=device.tensor(pairs, torch.int32),
        threshold=limits.contiguous(),
        n_pixels=objects.pixel.numel(),
        cells=1,
        n_pairs=len(pairs),
        result=result,
    )
    return result[0]


def beyond(limits: torch.Tensor) -> torch.Tensor:
    """The next float32 above: at or above it is above the limit."""
    return torch.nextafter(limits, torch.full_like(limits, torch.inf))
