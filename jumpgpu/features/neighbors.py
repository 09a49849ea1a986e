"""An object's neighbours of its own kind: how many, how close, how much of the outline they touch (MeasureObjectNeighbors).

Distances are pixels; 0 means adjacent. Objects that were discarded (at the border, or too large) count as neighbours and for
distances and angle, as in CellProfiler; the numbers of the closest are among the kept ones and never the object's own.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from ..gpu.device import Device
from ..gpu.kernel_source import measures
from ..settings.config import FeatureSettings
from ..settings.names import feature_name
from .objects import ObjectBatch

MEASUREMENTS = ("NumberOfNeighbors", "PercentTouching", *measures("features/neighbors.cu", "Nearest"))
MAX_DISTANCES = 8  # neighbors.cu
OBJECTS = 4  # of a block of neighbor_nearest (neighbors.cu)
WORD, MAPS = 64, 5  # pixels of a word, maps of an object (neighbors.cu)
BLOCKS = 1024  # blocks of neighbor_contacts on a GPU, each with a map of its own


def columns(compartment: str, channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """Column names of `measure` for one compartment, in its order; none where no distance is configured."""
    return [
        feature_name(compartment, "Neighbors", m, distance or "Adjacent")
        for distance in distances_of(compartment, settings)
        for m in MEASUREMENTS
    ]


def distances_of(compartment: str, settings: FeatureSettings) -> tuple[int, ...]:
    """The distances at which a compartment's neighbours are measured; ValueError for one that has no meaning."""
    result: tuple[int, ...] = getattr(settings.neighbors, compartment.lower(), ())
    if any(d < 0 for d in result) or len(result) > MAX_DISTANCES or len(set(result)) < len(result):
        raise ValueError(
            f"neighbors.{compartment.lower()} is {result}; expected up to {MAX_DISTANCES} distances of 0 or more"
        )
    return result


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: counts, percent, object numbers, pixels and degrees, the compartments' columns one after the other.

    0 where there is no such neighbour. An object without pixels has 0 neighbours, 0 percent and nan distances and angle.
    """
    parts = [device.empty(batch.objects.n, 0, dtype=torch.float64)]
    for k, compartment in enumerate(batch.objects.compartments):
        if distances := distances_of(compartment, settings):
            labels = batch.unfiltered.get(compartment, batch.labels[compartment]).contiguous()
            contacts, nearest = contacts_and_nearest(batch, k, labels, [d or 1 for d in distances], device)
            for i in range(len(distances)):
                result = contacts[:, 1 + 2 * i :]
                percent = result[:, 1] * 100.0 / contacts[:, 0].clamp(min=1)
                parts.append(torch.cat([torch.stack([result[:, 0], percent], dim=1), nearest], dim=1))
    return torch.cat(parts, dim=1)


def contacts_and_nearest(
    batch: ObjectBatch, k: int, labels: torch.Tensor, distances: list[int], device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of compartment k: float64 [N, 1 + 2 D] outline, then by distance neighbours and touched pixels; [N, 5] the nearest."""
    objects, n = batch.objects, batch.objects.n
    fields, height, width = labels.shape
    maximum = 1 + objects.unfiltered.get(objects.compartments[k], max(objects.n_cells))
    words = -(-width // WORD)
    size = {"height": height, "width": width, "words": words, "maximum": maximum, "n_words": fields * height * words}
    sums = device.zeros(fields, maximum, 3, dtype=torch.uint64)
    bits = device.empty(2, fields, height, words, dtype=torch.uint64)
    device.launch("neighbor_centres", fields * height, labels=labels, sums=sums, bits=bits, **size)
    contacts = device.empty(n, 1 + 2 * len(distances), dtype=torch.int32)
    distances = [min(d, height + width) for d in distances]  # no farther than the field
    capacity = words_of_maps(objects.largest_box, max(distances), height, width)
    at_once = device.scratch_blocks(n, 8 * capacity + 4 * len(distances) * maximum, per_core=2, maximum=BLOCKS)
    device.launch(
        "neighbor_contacts",
        at_once,
        labels=labels,
        kept=batch.labels[objects.compartments[k]],
        bits=bits,
        box=objects.box[k * n : (k + 1) * n],
        objects=n,
        capacity=capacity,
        maps=device.empty(at_once, capacity, dtype=torch.uint64),
        start=objects.start[k * n : (k + 1) * n],
        stop=objects.stop[k * n : (k + 1) * n],
        field=objects.field,
        number=objects.number,
        distances=device.constant(tuple(distances), torch.int32),
        spans=device.constant(disks(tuple(distances))),
        n_distances=len(distances),
        rows=max(distances) + 1,
        contacts=contacts,
        seen=device.zeros(at_once, len(distances), maximum, dtype=torch.int32),
        **size,
    )
    pixels = sums.view(torch.int64).double()
    centre = (pixels[..., 1:] / pixels[..., :1]).contiguous()
    nearest = device.empty(n, 5, dtype=torch.float64)
    device.launch(
        "neighbor_nearest",
        -(-n // OBJECTS),
        centre=centre,
        field=objects.field,
        number=objects.number,
        kept=device.tensor(objects.n_cells, torch.int32),
        objects=n,
        maximum=maximum,
        nearest=nearest,
    )
    return contacts.to(torch.float64), nearest


def words_of_maps(largest: int, margin: int, height: int, width: int) -> int:
    """Words that the maps of any box of at most `largest` pixels take, with `margin` pixels around it."""
    around = largest + 2 * margin * (height + width) + 4 * margin * margin
    return MAPS * (around // WORD + 2 * (height + 2 * margin) + 3)


@lru_cache(maxsize=16)
def disks(distances: tuple[int, ...]) -> np.ndarray:
    """How far disks reach to either side, int32 [D, 2, S] in rows 0 .. S - 1 from the centre: of d, and of d + 1/2."""
    return np.array(
        [
            [[math.isqrt(max(square - row * row, 0)) for row in range(max(distances) + 1)] for square in (d * d, d * d + d)]
            for d in distances  # (d + 1/2)^2 for whole numbers is d^2 + d
        ],
        np.int32,
    )
