"""What several families need of an object's outline, made once a batch: counts, row extremes, edge pixels, moments."""

from dataclasses import dataclass

import numpy as np
import torch

from ..gpu.device import Device, kept_by_device
from .objects import ObjectBatch, label_arguments

POWERS = 10  # moments of order 0..9 (outline.cu)


@dataclass(frozen=True)
class Outlines:
    """Of R object rows; see outline.cu.

    counts   int32 [R, 5]         border pixels by kind (three), Euler number, edge pixels
    extent   int32 [L, 2]         first and last column of each line of each box
    moments  float64 [R, 10, 10]  by power of y, then of x, about the floored middle of the box
    edge     int32 [K, P]         y << 16 | x of a row's edge pixels, from its first listed pixel on
    """

    counts: torch.Tensor
    extent: torch.Tensor
    moments: torch.Tensor
    edge: torch.Tensor


def outlines(batch: ObjectBatch, device: Device) -> Outlines:
    """The batch's outlines, traced at the first call and kept with the batch."""
    return batch.once("outlines", trace, device)


def trace(batch: ObjectBatch, device: Device) -> Outlines:
    objects = batch.objects
    _, height, width = objects.shape
    compartments, n_pixels = len(objects.compartments), objects.pixel.numel()
    half = width // 2 + 2
    result = Outlines(
        counts=device.empty(objects.rows, 5, dtype=torch.int32),
        extent=device.empty(objects.n_lines, 2, dtype=torch.int32),
        moments=device.empty(objects.rows, POWERS, POWERS, dtype=torch.float64),
        edge=device.empty(compartments, n_pixels, dtype=torch.int32),
    )
    device.launch(
        "trace_outlines",
        objects.rows,
        **label_arguments([batch.labels[c].contiguous() for c in objects.compartments]),
        field=objects.field,
        number=objects.number,
        box=objects.box,
        line_start=objects.line_start,
        start=objects.start,
        schedule=objects.schedule,
        powers=power_sums(half, device),
        half=half,
        cells=objects.n,
        n_pixels=n_pixels,
        height=height,
        width=width,
        counts=result.counts,
        extent=result.extent,
        moments=result.moments,
        edge=result.edge,
    )
    return result


@kept_by_device
def power_sums(half: int, device: Device) -> torch.Tensor:
    """float64 [2 half + 1, 10]: entry half + t, power p is the sum of s^p over 0 <= s < t, or less that over t <= s < 0.

    Summed in integers and rounded once, so that sums below 2^53 are exact.
    """
    table = np.zeros((2 * half + 1, POWERS))
    for p in range(POWERS):
        up = down = 0
        for t in range(1, half + 1):
            up += (t - 1) ** p
            down -= (-t) ** p
            table[half + t, p], table[half - t, p] = up, down
    return device.tensor(table)


def areas(batch: ObjectBatch, device: Device) -> torch.Tensor:
    """float64 [R, 3]: each row's pixel count, sum of x and sum of y; exact."""
    return batch.once("areas", _areas, device)


def _areas(batch: ObjectBatch, device: Device) -> torch.Tensor:
    moments, box = outlines(batch, device).moments, batch.objects.box
    n = moments[:, 0, 0]
    middle_y, middle_x = (box[:, 0] + box[:, 2]) >> 1, (box[:, 1] + box[:, 3]) >> 1
    return torch.stack([n, moments[:, 0, 1] + n * middle_x, moments[:, 1, 0] + n * middle_y], dim=1)
