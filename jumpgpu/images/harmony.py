"""Harmony's Index.idx.xml and Index.xml (schemas V5 to V7): images, channels, pixel size, positions, flat fields.

The file is streamed through defusedxml (no DTD, no entities, no external references) into a few kilobytes an image, with
bounds on size, depth and text, so a hostile index ends in a ValueError and not in swap.
"""

import io
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ..storage.buckets import Place

INDEX_NAMES = ("Index.idx.xml", "Index.xml")
MAX_BYTES = 1 << 30  # of an index; a plate of 384 wells x 9 fields x 8 channels has 60 MB
MAX_TOKEN = 1 << 20  # bytes of one tag
MAX_TEXT = 1 << 14  # characters of one element that is read
MAX_DEPTH = 16  # real ones have 6
MAX_IMAGES = 2_000_000
MAX_CHANNELS = 64
CHUNK = 1 << 16
WANTED = frozenset(  # leaves whose text is kept
    {"Name", "PlateID", "URL", "Row", "Col", "FieldID", "PlaneID", "TimepointID", "ChannelID", "ChannelName", "PositionX"}
    | {"PositionY", "ImageResolutionX", "ImageResolutionY", "ImageSizeX", "ImageSizeY", "FlatfieldProfile"}
)


@dataclass(frozen=True)
class Flatfield:
    """A channel's FlatfieldProfile: the fall-off as a polynomial over the pixel grid.

    value(x, y) = sum of coefficients[d][j] * u**(d - j) * v**j, u = (x - origin[0]) * scale[0], v likewise of y.
    No coefficients: Harmony found nothing to correct (type Identity), and the function is 1.
    """

    coefficients: tuple[tuple[float, ...], ...] = ()
    dims: tuple[int, int] = (0, 0)  # width, height
    origin: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def usable(self) -> bool:
        """False where Harmony wrote NaN or INF for a coefficient."""
        numbers = [c for row in self.coefficients for c in row] + [*self.origin, *self.scale]
        return all(math.isfinite(c) for c in numbers)


@dataclass(frozen=True)
class IndexImage:
    """One image of an index."""

    row: int
    column: int
    field: int
    plane: int
    time: int
    channel: int
    url: str
    x_um: float | None = None
    y_um: float | None = None


@dataclass(frozen=True)
class Index:
    """What an index says about its plate."""

    name: str
    channels: dict[int, str]  # Phenix channel number -> Harmony's name
    images: list[IndexImage]
    pixel_um: float | None
    size: tuple[int, int] | None  # H, W
    flatfields: dict[int, Flatfield] = field(default_factory=dict)


def find_index(folder: Path, root: Path) -> Path | None:
    """The index beside the images, or in the folder above them where that is inside the root."""
    above = folder.name == "Images" and folder.parent.resolve().is_relative_to(root.resolve())
    places = (folder, folder.parent) if above else (folder,)
    return next((p / name for p in places for name in INDEX_NAMES if (p / name).is_file()), None)


