"""Objects grown from seeds in an image of their own (CellProfiler IdentifySecondaryObjects), whatever found the seeds."""

import torch

from ..gpu.device import Device
from ..settings.config import SecondarySettings
from .expand import grow_by_distance, propagate_distances
from .label import apply_table, fill_holes, label_extents, label_maximum
from .planes import whole_planes
from .queue import flood_in_queue
from .threshold import above_threshold, find_threshold


def identify_secondary(
    images: torch.Tensor,
    unedited: torch.Tensor,
    seeds: torch.Tensor,
    settings: SecondarySettings,
    device: Device,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The objects of seeds, and those of every seed.

    Parameters
    ----------
    images : float32 or float64 [B, H, W]
        Differences that lengthen ways (propagation, distance_b) are of its values in float32.
    unedited, seeds : int32 [B, H, W]
        Every object that was found, and those kept; ones that were not kept grow too if they touch the image's border.
    valid : bool [B, H, W]
        Where the image counts; None: everywhere.

    Returns
    -------
    objects : int32 [B, H, W], with the seeds' numbers
    every : int32 [B, H, W], with the unedited numbers
    original, final : float64 [B] or [B, H, W], the thresholds; zeros for method 'distance', which has none
    above : uint8 [B, H, W], pixels above the threshold, or None
    """
    planes, single = whole_planes(images.contiguous()), whole_planes(images.float().contiguous())
    capacity = 1 + max(int(unedited.max()), 1)
    touches = label_extents(unedited, capacity, device)[1].clone()
    touches[:, 0] = 0
    at_border = (touches > 0).gather(1, unedited.flatten(1).long()).view(unedited.shape)
    grown = torch.where(at_border | (seeds != 0), unedited, 0)
    if settings.method == "distance":
        original = final = torch.zeros(len(images), dtype=torch.float64, device=device.torch)
        above = None
        every = grow_by_distance(grown, settings.distance, device)
    else:
        original, final = find_threshold(planes, settings.threshold, device, valid)
        above = above_threshold(planes, final, settings.threshold.smoothing, device, valid)
        if settings.method == "propagation":
            every, _ = propagate_distances(single, above, grown, settings.regularization, device, queued=True)
        elif settings.method == "distance_b":
            every, distance = propagate_distances(single, above, grown, 1.0, device, queued=True)
            every = torch.where(grown > 0, grown, torch.where(distance > settings.distance, 0, every))
        else:
            inside = (above > 0) | (grown > 0)
            inside = inside if valid is None else inside & valid
            heights = 1.0 - images if settings.method == "watershed" else sobel(images).abs()
            every = flood_in_queue(heights, inside, grown, device)
    if settings.fill_holes:
        every = fill_holes(every, capacity, device, objects=False)
    return apply_table(every, label_maximum(every, seeds, capacity, device), device), every, original, final, above


def sobel(images: torch.Tensor) -> torch.Tensor:
    """The derivative along rows of float32 [B, H, W] images, smoothed along columns; edges are mirrored (SciPy's sobel)."""
    across = torch.cat([images[..., :1], images, images[..., -1:]], -1).double()
    slope = (across[..., 2:] - across[..., :-2]).to(images.dtype)
    down = torch.cat([slope[:, :1], slope, slope[:, -1:]], 1).double()
    return (down[:, 1:-1] * 2.0 + (down[:, 2:] + down[:, :-2])).to(images.dtype)
