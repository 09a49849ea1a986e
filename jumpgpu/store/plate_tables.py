"""A plate's records and tables, read well by well, every byte checked against the record that was written with it."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..settings.names import check_barcode, spelled_well, well_position
from ..storage.atomic import path_inside, read_ranges
from ..storage.buckets import Place
from .arrays import COLUMNS_PER_CHUNK, MAX_RATIO, SLACK, digest, read_array, read_chunks
from .layout import ROW, well_key
from .records import WELL, home_of, misfit, read_attributes, rows_in, rows_of, stored_wells, verified_files


class PlateTables:
    """What a plate on disk holds: its wells' records, and numbers of its tables by well and column.

    barcode, path   what and where
    channels        names, order of the C axis
    settings        what it was made with; `fingerprint` is their digest
    """

    def __init__(self, path: Place):
        self.path = path
        self.manifest = read_attributes(path)
        if wrong := misfit(self.manifest, "plate"):
            raise ValueError(f"{path}: {wrong}; it is not a plate that jumpgpu wrote")
        self.barcode = check_barcode(self.manifest["plate"])
        self.channels = tuple(self.manifest["channels"])
        self.settings = self.manifest["settings"]
        self.fingerprint = self.manifest["fingerprint"]
        self.wells = stored_wells(path)
        self.known_names: dict[str, list[str]] = {}  # columns by table
        self._places: dict[str, dict[str, int]] = {}
        self._homes: dict[str, Place] = {}  # wells' folders, looked at once for links that lead out of the plate

    def record(self, well: str) -> dict[str, Any]:
        """A well's record: its sites and their inputs, cells, quarantine, non-finite counts, checksums."""
        well = spelled_well(well)
        if well not in self.wells:
            raise ValueError(f"{self.barcode} has no well {well}; it has {len(self.wells)}: {', '.join(self.wells[:8])} ...")
        record = read_attributes(self.path / well_key(well))
        if not set(record) >= set(WELL) or record["well"] != well or record["plate"] != self.barcode:
            raise ValueError(f"{self.barcode} {well}: its record is incomplete or another well's")
        if wrong := misfit(record, "well"):
            raise ValueError(f"{self.barcode} {well}: {wrong}; remove the well's folder and run extract again")
        if record["cells"] != sum(site["cells"] for site in record["sites"]):
            raise ValueError(f"{self.barcode} {well}: its record says {record['cells']} cells, and another number by site")
        return record

    def listed_wells(self) -> list[str]:
        """The wells that the last run left, in plate order; those stored where no run has ended yet."""
        try:
            listed = read_attributes(self.path / "tables")["wells"]
        except (ValueError, KeyError):
            return list(self.wells)
        return sorted({*map(spelled_well, listed), *self.wells}, key=well_position)

    def chosen(self, wells: Iterable[str] | None) -> list[str]:
        """Wells in their one spelling, each once; all of them where None."""
        if isinstance(wells, str):
            raise TypeError(f"wells is a list: wells=[{wells!r}]")
        return self.wells if wells is None else list(dict.fromkeys(spelled_well(well) for well in wells))

    def _home(self, well: str) -> Place:
        if well not in self._homes:
            self._homes[well] = home_of(self.path, well, f"{self.barcode} {well}")
        return self._homes[well]

    def files_of(self, well: str, record: Mapping[str, Any], prefix: str) -> dict[str, bytes]:
        return verified_files(self._home(well), record, prefix, f"{self.barcode} {well}")

    @cached_property
    def columns(self) -> list[str]:
        """Feature columns of a cell, in stored order; empty for a plate without wells."""
        return self._names("cells")

    @property
    def objects(self) -> tuple[str, ...]:
        """Object sets with rows of their own, beside the cells."""
        return tuple(name for name in self.manifest.get("tables", {}) if name != "image")

    def columns_of(self, objects: str | None = None) -> list[str]:
        """Feature columns of the cells, or of an object set with rows of its own."""
        return self._names(self._table_of(objects))

    def _table_of(self, objects: str | None) -> str:
        """The table of an object set; ValueError for one that has none."""
        if objects is None:
            return "cells"
        if objects not in self.objects:
            has = f"it has {', '.join(self.objects)}" if self.objects else "its objects share the cells' rows"
            raise ValueError(f"{self.barcode} has no rows of objects {objects!r}; {has}")
        return objects

    def _names(self, table: str) -> list[str]:
        """The columns of a table, from the first well."""
        if table not in self.known_names:
            if not self.wells:
                return []
            self.known_names[table] = self.names_in(self.wells[0], table)
        return self.known_names[table]

    def names_in(self, well: str, table: str) -> list[str]:
        """The columns of a table in a well; ValueError where they are not the plate's."""
        key = f"tables/{table}/var/_index"
        columns = [str(n) for n in read_array(self.files_of(well, self.record(well), f"{key}/"), key)]
        known = self.manifest["columns"] if table == "cells" else self.manifest["tables"][table]
        if digest("\n".join(columns).encode()) != known:
            raise ValueError(f"{self.barcode} {well}: its columns are not the plate's")
        return columns

    def read_table(
        self, wells: Iterable[str] | None, columns: Sequence[str], table: str = "cells"
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Row identity (by `ROW`'s names) and float32 [rows, columns] of wells, all of them where None."""
        records = {w: self.record(w) for w in self.chosen(wells)}
        n_rows = [rows_of(record, table) for record in records.values()]
        for (well, record), n in zip(records.items(), n_rows, strict=True):
            self._check_held(well, record, table, n, len(columns))
        values = np.empty((len(columns), sum(n_rows)), np.float32)
        row = 0
        for (well, record), n in zip(records.items(), n_rows, strict=True):
            self._fill(values[:, row : row + n], well, record, columns, table)
            row += n
        return self._identity(records, table), values.T

    def means(self, well: str) -> tuple[dict[str, Any], np.ndarray | None]:
        """A well's record and the mean of each of its `columns` over its cells, float64, nan not counted; None in place of
        the means where the well is of a time before they were stored. The cells themselves are not read."""
        record, key = self.record(well), "tables/cells/var/mean"
        self._check_held(well, record, "cells", rows_of(record, "cells"), len(self.columns))
        files = self.files_of(well, record, f"{key}/")
        if not files:
            return record, None
        try:
            means = read_array(files, key)
        except ValueError as error:
            raise ValueError(f"{self.barcode} {well}: {error}; remove the well's folder and run extract again") from error
        self._check_shape(well, means.shape, (len(self.columns),))
        return record, means

    def _fill(
        self, out: np.ndarray, well: str, record: Mapping[str, Any], columns: Sequence[str], table: str = "cells"
    ) -> None:
        """Give `out`, [columns, rows], a well's values. Of a table in chunks only those that hold the columns are read."""
        key, names = f"tables/{table}/X", self._names(table)
        metadata = f"{key}/zarr.json" if f"{key}/zarr.json" in record["files"] else f"{key}/"
        files = self.files_of(well, record, metadata)
        if metadata not in files:
            raise ValueError(f"{self.barcode} {well}: its record lists no {key}/zarr.json")
        chunks = read_chunks(files[metadata], key)
        shape = (rows_of(record, table), len(names))
        everything = list(columns) == names
        try:
            if chunks is None:  # format 1
                part = read_array(self.files_of(well, record, f"{key}/"), key)
                self._check_shape(well, part.shape, shape)
                out[:] = part.T if everything else part.T[[self._place(table)[c] for c in columns]]
                return
            self._check_shape(well, chunks.shape, shape)
            if not chunks.sizes:
                return
            if everything:
                chunks.fill(out, self.files_of(well, record, f"{key}/c.0.0")[f"{key}/c.0.0"])
                return
            wanted = np.array([self._place(table)[c] for c in columns], np.int64)
            needed = np.unique(wanted // COLUMNS_PER_CHUNK).tolist()
            ranges = [(chunks.offsets[i], chunks.sizes[i]) for i in needed]
            n_bytes = record["files"][f"{key}/c.0.0"]["bytes"]
            for i, data in zip(needed, read_ranges(self._home(well), f"{key}/c.0.0", n_bytes, ranges), strict=True):
                here = np.flatnonzero(wanted // COLUMNS_PER_CHUNK == i)
                out[here] = chunks.decode(i, data)[wanted[here] % COLUMNS_PER_CHUNK]
        except ValueError as error:
            if str(error).startswith(self.barcode):
                raise
            raise ValueError(f"{self.barcode} {well}: {error}; remove the well's folder and run extract again") from error

    def _check_held(self, well: str, record: Mapping[str, Any], table: str, n_rows: int, n_columns: int) -> None:
        """ValueError where a record says more rows than the table's file can hold, before there is memory for them."""
        home, key = self._home(well), f"tables/{table}/X/c.0.0"
        if not isinstance(home, Path) or 4 * n_rows * n_columns <= SLACK:
            return
        there = 0
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            there = os.stat(path_inside(home, key)).st_size
        if (n := 4 * n_rows * len(self._names(table))) > SLACK + MAX_RATIO * there:
            raise ValueError(
                f"{self.barcode} {well}: its record says {n_rows} rows, {n} bytes, more than its files can hold"
            )

    def _place(self, table: str) -> dict[str, int]:
        """Where each column of a table is."""
        if table not in self._places:
            self._places[table] = {c: i for i, c in enumerate(self._names(table))}
        return self._places[table]

    def _check_shape(self, well: str, result: Sequence[int], expected: Sequence[int]) -> None:
        if tuple(result) != tuple(expected):
            raise ValueError(
                f"{self.barcode} {well}: its table is {tuple(result)}, its record and columns say {tuple(expected)}"
            )

    def _values(self, well: str, record: Mapping[str, Any], columns: Sequence[str], table: str = "cells") -> np.ndarray:
        """float32 [rows, columns] of a well."""
        values = np.empty((len(columns), rows_of(record, table)), np.float32)
        self._fill(values, well, record, columns, table)
        return values.T

    def _identity(self, records: Mapping[str, Mapping[str, Any]], table: str = "cells") -> dict[str, np.ndarray]:
        """Plate, well, site and object number of every row of these wells."""
        counts = [rows_of(record, table) for record in records.values()]
        site, number = np.empty((2, sum(counts)), np.int32)
        row = 0
        key = f"tables/{table}/obs/{ROW[3]}"
        for (well, record), n in zip(records.items(), counts, strict=True):
            here = slice(row, row := row + n)
            site[here] = np.repeat([s["site"] for s in record["sites"]], [rows_in(s, table) for s in record["sites"]])
            if table == "cells" and all(s.get("numbers") == "from 1 on" for s in record["sites"]):
                number[here] = (
                    np.concatenate([np.arange(1, 1 + s["cells"], dtype=np.int32) for s in record["sites"]]) if n else []
                )
                continue
            result = read_array(self.files_of(well, record, f"{key}/"), key)
            self._check_shape(well, result.shape, (n,))
            number[here] = result
        plate = np.array([self.barcode], dtype=object).repeat(len(site))  # `np.full` takes 20 times as long for objects
        return dict(zip(ROW, (plate, np.array(list(records), dtype=object).repeat(counts), site, number), strict=True))
