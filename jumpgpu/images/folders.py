"""The folder of a plate's images, under an images root here or in a bucket, and what says which of its files is which."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from ..settings.config import PlateSettings
from ..storage.buckets import Place
from .indexes.cellvoyager import DATA, find_measurement, from_measurement
from .indexes.from_index import from_indexes
from .indexes.harmony import check_all_read, find_indexes, index_names
from .indexes.imagexpress import absent, find_htd, read_htd
from .indexes.listing import Folder, LocalFolder, check_inside
from .indexes.names import IMAGE, MAX_DEPTH, SUBFOLDER, from_names, names_of, rule_of
from .plate import Plate

ENDING = re.compile(r"_Plate_\d{1,9}|_\d{8}_\d{6}")  # of an ImageXpress's and a CellVoyager's folder, after the plate's name


def named(barcode: str, name: str) -> bool:
    """Whether a folder's name is a plate's, as a microscope writes it; an umlaut may be one character or two."""
    plain, name = unicodedata.normalize("NFC", barcode), unicodedata.normalize("NFC", name)
    ending = name.removeprefix(plain) if name.startswith(plain) else "no"
    return not ending or ending.startswith("__") or ENDING.fullmatch(ending) is not None


def find_folder(barcode: str, root: Path, any_image: bool = False) -> Path | None:
    """The folder with the plate's images, or None; ValueError where several measurements match.

    A root that is a measurement's folder itself is taken, whatever it is called, where it holds none of the barcode's.

    any_image : whether a folder with images of any names is one, for which the config has a pattern
    """
    absolute = root.absolute()
    if named(barcode, absolute.name) or (absolute.name.lower() == "images" and named(barcode, absolute.parent.name)):
        result = [root]
    else:
        result = sorted(e for e in root.iterdir() if named(barcode, e.name) and e.is_dir())
        result = result or ([root] if is_measurement(LocalFolder(root, root), any_image) else [])
    if len(result) > 1:
        raise ValueError(
            f"{barcode} has {len(result)} measurements in {root}: {', '.join(f.name for f in result[:5])}; "
            "give --images the one to read"
        )
    if not result:
        return None
    check_inside(result[0], root)
    place = images_in(barcode, LocalFolder(result[0], root)).place
    assert isinstance(place, Path)
    return check_inside(place, root)


def images_in(barcode: str, folder: Folder) -> Folder:
    """The folder in a plate's folder that has its images, or itself; ValueError where there are two."""
    inner = [name for name in folder.folders() if name.lower() == "images"]
    if len(inner) > 1:
        raise ValueError(f"{barcode}: {folder.place} holds {' and '.join(inner)}; give --images the one to read")
    if inner:
        return folder.inner(inner[0])
    if ENDING.search(folder.place.name):  # a CellVoyager's measurement lies one folder deeper
        deeper = [inside for name in folder.folders() if find_measurement(inside := folder.inner(name))]
        return deeper[0] if len(deeper) == 1 else folder
    return folder


def is_measurement(folder: Folder, any_image: bool = False, deep: bool = True) -> bool:
    """Whether a folder holds a measurement's images: an index, files with a microscope's names, `Images` of such.

    any_image : whether an image of any name will do
    deep : whether `Images` in it are looked into
    """
    for name in folder.files():
        lower = name.lower()
        if rule_of(name) or any(index_names([name])) or lower == DATA.lower() or lower.endswith(".htd"):
            return True
        if any_image and lower.endswith(IMAGE):
            return True
    inner = folder.folders()
    return any(SUBFOLDER.fullmatch(name) for name in inner) or any(
        is_measurement(folder.inner(name), any_image, False) for name in inner if deep and name.lower() == "images"
    )


def read_folder(
    barcode: str, folder: Folder, root: Place, settings: PlateSettings, from_table: Callable[[], Plate | None]
) -> Plate:
    """A plate as what lies in its folder says: a pattern, an index, a table, names with a description, names alone.

    Parameters
    ----------
    root : outside of which nothing is read
    from_table : the plate by a table that is there, which only who looks for it knows the places of

    Raises ValueError for what is malformed, contradictory or left open, FileNotFoundError where nothing is found.
    """
    if settings.pattern or settings.assign:
        deep = "/" in (settings.pattern or "") and not settings.assign
        return from_names(barcode, folder.place, root, settings, names_of(folder, MAX_DEPTH * deep))
    indexes = find_indexes(folder)
    if indexes.known:
        return from_indexes(barcode, indexes.known, folder.place, root, settings)
    if measurement := find_measurement(folder):
        return from_measurement(barcode, folder, measurement, root, settings)
    if plate := from_table():
        return plate
    check_all_read(barcode, indexes.unread)
    if described := find_htd(folder):
        names, chosen = read_htd(barcode, described)
        plate = from_names(barcode, folder.place, root, settings, names_of(folder), names)
        return dataclasses.replace(plate, warnings=(*plate.warnings, *absent(plate, chosen, names.source)))
    return from_names(barcode, folder.place, root, settings, names_of(folder))
