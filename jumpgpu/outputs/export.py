"""A stored plate as one file for other tools: Parquet, AnnData (.h5ad), CSV or SQLite.

Single cells are written, metadata columns first and features in stored order; the profiles of the plate with --level
profile. A plate is read a few wells at a time, so memory does not grow with it, and a file is complete or absent.
"""

import contextlib
import dataclasses
import errno
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..profiles.cell_quality import CellRules, add_flags, flag_plate, flags_of
from ..settings.names import split_name
from ..storage.atomic import whole_file
from ..store import h5ad
from ..store.annotation import variables
from ..store.layout import COUNT, ROW
from ..store.reader import StoredPlate, open_plate, with_annotation
from ..store.records import rows_of
from .cellprofiler_tables import export_cellprofiler
from .safe_text import safe_text

if TYPE_CHECKING:
    import sqlite3

    import anndata

SUFFIXES = {"parquet": ".parquet", "h5ad": ".h5ad", "csv": ".csv", "sqlite": ".sqlite"}
TABLES = "cellprofiler"  # the format that is a folder of tables
PART_BYTES = 1 << 27  # of features that are written together, about
IMAGE = "Image"  # the table of that name
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
    objects: str | None = None,
    annotation: pd.DataFrame | None = None,
    cell_rules: CellRules | None = None,
) -> int:
    """Write a plate's single cells, or another of its tables, to one file, in one step; or all as CellProfiler's files.

    Parameters
    ----------
    plate : an open plate, or its path
    path : the file, or for `cellprofiler` the folder; folders are made if absent
    format : parquet, h5ad, csv, sqlite, or cellprofiler, which writes `<plate>_<Object>.csv` of every object set and
        `<plate>_Image.csv` as ExportToSpreadsheet does; by the file's suffix where None
    wells, columns : which, in which order; all where None. Columns may be patterns, as in `StoredPlate.to_pandas`.
    overwrite : replace a file that is there, which is otherwise an error
    advance : called with the number of wells written so far
    objects : "Image" for a row per site, or an object set of `StoredPlate.objects`; the cells where None. SQLite holds all
        of them together.
    annotation : a row per well, found by Metadata_Well, whose columns each row of the well gets: treatments
    cell_rules : cells get a bool column `Metadata_Flag_<rule>` for each rule, and `Metadata_Flagged`; outliers are among all
        cells of the plate (`profiles.cell_quality.load_cell_rules`)

    Returns
    -------
    int
        Rows written.

    Every value is the stored float32: as such in Parquet and .h5ad, as the equal float64 in SQLite and CSV (spelled so that
    it reads back as that number). NaN is NaN; in Parquet it is null, in SQLite NULL.
    """
    stored = plate if isinstance(plate, StoredPlate) else open_plate(Path(os.fspath(plate)))
    path = Path(path)
    format = format or next((f for f, suffix in SUFFIXES.items() if path.suffix == suffix), "")
    if format not in (*SUFFIXES, TABLES):
        known = ", ".join((*SUFFIXES, TABLES))
        raise ValueError(f"{path}: unknown format {format or path.suffix!r}; expected one of {known}")
    chosen = stored.chosen(wells)
    if unknown := [w for w in chosen if w not in stored.wells]:
        raise ValueError(f"{stored.barcode} has no well {unknown[0]}; it has {len(stored.wells)}")
    if not chosen:
        raise ValueError(f"{stored.barcode} has no wells yet; nothing to export")
    if format == TABLES:
        if columns is not None or objects is not None or cell_rules is not None:
            raise ValueError("CellProfiler's files hold every table and column, without flags; leave these options out")
        return sum(export_cellprofiler(stored, path, chosen, overwrite, advance, annotation).values())
    if format == "sqlite" and (objects is not None or annotation is not None):
        raise ValueError("SQLite holds the image table and all objects together, and no plate map; leave these options out")
    if cell_rules is not None and (format == "sqlite" or objects is not None):
        raise ValueError("flags belong to single cells: Parquet, CSV and .h5ad")
    flags = None if cell_rules is None else flag_plate(stored, cell_rules)
    source = Source(stored, chosen, features_of(stored, columns, objects), advance, objects, annotation, flags)
    with whole_file(path, overwrite) as part:
        WRITERS[format](source, part)
    return source.rows


