"""A CellVoyager's measurement (CV7000, CV8000, CQ1): MeasurementData.mlf lists its images, the files beside it say more.

Each is streamed through defusedxml (no DTD, no entities, no external references), with bounds on size and number.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ...settings.config import PlateSettings
from ..channels import match_channels
from ..plate import Plate, plain_name
from .group import group_images, plain_file
from .harmony import CHUNK, MAX_BYTES, MAX_CHANNELS, MAX_IMAGES, MAX_TEXT, MAX_TOKEN, IndexImage, real, spread, whole

DATA, DETAIL = "MeasurementData.mlf", "MeasurementDetail.mrf"
NAMESPACE = "yokogawa.co.jp/BTS"
SQUARE = 1e-3  # what the sides of a pixel may differ by, of its width


def find_measurement(folder: Path) -> Path | None:
    """The list of a folder's images, in any case; None where there is none."""
    return next((p for p in sorted(folder.iterdir()) if p.name.lower() == DATA.lower() and p.is_file()), None)


def from_measurement(barcode: str, path: Path, root: Path, settings: PlateSettings) -> Plate:
    """A plate as its MeasurementData.mlf lists it; ValueError where that is malformed or lacks a channel."""
    folder = path.parent
    records = Records(path)
    stream(path, records.take)
    errors = records.errors
    if not records.images:
        raise ValueError(f"{barcode}: {path} lists no image")
    numbers = sorted({i.channel for i in records.images})
    detail = beside(folder, DETAIL)
    geometry: dict[int, dict[str, str]] = {}
    setting = ""
    if detail:

        def take(tag: str, attributes: Mapping[str, str], text: str) -> None:
            nonlocal setting
            if tag == "MeasurementChannel" and len(geometry) < MAX_CHANNELS:
                geometry[whole(dict(attributes), "Ch", str(detail))] = dict(attributes)
            elif tag == "MeasurementDetail":
                setting = attributes.get("MeasurementSettingFileName", "")

        stream(detail, take)
    names, source = names_of(folder, setting, numbers)
    keys = match_channels(barcode, {str(n): names.get(n, str(n)) for n in numbers}, source, settings)
    wanted = {int(key): c for c, key in enumerate(keys.values())}
    images = [i for i in records.images if i.channel in wanted]

    def path_of(image: IndexImage) -> str:
        return str(folder / plain_file(image.url, barcode, path.name))

    grouped = group_images(barcode, images, wanted, path.name, settings, path_of)
    pixel_um, size = geometry_of(barcode, {n: geometry[n] for n in wanted if n in geometry}, names)
    failed = (f"{path.name} records {errors} errors of the microscope, the first: {records.first_error}",) if errors else ()
    return Plate(
        barcode=grouped.barcode(barcode),
        folder=folder,
        roots=(root.resolve(),),
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

    def __init__(self, path: Path):
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


def names_of(folder: Path, setting: str, numbers: list[int]) -> tuple[dict[int, str], str]:
    """What the measurement's setting (.mes) calls the channels, and its name; nothing where it is not there.

    A channel is called by its target where all differ, else by its filter.
    """
    path = beside(folder, setting) if setting and plain_name(setting) else None
    if not path:
        return {}, DATA
    said: dict[int, tuple[str, str]] = {}

    def take(tag: str, attributes: Mapping[str, str], text: str) -> None:
        if tag == "Channel" and len(said) < MAX_CHANNELS and attributes.get("Ch", "").isdigit():
            said[int(attributes["Ch"])] = attributes.get("Target", "").strip(), attributes.get("Acquisition", "").strip()

    stream(path, take)
    for part in (0, 1):
        names = {n: said[n][part] for n in numbers if n in said}
        if len(names) == len(numbers) and all(names.values()) and len(set(names.values())) == len(names):
            return names, path.name
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
            if not (across > 0 and abs(down - across) <= SQUARE * across):
                raise ValueError(f"{where}: pixels are not square ({across:g} um wide, {down:g} um high)")
            pixels[n] = across
        if table.get("HorizontalPixels"):
            sizes[n] = whole(table, "VerticalPixels", where), whole(table, "HorizontalPixels", where)
    for what, said, differ in (
        ("pixels of", {n: f"{v:.4g} um" for n, v in pixels.items()}, spread(pixels.values()) > SQUARE),
        ("size", {n: f"{h} x {w} pixels" for n, (h, w) in sizes.items()}, len(set(sizes.values())) > 1),
    ):
        if differ:
            listed = ", ".join(f"channel {n} {names.get(n, '')} {text}" for n, text in said.items())
            raise ValueError(f"{barcode}: {DETAIL}: the measured channels differ in {what} ({listed}): plate.channels")
    return next(iter(pixels.values()), None), next(iter(sizes.values()), None)


def beside(folder: Path, name: str) -> Path | None:
    """A file of this name in a folder, in any case, inside it."""
    return next((p for p in folder.iterdir() if p.name.lower() == name.lower() and p.is_file() and not p.is_symlink()), None)


def stream(path: Path, take: Callable[[str, Mapping[str, str], str], None]) -> None:
    """`take(tag, attributes, text)` of each element as it ends; ValueError where a file is no measurement's."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than an index may have ({MAX_BYTES})")
    target = _Elements(path, take)
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        with open(path, "rb") as raw, io.BufferedReader(raw, CHUNK) as file:
            seen, idle = 0, 0
            while chunk := file.read(CHUNK):
                parser.feed(chunk)
                idle = 0 if target.events != seen else idle + len(chunk)
                seen = target.events
                if idle > MAX_TOKEN:
                    raise ValueError(f"{path}: a tag of more than {MAX_TOKEN} bytes; no CellVoyager measurement")
            parser.close()
    except DefusedXmlException as error:
        raise ValueError(f"{path}: a DTD, entity or external reference is refused ({type(error).__name__})") from error
    except (ParseError, LookupError, UnicodeError) as error:
        raise ValueError(f"{path}: not well-formed XML ({error}); export the measurement again") from error


class _Elements:
    """Target of the parser: an element's attributes and text, without namespaces."""

    def __init__(self, path: Path, take: Callable[[str, Mapping[str, str], str], None]):
        self.path, self.give, self.events = path, take, 0
        self.open: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.length = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.events += 1
        if not self.open and NAMESPACE not in tag:
            raise ValueError(f"{self.path}: root element {tag[:60]!r}; a CellVoyager's is of {NAMESPACE}")
        if len(self.open) >= 16:
            raise ValueError(f"{self.path}: elements nested deeper than 16; no CellVoyager measurement")
        self.open.append((tag.rpartition("}")[2], {k.rpartition("}")[2]: v[:MAX_TEXT] for k, v in attributes.items()}))
        self.text, self.length = [], 0

    def data(self, text: str) -> None:
        self.events += 1
        self.length += len(text)
        if self.length > MAX_TEXT:
            raise ValueError(f"{self.path}: {self.open[-1][0]} holds more than {MAX_TEXT} characters")
        self.text.append(text)

    def end(self, tag: str) -> None:
        self.events += 1
        name, attributes = self.open.pop()
        self.give(name, attributes, "".join(self.text))
        self.text, self.length = [], 0

    def close(self) -> None:
        """Asked for by the parser."""
