"""The objects of a batch of fields, numbered through, and their pixels.

An object row is one compartment of one cell. Rows run compartment by compartment: row `k * N + n` is cell `n` of
compartment `k`. One pixel list serves all rows: a cell's pixels stand as cytoplasm only, nuclear outline, nuclear
interior, in raster order within each, so that Cytoplasm, Nuclei and Cells are contiguous ranges of it. A cell whose masks
do not nest so gets a list a compartment, and no kernel notices. Which of the two a cell gets depends on that cell alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .device import Device

CLASSES = 5  # lists a cell may have (objects.cu)
CAPACITY = 1024  # cells a field that the first count has room for; it is repeated with more where they do not do
PITCH = 8  # a box's lines in scratch start at multiples of this (shape.cu)
HIGHEST_SIDE = 32767  # y << 16 | x in an int32

# The patterns (bit k: in compartment k, of the sorted names) of a cell that is listed once, in the order of its list. Every
# compartment is contiguous in it. Three: cytoplasm alone, cell + cytoplasm, all three, cell + nucleus, nucleus alone.
CLASS_ORDER: dict[int, tuple[int, ...]] = {
    1: (0b1,),
    2: (0b01, 0b11, 0b10),
    3: (0b010, 0b011, 0b111, 0b101, 0b100),
    4: (),
}


@dataclass(frozen=True)
class Objects:
    """N cells of a batch with K compartments.

    compartments  names, in row order (sorted)
    shape         B, H, W of the batch
    field         int32 [N]      position in the batch of each cell's field; ascending
    number        int32 [N]      the cell's label in its field, 1..n
    field_start   int64 [B + 1]  first cell of each field
    pixel         int32 [P]      y << 16 | x
    cell_start    int64 [N + 1]  first listed pixel of each cell
    pixel_start   int64 [B + 1]  first listed pixel of each field
    start, stop   int64 [K * N]  each row's range of `pixel`; an empty row has start == stop
    box           int32 [K * N, 4]  half-open y0, x0, y1, x1; zeros for an empty row
    schedule      int32 [K * N]  rows by falling pixel count (ties by row): the order in which blocks take them
    pixel_field   int32 [P]      position in the batch of each listed pixel's field
    line_start    int64 [K * N + 1]  where each row's lines begin in an array with an entry a line (image row) of every box
    n_cells       cells of each field,
    n_pixels      listed pixels of each field, and
    n_lines       lines of all boxes,
    n_columns     columns of all boxes,
    n_box_pixels  pixels of all boxes,
    n_row_pixels  pixels of all rows,
    largest       pixels of the largest row, and
    largest_box   pixels of the largest box, its lines rounded up to a multiple of 8, known without asking the device
    """

    compartments: tuple[str, ...]
    shape: tuple[int, int, int]
    field: torch.Tensor
    number: torch.Tensor
    field_start: torch.Tensor
    pixel: torch.Tensor
    cell_start: torch.Tensor
    pixel_start: torch.Tensor
    start: torch.Tensor
    stop: torch.Tensor
    box: torch.Tensor
    schedule: torch.Tensor
    pixel_field: torch.Tensor
    line_start: torch.Tensor
    n_cells: tuple[int, ...]
    n_pixels: tuple[int, ...]
    n_lines: int
    n_columns: int
    n_box_pixels: int
    n_row_pixels: int
    largest: int
    largest_box: int

    @property
    def n(self) -> int:
        """Cells in the batch."""
        return self.field.numel()

    @property
    def rows(self) -> int:
        return self.start.numel()


@dataclass(frozen=True)
class Scene:
    """What the feature families measure: one batch of corrected fields and its objects.

    channels    names, in order of the C axis
    pixels      float32 [B, C, H, W]  corrected intensity, 0..1
    labels      compartment -> int32 [B, H, W]; 0 is background, n the cell numbered n in its field
    unfiltered  compartment -> int32 [B, H, W]: the objects before any was discarded at the border, for Neighbors. Kept
                objects have their own number, discarded ones numbers above the field's count. May be empty.
    objects     the rows
    values      float32 [C, P]        pixels gathered into list order, once
    derived     what several families need and one of them made (order statistics), by name
    """

    channels: tuple[str, ...]
    pixels: torch.Tensor
    labels: dict[str, torch.Tensor]
    unfiltered: dict[str, torch.Tensor]
    objects: Objects
    values: torch.Tensor
    derived: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def find_objects(labels: dict[str, torch.Tensor], device: Device) -> Objects:
    """Count, box and list the objects of a batch.

    Parameters
    ----------
    labels : compartment -> int32 [B, H, W]
        0 is background; n is cell n of its field in every compartment. The cells of a field are 1..n, n its highest
        label in any compartment; each needs a pixel in at least one (an empty cytoplasm is legal). One to four
        compartments of any names; they may overlap in any way.

    Returns
    -------
    Objects
        On CUDA everything but the counts is still being computed: the one synchronisation reads the counts.

    Raises
    ------
    TypeError, ValueError
        For another dtype or shape, a negative label, or a number without pixels, naming the field's position in the batch.
    """
    names, planes = check_labels(labels)
    fields, height, width = planes[0].shape
    kinds = 1 << len(names)
    common: dict[str, Any] = dict(compartments=len(names), height=height, width=width, **label_arguments(planes))

    capacity = CAPACITY
    while True:
        counts = device.zeros(fields, capacity, kinds, dtype=torch.int32)
        boxes = device.zeros(fields, capacity, len(names), 4, dtype=torch.int32)
        boxes[..., :2] = HIGHEST_SIDE
        extremes = device.zeros(fields, 2, dtype=torch.int32)
        device.launch(
            "count_objects", fields * height, capacity=capacity, counts=counts, boxes=boxes, extremes=extremes, **common
        )
        # Per compartment, and whether every pattern of the cell has a place in the class order.
        of_compartment = [counts[..., [p for p in range(kinds) if p >> k & 1]].sum(2) for k in range(len(names))]
        order = CLASS_ORDER[len(names)]
        odd = [p for p in range(1, kinds) if p not in order]
        once = counts[..., odd].sum(2) == 0
        of_rows = torch.stack(of_compartment)
        size = torch.where(once, counts.sum(2), of_rows.sum(0))
        lines, widths = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(3)
        inside = (lines * ((widths + PITCH - 1) // PITCH * PITCH)).amax((1, 2))
        cells = [extremes[:, 0], extremes[:, 1], (size > 0).sum(1), size.sum(1)]
        boxed = [lines.sum((1, 2)), widths.sum((1, 2)), (lines * widths).sum((1, 2))]
        seen = torch.stack([*cells, *boxed, of_rows.sum((0, 2)), of_rows.amax((0, 2)), inside])
        highest, lowest, present, n_pixels, *sizes = seen.tolist()  # the synchronisation
        if max(highest) <= capacity:
            break
        capacity = max(highest)
    check_numbers(highest, lowest, present)

    # The rows of the table that are cells, field by field.
    n = np.asarray(highest, np.int64)
    field_start = np.concatenate([[0], np.cumsum(n)])
    field_of = np.repeat(np.arange(fields), n)
    number = np.arange(field_start[-1]) - field_start[:-1].repeat(n) + 1
    at = device.tensor(field_of * capacity + number - 1)
    counts = counts.view(-1, kinds)[at]
    once = once.view(-1)[at]
    size = size.view(-1)[at]
    by_compartment = torch.stack([c.view(-1)[at] for c in of_compartment])  # [K, N]
    box = boxes.view(-1, len(names), 4)[at]
    box[by_compartment.t() == 0] = 0

    cell_start = start_of(size)
    row_start, list_start = lay_out(counts, once, by_compartment, cell_start[:-1], order)
    empty = by_compartment.t()[..., None] == 0
    far = torch.where(empty, HIGHEST_SIDE, box)
    cell_box = torch.cat([far[..., :2].amin(1), box[..., 2:].amax(1)], 1)
    class_of = np.zeros(kinds, np.int32)
    class_of[list(order)] = range(len(order))

    cell_field = device.tensor(field_of, torch.int32)
    number_of = device.tensor(number, torch.int32)
    pixel = device.empty(sum(n_pixels), dtype=torch.int32)
    pixel_field = torch.empty_like(pixel)
    device.launch(
        "list_objects",
        len(number),
        field=cell_field,
        number=number_of,
        cell_box=cell_box.contiguous(),
        list_start=list_start.contiguous(),
        shared=once.to(torch.int32),
        class_of=device.tensor(class_of),
        pixel=pixel,
        pixel_field=pixel_field,
        **common,
    )
    rows = by_compartment.reshape(-1)
    return Objects(
        compartments=names,
        shape=(fields, height, width),
        field=cell_field,
        number=number_of,
        field_start=device.tensor(field_start),
        pixel=pixel,
        cell_start=cell_start,
        pixel_start=device.tensor(np.concatenate([[0], np.cumsum(n_pixels)]), torch.int64),
        start=row_start.reshape(-1).contiguous(),
        stop=(row_start.reshape(-1) + rows).contiguous(),
        box=box.transpose(0, 1).reshape(-1, 4).contiguous(),
        schedule=torch.argsort(rows, descending=True, stable=True).to(torch.int32),
        pixel_field=pixel_field,
        line_start=start_of((box[..., 2] - box[..., 0]).t().reshape(-1)),
        n_cells=tuple(highest),
        n_pixels=tuple(n_pixels),
        n_lines=sum(sizes[0]),
        n_columns=sum(sizes[1]),
        n_box_pixels=sum(sizes[2]),
        n_row_pixels=sum(sizes[3]),
        largest=max(sizes[4]),
        largest_box=max(sizes[5]),
    )


def lay_out(
    counts: torch.Tensor, once: torch.Tensor, by_compartment: torch.Tensor, cell_start: torch.Tensor, order: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each row's range begins, int64 [K, N], and each cell's lists, int64 [N, CLASSES] (see CLASS_ORDER)."""
    n_compartments, cells = by_compartment.shape
    lists = torch.zeros(cells, CLASSES, dtype=torch.int64, device=counts.device)
    lists[:, :n_compartments] = by_compartment.t()  # a list a compartment
    lists = lists.cumsum(1) - lists
    rows = lists[:, :n_compartments].t()
    if order:
        of_class = torch.zeros_like(lists)
        of_class[:, : len(order)] = counts[:, list(order)]
        of_class = of_class.cumsum(1) - of_class
        first = [next(i for i, p in enumerate(order) if p >> k & 1) for k in range(n_compartments)]
        rows = torch.where(once, of_class[:, first].t(), rows)
        lists = torch.where(once[:, None], of_class, lists)
    return rows + cell_start, lists + cell_start[:, None]


