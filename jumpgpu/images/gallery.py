"""The Cell Painting Gallery and other buckets: from a barcode to its project, source, batch and long folder name.

    <project>/<source>/images/<batch>/images/<barcode>__<date>-Measurement1/Images/Index.idx.xml, *.tiff
    <project>/<source>/images/<batch>/illum/<barcode>/<barcode>_Illum<channel>.npy
    <project>/<source>/workspace/load_data_csv/<batch>/<barcode>/load_data.csv, or ..._with_illum, or .parquet

A bucket is asked for a batch's folders once, a request for a thousand. What it answers is judged as a folder's content
is: file names must be plain, and nothing outside the plate's source is read.
"""

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..settings.config import PlateSettings
from ..storage.buckets import FIRST_TRIES, Place, RemotePath, in_parallel, is_url, place_of
from ..storage.prefetch import RemoteFiles, cached, keep
from .folders import images_in, is_measurement, named, read_folder
from .indexes import load_data, table_rows
from .indexes.from_table import from_load_data, prefix_of
from .indexes.listing import RemoteFolder
from .plate import Plate, plain_name

GALLERY = RemotePath("cellpainting-gallery")
PROJECTS = ("cpg0000-jump-pilot", "cpg0016-jump")  # searched in this order when only a barcode is given
LAYOUTS = ("", "images/", "images/*/images/", "*/images/*/images/")  # from a batch's images up to a project
TABLES = ("workspace/load_data_csv/*/", "*/workspace/load_data_csv/*/")
FRESH_S = 24 * 3600  # how long a cached list of batches serves
MAX_FOLDERS = 5000  # sources and batches of a project


def find_in_bucket(barcode: str, where: RemotePath | None, settings: PlateSettings, cache: Path | None = None) -> Plate:
    """A plate of the gallery's projects, or under a URL: its folder, a table, or a batch, source or project that holds it.

    Raises FileNotFoundError where there is none, ValueError where there are several or one that cannot be read,
    ConnectionError where the bucket is out of reach.
    """
    if where and where.name.lower().endswith(load_data.SUFFIXES):
        source, batch = source_of(where.parent)
        files = RemoteFiles(where.parent, (source,), cache)
        return with_source(from_table(barcode, where, source, batch, files, settings), files, batch)
    roots = [where] if where else [GALLERY / project for project in PROJECTS]
    searched: list[str] = []
    any_image = bool(settings.pattern or settings.assign)
    for root in roots:
        for remembered in (cache, None) if cache else (None,):  # what is remembered may be a day old
            folders, n_looked = search(barcode, root, LAYOUTS, remembered)
            tables = [] if folders else search(barcode, root, TABLES, remembered)[0]
            if folders or tables:
                return open_folder(barcode, only_one(barcode, folders or tables), settings, cache, bool(tables))
        if where and is_measurement(RemoteFolder(root, RemoteFiles(root, (root,), cache)), any_image):
            return open_folder(barcode, root, settings, cache, False)
        searched.append(f"{root} ({n_looked} folders looked into)")
    what = "in the Cell Painting Gallery" if not where else "there"
    advice = (
        f"give --images {GALLERY}/PROJECT for another project of it, or --images FOLDER for images on this machine"
        if not where
        else "expected its folder, or a batch, source or project of the gallery's layout"
    )
    raise FileNotFoundError(f"no plate {barcode} {what}: searched {' and '.join(searched)}; {advice}")


def only_one(barcode: str, result: list[RemotePath]) -> RemotePath:
    if len(result) > 1:
        listed = "\n  ".join(map(str, result[:5]))
        raise ValueError(f"{barcode} has {len(result)} measurements:\n  {listed}\ngive --images the one to read")
    return result[0]


def search(
    barcode: str, root: RemotePath, layouts: tuple[str, ...], remembered: Path | None
) -> tuple[list[RemotePath], int]:
    """The plate's folders under a root in the first layout that has any, and how many folders were looked into."""

    if named(barcode, root.name) or (root.name.lower() == "images" and named(barcode, root.parent.name)):
        return [root], 0
    looked = 0
    for layout in layouts:
        places = [root]
        for part in [p for p in layout.split("/") if p]:
            if part == "*":
                levels = in_parallel(partial(subfolders, remembered=remembered), places)
                places = [place / name for place, names in zip(places, levels, strict=True) for name in names]
                if len(places) > MAX_FOLDERS:
                    raise ValueError(f"{root}: more than {MAX_FOLDERS} folders; give --images one that is nearer the plate")
            else:
                places = [place / part for place in places]
        looked += len(places)
        listings = in_parallel(lambda place: place.listing(tries=FIRST_TRIES), places)
        result = [
            place / name
            for place, listing in zip(places, listings, strict=True)
            for name in listing.folders
            if named(barcode, name) and plain_name(name)
        ]
        if result:
            return sorted(result), looked
    return [], looked


def subfolders(place: RemotePath, remembered: Path | None) -> list[str]:
    """The names of the folders in one, from the cache where it has them from today."""
    note = cached(remembered, place / "folders.json") if remembered else None
    if note:
        try:
            if 0 <= time.time() - note.stat().st_mtime < FRESH_S and note.stat().st_size < 1 << 20:
                names = json.loads(note.read_bytes())
                if isinstance(names, list) and all(isinstance(n, str) and plain_name(n) for n in names):
                    return names
        except (OSError, ValueError, RecursionError):
            pass
    names = [name for name in place.listing(tries=FIRST_TRIES).folders if plain_name(name)]
    if note and remembered:
        keep(remembered, note, json.dumps(names).encode())
    return names


