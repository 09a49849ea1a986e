"""Planes sampled bilinearly on a grid, as scipy.ndimage.map_coordinates does it, and the transpose of that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device
from .basins import bands


@dataclass(frozen=True)
class Axis:
    """Sampling of `size` pixels at n coordinates: lower index int32 [n], both weights float64 [n, 2], exact step or 0."""

    size: int
    at: np.ndarray
    weights: np.ndarray
    step: int

    @property
    def n(self) -> int:
        return self.at.size


def axis(coordinates: np.ndarray, size: int) -> Axis:
    """The tables of scipy.ndimage.map_coordinates of order 1 with zeros outside 0 .. size - 1."""
    inside = (coordinates >= 0) & (coordinates <= size - 1)
    at = np.clip(np.floor(coordinates), 0, size - 1).astype(np.int32)
    low = 1.0 - (coordinates - at)
    weights = np.where(inside[:, None], np.stack([low, 1.0 - low], 1), 0.0)
    step = int(at[1]) if at.size > 1 else 1
    exact = step > 0 and inside.all() and bool((coordinates == np.arange(at.size) * step).all())
    return Axis(size, at, weights, step if exact else 0)


@dataclass(frozen=True)
class Shares:
    """Who uses a sampled pixel along one axis: first user, number of users, and their weights [n, reach]."""

    first: np.ndarray
    count: np.ndarray
    share: np.ndarray


def shares(sampling: Axis) -> Shares:
    """The transpose of a sampling: how much each pixel is used by which coordinates."""
    matrix = np.zeros((sampling.size, sampling.n))
    for side in (0, 1):
        at = np.minimum(sampling.at + side, sampling.size - 1)
        np.add.at(matrix, (at, np.arange(sampling.n)), sampling.weights[:, side])
    used = matrix != 0
    first = np.maximum.accumulate(used.argmax(1)).astype(np.int32)
    count = np.where(used.any(1), sampling.n - used[:, ::-1].argmax(1) - first, 0).astype(np.int32)
    share = np.zeros((sampling.size, max(1, int(count.max()))))
    for j in range(share.shape[1]):
        share[:, j] = np.where(j < count, matrix[np.arange(sampling.size), np.minimum(first + j, sampling.n - 1)], 0.0)
    return Shares(first, count, share)


@dataclass(frozen=True)
class Grid:
    """Both axes of one sampling, on the device."""

    rows: torch.Tensor
    columns: torch.Tensor
    row_weights: torch.Tensor
    column_weights: torch.Tensor
    step: int
    shape: tuple[int, int]

    @staticmethod
    def of(y: Axis, x: Axis, device: Device) -> "Grid":
        """Of axes that a function keeps: their tables are copied once."""
        rows, columns, row_weights, column_weights = (device.constant(a) for a in (y.at, x.at, y.weights, x.weights))
        return Grid(rows, columns, row_weights, column_weights, y.step if y.step == x.step else 0, (y.n, x.n))

    def tables(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "columns": self.columns,
            "row_weights": self.row_weights,
            "column_weights": self.column_weights,
        }


def stretched(n: int, to: float, of: float) -> np.ndarray:
    """Coordinates 0 .. n - 1 scaled so that the last of `of` falls on the last of `to`, as CellProfiler scales them."""
    return np.arange(n) * ((to - 1) / (of - 1) if of != 1 else 0.0)


def sample(planes: torch.Tensor, grid: Grid, device: Device) -> torch.Tensor:
    """float32 [P, *grid.shape]: the planes at the grid's coordinates."""
    out = device.empty(planes.shape[0], *grid.shape, dtype=torch.float32)
    device.launch(
        "granularity_sample",
        bands(planes.shape[0], grid.shape[0]),
        image=planes,
        **grid.tables(),
        step=grid.step,
        in_height=planes.shape[1],
        in_width=planes.shape[2],
        height=grid.shape[0],
        width=grid.shape[1],
        out=out,
    )
    return out
