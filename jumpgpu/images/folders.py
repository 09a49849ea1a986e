"""The folder of a plate under an images root on this machine."""

import os
import unicodedata
from pathlib import Path

from .indexes.harmony import index_names
from .indexes.phenix import PHENIX


def find_folder(barcode: str, root: Path) -> Path | None:
    """The folder with the plate's images, or None; ValueError where several measurements match.

    A root that is a measurement's folder itself is taken, whatever it is called, where it holds none of the barcode's.
    """
    plain = unicodedata.normalize("NFC", barcode)  # an umlaut may be one character or two

    def named(name: str) -> bool:
        name = unicodedata.normalize("NFC", name)
        return name == plain or name.startswith(f"{plain}__")

    absolute = root.absolute()
    if named(absolute.name) or (absolute.name.lower() == "images" and named(absolute.parent.name)):
        result = [root]
    else:
        result = sorted(root / e.name for e in os.scandir(root) if named(e.name) and e.is_dir())
        result = result or ([root] if is_measurement(root) else [])
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
    return check_inside(result[0] / inner[0] if inner else result[0], root)


def is_measurement(root: Path) -> bool:
    """Whether a folder holds a measurement's images: an index, files with Phenix names, or an `Images` folder of such."""
    with os.scandir(root) as entries:
        inner = []
        for entry in entries:
            if PHENIX.fullmatch(entry.name) or any(index_names([entry.name])):
                return True
            if entry.name.lower() == "images" and entry.is_dir():
                inner.append(Path(entry))
    return any(is_measurement(folder) for folder in inner)


def check_inside(path: Path, root: Path) -> Path:
    """The path itself, if it is inside the root with symlinks followed; ValueError otherwise."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads outside the images root {root}; give --images the folder it leads to")
    return path
