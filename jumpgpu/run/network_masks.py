"""Masks by networks in a run: their nuclei and cells paired under common numbers, or cells grown from their nuclei."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..gpu.device import Device
from ..images.masks import binary, compact, pair
from ..networks.masks import find_labels
from ..segmentation.pipeline import Segmentation, primary_of, segment_from
from ..settings.config import PrimarySettings, SegmentationSettings
from ..settings.names import COMPARTMENTS

OURS = "cellprofiler"


def check_network_masks(settings: SegmentationSettings) -> None:
    """ValueError for a setting that masks of networks leave no room for."""
    if settings.method == OURS:
        return
    plain = PrimarySettings(channel=settings.nuclei.channel)
    for name in vars(plain):
        if getattr(settings.nuclei, name) != getattr(plain, name):
            raise ValueError(
                f"segmentation.nuclei.{name}: segmentation.method = {settings.method} finds the nuclei, and takes only the "
                "channel; leave it out"
            )
    if settings.network.cells is not None and (settings.filter_border_nuclei or settings.cells.discard_border):
        raise ValueError(
            "segmentation: filter_border_nuclei and cells.discard_border are of cells grown from nuclei; "
            "segmentation.network.cells finds them: leave one out"
        )


def segment_by_networks(
    pixels: torch.Tensor,
    channels: Sequence[str],
    settings: SegmentationSettings,
    device: Device,
    names: Sequence[str],
    say: Callable[..., None],
) -> Segmentation:
    """Label images of a batch, float32 [B, C, H, W]; `say` is told what is left out of a field, by the name that it has."""
    labels = find_labels(pixels, channels, settings, device)
    found = {name: image.cpu().numpy() for name, image in labels.items()}
    nuclei = found["Nuclei"]
    for compartment, planes in found.items():
        for name, image in zip(names, planes, strict=True):
            if remark := binary(image):
                say(f"{name}: {compartment}: {remark}", "warning")
    if "Cells" not in labels:
        numbered = np.stack([compact(np.concatenate([[0], image.ravel()]))[0][1:].reshape(image.shape) for image in nuclei])
        primary = primary_of(device.tensor(numbered.astype(np.int32)), device)
        return segment_from(primary, pixels, tuple(channels), settings, device, {})
    cells = found["Cells"]
    images: dict[str, list[np.ndarray]] = {c: [] for c in COMPARTMENTS}
    for b, name in enumerate(names):
        own, notes = pair(nuclei[b], cells[b])
        for note in notes:
            say(f"{name}: {note}")
        for compartment, image in own.items():
            images[compartment].append(image)
    paired = {c: device.tensor(np.stack(v)) for c, v in images.items()}
    counts = device.tensor([int(image.max(initial=0)) for image in images["Cells"]], torch.int32)
    return Segmentation(paired, dict(paired), counts, {})
