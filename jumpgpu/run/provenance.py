"""What a run's numbers depend on: its settings of record, and the files each site was made from."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..cli.options import Options
from ..gpu.device import Device
from ..gpu.kernel_source import kernel_digest
from ..images.masks import mask_files
from ..images.plate import Plate, Site
from ..networks.models import identity
from ..settings.numbers import changed_settings, versions_of
from ..storage.local import Local, Status
from ..store.layout import Input
from ..store.writer import PlateWriter

LIBRARIES = ("imagecodecs", "numpy", "scikit-image", "scipy", "tifffile", "torch")  # that have a part in the numbers


def settings_of(plate: Plate, device: Device, illumination: Sequence[torch.Tensor], options: Options) -> dict[str, Any]:
    """What two runs must agree in to share a plate, as JSON values: numbers versions, and settings not at their default.

    Not among them: what cannot move a number (batch size, thread counts, where the images lie), and the images
    themselves, which each well's record lists.
    """
    saved = {"labels": options.save_labels, "overview": options.save_overview or options.save_labels}
    networks = identity(options.config.features.embedding)
    return {
        "numbers": versions_of(options.config, options.masks is None),
        "config": changed_settings(options.config),
        "device": device.name,
        "channels": list(plate.channels),
        "illumination": hashlib.sha256(b"".join(f.cpu().contiguous().numpy().tobytes() for f in illumination)).hexdigest(),
        "labels": "given" if options.masks else "segmented",
        "sites": "all" if options.sites is None else sorted(options.sites),
        "saved": [name for name, asked in saved.items() if asked],
        **({"networks": networks} if networks else {}),
    }


def made_with() -> dict[str, Any]:
    """The program that makes a well, for its record: versions of jumpgpu and of libraries, and the kernels' digest.

    A run may go on with another; that it gives the same numbers is what numbers versions say.
    """
    libraries = {name: version(name) for name in LIBRARIES}
    return {"jumpgpu": __version__, "libraries": libraries, "kernels": kernel_digest()}


def inputs_of(plate: Plate, site: Site, options: Options) -> tuple[Input, ...]:
    """A site's files as they are now, relative to the plate's folder or the masks'; absent ones have -1 bytes."""
    files = [
        Input(plate.input_name(c, k), plate.images.relative(file), *plate.images.status(file))
        for c in range(len(plate.channels))
        for k, file in enumerate(site.images_of(c))
        if file
    ]
    if options.masks:
        for compartment, path in mask_files(
            options.masks, plate.barcode, site.well, site.site, options.mask_pattern
        ).items():
            files.append(Input(f"{compartment} labels", os.path.relpath(path, options.masks), *label_status(path)))
    return tuple(files)


def name_of(file: str, plate: Plate, options: Options) -> str:
    """A file's name from the masks' folder on, if it is in there, else from the plate's."""
    if options.masks and Path(file).is_relative_to(options.masks):
        return os.path.relpath(file, options.masks)
    return plate.images.relative(file)


def label_status(file: Path) -> Status:
    """Of a label image; a folder of chunks has no size that would mean anything."""
    status = Local(file.parent, ()).status(str(file))
    return (status[0], "") if file.is_dir() else status


def as_opened(inputs: Sequence[Input], files: Mapping[str, Status | None]) -> tuple[Input, ...]:
    """A site's inputs with size and time of change of the very files that were read, whatever has their names by now."""
    known = {channel: status for channel, status in files.items() if status is not None}
    return tuple(
        replace(i, bytes=known[i.channel][0], mark=known[i.channel][1]) if i.channel in known else i for i in inputs
    )


def check_inputs(store: PlateWriter, inputs: Mapping[str, Mapping[int, tuple[Input, ...]]]) -> int:
    """ValueError where a finished well was made from other files than well -> site -> files says it would be now.

    What is returned is the number of files that have the size they had, and were changed since.
    """
    done = set(inputs) - set(store.missing_wells())
    changed = [line for well in sorted(done) for line in store.changed_inputs(well, inputs[well])]
    if changed:
        listed = "\n  ".join(changed[:20] + ([f"... and {len(changed) - 20} more"] if len(changed) > 20 else []))
        raise ValueError(
            f"{store.path} holds wells that were made from other files:\n  {listed}\nmake them again with --overwrite, or "
            "give another --output"
        )
    return sum(store.touched_inputs(well, inputs[well]) for well in done)
