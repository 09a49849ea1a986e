"""Exact squared Euclidean distance inside labelled regions."""

import torch

from ..gpu.device import Device

STRIP = 256  # columns of a block of column_distance
WIDEST = 5120  # widest row that row_distance holds in shared memory
TALLEST = 32766  # rows whose column distances still fit
FAR = 32767 * 32767  # squared distance where there is no other label at all


def squared_distance(labels: torch.Tensor, device: Device, *, outside: bool = True) -> torch.Tensor:
    """Squared distance from each labelled pixel to the nearest pixel of another label.

    Parameters
    ----------
    labels : int32 [B, H, W]
        0 is background and counts as another label; its own pixels get 0. H at most 32766, W at most 5120 pixels.
    outside : bool
        Whether what lies beyond the image's border counts as another label. SciPy's transform takes it not to.

    Returns
    -------
    int32 [B, H, W]
        Exact, in pixels squared; `FAR` where nothing else exists.
    """
    b, h, w = labels.shape
    if h > TALLEST or w > WIDEST:
        raise ValueError(f"distances need fields of at most {TALLEST} x {WIDEST} pixels, not {h} x {w}: tile the fields")
    gap = device.empty(b, h, w, dtype=torch.uint16)
    squared = device.empty(b, h, w, dtype=torch.int32)
    if labels.numel():
        strips = b * -(-w // STRIP)
        device.launch(
            "column_distance", strips, block=STRIP, labels=labels, height=h, width=w, outside=int(outside), gap=gap
        )
        device.launch("row_distance", b * h, labels=labels, gap=gap, width=w, outside=int(outside), squared=squared)
    return squared
