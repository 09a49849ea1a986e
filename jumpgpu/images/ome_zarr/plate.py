"""OME-Zarr plates as input: wells and fields of an HCS plate (0.4 on zarr v2, 0.5 on zarr v3), read a plane at a time.

All metadata is read and judged here before zarr sees it: names that are names, axes that are T, C, Z, Y, X with one T,
uint16, chunks of a bearable size, codecs that only compress. What a field declares is read when the field is, so that
opening a plate costs a small file per well. `planes.py` reads the pixels.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...settings.config import PlateSettings
from ...settings.names import check_barcode, well_position
from ...storage.buckets import Place
from ..channels import match_channels
from ..indexes.group import MAX_SITES, chosen_planes, chosen_time
from ..indexes.load_data import SQUARE, parse_well
from ..plate import Plate, Site
from .layout import IMAGE_PACKERS, layout_v2, layout_v3, listed, mapping

MAX_METADATA = 1 << 22  # bytes of one zarr.json, .zattrs or .zarray; a plate of 1536 wells has 200 KB
MAX_SIDE = 8192  # pixels, as `tiff.MAX_SIDE`
MAX_CHANNELS = 64
MAX_DEPTH = 4096  # Z planes
MAX_TIMES = 10_000  # points of the time axis
MAX_CHUNK = 1 << 28  # bytes of a chunk or shard
NAME = re.compile(r"[A-Za-z0-9]+")
ARRAY_PATH = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
VERSIONS = {2: ("0.4",), 3: ("0.5",)}
MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


@dataclass(frozen=True)
class Field:
    """What a field declares of its full-size array.

    array : its key below the plate; axes : part of tczyx, in stored order
    chunks : of what is unpacked at once; outer : of a file
    labels : the channels' names, '' where it gives none
    metadata : of the array, as zarr is given it; an image's codec is none of zarr's, and left out
    packer : the codec its chunks are compressed with; None for none
    index_bytes : of the index at the end of a file in which chunks lie together; 0 where each has its own
    """

    array: str
    metadata: bytes
    version: int
    axes: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    outer: tuple[int, ...]
    labels: tuple[str, ...]
    pixel_um: float | None
    packer: str | None
    index_bytes: int

    def extent(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


class Group:
    """The JSON files of a zarr hierarchy. `read(key, limit)` gives a file's bytes, FileNotFoundError where there is none."""

    def __init__(self, root: Place, read: Any):
        self.root, self.read = root, read

    def load(self, key: str) -> dict[str, Any]:
        """A metadata file; ValueError where it is no JSON object."""
        try:
            value = json.loads(self.read(key, MAX_METADATA))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.root}/{key} is not zarr metadata: {' '.join(str(error).split())[:100]}") from error
        if not isinstance(value, dict):
            raise ValueError(f"{self.root}/{key} is not zarr metadata: it holds no object")
        return value

    def attributes(self, path: str, version: int | None = None) -> tuple[int, dict[str, Any]]:
        """zarr version and OME attributes of a group; FileNotFoundError where it is none."""
        prefix = f"{path}/" if path else ""
        if version != 2:
            try:
                node = self.load(f"{prefix}zarr.json")
            except FileNotFoundError:
                if version == 3:
                    raise
            else:
                attributes = node.get("attributes")
                ours = isinstance(attributes, dict) and "jumpgpu" in attributes
                ome = attributes.get("ome") if isinstance(attributes, dict) else None
                if ours and not path:
                    raise ValueError(f"{self.root} was made by jumpgpu: it holds results and small overviews, no raw images")
                return 3, ome if isinstance(ome, dict) else {}
        return 2, self.load(f"{prefix}.zattrs")


