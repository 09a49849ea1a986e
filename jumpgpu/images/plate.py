"""A plate: barcode and images root to wells, sites and one image file a channel.

Where the files and channels come from, in this order: Harmony's index beside the images, a load_data.csv, the Phenix file
names with the configured channel numbers. `Plate.channel_source` says which it was. Nothing here opens an image; every
path is kept inside the roots, lexically here and with symlinks followed when `files.py` opens it.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PureWindowsPath

from ..settings.config import PlateSettings
from ..settings.names import BRIGHTFIELD, CHANNELS, check_barcode, well_name, well_position
from ..storage.buckets import Place, RemotePath, is_url
from ..storage.local import Files, Local
from .harmony import Flatfield, IndexImage, find_index, read_index
from .load_data import MAX_SITES, LoadData, read_load_data

PHENIX = re.compile(r"r(\d{2})c(\d{2})f(\d{2,4})p(\d{2,4})-ch(\d{1,2})sk(\d{1,6})fk(\d{1,4})fl(\d{1,4})\.tiff?")
MAX_FILES = 2_000_000  # names looked at in an Images folder
Finder = Callable[..., Place]  # (folder as written, *, where: for an error)


@dataclass(frozen=True)
class Site:
    """One field of a well. `files` follows `Plate.channels`; None where the plate's metadata lists no such image."""

    well: str
    site: int
    files: tuple[str | None, ...]
    x_um: float | None = None  # stage position relative to the well's centre
    y_um: float | None = None


@dataclass(frozen=True)
class Plate:
    """A plate's images, by well (rows, then columns) and site."""

    barcode: str
    folder: Place  # where its images or its load_data.csv are
    roots: tuple[Path, ...]  # resolved; no image outside them is opened. None where `source` has its own
    channels: tuple[str, ...]  # order of the C axis
    channel_labels: tuple[str, ...]  # what the source calls each: 'ch5 HOECHST 33342'
    channel_source: str
    sites: tuple[Site, ...]
    pixel_um: float | None = None
    size: tuple[int, int] | None = None  # H, W as the metadata gives them; images decide where it is None
    flatfields: Mapping[str, Flatfield] = field(default_factory=dict)  # by channel; empty without an index
    notes: tuple[str, ...] = ()  # what a reader of the log should know
    source: Files | None = None  # its image files, where they are none on this machine
    illumination: RemotePath | None = None  # where functions made for it lie

    @property
    def images(self) -> Files:
        """Its image files: bytes, sizes and names of what `sites` list."""
        if self.source:
            return self.source
        assert isinstance(self.folder, Path), "a plate in a bucket has a source"
        return Local(self.folder, self.roots)

    @property
    def wells(self) -> tuple[str, ...]:
        """Wells that have a site, in plate order."""
        return tuple(dict.fromkeys(s.well for s in self.sites))

    @property
    def channel_line(self) -> str:
        """`DNA=ch5 HOECHST 33342, ER=..., from Index.idx.xml`: the line a command prints."""
        pairs = ", ".join(f"{c}={label}" for c, label in zip(self.channels, self.channel_labels, strict=True))
        return f"{pairs}; from {self.channel_source}"

    def select(self, wells: Collection[str] | None = None, sites: Collection[int] | None = None) -> tuple[Site, ...]:
        """The sites of these wells that have these numbers, all where None; ValueError for one the plate has not."""
        wells = None if wells is None else set(wells)
        if unknown := sorted(set(wells or ()) - set(self.wells)):
            have = self.wells
            raise ValueError(
                f"{self.barcode} has no images of well {unknown[0]}; it has {len(have)} wells, {have[0]} .. {have[-1]}"
            )
        numbers = {s.site for s in self.sites}
        if absent := sorted(set(sites or ()) - numbers):
            raise ValueError(
                f"{self.barcode} has no site {absent[0]}; its sites are {', '.join(map(str, sorted(numbers)[:20]))}"
            )
        return tuple(s for s in self.sites if (wells is None or s.well in wells) and (sites is None or s.site in sites))


