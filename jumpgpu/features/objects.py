"""The objects of a batch of fields, numbered through, and their pixels.

An object row is one compartment of one cell. Rows run compartment by compartment: row `k * N + n` is cell `n` of
compartment `k`. One pixel list serves all rows: a cell's pixels stand as cytoplasm only, nuclear outline, nuclear
interior, in raster order within each, so that Cytoplasm, Nuclei and Cells are contiguous ranges of it. A cell whose masks
do not nest so gets one list per compartment, and no kernel notices. Which of the two a cell gets depends on that cell alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from ..gpu.device import Device, blocks
from ..gpu.list_capacity import Capacity, CapacityExceeded
from ..segmentation.pipeline import segment
from ..settings.config import SegmentationSettings
from ..settings.names import channel_order
from .count_cells import CLASS_ORDER, HIGHEST_SIDE, Counted, check_numbers, count_objects

Derived = TypeVar("Derived")

CLASSES = 5  # lists a cell may have (objects.cu)


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
    line_start    int64 [K * N + 1]  where each row's lines begin in an array with an entry per line (image row) of every box
    n_cells       cells of each field,
    n_pixels      listed pixels of each field, and
    n_lines       lines of all boxes,
    n_columns     columns of all boxes,
    n_box_pixels  pixels of all boxes,
    n_row_pixels  pixels of all rows,
    largest       pixels of the largest row, and
    largest_box   pixels of the largest box, its lines rounded up to a multiple of 8, and
    unfiltered    the highest label of each unfiltered image, by compartment, known without asking the device
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
    unfiltered: dict[str, int]

    @property
    def n(self) -> int:
        """Cells in the batch."""
        return self.field.numel()

    @property
    def rows(self) -> int:
        return self.start.numel()


@dataclass(frozen=True)
class ObjectBatch:
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

    def once(self, name: str, make: Callable[["ObjectBatch", Device], Derived], device: Device) -> Derived:
        """What `make` gives, made at the first call and kept with the batch under a name."""
        if name not in self.derived:
            self.derived[name] = make(self, device)
        result: Derived = self.derived[name]
        return result

    def by_name(self, result: torch.Tensor, dim: int, device: Device) -> torch.Tensor:
        """`result` with channels along `dim`, in C order, put into the order of names."""
        order = tuple(map(self.channels.index, channel_order(self.channels)))
        return result.index_select(dim, device.constant(order, torch.int64))


def begin_objects(
    labels: dict[str, torch.Tensor],
    device: Device,
    unfiltered: dict[str, torch.Tensor] | None = None,
    capacity: Capacity | None = None,
) -> Callable[[], Objects]:
    """Begin to count and box the objects of a batch; what is returned waits for the count and lists them.

    Parameters
    ----------
    labels : compartment -> int32 [B, H, W]
        0 is background; n is cell n of its field in every compartment. The cells of a field are 1..n, n its highest
        label in any compartment; each needs a pixel in at least one (an empty cytoplasm is legal). One to four
        compartments of any names; they may overlap in any way.
    unfiltered : compartment -> int32 [B, H, W]
        Of which the highest label is wanted.
    capacity : Capacity
        What gave room to the lists by which the labels were made.

    What is returned reads the counts, the batch's one synchronisation; on CUDA all else of Objects is still being computed.
    It raises ValueError for a negative label or a number without pixels, naming the field's position in the batch, and
    CapacityExceeded where the labels are wrong, because a list was too short (`capacity` has more then). TypeError and
    ValueError, at once, for another dtype or shape.
    """
    names, planes = check_labels(labels)
    _, height, width = planes[0].shape
    common: dict[str, Any] = dict(compartments=len(names), height=height, width=width, **label_arguments(planes))
    # An image that is a label image too has no label that is not counted anyway.
    others = {name: image for name, image in unfiltered.items() if image is not labels.get(name)} if unfiltered else {}
    beside = [*(capacity.counts if capacity else ()), *(i.amax() for i in others.values())]
    read = count_objects(common, beside, device)
    return lambda: list_objects(names, common, read(), tuple(unfiltered or ()), tuple(others), device, capacity)


def find_objects(
    labels: dict[str, torch.Tensor],
    device: Device,
    unfiltered: dict[str, torch.Tensor] | None = None,
    capacity: Capacity | None = None,
) -> Objects:
    """Count, box and list the objects of a batch: `begin_objects`, and what it returns, at once."""
    return begin_objects(labels, device, unfiltered, capacity)()


def list_objects(
    names: tuple[str, ...],
    common: dict[str, Any],
    counted: Counted,
    unfiltered: Sequence[str],
    others: Sequence[str],
    device: Device,
    capacity: Capacity | None,
) -> Objects:
    """The objects that were counted, listed. `others`: unfiltered images whose highest label was read with the count."""
    fields, height, width = len(common["first"]), common["height"], common["width"]
    lists = len(counted.beside) - len(others)
    if capacity and not capacity.enough(counted.beside[:lists]):
        raise CapacityExceeded
    seen = counted.seen
    check_numbers(seen["highest"], -seen["below"], seen["present"])
    highest = {name: int(seen["highest"].max()) for name in unfiltered}
    highest |= dict(zip(others, counted.beside[lists:], strict=True))

    n, rows = int(seen["highest"].sum()), len(names) * int(seen["highest"].sum())
    starts = np.zeros((2, fields + 1), np.int64)
    np.cumsum([seen["highest"], seen["pixels"]], axis=1, out=starts[:, 1:])
    field_start, pixel_start = device.tensor(starts)
    cell_field, number, shared = (device.empty(n, dtype=torch.int32) for _ in range(3))
    size, lines = device.empty(n + 1, dtype=torch.int64), device.empty(rows + 1, dtype=torch.int64)
    area, first = (device.empty(len(names), n, dtype=torch.int64) for _ in range(2))
    list_start = device.empty(n, CLASSES, dtype=torch.int64)
    box, cell_box = device.empty(rows, 4, dtype=torch.int32), device.empty(n, 4, dtype=torch.int32)
    device.launch(
        "describe_objects",
        blocks(n + 1),
        field_start=field_start,
        compartments=len(names),
        cells=n,
        field=cell_field,
        number=number,
        shared=shared,
        size=size,
        lines=lines,
        area=area,
        first=first,
        lists=list_start,
        box=box,
        cell_box=cell_box,
        **counted.tables(),
    )
    cell_start = torch.cumsum(size, 0)
    start = (first + cell_start[:-1]).view(-1)
    pixel = device.empty(int(starts[1, -1]), dtype=torch.int32)
    pixel_field = torch.empty_like(pixel)
    device.launch(
        "list_objects",
        n,
        field=cell_field,
        number=number,
        cell_box=cell_box,
        list_start=list_start + cell_start[:-1, None],
        shared=shared,
        class_of=counted.class_of,
        pixel=pixel,
        pixel_field=pixel_field,
        **common,
    )
    return Objects(
        compartments=names,
        shape=(fields, height, width),
        field=cell_field,
        number=number,
        field_start=field_start,
        pixel=pixel,
        cell_start=cell_start,
        pixel_start=pixel_start,
        start=start,
        stop=start + area.view(-1),
        box=box,
        schedule=torch.argsort(area.view(-1), descending=True, stable=True).to(torch.int32),
        pixel_field=pixel_field,
        line_start=torch.cumsum(lines, 0),
        n_cells=tuple(seen["highest"].tolist()),
        n_pixels=tuple(seen["pixels"].tolist()),
        n_lines=sum(int(seen[f"lines_{k}"].sum()) for k in range(len(names))),
        n_columns=int(seen["columns"].sum()),
        n_box_pixels=int(seen["box_pixels"].sum()),
        n_row_pixels=int(seen["row_pixels"].sum()),
        largest=int(seen["largest"].max()),
        largest_box=int(seen["largest_box"].max()),
        unfiltered=highest,
    )


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


def make_batch(
    channels: Sequence[str],
    pixels: torch.Tensor,
    labels: dict[str, torch.Tensor],
    unfiltered: dict[str, torch.Tensor],
    device: Device,
    capacity: Capacity | None = None,
) -> ObjectBatch:
    """The objects of a batch of fields: listed, its values gathered into list order; as `begin_batch`, at once."""
    return begin_batch(channels, pixels, labels, unfiltered, device, capacity)()


def begin_batch(
    channels: Sequence[str],
    pixels: torch.Tensor,
    labels: dict[str, torch.Tensor],
    unfiltered: dict[str, torch.Tensor],
    device: Device,
    capacity: Capacity | None = None,
) -> Callable[[], ObjectBatch]:
    """Begin to count a batch's objects; what is returned waits for the count, lists them and gathers their values.

    Parameters
    ----------
    channels : names of the C axis, C of them, no two alike
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    labels, unfiltered : compartment -> int32 [B, H, W]
        See `ObjectBatch`; `unfiltered` may be empty.
    capacity : see `begin_objects`

    Raises TypeError and ValueError as `begin_objects`, and where shapes or channels do not match.
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
    read = begin_objects(labels, device, unfiltered, capacity)
    shape = next(iter(labels.values())).shape
    if pixels.shape != (shape[0], len(channels), *shape[1:]):
        raise ValueError(f"labels are [B, H, W] = {list(shape)}, pixels {list(pixels.shape)}")
    pixels = pixels.contiguous()
    return lambda: gathered(ObjectBatch(channels, pixels, dict(labels), dict(unfiltered), read(), pixels), device)


