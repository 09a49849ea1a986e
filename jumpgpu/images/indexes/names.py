"""Plates known by their files' names alone: microscopes' own rules, or a pattern of the config."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import regex

from ...settings.config import PhenixNumbers, PlateSettings
from ...storage.buckets import Place
from ..channels import match_channels
from ..plate import Plate
from .group import group_images
from .index_image import IndexImage
from .listing import Folder, roots_of
from .load_data import parse_well
from .rules import assigned

MAX_FILES = 2_000_000  # names looked at in a folder
MAX_DEPTH = 6  # of folders in a plate's, where a pattern tells them
MAX_PATTERN = 1000  # characters of a config's pattern
MAX_SECONDS = 0.25  # that it may take for one name
SPARE_SECONDS = 10.0  # and for all names, beyond 0.1 ms for each; a plain pattern takes a hundredth of that
GROUPS = ("plate", "well", "row", "column", "site", "channel", "plane", "time")
IMAGE = (".tif", ".tiff", ".png")
LOSSY = (".jpg", ".jpeg")
WELL = r"(?P<well>[A-P][0-9]{2}|A[A-F][0-9]{2})"
GUID = r"(?P<guid>[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}|_\[[0-9A-F-]{36}\])?"


@dataclass(frozen=True)
class Rule:
    """How files are named.

    example : a name, for errors
    numbered : its channel numbers are a Phenix's, which [plate.numbers] has by default
    """

    name: str
    example: str
    pattern: "re.Pattern[str] | regex.Pattern[str]"
    numbered: bool = False


@dataclass(frozen=True)
class Named:
    """What an index beside the files says of them: its own name, channels by their number, and what else it knows."""

    source: str
    channels: Mapping[int, str]
    warnings: tuple[str, ...] = ()


PHENIX = re.compile(
    r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<site>\d{2,4})p(?P<plane>\d{2,4})-ch(?P<channel>\d{1,2})sk(?P<time>\d{1,6})"
    r"fk\d{1,4}fl\d{1,4}\.tiff?",
    re.IGNORECASE,
)
HARMONY_5 = re.compile(
    r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<site>\d{2,4})p(?P<plane>\d{2,4})-ch(?P<channel>\d{1,2})t(?P<time>\d{2,6})\.tiff?",
    re.IGNORECASE,
)
IMAGEXPRESS = re.compile(  # in a path: TimePoint_1/ZStep_1/PLATE_A01_s1_w1.TIF; RxRx's B02_s1_w1.png too
    rf"(?:timepoint_(?P<time>\d{{1,5}})/)?(?:zstep_(?P<plane>\d{{1,4}})/)?(?:[^/]{{1,200}}?_|(?=[^/_]{{3,4}}_s\d{{1,4}}_w\d))"
    rf"{WELL}(?:_s(?P<site>\d{{1,4}}))?(?:_w(?P<channel>\d{{1,2}}?))?{GUID}\.(?:tiff?|png)",
    re.IGNORECASE,
)
CELLVOYAGER = re.compile(
    rf"[^/]{{1,200}}_{WELL}_T(?P<time>\d{{4}})F(?P<site>\d{{3}})L\d{{2}}A\d{{2}}Z(?P<plane>\d{{2,3}})C(?P<channel>\d{{2}})\.(?:tiff?|png)",
    re.IGNORECASE,
)
COLUMBUS = re.compile(
    r"(?P<row>\d{3})(?P<column>\d{3})-(?P<site>\d{1,4})-(?P<plane>\d{3})(?P<time>\d{3})(?P<channel>\d{3})\.(?:tiff?|png)",
    re.IGNORECASE,
)
RULES = (
    Rule("Phenix", "r01c01f01p01-ch1sk1fk1fl1.tiff", PHENIX, numbered=True),
    Rule("Harmony 5.2", "r01c01f01p01-ch1t01.tiff", HARMONY_5, numbered=True),
    Rule("CellVoyager", "P1_A01_T0001F001L01A01Z01C01.tif", CELLVOYAGER),
    Rule("Columbus", "001001-1-001001001.tif", COLUMBUS),
    Rule("ImageXpress", "P1_A01_s1_w1.tif", IMAGEXPRESS),
)
SUBFOLDER = re.compile(r"(?:TimePoint|ZStep)_\d{1,5}", re.IGNORECASE)  # an ImageXpress's


@dataclass
class NamedImages:
    """Images that follow a rule: name and groups of each, and a line on what does not."""

    rule: Rule
    images: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def names_of(folder: Folder, depth: int = 0) -> Iterator[str]:
    """Names of a folder's files, and of those in an ImageXpress's folders of time points and planes, as paths from it.

    depth : so many folders deep, in those of any name
    """
    waiting = [(folder, "")]
    while waiting:
        place, before = waiting.pop()
        yield from (before + name for name in place.files())
        level = before.count("/")
        inner = [name for name in place.folders() if level < depth or (level < 2 and SUBFOLDER.fullmatch(name))]
        waiting += [(place.inner(name), f"{before}{name}/") for name in reversed(inner)]


def rule_of(name: str) -> Rule | None:
    """The rule that a name follows; none for a thumbnail."""
    return next((rule for rule in RULES if rule.pattern.fullmatch(name)), None) if "_thumb" not in name.lower() else None


def from_names(
    barcode: str, folder: Place, root: Place, settings: PlateSettings, names: Iterable[str], named: Named | None = None
) -> Plate:
    """A plate from its files' names. ValueError, by file and group, for what they leave open; FileNotFoundError for none."""
    if settings.assign:
        result = by_assignment(barcode, folder, settings, names)
    else:
        result = by_pattern(barcode, folder, settings, names) if settings.pattern else by_rule(barcode, folder, names)
    if not result.images:
        raise FileNotFoundError(
            f"{barcode}: {folder} has no Index.idx.xml, load_data.csv or file named like {RULES[0].example}{result.notes[0]}"
            if not (settings.pattern or settings.assign)
            else f"{barcode}: {result.notes[0]}"
            if settings.assign
            else f"{barcode}: no file in {folder} matches [plate] pattern; {result.notes[0]}"
        )
    first, said = result.images[0]
    image_of(barcode, folder / first, first, said, 0)  # its groups are judged before its channels
    texts = list(dict.fromkeys(groups.get("channel") or "1" for _, groups in result.images))
    keys, source, warnings = channels_of(barcode, folder, texts, result.rule, settings, named)
    channel = {text: c for c, text in enumerate(keys.values())}
    images, written = [], _Written(result.rule, {c: text for text, c in channel.items()})
    for name, groups in result.images:
        if (groups.get("channel") or "1") in channel:
            image = image_of(barcode, folder / name, name, groups, channel[groups.get("channel") or "1"])
            images.append(image)
            written.planes.setdefault(image.plane, groups.get("plane") or "")
    notes = result.notes
    if result.rule.pattern is IMAGEXPRESS and settings.projection != "none":
        images, left = without_own_projection(images, settings)
        notes += ("ImageXpress's own projections (ZStep_0, or outside the ZStep folders) are left out",) * left
    wanted = {c: c for c in channel.values()}
    grouped = group_images(barcode, images, wanted, str(folder), settings, lambda image: image.url, written.expected)
    numbered = result.rule.numbered and not named
    return Plate(
        barcode=grouped.barcode(barcode),
        folder=folder,
        roots=roots_of(root),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(label(text, result.rule, named) for text in keys.values()),
        channel_source=source,
        sites=grouped.sites,
        projection=settings.projection,
        planes=grouped.planes,
        notes=(*notes, *grouped.notes) if not numbered else grouped.notes,
        warnings=(*warnings, *(named.warnings if named else ())),
    )


