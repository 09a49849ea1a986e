"""One plate, one zarr v3 group: append finished wells. `reader.py` reads them back.

`BR00117010.zarr` holds the plate's settings and their fingerprint, and a group a well (`layout.py`). A well is written
beside its place and renamed into it (`atomic.py`), so it is complete or absent, a stopped run is run again, and a
plate is done when its wells are. Only runs that agree with it in settings and numbers versions may add to a plate.
"""

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Self

import numpy as np

from ..settings.names import well_position
from ..settings.numbers import compare
from ..storage.atomic import commit_folder, read_file, replace_file
from ..storage.buckets import Place, RemotePath
from ..storage.claims import Claim, gate
from .arrays import digest
from .blur import blurred
from .image_table import plate_table_files
from .layout import FORMAT, OME_VERSION, Input, Layout, ObjectTable, Quarantined, SiteTable, node, sealed, well_key
from .records import MAX_RECORD, read_attributes, read_records, stored_wells
from .resume import changed_settings, illumination_of, lacking, refuse

CSV_COLUMNS = [f.name for f in fields(Quarantined)]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings in canonical JSON."""
    return digest(json.dumps(settings, sort_keys=True, allow_nan=False).encode())


class PlateWriter:
    """A run's hand on a plate: which wells are missing, and each field's table as it comes. Use it in a `with`.

    Parameters
    ----------
    output : the folder, here or in a bucket, that holds `<plate>.zarr`; made if absent
    layout : barcode, columns, channels
    settings : numbers versions, and everything else that a stored number depends on, as JSON values
    wells : well -> the sites expected in it. Other runs may work on other wells of the plate at the same time.
    overwrite : make these wells again. With other settings than the plate's, its wells go, so they must all be among these.
    retry : make those of these wells again that a site was left out of.
    last : bring the plate's own metadata and `quarantine.csv` up to date at the end; False where another does it later.

    Raises ValueError where the plate has other settings (it lists them), BlockingIOError while a run has one of the wells.
    """

    def __init__(
        self,
        output: Place,
        layout: Layout,
        settings: Mapping[str, Any],
        wells: Mapping[str, Sequence[int]],
        overwrite: bool = False,
        last: bool = True,
        retry: bool = False,
    ):
        self.output, self.layout = output, layout
        self.path = output / f"{layout.plate}.zarr"
        self.settings = json.loads(json.dumps(settings))
        self.fingerprint = fingerprint(self.settings)
        self._overwrite, self._last = overwrite, last
        self._lacking = set[str]()  # finished wells that are made again, with label images or overviews
        self.wells = {w: frozenset(s) for w, s in wells.items()}
        self._pending: dict[str, dict[int, SiteTable | None]] = {w: {} for w in wells}
        self._quarantine: dict[str, list[Quarantined]] = {w: [] for w in wells}
        output.mkdir(parents=True, exist_ok=True)
        with gate(output):
            self._claim = Claim(output, layout.plate, wells)
            try:
                self._done = set() if self._join(overwrite) else set(stored_wells(self.path)) & set(wells)
                self._again = {w for w in self._done if self._left_out(w)} if retry else set[str]()
                self._again |= self._lacking & set(wells)
                self._done -= self._again
            except BaseException:
                self._claim.release()
                raise

    def _join(self, overwrite: bool) -> bool:
        """Make the plate, or check that this run may add to it; whether the wells it has are to be made again."""
        if not self.path.exists():
            with contextlib.suppress(FileExistsError):  # a bucket has no gate: another run may have made it just now
                commit_folder({"zarr.json": self._manifest()}, self.path, self._claim.staging)
                return False
        stored = read_attributes(self.path)
        now = str(self.layout.made_with.get("illumination", ""))
        changed = changed_settings(stored["settings"], self.settings, (illumination_of(self.path), now))
        if not changed:
            changed = [f"columns of {name}: stored others" for name in self._other_columns(stored)]
        if not changed:
            self.fingerprint = stored["fingerprint"]  # another, where the plate is older than numbers versions
            if set(self.settings.get("saved", ())) > set(stored["settings"].get("saved", ())):
                self._lacking = {w for w in stored_wells(self.path) if w in self.wells and self._lacks(w)}
            return overwrite
        refuse(self.path, changed, overwrite, list(self.wells))
        if self._claim.others:
            raise BlockingIOError(
                f"{self.layout.plate}: {self._claim.others[0]} is at work on it; wait for it before --overwrite"
            )
        commit_folder({"zarr.json": self._manifest()}, self.path, self._claim.staging, replace=True)
        return False

    def _lacks(self, well: str) -> list[str]:
        """What of label images and overviews that this run saves a finished well does not have."""
        return lacking(read_attributes(self.path / well_key(well)), self.settings["saved"])

    def _other_columns(self, stored: Mapping[str, Any]) -> list[str]:
        """The tables that have other columns in a plate's record than in this layout."""
        here = self._columns()
        known = {"cells": stored["columns"], **stored.get("tables", {})}
        tables = set(here) | set(known) if stored["format"] > 1 else {"cells"}
        return sorted(name for name in tables if known.get(name) != here.get(name))

    def _columns(self) -> dict[str, str]:
        """Digests of the columns of each table."""
        tables = {"image": self.layout.image, **self.layout.objects}
        digests = {name: digest("\n".join(columns).encode()) for name, columns in tables.items()}
        return {"cells": self.layout.columns_digest} | digests

    def _manifest(self) -> bytes:
        ours = {
            "format": FORMAT,
            "plate": self.layout.plate,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "made_with": self.layout.made_with,
            "features": len(self.layout.columns),
            "columns": self.layout.columns_digest,
            "tables": {name: known for name, known in self._columns().items() if name != "cells"},
            "channels": self.layout.channels,
            "pixel_size_um": self.layout.pixel_size_um,
            "quarantine": [],
        }
        return node("group", sealed({"jumpgpu": ours}))

    def _left_out(self, well: str) -> set[int]:
        """The sites that a finished well lacks."""
        return {q["site"] for q in read_attributes(self.path / well_key(well))["quarantine"] if not q["used"]}

    @property
    def completed(self) -> int:
        """How many finished wells are made again to have the label images or overviews that they lack."""
        return len(self._lacking)

    def missing_wells(self) -> list[str]:
        """The wells still to be made, in plate order."""
        return sorted(set(self.wells) - self._done, key=well_position)

    def changed_inputs(self, well: str, inputs: Mapping[int, Iterable[Input]]) -> list[str]:
        """How a finished well's sites (site -> its files now) differ from what it was made from, one line a difference."""
        return changed_inputs(read_attributes(self.path / well_key(well)), inputs)

    def touched_inputs(self, well: str, inputs: Mapping[int, Iterable[Input]]) -> int:
        """How many of a finished well's files (site -> its files now) have the size they had, and were changed since."""
        record = read_attributes(self.path / well_key(well))
        before = {(s["site"], i["channel"]): i for s in record["sites"] for i in s["inputs"]}
        pairs = [(before.get((site, i.channel), {}), i) for site, files in inputs.items() for i in files]
        return sum(old.get("bytes") == i.bytes and (old.get("mark") or i.mark) != i.mark for old, i in pairs)

    def append(self, table: SiteTable) -> bool:
        """Take a field; once its well has all its sites the well is written. Whether it was."""
        return written(self.take(table))

    def leave_out(self, entries: Sequence[Quarantined]) -> bool:
        """Record why one site has no cells: all its bad images together. Whether that completed its well."""
        return written(self.take_left_out(entries))

    def take(self, table: SiteTable) -> Callable[[], None] | None:
        """Take a field; what writes its well, once that has all its sites, for any thread to call."""
        where = f"{self.layout.plate} {table.well} site {table.site}"
        if strange := sorted(set(table.objects) - set(self.layout.objects)):
            raise ValueError(
                f"{where}: object set {strange[0]!r} is not among the plate's: {', '.join(self.layout.objects)}"
            )
        self.layout.measures(table)
        values = self._stored(table.numbers, table.values, self.layout.columns, f"{where}: table")
        objects = {
            name: ObjectTable(
                part.numbers, self._stored(part.numbers, part.values, self.layout.objects[name], f"{where}: table of {name}")
            )
            for name, part in table.objects.items()
        }
        return self._account(table.well, table.site, replace(table, values=values, objects=objects))

    @staticmethod
    def _stored(numbers: np.ndarray, values: np.ndarray, columns: Sequence[str], what: str) -> np.ndarray:
        """Values as they are stored, float32; ValueError where they are not a row per number and a column per name."""
        if values.shape != (len(numbers), len(columns)):
            raise ValueError(f"{what} is {values.shape}, expected {(len(numbers), len(columns))}")
        with np.errstate(over="ignore", under="ignore"):  # past float32 is inf, which the record counts
            return np.asarray(values, np.float32)

    def take_left_out(self, entries: Sequence[Quarantined]) -> Callable[[], None] | None:
        """Record why one site has no cells, all its bad images together; what writes its well, as of `take`."""
        self._quarantine[entries[0].well].extend(entries)
        return self._account(entries[0].well, entries[0].site, None)

    def flag(self, entry: Quarantined) -> None:
        """Record an odd image of a site that is measured all the same; before its well's last site comes."""
        self._quarantine[entry.well].append(entry)

    def _account(self, well: str, site: int, table: SiteTable | None) -> Callable[[], None] | None:
        if site not in self.wells.get(well, ()) or site in self._pending[well]:
            raise ValueError(f"{self.layout.plate} {well} site {site} is not expected, or came twice")
        self._pending[well][site] = table
        if set(self._pending[well]) != self.wells[well]:
            return None
        tables = [t for t in self._pending.pop(well).values() if t is not None]
        return partial(self._write, well, tables, self._quarantine.pop(well))

    def _write(self, well: str, tables: list[SiteTable], quarantine: list[Quarantined]) -> None:
        files = self.layout.well(well, tables, quarantine, self.fingerprint)
        staging = self._claim.staging if isinstance(self._claim.staging, RemotePath) else self._claim.staging / well
        staging.mkdir(parents=True, exist_ok=True)  # its own: wells of a column are staged under one name
        row = (self.path / well_key(well)).parent
        if not (row / "zarr.json").is_file():
            with contextlib.suppress(FileExistsError):  # another's first well in this row came first
                commit_folder({"zarr.json": node("group", {})}, row, staging)
        commit_folder(files, self.path / well_key(well), staging, replace=self._overwrite or well in self._again)
        self._done.add(well)

    def close(self) -> None:
        """Bring the plate's own metadata and `quarantine.csv` up to date with its wells, and let the claim go."""
        try:
            if self._last:
                with gate(self.output):
                    bring_up_to_date(self.path, self._claim.staging)
        finally:
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def changed_inputs(record: Mapping[str, Any], inputs: Mapping[int, Iterable[Input]]) -> list[str]:
    """How a finished well's sites (site -> its files now) differ from what its record says, one line a difference."""
    well = record["well"]
    left_out = {q["site"] for q in record["quarantine"] if not q["used"]}
    output = {s["site"]: {i["channel"]: f"{i['file']} ({i['bytes']} bytes)" for i in s["inputs"]} for s in record["sites"]}
    lines = [f"{well} site {s}: was not there" for s in sorted(set(inputs) - set(output) - left_out)]
    lines += [f"{well} site {s}: is no longer there" for s in sorted(set(output) - set(inputs))]
    for site in sorted(set(output) & set(inputs)):
        now = {i.channel: f"{i.file} ({i.bytes} bytes)" for i in inputs[site]}
        lines += [f"{well} site {site} {line}" for line in compare(output[site], now)]
    return lines