def find_plate(barcode: str, images: str | Path, settings: PlateSettings | None = None) -> Plate:
    """Find a plate under an images root on this machine; `sources.py` finds those elsewhere.

    Parameters
    ----------
    barcode : short barcode (`BR00117010`); names the plate in every output.
    images : a folder that holds the plate's folder (`BR00117010` or `BR00117010__...`, with or without `Images` in it),
        that folder itself, or a load_data.csv.
    settings : channels wanted and their numbers, stains, path prefixes to remap.

    Raises FileNotFoundError where nothing is found, ValueError where it is ambiguous, malformed or lacks a channel.
    """
    settings = settings or PlateSettings()
    check_barcode(barcode)
    check_channels(settings)
    if is_url(images):
        raise ValueError(f"{images} is no folder on this machine")
    root = Path(images).expanduser()
    if root.is_file() and root.suffix.lower() == ".csv":
        return from_load_data(barcode, root, root.parent, settings)
    if not root.is_dir():
        raise FileNotFoundError(f"images root {root} is no folder; give --images or set [plate] images in the config")
    folder = find_folder(barcode, root)
    if folder and (index := find_index(folder, root)):
        return from_index(barcode, check_inside(index, root), folder, root, settings)
    tables = [folder / "load_data.csv"] if folder else []
    tables += [root / barcode / "load_data.csv", root / f"{barcode}_load_data.csv", root / "load_data.csv"]
    if table := next((t for t in tables if t.is_file()), None):
        return from_load_data(barcode, check_inside(table, root), root, settings)
    if not folder:
        seen = sorted(e.name for e in os.scandir(root) if e.is_dir())[:5]
        raise FileNotFoundError(
            f"no plate {barcode} in {root}: no folder {barcode} or {barcode}__*, and no load_data.csv; "
            + (f"there is {', '.join(seen)}" if seen else "it has no folders")
        )
    with os.scandir(folder) as entries:
        return from_names(barcode, folder, root, settings, (e.name for e in entries))


def check_channels(settings: PlateSettings) -> None:
    known = (*CHANNELS, *BRIGHTFIELD)
    if not settings.channels or len(set(settings.channels)) != len(settings.channels):
        raise ValueError(f"plate.channels must name each channel once, got {list(settings.channels)}")
    if unknown := [c for c in settings.channels if c not in known and c not in settings.stains.values()]:
        raise ValueError(f"unknown channel {unknown[0]!r} in plate.channels; expected some of {', '.join(known)}")


def find_folder(barcode: str, root: Path) -> Path | None:
    """The folder with the plate's images, or None; ValueError where several measurements match."""

    def named(name: str) -> bool:
        return name == barcode or name.startswith(f"{barcode}__")

    absolute = root.absolute()
    if named(absolute.name) or (absolute.name == "Images" and named(absolute.parent.name)):
        found = [root]
    else:
        found = sorted(root / e.name for e in os.scandir(root) if named(e.name) and e.is_dir())
    if len(found) > 1:
        raise ValueError(
            f"{barcode} has {len(found)} measurements in {root}: {', '.join(f.name for f in found[:5])}; "
            "give --images the one to read"
        )
    if not found:
        return None
    return check_inside(found[0] / "Images" if (found[0] / "Images").is_dir() else found[0], root)


def check_inside(path: Path, root: Path) -> Path:
    """The path itself, if it is inside the root with symlinks followed; ValueError otherwise."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads outside the images root {root}; give --images the folder it leads to")
    return path


def channel_of(name: str, stains: Mapping[str, str]) -> str | None:
    """The channel a source's name means: a channel's own name, a stain's exact name, or the stain with most words in common.

    Words count only if all words of the stain occur; ValueError where two stains tie for different channels.
    """
    if name in (*CHANNELS, *BRIGHTFIELD):
        return name
    if name.lower() in stains:
        return stains[name.lower()]
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    hits = [(len(key.split()), channel) for key, channel in stains.items() if set(key.split()) <= words]
    best = {channel for n, channel in hits if n == max(hits)[0]}
    if len(best) > 1:
        raise ValueError(f"channel name {name!r} fits {' and '.join(sorted(best))}; add it to [plate.stains] in the config")
    return best.pop() if best else None


def match_channels(barcode: str, names: Mapping[str, str], source: str, settings: PlateSettings) -> dict[str, str]:
    """Wanted channel -> the source's key for it, from key -> name; ValueError where one is absent or doubled."""
    found: dict[str, list[str]] = {}
    for key, name in names.items():
        if channel := channel_of(name, settings.stains):
            found.setdefault(channel, []).append(key)
    listed = ", ".join(f"{key} {name!r}" if key != name else repr(name) for key, name in names.items())
    for channel in settings.channels:
        keys = found.get(channel, [])
        if len(keys) != 1:
            what = "no" if not keys else "more than one"
            raise ValueError(
                f"{barcode}: {what} {channel} channel in {source}, which has {listed}; name its stain in [plate.stains] "
                "or leave the channel out of plate.channels"
            )
    return {channel: found[channel][0] for channel in settings.channels}


