"""A plate read back: lazily, well by well, every byte checked against the record that was written with it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..settings.names import FAMILIES, check_barcode, family_of
from ..settings.numbers import comparable
from ..storage.atomic import names_below, read_files
from ..storage.buckets import Place, place_of
from .layout import ROW, digest, node, read_array, variables, well_key
from .writer import CSV_COLUMNS, fingerprint, read_attributes, stored_wells

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars
    import spatialdata

    from .views import Picture

RECORD_KEYS = {"format", "plate", "well", "fingerprint", "cells", "sites", "quarantine", "nonfinite", "files"}
ROW_GROUP = re.compile(r"A?[A-Z]/zarr\.json")
WRITTEN = "is not as it was written"


def open_plate(path: str | Place, images: str | Place | None = None) -> "StoredPlate":
    """Open a plate's store, by its path, s3:// URL or as `folder/barcode`; `images` is where `show` finds its raw images.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or of another kind.

    >>> open_plate("nowhere/BR00117010")
    Traceback (most recent call last):
    FileNotFoundError: no plate at nowhere/BR00117010 or nowhere/BR00117010.zarr; python -m jumpgpu.extract makes one
    """
    given = place_of(path)
    for candidate in (given, given.with_name(f"{given.name}.zarr")):
        if (candidate / "zarr.json").is_file():
            return StoredPlate(candidate, images)
    raise FileNotFoundError(f"no plate at {given} or {given}.zarr; python -m jumpgpu.extract makes one")


class StoredPlate:
    """A plate on disk: its whole wells, read with their checksums verified.

    barcode, path   what and where
    channels        names, order of the C axis
    settings        what it was made with; `fingerprint` is their digest
    images          where its raw images are, if that is known
    """

    def __init__(self, path: Place, images: str | Place | None = None):
        self.path, self.images = path, images
        self.manifest = read_attributes(path)
        self.barcode = check_barcode(self.manifest["plate"])
        self.channels = tuple(self.manifest["channels"])
        self.settings = self.manifest["settings"]
        self.fingerprint = self.manifest["fingerprint"]
        self.wells = stored_wells(path)

    @property
    def numbers(self) -> dict[str, Any]:
        """Numbers versions by preset, stage and family: plates in which they differ hold values that do not compare."""
        return dict(comparable(self.settings).get("numbers", {}))

    def __repr__(self) -> str:
        return f"<plate {self.barcode}: {len(self.wells)} wells, {self.manifest['features']} features, {self.path}>"

    @property
    def beside(self) -> Path:
        """The folder on this machine where what is made of the plate goes: its own, or for one in a bucket this one."""
        return self.path.parent if isinstance(self.path, Path) else Path()

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
        chosen = {key: known for key, known in record["files"].items() if key.startswith(prefix)}
        files = {}
        home = self.path / well_key(well)
        if isinstance(self.path, Path) and not Path(home).resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"{self.barcode} {well}: it leads out of the plate")
        for key, data, size in read_files(home, {key: known["bytes"] for key, known in chosen.items()}):
            known = chosen[key]
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

    def choose(self, columns: Iterable[str] | None) -> list[str]:
        """Columns from names, families (`Texture`) and patterns (`Nuclei_*_DNA`), each once; all of them where None.

        ValueError for what matches none, with the nearest names.
        """
        if columns is None:
            return self.columns
        if isinstance(columns, str):
            raise TypeError(f"columns is a list: columns=[{columns!r}]")
        known, chosen = set(self.columns), dict[str, None]()
        for asked in columns:
            if asked in known:
                chosen[asked] = None
            elif asked not in ROW:
                found = [c for c in self.columns if family_of(c) == asked or fnmatchcase(c, asked)]
                if not found:
                    near = get_close_matches(asked, [*FAMILIES, *self.columns], 3)
                    hint = f"the nearest are {', '.join(near)}" if near else "its columns are in `.columns`"
                    raise ValueError(f"{self.barcode} has no column {asked!r}; {hint}")
                chosen |= dict.fromkeys(found)
        return list(chosen)

    def _table(self, wells: Iterable[str] | None, columns: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Row identity (by `ROW`'s names) and float32 [cells, columns] of wells, all of them where None."""
        records = {w: self.record(w) for w in (self.wells if wells is None else wells)}
        values = np.empty((sum(r["cells"] for r in records.values()), len(columns)), np.float32)
        row = 0
        for well, record in records.items():
            values[row : row + record["cells"]] = self._values(well, record, columns)
            row += record["cells"]
        return self._identity(records), values

    def _values(self, well: str, record: Mapping[str, Any], columns: Sequence[str]) -> np.ndarray:
        """float32 [cells, columns] of a well."""
        part = read_array(self._read(well, record, "tables/cells/X/"), "tables/cells/X")
        if part.shape != (record["cells"], len(self.columns)):
            raise ValueError(f"{self.barcode} {well}: its table is {part.shape}, its record says {record['cells']} cells")
        if list(columns) == self.columns:
            return part
        place = {c: i for i, c in enumerate(self.columns)}
        return part[:, [place[c] for c in columns]]

    def _identity(self, records: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Plate, well, site and object number of every row of these wells."""
        counts = [r["cells"] for r in records.values()]
        site, number = np.empty((2, sum(counts)), np.int32)
        row = 0
        for well, record in records.items():
            here = slice(row, row := row + record["cells"])
            for name, column in zip(ROW[2:], (site, number), strict=True):
                key = f"tables/cells/obs/{name}"
                column[here] = read_array(self._read(well, record, f"{key}/"), key)
        plate = np.full(len(site), self.barcode, dtype=object)
        return dict(zip(ROW, (plate, np.array(list(records), dtype=object).repeat(counts), site, number), strict=True))

    def to_pandas(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "pandas.DataFrame":
        """One row a cell: Metadata_Plate, Metadata_Well, Metadata_Site, Metadata_ObjectNumber, then float32 features.

        wells : which, in which order; all where None
        columns : names, families and patterns (`choose`), in which order; all where None. The Metadata columns always come.
        """
        import pandas

        chosen = self.choose(columns)
        identity, values = self._table(wells, chosen)
        table = pandas.DataFrame(values, columns=chosen, copy=False)
        for position, (name, column) in enumerate(identity.items()):
            table.insert(position, name, column)  # a concat would copy the features
        return table

    def to_polars(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "polars.DataFrame":
        """As `to_pandas`, for polars (which must be installed)."""
        import polars

        chosen = self.choose(columns)
        identity, values = self._table(wells, chosen)
        text = {name: polars.Series(name, identity[name].tolist(), dtype=polars.String) for name in ROW[:2]}
        frame = polars.DataFrame({**text, **{name: identity[name] for name in ROW[2:]}})
        return frame.hstack(polars.from_numpy(values, schema=chosen)) if chosen else frame

    def to_anndata(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "anndata.AnnData":
        """The cells of wells as one AnnData object, `var` saying compartment, family, channel and scale of each feature.

        `X` is a dask array, a block a well: a well's features are read, and checked, when they are used; `.to_memory()`
        reads them all. Which cells there are (`obs`) is read at once.
        """
        import anndata
        import dask
        import dask.array
        import pandas

        chosen = self.choose(columns)
        records = {w: self.record(w) for w in (self.wells if wells is None else wells)}
        blocks = [
            dask.array.from_delayed(
                dask.delayed(self._values, pure=False)(well, record, chosen), (record["cells"], len(chosen)), np.float32
            )
            for well, record in records.items()
        ]
        values = dask.array.concatenate(blocks) if blocks else dask.array.zeros((0, len(chosen)), np.float32)
        identity = self._identity(records)
        index = ["_".join(map(str, row)) for row in zip(*identity.values(), strict=True)]
        variable = pandas.DataFrame(variables(chosen, self.channels), index=pandas.Index(chosen, dtype=object))
        obs = pandas.DataFrame(identity, index=pandas.Index(index, dtype=object))
        return anndata.AnnData(values, obs=obs, var=variable)

    def to_spatialdata(
        self,
        wells: Iterable[str] | None = None,
        sites: Iterable[int] | None = None,
        columns: Iterable[str] | None = None,
        images: str | Place | None = None,
    ) -> "spatialdata.SpatialData":
        """Fields and cells for spatialdata, napari-spatialdata and squidpy; needs the extra `spatial` and --save-labels.

        images : `A01_3`, uint16 [C, H, W] with the channels' names: raw images where they are at hand (`images`, or where
            the plate was extracted from), else the overview, an eighth of the size
        labels : `A01_3_Nuclei`, `A01_3_Cells`, `A01_3_Cytoplasm`, int32 [H, W]
        tables : `cells`, as `to_anndata` gives them; `region` and `instance` say which label in which image a row is
        coordinate systems : `A01 site 3` in pixels; `A01` and `plate` in um, where the stage's positions are known (a
            warning names the fields without)

        Parameters
        ----------
        wells, sites : which; all where None
        columns : names, families and patterns (`choose`); all where None
        images : folder or URL of the plate's raw images

        Raises ImportError without spatialdata, ValueError for a plate without labels, or a well or site that is not there.
        """
        from .spatial import to_spatialdata

        return to_spatialdata(self, wells, sites, columns, images)

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
        """One row a raw image: plate, well, site, channel, `saturated` (share of counts at full scale), `sharpness`.

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

    def show(
        self,
        well: str,
        site: int,
        *,
        images: str | Place | None = None,
        channels: Sequence[str] | None = None,
        outlines: bool = True,
    ) -> "Picture":
        """A site as a matplotlib figure: channels as colours, nuclei and cells outlined (`views.show`)."""
        from . import views

        return views.show(self, well, site, images=images, channels=channels, outlines=outlines)

    def heatmap(self, feature: str = "cells", statistic: str = "mean") -> "Picture":
        """A feature's well means (or medians), `cells`, `sharpness DNA` or `saturated DNA` over the plate: a figure."""
        from . import views

        return views.heatmap(self, feature, statistic)

    def _repr_html_(self) -> str:
        from . import views

        return views.card(self)

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
        problems += self._verify_groups()
        for well in self.wells if wells is None else wells:
            try:
                problems += self._verify_well(well)
            except (ValueError, OSError) as error:
                problems.append(str(error))
        return problems

    def _verify_groups(self) -> list[str]:
        """The plate's and its rows' own metadata, and what else lies beside the wells."""
        known = {"zarr.json", *(f"{well[:-2]}/zarr.json" for well in self.wells)}
        homes = {well_key(well) for well in self.wells}
        found = set(names_below(self.path)) if isinstance(self.path, Path) else known  # in a bucket half a well may lie
        known |= {key for key in found if ROW_GROUP.fullmatch(key)}  # a run may end between a row and its first well
        problems = [
            f"{self.barcode}: {key} {WRITTEN}" for key in sorted(known) if not self._exact(key, row=key != "zarr.json")
        ]
        strange = sorted(key for key in found - known if "/".join(key.split("/")[:2]) not in homes)
        return problems + [f"{self.barcode}: {key} is of no well" for key in strange]

    def _exact(self, key: str, row: bool = False) -> bool:
        """Whether a group's metadata has the bytes that its attributes, or a row's, are written as."""
        try:
            data = (self.path / key).read_bytes()
            return data == node("group", {} if row else json.loads(data)["attributes"])
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _verify_well(self, well: str) -> list[str]:
        record, where = self.record(well), f"{self.barcode} {well}"
        problems = [f"{where}: made with other settings than the plate's"] * (record["fingerprint"] != self.fingerprint)
        key = f"{well_key(well)}/zarr.json"
        problems += [f"{self.barcode}: {key} {WRITTEN}"] * (not self._exact(key))
        self._read(well, record, "")
        on_disk = set(names_below(self.path / well_key(well)))
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
