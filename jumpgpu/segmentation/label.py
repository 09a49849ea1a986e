"""Connected components, numbers in raster order, and what is done to labels by table."""

from dataclasses import dataclass
from typing import Any

import torch

from ..gpu.device import Device

TILE = 64  # rows and columns of a block of label_tiles, and pixels of a word (label.cu)
WIDE_BLOCK = 1024  # threads of the kernel that gives a whole field to one block
SEAM_ITEMS = 128  # items of a block of label_seams (label.cu)
FOREGROUND, BACKGROUND = 1, 2
OUTSIDE = -2  # root of background that reaches the border
NONE = 0x7FFFFFFF
BORDER, OTHER_BORDER, SIZE, FILLED, ABSENT = 1, 2, 4, 8, 16  # what keep_objects.cu is asked to look at


@dataclass(frozen=True)
class Components:
    """Connected pixels of a mask: the foreground in eight directions, the background in four.

    root    int32 [B, H, W]  first pixel of the component, as index in its field; -1: this class was left out; -2: background
                             that reaches the border
    filled  int32 [B, H, W]  1 for the foreground and its holes; empty unless both classes were labelled
    """

    root: torch.Tensor
    filled: torch.Tensor


def find_components(mask: torch.Tensor, classes: int, device: Device) -> Components:
    """Components of the foreground (1), the background (2) or both (3) of a uint8 [B, H, W] mask."""
    b, h, w = mask.shape
    bits, parent = join_runs(mask, classes, device)
    filled = device.empty(*mask.shape if classes == FOREGROUND | BACKGROUND else (0,), dtype=torch.int32)
    runs: dict[str, Any] = {"bits": bits, "height": h, "width": w, "words": bits.shape[2]}
    device.launch("label_roots", b * h, **runs, classes=classes, parent=parent, filled=filled)
    return Components(parent, filled)


