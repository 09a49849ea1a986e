"""The cells of a batch counted and boxed, and the one synchronisation, in which the host learns how many there are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device, blocks

CAPACITY = 1024  # cells per field, or one in so many pixels, that the first count has room for; else it is repeated
HIGHEST_SIDE = 32767  # y << 16 | x in an int32
SEEN = (  # what the host is told of each field (objects.cu)
    "highest",
    "below",
    "present",
    "pixels",
    "columns",
    "box_pixels",
    "row_pixels",
    "largest",
    "largest_box",
    *(f"lines_{k}" for k in range(4)),
)

# The patterns (bit k: in compartment k, of the sorted names) of a cell that is listed once, in the order of its list. Every
# compartment is contiguous in it. Three: cytoplasm alone, cell + cytoplasm, all three, cell + nucleus, nucleus alone.
CLASS_ORDER: dict[int, tuple[int, ...]] = {
    1: (0b1,),
    2: (0b01, 0b11, 0b10),
    3: (0b010, 0b011, 0b111, 0b101, 0b100),
    4: (),
}


@dataclass(frozen=True)
class Counted:
    """The table of a batch's cells on the device, and what the host was told of it.

    counts    int32 [B, capacity, 2^K]    pixels of each cell by pattern
    boxes     int32 [B, capacity, K, 4]
    class_of  int32 [2^K]                 place of a pattern in the class order; -1 where it has none, and for pattern 0
    capacity  cells a field that the table has room for
    seen      int64 [B] each, by the names of SEEN
    beside    what was asked along with it
    """

    counts: torch.Tensor
    boxes: torch.Tensor
    class_of: torch.Tensor
    capacity: int
    seen: dict[str, np.ndarray]
    beside: list[int]

    def tables(self) -> dict[str, Any]:
        return {"counts": self.counts, "boxes": self.boxes, "class_of": self.class_of, "capacity": self.capacity}


@cache
def classes_of(names: int) -> np.ndarray:
    """The place of each combination of compartments in their order, -1 for none: int32 [2 ** names]."""
    result = np.full(1 << names, -1, np.int32)
    result[list(CLASS_ORDER[names])] = range(len(CLASS_ORDER[names]))
    return result


def count_objects(
    common: dict[str, Any], beside: list[torch.Tensor], device: Device, capacity: int = 0
) -> Callable[[], Counted]:
    """Begin to count and box the cells; what is returned reads what the host must know: the batch's one synchronisation.

    `beside`: integers on the device, one a tensor, that are read at the same time. `capacity`: cells per field that the
    table has room for, at least; where there are more, they are counted again.
    """
    names, fields, height = common["compartments"], len(common["first"]), common["height"]
    classes, told = device.constant(classes_of(names)), fields * len(SEEN)
    capacity = capacity or max(CAPACITY, common["height"] * common["width"] // CAPACITY)
    counts = device.zeros(fields, capacity, 1 << names, dtype=torch.int32)
    boxes = device.zeros(fields, capacity, names, 4, dtype=torch.int32)
    boxes[..., :2] = HIGHEST_SIDE
    extremes = device.zeros(fields, 2, dtype=torch.int32)
    device.launch(
        "count_objects", fields * height, capacity=capacity, counts=counts, boxes=boxes, extremes=extremes, **common
    )
    report = device.zeros(told + len(beside), dtype=torch.int64)
    device.launch(
        "sum_objects",
        blocks(fields * capacity),
        counts=counts,
        boxes=boxes,
        extremes=extremes,
        class_of=classes,
        compartments=names,
        capacity=capacity,
        fields=fields,
        seen=report[:told].view(torch.uint64),
    )
    for i, number in enumerate(beside, told):
        report[i] = number
    report_of = device.fetch(report)

    def read() -> Counted:
        told_of = report_of().tolist()  # the synchronisation
        seen = dict(zip(SEEN, np.asarray(told_of[:told], np.int64).reshape(fields, len(SEEN)).T, strict=True))
        highest = int(seen["highest"].max())
        if highest <= capacity:
            return Counted(counts, boxes, classes, capacity, seen, told_of[told:])
        return count_objects(common, beside, device, highest)()

    return read


def check_numbers(highest: np.ndarray, lowest: np.ndarray, present: np.ndarray) -> None:
    """ValueError unless the labels of each field are 1..n."""
    for b, (high, low, result) in enumerate(zip(highest, lowest, present, strict=True)):
        if low < 0:
            raise ValueError(f"field {b} of the batch: labels must be 1..n, found {low}; relabel first")
        if result != high:
            raise ValueError(f"field {b} of the batch: labels must be 1..n: {result} labels, highest {high}; relabel first")
