"""Harmony's and Columbus's indexes (schemas V4 to V7): images, channels, pixel size, positions, flat fields.

The file is streamed (`xml_stream.py`) into a few kilobytes an image.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from ...storage.buckets import Place
from .flatfield import Flatfield, parse_flatfield
from .index_image import IndexImage
from .listing import Folder
from .xml_stream import MAX_CHANNELS, MAX_IMAGES, Text, common_geometry, real, square_side, stream_xml, whole

INDEX_NAMES = (  # Harmony's, its export's with flat fields and Columbus's, in any case; the first of a folder is read
    "Index.idx.xml",
    "Index.xml",
    "Index.ref.xml",
    "ImageIndex.ColumbusIDX.xml",
)
COMPANIONS = ("measurementindex.columbusidx.xml",)  # lists the files of a Columbus measurement, and no image
METRES = {"m": 1.0, "dm": 1e-1, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "pm": 1e-12}
GEOMETRY = ("ImageResolutionX", "ImageResolutionY", "ImageSizeX", "ImageSizeY", "MaxIntensity")
WANTED = frozenset(  # leaves whose text is kept
    {"Name", "PlateID", "URL", "Row", "Col", "FieldID", "PlaneID", "TimepointID", "ChannelID", "ChannelName", "PositionX"}
    | {"PositionY", "FlatfieldProfile", *GEOMETRY}
)
Geometry = tuple[tuple[str, str] | None, ...]  # text and Unit of each of GEOMETRY, None where it is absent


@dataclass(frozen=True)
class Index:
    """What an index says about its plate.

    channels : Phenix channel number -> Harmony's name
    geometries : channel number -> what its images say of their pixels and size, and how many say so
    renamed : channels that the index calls by several names -> those names
    notes : what a reader of the log should know
    """

    name: str
    channels: dict[int, str]
    images: list[IndexImage]
    geometries: dict[int, Counter[Geometry]]
    flatfields: dict[int, Flatfield] = field(default_factory=dict)
    renamed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def geometry(self, channels: Collection[int], where: str) -> tuple[float | None, tuple[int, int] | None]:
        """Pixel size in um and (height, width) of these channels' images, of most of them where they differ.

        None where the index does not say. Raises ValueError where two channels differ, or what is said is no size.
        """
        pixels: dict[int, float] = {}
        sizes: dict[int, tuple[int, int]] = {}
        for channel in channels:
            if not (said := self.geometries.get(channel)):
                continue
            of = f"{where}: channel {channel} {self.channels.get(channel, '')}".rstrip()
            x, y, width, height, _ = said.most_common(1)[0][0]
            if x or y:
                across = length_um(*(x or y or ("", "")), f"{of}: ImageResolutionX")
                down = length_um(*(y or x or ("", "")), f"{of}: ImageResolutionY")
                pixels[channel] = square_side(across, down, of)
            if width and height:
                table = {"ImageSizeX": width[0], "ImageSizeY": height[0]}
                sizes[channel] = whole(table, "ImageSizeY", of), whole(table, "ImageSizeX", of)
        return common_geometry(pixels, sizes, self.channels, where)

    def mixed(self, channels: Collection[int]) -> bool:
        """Whether images of one of these channels differ in size."""
        sizes = [{(said[2], said[3]) for said in self.geometries.get(c, ()) if said[2] and said[3]} for c in channels]
        return any(len(of_channel) > 1 for of_channel in sizes)

    def greatest(self, channels: Collection[int]) -> dict[int, str]:
        """What the index gives as the greatest count of these channels, where it does."""
        said = {c: self.geometries[c].most_common(1)[0][0][-1] for c in channels if self.geometries.get(c)}
        return {c: cell[0] for c, cell in said.items() if cell}


def length_um(text: str, unit: str, where: str) -> float:
    """A length as an index writes it, in um; metres where it gives no Unit. ValueError for what is no length."""
    word = unit.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")
    word = {"": "m", "meter": "m", "metre": "m", "millimeter": "mm", "micrometer": "um", "micron": "um"}.get(word, word)
    if word not in METRES:
        raise ValueError(f"{where} is in {unit[:20]!r}; known units are {', '.join(METRES)}")
    return METRES[word] * 1e6 * real({"": text}, "", where)


@dataclass(frozen=True)
class IndexFiles:
    """The index files of a folder: those that can be read, the first before the others, and others called index."""

    known: tuple[tuple[Folder, str], ...]
    unread: tuple[Place, ...]


def index_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of a folder's files that are an index's, in the order of `INDEX_NAMES`, and of other `*Index*.xml*`."""
    order = {name.lower(): i for i, name in enumerate(INDEX_NAMES)}
    known, unread = [], []
    for name in names:
        lower = name.lower()
        if lower in order:
            known.append(name)
        elif "index" in lower and ".xml" in lower and not lower.startswith(".") and lower not in COMPANIONS:
            unread.append(name)
    return sorted(known, key=lambda n: (order[n.lower()], n)), sorted(unread)


