"""A stored plate as CellProfiler's ExportToSpreadsheet writes one: `<prefix>_<Object>.csv`, `<prefix>_Image.csv`.

A file per object set with a row per object, and one with a row per site. Columns are without their set's name and in
alphabetical order; ImageNumber counts the sites in the plate's order, from 1 on.
"""

import contextlib
import errno
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from csv import writer
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ..settings.names import check_file_name, split_name
from ..storage.atomic import placed_together
from ..store.layout import COUNT, ROW
from ..store.reader import StoredPlate, with_annotation
from .safe_text import safe_text

IMAGE = "Image"
NUMBER, OBJECT = "ImageNumber", "ObjectNumber"
METADATA = {ROW[0]: "Metadata_Plate", ROW[1]: "Metadata_Well", ROW[2]: "Metadata_Site"}


def sets_of(plate: StoredPlate) -> dict[str, list[str]]:
    """Every object set and its columns as they are stored, those of a cell's row first."""
    counted = [
        c.removeprefix(f"{IMAGE}_Count_") for c in plate.image_table(plate.wells[:1]) if c.startswith(f"{IMAGE}_Count_")
    ]
    result: dict[str, list[str]] = {}
    for column in plate.columns:  # names may hold underscores; an imported pipeline counts every set by its name
        known = max((n for n in counted if column.startswith(f"{n}_")), key=len, default=split_name(column)[0])
        result.setdefault(known, []).append(column)
    return result | {name: plate.choose(None, name) for name in plate.objects}


def object_tables(plate: StoredPlate, well: str) -> dict[str, pd.DataFrame]:
    """A well's objects by set: Metadata_Well, Metadata_Site, ObjectNumber, then float32 columns without the set's name.

    A cell's row that has no object of a set, which an imported pipeline's counts say, is no row of it.
    """
    counts = plate.image_table([well]).set_index(ROW[2])
    cells = plate.to_pandas([well])
    result = {}
    for name, columns in sets_of(plate).items():
        table = plate.to_pandas([well], None, name) if name in plate.objects else cells
        count = f"{IMAGE}_Count_{name}"
        if name not in plate.objects and count in counts:
            of_site = counts[count].fillna(0).reindex(table[ROW[2]]).to_numpy()
            table = table[table[ROW[3]].to_numpy() <= of_site]
        own = table[[ROW[1], ROW[2], ROW[3], *columns]]
        renamed = {ROW[3]: OBJECT} | {column: column.removeprefix(f"{name}_") for column in columns}
        result[name] = own.rename(columns=renamed).reset_index(drop=True)
    return result


def site_numbers(plate: StoredPlate, wells: Sequence[str]) -> dict[tuple[str, int], int]:
    """ImageNumber of every site of these wells."""
    sites = [(well, site["site"]) for well in wells for site in plate.record(well)["sites"]]
    return {site: i for i, site in enumerate(sites, 1)}


def image_rows(plate: StoredPlate, well: str, numbers: Mapping[tuple[str, int], int], last: int) -> pd.DataFrame:
    """A well's rows of the Image table as CellProfiler names them, with the files that each site was made from."""
    table = plate.image_table([well])
    table = table.rename(columns={c: c.removeprefix(f"{IMAGE}_") for c in table.columns} | METADATA)
    if f"{IMAGE}_Count_Cells" == COUNT and "Cells" not in sets_of(plate):
        table = table.drop(columns=COUNT.removeprefix(f"{IMAGE}_"))
    for name in sets_of(plate):  # a preset's sets have an object of every cell
        if f"Count_{name}" not in table and name not in plate.objects:
            table[f"Count_{name}"] = table["Count_Cells"]
    number = np.array([numbers[well, site] for site in table["Metadata_Site"]])
    added: dict[str, Any] = {NUMBER: number, "Group_Number": 1, "Group_Index": number, "Group_Length": last}
    names = image_names(plate)
    files = [{i["channel"]: i["file"] for i in site["inputs"]} for site in plate.record(well)["sites"]]
    for image, channel in names.items():
        paths = [PurePosixPath(of.get(channel, "")) for of in files]
        added[f"FileName_{image}"] = [p.name for p in paths]
        added[f"PathName_{image}"] = [str(p.parent) if p.name else "" for p in paths]
    table = table.assign(**added)
    return table[sorted(table.columns)]


