"""A plate's images before a long run: what is there of all of them, and what a sample of them looks like."""

import collections
import contextlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..images.plate import Plate
from ..images.reader import read_fields
from ..settings.names import well_position
from ..storage.local import Local, open_regular
from ..storage.pages import split_page
from ..store.blur import blurred
from .channels import nuclear_score, order_findings

SPREAD = 8  # wells beside the corners
SITES = 2  # of each
UNEVEN = 3.0  # times the median of the other wells, or a third of it
NO_SIGNAL = 1.25  # the brightest thousandth over the median: below it an image has nothing in it
PIECE = 4096  # bytes from a file's middle, of which files are told apart before they are compared
SHOWN = 5  # places that a finding names


@dataclass(frozen=True)
class Look:
    """One sampled image: counts at 1, 50 and 99.9 %, what is saturated, how sharp it is."""

    well: str
    site: int
    channel: str
    low: float
    median: float
    high: float
    saturated: float
    sharpness: float


@dataclass
class Report:
    """What was looked at, and what was found."""

    wells: tuple[str, ...]
    corners: tuple[str, ...]
    looks: list[Look] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def table(self) -> list[str]:
        """A line for each channel, and one for each corner well and channel."""
        lines = [f"{'channel':12} {'wells':>6} {'1 %':>8} {'median':>8} {'99.9 %':>8} {'saturated':>10} {'sharpness':>10}"]
        channels = list(dict.fromkeys(look.channel for look in self.looks))
        for channel in channels:
            groups = {"all": [k for k in self.looks if k.channel == channel]}
            groups |= {well: [k for k in groups["all"] if k.well == well] for well in self.corners}
            for name, looks in groups.items():
                if looks:
                    low, median, high, full, sharp = (
                        float(np.median([getattr(k, part) for k in looks]))
                        for part in ("low", "median", "high", "saturated", "sharpness")
                    )
                    lines.append(
                        f"{channel if name == 'all' else '':12} {name:>6} {low:8.0f} {median:8.0f} {high:8.0f} "
                        f"{100 * full:9.2f}% {sharp:10.4f}"
                    )
        return lines


def corner_wells(wells: Sequence[str]) -> tuple[str, ...]:
    """The wells nearest the plate's four corners, of those that there are."""
    at = {well: well_position(well) for well in wells}
    rows, columns = ([position[k] for position in at.values()] for k in (0, 1))
    result = []
    for row in (min(rows), max(rows)):
        for column in (min(columns), max(columns)):
            result.append(min(at, key=lambda w: (abs(at[w][0] - row) + abs(at[w][1] - column), at[w])))
    return tuple(dict.fromkeys(result))


