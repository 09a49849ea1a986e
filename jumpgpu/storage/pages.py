"""A page of a TIFF of several, as a TIFF of its own: what reads images takes files of one page each.

Such a page is called `name#page=3`, counted from 1. Its tags, and the strips or tiles that they point to, are copied; a part
that lies outside the file, or more bytes than an image may have, is a ValueError. Source: TIFF 6.0, section 2; BigTIFF.
"""

import re
import struct
from typing import BinaryIO

NAME = re.compile(r"(.*)#page=([1-9][0-9]{0,5})", re.DOTALL)
MAX_PAGES = 100_000
MAX_TAGS = 4096
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # by type
NUMBERS = {3: "H", 4: "I", 16: "Q"}
PIXELS = {273: 279, 324: 325}  # where strips and tiles lie, and how many bytes they have
ELSEWHERE = {330, 34665, 34853, 40965}  # other directories


def page_name(file: str, page: int) -> str:
    """What the page of a file is called; `page` from 1."""
    return f"{file}#page={page}"


def split_page(file: str) -> tuple[str, int]:
    """The file that a name means, and its page from 1; 0 where it names none."""
    match = NAME.fullmatch(file) if "#" in file else None
    return (match[1], int(match[2])) if match else (file, 0)


def read_page(file: BinaryIO, page: int, limit: int) -> bytes:
    """Page `page`, from 1, of a TIFF, in at most `limit` bytes; ValueError where there is none, or it leads outside."""
    end = file.seek(0, 2)
    head = part(file, 0, 16 if end >= 16 else 8, end)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    big = order and struct.unpack_from(f"{order}H", head, 2)[0] == 43
    if not order or struct.unpack_from(f"{order}H", head, 2)[0] not in (42, 43) or (big and len(head) < 16):
        raise ValueError(f"no TIFF, and its page {page} is wanted")
    number, entry, first = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 2)
    pointer, width = ("Q", 8) if big else ("I", 4)
    at = struct.unpack_from(f"{order}{pointer}", head, width)[0]
    seen: set[int] = set()
    for n in range(1, min(page, MAX_PAGES) + 1):
        if not at or at in seen:
            raise ValueError(f"{n - 1} pages, and page {page} is wanted")
        seen.add(at)
        n_tags = struct.unpack(f"{order}{number}", part(file, at, first, end))[0]
        if n_tags > MAX_TAGS:
            raise ValueError(f"page {n} has {n_tags} tags")
        tags = part(file, at + first, n_tags * struct.calcsize(f"={entry}"), end)
        at = struct.unpack(f"{order}{pointer}", part(file, at + first + len(tags), width, end))[0]
    return _Written(file, end, order, bool(big), limit).whole(list(struct.iter_unpack(f"{order}{entry}", tags)))


def part(file: BinaryIO, at: int, n: int, end: int) -> bytes:
    """Some bytes of a file; ValueError where they lie outside."""
    if at < 0 or at + n > end:
        raise ValueError(f"truncated: {end} bytes, and {n} from {at} on are wanted")
    file.seek(at)
    data = file.read(n)
    if len(data) != n:
        raise ValueError(f"truncated: {n} bytes from {at} on are not there")
    return data


class _Written:
    """A TIFF of one page as it is put together."""

    def __init__(self, file: BinaryIO, end: int, order: str, big: bool, limit: int):
        self.file, self.end, self.order, self.big, self.limit = file, end, order, big, limit
        self.blocks: list[bytes] = []
        self.at = 0

    def put(self, data: bytes) -> int:
        """Where a block comes to lie; on an even byte."""
        if self.at + len(data) > self.limit:
            raise ValueError(f"a page of more than {self.limit} bytes, for an image of this size")
        place, odd = self.at, len(data) & 1
        self.blocks.append(data + b"\0" * odd)
        self.at += len(data) + odd
        return place

    def values(self, kind: int, count: int, inline: bytes) -> bytes:
        """A tag's values, wherever they lie."""
        if kind not in SIZES:
            raise ValueError(f"a tag of type {kind}")
        n = SIZES[kind] * count
        if n <= len(inline):
            return inline[:n]
        if n > self.limit:
            raise ValueError(f"a tag of {n} bytes")
        return part(self.file, struct.unpack(f"{self.order}{'Q' if self.big else 'I'}", inline)[0], n, self.end)

    def whole(self, tags: list[tuple[int, int, int, bytes]]) -> bytes:
        """The page of these tags (code, type, count, value or its place)."""
        said = {code: (kind, self.values(kind, n, inline)) for code, kind, n, inline in tags if code not in ELSEWHERE}
        pointer, width = ("Q", 8) if self.big else ("I", 4)
        entry = 20 if self.big else 12
        self.at = (16 if self.big else 8) + (8 if self.big else 2) + entry * len(said) + width
        for offsets, counts in PIXELS.items():
            if offsets in said:
                places, lengths = (self.numbers(said.get(code, (4, b"")), code) for code in (offsets, counts))
                if len(places) != len(lengths):
                    raise ValueError(f"{len(places)} places of pixels, and {len(lengths)} lengths")
                moved = [self.put(part(self.file, o, n, self.end)) for o, n in zip(places, lengths, strict=True)]
                said[offsets] = 16 if self.big else 4, struct.pack(f"{self.order}{len(moved)}{pointer}", *moved)
        lines = []
        for code, (kind, data) in sorted(said.items()):
            value = data.ljust(width, b"\0") if len(data) <= width else struct.pack(f"{self.order}{pointer}", self.put(data))
            lines.append(struct.pack(f"{self.order}HH{pointer}", code, kind, len(data) // SIZES[kind]) + value)
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            head = mark + struct.pack(f"{self.order}HHHQQ", 43, 8, 0, 16, len(lines))
        else:
            head = mark + struct.pack(f"{self.order}HIH", 42, 8, len(lines))
        return b"".join([head, *lines, bytes(width), *self.blocks])

    def numbers(self, value: tuple[int, bytes], code: int) -> tuple[int, ...]:
        kind, data = value
        if kind not in NUMBERS:
            raise ValueError(f"tag {code} of type {kind}, expected whole numbers")
        return struct.unpack(f"{self.order}{len(data) // SIZES[kind]}{NUMBERS[kind]}", data)