def find_indexes(folder: Folder) -> IndexFiles:
    """Index files beside the images and in the folder above an `Images` folder.

    Raises ValueError where one lies above the root, which would be needed and must not be read.
    """
    places = [folder, folder.above()] if folder.place.absolute().name.lower() == "images" else [folder]
    known: list[tuple[Folder, str]] = []
    unread: list[Place] = []
    for place in places:
        inside = place.readable()
        result, others = index_names(place.files())
        if result and not inside and not known:
            raise ValueError(
                f"{place.place / result[0]} says what the channels in {folder.place} are, and is outside the images root "
                f"{folder.root}; give --images {place.place}"
            )
        known += [(place, name) for name in result if inside]
        unread += [place.place / name for name in others if inside]
    return IndexFiles(tuple(known), tuple(unread))


def read_index(path: Place, file: BinaryIO) -> Index:
    """Read an index; ValueError where it is none, malformed or past a bound."""
    target = _Reader(path)
    stream_xml(path, file, target)
    return target.index()


class _Reader:
    """Target of the parser: keeps the text of wanted leaves, and a row per image."""

    what = "Harmony index"

    def __init__(self, path: Place):
        self.path = path
        self.stack: list[str] = []
        self.text = Text(path)
        self.unit = ""
        self.units: dict[str, str] = {}  # of the Image or Entry being read
        self.page = ""
        self.image: dict[str, str] = {}
        self.entry: dict[str, str] = {}
        self.plate: dict[str, str] = {}
        self.channels: dict[int, str] = {}
        self.renamed: dict[int, dict[str, None]] = {}  # names in the order met
        self.images: list[IndexImage] = []
        self.geometries: dict[int, Counter[Geometry]] = {}  # of images that say it themselves
        self.described: dict[int, Geometry] = {}  # of channels
        self.bad_positions = 0
        self.flatfields: dict[int, Flatfield] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]
        if not self.stack and tag != "EvaluationInputData":
            raise ValueError(f"{self.path}: root element {tag[:40]!r}; a Harmony index has EvaluationInputData")
        self.stack.append(tag)
        if tag == "Image":
            self.image, self.units, self.page = {}, {}, ""
        elif tag == "Entry":
            self.entry, self.units = {"ChannelID": attributes.get("ChannelID", "")}, {}
        elif tag == "URL":
            self.page = attributes.get("BufferNo", "")
        self.unit = attributes.get("Unit", "")
        self.text.clear()

    def data(self, text: str) -> None:
        if self.stack[-1] in WANTED:
            self.text.add(text, self.stack[-1])

    def end(self, tag: str) -> None:
        tag = self.stack.pop()
        parent = self.stack[-1] if self.stack else ""
        if tag in WANTED:
            text = str(self.text).strip()
            {"Image": self.image, "Entry": self.entry, "Plate": self.plate}.get(parent, {})[tag] = text
            self.units[tag] = self.unit
            self.text.clear()
        elif tag == "Image" and parent == "Images":
            self.add_image()
        elif tag == "Entry":
            self.add_entry()

    def add_image(self) -> None:
        image, where = self.image, f"{self.path}: image {len(self.images) + 1}"
        if len(self.images) >= MAX_IMAGES:
            raise ValueError(f"{self.path}: more than {MAX_IMAGES} images")
        url = image.get("URL", "")
        if not url:
            return  # an image that was planned and not taken
        number = {tag: whole(image, tag, where) for tag in ("Row", "Col", "FieldID", "ChannelID")}
        plane, time = (whole(image, tag, where) if tag in image else 1 for tag in ("PlaneID", "TimepointID"))
        self.name_channel(number["ChannelID"], image.get("ChannelName", ""))
        self.geometries.setdefault(number["ChannelID"], Counter())[self.geometry_of(image)] += 1
        x, y = self.position(image, "PositionX"), self.position(image, "PositionY")
        page = whole({"BufferNo": self.page}, "BufferNo", where) + 1 if self.page else 0
        self.images.append(
            IndexImage(number["Row"], number["Col"], number["FieldID"], plane, time, number["ChannelID"], url, x, y, page)
        )

    def name_channel(self, channel: int, name: str) -> None:
        known = self.channels.setdefault(channel, name) if name else ""
        if known != name and len(others := self.renamed.setdefault(channel, {known: None})) < MAX_CHANNELS:
            others[name] = None

    def geometry_of(self, table: dict[str, str]) -> Geometry:
        return tuple((table[tag], self.units.get(tag, "")) if table.get(tag) else None for tag in GEOMETRY)

    def position(self, image: dict[str, str], tag: str) -> float | None:
        """A stage position in um; None where there is none or it is no length, which is counted."""
        if not image.get(tag):
            return None
        try:
            return length_um(image[tag], self.units.get(tag, ""), tag)
        except ValueError:
            self.bad_positions += 1
            return None

    def add_entry(self) -> None:
        entry = self.entry
        if not entry.get("ChannelID"):
            return
        channel = whole(entry, "ChannelID", f"{self.path}: Entry")
        if max(len(self.channels), len(self.flatfields), len(self.described)) > MAX_CHANNELS:
            raise ValueError(f"{self.path}: more than {MAX_CHANNELS} channels")
        self.name_channel(channel, entry.get("ChannelName", ""))
        before = self.described.get(channel, (None,) * len(GEOMETRY))  # another Map may say another part
        self.described[channel] = tuple(new or old for new, old in zip(self.geometry_of(entry), before, strict=True))
        if text := entry.get("FlatfieldProfile"):
            try:
                self.flatfields[channel] = parse_flatfield(text, f"{self.path}: channel {channel}")
            except ValueError as error:
                self.flatfields[channel] = Flatfield(problem=str(error))

    def index(self) -> Index:
        if not self.images:
            raise ValueError(f"{self.path}: lists no image")
        geometries: dict[int, Counter[Geometry]] = {}
        for channel, counted in self.geometries.items():
            described = self.described.get(channel, (None,) * len(GEOMETRY))
            for said, n in counted.items():
                own = tuple(mine or its for mine, its in zip(said, described, strict=True))
                geometries.setdefault(channel, Counter())[own] += n
        name = self.plate.get("Name") or self.plate.get("PlateID") or ""
        bad = f"{self.path.name}: {self.bad_positions} positions of images are not lengths; they are left out"
        notes = (bad,) if self.bad_positions else ()
        held = Counter(image.url for image in self.images)  # a file of one image is read as any other
        images = [dataclasses.replace(i, page=0) if held[i.url] == 1 and i.page == 1 else i for i in self.images]
        channels, renamed = dict(sorted(self.channels.items())), {c: tuple(names) for c, names in self.renamed.items()}
        return Index(name, channels, images, geometries, self.flatfields, renamed, notes)


def check_all_read(barcode: str, unread: Collection[Place]) -> None:
    """ValueError where channel numbers would be assumed although a file beside the images may say them."""
    if unread:
        raise ValueError(
            f"{barcode}: {', '.join(map(str, sorted(unread)[:5]))}: an index file with an unknown name "
            f"({', '.join(INDEX_NAMES)}); rename it to the one it is, or move it away to have [plate.numbers] say which "
            "channel is which"
        )
