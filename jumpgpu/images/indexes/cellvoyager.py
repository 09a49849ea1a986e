"""A CellVoyager's measurement (CV7000, CV8000, CQ1): MeasurementData.mlf lists its images, the files beside it say more.

Each is streamed through `xml_stream.py`.
"""

from collections.abc import Callable, Mapping

from ...settings.config import PlateSettings
from ...storage.buckets import Place
from ..channels import match_channels
from ..plate import Plate, plain_name
from .group import group_images, plain_file
from .index_image import IndexImage
from .listing import Folder, roots_of
from .xml_stream import (
    MAX_BYTES,
    MAX_CHANNELS,
    MAX_IMAGES,
    common_geometry,
    real,
    square_side,
    stream_elements,
    whole,
)

DATA, DETAIL = "MeasurementData.mlf", "MeasurementDetail.mrf"
NAMESPACE = "yokogawa.co.jp/BTS"
WHAT = "CellVoyager measurement"


def find_measurement(folder: Folder) -> str | None:
    """The list of a folder's images, in any case; None where there is none."""
    return called(folder, DATA)


def from_measurement(barcode: str, folder: Folder, name: str, root: Place, settings: PlateSettings) -> Plate:
    """A plate as its MeasurementData.mlf lists it; ValueError where that is malformed or lacks a channel."""
    path = folder.place / name
    records = Records(path)
    stream(folder, name, records.take)
    errors = records.errors
    if not records.images:
        raise ValueError(f"{barcode}: {path} lists no image")
    numbers = sorted({i.channel for i in records.images})
    detail = called(folder, DETAIL)
    geometry: dict[int, dict[str, str]] = {}
    setting = ""
    if detail:

        def take(tag: str, attributes: Mapping[str, str], text: str) -> None:
            nonlocal setting
            if tag == "MeasurementChannel" and len(geometry) < MAX_CHANNELS:
                geometry[whole(dict(attributes), "Ch", f"{folder.place}/{detail}")] = dict(attributes)
            elif tag == "MeasurementDetail":
                setting = attributes.get("MeasurementSettingFileName", "")

        stream(folder, detail, take)
    names, source = names_of(folder, setting, numbers)
    keys = match_channels(barcode, {str(n): names.get(n, str(n)) for n in numbers}, source, settings)
    wanted = {int(key): c for c, key in enumerate(keys.values())}
    images = [i for i in records.images if i.channel in wanted]

    def path_of(image: IndexImage) -> str:
        return str(folder.place / plain_file(image.url, barcode, path.name))

    grouped = group_images(barcode, images, wanted, path.name, settings, path_of)
    pixel_um, size = geometry_of(barcode, {n: geometry[n] for n in wanted if n in geometry}, names)
    failed = (f"{path.name} records {errors} errors of the microscope, the first: {records.first_error}",) if errors else ()
    return Plate(
        barcode=grouped.barcode(barcode),
        folder=folder.place,
        roots=roots_of(root),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"C{int(key):02d} {names.get(int(key), '')}".rstrip() for key in keys.values()),
        channel_source=f"{path.name}, {source}" if source != path.name else source,
        sites=grouped.sites,
        projection=settings.projection,
        planes=grouped.planes,
        pixel_um=pixel_um,
        size=size,
        notes=grouped.notes,
        warnings=failed,
    )


class Records:
    """Images that a MeasurementData.mlf lists, and what went wrong while they were taken."""

    def __init__(self, path: Place):
        self.path, self.images, self.errors, self.first_error = path, list[IndexImage](), 0, ""

    def take(self, tag: str, attributes: Mapping[str, str], text: str) -> None:
        if tag != "MeasurementRecord":
            return
        if attributes.get("Type") != "IMG":
            self.errors += 1
            self.first_error = self.first_error or " ".join(text.split())[:100]
            return
        if len(self.images) >= MAX_IMAGES:
            raise ValueError(f"{self.path}: more than {MAX_IMAGES} images")
        where, table = f"{self.path}: image {len(self.images) + 1}", dict(attributes)
        row, column, field, channel = (whole(table, key, where) for key in ("Row", "Column", "FieldIndex", "Ch"))
        plane, time = (whole(table, key, where) if key in table else 1 for key in ("ZIndex", "TimePoint"))
        x, y = (real(table, key, where) if table.get(key) else None for key in ("X", "Y"))
        self.images.append(IndexImage(row, column, field, plane, time, channel, text.strip(), x, y))


def names_of(folder: Folder, setting: str, numbers: list[int]) -> tuple[dict[int, str], str]:
    """What the measurement's setting (.mes) calls the channels, and its name; nothing where it is not there.

    A channel is called by its target where all differ, else by its filter.
    """
    file = called(folder, setting) if setting and plain_name(setting) else None
    if not file:
        return {}, DATA
    said: dict[int, tuple[str, str]] = {}

    def take(tag: str, attributes: Mapping[str, str], text: str) -> None:
        if tag == "Channel" and len(said) < MAX_CHANNELS and attributes.get("Ch", "").isdigit():
            said[int(attributes["Ch"])] = attributes.get("Target", "").strip(), attributes.get("Acquisition", "").strip()

    stream(folder, file, take)
    for part in (0, 1):
        names = {n: said[n][part] for n in numbers if n in said}
        if len(names) == len(numbers) and all(names.values()) and len(set(names.values())) == len(names):
            return names, file
    return {}, DATA


def geometry_of(
    barcode: str, channels: Mapping[int, dict[str, str]], names: Mapping[int, str]
) -> tuple[float | None, tuple[int, int] | None]:
    """Pixel size in um and (height, width) of the measured channels; ValueError where they differ."""
    pixels, sizes = {}, {}
    for n, table in channels.items():
        where = f"{barcode}: {DETAIL}: channel {n}"
        if table.get("HorizontalPixelDimension") and table.get("VerticalPixelDimension"):
            across, down = (real(table, f"{axis}PixelDimension", where) for axis in ("Horizontal", "Vertical"))
            pixels[n] = square_side(across, down, where)
        if table.get("HorizontalPixels"):
            sizes[n] = whole(table, "VerticalPixels", where), whole(table, "HorizontalPixels", where)
    return common_geometry(pixels, sizes, names, f"{barcode}: {DETAIL}")


def called(folder: Folder, name: str) -> str | None:
    """The file of this name in a folder, in any case; None where there is none."""
    return next((n for n in folder.files() if n.lower() == name.lower()), None)


def stream(folder: Folder, name: str, take: Callable[[str, Mapping[str, str], str], None]) -> None:
    """`take(tag, attributes, text)` of each element as it ends; ValueError where a file is no measurement's."""
    with folder.open(name, MAX_BYTES) as file:
        stream_elements(folder.place / name, file, NAMESPACE, WHAT, take)
