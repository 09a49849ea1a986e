"""Label images by networks: Cellpose, StarDist, or a function of the user's, which gets the fields where they are.

A function is called as `function(fields, channels)`: fields a float32 tensor [B, C, H, W] of corrected intensity on the
device, which libraries take without a copy by DLPack. It gives whole numbers [B, H, W] as a tensor, an array or anything
with DLPack, or {"Nuclei": ..., "Cells": ...}. Cellpose and StarDist take NumPy images, a field at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device
from ..settings.config import SegmentationSettings
from .models import code_of, file_digest, function_of, library, once

Labels = dict[str, torch.Tensor]  # Nuclei, and Cells where a network finds them
Finder = Callable[[torch.Tensor, Sequence[str]], Any]


def find_labels(pixels: torch.Tensor, channels: Sequence[str], settings: SegmentationSettings, device: Device) -> Labels:
    """Nuclei, and cells where there is a network for them: int32 [B, H, W] on the device, any numbers, 0 the background.

    Parameters
    ----------
    pixels : float32 [B, C, H, W]
    channels : names along the C axis

    Raises FileNotFoundError and ValueError: what a network gives is no label image of the fields, or a library is absent.
    """
    network = settings.network
    result: Labels = {}
    for compartment, place in (("Nuclei", network.nuclei), ("Cells", network.cells)):
        if place is None:
            continue
        key = (settings.method, place, compartment, network, str(device.torch), *stamp(place))
        find = once(key, lambda c=compartment: finder(settings, c, channels, device))  # type: ignore[misc]
        own = settings.method == "module"  # it gets the fields themselves, which are measured afterwards
        before = bits(pixels) if own else 0
        with code_of(f"segmentation.network.{compartment.lower()} ({place}) fails"), torch.no_grad():
            output = find(pixels, channels)
        if own and bits(pixels) != before:
            raise ValueError(
                f"segmentation.network.{compartment.lower()} ({place}) changes the fields it is given, which are measured "
                "afterwards: work on a copy (fields.clone())"
            )
        given = output if isinstance(output, Mapping) else {compartment: output}
        if unknown := [name for name in given if name not in ("Nuclei", "Cells")]:
            raise ValueError(f"segmentation.network: {place} gives {unknown[0]!r}; expected Nuclei or Cells")
        if compartment not in given:
            raise ValueError(f"segmentation.network.{compartment.lower()}: {place} gives no {compartment}")
        result |= {name: as_labels(v, pixels, f"{place} ({name})", device) for name, v in given.items()}
    return result


def bits(pixels: torch.Tensor) -> int:
    """A sum over the fields' bits: another one where they were changed."""
    return int(pixels.contiguous().view(torch.int32).sum(dtype=torch.int64))


def as_labels(values: Any, pixels: torch.Tensor, where: str, device: Device) -> torch.Tensor:
    """int32 [B, H, W] on the device of what a network gives; ValueError for anything that is no label image."""
    if not isinstance(values, torch.Tensor):
        if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack__"):
            values = np.asarray(values)
            if values.dtype.kind not in "ui":
                raise ValueError(
                    f"segmentation.network: {where} gives {values.dtype}; expected whole numbers, a label per object"
                )
            values = torch.from_numpy(values.astype(np.int64))
        else:
            values = torch.utils.dlpack.from_dlpack(values)
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
        raise ValueError(f"segmentation.network: {where} gives {values.dtype}; expected whole numbers, a label per object")
    shape = (pixels.shape[0], *pixels.shape[2:])
    if tuple(values.shape) != shape:
        raise ValueError(f"segmentation.network: {where} gives {list(values.shape)}; expected [B, H, W] = {list(shape)}")
    values = values.to(device.torch, torch.int64)
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= 2**31):
        raise ValueError(
            f"segmentation.network: {where} gives labels {int(values.min())} to {int(values.max())}; expected 0 to 2^31 - 1"
        )
    return values.to(torch.int32).contiguous()


def stamp(place: str) -> tuple[Any, ...]:
    """What says that a file is still the one that was loaded."""
    path = Path(place.rpartition(":")[0] if ".py:" in place else place)
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else ()


def digests(settings: SegmentationSettings) -> dict[str, str]:
    """SHA-256 of the networks' files, by name; a folder's files by their names in it. Names that are no file have none."""
    result: dict[str, str] = {}
    for place in settings.network.files:
        path = Path(place)
        if path.is_dir():
            result |= {
                f"{path.name}/{p.relative_to(path)}": file_digest(str(p)) for p in sorted(path.rglob("*")) if p.is_file()
            }
        elif path.is_file() or place.endswith(".py"):
            result[path.name] = file_digest(place)
    return result


def finder(settings: SegmentationSettings, compartment: str, channels: Sequence[str], device: Device) -> Finder:
    """The call that finds a compartment's labels."""
    network = settings.network
    place = network.nuclei if compartment == "Nuclei" else network.cells
    assert place is not None
    if settings.method == "module":
        return function_of(place, f"segmentation.network.{compartment.lower()}")
    if settings.method == "cellpose":
        return cellpose(settings, compartment, place, device)
    return stardist(settings, compartment, place)


def planes_of(fields: torch.Tensor, channels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """float32 [B, K, H, W] on the host."""
    return fields[:, [list(channels).index(n) for n in names]].cpu().numpy()


def cellpose(settings: SegmentationSettings, compartment: str, place: str, device: Device) -> Finder:
    models = library("cellpose.models", "segmentation.method = cellpose", "cellpose")
    network, nuclei = settings.network, compartment == "Nuclei"
    names = [settings.nuclei.channel] if nuclei else [settings.cells.channel, settings.nuclei.channel]
    model = models.CellposeModel(gpu=device.massively_parallel, pretrained_model=place, device=device.torch)
    given = {"diameter": network.diameter if nuclei else network.cell_diameter, "cellprob_threshold": network.probability}
    options = {k: v for k, v in given.items() if v is not None}

    def find(fields: torch.Tensor, channels: Sequence[str]) -> np.ndarray:
        labels = []
        for image in planes_of(fields, channels, names):
            stack = image[0] if nuclei else np.stack([*image, np.zeros_like(image[0])], -1)
            labels.append(model.eval(stack, channels=[0, 0] if nuclei else [1, 2], **options)[0])
        return np.stack(labels).astype(np.int64)

    return find


def stardist(settings: SegmentationSettings, compartment: str, place: str) -> Finder:
    models = library("stardist.models", "segmentation.method = stardist", "stardist")
    folder = Path(place)
    if folder.is_dir():
        model = models.StarDist2D(None, name=folder.name, basedir=str(folder.parent))
    else:
        model = models.StarDist2D.from_pretrained(place)
        if model is None:
            raise ValueError(f"segmentation.network: {place!r} is neither a folder nor a model that StarDist knows")
    name = settings.nuclei.channel if compartment == "Nuclei" else settings.cells.channel
    probability = settings.network.probability
    options = {} if probability is None else {"prob_thresh": probability}

    def find(fields: torch.Tensor, channels: Sequence[str]) -> np.ndarray:
        labels = []
        for (image,) in planes_of(fields, channels, [name]):
            low, high = np.percentile(image, [1, 99.8])  # StarDist's own normalisation
            labels.append(model.predict_instances((image - low) / (high - low + 1e-20), **options)[0])
        return np.stack(labels).astype(np.int64)

    return find
