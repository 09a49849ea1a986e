"""Plates as a table of their images lists them."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath

from ...settings.config import PlateSettings
from ...settings.names import well_position
from ...storage.buckets import Place
from ..channels import channel_of, contradicted, match_channels
from ..folders import find_folder
from ..plate import Plate, plain_name
from .group import group_images
from .index_image import IndexImage
from .load_data import DESCRIBED, LoadData, read_load_data
from .names import PHENIX

Finder = Callable[..., Place]  # (folder as written, *, name: of a file in it, where: for an error)


def from_load_data(
    barcode: str, path: Place, root: Place, settings: PlateSettings, data: bytes | None = None, find: Finder | None = None
) -> Plate:
    """A plate as a load_data.csv lists it. `find` says where a folder as the table writes it is, in place of `locate`."""
    table: LoadData = read_load_data(path, barcode, data)
    names = {c: c if channel_of(c, settings.stains) else table.labels.get(c, c) for c in table.channels}
    keys = match_channels(barcode, names, path.name, settings)
    described = table.said.get(DESCRIBED)
    if described and channel_of(described, settings.stains) not in (None, *settings.channels):
        pixel_um, size = None, None  # the row describes a channel that is not measured
    else:
        try:
            pixel_um, size = table.geometry(keys)
        except ValueError as error:
            raise ValueError(f"{path}: {barcode}: {error}") from error
    roots: tuple[Path, ...] = ()
    if isinstance(root, Path):
        remap = {old.rstrip("/\\"): Path(new).expanduser() for old, new in settings.remap.items()}
        roots = (root.absolute(), *(new.absolute() for new in remap.values()))
        find = find or partial(locate, roots=roots, remap=remap)
    assert find is not None, "a table in a bucket is read with a finder"
    elsewhere: list[str] = []
    folders: dict[str, Place] = {}  # PathName as written -> folder; a plate has few
    images = []
    for row in table.rows:
        for c, (channel, key) in enumerate(keys.items()):
            written, name = row.files[key]
            where = f"{path}: {barcode} {row.well} site {row.site} {channel}"
            if name.strip() and not plain_name(name):
                raise ValueError(f"{where}: {name[:80]!r} is not a file name; refused")
            if name.strip() and written not in folders:
                if not written and isinstance(root, Path):
                    folders[written] = beside(path, name, barcode, root)
                else:
                    try:
                        folders[written] = find(written, name=name, where=where)
                        if isinstance(root, Path) and not re.match(
                            r"[/\\]|[A-Za-z]:|[a-z]+://", written
                        ):  # from the table on
                            folders[written] = found_here(written, name, (path.parent, root), roots) or folders[written]
                    except ValueError:
                        here = found_here(written, name, (root, path.parent), roots) if isinstance(root, Path) else None
                        if here is None:
                            raise
                        folders[written] = here
                        elsewhere.append(
                            f"{path.name} says {written[:120]}, which is not here; its images are read from {here}"
                        )
            file = str(folders[written] / name) if name.strip() else ""
            images.append(IndexImage(*well_position(row.well), row.site, row.plane, row.time, c, file, row.x_um, row.y_um))
    own = {c: c for c in range(len(keys))}
    grouped = group_images(barcode, images, own, path.name, settings, lambda image: image.url or None)
    return Plate(
        barcode=grouped.barcode(barcode),
        folder=path.parent,
        roots=tuple(r.resolve() for r in roots),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(table_label(key, table) for key in keys.values()),
        channel_source=path.name,
        sites=grouped.sites,
        projection=settings.projection,
        planes=grouped.planes,
        notes=grouped.notes,
        pixel_um=pixel_um,
        size=size,
        mixed=table.mixed and size is not None,
        warnings=(*contradicted(table.greatest(keys), path.name, settings), *elsewhere),
    )


def beside(path: Place, name: str, barcode: str, root: Path) -> Path:
    """The folder of files that a table names without one: the table's own, or the plate's, where the first of them is."""
    assert isinstance(path, Path)
    places = [path.parent, *([folder] if (folder := find_folder(barcode, root)) else [])]
    return next((place for place in places if (place / name).is_file()), path.parent)


def found_here(written: str, name: str, bases: Sequence[Place], roots: Sequence[Path]) -> Path | None:
    """Where the images of a folder on another machine are: below the images root or beside the table.

    The last names of its path are followed from there, as many as lead to the file; None where they lead nowhere, or
    outside the roots.
    """
    parts = [p for p in re.split(r"[/\\]", written) if p and not p.endswith(":")]
    if "://" in written or ".." in parts or re.search(r"[\x00-\x1f]", written):
        return None
    for first in range(len(parts) + 1):
        for base in bases:
            assert isinstance(base, Path)
            folder = base.absolute().joinpath(*parts[first:])
            if (folder / name).is_file() and any(folder.is_relative_to(root) for root in roots):
                return folder
    return None


def prefix_of(text: str) -> str:
    """The start of a path, up to 60 characters and to a folder's end, as a key for [plate.remap]."""
    start = text[:61]
    end = max(start.rfind("/"), start.rfind("\\"))
    return text if len(text) <= 60 else start[:end] if end > 0 else start[:60]


def table_label(key: str, table: LoadData) -> str:
    """What a table says of a channel: its Phenix number as the first row's file has it, and its name."""
    match = PHENIX.fullmatch(table.rows[0].files[key][1])
    return " ".join([*([f"ch{int(match['channel'])}"] if match else []), table.labels.get(key, key)])


def locate(written: str, *, name: str, where: str, roots: tuple[Path, ...], remap: Mapping[str, Path]) -> Path:
    """A folder as a table writes it, on this machine and inside the roots, whatever file is in it; ValueError otherwise."""
    text = written.rstrip("/\\") if len(written) > 1 else written
    base: Path | None = None
    for old in sorted(remap, key=len, reverse=True):
        if text == old or text.startswith((f"{old}/", f"{old}\\")):
            base, text = remap[old].absolute(), text[len(old) :].lstrip("/\\")
            break
    foreign = base is None and ("://" in text or PureWindowsPath(text).drive != "")
    parts = re.split(r"[/\\]", text) if base or foreign else text.split("/")
    if ".." in parts or re.search(r"[\x00-\x1f]", text):
        raise ValueError(f"{where}: path {written[:120]!r} goes upwards or has control characters; refused")
    folder = (base or roots[0]).joinpath(*parts) if not text.startswith("/") else Path(text)
    if foreign or not any(folder.is_relative_to(r) for r in roots):
        raise ValueError(
            f"{where}: {written[:120]!r} is outside the images root {roots[0]}; map its prefix in the config, such as "
            f"[plate.remap] '{prefix_of(text)}' = '/where/it/is/here'"
        )
    return folder
