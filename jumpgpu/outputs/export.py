"""A stored plate as one file for other tools: Parquet, AnnData (.h5ad), CSV or SQLite.

Single cells are written, metadata columns first and features in stored order; the profiles of the plate with --level
profile. A plate is read a few wells at a time, so memory does not grow with it, and a file is complete or absent.
"""

import contextlib
import errno
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..storage.atomic import whole_file
from ..store.reader import StoredPlate, open_plate

if TYPE_CHECKING:
    import sqlite3

SUFFIXES = {"parquet": ".parquet", "h5ad": ".h5ad", "csv": ".csv", "sqlite": ".sqlite"}
PART_BYTES = 1 << 27  # of features that are written together, about
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula
LINKS = ("Cytoplasm_Parent_Cells", "Cytoplasm_Parent_Nuclei")  # what pycytominer joins compartments by
Advance = Callable[[int], None]


def export(
    plate: StoredPlate | str | os.PathLike[str],
    path: str | os.PathLike[str],
    format: str | None = None,
    wells: Sequence[str] | None = None,
    columns: Iterable[str] | None = None,
    overwrite: bool = False,
    advance: Advance = lambda wells: None,
) -> int:
    """Write a plate's single cells to one file, in one step.

    Parameters
    ----------
    plate : an open plate, or its path
    path : the file; its folder is made if absent
    format : parquet, h5ad, csv or sqlite; by the file's suffix where None
    wells, columns : which, in which order; all where None. Columns may be patterns, as in `StoredPlate.to_pandas`.
    overwrite : replace a file that is there, which is otherwise an error
    advance : called with the number of wells written so far

    Returns
    -------
    int
        Cells written.

    Every value is the stored float32: as such in Parquet and .h5ad, as the equal float64 in SQLite and CSV (spelled so that
    it reads back as that number). NaN is NaN; in Parquet it is null, in SQLite NULL.
    """
    stored = plate if isinstance(plate, StoredPlate) else open_plate(Path(os.fspath(plate)))
    path = Path(path)
    format = format or next((f for f, suffix in SUFFIXES.items() if path.suffix == suffix), "")
    if format not in SUFFIXES:
        raise ValueError(f"{path}: unknown format {format or path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    chosen = list(stored.wells) if wells is None else list(wells)
    if unknown := [w for w in chosen if w not in stored.wells]:
        raise ValueError(f"{stored.barcode} has no well {unknown[0]}; it has {len(stored.wells)}")
    if not chosen:
        raise ValueError(f"{stored.barcode} has no wells yet; nothing to export")
    source = Source(stored, chosen, stored.choose(columns), advance)
    with whole_file(path, overwrite) as part:
        WRITERS[format](source, part)
    return sum(stored.record(w)["cells"] for w in chosen)


@dataclass(frozen=True)
class Source:
    """What is exported."""

    plate: StoredPlate
    wells: list[str]
    features: list[str]
    advance: Advance

    def tables(self) -> Iterator[pd.DataFrame]:
        """A table a well, as `StoredPlate.to_pandas` gives it."""
        for i, well in enumerate(self.wells, 1):
            yield self.plate.to_pandas(wells=[well], columns=self.features)
            self.advance(i)


def gathered(tables: Iterable[pd.DataFrame], n_features: int) -> Iterator[pd.DataFrame]:
    """Tables joined until they hold `PART_BYTES`; at least one, if only an empty one."""
    most = max(1, PART_BYTES // (4 * max(n_features, 1)))
    held: list[pd.DataFrame] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= most:
            yield pd.concat(held, ignore_index=True, copy=False) if len(held) > 1 else held[0]
            held = []
    if held:
        yield pd.concat(held, ignore_index=True, copy=False) if len(held) > 1 else held[0]


def as_arrow(table: pd.DataFrame, features: Sequence[str], kind: type, nulls: bool) -> Any:
    """An Arrow table: metadata as it is, features as `kind`; NaN as null, or as it is."""
    import pyarrow as pa

    values = np.asfortranarray(table[list(features)].to_numpy(kind)).T
    identity = pa.Table.from_pandas(table.drop(columns=list(features)), preserve_index=False)
    arrays = {name: identity.column(name) for name in identity.column_names}
    return pa.table(arrays | {name: pa.array(row, from_pandas=nulls) for name, row in zip(features, values, strict=True)})


def write_parquet(source: Source, path: Path) -> None:
    """Row groups of several wells; the features have no statistics, whose names would be most of a small file."""
    import pyarrow.parquet as pq

    writer: Any = None
    try:
        for table in gathered(source.tables(), len(source.features)):
            part = as_arrow(table, source.features, np.float32, nulls=True)
            identity = part.column_names[: -len(source.features) or None]
            writer = writer or pq.ParquetWriter(path, part.schema, use_dictionary=identity, write_statistics=identity)
            writer.write_table(part)
    finally:
        if writer is not None:
            writer.close()


def write_csv(source: Source, path: Path) -> None:
    write_csv_tables(source.tables(), path, source.features)


def write_csv_tables(tables: Iterable[pd.DataFrame], path: Path, features: Sequence[str]) -> None:
    """Numbers in the shortest form that reads back as the same float64; text made safe for spreadsheets."""
    from pyarrow import csv

    with open(path, "wb") as file:
        for i, table in enumerate(gathered(tables, 8 * len(features))):
            options = csv.WriteOptions(include_header=i == 0)
            csv.write_csv(as_arrow(safe_text(table), features, np.float64, nulls=False), file, options)


def safe_text(table: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers spelled as text do not."""
    return table.assign(
        **{
            name: table[name].map(
                lambda v: f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) and not is_number(v) else v
            )
            for name in table.columns
            if table[name].dtype.kind == "O" or isinstance(table[name].dtype, pd.StringDtype | pd.CategoricalDtype)
        }
    )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_h5ad(source: Source, path: Path) -> None:
    """As `StoredPlate.to_anndata`, whose wells are read one after the other while anndata writes them."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        source.plate.to_anndata(source.wells, source.features).write_h5ad(path)
    source.advance(len(source.wells))


def write_sqlite(source: Source, path: Path) -> None:
    """cytominer-database's layout: Image, and a table a compartment, joined by TableNumber, ImageNumber and ObjectNumber."""
    import sqlite3
    import zlib

    plate, features = source.plate, source.features

    kinds = {"Cells", "Cytoplasm", "Nuclei"}
    if lost := [f for f in features if f.split("_", 1)[0] not in kinds]:
        raise ValueError(
            f"{plate.barcode}: {lost[0]} belongs to none of {', '.join(sorted(kinds))}; SQLite holds only these"
        )
    groups = {c: [f for f in features if f.startswith(f"{c}_")] for c in sorted(kinds)}
    if missing := [link for link in LINKS if link not in groups["Cytoplasm"]]:
        raise ValueError(f"{plate.barcode}: SQLite needs the column {missing[0]}, by which compartments are joined")
    number = zlib.crc32(plate.barcode.encode())  # other plates' tables can be added
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        widest = max(len(names) for names in groups.values()) + 3
        if widest > (limit := base.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)):
            raise ValueError(
                f"{plate.barcode}: {widest} columns in a table, and this SQLite takes {limit}; choose --columns"
            )
        keys = {"TableNumber": "INTEGER", "ImageNumber": "INTEGER"}
        named = {f"{prefix}Metadata_{n}": t for prefix in ("", "Image_") for n, t in IMAGE.items()}
        create(base, "Image", keys | named | {"Image_Count_Cells": "INTEGER"})
        for compartment, names in groups.items():
            create(base, compartment, keys | {"ObjectNumber": "INTEGER"} | dict.fromkeys(names, "REAL"))
        image = 0
        for table in source.tables():
            for (plate_name, well, site), cells in table.groupby(list(table.columns[:3]), sort=False):
                image += 1
                identity = [plate_name, well, int(site)]
                insert(base, "Image", [[number, image, *identity, *identity, len(cells)]])
                objects = cells["Metadata_ObjectNumber"].to_list()
                for compartment, names in groups.items():
                    rows = cells[names].to_numpy(np.float64).tolist()
                    insert(base, compartment, ([number, image, o, *r] for o, r in zip(objects, rows, strict=True)))
            base.commit()
        for name in ("Image", *groups):
            base.execute(f'CREATE INDEX "{name}_keys" ON "{name}" (TableNumber, ImageNumber)')
        base.commit()


IMAGE = {"Plate": "TEXT", "Well": "TEXT", "Site": "INTEGER"}


def create(base: "sqlite3.Connection", name: str, columns: dict[str, str]) -> None:
    spelled = ", ".join(f'"{column.replace(chr(34), chr(34) * 2)}" {kind}' for column, kind in columns.items())
    base.execute(f'CREATE TABLE "{name}" ({spelled})')


def insert(base: "sqlite3.Connection", name: str, rows: Iterable[Sequence[Any]]) -> None:
    rows = list(rows)
    if rows:
        base.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(rows[0]))})', rows)


