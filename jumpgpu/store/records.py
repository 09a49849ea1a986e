"""What a plate's groups say of themselves: their records, read and checked, and files read against them."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..settings.names import well_position
from ..storage.atomic import names_below, path_inside, read_file, read_files
from ..storage.buckets import Place, RemotePath, in_parallel
from .arrays import digest
from .layout import FORMAT, FORMATS, TABLE_CHUNKS, sealed, well_key

MAX_RECORD = 1 << 26  # bytes of a zarr.json that is read
# What records are made of: a type, a list of one kind, a dict of given keys, or under "*" of any.
QUARANTINED = {"site": int, "channel": str, "reason": str, "used": bool}
PLATE = {
    "plate": str,
    "fingerprint": str,
    "settings": dict,
    "features": int,
    "columns": str,
    "channels": [str],
    "quarantine": [QUARANTINED],
}
SITE = {"site": int, "cells": int, "inputs": [{"channel": str, "file": str, "bytes": int}]}
WELL = {
    "plate": str,
    "well": str,
    "fingerprint": str,
    "cells": int,
    "sites": [SITE],
    "quarantine": [QUARANTINED],
    "nonfinite": {"*": {"nan": int, "inf": int}},
    "files": {"*": {"bytes": int}},
}


def read_attributes(folder: Place) -> dict[str, Any]:
    """Our attributes of a zarr group; ValueError if it is none of ours."""
    path = folder / "zarr.json"
    try:
        data = read_file(path, MAX_RECORD)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ValueError(f"{folder} is not a plate or well written by jumpgpu: it has no zarr.json") from error
    try:
        attributes = json.loads(data)["attributes"]
        ours = attributes["jumpgpu"]
        form = ours["format"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not a record of jumpgpu's") from error
    if not isinstance(form, int) or form not in FORMATS:
        raise ValueError(f"{path} has format {form!r}, expected {FORMAT} or older; this is version {__version__} of jumpgpu")
    try:
        known = sealed(attributes)["jumpgpu"]["digest"]
    except (TypeError, RecursionError, UnicodeError) as error:
        raise ValueError(f"{path} is not a record of jumpgpu's") from error
    if known != ours.get("digest"):
        raise ValueError(f"{path} was changed after it was written")
    return dict(ours)


def misfit(value: Any, kind: str) -> str:
    """The first part of a "plate"'s or "well"'s record that is not of its form, and what it is; '' where all is."""
    return "" if FITS[kind](value) else described_misfit(value, FORMS[kind], "record")


def checker(form: Any) -> Callable[[Any], bool]:
    """What says whether a value is of a form: made once, since a plate's records have tens of thousands of parts."""
    if isinstance(form, list):
        each = checker(form[0])
        return lambda value: isinstance(value, list) and all(map(each, value))
    if form == {"bytes": int}:  # of each file: half of what there is to check
        return lambda value: isinstance(value, dict) and type(n := value.get("bytes")) is int and n >= 0
    if isinstance(form, dict):
        parts = [(key, checker(part)) for key, part in form.items() if key != "*"]
        rest = checker(form["*"]) if "*" in form else lambda value: True

        def check(value: Any) -> bool:
            if not isinstance(value, dict) or not all(map(rest, value.values())):
                return False
            return all(fits(value.get(key)) for key, fits in parts)

        return check
    if form is int:
        return lambda value: type(value) is int and value >= 0  # of JSON: true is no number
    return lambda value: type(value) is form


FORMS: dict[str, Any] = {"plate": PLATE, "well": WELL}
FITS = {kind: checker(form) for kind, form in FORMS.items()}


def described_misfit(value: Any, form: Any, name: str) -> str:
    if isinstance(form, list):
        parts = [(f"{name}[{i}]", v, form[0]) for i, v in enumerate(value)] if isinstance(value, list) else None
    elif isinstance(form, dict) and isinstance(value, dict):
        parts = [(f"{name}.{k}", v, form["*"]) for k, v in value.items()] if "*" in form else []
        parts += [(f"{name}.{k}", value.get(k), f) for k, f in form.items() if k != "*"]
    else:
        parts = [] if isinstance(form, type) and checker(form)(value) else None
    if parts is None:
        return f"{name[:100]} is {str(value)[:40]!r}"
    return next(filter(None, (described_misfit(v, f, n) for n, v, f in parts)), "")


def stored_wells(plate: Place) -> list[str]:
    """The wells that a plate holds, in plate order."""
    if isinstance(plate, RemotePath):
        records = (re.fullmatch(r"(A?[A-Z])/(\d\d)/zarr\.json", key) for key in names_below(plate))
        return sorted((r[1] + r[2] for r in records if r), key=well_position)
    result = [
        row.name + column.name
        for row in plate.iterdir()
        if re.fullmatch(r"A?[A-Z]", row.name)
        for column in row.iterdir()
        if re.fullmatch(r"\d\d", column.name) and (column / "zarr.json").is_file()
    ]
    return sorted(result, key=well_position)


def read_records(plate: Place) -> dict[str, dict[str, Any]]:
    """Well -> its record, of all wells; many at once from a bucket."""
    wells = stored_wells(plate)
    folders = [plate / well_key(well) for well in wells]
    read = in_parallel(read_attributes, folders) if isinstance(plate, RemotePath) else map(read_attributes, folders)
    return dict(zip(wells, read, strict=True))


def home_of(plate: Place, well: str, where: str) -> Place:
    """A well's folder; ValueError where a link leads out of the plate."""
    try:
        return Path(path_inside(plate, well_key(well))) if isinstance(plate, Path) else plate / well_key(well)
    except ValueError:
        raise ValueError(f"{where}: it leads out of the plate") from None


def verified_files(home: Place, record: Mapping[str, Any], prefix: str, where: str) -> dict[str, bytes]:
    """The files under a key of a group, checked against its record; the chunks of a table are when they are decoded."""
    chosen = {key: known for key, known in record["files"].items() if key.startswith(prefix)}
    files = {}
    for key, data, size in read_files(home, {key: known["bytes"] for key, known in chosen.items()}):
        known = chosen[key]
        by_chunks = "sha256" not in known and record["format"] > 1 and re.fullmatch(TABLE_CHUNKS, key)
        if size != known["bytes"] or not (by_chunks or digest(data) == known["sha256"]):
            raise ValueError(
                f"{where}: {key} is not as it was written ({size} bytes of {known['bytes']}, or other content); remove the "
                "well's folder and run extract again"
            )
        files[key] = data
    return files


def rows_of(record: Mapping[str, Any], table: str) -> int:
    """Rows of a well's table of objects."""
    return int(record["cells"]) if table == "cells" else sum(rows_in(site, table) for site in record["sites"])


def rows_in(site: Mapping[str, Any], table: str) -> int:
    """Rows that a site has in a table of objects."""
    return int(site["cells"]) if table == "cells" else int(site.get("objects", {}).get(table, 0))