def features_of(plate: StoredPlate, columns: Iterable[str] | None, objects: str | None) -> list[str]:
    """The columns of a table that are exported."""
    if objects != IMAGE:
        return plate.choose(columns, objects)
    known = plate.image_table().columns.drop(list(ROW[:3])).tolist()
    if columns is None:
        return known
    asked = list(columns)
    if missing := [a for a in asked if not any(fnmatchcase(c, a) for c in known)]:
        raise ValueError(f"{plate.barcode} has no image column {missing[0]!r}; it has {', '.join(known[:4])}, ...")
    return [c for c in known if any(fnmatchcase(c, a) for a in asked)]


@dataclass(frozen=True)
class Source:
    """What is exported."""

    plate: StoredPlate
    wells: list[str]
    features: list[str]
    advance: Advance
    objects: str | None = None
    annotation: pd.DataFrame | None = None
    flags: pd.DataFrame | None = None

    @property
    def kind(self) -> type:
        """The type of the stored values."""
        return np.float64 if self.objects == IMAGE else np.float32

    @property
    def rows(self) -> int:
        records = [self.plate.record(well) for well in self.wells]
        if self.objects == IMAGE:
            return sum(len(record["sites"]) for record in records)
        return sum(rows_of(record, self.objects or "cells") for record in records)

    def tables(self) -> Iterator[pd.DataFrame]:
        """A table per well, as `StoredPlate.to_pandas` gives it."""
        for i, well in enumerate(self.wells, 1):
            yield self.table(well)
            self.advance(i)

    def table(self, well: str) -> pd.DataFrame:
        if self.objects == IMAGE:
            table = self.plate.image_table([well]).reindex(columns=[*ROW[:3], *self.features])
        else:
            table = self.plate.to_pandas([well], self.features, self.objects)
        if self.flags is not None:
            table = table.assign(**{str(name): flag for name, flag in flags_of(table, self.flags).items()})
        return table if self.annotation is None else with_annotation(table, self.annotation)