def is_ome_zarr(group: Group) -> bool:
    """Whether a folder is an OME-Zarr plate."""
    try:
        return "plate" in group.attributes("")[1]
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_plate(barcode: str, group: Group, settings: PlateSettings) -> Plate:
    """A plate as its OME-Zarr metadata lists it, without a `source`; files are named `<plate>/<field>#<channel's index>`.

    A field's site is its path where that is a number; where the plate has a field 0, all are counted from 1.
    """
    barcode = check_barcode(barcode)
    where = f"{barcode}: {group.root}"
    version, attributes = group.attributes("")
    plate = mapping(attributes.get("plate"), f"{where}: plate")
    check_version(attributes.get("version") if version == 3 else plate.get("version"), version, where)
    fields: list[tuple[str, str]] = []
    absent = []
    for well, path in wells(plate, where):
        try:
            fields += [(well, field) for field in fields_of(group, path, version, where)]
        except FileNotFoundError:
            absent.append(well)
    fields.sort(key=lambda item: (well_position(item[0]), item[1]))
    if not fields:
        raise ValueError(f"{where} lists no field" + f"; none of its wells exists ({absent[0]}, ...)" * bool(absent))
    if len(fields) > MAX_SITES:
        raise ValueError(f"{where} has {len(fields)} fields, more than {MAX_SITES}")
    first = first_field(group, [path for _, path in fields], version, where)
    indices = channel_indices(barcode, first, settings)
    planes = tuple(planes_of(c, first, settings, where) for c in settings.channels)
    time = chosen_time(range(1, first.extent("t") + 1), settings, f"{where}: {first.array}")
    numbers = {path: int(name) for _, path in fields if (name := path.rpartition("/")[2]).isdigit() and len(name) < 7}
    if len(numbers) != len(fields):
        raise ValueError(f"{where}: fields must be named by numbers, as '0'; {fields[0][1]!r} is the first")
    shift = 1 if 0 in numbers.values() else 0
    several = any(len(p) > 1 for p in planes)
    sites = []
    for well, path in fields:
        files = tuple(
            tuple(f"{group.root}/{path}#{indices[c]}" + (f"@{z}" if z else "") for z in p)
            for c, p in zip(settings.channels, planes, strict=True)
        )
        number = numbers[path] + shift
        sites.append(Site(well, number, tuple(f[0] for f in files), planes=files if several else ()))
    if len({(s.well, s.site) for s in sites}) != len(sites):
        raise ValueError(f"{where} lists a field twice")
    labels = [first.labels[indices[c]] or f"index {indices[c]}" for c in settings.channels]
    return Plate(
        barcode=barcode if time is None else f"{barcode}_t{time}",
        projection=settings.projection,
        planes=planes if several else (),
        folder=group.root,
        roots=(),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"{indices[c]} {label}" for c, label in zip(settings.channels, labels, strict=True)),
        channel_source="plate.c_axis" if settings.c_axis else "the OME-Zarr channels' labels",
        sites=tuple(sorted(sites, key=lambda s: (well_position(s.well), s.site))),
        pixel_um=first.pixel_um,
        notes=(f"images: OME-Zarr {VERSIONS[version][0]}, {group.root}",),
        warnings=tuple(f"{well} is listed by {group.root} but does not exist; left out" for well in absent),
    )


def first_field(group: Group, paths: Sequence[str], version: int, where: str) -> Field:
    """What the first field that is there declares; FileNotFoundError where none is."""
    missing: FileNotFoundError | None = None
    for path in paths:
        try:
            return read_field(group, path, version, where)
        except FileNotFoundError as error:
            missing = missing or error
    raise FileNotFoundError(f"{where}: none of {len(paths)} fields is there; the first is {paths[0]}") from missing


def check_version(result: Any, version: int, where: str) -> None:
    if result not in (*VERSIONS[version], *((None,) if version == 2 else ())):
        raise ValueError(
            f"{where} is OME-Zarr {str(result)[:20]!r} on zarr v{version}; 0.4 on v2 and 0.5 on v3 are read: convert it, "
            "for example with bioformats2raw"
        )