def written(write: Callable[[], None] | None) -> bool:
    """Do what writes a well, where there is something; whether there was."""
    if write:
        write()
    return write is not None


def tidy(output: Place, plate: str) -> None:
    """Bring a plate's metadata up to date, and clear away what dead runs left, after a run that others worked for."""
    with gate(output):
        claim = Claim(output, plate, ())
        try:
            bring_up_to_date(output / f"{plate}.zarr", claim.staging)
        finally:
            claim.release()


def bring_up_to_date(plate: Place, staging: Place) -> None:
    """Give a plate's own metadata, Image table and `quarantine.csv` what its wells say. The caller holds the gate."""
    ours = read_attributes(plate)
    records = read_records(plate)
    tables = plate_table_files(plate, ours, records)
    if (
        not (plate / "tables" / "zarr.json").is_file()
        or read_file(plate / "tables" / "zarr.json", MAX_RECORD) != tables["zarr.json"]
    ):
        commit_folder(tables, plate / "tables", staging, replace=True)
    ours["quarantine"] = [q for r in records.values() for q in r["quarantine"]]
    attributes = sealed(plate_images(ours["plate"], records) | {"jumpgpu": ours})
    replace_file(plate / "zarr.json", node("group", attributes), staging)
    flagged = [*ours["quarantine"], *blurred(records.values(), ours["plate"])]
    write_csv(plate.parent / "quarantine.csv", ours["plate"], flagged, staging)


