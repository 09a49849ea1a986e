"""The objects of a batch of fields, numbered through, and their pixels.

An object row is one compartment of one cell. Rows run compartment by compartment: row `k * N + n` is cell `n` of
compartment `k`. One pixel list serves all rows: a cell's pixels stand as cytoplasm only, nuclear outline, nuclear
interior, in raster order within each, so that Cytoplasm, Nuclei and Cells are contiguous ranges of it; masks that do not
nest so get lists of their own, and no kernel notices.
"""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Objects:
    """N cells of a batch with K compartments.

    compartments  names, in row order (sorted)
    shape         B, H, W of the batch
    field         int32 [N]      position in the batch of each cell's field; ascending
    number        int32 [N]      the cell's label in its field, 1..n
    field_start   int64 [B + 1]  first cell of each field
    pixel         int32 [P]      y << 16 | x
    start, stop   int64 [K * N]  each row's range of `pixel`; an empty row has start == stop
    box           int32 [K * N, 4]  half-open y0, x0, y1, x1; zeros for an empty row
    schedule      int32 [K * N]  rows by falling pixel count (ties by row): the order in which blocks take them
    pixel_field   int32 [P]      position in the batch of each listed pixel's field
    """

    compartments: tuple[str, ...]
    shape: tuple[int, int, int]
    field: torch.Tensor
    number: torch.Tensor
    field_start: torch.Tensor
    pixel: torch.Tensor
    start: torch.Tensor
    stop: torch.Tensor
    box: torch.Tensor
    schedule: torch.Tensor
    pixel_field: torch.Tensor

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