def start_of(sizes: torch.Tensor) -> torch.Tensor:
    """Where each of a row of lists begins, and at last their total: int64 [N + 1]."""
    start = torch.zeros(len(sizes) + 1, dtype=torch.int64, device=sizes.device)
    start[1:] = sizes.cumsum(0)
    return start


def label_arguments(planes: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The four label planes of a kernel that reads as many as there are compartments, by parameter name."""
    return {name: planes[min(k, len(planes) - 1)] for k, name in enumerate(("first", "second", "third", "fourth"))}


def check_labels(labels: dict[str, torch.Tensor]) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    """Compartments in row order and their label images; TypeError or ValueError for what cannot be listed."""
    names = tuple(sorted(labels))
    if not 1 <= len(names) <= len(CLASS_ORDER):
        raise ValueError(
            f"1 to {len(CLASS_ORDER)} compartments can be measured together, got {len(names)}: {', '.join(names)}"
        )
    planes = [labels[name] for name in names]
    for name, plane in zip(names, planes, strict=True):
        if plane.dtype != torch.int32:
            raise TypeError(f"labels of {name} must be torch.int32, got {plane.dtype}")
        if plane.ndim != 3 or plane.shape != planes[0].shape:
            raise ValueError(
                f"labels must all be [B, H, W]: {names[0]} is {list(planes[0].shape)}, {name} {list(plane.shape)}"
            )
    if not planes[0].numel():
        raise ValueError(f"labels must have at least one field and pixel, got {list(planes[0].shape)}")
    if max(planes[0].shape[1:]) > HIGHEST_SIDE:
        raise ValueError(
            f"a field may have {HIGHEST_SIDE} rows and columns at most, got {list(planes[0].shape[1:])}; cut it into tiles"
        )
    return names, [p.contiguous() for p in planes]


def check_numbers(highest: list[int], lowest: list[int], present: list[int]) -> None:
    """ValueError unless the labels of each field are 1..n."""
    for b, (high, low, found) in enumerate(zip(highest, lowest, present, strict=True)):
        if low < 0:
            raise ValueError(f"field {b} of the batch: labels must be 1..n, found {low}; relabel first")
        if found != high:
            raise ValueError(f"field {b} of the batch: labels must be 1..n: {found} labels, highest {high}; relabel first")


def make_scene(
    channels: Sequence[str],
    pixels: torch.Tensor,
    labels: dict[str, torch.Tensor],
    unfiltered: dict[str, torch.Tensor],
    device: Device,
) -> Scene:
    """The scene of a batch: its objects found, its values gathered into list order.

    Parameters
    ----------
    channels : names of the C axis, C of them, no two alike
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    labels, unfiltered : compartment -> int32 [B, H, W]
        See `Scene`; `unfiltered` may be empty.

    Raises TypeError and ValueError as `find_objects`, and where shapes or channels do not match.
    """
    channels = tuple(channels)
    if len(set(channels)) != len(channels):
        raise ValueError(f"channel names must differ, got {', '.join(channels)}")
    if pixels.dtype != torch.float32:
        raise TypeError(f"pixels must be torch.float32, got {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[1] != len(channels):
        raise ValueError(
            f"pixels must be [B, C, H, W] with C = {len(channels)} ({', '.join(channels)}), got {list(pixels.shape)}"
        )
    objects = find_objects(labels, device)
    fields, height, width = objects.shape
    if pixels.shape != (fields, len(channels), height, width):
        raise ValueError(f"labels are [B, H, W] = {list(objects.shape)}, pixels {list(pixels.shape)}")
    pixels = pixels.contiguous()
    values = device.empty(len(channels), objects.pixel.numel(), dtype=torch.float32)
    device.launch(
        "gather_values",
        objects.n * len(channels),
        pixels=pixels,
        pixel=objects.pixel,
        cell_start=objects.cell_start,
        field=objects.field,
        n_pixels=objects.pixel.numel(),
        channels=len(channels),
        height=height,
        width=width,
        values=values,
    )
    return Scene(channels, pixels, dict(labels), dict(unfiltered), objects, values)
