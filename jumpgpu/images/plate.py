"""A plate: barcode and images root to wells, sites and one image file per channel.

Where the files and channels come from, in this order: Harmony's index beside the images, a load_data.csv, the Phenix file
names with the configured channel numbers. `Plate.channel_source` says which it was. Nothing here opens an image; every
path is kept inside the roots, lexically here and with symlinks followed when `local.py` opens it.
"""

import dataclasses
import json
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PureWindowsPath

from ..settings.config import PlateSettings
from ..settings.names import BRIGHTFIELD, CHANNELS, check_barcode, well_name, well_position
from ..storage.buckets import Place, RemotePath, is_url
from ..storage.local import Files, Local
from .harmony import INDEX_NAMES, Flatfield, Index, IndexFiles, IndexImage, find_indexes, index_names, read_index
from .load_data import DESCRIBED, MAX_SITES, SUFFIXES, LoadData, read_load_data

PHENIX = re.compile(r"r(\d{2})c(\d{2})f(\d{2,4})p(\d{2,4})-ch(\d{1,2})sk(\d{1,6})fk(\d{1,4})fl(\d{1,4})\.tiff?")
DYE_WORD = re.compile(  # in the name of a stain that says no more than its light
    "[0-9]+|alexa|fluor|af|atto|bodipy|cf|cy|dylight|fitc|rhodamine|texas|tritc|janelia|"
    "red|far|deep|green|blue|orange|yellow|long|short|em|ex|nm"
)
TABLES = [f"{name}{suffix}" for name in ("load_data", "load_data_with_illum", "samplesheet") for suffix in SUFFIXES]
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
    scale: float | None = None  # what counts are divided by, whatever the files say
    size: tuple[int, int] | None = None  # H, W as the metadata gives them; images decide where it is None
    flatfields: Mapping[str, Flatfield] = field(default_factory=dict)  # by channel; empty without an index
    notes: tuple[str, ...] = ()  # what a reader of the log should know
    warnings: tuple[str, ...] = ()  # what was assumed and nobody said: told even where the log is not wanted
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
    check_barcode(barcode)
    check_channels(settings)
    if is_url(images):
        raise ValueError(f"{images} is no folder on this machine")
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
            f"images root {root} is no folder and no file; give --images the folder that holds the plate, or a load_data.csv"
        )
    folder = find_folder(barcode, root)
    indexes = find_indexes(folder, root) if folder else IndexFiles((), ())
    if folder and indexes.known:
        return from_indexes(barcode, [check_inside(p, root) for p in indexes.known], folder, root, settings, read_index)
    places = [*([folder] if folder else []), root / barcode]
    tables = [p / name for p in places for name in TABLES]
    tables += [root / f"{barcode}_{name}" for name in TABLES] + [root / name for name in TABLES]
    if table := next((t for t in tables if t.is_file()), None):
        return from_load_data(barcode, check_inside(table, root), root, settings)
    if not folder:
        seen = sorted(e.name for e in os.scandir(root) if e.is_dir())[:5]
        raise FileNotFoundError(
            f"no plate {barcode} in {root}: no folder {barcode} or {barcode}__*, and no load_data.csv; "
            + (f"there is {', '.join(seen)}" if seen else "it has no folders")
        )
    check_all_read(barcode, indexes.unread)
    with os.scandir(folder) as entries:
        return from_names(barcode, folder, root, settings, (e.name for e in entries))


def check_all_read(barcode: str, unread: Collection[Place]) -> None:
    """ValueError where channel numbers would be assumed although a file beside the images may say them."""
    if unread:
        raise ValueError(
            f"{barcode}: {', '.join(map(str, sorted(unread)[:5]))}: an index under a name that is not known "
            f"({', '.join(INDEX_NAMES)}); rename it to the one it is, or move it away to have [plate.numbers] say which "
            "channel is which"
        )


def check_channels(settings: PlateSettings) -> None:
    known = (*CHANNELS, *BRIGHTFIELD)
    if not settings.channels or len(set(settings.channels)) != len(settings.channels):
        raise ValueError(f"plate.channels must name each channel once, got {list(settings.channels)}")
    if unknown := [c for c in settings.channels if c not in known and c not in settings.stains.values()]:
        raise ValueError(f"unknown channel {unknown[0]!r} in plate.channels; expected some of {', '.join(known)}")


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


def channel_of(name: str, stains: Mapping[str, str]) -> str | None:
    """The channel a source's name means, in any case: a channel's own name, a stain's, or the stains that it contains.

    A name contains a stain, or a channel's name, where it has all of its words. Stains say what is looked at (MitoTracker)
    or in which light (Alexa 568); the first kind outranks the second, and a stain outranks those it contains itself.
    Raises ValueError where what is left means different channels, None where nothing is.
    """
    known = {c.lower(): c for c in (*CHANNELS, *BRIGHTFIELD, *stains.values())}
    table = known | {" ".join(key.lower().split()): channel for key, channel in stains.items()}
    if channel := known.get(name.strip().lower()) or table.get(" ".join(name.lower().split())):
        return channel
    words = words_of(name)
    fitting = {key: result for key in table if (result := words_of(key)) and result <= words}
    targets = {key: result for key, result in fitting.items() if not only_light(result)}
    best = targets or fitting
    minimum = [key for key, result in best.items() if not any(result < other for other in best.values())]
    channels = {table[key]: key for key in reversed(minimum)}
    if len(channels) > 1:
        both = " and ".join(f"{channel} ({key!r})" for channel, key in sorted(channels.items()))
        raise ValueError(f"channel name {name!r} fits {both}; say which it is: '{name}' = '...' under [plate.stains]")
    return next(iter(channels), None)


