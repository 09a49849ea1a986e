"""One plane of values per field, wherever it lies in a tensor."""

from dataclasses import dataclass
from typing import Any

import torch

from ..gpu.device import Device


@dataclass(frozen=True)
class Planes:
    """One plane of values per field: float32 or float64, plane b at `offset + b * stride` of `values`."""

    values: torch.Tensor
    offset: int
    stride: int
    shape: tuple[int, int, int]  # B, H, W

    @property
    def n(self) -> int:
        return self.shape[1] * self.shape[2]

    @property
    def single(self) -> bool:
        return self.values.dtype == torch.float32

    def launch(self, device: Device, kernel: str, grid: int, *, block: int = 128, **values: Any) -> None:
        """Launch the kernel of this element type over these planes."""
        device.launch(
            f"{kernel}_{32 if self.single else 64}",
            grid,
            block=block,
            values=self.values,
            offset=self.offset,
            stride=self.stride,
            n=self.n,
            **values,
        )


def channel_planes(pixels: torch.Tensor, channel: int) -> Planes:
    """One channel of float32 pixels [B, C, H, W]."""
    b, c, h, w = pixels.shape
    return Planes(pixels, channel * h * w, c * h * w, (b, h, w))


def whole_planes(images: torch.Tensor) -> Planes:
    """Images [B, H, W] as they stand."""
    b, h, w = images.shape
    return Planes(images, 0, h * w, (b, h, w))