def from_index(
    barcode: str, path: Place, folder: Place, root: Place, settings: PlateSettings, data: bytes | None = None
) -> Plate:
    """A plate as its Harmony index lists it. `data`, here and below: the file's bytes, where it is not on this machine."""
    index = read_index(path, data)
    numbers = {f"ch{i.channel}": i.channel for i in index.images}
    names = {key: index.channels.get(n, key) for key, n in sorted(numbers.items(), key=lambda item: item[1])}
    keys = match_channels(barcode, names, path.name, settings)
    wanted = {numbers[key]: c for c, key in enumerate(keys.values())}
    sites = group_images(barcode, [i for i in index.images if i.channel in wanted], wanted, folder, path, settings)
    notes = []
    if index.name and index.name != barcode:
        notes.append(f"{path.name} calls the plate {index.name!r}, not {barcode}")
    return Plate(
        barcode=barcode,
        folder=folder,
        roots=(root.resolve(),) if isinstance(root, Path) else (),
        channels=settings.channels,
        channel_labels=tuple(f"{key} {names[key]}" for key in keys.values()),
        channel_source=path.name,
        sites=sites,
        pixel_um=index.pixel_um,
        size=index.size,
        flatfields={c: f for c, key in keys.items() if (f := index.flatfields.get(numbers[key]))},
        notes=tuple(notes),
    )


def group_images(
    barcode: str,
    images: list[IndexImage],
    wanted: Mapping[int, int],
    folder: Place,
    path: Place,
    settings: PlateSettings,
) -> tuple[Site, ...]:
    """Sites of an index or folder, one plane and one time each."""
    check_single({i.plane for i in images}, settings.plane, f"{barcode}: {path.name} has planes", "plate.plane")
    check_single({i.time for i in images}, None, f"{barcode}: {path.name} has time points", None)
    table: dict[tuple[int, int, int], list[str | None]] = {}
    places: dict[tuple[int, int, int], tuple[float | None, float | None]] = {}
    for image in images:
        if settings.plane is not None and image.plane != settings.plane:
            continue
        key = image.row, image.column, image.field
        files = table.setdefault(key, [None] * len(wanted))
        if not plain_name(image.url):
            raise ValueError(f"{barcode}: {path.name} names {image.url[:80]!r}, which is no file name; refused")
        if files[wanted[image.channel]] is not None:
            well = well_name(image.row, image.column)
            raise ValueError(f"{barcode} {well} site {image.field}: {path.name} lists channel {image.channel} twice")
        files[wanted[image.channel]] = str(folder / image.url)
        places[key] = image.x_um, image.y_um
    if len(table) > MAX_SITES:
        raise ValueError(f"{barcode}: {path.name} has {len(table)} sites, more than {MAX_SITES}")
    if not table:
        raise ValueError(f"{barcode}: {path.name} lists no image of {', '.join(settings.channels)}")
    try:
        return tuple(
            Site(well_name(row, column), site, tuple(table[row, column, site]), *places[row, column, site])
            for row, column, site in sorted(table)
        )
    except ValueError as error:
        raise ValueError(f"{barcode}: {path}: {error}") from error


def check_single(found: set[int], chosen: int | None, what: str, key: str | None) -> None:
    if chosen is not None and chosen not in found:
        raise ValueError(f"{what} {sorted(found)[:10]}, not {key} = {chosen}")
    if chosen is None and len(found) > 1:
        advice = f"set {key} in the config to the one to read" if key else "give a folder with one"
        raise ValueError(f"{what} {sorted(found)[:10]}; {advice}")


def plain_name(name: str) -> bool:
    """Whether a name can only mean a file in its folder."""
    return bool(name) and name not in (".", "..") and len(name) < 256 and not re.search(r"[/\\:\x00-\x1f]", name)