def label(text: str, rule: Rule, named: Named | None) -> str:
    """What names, and an index beside them, call a channel."""
    short = f"{'ch' if rule.numbered else ''}{int(text) if text.isdigit() else text}"
    return f"{short} {named.channels[int(text)]}" if named and text.isdigit() else short


def by_rule(barcode: str, folder: Place, names: Iterable[str]) -> NamedImages:
    """The images that follow a microscope's rule; ValueError where files follow two."""
    by_name: dict[str, NamedImages] = {}
    others, first_other, lossy = 0, "", ""
    for n, name in enumerate(names):
        if n >= MAX_FILES:
            raise ValueError(f"{folder}: more than {MAX_FILES} files")
        if not (rule := rule_of(name)) or not (match := rule.pattern.fullmatch(name)):
            if name.lower().endswith(IMAGE):
                others, first_other = others + 1, first_other or name
            lossy = lossy or name * name.lower().endswith(LOSSY)
            continue
        by_name.setdefault(rule.name, NamedImages(rule)).images.append((name, match.groupdict()))
    if len(by_name) > 1:
        shown = " and ".join(f"{f.rule.name}'s ({f.images[0][0][:80]})" for f in by_name.values())
        raise ValueError(
            f"{barcode}: {folder} has files of {len(by_name)} kinds of names, {shown}; say which by [plate] pattern"
        )
    result = next(iter(by_name.values()), NamedImages(RULES[0], notes=(unknown_names(first_other, others, lossy),)))
    if result.images:
        odd = f"; {others} other images are left out" * (others > 0)
        result.notes = (f"{len(result.images)} files are named as {result.rule.name} does, {result.images[0][0]}{odd}",)
    return result