def gathered(batch: ObjectBatch, device: Device) -> ObjectBatch:
    """The batch with its values in list order."""
    objects, channels, pixels = batch.objects, batch.channels, batch.pixels
    _, height, width = objects.shape
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
    return replace(batch, values=values)


def segment_batch(
    pixels: torch.Tensor, channels: Sequence[str], settings: SegmentationSettings, device: Device
) -> ObjectBatch:
    """Segment a batch of corrected fields and list its objects: `begin_segmentation`, and what it returns, at once."""
    return begin_segmentation(pixels, channels, settings, device)()


def begin_segmentation(
    pixels: torch.Tensor, channels: Sequence[str], settings: SegmentationSettings, device: Device
) -> Callable[[], ObjectBatch]:
    """Launch the segmentation of a batch of corrected fields; what is returned waits, once, and lists its objects.

    On CUDA nothing is asked of the device before its objects are counted. Lists whose length only it knows get the capacity
    that `device.capacity` has learnt; a batch for which that was not enough is done again, which the count shows.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    channels : names along the C axis

    Raises ValueError as `segment`.
    """
    lists = device.capacity.of_batch() if device.capacity else None
    segmented = segment(pixels, tuple(channels), settings, device, lists)
    listed = begin_batch(channels, pixels, segmented.labels, segmented.unfiltered, device, lists)

    def read() -> ObjectBatch:
        try:
            return listed()
        except CapacityExceeded:
            return segment_batch(pixels, channels, settings, device)

    return read