def words_of(name: str) -> frozenset[str]:
    """Words and numbers of a name, lower case: `Alexa568-WGA` has alexa, 568 and wga."""
    return frozenset(re.findall(r"[0-9]+|[^\W\d_]+", name.lower()))


def only_light(words: Collection[str]) -> bool:
    """Whether words say no more than a light: dyes by their makers' series, wavelengths."""
    return all(DYE_WORD.fullmatch(word) for word in words)


def match_channels(barcode: str, names: Mapping[str, str], source: str, settings: PlateSettings) -> dict[str, str]:
    """Wanted channel -> the source's key for it, from key -> name; ValueError where one is absent or doubled."""
    result: dict[str, list[str]] = {}
    for key, name in names.items():
        if channel := channel_of(name, settings.stains):
            result.setdefault(channel, []).append(key)
    for channel, keys in result.items():  # `DNA` wins over names that contain it, such as `DNA_mask`
        rest = [key for key in keys if not words_of(channel) < words_of(names[key])]
        if len(rest) == 1 and names[rest[0]].strip().lower() == channel.lower():
            result[channel] = rest
    wrong = [
        f"more than one {c} channel" if c in result else f"no {c} channel"
        for c in settings.channels
        if len(result.get(c, ())) != 1
    ]
    if wrong:
        absent = [c for c in settings.channels if c not in result]
        free = [names[key] for key in names if not any(key in keys for keys in result.values())]
        free += [names[key] for c in settings.channels for key in result.get(c, ())[1:]]
        free = [name[:60] for name in free] + ["..."] * len(absent)
        pairs = [f"{json.dumps(name)} = {json.dumps(c)}" for name, c in zip(free, absent, strict=False)]
        block = "\n  ".join(pairs or [f"{json.dumps(free[0])} = {json.dumps('...')}"])
        raise ValueError(
            f"{barcode}: {', '.join(wrong)} in {source}, which has {shown(names)}; leave what is not there out of "
            f"plate.channels, or say in the config what is called how, such as\n  [plate.stains]\n  {block}"
        )
    return {channel: result[channel][0] for channel in settings.channels}


def shown(names: Mapping[str, str]) -> str:
    """A source's channels as an error lists them: key and name, the name alone where they are one."""
    listed = [f"{key} {name[:60]!r}" if key != name else repr(name[:60]) for key, name in names.items()]
    return ", ".join(listed[:10] + [f"and {len(listed) - 10} more"] * (len(listed) > 10))


def from_indexes(
    barcode: str, paths: Sequence[Place], folder: Place, root: Place, settings: PlateSettings, read: Callable[[Place], Index]
) -> Plate:
    """A plate as the first of its indexes lists it; ValueError where another one names its channels otherwise."""
    index = read(paths[0])
    plate = from_index(barcode, paths[0], folder, root, settings, index)
    notes = []
    for path in paths[1:]:
        try:
            other = read(path).channels
        except ValueError as error:
            notes.append(f"{path.name} is not used beside {paths[0].name}, and cannot be read ({error})")
            continue
        for channel, name in index.channels.items():
            if channel in other and other[channel].lower() != name.lower():
                raise ValueError(
                    f"{barcode}: {paths[0]} says that channel {channel} is {name!r}, {path} that it is {other[channel]!r}; "
                    "move the wrong one away"
                )
        notes.append(f"{path.name} names the same channels as {paths[0].name}, which is read")
    return dataclasses.replace(plate, notes=(*plate.notes, *notes))