def unknown_names(first: str, n: int, lossy: str) -> str:
    """What an error says of images that follow no rule, with lines to paste."""
    if not first:
        return f"; {lossy[:80]} is a JPEG, which is not read: its counts are not the camera's" if lossy else ""
    return (
        f"; it has {n} image{'s' * (n > 1)} of other names, {first[:80]} first. Say by a regular expression where they have "
        "their well, site and channel, in a settings file (--config FILE), and look with --dry-run:\n\n[plate]\n"
        r"pattern = '(?P<well>[A-P]\d\d)_s(?P<site>\d+)_w(?P<channel>\w+)'"
    )


def compiled(settings: PlateSettings) -> "regex.Pattern[str]":
    """The config's pattern; ValueError where it is none, or has not the groups that it needs."""
    text = settings.pattern or ""
    where = f"plate.pattern {text[:80]!r}"
    if len(text) > MAX_PATTERN:
        raise ValueError(f"{where}: {len(text)} characters, at most {MAX_PATTERN} are taken")
    try:
        pattern = regex.compile(text)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"{where} is not a regular expression: {error}") from error
    groups = set(pattern.groupindex)
    if unknown := sorted(groups - set(GROUPS)):
        raise ValueError(f"{where}: unknown group {unknown[0]!r}; known: {', '.join(GROUPS)}")
    if not ("well" in groups) ^ ("row" in groups and "column" in groups):
        raise ValueError(f"{where}: name the well by (?P<well>...), or by (?P<row>...) and (?P<column>...)")
    return pattern


