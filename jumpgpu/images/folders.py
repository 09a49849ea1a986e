"""The folder of a plate under an images root on this machine."""

import os
import re
import unicodedata
from pathlib import Path

from .indexes.harmony import index_names
from .indexes.names import IMAGE, SUBFOLDER, rule_of

ENDING = re.compile(r"_Plate_\d{1,9}|_\d{8}_\d{6}")  # of an ImageXpress's and a CellVoyager's folder, after the plate's name
DATA = "MeasurementData.mlf"


def find_folder(barcode: str, root: Path, pattern: str | None = None) -> Path | None:
    """The folder with the plate's images, or None; ValueError where several measurements match.

    A root that is a measurement's folder itself is taken, whatever it is called, where it holds none of the barcode's; with
    a pattern of names, any root that has image files.
    """
    plain = unicodedata.normalize("NFC", barcode)  # an umlaut may be one character or two

    def named(name: str) -> bool:
        name = unicodedata.normalize("NFC", name)
        ending = name.removeprefix(plain) if name.startswith(plain) else "no"
        return not ending or ending.startswith("__") or ENDING.fullmatch(ending) is not None

    absolute = root.absolute()
    if named(absolute.name) or (absolute.name.lower() == "images" and named(absolute.parent.name)):
        result = [root]
    else:
        result = sorted(root / e.name for e in os.scandir(root) if named(e.name) and e.is_dir())
        result = result or ([root] if is_measurement(root, pattern is not None) else [])
    if len(result) > 1:
        raise ValueError(
            f"{barcode} has {len(result)} measurements in {root}: {', '.join(f.name for f in result[:5])}; "
            "give --images the one to read"
        )
    if not result:
        return None
    inner = sorted(e.name for e in os.scandir(result[0]) if e.name.lower() == "images" and e.is_dir())
    if len(inner) > 1:
        raise ValueError(f"{barcode}: {result[0]} holds {' and '.join(inner)}; give --images the one to read")
    if not inner and ENDING.search(result[0].name):  # a CellVoyager's measurement lies one folder deeper
        deeper = [e for e in result[0].iterdir() if e.is_dir() and any(p.name.lower() == DATA.lower() for p in e.iterdir())]
        return check_inside(deeper[0] if len(deeper) == 1 else result[0], root)
    return check_inside(result[0] / inner[0] if inner else result[0], root)


def is_measurement(root: Path, any_image: bool = False) -> bool:
    """Whether a folder holds a measurement's images: an index, files with a microscope's names, `Images` of such.

    any_image : whether an image of any name will do
    """
    with os.scandir(root) as entries:
        inner = []
        for entry in entries:
            lower = entry.name.lower()
            if rule_of(entry.name) or any(index_names([entry.name])) or lower == DATA.lower() or lower.endswith(".htd"):
                return True
            if (any_image and lower.endswith(IMAGE)) or (SUBFOLDER.fullmatch(entry.name) and entry.is_dir()):
                return True
            if entry.name.lower() == "images" and entry.is_dir():
                inner.append(Path(entry))
    return any(is_measurement(folder, any_image) for folder in inner)


def check_inside(path: Path, root: Path) -> Path:
    """The path itself, if it is inside the root with symlinks followed; ValueError otherwise."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads outside the images root {root}; give --images the folder it leads to")
    return path
