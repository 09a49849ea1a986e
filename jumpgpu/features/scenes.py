"""A batch of corrected fields to its scene: segmented, its objects listed, the device waited for once."""

from collections.abc import Sequence

import torch

from ..gpu.device import Device
from ..gpu.list_capacity import NoRoom
from ..segmentation.pipeline import segment
from ..settings.config import SegmentationSettings
from .objects import Scene, make_scene


def segment_scene(pixels: torch.Tensor, channels: Sequence[str], settings: SegmentationSettings, device: Device) -> Scene:
    """The scene of a batch that nobody has segmented.

    On CUDA nothing is asked of the device before its objects are counted. Lists whose length only it knows get the room that
    `device.room` has learnt; a batch for which that was not enough is done again, which the count shows.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
        Corrected intensity, 0..1.
    channels : names along the C axis

    Raises ValueError as `segment`.
    """
    room = device.room
    while True:
        if room:
            room.begin()
        found = segment(pixels, tuple(channels), settings, device, room)
        try:
            return make_scene(channels, pixels, found.labels, found.unfiltered, device, room)
        except NoRoom:
            continue