def read_index(path: Place, data: bytes | None = None) -> Index:
    """Read an index, from its bytes where they are given; ValueError where it is none, malformed or past a bound."""
    if isinstance(path, Path) and data is None and (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than an index may have ({MAX_BYTES})")
    target = _Reader(path)
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        with open(path, "rb") if data is None else io.BytesIO(data) as file:
            seen, idle = 0, 0
            while chunk := file.read(CHUNK):
                parser.feed(chunk)
                idle = 0 if target.events != seen else idle + len(chunk)
                seen = target.events
                if idle > MAX_TOKEN:
                    raise ValueError(f"{path}: a tag of more than {MAX_TOKEN} bytes; no Harmony index")
            parser.close()
    except DefusedXmlException as error:
        raise ValueError(f"{path}: a DTD, entity or external reference is refused ({type(error).__name__})") from error
    except (ParseError, LookupError, UnicodeError) as error:
        raise ValueError(f"{path}: not well-formed XML ({error}); export the index again or delete it") from error
    return target.index()


class _Reader:
    """Target of the parser: keeps the text of wanted leaves, and a row an image."""

    def __init__(self, path: Place):
        self.path = path
        self.events = 0
        self.stack: list[str] = []
        self.text: list[str] | None = None
        self.length = 0
        self.image: dict[str, str] = {}
        self.entry: dict[str, str] = {}
        self.plate: dict[str, str] = {}
        self.channels: dict[int, str] = {}
        self.images: list[IndexImage] = []
        self.facts: dict[str, str] = {}  # first pixel size and image size met
        self.flatfields: dict[int, Flatfield] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.events += 1
        tag = tag.rpartition("}")[2]
        if not self.stack and tag != "EvaluationInputData":
            raise ValueError(f"{self.path}: root element {tag[:40]!r}; a Harmony index has EvaluationInputData")
        self.stack.append(tag)
        if len(self.stack) > MAX_DEPTH:
            raise ValueError(f"{self.path}: elements nested deeper than {MAX_DEPTH}; no Harmony index")
        if tag == "Image":
            self.image = {}
        elif tag == "Entry":
            self.entry = {"ChannelID": attributes.get("ChannelID", "")}
        self.text, self.length = ([], 0) if tag in WANTED else (None, 0)

    def data(self, text: str) -> None:
        self.events += 1
        if self.text is not None:
            self.length += len(text)
            if self.length > MAX_TEXT:
                raise ValueError(f"{self.path}: {self.stack[-1]} holds more than {MAX_TEXT} characters")
            self.text.append(text)

    def end(self, tag: str) -> None:
        self.events += 1
        tag = self.stack.pop()
        parent = self.stack[-1] if self.stack else ""
        if self.text is not None:
            text = "".join(self.text).strip()
            {"Image": self.image, "Entry": self.entry, "Plate": self.plate}.get(parent, {})[tag] = text
            self.text = None
        elif tag == "Image" and parent == "Images":
            self.add_image()
        elif tag == "Entry":
            self.add_entry()

    def close(self) -> None:
        """Asked for by the parser."""

    def add_image(self) -> None:
        image, where = self.image, f"{self.path}: image {len(self.images) + 1}"
        if len(self.images) >= MAX_IMAGES:
            raise ValueError(f"{self.path}: more than {MAX_IMAGES} images")
        url = image.get("URL", "")
        if not url:
            return  # an image that was planned and not taken
        number = {tag: whole(image, tag, where) for tag in ("Row", "Col", "FieldID", "ChannelID")}
        plane, time = (whole(image, tag, where) if tag in image else 1 for tag in ("PlaneID", "TimepointID"))
        if name := image.get("ChannelName"):
            self.channels.setdefault(number["ChannelID"], name)
        for tag in ("ImageResolutionX", "ImageResolutionY", "ImageSizeX", "ImageSizeY"):
            if tag in image:
                self.facts.setdefault(tag, image[tag])
        x, y = (1e6 * real(image, tag, where) if image.get(tag) else None for tag in ("PositionX", "PositionY"))
        self.images.append(
            IndexImage(number["Row"], number["Col"], number["FieldID"], plane, time, number["ChannelID"], url, x, y)
        )

    def add_entry(self) -> None:
        entry = self.entry
        if not entry.get("ChannelID"):
            return
        channel = whole(entry, "ChannelID", f"{self.path}: Entry")
        if len(self.channels) > MAX_CHANNELS or len(self.flatfields) > MAX_CHANNELS:
            raise ValueError(f"{self.path}: more than {MAX_CHANNELS} channels")
        if name := entry.get("ChannelName"):
            self.channels[channel] = name
        for tag in ("ImageResolutionX", "ImageResolutionY", "ImageSizeX", "ImageSizeY"):
            if tag in entry:
                self.facts.setdefault(tag, entry[tag])
        if text := entry.get("FlatfieldProfile"):
            self.flatfields[channel] = parse_flatfield(text, f"{self.path}: channel {channel}")

    def index(self) -> Index:
        if not self.images:
            raise ValueError(f"{self.path}: lists no image")
        facts, where = self.facts, str(self.path)
        pixel_um = None
        if "ImageResolutionX" in facts:
            pixel_um = 1e6 * real(facts, "ImageResolutionX", where)
            if "ImageResolutionY" in facts and real(facts, "ImageResolutionY", where) * 1e6 != pixel_um:
                raise ValueError(f"{where}: pixels are not square ({pixel_um} um wide, {facts['ImageResolutionY']} m high)")
        size = None
        if "ImageSizeX" in facts and "ImageSizeY" in facts:
            size = whole(facts, "ImageSizeY", where), whole(facts, "ImageSizeX", where)
        name = self.plate.get("Name") or self.plate.get("PlateID") or ""
        return Index(name, dict(sorted(self.channels.items())), self.images, pixel_um, size, self.flatfields)


def whole(table: dict[str, str], tag: str, where: str) -> int:
    """A non-negative integer of at most nine digits."""
    text = table.get(tag, "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{where}: {tag} must be a whole number, got {text[:40]!r}")
    return int(text)


def real(table: dict[str, str], tag: str, where: str) -> float:
    """A finite number."""
    try:
        value = float(table[tag])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {tag} must be a number, got {table[tag][:40]!r}")
    return value


def parse_flatfield(text: str, where: str) -> Flatfield:
    """A FlatfieldProfile in Acapella's notation, of which only the Background's Profile is read.

    `{Background: {..., Profile: {Coefficients: [[1.2], [0.1, NaN]], Dims: [..], Origin: .., Scale: .., Type: Polynomial}}}`
    """
    match = re.search(r"Background:\s*\{.*?Profile:\s*\{([^{}]*)\}", text, re.DOTALL)
    kind = re.search(r"Type:\s*(\w+)", match[1]) if match else None
    if not match or not kind:
        raise ValueError(f"{where}: FlatfieldProfile without a Background Profile: {text[:80]!r}")
    if kind[1] == "Identity":
        return Flatfield()
    if kind[1] != "Polynomial":
        raise ValueError(f"{where}: FlatfieldProfile of type {kind[1][:40]!r}; Polynomial and Identity are known")

    def numbers(key: str) -> list[object]:
        found = re.search(rf"{key}:\s*(\[[-+\d.eE,\s\[\]A-Za-z]*?\])\s*(?:,\s*[A-Z]\w*:|$)", match[1])
        try:
            value = (
                json.loads(re.sub(r"(?i)\binf(inity)?\b", "Infinity", re.sub(r"(?i)\bnan\b", "NaN", found[1])))
                if found
                else None
            )
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list) or not value:
            raise ValueError(f"{where}: {key} of the FlatfieldProfile cannot be read: {match[1][:80]!r}")
        return value

    def pair(key: str) -> tuple[float, float]:
        value = numbers(key)
        if len(value) != 2 or not all(isinstance(v, (int, float)) for v in value):
            raise ValueError(f"{where}: {key} of the FlatfieldProfile must be two numbers, got {value}")
        return float(value[0]), float(value[1])  # type: ignore[arg-type]

    rows = numbers("Coefficients")
    if len(rows) > 16 or not all(
        isinstance(row, list) and len(row) == d + 1 and all(isinstance(c, (int, float)) for c in row)
        for d, row in enumerate(rows)
    ):
        raise ValueError(
            f"{where}: Coefficients of the FlatfieldProfile must have 1, 2, 3 .. terms by degree, at most 16 rows"
        )
    width, height = pair("Dims")
    if not (1 <= width <= 65535 and 1 <= height <= 65535):
        raise ValueError(f"{where}: Dims of the FlatfieldProfile are {width} x {height}")
    coefficients = tuple(tuple(float(c) for c in row) for row in rows)  # type: ignore[attr-defined]
    return Flatfield(coefficients, (int(width), int(height)), pair("Origin"), pair("Scale"))
