"""Order statistics of a batch, made once and used by several families: sorted objects and dense ranks."""

from dataclasses import dataclass
from typing import Any

import torch

from ..gpu.device import Device, blocks
from .objects import ObjectBatch, start_of

RUN = 64  # a segment's first place is a multiple of it (order_statistics.cu)
SEGMENTS = 7  # segments of a cell's list: between the 8 ends of four compartments
MARKS = 4  # compartments at most (order_statistics.cu)
QUANTILES = 6  # of an object's values: least, lower quartile, median, upper quartile, MAD, most (order_statistics.cuh)
ROWS_PER_BLOCK = 128  # rows and channels a block of sorted_quantiles takes (order_statistics.cu)
MAX_ENTRIES = 1 << 31  # that sort_by_library can count


@dataclass(frozen=True)
class Order:
    """Sorted values and dense ranks of every object row and channel; K compartments, N cells, R = pixels of all rows.

    row_start  int64 [K * N + 1]   each row's first entry below
    quantiles  float64 [K * N, C, 6]  of the row's values; 0 of an empty one
    ranks      int32 [C, R]        in list order: how many distinct values of the pixel's compartment and field are smaller
    levels     int32 [B, C, K]     distinct values of the field, channel and compartment
    """

    row_start: torch.Tensor
    quantiles: torch.Tensor
    ranks: torch.Tensor
    levels: torch.Tensor


def order_statistics(batch: ObjectBatch, device: Device) -> Order:
    """The batch's order statistics; made at the first call and kept with the batch."""
    return batch.once("order", _order, device)


def _order(batch: ObjectBatch, device: Device) -> Order:
    objects, channels = batch.objects, len(batch.channels)
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
        device.zeros(objects.rows, channels, QUANTILES, dtype=torch.float64),
        device.empty(channels, size, dtype=torch.int32),
        device.zeros(objects.shape[0], channels, compartments, dtype=torch.int32),
    )
    if device.library_sort:
        sort_by_library(batch, member, order, device)
    else:
        sort_by_kernel(batch, member, order, device)
    return order


def sort_by_kernel(batch: ObjectBatch, member: torch.Tensor, order: Order, device: Device) -> None:
    """Fill `order` by the host's radix sort (order_statistics.cu): a field and channel a block."""
    objects, channels, compartments = batch.objects, len(batch.channels), len(batch.objects.compartments)
    longest, tasks = max(objects.n_pixels, default=0), objects.shape[0] * channels
    if not longest:
        return
    words = 1 if compartments <= 3 and longest < 1 << 21 else 2  # three ranks of 21 bits, or two of 32 in each
    capacity = compartments * objects.largest + SEGMENTS * RUN
    n_runs = -(-longest // RUN) + SEGMENTS * max(objects.n_cells)
    each = 8 * longest * (3 + words) + capacity * (8 * words + 4 * MARKS) + 4 * (objects.n + n_runs)
    at_once = device.scratch_blocks(tasks, each, per_core=1, maximum=1)
    pairs = device.empty(at_once, 2, longest, dtype=torch.uint64)
    ranked = device.empty(at_once, longest, 1 + words, dtype=torch.uint64)
    placed = device.empty(at_once, capacity, words, dtype=torch.uint64)
    in_order = device.empty(at_once, MARKS, capacity, dtype=torch.float32)
    cursor = device.empty(at_once, objects.n, dtype=torch.int32)
    runs = device.empty(at_once, n_runs, dtype=torch.int32)
    for task in range(0, tasks, at_once):
        device.launch(
            "sort_values",
            min(at_once, tasks - task),
            values=batch.values,
            pixel_start=objects.pixel_start,
            field_start=objects.field_start,
            cell_start=objects.cell_start,
            member=member,
            start=objects.start,
            row_start=order.row_start,
            n_pixels=objects.pixel.numel(),
            task=task,
            longest=longest,
            capacity=capacity,
            n_runs=n_runs,
            words=words,
            channels=channels,
            compartments=compartments,
            cells=objects.n,
            quantiles=order.quantiles,
            ranks=order.ranks,
            levels=order.levels,
            pairs=pairs,
            ranked=ranked,
            placed=placed,
            sorted=in_order,
            cursor=cursor,
            runs=runs,
        )


def sort_by_library(batch: ObjectBatch, member: torch.Tensor, order: Order, device: Device) -> None:
    """Fill `order` by two of torch's sorts (order_ranks.cu): the same numbers, since neither depends on the order of ties.

    Waits for nothing: no size depends on the values.
    """
    objects, channels, compartments = batch.objects, len(batch.channels), len(batch.objects.compartments)
    n_pixels, fields = objects.pixel.numel(), objects.shape[0]
    n = channels * n_pixels
    if not n:
        return
    if max(compartments * n, channels * objects.n, channels * fields) >= MAX_ENTRIES:
        raise RuntimeError(f"{n} pixels of objects in all channels are too many to be ranked together")
    size: dict[str, Any] = {"n_pixels": n_pixels, "n_items": n}
    of_cells: dict[str, Any] = {"compartments": compartments, "cells": objects.n}
    key = device.empty(n, dtype=torch.int64)
    device.launch(
        "rank_keys", blocks(n), values=batch.values, pixel_field=objects.pixel_field, fields=fields, key=key, **size
    )
    key, at = torch.sort(key)
    step, word, group = (device.empty(n, dtype=torch.int32) for _ in range(3))
    few = channels * objects.n <= torch.iinfo(torch.int16).max  # a radix sort goes over keys once a byte
    device.launch("rank_steps", blocks(n), key=key, n_items=n, step=step)
    level = torch.cumsum(step, 0, dtype=torch.int32)
    del step  # a batch of confluent fields has as many entries as values: what is done with goes at once
    present = device.zeros(compartments * n, dtype=torch.int32)
    device.launch(
        "rank_marks",
        blocks(n),
        at=at,
        member=member,
        level=level,
        word=word,
        group=group,
        present=present,
        **of_cells,
        **size,
    )
    below = torch.cumsum(present, 0, dtype=torch.int32)  # in one row: a GPU takes a block per row
    del present
    device.launch(
        "rank_entries",
        blocks(n),
        at=at,
        word=word,
        level=level,
        below=below,
        pixel_field=objects.pixel_field,
        pixel_start=objects.pixel_start,
        start=objects.start,
        row_start=order.row_start,
        n_row_pixels=objects.n_row_pixels,
        channels=channels,
        ranks=order.ranks,
        levels=order.levels,
        **of_cells,
        **size,
    )
    ascending = device.empty(channels, objects.n_row_pixels, dtype=torch.float32)
    del at, level, below
    device.launch(
        "rank_rows",
        channels * objects.n,
        key=key,
        word=word,
        by_cell=torch.sort(group.to(torch.int16) if few else group, stable=True).indices,
        cell_start=objects.cell_start,
        row_start=order.row_start,
        n_pixels=n_pixels,
        n_row_pixels=objects.n_row_pixels,
        sorted=ascending,
        **of_cells,
    )
    n_items = objects.rows * channels
    device.launch(
        "sorted_quantiles",
        -(-n_items // ROWS_PER_BLOCK),
        sorted=ascending,
        row_start=order.row_start,
        rows=objects.rows,
        channels=channels,
        quantiles=order.quantiles,
    )