def join_runs(mask: torch.Tensor, classes: int, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """The foreground as words, uint64 [B, H, words], and joined runs of the classes, int32 [B, H, W] (label.cu: parent)."""
    b, h, w = mask.shape
    words, down = -(-w // TILE), -(-h // TILE)
    bits, parent = device.empty(b, h, words, dtype=torch.uint64), device.empty(b, h, w, dtype=torch.int32)
    runs: dict[str, Any] = {"bits": bits, "height": h, "width": w, "classes": classes, "words": words, "parent": parent}
    device.launch("label_tiles", b * words * down, mask=mask, **runs)
    seams = b * (max(0, down - 1) * words + max(0, words - 1) * h)
    device.launch("label_seams", -(-seams // SEAM_ITEMS), n_items=seams, **runs)
    return bits, parent


def number_points(points: torch.Tensor, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Set pixels of uint8 [B, H, W], numbered 1..n in raster order: int32 [B, H, W]; and n: int64 [B]."""
    b, h, w = points.shape
    in_row = device.empty(b, h, dtype=torch.int32)
    number = device.empty(b, h, w, dtype=torch.int32)
    device.launch("count_points", b * h, points=points, width=w, in_row=in_row)
    upto = torch.cumsum(in_row, 1)
    before = (upto - in_row).to(torch.int32)
    device.launch("number_points", b * h, points=points, in_row=in_row, before=before, width=w, number=number)
    return number, upto[:, -1].contiguous()


def label_components(mask: torch.Tensor, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight-connected components of uint8 [B, H, W], numbered by first pixel: int32 [B, H, W]; counts int64 [B]."""
    b, h, w = mask.shape
    bits, parent = join_runs(mask, FOREGROUND, device)
    in_row, labels = device.empty(b, h, dtype=torch.int32), device.empty(b, h, w, dtype=torch.int32)
    runs: dict[str, Any] = {"bits": bits, "height": h, "width": w, "words": bits.shape[2]}
    device.launch("count_roots", b * h, parent=parent, in_row=in_row, **runs)
    upto = torch.cumsum(in_row, 1)
    before = (upto - in_row).to(torch.int32)
    device.launch("label_numbers", b * h, parent=parent, before=before, labels=labels, **runs)
    return labels, upto[:, -1].contiguous()


def label_extents(labels: torch.Tensor, capacity: int, device: Device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of each label, and whether it touches the image's border: int32 [B, capacity] each, labels below `capacity`."""
    b, h, w = labels.shape
    area, border = device.zeros(b, capacity, dtype=torch.int32), device.zeros(b, capacity, dtype=torch.int32)
    device.launch("label_extents", b * h, labels=labels, height=h, width=w, capacity=capacity, area=area, border=border)
    return area, border


def apply_tables(
    labels: torch.Tensor, table: torch.Tensor, other: torch.Tensor, device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels int32 [B, H, W] through two tables int32 [B, capacity]."""
    b, h, w = labels.shape
    first, second = torch.empty_like(labels), torch.empty_like(labels)
    device.launch(
        "apply_tables",
        b * h,
        labels=labels,
        table=table.contiguous(),
        other=other.contiguous(),
        capacity=table.shape[1],
        height=h,
        width=w,
        first=first,
        second=second,
    )
    return first, second


def apply_table(labels: torch.Tensor, table: torch.Tensor, device: Device) -> torch.Tensor:
    """Labels int32 [B, H, W] through a table int32 [B, capacity]."""
    b, h, w = labels.shape
    first = torch.empty_like(labels)
    device.launch(
        "apply_table",
        b * h,
        labels=labels,
        table=table.contiguous(),
        capacity=table.shape[1],
        height=h,
        width=w,
        first=first,
    )
    return first


@dataclass(frozen=True)
class Kept:
    """Which of a field's objects are kept; see keep_objects.cu.

    n_labels int64 [B]            the highest label of each field, not above `capacity` - 1
    area     int32 [B, capacity]  pixels by label
    border   int32 [B, capacity]  above 0: touches the image's border. None: that does not matter
    other    the same in another label image
    sizes    least and greatest area of one that is kept, in pixels; None: any
    """

    n_labels: torch.Tensor
    area: torch.Tensor
    border: torch.Tensor | None = None
    other: torch.Tensor | None = None
    sizes: tuple[float, float] | None = None

    def arguments(self) -> dict[str, Any]:
        asked = (
            BORDER * (self.border is not None) | OTHER_BORDER * (self.other is not None) | SIZE * (self.sizes is not None)
        )
        minimum, maximum = self.sizes or (0.0, 0.0)
        return {
            "n_labels": self.n_labels,
            "area": self.area,
            "border": self.area if self.border is None else self.border,
            "asked": asked,
            "minimum": minimum,
            "maximum": maximum,
            "capacity": self.area.shape[1],
        }


def keep_objects(kept: Kept, device: Device) -> torch.Tensor:
    """Each label if it is kept, else 0: int32 [B, capacity], of which entries past `n_labels` are of no meaning."""
    alive = torch.empty_like(kept.area)
    device.launch("keep_objects", len(alive), alive=alive, **kept.arguments())
    return alive


def number_objects(
    kept: Kept, device: Device, filled: torch.Tensor | None = None, *, absent: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """New numbers by old label: kept objects 1..n in order, other existing ones above n.

    Parameters
    ----------
    filled : int32 [B, capacity]
        Pixels by label after holes were filled; without any an object is not kept.
    absent : bool
        Labels without pixels take numbers above n too.

    Returns
    -------
    number, kept, not_small : int32 [B, capacity]
        The number; that of kept ones, else 0; that of kept ones and those that are only too large, else 0.
    counts : int32 [B]
        n of each field.
    """
    given = kept.arguments()
    given["asked"] |= FILLED * (filled is not None) | ABSENT * absent
    number, only_kept, not_small = (torch.empty_like(kept.area) for _ in range(3))
    counts = device.empty(len(number), dtype=torch.int32)
    device.launch(
        "number_objects",
        len(number),
        other=kept.area if kept.other is None else kept.other,
        filled=kept.area if filled is None else filled,
        number=number,
        kept=only_kept,
        not_small=not_small,
        counts=counts,
        **given,
    )
    return number, only_kept, not_small, counts


def label_maximum(labels: torch.Tensor, values: torch.Tensor, capacity: int, device: Device) -> torch.Tensor:
    """The greatest of the int32 [B, H, W] values within each label: int32 [B, capacity]; 0 where there is none above 0."""
    b, h, w = labels.shape
    maximum = device.zeros(b, capacity, dtype=torch.int32)
    device.launch(
        "label_maximum", b * h, labels=labels, values=values, height=h, width=w, capacity=capacity, maximum=maximum
    )
    return maximum


def fill_holes(labels: torch.Tensor, capacity: int, device: Device, *, objects: bool) -> torch.Tensor:
    """Background within one label takes it; with `objects`, so do labels within it (centrosome fill_labeled_holes).

    Labels are int32 [B, H, W] below `capacity`; so is the result.
    """
    b, h, w = labels.shape
    root = find_components((labels != 0).view(torch.uint8), BACKGROUND, device).root
    words = device.empty(3, b, h * w + capacity, dtype=torch.int32)
    words[::2, :, h * w :] = 0
    words[1, :, h * w :] = NONE
    contact = device.empty(b, 2 * h * w, 2, dtype=torch.int32)
    count = device.zeros(b, dtype=torch.int32)
    filled = torch.empty_like(labels)
    image: dict[str, Any] = {"labels": labels, "root": root, "capacity": capacity, "words": words}
    n_words = b * (h * w + capacity)
    device.launch("start_holes", b * h, height=h, width=w, n_words=n_words, **image)
    device.launch("list_contacts", b * h, height=h, width=w, contact=contact, count=count, **image)
    device.launch(
        "resolve_holes",
        b,
        block=WIDE_BLOCK,
        contact=contact,
        count=count,
        capacity=capacity,
        plane=h * w,
        n_words=n_words,
        words=words,
    )
    device.launch(
        "fill_holes",
        b * h,
        height=h,
        width=w,
        n_words=n_words,
        objects=int(objects),
        filled=filled,
        **image,
    )
    return filled
