"""Plates whose images are told by rules of their paths, one for each channel (`[plate.assign]`), as CellProfiler does."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import regex

from ...settings.config import PlateSettings
from ...storage.buckets import Place

MAX_FILES = 2_000_000
MAX_RULE = 2000  # characters
MAX_SECONDS = 0.25  # that a rule may take for one name
SPARE_SECONDS = 10.0  # and all of them for all names, beyond 0.2 ms for each
IMAGE = (".tif", ".tiff", ".png")


@dataclass
class Assigned:
    """Images as (path, groups), channels among their groups; notes for the log."""

    images: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def assigned(
    barcode: str, folder: Place, settings: PlateSettings, names: Iterable[str], pattern: "regex.Pattern[str] | None"
) -> Assigned:
    """The files that follow a channel's rule; their wells and sites by `pattern`, or where there is none by their order.

    ValueError for a file of two channels, channels of different numbers of files where the order counts, and for a rule
    that is none or takes too long.
    """
    rules = {channel: compiled(channel, text) for channel, text in settings.assign.items()}
    files: dict[str, list[tuple[str, dict[str, str]]]] = {channel: [] for channel in rules}
    spent, n, no_well, other_plates = 0.0, 0, "", 0
    for name in sorted(names):
        if not name.lower().endswith(IMAGE):
            continue
        if (n := n + 1) > MAX_FILES:
            raise ValueError(f"{folder}: more than {MAX_FILES} files")
        started = time.perf_counter()
        try:
            of = [channel for channel, rule in rules.items() if rule.search(name, timeout=MAX_SECONDS)]
            match = pattern.search(name.rpartition("/")[2], timeout=MAX_SECONDS) if pattern and of else None
        except TimeoutError as error:
            raise ValueError(f"{barcode}: a rule of [plate.assign] takes too long for {name[:80]!r}") from error
        spent += time.perf_counter() - started
        if spent > SPARE_SECONDS + 2e-4 * n:
            raise ValueError(
                f"{barcode}: the rules of [plate.assign] take too long for file names, {name[:80]!r} among them"
            )
        if len(of) > 1:
            raise ValueError(
                f"{barcode}: {name[:120]} follows the rules of {' and '.join(of)}; [plate.assign] must part them"
            )
        if not of or (pattern and not match):
            no_well = no_well or (name if of else "")
            continue
        groups: dict[str, str] = dict(match.groupdict()) if match else {}
        if groups.get("plate", barcode) != barcode:
            other_plates += 1
            continue
        site = groups.get("site")
        if site is not None:
            groups["site"] = site.lstrip("fFsS_") or "0"
        files[of[0]].append((name, groups | {"channel": of[0]}))
    if pattern is None and any(files.values()):
        counts = {channel: len(part) for channel, part in files.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{c} {count}" for c, count in counts.items())
            raise ValueError(
                f"{barcode}: channels have different numbers of files in {folder} ({said}), and nothing tells wells"
            )
        for part in files.values():
            part[:] = [(name, {**groups, "well": "A01", "site": str(i)}) for i, (name, groups) in enumerate(part, 1)]
    images = [image for part in files.values() for image in part]
    note = f"the rules of [plate.assign] tell {len(images)} of {n} image files"
    if pattern is None and images:
        note += "; nothing tells wells, so that image sets are sites of well A01, in the order of their names"
    if not images:
        note += "; a pipeline's are those of its NamesAndTypes: [plate] pattern, assign or numbers of a config replace them"
    note += f"; no well in {no_well[:80]}" if no_well else ""
    note += f"; {other_plates} files are of other plates" if other_plates else ""
    return Assigned(images, (note,))


def compiled(channel: str, text: str) -> "regex.Pattern[str]":
    """A channel's rule; ValueError where it is no regular expression."""
    if len(text) > MAX_RULE:
        raise ValueError(f"plate.assign.{channel}: {len(text)} characters, at most {MAX_RULE} are taken")
    try:
        return regex.compile(text)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"plate.assign.{channel} {text[:80]!r} is not a regular expression: {error}") from error
