"""Tables of a plate's images: CellProfiler's load_data.csv, a row per site; nf-core/cellpainting's samplesheet, an image.

load_data has FileName_ and PathName_ or URL_ columns per channel. Either is separated by commas, semicolons or tabs, packed
by gzip or not, or Parquet. Rows are streamed; nothing is opened that they name. Paths are judged by `plate.py`, which knows
the roots.
"""

import csv
import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...settings.names import well_name
from ...storage.buckets import Place
from ...storage.local import open_regular
from .table_rows import BEYOND, MAX_BYTES, MAX_ROWS, PLACE, PREFIXES, SHEET, ParquetRows, SeparatedRows, Unpacked

MAX_CHANNELS = 64
GEOMETRY = "ImageResolutionX", "ImageSizeY", "ImageSizeX"
GREATEST = "MaxIntensity"
DESCRIBED = "Metadata_ChannelName"  # whose image a row without columns per channel describes
SQUARE = 1e-3  # what pixel sizes may differ by, as a share
PLANE = ("Metadata_PlaneID", "Metadata_Plane_ID", "Metadata_ZIndex", "Metadata_Z")  # pe2loaddata's, and what people write
TIME = ("Metadata_TimepointID", "Metadata_Timepoint", "Metadata_TimePoint", "Metadata_T")
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
TABLES = [f"{name}{suffix}" for name in ("load_data", "load_data_with_illum", "samplesheet") for suffix in SUFFIXES]


@dataclass(frozen=True)
class Row:
    """A site: for each channel name of the file, folder (or URL prefix) and file name; empty where the cell was."""

    well: str
    site: int
    files: dict[str, tuple[str, str]]
    x_um: float | None
    y_um: float | None
    plane: int = 1
    time: int = 1


@dataclass(frozen=True)
class LoadData:
    """What a load_data.csv says about one plate."""

    channels: list[str]  # as spelt after FileName_, PathName_ or URL_, less 'Orig'; illumination columns left out
    labels: dict[str, str]  # channel -> Harmony's name for it, where a column says
    rows: list[Row]
    said: dict[str, str]  # most rows' image and pixel sizes, by column, and the channel that they may be of
    mixed: bool = False  # rows differ in the sizes of images

    def geometry(self, keys: Mapping[str, str]) -> tuple[float | None, tuple[int, int] | None]:
        """Pixel size in um and (height, width) of these channels' images, channel -> name in the table; None where unsaid.

        pe2loaddata has a column per channel where they differ. Raises ValueError where two of these do.
        """
        result: dict[str, tuple[str, ...]] = {}
        for channel, key in keys.items():
            cells = [
                next((v for end in (f"_Orig{key}", f"_{key}", "") if (v := self.said.get(f"Metadata_{name}{end}"))), "")
                for name in GEOMETRY
            ]
            result[channel] = tuple(cells)
        pixels, sizes = {}, {}
        for channel, (across, height, width) in result.items():
            if 0 < (metres := number(across)) < 1e-3:
                pixels[channel] = 1e6 * metres
            if 0 < (h := number(height)) < 65536 and 0 < (w := number(width)) < 65536:
                sizes[channel] = int(h), int(w)
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{c} {h} x {w} pixels" for c, (h, w) in sizes.items())
            raise ValueError(f"the measured channels differ in size ({listed}); measure those of one size: plate.channels")
        if pixels and max(pixels.values()) > (1 + SQUARE) * min(pixels.values()):
            listed = ", ".join(f"{c} {um:.4g} um" for c, um in pixels.items())
            raise ValueError(
                f"the measured channels differ in pixels of ({listed}); measure those of one kind: plate.channels"
            )
        return next(iter(pixels.values()), None), next(iter(sizes.values()), None)

    def greatest(self, keys: Mapping[str, str]) -> dict[str, str]:
        """What the table gives as the greatest count of these channels, channel -> name in the table, where it does."""
        ends = {channel: (f"_Orig{key}", f"_{key}", "") for channel, key in keys.items()}
        said = {c: next((v for end in ends[c] if (v := self.said.get(f"Metadata_{GREATEST}{end}"))), "") for c in keys}
        return {c: text for c, text in said.items() if text}


