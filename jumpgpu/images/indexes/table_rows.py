"""Rows of a table of images, text by column: CSV (commas, semicolons, tabs), packed by gzip or not, or Parquet."""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from ...settings.names import LABEL_IMAGE
from ...storage.buckets import Place

MAX_BYTES = 2 << 30
MAX_LINE = 1 << 17  # characters; a row of eight channels with URLs has 4,000
MAX_ROWS = 2_000_000  # of one plate
MAX_COLUMNS = 1000  # of a Parquet table
MAX_UNPACKED = 1 << 30  # bytes that it says to hold
SEPARATORS = ",;\t"
BEYOND = "\0"  # no column's name
PREFIXES = ("FileName_", "PathName_", "URL_")
SHEET = ("channel", "path", "plate", "well", "site")  # columns of a samplesheet
PLACE = ("row", "col")  # and those that tell its wells where it has no column of them


def lines(file, path: Place) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """Lines of bounded length."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"{path}: a line of more than {MAX_LINE} characters; not a load_data.csv")
        yield line


class Unpacked(io.RawIOBase):
    """What a gzip file holds; ValueError once that is more than a table may have."""

    def __init__(self, raw: BinaryIO, path: Place):
        self.file, self.path, self.seen = gzip.GzipFile(fileobj=raw), path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        n = self.file.readinto(buffer)
        self.seen += n
        if self.seen > MAX_BYTES:
            raise ValueError(f"{self.path}: unpacks to more than a load_data.csv may have ({MAX_BYTES} bytes)")
        return n


class SeparatedRows:
    """The rows of a CSV, its cells separated by what parts its header most; names of columns without blanks around them."""

    def __init__(self, file: io.TextIOWrapper, path: Place):
        rows = lines(file, path)
        header = next(rows, "")
        separator = max(SEPARATORS, key=header.count)
        if said := re.fullmatch(r"sep=(.)\s*", header):  # Excel's
            separator, header = said[1], next(rows, "")
        self.reader = csv.reader(chain([header], rows), delimiter=separator, strict=True)
        self.fieldnames = [plain_column(name) for name in next(self.reader, [])]

    @property
    def line_num(self) -> int:
        return self.reader.line_num

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Text by column; what lies beyond the columns by `BEYOND`. A column without a name (pandas' index) is left out."""
        n = len(self.fieldnames)
        for cells in self.reader:
            if cells:
                row = dict(zip(self.fieldnames, [*cells, *[""] * (n - len(cells))], strict=False))
                row.pop("", None)
                yield row | {BEYOND: cells[n]} if len(cells) > n else row


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
            self.written = {plain_column(name): name for name in self.file.schema_arrow.names}
            self.fieldnames = [plain_column(name) for name in self.file.schema_arrow.names]
        except self.errors as error:
            raise ValueError(f"{path}: not a Parquet table ({' '.join(str(error).split())[:100]})") from error
        if said.num_columns > MAX_COLUMNS or said.num_rows > MAX_ROWS or unpacked > MAX_UNPACKED:
            raise ValueError(f"{path}: {said.num_rows} rows, {said.num_columns} columns, {unpacked} bytes; no load_data")

    def __iter__(self) -> Iterator[dict[str, str]]:
        wanted = {
            written: c
            for c, written in self.written.items()
            if c.startswith(("Metadata_", *PREFIXES)) or c.lower() in (*SHEET, *PLACE)
        }
        try:
            for batch in self.file.iter_batches(1024, columns=list(wanted)):
                for row in batch.to_pylist():
                    self.line_num += 1
                    yield {wanted[name]: "" if value is None else str(value)[:MAX_LINE] for name, value in row.items()}
        except self.errors as error:
            raise ValueError(f"{self.path}: not a Parquet table ({' '.join(str(error).split())[:100]})") from error


def plain_column(name: str) -> str:
    """A column's name without blanks around it, and without the `Image_` that CellProfiler has before files and folders.

    `ObjectsFileName_Nuclei`, a label image, becomes the channel NucleiObjects: `FileName_NucleiObjects`.
    """
    name = name.strip()
    rest = name.removeprefix("Image_")
    if (label := rest.removeprefix("Objects")) != rest and label.startswith(PREFIXES):
        return label + LABEL_IMAGE
    return rest if rest.startswith(PREFIXES) else name