def plate_images(barcode: str, records: Mapping[str, Any]) -> dict[str, Any]:
    """OME-Zarr's plate metadata, if wells hold images."""
    shown = [w for w, r in records.items() if any(re.fullmatch(r"\d+/0/zarr\.json", key) for key in r["files"])]
    if not shown:
        return {}
    rows = sorted({w[:-2] for w in shown}, key=lambda r: (len(r), r))
    columns = sorted({w[-2:] for w in shown})
    plate = {
        "version": OME_VERSION,
        "name": barcode,
        "rows": [{"name": r} for r in rows],
        "columns": [{"name": c} for c in columns],
        "wells": [
            {"path": well_key(w), "rowIndex": rows.index(w[:-2]), "columnIndex": columns.index(w[-2:])} for w in shown
        ],
        "field_count": max(len(records[w]["sites"]) for w in shown),
    }
    return {"ome": {"version": OME_VERSION, "plate": plate}}


def write_csv(path: Place, barcode: str, quarantine: Sequence[Mapping[str, Any]], staging: Place) -> None:
    """`quarantine.csv` beside the plates: this plate's rows anew, those of others as they are."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        text = read_file(path, MAX_RECORD).decode()
        rows = [r for r in csv.DictReader(io.StringIO(text, newline="")) if r.get("plate") != barcode]
    if not rows and not quarantine:
        path.unlink(missing_ok=True)
        return
    table = io.StringIO()
    writer = csv.DictWriter(table, CSV_COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    writer.writerows({k: defused(v) for k, v in q.items()} for q in quarantine)
    replace_file(path, table.getvalue().encode(), staging)


def defused(value: Any) -> Any:
    """A text that a spreadsheet will not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