def from_index(
    barcode: str, path: Place, folder: Place, root: Place, settings: PlateSettings, index: Index | None = None
) -> Plate:
    """A plate as its Harmony index lists it. `index`: what is in it, where that is known."""
    index = index or read_index(path)
    numbers = {f"ch{i.channel}": i.channel for i in index.images}
    names = {key: index.channels.get(n, key) for key, n in sorted(numbers.items(), key=lambda item: item[1])}
    keys = match_channels(barcode, names, path.name, settings)
    wanted = {numbers[key]: c for c, key in enumerate(keys.values())}
    if twice := [n for n in wanted if n in index.renamed]:
        called = " and ".join(map(repr, index.renamed[twice[0]][:4]))
        raise ValueError(f"{barcode}: {path} calls channel {twice[0]} both {called}; export the plate again")
    pixel_um, size = index.geometry(wanted, f"{barcode}: {path.name}")
    greatest, named = index.greatest(wanted), dict(zip(wanted, settings.channels, strict=True))
    sites = group_images(barcode, [i for i in index.images if i.channel in wanted], wanted, folder, path, settings)
    notes = list(index.notes)
    if index.name and index.name != barcode:
        notes.append(f"{path.name} calls the plate {index.name!r}, not {barcode}")
    return Plate(
        barcode=barcode,
        folder=folder,
        roots=(root.resolve(),) if isinstance(root, Path) else (),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"{key} {names[key]}" for key in keys.values()),
        channel_source=path.name,
        sites=sites,
        pixel_um=pixel_um,
        size=size,
        warnings=contradicted({c: said for n, c in named.items() if (said := greatest.get(n))}, path.name, settings),
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
        if image.page:
            where = f"{barcode} {well_name(image.row, image.column)} site {image.field}"
            raise ValueError(
                f"{where}: {path.name} says that the image is page {image.page + 1} of {image.url[:80]!r} (BufferNo "
                f"{image.page}); files of one image each are read: export the plate as single images"
            )
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


def check_single(result: set[int], chosen: int | None, what: str, key: str | None) -> None:
    if chosen is not None and chosen not in result:
        raise ValueError(f"{what} {sorted(result)[:10]}, not {key} = {chosen}")
    if chosen is None and len(result) > 1:
        advice = f"set {key} in the config to the one to read" if key else "give a folder with one"
        raise ValueError(f"{what} {sorted(result)[:10]}; {advice}")


def plain_name(name: str) -> bool:
    """Whether a name can only mean a file in its folder."""
    return bool(name) and name not in (".", "..") and len(name) < 256 and not re.search(r"[/\\:\x00-\x1f]", name)


def from_names(barcode: str, folder: Place, root: Place, settings: PlateSettings, names: Iterable[str]) -> Plate:
    """A plate from the folder's Phenix file names; the config says which channel number is which."""
    if absent := [c for c in settings.channels if c not in settings.numbers]:
        block = "\n  ".join(f"{c} = ..." for c in absent)
        raise ValueError(
            f"{barcode}: plate.numbers has no Phenix channel number for {', '.join(absent)}; say in the config\n"
            f"  [plate.numbers]\n  {block}"
        )
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
        said = ", ".join(f"{c} is ch{settings.numbers[c]}" for c in absent)
        block = "\n  ".join(f"{c} = ..." for c in absent)
        raise ValueError(
            f"{barcode}: {', '.join(f'no {c} channel' for c in absent)}: {folder} has {numbers}, and plate.numbers says "
            f"that {said}; leave what is not there out of plate.channels, or say in the config\n  [plate.numbers]\n  {block}"
        )
    sites = group_images(barcode, images, wanted, folder, folder, settings)
    return Plate(
        barcode=barcode,
        folder=folder,
        roots=(root.resolve(),) if isinstance(root, Path) else (),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"ch{settings.numbers[c]}" for c in settings.channels),
        channel_source="the config's plate.numbers (no Index.idx.xml, no load_data.csv)",
        sites=tuple(complete(site, list(wanted)) for site in sites),
        warnings=(
            f"no index and no load_data.csv say which channel is which: [plate.numbers] of the config is taken, "
            f"{', '.join(f'{c} = {settings.numbers[c]}' for c in settings.channels)}",
        ),
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
            if written not in folders and not written and isinstance(root, Path):
                folders[written] = beside(path, name, barcode, root)
            elif written not in folders:
                folders[written] = find(written, where=where)
            files.append(str(folders[written] / name))
        sites.append(Site(row.well, row.site, tuple(files), row.x_um, row.y_um))
    return Plate(
        barcode=barcode,
        folder=path.parent,
        roots=tuple(r.resolve() for r in roots),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(table_label(key, table) for key in keys.values()),
        channel_source=path.name,
        sites=tuple(sorted(sites, key=lambda s: (well_position(s.well), s.site))),
        pixel_um=pixel_um,
        size=size,
        warnings=contradicted(table.greatest(keys), path.name, settings),
    )


def contradicted(greatest: Mapping[str, str], source: str, settings: PlateSettings) -> tuple[str, ...]:
    """Of channel -> the greatest count a source gives: said where counts are divided by another, unless images say so."""
    others = {c: text for c, text in greatest.items() if text.partition(".")[0] not in ("65535", "65536", "255", "256")}
    if not others or settings.scale is not None:
        return ()
    listed = ", ".join(f"{c} {text[:20]}" for c, text in others.items())
    return (
        f"{source} gives MaxIntensity {listed}: not taken for the scale, nor by CellProfiler, which takes the images' own; "
        "set [plate] scale to it, or to 65535",
    )


def beside(path: Place, name: str, barcode: str, root: Path) -> Path:
    """The folder of files that a table names without one: the table's own, or the plate's, where the first of them is."""
    assert isinstance(path, Path)
    places = [path.parent, *([folder] if (folder := find_folder(barcode, root)) else [])]
    return next((place for place in places if (place / name).is_file()), path.parent)


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
