"""Maxima looked for at low resolution (CellProfiler's 'Speed up by using lower-resolution image to find local maxima')."""

import math

import torch

from ..gpu.device import Device, blocks
from .label import Components

STRIP = 64  # columns or rows of a block of spline_columns and spline_rows


def resample(images: torch.Tensor, scale: float, shape: tuple[int, int], device: Device) -> torch.Tensor:
    """float64 [B, h, w]: float64 [B, H, W] at positions (y, x) / scale by cubic splines; 0 beyond the last pixel."""
    b, h, w = images.shape
    coefficient = images.clone()
    device.launch("spline_columns", b * -(-w // STRIP), height=h, width=w, image=coefficient)
    device.launch("spline_rows", -(-b * h // STRIP), rows=b * h, width=w, image=coefficient)
    value = device.empty(b, *shape, dtype=torch.float64)
    at, weight = device.empty(4, shape[1], dtype=torch.int32), device.empty(4, shape[1], dtype=torch.float64)
    device.launch("spline_taps", blocks(shape[1]), width=w, scale=scale, out_width=shape[1], at=at, weight=weight)
    device.launch(
        "spline_values",
        b * shape[0],
        coefficient=coefficient,
        height=h,
        width=w,
        scale=scale,
        out_height=shape[0],
        out_width=shape[1],
        at=at,
        weight=weight,
        value=value,
    )
    return value


def low_resolution_maxima(
    values: torch.Tensor,
    mask: torch.Tensor,
    components: Components,
    scale: float,
    offsets: torch.Tensor,
    device: Device,
    *,
    single: bool = False,
) -> torch.Tensor:
    """Where the maxima of the shrunk values lie at full size: uint8 [B, H, W], still as blobs.

    Parameters
    ----------
    values : float64 [B, H, W]
    mask : uint8 [B, H, W]
    scale : below 1; 10 pixels over the smallest diameter
    offsets : int32 [K, 2], dy and dx at low resolution within which a maximum must be the greatest of its component
    single : the shrunk values are rounded to float32
    """
    b, h, w = mask.shape
    low = math.ceil(h * scale), math.ceil(w * scale)
    size = {"out_height": low[0], "out_width": low[1]}
    shrunk = resample(values, scale, low, device)
    if single:
        shrunk = shrunk.float().double()
    near_root, near_mask = device.empty(b, *low, dtype=torch.int32), device.empty(b, *low, dtype=torch.uint8)
    device.launch(
        "nearest_labels",
        b * low[0],
        mask=mask,
        root=components.root,
        height=h,
        width=w,
        scale=scale,
        near_root=near_root,
        near_mask=near_mask,
        **size,
    )
    maxima = device.empty(b, *low, dtype=torch.uint8)
    device.launch(
        "value_maxima",
        b * low[0],
        mask=near_mask,
        root=near_root,
        value=shrunk,
        offset=offsets,
        n_offsets=len(offsets),
        height=low[0],
        width=low[1],
        maxima=maxima,
    )
    # CellProfiler takes the ratio of heights for both axes.
    return (resample(maxima.double(), h / low[0], (h, w), device) > 0.5).to(torch.uint8)
