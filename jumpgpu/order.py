"""Order statistics of a batch, made once and used by several families: sorted objects and dense ranks."""

from dataclasses import dataclass

import torch

from .device import CpuDevice, Device
from .objects import Scene, start_of

RUN = 64  # pixels of the list that order.cu looks up at once
MARKS = 4  # bits of a member word that say which compartments a pixel is in (order.cu)


@dataclass(frozen=True)
class Order:
    """Sorted values and dense ranks of every object row and channel; K compartments, N cells, R = pixels of all rows.

    row_start  int64 [K * N + 1]   each row's first entry below
    sorted     float32 [C, R]      the row's values, ascending
    ranks      int32 [C, R]        in list order: how many distinct values of the pixel's compartment and field are smaller
    levels     int32 [B, C, K]     distinct values of the field, channel and compartment
    """

    row_start: torch.Tensor
    sorted: torch.Tensor
    ranks: torch.Tensor
    levels: torch.Tensor


def order_statistics(scene: Scene, device: Device) -> Order:
    """The scene's order statistics; made at the first call and kept with the scene."""
    if "order" not in scene.derived:
        scene.derived["order"] = _order(scene, device)
    found: Order = scene.derived["order"]
    return found


def _order(scene: Scene, device: Device) -> Order:
    objects, channels = scene.objects, len(scene.channels)
    compartments, cells = len(objects.compartments), objects.n
    row_start = start_of(objects.stop - objects.start)
    member = device.empty(objects.pixel.numel(), dtype=torch.int32)
    device.launch(
        "list_members",
        cells,
        start=objects.start,
        stop=objects.stop,
        cell_start=objects.cell_start,
        compartments=compartments,
        cells=cells,
        member=member,
    )
    size = objects.n_row_pixels
    order = Order(
        row_start,
        device.empty(channels, size, dtype=torch.float32),
        device.empty(channels, size, dtype=torch.int32),
        device.zeros(objects.shape[0], channels, compartments, dtype=torch.int32),
    )
    if device.torch.type == "cuda":
        sort_by_library(scene, member, order)
    else:
        sort_by_kernel(scene, member, order, device)
    return order


def sort_by_kernel(scene: Scene, member: torch.Tensor, order: Order, device: Device) -> None:
    """Fill `order` by the host's radix sort (order.cu): a field and channel a block."""
    objects, channels, compartments = scene.objects, len(scene.channels), len(scene.objects.compartments)
    longest, tasks = max(objects.n_pixels, default=0), objects.shape[0] * channels
    if not longest:
        return
    at_once = min(tasks, device.workers if isinstance(device, CpuDevice) else 1)
    kinds = next(k for k in (1, 3, 4) if k >= compartments)
    pairs = device.empty(at_once, 2, longest, dtype=torch.uint64)
    ranked = device.empty(at_once, longest, 1 + kinds, dtype=torch.int32)
    cursor = device.empty(at_once, objects.n, dtype=torch.int32)
    runs = device.empty(at_once, -(-longest // RUN), dtype=torch.int32)
    for task in range(0, tasks, at_once):
        device.launch(
            "sort_values",
            min(at_once, tasks - task),
            values=scene.values,
            pixel_start=objects.pixel_start,
            field_start=objects.field_start,
            cell_start=objects.cell_start,
            member=member,
            start=objects.start,
            row_start=order.row_start,
            n_pixels=objects.pixel.numel(),
            task=task,
            longest=longest,
            channels=channels,
            compartments=compartments,
            cells=objects.n,
            sorted=order.sorted,
            ranks=order.ranks,
            levels=order.levels,
            pairs=pairs,
            ranked=ranked,
            cursor=cursor,
            runs=runs,
        )


def sort_by_library(scene: Scene, member: torch.Tensor, order: Order) -> None:
    """Fill `order` by torch's sort: the same numbers, since neither depends on the order of ties. Waits for nothing.

    What does not belong to a compartment goes to a place past the end, so that no size depends on the values.
    """
    objects, size = scene.objects, scene.objects.n_row_pixels
    fields, cells = objects.shape[0], objects.n
    field_of_pixel = objects.pixel_field.long()
    if not size:
        return
    for c in range(len(scene.channels)):
        bits = (scene.values[c] + 0.0).view(torch.int32).long()  # ascending with the value once negative ones are turned
        key = (field_of_pixel << 33) + torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
        key, index = torch.sort(key)
        dense = torch.zeros_like(key)
        dense[1:] = (key[1:] != key[:-1]).cumsum(0)
        field_of_level = torch.zeros_like(key).scatter_(0, dense, field_of_pixel[index])
        words = member[index].long()
        by_cell = torch.sort(words >> MARKS, stable=True)[1]  # cell after cell, each in ascending order
        values = scene.values[c, index[by_cell]] + 0.0  # one zero
        ranks = torch.empty(size + 1, dtype=torch.int32, device=key.device)
        in_order = torch.empty(size + 1, dtype=torch.float32, device=key.device)
        for k in range(len(objects.compartments)):
            mine = words >> k & 1
            present = torch.zeros_like(key).scatter_reduce_(0, dense, mine, "amax")
            levels = torch.zeros(fields, dtype=torch.long, device=key.device).index_add_(0, field_of_level, present)
            order.levels[:, c, k] = levels
            below = levels.cumsum(0) - levels  # distinct values of the fields before
            rank = present.cumsum(0)[dense] - 1 - below[field_of_pixel[index]]
            rows = k * cells + (words >> MARKS)
            place = order.row_start[rows] + index - objects.start[rows]
            ranks.scatter_(0, torch.where(mine == 1, place, size), rank.int())
            listed = mine[by_cell]
            place = order.row_start[k * cells] + listed.cumsum(0) - 1
            in_order.scatter_(0, torch.where(listed == 1, place, size), values)
        order.ranks[c], order.sorted[c] = ranks[:size], in_order[:size]
