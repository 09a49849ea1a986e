"""Microscopes' XML, which is not trusted: streamed through defusedxml (no DTD, no entities, no external references).

There are bounds on depth, on an element's text and on a tag, so that a hostile file ends in a ValueError and not in swap.
Numbers and pixel sizes as such files write them are read here too.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, Protocol
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ...storage.buckets import Place

MAX_BYTES = 1 << 30  # of an index; a plate of 384 wells x 9 fields x 8 channels has 60 MB
MAX_TOKEN = 1 << 20  # bytes of one tag
MAX_TEXT = 1 << 14  # characters of one element that is read
MAX_DEPTH = 16  # real ones have 6
MAX_IMAGES = 2_000_000
MAX_CHANNELS = 64
CHUNK = 1 << 16
SQUARE = 1e-3  # what the sides of a pixel may differ by, of its width


class Target(Protocol):
    """What a parser tells of a file: `expat`'s calls, and what kind of file it should be, for errors."""

    what: str

    def start(self, tag: str, attributes: dict[str, str]) -> Any: ...
    def data(self, text: str) -> Any: ...
    def end(self, tag: str) -> Any: ...


def stream_xml(path: Place, file: BinaryIO, target: Target) -> None:
    """Parse a file; ValueError where it is not well-formed, refers to anything, or is past a bound."""
    counted = _Bounded(path, target)
    parser = DefusedXMLParser(target=counted, forbid_dtd=True)
    try:
        seen, idle = 0, 0
        while chunk := file.read(CHUNK):
            parser.feed(chunk)
            idle = 0 if counted.events != seen else idle + len(chunk)
            seen = counted.events
            if idle > MAX_TOKEN:
                raise ValueError(f"{path}: a tag of more than {MAX_TOKEN} bytes; no {target.what}")
        parser.close()
    except DefusedXmlException as error:
        raise ValueError(f"{path}: a DTD, entity or external reference is refused ({type(error).__name__})") from error
    except (ParseError, LookupError, UnicodeError) as error:
        raise ValueError(f"{path}: not well-formed XML ({error}); export the {target.what} again or delete it") from error


class _Bounded:
    """A target's calls, counted, and not too deep."""

    def __init__(self, path: Place, target: Target):
        self.path, self.target = path, target
        self.events = self.depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.events += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"{self.path}: elements nested deeper than {MAX_DEPTH}; no {self.target.what}")
        self.target.start(tag, attributes)

    def data(self, text: str) -> None:
        self.events += 1
        self.target.data(text)

    def end(self, tag: str) -> None:
        self.events += 1
        self.depth -= 1
        self.target.end(tag)

    def close(self) -> None:
        """Asked for by the parser."""


class Text:
    """An element's text as it comes; ValueError past the bound."""

    def __init__(self, path: Place):
        self.path, self.parts, self.length = path, list[str](), 0

    def clear(self) -> None:
        self.parts, self.length = [], 0

    def add(self, text: str, tag: str) -> None:
        self.length += len(text)
        if self.length > MAX_TEXT:
            raise ValueError(f"{self.path}: {tag} holds more than {MAX_TEXT} characters")
        self.parts.append(text)

    def __str__(self) -> str:
        return "".join(self.parts)


def stream_elements(
    path: Place, file: BinaryIO, namespace: str, what: str, take: Callable[[str, Mapping[str, str], str], None]
) -> None:
    """`take(tag, attributes, text)` of each element as it ends, without namespaces; ValueError for another root's."""
    stream_xml(path, file, _Elements(path, namespace, what, take))


class _Elements:
    def __init__(self, path: Place, namespace: str, what: str, take: Callable[[str, Mapping[str, str], str], None]):
        self.path, self.namespace, self.what, self.take = path, namespace, what, take
        self.open: list[tuple[str, dict[str, str]]] = []
        self.text = Text(path)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.open and self.namespace not in tag:
            raise ValueError(f"{self.path}: root element {tag[:60]!r}; a {self.what} is of {self.namespace}")
        self.open.append((tag.rpartition("}")[2], {k.rpartition("}")[2]: v[:MAX_TEXT] for k, v in attributes.items()}))
        self.text.clear()

    def data(self, text: str) -> None:
        self.text.add(text, self.open[-1][0])

    def end(self, tag: str) -> None:
        name, attributes = self.open.pop()
        self.take(name, attributes, str(self.text))
        self.text.clear()


def whole(table: Mapping[str, str], tag: str, where: str) -> int:
    """A non-negative integer of at most nine digits."""
    text = table.get(tag, "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{where}: {tag} must be a whole number, got {text[:40]!r}")
    return int(text)


def real(table: Mapping[str, str], tag: str, where: str) -> float:
    """A finite number."""
    try:
        value = float(table[tag])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {tag} must be a number, got {table[tag][:40]!r}")
    return value


def spread(values: Iterable[float]) -> float:
    """How far numbers above 0 lie apart, as a share of the least; 0 without any."""
    values = list(values)
    return max(values) / min(values) - 1 if values else 0.0


def square_side(across: float, down: float, where: str) -> float:
    """A pixel's width in um; ValueError where it is no square."""
    if not (across > 0 and abs(down - across) <= SQUARE * across):
        raise ValueError(f"{where}: pixels are not square ({across:g} um wide, {down:g} um high)")
    return across


def common_geometry(
    pixels: Mapping[int, float], sizes: Mapping[int, tuple[int, int]], names: Mapping[int, str], where: str
) -> tuple[float | None, tuple[int, int] | None]:
    """Pixel size in um and (height, width) of the measured channels, by number; ValueError where two of them differ."""
    for what, said in (
        ("pixels of", {n: f"{v:.4g} um" for n, v in pixels.items()} if spread(pixels.values()) > SQUARE else {}),
        ("size", {n: f"{h} x {w} pixels" for n, (h, w) in sizes.items()} if len(set(sizes.values())) > 1 else {}),
    ):
        if said:
            listed = ", ".join(f"channel {n} {names.get(n, '')} {text}" for n, text in said.items())
            raise ValueError(
                f"{where}: the measured channels differ in {what} ({listed}); measure those of one kind: plate.channels"
            )
    return next(iter(pixels.values()), None), next(iter(sizes.values()), None)
