"""A plate read back: lazily, well by well, every byte checked against the record that was written with it."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .durable import check_key
from .layout import ROW, digest, read_array, variables, well_key
from .names import check_barcode
from .store import CSV_COLUMNS, fingerprint, read_attributes, stored_wells

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars

RECORD_KEYS = {"format", "plate", "well", "fingerprint", "cells", "sites", "quarantine", "nonfinite", "files"}


def open_plate(path: str | Path) -> "StoredPlate":
    """Open a plate's store, by its path or as `folder/barcode`.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or of another kind.

    >>> open_plate("nowhere/BR00117010")
    Traceback (most recent call last):
    FileNotFoundError: no plate at nowhere/BR00117010 or nowhere/BR00117010.zarr; python -m jumpgpu.extract makes one
    """
    given = Path(path).expanduser()
    for candidate in (given, given.with_name(f"{given.name}.zarr")):
        if (candidate / "zarr.json").is_file():
            return StoredPlate(candidate)
    raise FileNotFoundError(f"no plate at {given} or {given}.zarr; python -m jumpgpu.extract makes one")


class StoredPlate:
    """A plate on disk: its whole wells, read with their checksums verified.

    barcode, path   what and where
    channels        names, order of the C axis
    settings        what it was made with; `fingerprint` is their digest
    """

    def __init__(self, path: Path):
        self.path = path
        self.manifest = read_attributes(path)
        self.barcode = check_barcode(self.manifest["plate"])
        self.channels = tuple(self.manifest["channels"])
        self.settings = self.manifest["settings"]
        self.fingerprint = self.manifest["fingerprint"]
        self.wells = stored_wells(path)

    def __repr__(self) -> str:
        return f"<plate {self.barcode}: {len(self.wells)} wells, {self.manifest['features']} features, {self.path}>"

    def record(self, well: str) -> dict[str, Any]:
        """A well's record: its sites and their inputs, cells, quarantine, non-finite counts, checksums."""
        if well not in self.wells:
            raise ValueError(f"{self.barcode} has no well {well}; it has {len(self.wells)}: {', '.join(self.wells[:8])} ...")
        record = read_attributes(self.path / well_key(well))
        if not set(record) >= RECORD_KEYS or record["well"] != well or record["plate"] != self.barcode:
            raise ValueError(f"{self.barcode} {well}: its record is incomplete or another well's")
        return record

    def _read(self, well: str, record: Mapping[str, Any], prefix: str) -> dict[str, bytes]:
        """The files of a well under a key, verified against its record."""
        home = (self.path / well_key(well)).resolve()
        files = {}
        for key, known in record["files"].items():
            if not key.startswith(prefix):
                continue
            path = home / check_key(key)
            if not path.resolve().is_relative_to(self.path.resolve()):
                raise ValueError(f"{self.barcode} {well}: {key} leads out of the plate")
            size = path.stat().st_size if path.is_file() else -1
            data = path.read_bytes() if size == known["bytes"] else b""
            if size != known["bytes"] or digest(data) != known["sha256"]:
                raise ValueError(
                    f"{self.barcode} {well}: {key} is not as it was written ({size} bytes of {known['bytes']}, or other "
                    "content); remove the well's folder and run extract again"
                )
            files[key] = data
        return files

    @cached_property
    def columns(self) -> list[str]:
        """Feature columns, in stored order; empty for a plate without wells."""
        return self._columns_of(self.wells[0]) if self.wells else []

    def _columns_of(self, well: str) -> list[str]:
        names = read_array(self._read(well, self.record(well), "tables/cells/var/_index/"), "tables/cells/var/_index")
        columns = [str(n) for n in names]
        if digest("\n".join(columns).encode()) != self.manifest["columns"]:
            raise ValueError(f"{self.barcode} {well}: its columns are not the plate's")
        return columns

    def _choose(self, columns: Iterable[str] | None) -> list[str]:
        if columns is None:
            return self.columns
        chosen = [c for c in columns if c not in ROW]
        if unknown := sorted(set(chosen) - set(self.columns)):
            raise ValueError(f"{self.barcode} has no column {unknown[0]!r}; its columns are in `.columns`")
        return chosen

    def _table(self, wells: Iterable[str] | None, columns: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Row identity (by `ROW`'s names) and float32 [cells, columns] of wells, all of them where None."""
        records = {w: self.record(w) for w in (self.wells if wells is None else wells)}
        place = {c: i for i, c in enumerate(self.columns)}
        take = None if list(columns) == self.columns else [place[c] for c in columns]
        values = np.empty((sum(r["cells"] for r in records.values()), len(columns)), np.float32)
        site, number = np.empty((2, len(values)), np.int32)
        row = 0
        for well, record in records.items():
            files = self._read(well, record, "tables/cells/X/")
            for name in ROW[2:]:
                files |= self._read(well, record, f"tables/cells/obs/{name}/")
            part = read_array(files, "tables/cells/X")
            if part.shape != (record["cells"], len(self.columns)):
                raise ValueError(
                    f"{self.barcode} {well}: its table is {part.shape}, its record says {record['cells']} cells"
                )
            here = slice(row, row + len(part))
            values[here] = part if take is None else part[:, take]
            site[here] = read_array(files, f"tables/cells/obs/{ROW[2]}")
            number[here] = read_array(files, f"tables/cells/obs/{ROW[3]}")
            row += len(part)
        names = np.array(list(records), dtype=object).repeat([r["cells"] for r in records.values()])
        plate = np.full(len(values), self.barcode, dtype=object)
        return dict(zip(ROW, (plate, names, site, number), strict=True)), values

    def to_pandas(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "pandas.DataFrame":
        """One row a cell: Metadata_Plate, Metadata_Well, Metadata_Site, Metadata_ObjectNumber, then float32 features.

        wells : which, in which order; all where None
        columns : which features, in which order; all where None. The Metadata columns always come.
        """
        import pandas

        chosen = self._choose(columns)
        identity, values = self._table(wells, chosen)
        table = pandas.DataFrame(values, columns=chosen, copy=False)
        for position, (name, column) in enumerate(identity.items()):
            table.insert(position, name, column)  # a concat would copy the features
        return table

    def to_polars(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "polars.DataFrame":
        """As `to_pandas`, for polars (which must be installed)."""
        import polars

        chosen = self._choose(columns)
        identity, values = self._table(wells, chosen)
        text = {name: polars.Series(name, identity[name].tolist(), dtype=polars.String) for name in ROW[:2]}
        frame = polars.DataFrame({**text, **{name: identity[name] for name in ROW[2:]}})
        return frame.hstack(polars.from_numpy(values, schema=chosen)) if chosen else frame

    def to_anndata(self, wells: Iterable[str] | None = None) -> "anndata.AnnData":
        """The cells of wells as one AnnData object, `var` saying compartment, family, channel and scale of each feature."""
        import anndata
        import pandas

        wells = self.wells if wells is None else list(wells)
        identity, values = self._table(wells, self.columns)
        index = ["_".join(map(str, row)) for row in zip(*identity.values(), strict=True)]
        variable = pandas.DataFrame(variables(self.columns, self.channels), index=pandas.Index(self.columns, dtype=object))
        obs = pandas.DataFrame(identity, index=pandas.Index(index, dtype=object))
        return anndata.AnnData(values, obs=obs, var=variable)

    def image_quality(self, wells: Iterable[str] | None = None) -> "pandas.DataFrame":
        """One row a site: Metadata_Plate, Metadata_Well, Metadata_Site, then Image_ImageQuality_*.

        ValueError where the plate was made without `image_quality = true` under [features].
        """
        import pandas

        rows = []
        for well in self.wells if wells is None else wells:
            files = self._read(well, self.record(well), "tables/fields/")
            if not files:
                raise ValueError(f"{self.barcode} {well} has no image quality; set image_quality = true under [features]")
            names = [str(n) for n in read_array(files, "tables/fields/var/_index")]
            part = pandas.DataFrame(read_array(files, "tables/fields/X"), columns=names)
            identity = (self.barcode, well, read_array(files, f"tables/fields/obs/{ROW[2]}"))
            for position, (name, column) in enumerate(zip(ROW, identity, strict=False)):
                part.insert(position, name, column)
            rows.append(part)
        return pandas.concat(rows, ignore_index=True) if rows else pandas.DataFrame(columns=ROW[:3])

    def image_checks(self, wells: Iterable[str] | None = None) -> "pandas.DataFrame":
        """One row a raw image: plate, well, site, channel, `saturated` (share of counts at 65535), `sharpness`.

        Sharpness is 0 for a blurred image (`checks.check_image`); compare it within a channel. Read from the records alone.
        """
        import pandas

        rows = [
            (self.barcode, well, site["site"], channel, *values)
            for well in (self.wells if wells is None else wells)
            for site in self.record(well)["sites"]
            for channel, values in site.get("checks", {}).items()
        ]
        table = pandas.DataFrame(rows, columns=["plate", "well", "site", "channel", "saturated", "sharpness"])
        return table.astype({"saturated": float, "sharpness": float})

    def labels(self, well: str, site: int) -> dict[str, np.ndarray]:
        """Compartment -> int32 [H, W]; ValueError where the plate was made without --save-labels."""
        return {k.capitalize(): v for k, v in self._images(well, site, "labels/", "label images", "--save-labels").items()}

    def overview(self, well: str, site: int) -> np.ndarray:
        """uint16 [C, H/8, W/8]: a site's channels at an eighth of the size; ValueError where none was saved."""
        return self._images(well, site, "0/", "overview", "--save-overview")[str(site)]

    def _images(self, well: str, site: int, prefix: str, what: str, option: str) -> dict[str, np.ndarray]:
        files = self._read(well, self.record(well), f"{int(site)}/{prefix}")
        arrays = [key.removesuffix("/zarr.json") for key in files if key.endswith("/0/zarr.json")]
        if not arrays:
            raise ValueError(f"{self.barcode} {well} site {site} has no {what}; extract with {option} stores them")
        return {key.split("/")[-2]: read_array(files, key) for key in arrays}

    @property
    def quarantine(self) -> "pandas.DataFrame":
        """The images that were left out or flagged: plate, well, site, channel, file, reason, used."""
        import pandas

        return pandas.DataFrame([q for w in self.wells for q in self.record(w)["quarantine"]], columns=CSV_COLUMNS)

    @property
    def nonfinite(self) -> "pandas.DataFrame":
        """How many NaN and infinite values each column has over the plate, where it has any: columns `nan`, `inf`."""
        import pandas

        found: dict[str, dict[str, int]] = {}
        for well in self.wells:
            for column, counts in self.record(well)["nonfinite"].items():
                total = found.setdefault(column, {"nan": 0, "inf": 0})
                for kind in total:
                    total[kind] += counts[kind]
        place = {c: i for i, c in enumerate(self.columns)}
        ordered = dict(sorted(found.items(), key=lambda item: place[item[0]]))
        return pandas.DataFrame(ordered.values(), index=list(ordered), columns=["nan", "inf"])

    def verify(self, wells: Iterable[str] | None = None) -> list[str]:
        """What is wrong with the plate, a line each; empty where every stored byte, shape and identity is right."""
        problems = []
        if fingerprint(self.settings) != self.fingerprint:
            problems.append(f"{self.barcode}: its settings do not have its fingerprint")
        for well in self.wells if wells is None else wells:
            try:
                problems += self._verify_well(well)
            except (ValueError, OSError) as error:
                problems.append(str(error))
        return problems

    def _verify_well(self, well: str) -> list[str]:
        record, where = self.record(well), f"{self.barcode} {well}"
        problems = [f"{where}: made with other settings than the plate's"] * (record["fingerprint"] != self.fingerprint)
        self._read(well, record, "")
        home = self.path / well_key(well)
        on_disk = {p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()}
        for key in sorted(on_disk - set(record["files"]) - {"zarr.json"}):
            problems.append(f"{where}: {key} is not in its record")
        columns = self._columns_of(well)
        identity, values = self._table([well], columns)
        sites = {s["site"]: s["cells"] for s in record["sites"]}
        for site, cells in sites.items():
            numbers = identity[ROW[3]][identity[ROW[2]] == site]
            if len(numbers) != cells or len(set(numbers.tolist())) != cells:
                problems.append(f"{where} site {site}: {len(numbers)} rows, {cells} cells recorded, or numbers repeat")
        nan, inf = np.isnan(values).sum(axis=0), np.isinf(values).sum(axis=0)
        for i in np.flatnonzero(nan + inf):
            if record["nonfinite"].get(columns[i]) != {"nan": int(nan[i]), "inf": int(inf[i])}:
                problems.append(f"{where}: {columns[i]} has {nan[i]} NaN and {inf[i]} infinite values, unlike its record")
        return problems
