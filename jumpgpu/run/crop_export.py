"""Crops of a stored plate's cells, cut from its images again: a well at a time, going on where an export stopped."""

import contextlib
import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..features.embedding import Crops, check, resolved
from ..features.objects import ObjectBatch, make_batch
from ..features.outline import areas
from ..gpu.device import Device
from ..gpu.open import open_device
from ..images.illumination import correct
from ..images.locate import find_source
from ..images.plate import Plate
from ..images.reader import read_fields
from ..networks.crops import CropRule, cut
from ..outputs.crops import FORMATS, MASKS, CropPart, WellCrops, path_of, write_root, write_well
from ..settings.config import Config, build
from ..settings.names import counted
from ..settings.networks import EmbeddingSettings, ModelSettings
from ..storage.atomic import write_whole
from ..storage.staging import remove_folder
from ..store.reader import StoredPlate
from .functions import open_functions
from .networks import plate_statistics

PART = 64  # cells that are cut at a time


def export_crops(
    plate: StoredPlate,
    folder: Path,
    format: str,
    rule: ModelSettings,
    *,
    images: str | None = None,
    illumination: str = "auto",
    wells: Sequence[str] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    advance: Callable[[str, int], None] = lambda well, cells: None,
) -> int:
    """Write crops of every cell of a plate that has label images, a well at a time; the cells written now.

    Parameters
    ----------
    plate : StoredPlate
        Made with --save-labels.
    folder : Path
        Gets `<plate>_crops.zarr/<well>`, `<plate>_<well>.tar` or `<plate>_<well>.h5sc`, and `<plate>_crops.json`, what they
        were made with.
    format : {"crops-zarr", "webdataset", "h5sc"}
    rule : ModelSettings
        Of its fields those of crops count: channels, crop, unit, size, resize, center, mask, padding, normalize, mean, std,
        precision.
    images : where the plate's images are; the gallery where None
    illumination : as `extract`; the functions must be those that the plate was made with
    wells : all where None
    overwrite : write wells anew that are there
    advance : called after each well with its name and its cells

    Raises ValueError where the plate has no labels, other functions or images of another size; FileExistsError where the
    folder holds crops of another kind, or would hold crops of two kinds.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    chosen = list(plate.wells) if wells is None else list(wells)
    if unknown := [w for w in chosen if w not in plate.wells]:
        raise ValueError(f"{plate.barcode} has no well {unknown[0]}; it has {len(plate.wells)}")
    if "labels" not in plate.settings.get("saved", ()):
        raise ValueError(f"{plate.barcode} has no label images; extract it with --save-labels")
    stored = plate.settings.get("config", {}).get("plate", {})
    config = build(Config, {"plate": stored}, f"{plate.barcode}: stored settings")
    result = find_source(plate.barcode, images, config.plate)
    opened = open_device(device)
    functions = functions_of(plate, result, config, illumination, opened)
    check(EmbeddingSettings((rule,)), result.channels, result.pixel_um)
    statistics = {}
    if rule.normalize == "plate":
        statistics = plate_statistics(result, sorted(rule.channels), EmbeddingSettings().plate_fields, functions, opened)
    (rule,) = resolved(EmbeddingSettings((rule,)), result.pixel_um, statistics).models
    said = said_of(rule) | {"format": format, "plate_settings": plate.fingerprint}
    record = folder / f"{plate.barcode}_crops.json"
    if record.is_file() and json.loads(record.read_text()) != said:
        if not overwrite:
            raise FileExistsError(errno.EEXIST, "holds crops of another kind; --overwrite or another --output", str(record))
        clear(folder, plate, format, chosen)
    write_whole(record, json.dumps(said, indent=1) + "\n")
    if format == "crops-zarr":
        write_root(folder, plate.barcode)
    total = 0
    for well in chosen:
        path = path_of(folder, plate.barcode, well, format)
        n = 0
        if overwrite or not path.exists():
            n = write_well(well_crops(plate, result, well, rule, functions, opened), path, format)
        total += n
        advance(well, n)
    return total


def clear(folder: Path, plate: StoredPlate, format: str, wells: Sequence[str]) -> None:
    """Remove wells' crops of another kind, so that none is taken for one of the new kind, whenever this run ends.

    FileExistsError where wells that are not to be written have such crops too.
    """
    there = {well: path for well in plate.wells if (path := path_of(folder, plate.barcode, well, format)).exists()}
    if others := [well for well in there if well not in wells]:
        what = f"{counted(len(others), 'well')} beside those asked for, first {others[0]}, hold crops of another kind"
        raise FileExistsError(errno.EEXIST, f"{what}; overwrite all wells, or give another --output", str(folder))
    for path in there.values():
        if not path.is_dir():
            path.unlink()
            continue
        remove_folder(path)
        if path.exists():
            raise FileExistsError(errno.EEXIST, "holds crops of another kind and cannot be removed", str(path))


def said_of(rule: ModelSettings) -> dict[str, Any]:
    """What a crop is, for its files."""
    names = ("channels", "crop", "size", "resize", "center", "mask", "padding", "normalize", "mean", "std", "precision")
    result: dict[str, Any] = json.loads(json.dumps({name: getattr(rule, name) for name in names}))
    return result


def functions_of(plate: StoredPlate, result: Plate, config: Config, source: str, device: Device) -> torch.Tensor:
    """The illumination functions, checked against those that the plate was made with."""
    kept = plate.beside / "illum" / plate.barcode
    output = open_functions(result, config, source, device=device, folder=kept, batch=4, workers=None)
    digest = hashlib.sha256(output.functions.cpu().contiguous().numpy().tobytes()).hexdigest()
    if digest != plate.settings.get("illumination"):
        raise ValueError(
            f"{plate.barcode}: --illumination {source} gives other functions ({output.source}) than the plate was "
            "made with; give what extract was given"
        )
    return device.tensor(output.functions)


def well_crops(
    plate: StoredPlate, result: Plate, well: str, rule: ModelSettings, functions: torch.Tensor, device: Device
) -> WellCrops:
    cells = {int(site["site"]): int(site["cells"]) for site in plate.record(well)["sites"]}
    pixel_um = result.pixel_um and result.pixel_um * rule.crop / (rule.size or rule.crop)
    parts = parts_of(plate, result, well, sorted(cells), rule, functions, device)
    said = said_of(rule)
    n, size, half = sum(cells.values()), int(rule.size or rule.crop), rule.precision == "float16"
    return WellCrops(plate.barcode, well, rule.channels, n, size, half, pixel_um, said, parts)


def parts_of(
    plate: StoredPlate,
    result: Plate,
    well: str,
    sites: Sequence[int],
    rule: ModelSettings,
    functions: torch.Tensor,
    device: Device,
) -> Iterator[CropPart]:
    """A well's cells, site by site in order of number, `PART` at a time."""
    size = (functions.shape[1], functions.shape[2])
    for site in sites:
        images = plate.labels(well, site)
        fields = read_fields(result, wells=[well], sites=[site], batch=1, workers=0, size=size, device=device)
        with contextlib.closing(fields):
            for batch in fields:
                if not len(batch.pixels):
                    reason = next(iter(batch.quarantined), "cannot be read")
                    raise ValueError(f"{result.barcode} {well} site {site}: {reason}")
                pixels = correct(batch.pixels, functions, device=device, scales=batch.scales)
                given = {name: device.tensor(image[None].astype(np.int32)) for name, image in images.items()}
                yield from parts_of_field(site, make_batch(result.channels, pixels, given, {}, device), rule, device)