def open_folder(barcode: str, result: RemotePath, settings: PlateSettings, cache: Path | None, table: bool) -> Plate:
    """The plate in a folder that is known: its index, its load_data.csv, or its file names, in this order."""
    source, batch = source_of(result)
    files = RemoteFiles(result, (source,), cache)
    if table:
        return with_source(
            from_table(barcode, located_table(barcode, [result], files), source, batch, files, settings), files, batch
        )
    folder = images_in(barcode, RemoteFolder(result, files))
    assert isinstance(folder.place, RemotePath)
    places = [folder.place, *([folder.place.parent] if folder.place.name.lower() == "images" else [])]
    if batch:
        places.append(source / "workspace" / "load_data_csv" / batch.name / barcode)

    def by_table() -> Plate | None:
        path = find_table(places, files)
        return from_table(barcode, path, source, batch, files, settings) if path else None

    return with_source(read_folder(barcode, folder, source, settings, by_table), files, batch)


def find_table(places: list[RemotePath], files: RemoteFiles) -> RemotePath | None:
    """The first load_data table in some folders."""
    return next((p / name for p in places for name in load_data.TABLES if name in files.listed(p).files), None)


def located_table(barcode: str, places: list[RemotePath], files: RemoteFiles) -> RemotePath:
    if path := find_table(places, files):
        return path
    raise FileNotFoundError(
        f"{barcode}: {places[0]} has none of {', '.join(load_data.TABLES[:5])}, ..., and there is no folder of its images"
    )


def source_of(result: RemotePath) -> tuple[RemotePath, RemotePath | None]:
    """What may be read for a plate's folder, and the `images` folder of its batch, if it lies in the gallery's layout."""
    match = re.match(
        r"((?:.*/)?[^/]+)/(?:images/([^/]+)/images|workspace/load_data_csv/([^/]+))/[^/]+(?:/Images)?$", result.key
    )
    if not match:
        return (result.parent if result.name.lower() == "images" else result), None
    source = dataclasses.replace(result, key=match[1])
    return source, source / "images" / (match[2] or match[3])


def from_table(
    barcode: str, path: RemotePath, source: RemotePath, batch: RemotePath | None, files: RemoteFiles, settings: PlateSettings
) -> Plate:
    """The plate as a load_data.csv in the bucket lists it."""
    data = files.fetch(str(path), table_rows.MAX_BYTES)

    def find(written: str, *, name: str, where: str) -> RemotePath:
        if written.strip():
            return locate(written, where=where, base=path.parent, source=source, batch=batch, settings=settings)
        inner = images_in(barcode, RemoteFolder(path.parent, files)).place
        assert isinstance(inner, RemotePath)
        return inner if name not in files.listed(path.parent).files else path.parent

    return from_load_data(barcode, path, source, settings, data, find)


def locate(
    written: str, *, where: str, base: RemotePath, source: RemotePath, batch: RemotePath | None, settings: PlateSettings
) -> RemotePath:
    """A folder as a table writes it, in the bucket and inside the source; ValueError otherwise.

    A path on the machine that made the table is taken by what follows `<batch>/images/` in it, one that begins nowhere from
    the table's folder on (`base`).
    """
    text = written.rstrip("/")
    for old in sorted(settings.remap, key=len, reverse=True):
        if text == old.rstrip("/") or text.startswith(f"{old.rstrip('/')}/"):
            text = settings.remap[old].rstrip("/") + text[len(old.rstrip("/")) :]
            break
    if batch and not is_url(text):
        _, known, rest = text.replace("\\", "/").partition(f"/{batch.name}/images/")
        text = f"{batch}/images/{rest}" if known else text
    parts = [p for p in re.split(r"[/\\]", text) if p not in ("", ".")]
    if not is_url(text) and ".." not in parts and not re.match(r"[/\\]|[A-Za-z]:|[a-z]+://", text):
        return dataclasses.replace(base, key="/".join([p for p in (base.key, *parts) if p]))
    place: Place = place_of(text)
    if not isinstance(place, RemotePath) or not (place == source or place.inside(source)):
        raise ValueError(
            f"{where}: {written[:120]!r} is outside of {source}; map its prefix in the config, such as "
            f"[plate.remap] '{prefix_of(text)}' = '{source.scheme}://bucket/where/it/is'"
        )
    return place


def with_source(plate: Plate, files: RemoteFiles, batch: RemotePath | None) -> Plate:
    """The plate, with its bucket's files and the illumination functions that its batch has for it."""
    illumination = batch / "illum" / plate.barcode if batch else None
    if illumination and not files.listed(illumination).files:
        illumination = None
    files.folder = plate.folder if isinstance(plate.folder, RemotePath) else files.folder
    return dataclasses.replace(
        plate, source=files, illumination=illumination, notes=(*plate.notes, f"images: {files.folder}")
    )


def reach(tries: int = FIRST_TRIES) -> Iterator[str]:
    """Names of the gallery's projects that can be listed now; ConnectionError where none can."""
    there = GALLERY.listing(tries=tries).folders
    yield from (project for project in PROJECTS if project in there)
