"""Basins of framed planes and the forest of their lowest passes (basins.cu), for watershed and granularity."""

from dataclasses import dataclass
from typing import Any

import torch

from ..gpu.device import Device

BAND = 8  # rows per block (kernels/segmentation/basins.cuh: BAND)
ROUNDS = 32  # rounds of the forest that are recorded (kernels/segmentation/basins.cuh: ROUNDS)
FOREST_BLOCK = 1024  # threads of the kernels that take a block per plane
FIRST_ROUNDS = 2  # rounds of the forest that many blocks do, where a device has them
PARTS, PART = 64, 512  # blocks per plane of such a round at most, and basins that one is worth
LARGEST_PLANE = 1 << 29  # framed pixels: the order of a step must fit in 64 bits
LARGEST_WIDTH = (1 << 16) - 1


@dataclass(frozen=True)
class Basins:
    """The basins of P planes of H x W pixels, each with a frame one pixel wide.

    shape     P, H, W
    capacity  most basins a plane can have
    key       uint32 [P, H + 2, W + 2]  0xffffffff outside the mask and in the frame
    basin     int32  [P, H + 2, W + 2]  the pixel's basin, or the lowest int32 outside
    row_end   int32  [P, H]             running count of basins by the row of their minimum; the last is their number
    up        int32  [P, capacity]      the root that the basin was hung on
    climb     uint64 [P, capacity]      the order (key, index) of the pass on the way to it
    hung      int32  [P, capacity]      basins by the round that hung them
    hung_end  int32  [P, ROUNDS]        how many are hung after each round
    """

    shape: tuple[int, int, int]
    capacity: int
    key: torch.Tensor
    basin: torch.Tensor
    row_end: torch.Tensor
    up: torch.Tensor
    climb: torch.Tensor
    hung: torch.Tensor
    hung_end: torch.Tensor

    def forest(self) -> dict[str, Any]:
        """What the walks up and down the forest read."""
        return {"up": self.up, "climb": self.climb, "hung": self.hung, "hung_end": self.hung_end}


def bands(planes: int, rows: int) -> int:
    """Blocks of the kernels that take a band of rows each."""
    return planes * -(-rows // BAND)


def tall_bands(planes: int, height: int, device: Device) -> tuple[int, dict[str, int]]:
    """Blocks of the kernels that follow links, and their arguments: many rows per block where a block is one thread."""
    rows = device.rows_per_block(height, 4)
    return planes * -(-height // rows), {"rows": rows}


def check_plane(height: int, width: int) -> None:
    """ValueError where a plane is too large for the 64-bit order of its steps."""
    if (height + 2) * (width + 2) > LARGEST_PLANE or width > LARGEST_WIDTH:
        raise ValueError(
            f"a plane of {height} x {width} pixels is too large for basins; at most {LARGEST_PLANE} with its frame"
        )


def find_basins(key: torch.Tensor, connectivity: int, device: Device) -> Basins:
    """The basins of framed planes and their forest.

    Parameters
    ----------
    key : uint32 [P, H + 2, W + 2]
        Framed planes; 0xffffffff in the frame and wherever a pixel takes no part. Equal keys are ordered by raster index.
    connectivity : int
        4 or 8 neighbours.
    """
    planes, height, width = key.shape[0], key.shape[1] - 2, key.shape[2] - 2
    check_plane(height, width)
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity}")
    # Minima are never neighbours: half the pixels at most, a quarter where diagonals count. A plane has about as many passes
    # as minima and holes, and holes are apart in the other sense.
    half, quarter = -(-height * width // 2), -(-height // 2) * -(-width // 2)
    capacity, maximum = max(1, half if connectivity == 4 else quarter), half + quarter
    basin = device.empty(*key.shape, dtype=torch.int32)
    ring = device.empty(planes, height, width, dtype=torch.uint8)
    count = device.empty(2, planes, height, dtype=torch.int32)
    size = {"height": height, "width": width}
    device.launch(
        "basin_descend",
        bands(planes, height + 2),
        key=key,
        planes=planes,
        **size,
        connectivity=connectivity,
        basin=basin,
        ring=ring,
        count=count,
    )
    row_end, pass_end = torch.cumsum(count, 2, dtype=torch.int32)
    rounds = FIRST_ROUNDS if device.massively_parallel else 0
    up, hung, live, parent = (device.empty(planes, capacity, dtype=torch.int32) for _ in range(4))
    climb, best, other = (
        device.empty(planes, n, dtype=torch.uint64) for n in (capacity, capacity, capacity if rounds else 1)
    )
    hung_end, left = (device.empty(planes, n, dtype=torch.int32) for n in (ROUNDS, 2))
    device.launch(
        "basin_number",
        bands(planes, height),
        row_end=row_end,
        **size,
        capacity=capacity,
        basin=basin,
        best=best,
        hung_end=hung_end,
        left=left,
    )
    grid, rows = tall_bands(planes, height, device)
    device.launch("basin_resolve", grid, **size, **rows, basin=basin)
    passes = device.empty(planes, maximum, 4, dtype=torch.int32)
    pass_count = device.empty(planes, height, dtype=torch.int32)
    device.launch(
        "basin_passes",
        bands(planes, height),
        key=key,
        basin=basin,
        ring=ring,
        pass_end=pass_end,
        **size,
        maximum=maximum,
        capacity=capacity,
        telling=int(rounds > 0),
        passes=passes,
        pass_count=pass_count,
        best=best,
    )
    lists: dict[str, Any] = {"height": height, "maximum": maximum, "capacity": capacity, "passes": passes}
    forest: dict[str, Any] = {"up": up, "climb": climb, "hung": hung, "hung_end": hung_end, "left": left, "row_end": row_end}
    for r in range(1, rounds + 1):
        if r > 1:
            device.launch(
                "basin_survey",
                bands(planes, height),
                **lists,
                pass_end=pass_end,
                pass_count=pass_count,
                up=up,
                best=best,
            )
        parts = min(PARTS, -(-capacity // PART))
        device.launch(
            "basin_hang",
            planes * parts,
            **lists,
            **forest,
            live=live,
            best=best,
            parts=parts,
            round=r,
            next=other,
            going_on=parent,
        )
        best, other, live, parent = other, best, parent, live
    if rounds:
        live, parent = parent, live  # basin_forest takes up `parent`
    device.launch(
        "basin_forest",
        planes,
        block=FOREST_BLOCK,
        **lists,
        **forest,
        pass_end=pass_end,
        rounds=rounds,
        pass_count=pass_count,
        best=best,
        live=live,
        parent=parent,
    )
    return Basins((planes, height, width), capacity, key, basin, row_end, up, climb, hung, hung_end)
