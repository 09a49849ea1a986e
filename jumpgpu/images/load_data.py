"""CellProfiler's load_data.csv: one row a site, FileName_/PathName_ or URL_ columns a channel; also as Parquet.

Rows are streamed; nothing is opened that they name. Paths are judged by `plate.py`, which knows the roots.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..settings.names import well_name
from ..storage.buckets import Place

MAX_BYTES = 2 << 30
MAX_LINE = 1 << 17  # characters; a row of eight channels with URLs has 4,000
MAX_CHANNELS = 64
MAX_SITES = 1 << 17  # of one plate: 1536 wells with 85 sites
GEOMETRY = "ImageResolutionX", "ImageSizeY", "ImageSizeX"
DESCRIBED = "Metadata_ChannelName"  # whose image a row without columns a channel describes
SQUARE = 1e-3  # what pixel sizes may differ by, as a share
PREFIXES = ("FileName_", "PathName_", "URL_")
MAX_COLUMNS = 1000  # of a Parquet table
MAX_UNPACKED = 1 << 30  # bytes that it says to hold


@dataclass(frozen=True)
class Row:
    """A site: for each channel name of the file, folder (or URL prefix) and file name; empty where the cell was."""

    well: str
    site: int
    files: dict[str, tuple[str, str]]
    x_um: float | None
    y_um: float | None


@dataclass(frozen=True)
class LoadData:
    """What a load_data.csv says about one plate."""

    channels: list[str]  # as spelt after FileName_, PathName_ or URL_, less 'Orig'; illumination columns left out
    labels: dict[str, str]  # channel -> Harmony's name for it, where a column says
    rows: list[Row]
    said: dict[str, str]  # most rows' image and pixel sizes, by column, and the channel that they may be of

    def geometry(self, keys: Mapping[str, str]) -> tuple[float | None, tuple[int, int] | None]:
        """Pixel size in um and (height, width) of these channels' images, channel -> name in the table; None where unsaid.

        pe2loaddata has a column a channel where they differ. Raises ValueError where two of these do.
        """
        found: dict[str, tuple[str, ...]] = {}
        for channel, key in keys.items():
            cells = [
                next((v for end in (f"_Orig{key}", f"_{key}", "") if (v := self.said.get(f"Metadata_{name}{end}"))), "")
                for name in GEOMETRY
            ]
            found[channel] = tuple(cells)
        pixels, sizes = {}, {}
        for channel, (across, height, width) in found.items():
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


def read_load_data(path: Place, barcode: str, data: bytes | None = None) -> LoadData:
    """The rows of one plate, from the table's bytes where they are given.

    Raises ValueError for a missing column, an unreadable cell, a repeated site or a file past a bound.
    """
    if isinstance(path, Path) and data is None and (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: {size} bytes, more than a load_data.csv may have ({MAX_BYTES})")
    try:
        with open(path, "rb") if data is None else io.BytesIO(data) as raw:
            if path.suffix == ".parquet":
                return collect(ParquetRows(raw, path), path, barcode)
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            table = csv.DictReader(lines(file, path), restkey="", restval="", strict=True)
            return collect(table, path, barcode)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save the table as UTF-8 CSV") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV table ({error})") from error


def lines(file, path: Place) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """Lines of bounded length."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"{path}: a line of more than {MAX_LINE} characters; no load_data.csv")
        yield line


class ParquetRows:
    """The rows of a Parquet table as `csv.DictReader` gives a CSV's: text by column. ValueError where it is none."""

    def __init__(self, file: BinaryIO, path: Place):
        import pyarrow
        from pyarrow import parquet

        self.path, self.line_num, self.errors = path, 0, (pyarrow.ArrowException, OSError, ValueError)
        try:
            self.file = parquet.ParquetFile(pyarrow.PythonFile(file, mode="r"))
            said = self.file.metadata
            unpacked = sum(said.row_group(i).total_byte_size for i in range(said.num_row_groups))
            self.fieldnames = list(self.file.schema_arrow.names)
        except self.errors as error:
            raise ValueError(f"{path}: not a Parquet table ({' '.join(str(error).split())[:100]})") from error
        if said.num_columns > MAX_COLUMNS or said.num_rows > MAX_SITES or unpacked > MAX_UNPACKED:
            raise ValueError(f"{path}: {said.num_rows} rows, {said.num_columns} columns, {unpacked} bytes; no load_data")

    def __iter__(self) -> Iterator[dict[str, str]]:
        wanted = [c for c in self.fieldnames if c.startswith(("Metadata_", *PREFIXES))]
        try:
            for batch in self.file.iter_batches(1024, columns=wanted):
                for row in batch.to_pylist():
                    self.line_num += 1
                    yield {name: "" if value is None else str(value)[:MAX_LINE] for name, value in row.items()}
        except self.errors as error:
            raise ValueError(f"{self.path}: not a Parquet table ({' '.join(str(error).split())[:100]})") from error