def by_pattern(barcode: str, folder: Place, settings: PlateSettings, names: Iterable[str]) -> NamedImages:
    """The images in whose names the config's pattern is found, within bounds of time."""
    pattern = compiled(settings)
    result = NamedImages(Rule("[plate] pattern", "", pattern))
    whole_path = "/" in (settings.pattern or "")
    first_other, others, n, spent = "", 0, 0, 0.0
    plates: dict[str, int] = {}
    for name in names:
        if not name.lower().endswith(IMAGE):
            continue
        if (n := n + 1) > MAX_FILES:
            raise ValueError(f"{folder}: more than {MAX_FILES} files")
        started = time.perf_counter()
        try:
            match = pattern.search(name if whole_path else name.rpartition("/")[2], timeout=MAX_SECONDS)
        except TimeoutError:
            match, spent = None, float("inf")
        spent += time.perf_counter() - started
        if spent > SPARE_SECONDS + 1e-4 * n:
            raise ValueError(
                f"{barcode}: [plate] pattern takes too long for file names, {name[:80]!r} among them; a repeat within a "
                r"repeat, such as (\w+)*, does: name the characters between the groups"
            )
        groups = match.groupdict() if match else {}
        if match and groups.get("plate", barcode) != barcode:
            plates[str(groups["plate"])[:60]] = plates.get(str(groups["plate"])[:60], 0) + 1
        elif match:
            result.images.append((name, groups))
        else:
            first_other, others = first_other or name, others + 1
    line = f"[plate] pattern is found in {len(result.images)} of {n} image files"
    if result.images:
        name, groups = result.images[0]
        said = ", ".join(f"{g} {v}" for g, v in groups.items() if v is not None)
        line += f"; {name[:80]} is {said}"
    line += f"; not in {first_other[:80]}" + f" and {others - 1} more" * (others > 1) if others else ""
    line += f"; {sum(plates.values())} files are of plate {', '.join(list(plates)[:3])}" if plates else ""
    result.notes = (line,)
    return result


def by_assignment(barcode: str, folder: Place, settings: PlateSettings, names: Iterable[str]) -> NamedImages:
    """The images that the rules of `[plate.assign]` tell."""
    if absent := [c for c in settings.channels if c not in settings.assign]:
        raise ValueError(f"{barcode}: plate.assign has no rule for {', '.join(absent)}; every channel needs one")
    pattern = compiled(settings) if settings.pattern else None
    result = assigned(barcode, folder, settings, names, pattern)
    return NamedImages(Rule("[plate.assign]", "", pattern or regex.compile("(?!)")), result.images, result.notes)


def channels_of(
    barcode: str, folder: Place, texts: Sequence[str], rule: Rule, settings: PlateSettings, named: Named | None
) -> tuple[dict[str, str], str, tuple[str, ...]]:
    """Wanted channel -> the text that names have for it; where that is known from; warnings. ValueError where it is not."""
    if settings.assign:
        return {c: c for c in settings.channels if c in texts}, "[plate.assign]", ()
    if named:
        names = {t: name for t in texts if t.isdigit() and (name := named.channels.get(int(t)))}
        if unnamed := [t for t in texts if t not in names]:
            raise ValueError(f"{barcode}: {named.source} names no channel {unnamed[0]}, which files in {folder} have")
        return match_channels(barcode, names, named.source, settings), named.source, ()
    numbers = {int(t): t for t in texts if t.isdigit()}
    said = not isinstance(settings.numbers, PhenixNumbers)
    if len(numbers) < len(texts) or not (rule.numbered or said):
        stains = {" ".join(key.lower().split()) for key in settings.stains}
        names = {t: str(int(t)) if t.isdigit() and t.lower() not in stains else t for t in texts}
        return match_channels(barcode, names, f"the file names in {folder}", settings), f"{rule.name}, file names", ()
    if absent := [c for c in settings.channels if c not in settings.numbers]:
        raise ValueError(
            f"{barcode}: plate.numbers has no Phenix channel number for {', '.join(absent)}. Put such lines into a settings "
            f"file (--config FILE), each channel with its right number:\n\n{numbered(settings, numbers, absent)}"
        )
    if len({settings.numbers[c] for c in settings.channels}) != len(settings.channels):
        raise ValueError(f"{barcode}: plate.numbers gives two of {', '.join(settings.channels)} the same number")
    if absent := [c for c in settings.channels if settings.numbers[c] not in numbers]:
        have = ", ".join(f"ch{n}" for n in sorted(numbers))
        told = ", ".join(f"{c} is ch{settings.numbers[c]}" for c in absent)
        raise ValueError(
            f"{barcode}: {', '.join(f'no {c} channel' for c in absent)}: {folder} has {have}, and plate.numbers says "
            f"that {told}. Put such lines into a settings file (--config FILE), each channel with its right number:\n\n"
            f"{numbered(settings, numbers, absent)}"
        )
    warning = (
        f"no index or load_data.csv says which channel is which; [plate.numbers] of the settings is assumed: "
        f"{', '.join(f'{c} = {settings.numbers[c]}' for c in settings.channels)}"
    )
    keys = {c: numbers[settings.numbers[c]] for c in settings.channels}
    return keys, "the config's plate.numbers (no Index.idx.xml, no load_data.csv)", (warning,)