WRITERS: dict[str, Callable[[Source, Path], None]] = {
    "parquet": write_parquet,
    "h5ad": write_h5ad,
    "csv": write_csv,
    "sqlite": write_sqlite,
}


def export_profiles(folder: Path, barcode: str, output: Path, format: str, overwrite: bool = False) -> list[Path]:
    """The profile tables of a plate (`<folder>/profiles/<plate>/*.parquet`) in another format; the files written."""
    from ..profiles.files import read_profiles, recorded, write_anndata, write_table

    sources = sorted((folder / "profiles" / barcode).glob(f"{glob.escape(barcode)}*.parquet"))
    if not sources:
        raise FileNotFoundError(
            errno.ENOENT, f"no profiles of {barcode}; jumpgpu profile makes them", str(folder / "profiles" / barcode)
        )
    if format == "sqlite":
        raise ValueError("profiles are no single cells, which SQLite's layout is for; choose parquet, csv or h5ad")
    record = recorded(folder / "profiles" / barcode, barcode)
    also = record.get("recipe", {}).get("features", [])
    written = []
    for source in sources:
        if source.stem.endswith("_features"):
            continue  # what was selected and why, no profiles
        table = read_profiles(source, also)
        features = [c for c in table.select_dtypes("number") if not c.startswith("Metadata_")]
        metadata = [c for c in table.columns if c not in set(features)]
        table = table[[*metadata, *features]]
        target = output / f"{source.stem}{SUFFIXES[format]}"
        with whole_file(target, overwrite) as part:
            if format == "csv":
                write_csv_tables([table], part, features)
            elif format == "h5ad":
                write_anndata(table, part, also)
            else:
                write_table(table, part)
        written.append(target)
    return written