def collect(table: "csv.DictReader[str] | ParquetRows", path: Place, barcode: str) -> LoadData:
    header = list(table.fieldnames or [])
    if repeated := [c for c, n in Counter(header).items() if n > 1]:
        raise ValueError(f"{path}: column {repeated[0][:60]!r} appears twice")
    if missing := [c for c in ("Metadata_Plate", "Metadata_Well", "Metadata_Site") if c not in header]:
        raise ValueError(f"{path}: no column {missing[0]}; a load_data.csv has Metadata_Plate, Metadata_Well, Metadata_Site")
    columns = channel_columns(header, path)
    rows: dict[tuple[str, int], Row] = {}
    plates: set[str] = set()
    first: dict[str, str] = {}
    about = [c for c in header if c.startswith(tuple(f"Metadata_{name}" for name in GEOMETRY)) or c == DESCRIBED]
    said: Counter[tuple[str, ...]] = Counter()
    for cells in table:
        where = f"{path} line {table.line_num}"
        if "" in cells:
            raise ValueError(f"{where}: more cells than the {len(header)} columns")
        if cells["Metadata_Plate"] != barcode:
            if len(plates) < 5:
                plates.add(cells["Metadata_Plate"][:60])
            continue
        well = parse_well(cells["Metadata_Well"], where)
        site = cells["Metadata_Site"]
        if not re.fullmatch(r"[0-9]{1,6}", site):
            raise ValueError(f"{where}: Metadata_Site must be a whole number, got {site[:40]!r}")
        if (well, int(site)) in rows:
            raise ValueError(f"{where}: {barcode} {well} site {int(site)} appears twice")
        if len(rows) >= MAX_SITES:
            raise ValueError(f"{path}: more than {MAX_SITES} sites of {barcode}")
        files = {channel: location(cells, names) for channel, names in columns.items()}
        rows[well, int(site)] = Row(well, int(site), files, metres(cells, "X"), metres(cells, "Y"))
        first = first or dict(cells)
        said[tuple(cells[c] for c in about)] += 1
    if not rows:
        found = f"it has {', '.join(sorted(plates))}" if plates else "it has no rows"
        raise ValueError(f"{path}: no row with Metadata_Plate {barcode}; {found}")
    return LoadData(
        channels=list(columns),
        labels={c: first[k] for c in columns if (k := f"Metadata_ChannelName_Orig{c}") in first},
        rows=list(rows.values()),
        said=dict(zip(about, said.most_common(1)[0][0], strict=True)),
    )


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
    """Folder and file name from a row."""
    if len(columns) == 2:
        return cells[columns[0]], cells[columns[1]]
    folder, _, name = cells[columns[0]].rpartition("/")
    return folder, name


def parse_well(text: str, where: str) -> str:
    """`A01`, `a1` to `A01`."""
    match = re.fullmatch(r"([A-Za-z]|[Aa][A-Fa-f])0?([0-9]{1,2})", text.strip())
    if not match:
        raise ValueError(f"{where}: Metadata_Well {text[:40]!r} is no well; expected A01 .. P24 (AF48 at most)")
    letters = match[1].upper()
    try:
        return well_name(ord(letters[-1]) - 64 + (26 if len(letters) == 2 else 0), int(match[2]))
    except ValueError as error:
        raise ValueError(f"{where}: Metadata_Well {text[:40]!r}: {error}") from error


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