def read_load_data(path: Place, barcode: str, data: bytes | None = None) -> LoadData:
    """The rows of one plate, from the table's bytes where they are given.

    Raises ValueError for a missing column, an unreadable cell, a repeated site or a file past a bound.
    """
    if isinstance(path, Path) and data is None and (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than a load_data.csv may have ({MAX_BYTES})")
    try:
        with open_regular(str(path)) if data is None else io.BytesIO(data) as raw:
            if path.name.lower().endswith(".parquet"):
                return collect(ParquetRows(raw, path), path, barcode)
            packed = path.name.lower().endswith(".gz")
            file = io.TextIOWrapper(
                io.BufferedReader(Unpacked(raw, path)) if packed else raw, encoding="utf-8-sig", newline=""
            )
            return collect(SeparatedRows(file, path), path, barcode)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not packed by gzip, or cut short ({error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save the table as UTF-8 CSV") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV table ({error})") from error


def collect(table: SeparatedRows | ParquetRows, path: Place, barcode: str) -> LoadData:
    header = [name for name in table.fieldnames or [] if name]
    if {"channel", "path"} <= {name.lower() for name in header} and not any(name.startswith(PREFIXES) for name in header):
        return collect_sheet(table, path, barcode)
    if repeated := [c for c, n in Counter(header).items() if n > 1]:
        raise ValueError(f"{path}: column {repeated[0][:60]!r} appears twice")
    if missing := [c for c in ("Metadata_Plate", "Metadata_Well", "Metadata_Site") if c not in header]:
        raise ValueError(f"{path}: no column {missing[0]}; a load_data.csv has Metadata_Plate, Metadata_Well, Metadata_Site")
    columns = channel_columns(header, path)
    urls = {c: url for c, names in columns.items() if len(names) == 2 and (url := f"URL_{names[1][9:]}") in header}
    plane_column, time_column = (next((c for c in known if c in header), "") for known in (PLANE, TIME))
    rows: dict[tuple[str, int, int, int], Row] = {}
    plates: set[str] = set()
    first: dict[str, str] = {}
    about = [
        c for c in header if c.startswith(tuple(f"Metadata_{name}" for name in (*GEOMETRY, GREATEST))) or c == DESCRIBED
    ]
    said: Counter[tuple[str, ...]] = Counter()
    for cells in table:
        where = f"{path} line {table.line_num}"
        if BEYOND in cells:
            raise ValueError(f"{where}: more cells than the {len(header)} columns")
        if not same_plate(cells["Metadata_Plate"], barcode):
            if len(plates) < 5:
                plates.add(cells["Metadata_Plate"][:60])
            continue
        well = parse_well(cells["Metadata_Well"], f"{where}: Metadata_Well")
        site = parse_site(cells["Metadata_Site"], f"{where}: Metadata_Site")
        plane = parse_site(cells[plane_column], f"{where}: {plane_column}") if plane_column else 1
        time = parse_site(cells[time_column], f"{where}: {time_column}") if time_column else 1
        if (well, site, plane, time) in rows:
            of = f" {plane_column} {plane}" * bool(plane_column) + f" {time_column} {time}" * bool(time_column)
            raise ValueError(f"{where}: {barcode} {well} site {site}{of} appears twice")
        if len(rows) >= MAX_ROWS:
            raise ValueError(f"{path}: more than {MAX_ROWS} rows of {barcode}")
        files = {channel: location(cells, names) for channel, names in columns.items()}
        for channel, url in urls.items():
            if cells[url].strip() and unquote(split_url(cells[url])[1]) != files[channel][1]:
                raise ValueError(
                    f"{where}: {url} is {cells[url][-80:]!r} and {columns[channel][1]} {files[channel][1][:80]!r}, both of "
                    f"{channel}; keep the column to read"
                )
        rows[well, site, plane, time] = Row(well, site, files, metres(cells, "X"), metres(cells, "Y"), plane, time)
        first = first or dict(cells)
        said[tuple(cells[c] for c in about)] += 1
    if not rows:
        result = f"it has {', '.join(sorted(plates))}" if plates else "it has no rows"
        raise ValueError(f"{path}: no row with Metadata_Plate {barcode}; {result}")
    return LoadData(
        channels=list(columns),
        labels={c: first[k] for c in columns if (k := f"Metadata_ChannelName_Orig{c}") in first},
        rows=list(rows.values()),
        said=dict(zip(about, said.most_common(1)[0][0], strict=True)),
        mixed=len({tuple(v for c, v in zip(about, row, strict=True) if "ImageSize" in c) for row in said}) > 1,
    )


def collect_sheet(table: SeparatedRows | ParquetRows, path: Place, barcode: str) -> LoadData:
    """The sites of a samplesheet, whose rows are images."""
    names = {name.lower(): name for name in table.fieldnames or [] if name}
    placed = "well" not in names and {*PLACE} <= names.keys()  # wells are told by rows and columns
    columns = [c for c in SHEET if c != "well" or not placed]
    if missing := [c for c in columns if c not in names]:
        raise ValueError(
            f"{path}: no column {missing[0]}; a samplesheet has {', '.join(SHEET)} (or {' and '.join(PLACE)} for the well)"
        )
    rows: dict[tuple[str, int], Row] = {}
    channels: dict[str, None] = {}
    plates: set[str] = set()
    for cells in table:
        where = f"{path} line {table.line_num}"
        if BEYOND in cells:
            raise ValueError(f"{where}: more cells than the {len(names)} columns")
        said = {column: cells[names[column]].strip() for column in [*columns, *PLACE * placed]}
        channel, file, plate = said["channel"], said["path"], said["plate"]
        if not same_plate(plate, barcode):
            if len(plates) < 5:
                plates.add(plate[:60])
            continue
        well = parse_place(said["row"], said["col"], where) if placed else parse_well(said["well"], f"{where}: well")
        key = well, parse_site(said["site"], f"{where}: site")
        row = rows.setdefault(key, Row(*key, {}, None, None))
        channels.setdefault(channel)
        if channel in row.files:
            raise ValueError(
                f"{where}: {barcode} {key[0]} site {key[1]} has a second {channel[:60]} image; give one plane per site"
            )
        row.files[channel] = split_url(file)
        if len(rows) > MAX_ROWS or len(channels) > MAX_CHANNELS:
            raise ValueError(f"{path}: more than {MAX_ROWS} sites or {MAX_CHANNELS} channels of {barcode}")
    if not rows:
        result = f"it has {', '.join(sorted(plates))}" if plates else "it has no rows"
        raise ValueError(f"{path}: no row with plate {barcode}; {result}")
    for row in rows.values():
        for channel in channels:
            row.files.setdefault(channel, ("", ""))
    return LoadData(list(channels), {}, list(rows.values()), {})


def same_plate(cell: str, barcode: str) -> bool:
    """Whether a cell names the plate; as pandas writes a number, `12345.0`, too."""
    return cell.strip() in (barcode, f"{barcode}.0")


def parse_site(text: str, where: str) -> int:
    """`3`, and `3.0` as pandas writes it."""
    match = re.fullmatch(r"([0-9]{1,6})(\.0+)?", text.strip())
    if not match:
        raise ValueError(f"{where} must be a whole number, got {text[:40]!r}")
    return int(match[1])


def channel_columns(header: list[str], path: Place) -> dict[str, tuple[str, ...]]:
    """Channel -> its columns: (URL_..,) or (PathName_.., FileName_..), the latter where there are both.

    `FileName_OrigDNA` and `FileName_DNA` both mean DNA. Raises ValueError for two columns of one channel, by name.
    """
    columns: dict[str, tuple[str, ...]] = {}
    written: dict[str, str] = {}  # channel -> what follows the prefix
    for column in header:
        prefix = next((p for p in PREFIXES if column.startswith(p)), None)
        if not prefix or prefix == "PathName_" or without_word(rest := column.removeprefix(prefix), "Illum") != rest:
            continue
        channel = without_word(rest, "Orig")
        if written.setdefault(channel, rest) != rest:
            raise ValueError(
                f"{path}: columns {columns[channel][-1]} and {column} are both the {channel} channel; keep the one to read"
            )
        if prefix == "URL_":
            columns.setdefault(channel, (column,))
        elif f"PathName_{rest}" in header:
            columns[channel] = (f"PathName_{rest}", column)
        elif not any(name.startswith("PathName_") for name in header):
            columns[channel] = ("", column)  # beside the table
        else:
            raise ValueError(f"{path}: column {column} without PathName_{rest}")
    if len(columns) > MAX_CHANNELS:
        raise ValueError(f"{path}: {len(columns)} channels, more than {MAX_CHANNELS}")
    if not columns:
        raise ValueError(f"{path}: no FileName_<channel> with PathName_<channel>, and no URL_<channel> column")
    return columns


def without_word(name: str, word: str) -> str:
    """`OrigDNA` without Orig: DNA. A longer word (`Original`) and the word alone stay."""
    rest = name.removeprefix(word)
    return name if not rest or rest[0].islower() else rest.lstrip("_") or name


def location(cells: dict[str, str], columns: tuple[str, ...]) -> tuple[str, str]:
    """Folder and file name from a row; a file name may have a folder of its own."""
    if len(columns) == 1:
        return split_url(cells[columns[0]])
    folder, file = cells[columns[0]] if columns[0] else "", cells[columns[1]].strip()
    inner, name = re.fullmatch(r"(?:(.*)[/\\])?([^/\\]*)", file, re.DOTALL).groups()  # type: ignore[union-attr]
    if inner is None or ".." in re.split(r"[/\\]", file):  # what goes upwards is refused as it is written
        return plain_path(folder), file
    start, inner = plain_path(folder).rstrip("/\\"), inner.replace("\\", "/")
    return (f"{start}/{inner}" if start and not inner.startswith("/") else inner), name


def split_url(text: str) -> tuple[str, str]:
    """A URL, or a path of any system, to folder and file name."""
    path = plain_path(text.strip())
    end = max(path.rfind("/"), -1 if "://" in path else path.rfind("\\"))
    return path[: max(end, 0)], path[end + 1 :]


def plain_path(text: str) -> str:
    """A `file:` URL as the path it means; anything else as it is."""
    if not text.lower().startswith("file:"):
        return text
    path = unquote(urlsplit(text).path)
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


def parse_well(text: str, where: str) -> str:
    """`A01`, `a1` to `A01`; `where` ends in the name of what holds it."""
    match = re.fullmatch(r"([A-Za-z]|[Aa][A-Fa-f])0?([0-9]{1,2})", text.strip())
    if not match:
        raise ValueError(f"{where} {text[:40]!r} is not a well; expected A01 .. P24 (AF48 at most)")
    letters = match[1].upper()
    try:
        return well_name(ord(letters[-1]) - 64 + (26 if len(letters) == 2 else 0), int(match[2]))
    except ValueError as error:
        raise ValueError(f"{where} {text[:40]!r}: {error}") from error


def parse_place(row: str, column: str, where: str) -> str:
    """A well by its row, a letter or a number from 1, and its column."""
    if row[:1].isalpha():
        return parse_well(f"{row}{parse_site(column, f'{where}: col'):02d}", f"{where}: row and col")
    r, c = parse_site(row, f"{where}: row"), parse_site(column, f"{where}: col")
    try:
        return well_name(r, c)
    except ValueError as error:
        raise ValueError(f"{where}: row {r} and col {c} are no well: {error}") from error


def number(text: str) -> float:
    """A cell as a number, nan where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def metres(cells: dict[str, str], axis: str) -> float | None:
    """A stage position in um; the tables give metres."""
    position = 1e6 * number(cells.get(f"Metadata_Position{axis}", ""))
    return position if math.isfinite(position) else None
