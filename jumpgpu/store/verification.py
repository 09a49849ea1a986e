"""A stored plate held against its records: every byte, shape and identity, and what else lies beside the wells."""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..storage.atomic import names_below, read_file
from ..storage.faults import may_pass
from .arrays import read_array
from .image_table import image_rows, plate_table_files
from .layout import ROW, node, nonfinite, well_key
from .means import column_means
from .plate_tables import PlateTables
from .records import MAX_RECORD, read_attributes, read_records, rows_in, verified_files
from .writer import fingerprint

ROW_GROUP = re.compile(r"A?[A-Z]/zarr\.json")
WRITTEN = "is not as it was written"


def verify(plate: PlateTables, wells: Iterable[str] | None = None) -> list[str]:
    """What is wrong with the plate, a line each; empty where every stored byte, shape and identity is right."""
    problems = []
    if fingerprint(plate.settings) != plate.fingerprint:
        problems.append(f"{plate.barcode}: its settings do not have its fingerprint")
    problems += [
        f"{plate.barcode} {well}: listed by the plate but missing; extract it again, or run extract for any other well to "
        "take it off the list"
        for well in plate.listed_wells()
        if well not in plate.wells
    ]
    problems += verify_groups(plate)
    try:
        problems += verify_image_table(plate)
    except (ValueError, OSError) as error:
        problems.append(said(error))
    for well in plate.chosen(wells):
        try:
            problems += verify_well(plate, well)
        except (ValueError, OSError) as error:
            text = said(error)
            problems.append(text if text.startswith(plate.barcode) else f"{plate.barcode} {well}: {text}")
    return problems


def said(error: Exception) -> str:
    """What is wrong with the plate; an error of the system, which says nothing of it, is raised."""
    if may_pass(error):
        raise error
    return str(error)


def verify_groups(plate: PlateTables) -> list[str]:
    """The plate's and its rows' own metadata, and what else lies beside the wells."""
    known = {"zarr.json", *(f"{well[:-2]}/zarr.json" for well in plate.wells)}
    homes = {well_key(well) for well in plate.wells}
    result = set(names_below(plate.path)) if isinstance(plate.path, Path) else known  # in a bucket half a well may lie
    known |= {key for key in result if ROW_GROUP.fullmatch(key)}  # a run may end between a row and its first well
    problems = [
        f"{plate.barcode}: {key} {WRITTEN}" for key in sorted(known) if not exact(plate, key, row=key != "zarr.json")
    ]
    with contextlib.suppress(ValueError):
        known |= {f"tables/{key}" for key in (*read_attributes(plate.path / "tables")["files"], "zarr.json")}
    strange = sorted(key for key in result - known if "/".join(key.split("/")[:2]) not in homes)
    return problems + [f"{plate.barcode}: {key} is of no well" for key in strange]


def exact(plate: PlateTables, key: str, row: bool = False) -> bool:
    """Whether a group's metadata has the bytes that its attributes, or a row's, are written as, or were in format 1."""
    try:
        data = read_file(plate.path / key, MAX_RECORD)
        attributes = {} if row else json.loads(data)["attributes"]
        return data in (node("group", attributes), node("group", attributes, indent=1))
    except (OSError, ValueError, LookupError, TypeError) as error:
        return bool(not said(error))


def verify_well(plate: PlateTables, well: str) -> list[str]:
    record, where = plate.record(well), f"{plate.barcode} {well}"
    problems = [f"{where}: made with other settings than the plate's"] * (record["fingerprint"] != plate.fingerprint)
    key = f"{well_key(well)}/zarr.json"
    problems += [f"{plate.barcode}: {key} {WRITTEN}"] * (not exact(plate, key))
    plate.files_of(well, record, "")
    on_disk = set(names_below(plate.path / well_key(well)))
    for key in sorted(on_disk - set(record["files"]) - {"zarr.json"}):
        problems.append(f"{where}: {key} is not in its record")
    for table in ("cells", *plate.objects):
        problems += verify_table(plate, well, record, table)
    names, rows = image_rows(plate.path, record, where)
    return problems + verify_finite(where, record, names, rows)


def verify_table(plate: PlateTables, well: str, record: Mapping[str, Any], table: str) -> list[str]:
    """What is wrong with a well's table of objects."""
    where, columns = f"{plate.barcode} {well}", plate.names_in(well, table)
    plate.known_names.setdefault(table, columns)
    problems = []
    identity, values = plate.read_table([well], columns, table)
    pairs = zip(*(identity[name].tolist() for name in ROW[2:]), strict=True)
    index = np.array([f"{plate.barcode}_{well}_{site}_{number}" for site, number in pairs], dtype=object)
    for name, known in (*identity.items(), ("_index", index)):
        key = f"tables/{table}/obs/{name}"
        if not np.array_equal(read_array(plate.files_of(well, record, f"{key}/"), key), known):
            problems.append(f"{where}: {name} of its rows in {table} does not match its record")
    for site in record["sites"]:
        numbers, n = identity[ROW[3]][identity[ROW[2]] == site["site"]], rows_in(site, table)
        if len(numbers) != n or len(set(numbers.tolist())) != n:
            problems.append(f"{where} site {site['site']}: {len(numbers)} rows, {n} recorded, or numbers repeat ({table})")
    key = f"tables/{table}/var/mean"
    files = plate.files_of(well, record, f"{key}/")  # none in a well of before they were stored
    if files and not np.array_equal(read_array(files, key), column_means([values], len(columns)), equal_nan=True):
        problems.append(f"{where}: the means of its columns in {table} are not those of its rows")
    return problems + verify_finite(where, record, columns, values)


def verify_image_table(plate: PlateTables) -> list[str]:
    """What is wrong with the plate's Image table. One that older wells than today's made is not held against these."""
    if not (plate.path / "tables" / "zarr.json").is_file():
        return []  # no run has ended yet
    record = read_attributes(plate.path / "tables")
    files = verified_files(plate.path / "tables", record, "", plate.barcode)
    records = read_records(plate.path)
    if record["wells"] != {well: r["digest"] for well, r in records.items()}:
        return []
    known = plate_table_files(plate.path, plate.manifest, records)
    result = {**files, "zarr.json": read_file(plate.path / "tables" / "zarr.json", MAX_RECORD)}
    return [f"{plate.barcode}: tables/{key} {WRITTEN}" for key in known if result.get(key) != known[key]]


def verify_finite(where: str, record: Mapping[str, Any], columns: Sequence[str], values: np.ndarray) -> list[str]:
    """The columns whose NaN and infinite values are not as many as the record says."""
    result = nonfinite(columns, [values])
    return [
        f"{where}: {column} has {counts['nan']} NaN and {counts['inf']} infinite values, which does not match its record"
        for column, counts in result.items()
        if record["nonfinite"].get(column) != counts
    ]
