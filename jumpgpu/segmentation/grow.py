"""Cells grown from nuclei that somebody gives (CellProfiler IdentifySecondaryObjects and IdentifyTertiaryObjects)."""

import dataclasses
from collections.abc import Sequence

import torch

from ..gpu.device import Device
from ..settings.config import SegmentationSettings
from .label import label_extents
from .pipeline import Primary, Segmentation, drop_border, find_cells


def grow_cells(
    pixels: torch.Tensor, channels: Sequence[str], nuclei: torch.Tensor, settings: SegmentationSettings, device: Device
) -> Segmentation:
    """Cells and cytoplasm of given nuclei, by the settings of `segmentation.cells`.

    Every nucleus is a seed and keeps its number. Only `cells.discard_border` drops any, as IdentifySecondaryObjects would;
    `filter_border_nuclei` is a later step of pipelines that find their nuclei themselves, and is not done.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    channels : names along the C axis
    nuclei : int32 [B, H, W]
        Numbered 1..n in every field.
    """
    b, h, w = nuclei.shape
    nuclei = nuclei.contiguous()
    counts = nuclei.flatten(1).amax(1).to(torch.int32)
    capacity = 1 + int(counts.max())
    labels = torch.arange(capacity, dtype=torch.int32, device=nuclei.device)
    number = torch.where(labels[None] <= counts[:, None], labels[None], 0).contiguous()
    _, border = label_extents(nuclei, capacity, device)
    above = (nuclei > 0).to(torch.uint8)
    primary = Primary(nuclei, nuclei, nuclei, border, number, counts, counts.to(torch.int64), above)
    thresholds: dict[str, torch.Tensor] = {}
    channel = list(channels).index(settings.cells.channel)
    cells, every_cell = find_cells(pixels, channel, primary, settings.cells, device, thresholds)
    unfiltered = nuclei
    if settings.cells.discard_border:
        own = dataclasses.replace(settings, filter_border_nuclei=False)
        nuclei, cells, unfiltered, every_cell, counts = drop_border(primary, cells, every_cell, own, device)
    cytoplasm = device.empty(b, h, w, dtype=torch.int32)
    device.launch(
        "cytoplasm_of",
        b * h,
        nuclei=nuclei,
        cells=cells,
        height=h,
        width=w,
        outline=int(settings.shrink_nucleus),
        cytoplasm=cytoplasm,
    )
    return Segmentation(
        {"Nuclei": nuclei, "Cells": cells, "Cytoplasm": cytoplasm},
        {"Nuclei": unfiltered, "Cells": every_cell, "Cytoplasm": cytoplasm},
        counts,
        thresholds,
    )