def numbered(settings: PlateSettings, numbers: Iterable[int], absent: Sequence[str]) -> str:
    """Lines of a settings file that give channels the numbers that files have, the free ones to those that lack one."""
    known = {c: n for c in settings.channels if c not in absent and (n := settings.numbers.get(c)) is not None}
    known |= dict(zip(absent, sorted(set(numbers) - set(known.values())), strict=False))
    lines = "[plate.numbers]\n" + "\n".join(f"{c} = {n}" for c, n in known.items())
    if lacking := [c for c in settings.channels if c not in known]:
        kept = json.dumps([c for c in settings.channels if c in known])
        return f"[plate]\nchannels = {kept}   # no image is left for {', '.join(lacking)}\n\n{lines}"
    return lines


def image_of(barcode: str, path: Place, name: str, groups: Mapping[str, str | None], channel: int) -> IndexImage:
    """An image of the groups of its name; ValueError for one that is no well or number."""
    where = f"{barcode}: {name[:120]}:"

    def number(group: str, default: int) -> int:
        text = groups.get(group)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,6}", text):
            raise ValueError(f"{where} {group} must be a whole number, got {text[:40]!r}")
        return int(text)

    well, row = groups.get("well"), groups.get("row")
    if well is None and row and row.isalpha():
        well = f"{row}{number('column', 0):02d}"
    if well is not None:
        from ...settings.names import well_position

        at = well_position(parse_well(well, f"{where} well"))
    else:
        at = number("row", 0), number("column", 0)
    default = 0 if "guid" in groups else 1  # an ImageXpress's image outside its folders of planes
    plane, moment = number("plane", default), number("time", 1)
    return IndexImage(*at, number("site", 1), plane, moment, channel, str(path))


def without_own_projection(images: list[IndexImage], settings: PlateSettings) -> tuple[list[IndexImage], bool]:
    """Images without an ImageXpress's own projections (plane 0) of channels that have planes, unless they are asked for."""
    stacked = {i.channel for i in images if i.plane}
    asked = {c for c, name in enumerate(settings.channels) if 0 in settings.planes.get(name, ())}
    kept = [i for i in images if i.plane or i.channel not in stacked or i.channel in asked]
    return kept, len(kept) < len(images)


@dataclass
class _Written:
    """How names have channels and planes, for the name that an absent file should have."""

    rule: Rule
    channels: dict[int, str]
    planes: dict[int, str] = field(default_factory=dict)

    def expected(self, sample: str, channel: int, plane: int) -> str | None:
        """The file of another channel and plane than a sample's; None where a part of its name is drawn by chance."""
        folder, _, name = sample.rpartition("/")
        match = self.rule.pattern.search(name)
        if not match or match.groupdict().get("guid") or "/" in self.rule.pattern.pattern.replace("[^/]", ""):
            return None
        spans = [
            (match.span(g), text)
            for g, text in (("channel", self.channels[channel]), ("plane", self.planes.get(plane)))
            if g in match.groupdict() and match[g] is not None and text
        ]
        for (begin, end), text in sorted(spans, reverse=True):
            name = name[:begin] + text + name[end:]
        return f"{folder}/{name}" if folder else name
