"""Gaussian smoothing of whole fields, corrected for the border (centrosome smooth_with_function_and_mask)."""

from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device

PIECE = 512  # pixels of a row that a block smooths
ROWS = 32  # rows of a block of smooth_threshold
RADIUS = 256  # widest half filter
LINE = 1024  # pixels of a row that a block of filter_rows does (filter_axes.cu: PIECE)
WIDEST = 1024  # widest half filter there (filter_axes.cu: RADIUS)
EPSILON = float(np.finfo(np.float64).eps)


@lru_cache(maxsize=256)
def gaussian_taps(
    sigma: float, radius: int | None = None, *, normalised: bool = True, widest: int = RADIUS
) -> tuple[float, ...]:
    """A Gaussian's centre and one side, cut at `radius` (4 sigma, as SciPy's) and summing to 1 when `normalised`.

    The exponentials are correctly rounded, so the weights are the same on every machine.
    """
    if radius is None:
        radius = int(4.0 * sigma + 0.5)
    if radius > widest:
        raise ValueError(f"a Gaussian of sigma {sigma:g} pixels is too wide; its half width may be {widest} pixels at most")
    if sigma * sigma == 0:
        side = [1.0] + [0.0] * radius
    else:
        side = [float(Decimal(-0.5 / (sigma * sigma) * (k * k)).exp()) for k in range(radius + 1)]
    if normalised:
        total = side[0] + 2 * sum(side[1:])
        return tuple(v / total for v in side)
    return tuple(v / (float(Decimal(2.0 * float(np.pi)).sqrt()) * sigma) for v in side)


@lru_cache(maxsize=64)
def edge_weights(taps: tuple[float, ...], n: int) -> np.ndarray:
    """What the filter makes of n ones with zeros beyond: float64 [n]."""
    ones = np.pad(np.ones(n), len(taps) - 1)
    middle = ones[len(taps) - 1 : len(taps) - 1 + n]
    out = middle * taps[0]
    for k in range(len(taps) - 1, 0, -1):
        start = len(taps) - 1
        out = out + (ones[start - k : start - k + n] + ones[start + k : start + k + n]) * taps[k]
    return out


def _weights(taps: tuple[float, ...], h: int, w: int, device: Device) -> dict[str, Any]:
    return {
        "tap": device.constant(taps, torch.float64),
        "edge_y": device.constant(edge_weights(taps, h)),
        "edge_x": device.constant(edge_weights(taps, w)),
        "height": h,
        "width": w,
        "radius": len(taps) - 1,
    }


def smooth_above(
    images: torch.Tensor, threshold: torch.Tensor, taps: tuple[float, ...], device: Device, *, single: bool = False
) -> torch.Tensor:
    """Whether the smoothed float64 [B, H, W] images reach their field's threshold float64 [B]: uint8 [B, H, W].

    `single`: the images are float32 values, and what each axis gives is rounded to float32, as SciPy rounds it.
    """
    b, h, w = images.shape
    above = device.empty(b, h, w, dtype=torch.uint8)
    device.launch(
        "smooth_threshold",
        b * -(-h // ROWS) * -(-w // PIECE),
        image=images,
        threshold=threshold,
        single=int(single),
        epsilon=EPSILON,
        above=above,
        **_weights(taps, h, w, device),
    )
    return above


def smooth(
    images: torch.Tensor, taps: tuple[float, ...], device: Device, *, single: bool = False, epsilon: float = 0.0
) -> torch.Tensor:
    """Smoothed float64 [B, H, W] images, divided by the weight that lies within the image.

    `single`: the images are float32 values, and each step is rounded to float32, as SciPy rounds it.
    """
    b, h, w = images.shape
    smoothed = torch.empty_like(images)
    device.launch(
        "smooth",
        b * h * -(-w // PIECE),
        image=images,
        epsilon=epsilon,
        single=int(single),
        smoothed=smoothed,
        **_weights(taps, h, w, device),
    )
    return smoothed


def smooth_valid(images: torch.Tensor, valid: torch.Tensor, taps: tuple[float, ...], device: Device) -> torch.Tensor:
    """Smoothed float64 [B, H, W] images of which only the bool [B, H, W] `valid` pixels count, over the weight of those."""
    weighed = smooth(torch.where(valid, images, 0.0), taps, device)
    return weighed / (smooth(valid.double(), taps, device) + EPSILON)


def gaussian_singles(images: torch.Tensor, sigma: float, device: Device, *, mirrored: bool = False) -> torch.Tensor:
    """SciPy's gaussian_filter of float32 [B, H, W] images, each axis rounded to float32, mirrored at the border; or else
    divided by the weight that lies within the image."""
    taps = gaussian_taps(sigma, widest=WIDEST)
    b, h, w = images.shape
    half, result = torch.empty_like(images), torch.empty_like(images)
    common: dict[str, Any] = {
        "tap": device.tensor(np.array(taps)),
        "height": h,
        "width": w,
        "radius": len(taps) - 1,
        "mirrored": int(mirrored),
    }
    device.launch("filter_columns", b * h, image=images.contiguous(), filtered=half, **common)
    device.launch(
        "filter_rows",
        b * h * -(-w // LINE),
        image=half,
        edge_y=device.tensor(edge_weights(taps, h)),
        edge_x=device.tensor(edge_weights(taps, w)),
        weighed=int(not mirrored),
        epsilon=EPSILON,
        filtered=result,
        **common,
    )
    return result


def fits(sigma: float) -> bool:
    """Whether `gaussian_singles` can be so wide."""
    return int(4.0 * sigma + 0.5) <= WIDEST
