"""What a run's numbers depend on: its settings of record, and the files each site was made from."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .config import Config
from .device import Device, kernel_digest
from .layout import Input
from .plate import Plate, Site
from .store import PlateWriter

LIBRARIES = ("imagecodecs", "numpy", "scikit-image", "scipy", "tifffile", "torch")  # whose versions may move a number


def settings_of(
    plate: Plate,
    config: Config,
    device: Device,
    illumination: torch.Tensor | None,
    *,
    source: str,
    sites: Sequence[int] | None,
    masks: Path | None,
    saved: Sequence[str],
) -> dict[str, Any]:
    """Everything that a stored number depends on, as JSON values, for the store's fingerprint.

    Not among them: what cannot move a number (batch size, thread counts, where the images lie), and the images
    themselves, which each well's record lists.
    """
    settings = dataclasses.asdict(config)
    settings.pop("batch")
    settings["plate"].pop("images")
    return {
        "config": settings,
        "jumpgpu": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "kernels": kernel_digest(),
        "device": device.name,
        "channels": list(plate.channels),
        "illumination": {"source": source, "sha256": digest_of(illumination)},
        "masks": masks is not None,
        "sites": "all" if sites is None else sorted(sites),
        "saved": sorted(saved),
    }


def digest_of(illumination: torch.Tensor | None) -> str | None:
    """SHA-256 of illumination functions' values."""
    if illumination is None:
        return None
    return hashlib.sha256(illumination.cpu().contiguous().numpy().tobytes()).hexdigest()


def inputs_of(plate: Plate, site: Site, masks: Mapping[str, Path]) -> tuple[Input, ...]:
    """A site's files as they are now, relative to the plate's folder; absent ones have -1 bytes."""
    files = [(channel, file) for channel, file in zip(plate.channels, site.files, strict=True) if file]
    files += [(f"mask {compartment}", str(file)) for compartment, file in masks.items()]
    return tuple(Input(name, os.path.relpath(file, plate.folder), size_of(file)) for name, file in files)


def size_of(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def check_inputs(store: PlateWriter, inputs: Mapping[str, Mapping[int, tuple[Input, ...]]]) -> None:
    """ValueError where a finished well was made from other files than well -> site -> files says it would be now."""
    done = set(inputs) - set(store.missing_wells())
    changed = [line for well in sorted(done) for line in store.changed_inputs(well, inputs[well])]
    if changed:
        listed = "\n  ".join(changed[:20] + ([f"... and {len(changed) - 20} more"] if len(changed) > 20 else []))
        raise ValueError(
            f"{store.path} holds wells that were made from other files:\n  {listed}\nmake them again with --overwrite, or "
            "give another --output"
        )