def wells(plate: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """(well, path) of the plate's wells."""
    rows, columns = (
        [str(mapping(entry, f"{where}: {key}").get("name")) for entry in listed(plate.get(key), f"{where}: {key}", 64)]
        for key in ("rows", "columns")
    )
    seen = set()
    for entry in listed(plate.get("wells"), f"{where}: wells", 64 * 64):
        path = str(mapping(entry, f"{where}: wells").get("path"))
        row, _, column = path.partition("/")
        if row not in rows or column not in columns or not NAME.fullmatch(row) or not NAME.fullmatch(column):
            raise ValueError(f"{where}: well path {path[:60]!r} is not made of its rows and columns; refused")
        well = parse_well(row + column, f"{where}: row {row!r} and column {column!r}:")
        if well in seen:
            raise ValueError(f"{where} lists well {well} twice")
        seen.add(well)
        yield well, path


def fields_of(group: Group, path: str, version: int, where: str) -> list[str]:
    """Paths of a well's fields; FileNotFoundError where it is not there."""
    where = f"{where}/{path}"
    attributes = group.attributes(path, version)[1]
    images = listed(mapping(attributes.get("well"), f"{where}: well").get("images"), f"{where}: images", 10_000)
    names = [str(mapping(image, f"{where}: images").get("path")) for image in images]
    if bad := [n for n in names if not NAME.fullmatch(n) or len(n) > 60]:
        raise ValueError(f"{where}: {bad[0][:60]!r} is not a field's name; refused")
    if len({str(image.get("acquisition")) for image in images}) > 1:
        raise ValueError(f"{where} has several acquisitions; give a plate with one")
    return [f"{path}/{name}" for name in names]


def channel_indices(barcode: str, field: Field, settings: PlateSettings) -> dict[str, int]:
    """Channel -> index on the C axis, by `plate.c_axis` or else by the field's labels; ValueError where one is absent."""
    n = field.extent("c")
    if settings.c_axis:
        wrong = [c for c in settings.channels if not 0 <= settings.c_axis.get(c, -1) < n]
        if wrong:
            said = ", ".join(str(settings.c_axis.get(c, "nothing")) for c in wrong)
            block = "\n".join(f"{c} = {i}" for i, c in enumerate(settings.channels))
            raise ValueError(
                f"{barcode}: plate.c_axis must say which of 0 .. {n - 1} is {', '.join(wrong)}; it says {said}. Put such "
                f"lines into a settings file (--config FILE):\n\n[plate.c_axis]\n{block}"
            )
        return {channel: settings.c_axis[channel] for channel in settings.channels}
    if not any(field.labels):
        raise ValueError(
            f"{barcode}: {field.array} names no channels (no omero labels). Say which of 0 .. {n - 1} is which in a "
            "settings file (--config FILE):\n\n[plate.c_axis]\n"
            + "\n".join(f"{c} = {i}" for i, c in enumerate(settings.channels))
        )
    names = {str(i): label for i, label in enumerate(field.labels) if label}
    keys = match_channels(barcode, names, "its OME-Zarr labels", settings)
    return {channel: int(key) for channel, key in keys.items()}


def read_field(group: Group, path: str, version: int, where: str) -> Field:
    """What a field declares, judged; ValueError or FileNotFoundError says what is wrong."""
    where = f"{where}/{path}"
    attributes = group.attributes(path, version)[1]
    scales = mapping(listed(attributes.get("multiscales"), f"{where}: multiscales", 16)[0], f"{where}: multiscales")
    named = [mapping(a, f"{where}: axes") for a in listed(scales.get("axes"), f"{where}: axes", 5)]
    axes = "".join(str(a.get("name")) for a in named)
    if not re.fullmatch(r"t?c?z?yx", axes):
        raise ValueError(f"{where}: axes {axes[:20]!r}; expected t, c, z, y, x in this order, y and x at least")
    dataset = mapping(listed(scales.get("datasets"), f"{where}: datasets", 64)[0], f"{where}: datasets")
    name = str(dataset.get("path"))
    if not ARRAY_PATH.fullmatch(name) or len(name) > 200:
        raise ValueError(f"{where}: {name[:60]!r} is not an array's path; refused")
    array = f"{path}/{name}"
    key = f"{array}/{'zarr.json' if version == 3 else '.zarray'}"
    declared = group.load(key)
    layout = layout_v3(declared, where) if version == 3 else layout_v2(declared, where)
    shape, chunks, outer = layout["shape"], layout["chunks"], layout["outer"]
    if len(shape) != len(axes) or len(chunks) != len(axes) or len(outer) != len(axes):
        raise ValueError(f"{where}: shape {shape} and chunks {chunks} for axes {axes!r}")
    maximum = {"t": MAX_TIMES, "c": MAX_CHANNELS, "z": MAX_DEPTH, "y": MAX_SIDE, "x": MAX_SIDE}
    for axis, n in zip(axes, shape, strict=True):
        if not 1 <= n <= maximum[axis]:
            raise ValueError(f"{where}: {n} along {axis}; 1 to {maximum[axis]} can be read")
    size = 2
    for n in outer:
        size *= n
    if size > MAX_CHUNK:
        raise ValueError(f"{where}: chunks {outer} of {size} bytes, more than {MAX_CHUNK}")
    labels = labels_of(attributes, dict(zip(axes, shape, strict=True)).get("c", 1))
    pixel_um = pixel_size(dataset, named, where)
    if layout["packer"] in IMAGE_PACKERS and any(n > 1 for n in chunks[:-2]):
        raise ValueError(f"{where}: chunks {chunks} of {layout['packer']}; those of one plane each are read")
    told = json.dumps(layout["declared"]).encode()
    return Field(array, told, version, axes, shape, chunks, outer, labels, pixel_um, layout["packer"], layout["index_bytes"])


def planes_of(channel: str, field: Field, settings: PlateSettings, where: str) -> tuple[int, ...]:
    """Planes of Z that are read of a channel, counted from 1; (0,) for the one that `plane_index` gives all channels."""
    if settings.projection == "none" and not settings.planes:
        plane_index(field, settings, where)
        return (0,)
    planes = chosen_planes(channel, range(1, field.extent("z") + 1), settings, f"{where}: {field.array}")
    return planes if field.extent("z") > 1 else (0,)


def plane_index(field: Field, settings: PlateSettings, where: str) -> int:
    """Which plane of Z is read: the only one, or `plate.plane`, counted from 1; ValueError where it does not say."""
    n, plane = field.extent("z"), settings.plane
    if plane is None and n > 1:
        raise ValueError(
            f"{where}: {field.array} has {n} planes; set plate.plane in the config to the one to read, 1 to {n}, or "
            'plate.projection to "max" or "mean"'
        )
    if plane is not None and not 1 <= plane <= n:
        raise ValueError(f"{where}: {field.array} has planes 1 to {n}, not plate.plane = {plane}")
    return (plane or 1) - 1


def labels_of(attributes: Mapping[str, Any], n: int) -> tuple[str, ...]:
    """The channels' labels; '' for what is not named."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or len(channels) != n:
        return ("",) * n
    return tuple(str(c.get("label") or "")[:80] if isinstance(c, dict) else "" for c in channels)


def pixel_size(dataset: Mapping[str, Any], axes: list[Mapping[str, Any]], where: str) -> float | None:
    """Micrometres of a pixel's side, where scale and unit say it."""
    transforms = dataset.get("coordinateTransformations")
    scales = [t.get("scale") for t in transforms if isinstance(t, dict)] if isinstance(transforms, list) else []
    scale = next((s for s in scales if isinstance(s, list) and len(s) == len(axes)), None)
    units = [MICROMETRES.get(str(a.get("unit"))) for a in axes[-2:]]
    if not scale or not all(isinstance(s, (int, float)) for s in scale) or None in units:
        return None
    y, x = (float(s) * float(unit or 0) for s, unit in zip(scale[-2:], units, strict=True))
    if not 0 < y < 1e3 or not 0 < x < 1e3:
        return None
    if abs(y - x) > SQUARE * x:
        raise ValueError(f"{where}: pixels are not square ({y} um high, {x} um wide)")
    return x