def from_names(barcode: str, folder: Place, root: Place, settings: PlateSettings, names: Iterable[str]) -> Plate:
    """A plate from the folder's Phenix file names; the config says which channel number is which."""
    if absent := [c for c in settings.channels if c not in settings.numbers]:
        raise ValueError(f"{barcode}: plate.numbers has no Phenix channel number for {absent[0]}")
    wanted = {settings.numbers[c]: i for i, c in enumerate(settings.channels)}
    if len(wanted) != len(settings.channels):
        raise ValueError(f"{barcode}: plate.numbers gives two of {', '.join(settings.channels)} the same number")
    images, present = [], set()
    for n, name in enumerate(names):
        if n >= MAX_FILES:
            raise ValueError(f"{folder}: more than {MAX_FILES} files")
        if match := PHENIX.fullmatch(name):
            row, column, site, plane, channel, time = (int(match[k]) for k in (1, 2, 3, 4, 5, 6))
            present.add(channel)
            if channel in wanted:
                images.append(IndexImage(row, column, site, plane, time, channel, name))
    if not present:
        raise FileNotFoundError(
            f"{barcode}: {folder} has no Index.idx.xml, load_data.csv or file named like r01c01f01p01-ch1sk1fk1fl1.tiff"
        )
    if absent := [c for c in settings.channels if settings.numbers[c] not in present]:
        numbers = ", ".join(f"ch{n}" for n in sorted(present))
        raise ValueError(
            f"{barcode}: no {absent[0]} channel: {folder} has {numbers}, and plate.numbers says {absent[0]} is "
            f"ch{settings.numbers[absent[0]]}; set [plate.numbers] or plate.channels in the config"
        )
    sites = group_images(barcode, images, wanted, folder, folder, settings)
    return Plate(
        barcode=barcode,
        folder=folder,
        roots=(root.resolve(),) if isinstance(root, Path) else (),
        channels=settings.channels,
        channel_labels=tuple(f"ch{settings.numbers[c]}" for c in settings.channels),
        channel_source="the config's plate.numbers (no Index.idx.xml, no load_data.csv)",
        sites=tuple(complete(site, list(wanted)) for site in sites),
    )


def complete(site: Site, numbers: list[int]) -> Site:
    """A site with the names its absent files should have, so that what is missing can be named."""
    sample = next(f for f in site.files if f)
    files = tuple(
        f or re.sub(r"-ch\d+(sk\d+fk\d+fl\d+\.tiff?)$", rf"-ch{n}\1", sample)
        for f, n in zip(site.files, numbers, strict=True)
    )
    return Site(site.well, site.site, files, site.x_um, site.y_um)


def from_load_data(
    barcode: str, path: Place, root: Place, settings: PlateSettings, data: bytes | None = None, find: Finder | None = None
) -> Plate:
    """A plate as a load_data.csv lists it. `find` says where a folder as the table writes it is, in place of `locate`."""
    table: LoadData = read_load_data(path, barcode, data)
    names = {c: c if channel_of(c, settings.stains) else table.labels.get(c, c) for c in table.channels}
    keys = match_channels(barcode, names, path.name, settings)
    roots: tuple[Path, ...] = ()
    if isinstance(root, Path):
        remap = {old.rstrip("/\\"): Path(new).expanduser() for old, new in settings.remap.items()}
        roots = (root.absolute(), *(new.absolute() for new in remap.values()))
        find = find or partial(locate, roots=roots, remap=remap)
    assert find is not None, "a table in a bucket is read with a finder"
    folders: dict[str, Place] = {}  # PathName as written -> folder; a plate has few
    sites = []
    for row in table.rows:
        files: list[str | None] = []
        for channel, key in keys.items():
            written, name = row.files[key]
            where = f"{path}: {barcode} {row.well} site {row.site} {channel}"
            if not name.strip():
                files.append(None)
                continue
            if not plain_name(name):
                raise ValueError(f"{where}: {name[:80]!r} is no file name; refused")
            if written not in folders:
                folders[written] = find(written, where=where)
            files.append(str(folders[written] / name))
        sites.append(Site(row.well, row.site, tuple(files), row.x_um, row.y_um))
    return Plate(
        barcode=barcode,
        folder=path.parent,
        roots=tuple(r.resolve() for r in roots),
        channels=settings.channels,
        channel_labels=tuple(table_label(key, table) for key in keys.values()),
        channel_source=path.name,
        sites=tuple(sorted(sites, key=lambda s: (well_position(s.well), s.site))),
        pixel_um=table.pixel_um,
        size=table.size,
    )


def table_label(key: str, table: LoadData) -> str:
    """What a table says of a channel: its Phenix number as the first row's file has it, and its name."""
    match = PHENIX.fullmatch(table.rows[0].files[key][1])
    return " ".join([*([f"ch{int(match[5])}"] if match else []), table.labels.get(key, key)])


def locate(written: str, *, where: str, roots: tuple[Path, ...], remap: Mapping[str, Path]) -> Path:
    """A folder as a table writes it, on this machine and inside the roots; ValueError otherwise."""
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
            f"[plate.remap] '{text[:60]}' = '/where/it/is/here'"
        )
    return folder