def image_names(plate: StoredPlate) -> dict[str, str]:
    """The images that were loaded, by a pipeline's own names or as CPJUMP1's (`OrigDNA`), and their channels."""
    steps = plate.settings.get("config", {}).get("steps") or []
    loads = {s["image"]: s["channel"] for s in steps if s.get("do") == "load" and not s.get("function")}
    return loads or {f"Orig{re.sub(r'[^A-Za-z0-9]', '', channel)}": channel for channel in plate.channels}


def export_cellprofiler(
    plate: StoredPlate,
    folder: Path,
    wells: Sequence[str],
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda wells: None,
    annotation: pd.DataFrame | None = None,
    prefix: str | None = None,
) -> dict[Path, int]:
    """Write the tables, all or none of each; the files and their rows.

    Parameters
    ----------
    prefix : what the files' names begin with; the plate's barcode where None
    annotation : a row per well, found by Metadata_Well: its columns stand with the Metadata_ columns of the Image table
    """
    prefix = plate.barcode if prefix is None else prefix
    names = [IMAGE, *sets_of(plate)]
    targets = {n: folder / check_file_name(f"{prefix}_{n}.csv", "the table") for n in names}
    numbers, rows = site_numbers(plate, wells), dict.fromkeys(names, 0)
    if not overwrite and (there := next((t for t in targets.values() if t.exists()), None)):
        raise FileExistsError(errno.EEXIST, "exists already; --overwrite replaces it", str(there))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(placed_together(folder))
        files = {name: stack.enter_context(open(place(target), "wb")) for name, target in targets.items()}
        for i, well in enumerate(wells, 1):
            for name, table in tables_of(plate, well, numbers, annotation):
                write_rows(table, files[name], header=i == 1)
                rows[name] += len(table)
            advance(i)
    return {targets[name]: rows[name] for name in names}


def tables_of(
    plate: StoredPlate, well: str, numbers: Mapping[tuple[str, int], int], annotation: pd.DataFrame | None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """A well's tables with the columns of their files, in order."""
    images = image_rows(plate, well, numbers, len(numbers))
    if annotation is not None:
        images = with_annotation(images, annotation)
        images = images[sorted(images.columns)]
    yield IMAGE, images
    for name, table in object_tables(plate, well).items():
        number = [numbers[well, site] for site in table["Metadata_Site"]]
        features = sorted(table.columns.drop([ROW[1], ROW[2], OBJECT]))
        table.insert(0, NUMBER, np.array(number, np.int64))
        table.insert(0, "Metadata_Plate", plate.barcode)
        yield name, table[[NUMBER, OBJECT, *sorted(METADATA.values()), *features]]


def write_rows(table: pd.DataFrame, file: Any, *, header: bool) -> None:
    """Rows of CSV: numbers in the shortest form that reads back as the same float64, NaN as nan."""
    import pyarrow as pa
    from pyarrow import csv

    if header:  # unquoted where that is enough, as CellProfiler writes it
        text = io.StringIO()
        writer(text, lineterminator="\n").writerow(table.columns)
        file.write(text.getvalue().encode())
    table = safe_text(table)
    wide = table.astype({c: np.float64 for c in table.columns if table[c].dtype == np.float32})
    columns = {c: pa.array(wide[c].to_numpy() if wide[c].dtype.kind == "f" else wide[c]) for c in wide.columns}
    csv.write_csv(pa.table(columns), file, csv.WriteOptions(include_header=False, quoting_style="needed"))
