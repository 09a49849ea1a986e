"""Where a plate's images are: a folder here, a bucket, an OME-Zarr plate, or, if nobody says, the Cell Painting Gallery.

Where files and channels come from, in this order: an index beside the images, a table, the files' names; a `Plate` says in
`channel_source` which it was. Nothing here opens an image; every path is kept inside the roots, lexically here and with
symlinks followed when `local.py` opens it.
"""

import dataclasses
import os
from pathlib import Path

from ..settings.config import PlateSettings
from ..settings.names import check_barcode
from ..storage.buckets import Place, RemotePath, is_url, place_of
from .channels import check_channels
from .folders import find_folder, read_folder
from .gallery import find_in_bucket
from .indexes.from_table import from_load_data
from .indexes.listing import LocalFolder, check_inside
from .indexes.load_data import SUFFIXES, TABLES
from .ome_zarr.planes import open_planes
from .plate import Plate


def find_source(barcode: str, images: str | Place | None, settings: PlateSettings, cache: Path | None = None) -> Plate:
    """Find a plate wherever `--images` says.

    Parameters
    ----------
    images : a folder or load_data.csv on this machine (`find_plate`), an s3:// URL (`find_in_bucket`), an OME-Zarr plate
        in either (`open_planes`; in a folder also as `<barcode>.ome.zarr`), or None for the gallery.
    cache : folder that keeps what is read from a bucket; None keeps nothing.

    Raises as those do, and ConnectionError where a bucket is out of reach.
    """
    barcode = check_barcode(barcode)
    check_channels(settings)
    if settings.time is not None:  # each time point is a plate of its own name
        barcode = barcode.removesuffix(f"_t{settings.time}")
    plate = found_source(barcode, images, settings, cache)
    if settings.pattern and not settings.assign and not any(note.startswith("[plate] pattern") for note in plate.notes):
        unused = f"[plate] pattern is not used: {plate.channel_source} says which file is which"
        plate = dataclasses.replace(plate, warnings=(*plate.warnings, unused))
    return plate


def found_source(barcode: str, images: str | Place | None, settings: PlateSettings, cache: Path | None) -> Plate:
    """`find_source` once its settings are judged."""
    place = None if images is None else place_of(images)
    if isinstance(place, Path):
        named = [p for p in (place, place / f"{barcode}.ome.zarr") if p.is_dir()]
        return next((p for n in named if (p := open_planes(barcode, n, settings, cache))), None) or find_plate(
            barcode, place, settings
        )
    try:
        if place and place.name.endswith(".zarr") and (plate := open_planes(barcode, place, settings, cache)):
            return plate
        return find_in_bucket(barcode, place if isinstance(place, RemotePath) else None, settings, cache)
    except ConnectionError as error:
        why = "" if images else " (no --images was given, so the Cell Painting Gallery was asked)"
        advice = "check the network and try again, or give --images FOLDER for images on this machine"
        raise ConnectionError(f"{barcode}{why}: {error}; {advice}") from error


def find_plate(barcode: str, images: str | Path, settings: PlateSettings | None = None) -> Plate:
    """Find a plate under an images root on this machine; `locate.py` finds those elsewhere.

    Parameters
    ----------
    barcode : short barcode (`BR00117010`); names the plate in every output.
    images : a folder that holds the plate's folder (`BR00117010` or `BR00117010__...`, with or without `Images` in it),
        that folder itself, or a load_data.csv.
    settings : channels wanted and their numbers, stains, path prefixes to remap.

    Raises FileNotFoundError where nothing is found, ValueError where it is ambiguous, malformed or lacks a channel.
    """
    settings = settings or PlateSettings()
    barcode = check_barcode(barcode)
    check_channels(settings)
    if settings.time is not None:  # each time point is a plate of its own name
        barcode = barcode.removesuffix(f"_t{settings.time}")
    if is_url(images):
        raise ValueError(f"{images} is not a folder on this machine")
    root = Path(images).expanduser()
    if root.is_file() and root.name.lower().endswith(SUFFIXES):
        return from_load_data(barcode, root, root.parent, settings)
    if root.is_file():
        raise ValueError(
            f"{root} is a file, and no table of images ({', '.join(SUFFIXES)}); give --images the folder that holds the "
            "plate, or a load_data.csv"
        )
    if not root.is_dir():
        raise FileNotFoundError(
            f"images root {root} does not exist; give --images the folder that holds the plate, or a load_data.csv"
        )
    folder = find_folder(barcode, root, bool(settings.pattern or settings.assign))

    def from_table() -> Plate | None:
        places = [*([folder] if folder else []), root / barcode]
        tables = [p / name for p in places for name in TABLES]
        tables += [root / f"{barcode}_{name}" for name in TABLES] + [root / name for name in TABLES]
        table = next((t for t in tables if t.is_file()), None)
        return from_load_data(barcode, check_inside(table, root), root, settings) if table else None

    if folder:
        return read_folder(barcode, LocalFolder(folder, root), root, settings, from_table)
    if plate := from_table():
        return plate
    seen = sorted(e.name for e in os.scandir(root) if e.is_dir())[:5]
    raise FileNotFoundError(
        f"no plate {barcode} in {root}: no folder {barcode} or {barcode}__*, and no load_data.csv; "
        + (f"there is {', '.join(seen)}" if seen else "it has no folders")
    )
