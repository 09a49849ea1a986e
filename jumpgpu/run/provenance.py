"""What a run's numbers depend on: its settings of record, and the files each site was made from."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..cli.options import Options
from ..gpu.device import Device
from ..gpu.kernel_source import kernel_digest
from ..images.masks import has_cells, mask_files
from ..images.plate import Plate, Site
from ..networks.masks import digests
from ..networks.models import identity
from ..settings.names import well_position
from ..settings.numbers import changed_settings as set_settings
from ..settings.numbers import versions_of
from ..storage.buckets import Place
from ..storage.local import Local, Status
from ..store.layout import Input, well_key
from ..store.records import read_attributes, stored_wells
from ..store.resume import PICTURES, changed_settings, refuse
from ..store.writer import PlateWriter, changed_inputs

NUCLEI, GROWN = "given nuclei", "cells grown from given nuclei"
LIBRARIES = ("imagecodecs", "numpy", "scikit-image", "scipy", "tifffile", "torch")  # that have a part in the numbers


def settings_of(plate: Plate, device: Device, illumination: Sequence[torch.Tensor], options: Options) -> dict[str, Any]:
    """What two runs must agree in to share a plate, as JSON values: numbers versions, and settings not at their default.

    Not among them: what cannot move a number (batch size, thread counts, where the images lie), and the images
    themselves, which each well's record lists.
    """
    saved = {"labels": options.save_labels, "overview": options.save_overview or options.save_labels}
    networks: dict[str, Any] = dict(identity(options.config.features.embedding))
    if not options.masks and (result := digests(options.config.segmentation)):
        networks["segmentation"] = result
    return {
        "numbers": versions_of(options.config, options.masks is None or options.grow_cells),
        "config": set_settings(options.config),
        "device": device.name,
        "channels": list(plate.channels),
        "illumination": hashlib.sha256(b"".join(f.cpu().contiguous().numpy().tobytes() for f in illumination)).hexdigest(),
        "labels": labels_of(plate, options),
        "sites": "all" if options.sites is None else sorted(options.sites),
        "saved": [name for name, asked in saved.items() if asked],
        **({"networks": networks} if networks else {}),
    }


def as_stored(plate: Plate, options: Options, wells: Collection[str]) -> tuple[Options, str]:
    """Options that save what the stored plate's wells have saved, whether it is asked for or not; and a line that says so.

    Not where all of the plate is measured again.
    """
    path = options.output / f"{plate.barcode}.zarr"
    if not path.exists() or (options.overwrite and set(stored_wells(path)) <= set(wells)):
        return options, ""
    saved = read_attributes(path)["settings"].get("saved", ())
    labels, overview = options.save_labels or "labels" in saved, options.save_overview or "overview" in saved
    result = replace(options, save_labels=labels, save_overview=overview)
    if result == options or (set(wells) <= set(stored_wells(path)) and not options.overwrite):
        return result, ""
    what = " and ".join(PICTURES[name] for name in saved)
    return result, f"{plate.barcode}: the plate was made with {what}, so the wells that are measured now get them too"


def labels_of(plate: Plate, options: Options) -> str:
    """Where label images come from: `segmented`, `given`, NUCLEI (given, by themselves) or GROWN (cells around those)."""
    if not options.masks:
        return "segmented"
    sites = [(site.well, site.site) for site in plate.select(options.wells, options.sites)]
    if not has_cells(options.masks, plate.barcode, sites, options.mask_pattern):
        return GROWN if options.grow_cells else NUCLEI
    if options.grow_cells:
        raise ValueError(
            f"{plate.barcode}: {options.masks} has label images of cells, which --grow-cells would not use; leave it out, "
            "or give a folder of nuclei alone"
        )
    return "given"


def judge(plate: Plate, device: Device, options: Options, wells: Mapping[str, Mapping[int, Site]]) -> None:
    """ValueError where this run would be refused: other settings or files than the plate there was made with.

    All is looked at but what takes a pass over the images: illumination functions, and statistics for networks.
    """
    path = options.output / f"{plate.barcode}.zarr"
    if not path.exists():
        return
    stored = read_attributes(path)["settings"]
    asked = json.loads(json.dumps(settings_of(plate, device, (), options)))
    asked["illumination"] = stored.get("illumination")
    if "plate_statistics" in stored:  # a pass over the images, too
        asked["plate_statistics"] = stored["plate_statistics"]
    refuse(path, changed_settings(stored, asked), options.overwrite, list(wells))
    if options.overwrite:
        return
    lines = []
    for well in sorted(set(stored_wells(path)) & set(wells), key=well_position):
        record = read_attributes(path / well_key(well))
        if options.retry_quarantined and any(not q["used"] for q in record["quarantine"]):
            continue  # it is made anew
        lines += changed_inputs(record, {n: inputs_of(plate, site, options) for n, site in wells[well].items()})
    refuse_inputs(path, lines)


def illumination_kind(options: Options) -> str:
    """What `--illumination` asks for, a folder as `folder`."""
    known = ("auto", "estimate", "flatfield", "none")
    return options.illumination if options.illumination in known else "folder"


def made_with(options: Options) -> dict[str, Any]:
    """What makes a well, for its record: versions of jumpgpu and of libraries, the kernels' digest, the illumination's kind.

    A run may go on with another; that it gives the same numbers is what numbers versions say.
    """
    libraries = {name: version(name) for name in LIBRARIES}
    program = {"jumpgpu": __version__, "libraries": libraries, "kernels": kernel_digest()}
    return {**program, "illumination": illumination_kind(options)}


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
            if compartment == "Nuclei" or path.exists():  # the others may be made here
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
    refuse_inputs(store.path, changed)
    return sum(store.touched_inputs(well, inputs[well]) for well in done)


def refuse_inputs(path: Place, changed: Sequence[str]) -> None:
    """ValueError where finished wells were made from other files."""
    if changed:
        listed = "\n  ".join(list(changed[:20]) + ([f"... and {len(changed) - 20} more"] if len(changed) > 20 else []))
        raise ValueError(
            f"{path} holds wells that were measured from other files:\n  {listed}\nmake them again with --overwrite, or "
            "give another --output"
        )