def parts_of_field(site: int, batch: ObjectBatch, rule: ModelSettings, device: Device) -> Iterator[CropPart]:
    crops = Crops(batch, rule, device)
    objects, names = batch.objects, batch.objects.compartments
    of = areas(batch, device).reshape(len(names), objects.n, 3)[names.index(rule.center)]
    centers = torch.stack([of[:, 2] / of[:, 0], of[:, 1] / of[:, 0]], 1).cpu().numpy()
    mask_rule = CropRule(rule.crop, crops.rule.size, "area", masked=True)
    ones = torch.ones(1, 1, *batch.pixels.shape[2:], device=device.torch)
    first = device.zeros(1, dtype=torch.int32)
    for start in range(0, objects.n, PART):
        stop = min(start + PART, objects.n)
        masks = []
        for compartment in MASKS:
            labels = batch.labels[compartment].contiguous()
            own = dataclasses.replace(crops.all, pixels=ones, labels=labels).part(start, stop)
            unit = torch.ones(stop - start, 1, device=device.torch)
            masks.append(cut(own, first, torch.zeros_like(unit), unit, mask_rule, device)[:, 0])
        there = crops.there[start:stop, None, None, None]
        output = torch.where(there, crops.part(start, stop), torch.nan)
        yield CropPart(
            np.full(stop - start, site),
            objects.number[start:stop].cpu().numpy(),
            centers[start:stop],
            output.cpu().numpy(),
            torch.stack(masks, 1).cpu().numpy(),
        )
