"""How deep each pixel lies in its object, which Shape (radii) and RadialDistribution need: made once a batch."""

from dataclasses import dataclass

import torch

from ..gpu.device import Device
from .objects import ObjectBatch, label_arguments, start_of

CHUNK = 16  # lines of a map are multiples of this (distance_map.cu, radial_distribution.cuh)
CUDA_BLOCKS = 1024  # each with scratch of its own


@dataclass(frozen=True)
class Depths:
    """Of R object rows; see distance_map.cu.

    map_start  int64 [R + 1]      each row's first entry of a map: the lines of its box, each a multiple of CHUNK
    n_map      entries of a map, at most
    squared    int32 [n_map]      squared distance to the object's edge, 0 outside; the image's border is no edge
    centre     int32 [R]          the deepest pixel's place in the row's part of the map
    radii      float64 [R, 3]     largest, mean and median distance; there the image's border is an edge
    """

    map_start: torch.Tensor
    n_map: int
    squared: torch.Tensor
    centre: torch.Tensor
    radii: torch.Tensor


def depths(batch: ObjectBatch, device: Device) -> Depths:
    """The batch's depths, measured at the first call and kept with the batch."""
    return batch.once("depths", measure_depths, device)


def measure_depths(batch: ObjectBatch, device: Device) -> Depths:
    objects = batch.objects
    _, height, width = objects.shape
    capacity = objects.largest_box + 8 * height + 4 * width + 160
    at_once = device.scratch_blocks(objects.rows, 4 * capacity, per_core=1, maximum=CUDA_BLOCKS)
    n_map = objects.n_box_pixels + (CHUNK - 1) * objects.n_lines
    result = Depths(
        map_start=start_of(map_sizes(objects.box)),
        n_map=n_map,
        squared=device.empty(n_map, dtype=torch.int32),
        centre=device.empty(objects.rows, dtype=torch.int32),
        radii=device.empty(objects.rows, 3, dtype=torch.float64),
    )
    device.launch(
        "measure_depths",
        at_once,
        **label_arguments([batch.labels[c].contiguous() for c in objects.compartments]),
        field=objects.field,
        number=objects.number,
        box=objects.box,
        schedule=objects.schedule,
        map_start=result.map_start,
        rows=objects.rows,
        cells=objects.n,
        height=height,
        width=width,
        capacity=capacity,
        near=device.empty(at_once, capacity, dtype=torch.int32),
        squared=result.squared,
        centre=result.centre,
        radii=result.radii,
    )
    return result


def map_sizes(box: torch.Tensor) -> torch.Tensor:
    """Entries of each row's part of a map, int32 [R]."""
    lines, widths = (box[:, 2:] - box[:, :2]).unbind(1)
    return lines * ((widths + (CHUNK - 1)) // CHUNK * CHUNK)