def sample(plate: Plate, wells: Sequence[str] | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Wells to look at, and the corners among them: those given, or the corners and `SPREAD` others over the plate."""
    there = list(plate.wells)
    corners = corner_wells(there)
    if wells:
        return tuple(wells), tuple(w for w in corners if w in wells)
    places = np.unique(np.linspace(0, len(there) - 1, min(SPREAD, len(there))).round().astype(int))
    return tuple(dict.fromkeys((*corners, *(there[i] for i in places)))), corners


def check_images(
    plate: Plate, wells: Sequence[str] | None = None, n_sites: int = SITES, workers: int | None = None
) -> Report:
    """Look at a plate.

    Parameters
    ----------
    wells : looked at; the corners and some others where None
    n_sites : looked at in each
    workers : decoder threads

    Every file of the plate is asked for its size, and compared with others of that size where files lie on this machine.
    """
    report = Report(*sample(plate, wells))
    report.findings += missing_files(plate)
    report.findings += same_files(plate)
    scores: list[dict[str, float]] = []
    places: list[str] = []
    sites_of: dict[str, list[int]] = collections.defaultdict(list)
    for site in plate.sites:
        sites_of[site.well].append(site.site)
    problems, flags = [], []
    for well in report.wells:
        read = read_fields(plate, wells=[well], sites=sites_of[well][:n_sites], batch=1, workers=workers)
        with contextlib.closing(read):
            for fields in read:
                problems += list(fields.quarantined)
                flags += list(fields.flags)
                for row, (_, number) in enumerate(fields.sites):
                    images = {c: fields.pixels[row, k].numpy() for k, c in enumerate(plate.channels)}
                    places.append(f"{well} site {number}")
                    scores.append({c: nuclear_score(image) for c, image in images.items()})
                    for (channel, image), (full, sharp) in zip(images.items(), fields.checks[row], strict=True):
                        low, median, high = np.percentile(image, (1, 50, 99.9))
                        report.looks.append(Look(well, number, channel, low, median, high, full, sharp))
    report.findings += [f"{p.channel} {p.well} site {p.site}: {p.reason}" for p in problems[:SHOWN]]
    report.findings += [more_problems(len(problems) - SHOWN)] * (len(problems) > SHOWN)
    report.findings += by_reason(flags)
    report.findings += odd_looks(report)
    report.findings += order_findings(scores, places)
    return report


def more_problems(n: int) -> str:
    return f"{n} more sampled image{'s' * (n > 1)} cannot be used"


def by_reason(flags: Iterable[object]) -> list[str]:
    """Flags of one channel and kind as one finding."""
    groups: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for flag in flags:
        groups[flag.channel, flag.reason].append(f"{flag.well} site {flag.site}")  # type: ignore[attr-defined]
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = collections.defaultdict(list)
    for (channel, reason), places in groups.items():
        kinds[channel, reason.split(":")[0]] += [(place, reason) for place in places]
    return [
        f"{channel}: {places[0][1]} ({', '.join(p for p, _ in places[:SHOWN])}{', ...' * (len(places) > SHOWN)})"
        for (channel, _), places in kinds.items()
    ]


def odd_looks(report: Report) -> list[str]:
    """Images without signal or out of focus, and wells whose background is unlike the others'."""
    findings = []
    for channel in dict.fromkeys(look.channel for look in report.looks):
        looks = [k for k in report.looks if k.channel == channel]
        empty = [k for k in looks if k.high < NO_SIGNAL * max(k.median, 1)]
        if empty:
            findings.append(
                f"{channel}: nothing stands out in {len(empty)} of {len(looks)} sampled images ({places_of(empty)}): 99.9 % "
                f"of counts are below {empty[0].high:.0f}, half of them below {empty[0].median:.0f}"
            )
        wells = dict.fromkeys(k.well for k in looks)
        by_well = {w: float(np.median([k.low for k in looks if k.well == w])) for w in wells}
        for well, value in by_well.items():
            others = float(np.median([v for w, v in by_well.items() if w != well] or [value]))
            if len(by_well) >= 4 and not others / UNEVEN <= value <= others * UNEVEN:
                where = "corner well" if well in report.corners else "well"
                findings.append(
                    f"{channel}: {where} {well} has a background of {value:.0f} counts (1 %), the others {others:.0f}"
                )
    return [*findings, *blurred_looks(report.looks)]


def blurred_looks(looks: Sequence[Look]) -> list[str]:
    """Images far less sharp than their channel's others, by the rule that stored plates have."""
    sites: dict[tuple[str, int], dict[str, tuple[float, float]]] = collections.defaultdict(dict)
    for look in looks:
        sites[look.well, look.site][look.channel] = look.saturated, look.sharpness
    records = [{"well": well, "sites": [{"site": site, "checks": checks}]} for (well, site), checks in sites.items()]
    blur: dict[str, list[str]] = collections.defaultdict(list)
    for row in blurred(records, ""):
        blur[row["channel"]].append(f"{row['well']} site {row['site']}")
    return [
        f"{channel}: out of focus beside other sampled images: {', '.join(at[:SHOWN])}{', ...' * (len(at) > SHOWN)}"
        for channel, at in blur.items()
    ]


def places_of(looks: Sequence[Look]) -> str:
    listed = [f"{k.well} site {k.site}" for k in looks[:SHOWN]]
    return ", ".join(listed) + ", ..." * (len(looks) > SHOWN)


def missing_files(plate: Plate) -> list[str]:
    """Images that are listed and not there, or empty; sites that lack channels."""
    absent, empty, unlisted, n = [], [], [], 0
    for site in plate.sites:
        for c, channel in enumerate(plate.channels):
            for file in site.images_of(c):
                n += 1
                place = f"{site.well} site {site.site} {channel}"
                if not file:
                    unlisted.append(place)
                elif (size := plate.images.status(file)[0]) < 0:
                    absent.append(place)
                elif size == 0:
                    empty.append(place)
    source = plate.channel_source
    said = (
        (absent, "is missing", "are missing"),
        (empty, "is an empty file", "are empty files"),
        (unlisted, f"is not listed in {source}", f"are not listed in {source}"),
    )
    return [
        f"{len(places)} of {n} images {one if len(places) == 1 else several}: "
        f"{', '.join(places[:SHOWN])}{', ...' * (len(places) > SHOWN)}"
        for places, one, several in said
        if places
    ]


def same_files(plate: Plate) -> list[str]:
    """Images that are the same, byte for byte, at two places of a plate on this machine; blank ones apart."""
    images = plate.images
    if not isinstance(images, Local):
        return []
    by_size: dict[int, list[tuple[str, str]]] = collections.defaultdict(list)
    seen: dict[str, str] = {}
    stacks: set[str] = set()
    twice = []
    for site in plate.sites:
        for c, channel in enumerate(plate.channels):
            for file in site.images_of(c):
                place = f"{site.well} site {site.site} {channel}"
                if not file or (size := images.status(file)[0]) <= 0:
                    continue
                if file in seen:
                    twice.append((seen[file], place))
                elif size > 0:
                    seen[file] = place
                    whole, page = split_page(file)
                    if not page or whole not in stacks:  # pages are compared as the files that hold them
                        by_size[size].append((whole, place))
                        stacks.add(whole)
    for size, members in by_size.items():
        pieces: dict[int, list[tuple[str, str]]] = collections.defaultdict(list)
        for file, place in members if len(members) > 1 else ():
            real = Path(os.path.realpath(file))
            if not any(real.is_relative_to(root) for root in images.roots):
                continue
            with contextlib.suppress(OSError, ValueError), open_regular(real) as handle:
                handle.seek(max(0, size // 2 - PIECE // 2))
                piece = handle.read(PIECE)
                if len(set(piece)) > 2:  # a blank image is like any other
                    pieces[zlib.crc32(piece)].append((file, place))
        for alike in pieces.values():
            contents: dict[bytes, str] = {}
            for file, place in alike if len(alike) > 1 else ():
                data = images.read(file, size)
                if data in contents:
                    twice.append((contents[data], place))
                else:
                    contents[data] = place
    shown = "; ".join(f"{b} is {a}" for a, b in twice[:SHOWN]) + "; ..." * (len(twice) > SHOWN)
    what = "images are" if len(twice) > 1 else "image is"
    return [f"{len(twice)} {what} the same as another: {shown}"] if twice else []