def gathered(tables: Iterable[pd.DataFrame], n_features: int) -> Iterator[pd.DataFrame]:
    """Tables joined until they hold `PART_BYTES`; at least one, if only an empty one."""
    maximum = max(1, PART_BYTES // (4 * max(n_features, 1)))
    held: list[pd.DataFrame] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= maximum:
            yield pd.concat(held, ignore_index=True) if len(held) > 1 else held[0]
            held = []
    if held:
        yield pd.concat(held, ignore_index=True) if len(held) > 1 else held[0]


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
            part = as_arrow(table, source.features, source.kind, nulls=True)
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


def write_h5ad(source: Source, path: Path) -> None:
    """As `StoredPlate.to_anndata`, whose wells are read one after the other while anndata writes them."""
    import dask

    annotation = None if source.annotation is None else storable(source.annotation)
    if source.objects == IMAGE:
        h5ad.write_h5ad(image_anndata(dataclasses.replace(source, annotation=annotation)), path)
    else:
        with dask.config.set(scheduler="synchronous"):
            cells = source.plate.to_anndata(source.wells, source.features, source.objects, annotation)
            if source.flags is not None:
                add_flags(cells, source.flags)
            h5ad.write_h5ad(cells, path)
    source.advance(len(source.wells))


def storable(annotation: pd.DataFrame) -> pd.DataFrame:
    """An annotation whose columns .h5ad can hold: one of nothing but None has no type."""
    return annotation.assign(**{c: annotation[c].astype(float) for c in annotation.columns[annotation.isna().all()]})


def image_anndata(source: Source) -> "anndata.AnnData":
    """The Image table as AnnData: a row per site, `var` as that of cells."""
    import anndata

    table = pd.concat([source.table(well) for well in source.wells], ignore_index=True)
    names = ["_".join(map(str, row)) for row in table[list(ROW[:3])].itertuples(index=False)]
    obs = table.drop(columns=source.features).set_axis(names, axis=0)
    var = pd.DataFrame(variables(source.features, source.plate.channels), index=pd.Index(source.features, dtype=object))
    return anndata.AnnData(table[source.features].to_numpy(np.float64), obs=obs, var=var)


def write_sqlite(source: Source, path: Path) -> None:
    """cytominer-database's layout: Image and one table per compartment, joined by TableNumber, ImageNumber, ObjectNumber."""
    import sqlite3
    import zlib

    plate, features = source.plate, source.features

    groups: dict[str, list[str]] = {name: [] for name in sorted({split_name(f)[0] for f in features})}
    for feature in features:
        groups[split_name(feature)[0]].append(feature)
    if missing := [link for link in LINKS if link not in groups.get("Cytoplasm", LINKS)]:
        raise ValueError(f"{plate.barcode}: SQLite needs the column {missing[0]}, by which compartments are joined")
    number = zlib.crc32(plate.barcode.encode())  # other plates' tables can be added
    with system_errors(path), contextlib.closing(sqlite3.connect(path)) as base:
        base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        others = {name: plate.choose(None, name) for name in plate.objects}
        if shared := sorted(set(others) & set(groups)):
            raise ValueError(f"{plate.barcode}: {shared[0]} has rows of its own and columns of cells; choose --columns")
        measures = features_of(plate, None, IMAGE)
        widest = max(map(len, (measures, *groups.values(), *others.values()))) + 8
        if widest > (limit := base.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)):
            raise ValueError(
                f"{plate.barcode}: {widest} columns in a table, and this SQLite takes {limit}; choose --columns"
            )
        keys = {"TableNumber": "INTEGER", "ImageNumber": "INTEGER"}
        named = {f"{prefix}Metadata_{n}": t for prefix in ("", "Image_") for n, t in IDENTITY.items()}
        create(base, "Image", keys | named | {name: "INTEGER" if name == COUNT else "REAL" for name in measures})
        for compartment, names in (*groups.items(), *others.items()):
            create(base, compartment, keys | {"ObjectNumber": "INTEGER"} | dict.fromkeys(names, "REAL"))
        image = 0
        for well, table in zip(source.wells, source.tables(), strict=True):
            tables = [(table, groups), *((plate.to_pandas([well], n, o), {o: n}) for o, n in others.items())]
            for row in plate.image_table([well]).reindex(columns=[*ROW[:3], *measures]).itertuples(index=False):
                image += 1
                insert(base, "Image", [[number, image, *row[:3], *row[:3], int(row[3]), *row[4:]]])
                for rows, parts in tables:
                    here = rows[rows[ROW[2]] == row[2]]
                    objects = here[ROW[3]].to_list()
                    for compartment, names in parts.items():
                        values = here[names].to_numpy(np.float64).tolist()
                        insert(base, compartment, ([number, image, o, *v] for o, v in zip(objects, values, strict=True)))
            base.commit()
        for name in ("Image", *groups, *others):
            base.execute(f'CREATE INDEX "{name}_keys" ON "{name}" (TableNumber, ImageNumber)')
        base.commit()


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Within it what SQLite says of a full or failing disk is the OSError that others give."""
    import sqlite3

    try:
        yield
    except sqlite3.DatabaseError as error:
        if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):  # a mistake of ours
            raise
        number = errno.ENOSPC if error.sqlite_errorcode == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(number, f"{os.strerror(number)} ({error})", str(path)) from error


IDENTITY = {"Plate": "TEXT", "Well": "TEXT", "Site": "INTEGER"}


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
        where = folder / "profiles" / barcode
        raise FileNotFoundError(f"{where} has no profiles of {barcode}; jumpgpu profile makes them")
    if format in ("sqlite", TABLES):
        raise ValueError("SQLite's and CellProfiler's layouts hold single cells, not profiles; choose parquet, csv or h5ad")
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
                write_anndata(table, part, also, source.stem[len(barcode) + 1 :] or "aggregated")
            else:
                write_table(table, part)
        written.append(target)
    return written
