"""A plate read back: lazily, well by well, every byte checked against the record that was written with it."""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..settings.names import FAMILIES, check_barcode, family_of, split_name
from ..settings.numbers import comparable
from ..storage.atomic import names_below, read_file, read_ranges
from ..storage.buckets import Place, place_of
from .annotation import variables
from .arrays import COLUMNS_PER_CHUNK, digest, read_array, read_chunks
from .image_table import gathered, image_rows, plate_table_files
from .layout import ROW, node, nonfinite, set_name, well_key
from .records import MAX_RECORD, home_of, read_attributes, read_records, stored_wells, verified_files
from .writer import CSV_COLUMNS, fingerprint

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
        self._known_names: dict[str, list[str]] = {}  # columns by table
        self._places: dict[str, dict[str, int]] = {}

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

    def _home(self, well: str) -> Place:
        return home_of(self.path, well, f"{self.barcode} {well}")

    def _read(self, well: str, record: Mapping[str, Any], prefix: str) -> dict[str, bytes]:
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
        if table not in self._known_names:
            if not self.wells:
                return []
            self._known_names[table] = self._names_in(self.wells[0], table)
        return self._known_names[table]

    def _names_in(self, well: str, table: str) -> list[str]:
        """The columns of a table in a well; ValueError where they are not the plate's."""
        key = f"tables/{table}/var/_index"
        columns = [str(n) for n in read_array(self._read(well, self.record(well), f"{key}/"), key)]
        known = self.manifest["columns"] if table == "cells" else self.manifest["tables"][table]
        if digest("\n".join(columns).encode()) != known:
            raise ValueError(f"{self.barcode} {well}: its columns are not the plate's")
        return columns

    def choose(self, columns: Iterable[str] | None, objects: str | None = None) -> list[str]:
        """Columns from names, families (`Texture`) and patterns (`Nuclei_*_DNA`), each once; all of them where None.

        ValueError for what matches none, with the nearest names.
        """
        known = self.columns_of(objects)
        if columns is None:
            return known
        if isinstance(columns, str):
            raise TypeError(f"columns is a list: columns=[{columns!r}]")
        names, chosen = set(known), dict[str, None]()
        for asked in columns:
            if asked in names:
                chosen[asked] = None
            elif asked not in ROW:
                result = [c for c in known if family_of(c) == asked or fnmatchcase(c, asked)]
                if not result:
                    near = get_close_matches(asked, [*FAMILIES, *known], 3)
                    hint = f"the nearest are {', '.join(near)}" if near else "its columns are in `.columns`"
                    raise ValueError(f"{self.barcode} has no column {asked!r}; {hint}")
                chosen |= dict.fromkeys(result)
        return list(chosen)

    def _table(
        self, wells: Iterable[str] | None, columns: Sequence[str], table: str = "cells"
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Row identity (by `ROW`'s names) and float32 [rows, columns] of wells, all of them where None."""
        records = {w: self.record(w) for w in (self.wells if wells is None else wells)}
        n_rows, of_table = [rows_of(record, table) for record in records.values()], [table] * (table != "cells")
        values = np.empty((len(columns), sum(n_rows)), np.float32)
        row = 0
        for (well, record), n in zip(records.items(), n_rows, strict=True):
            values[:, row : row + n] = self._values(well, record, columns, *of_table).T
            row += n
        return self._identity(records, table), values.T

    def _fill(
        self, out: np.ndarray, well: str, record: Mapping[str, Any], columns: Sequence[str], table: str = "cells"
    ) -> None:
        """Give `out`, [columns, rows], a well's values. Of a table in chunks only those that hold the columns are read."""
        key, names = f"tables/{table}/X", self._names(table)
        metadata = f"{key}/zarr.json" if f"{key}/zarr.json" in record["files"] else f"{key}/"
        files = self._read(well, record, metadata)
        if metadata not in files:
            raise ValueError(f"{self.barcode} {well}: its record lists no {key}/zarr.json")
        chunks = read_chunks(files[metadata], key)
        shape = (rows_of(record, table), len(names))
        everything = list(columns) == names
        try:
            if chunks is None:  # format 1
                part = read_array(self._read(well, record, f"{key}/"), key)
                self._check_shape(well, part.shape, shape)
                out[:] = part.T if everything else part.T[[self._place(table)[c] for c in columns]]
                return
            self._check_shape(well, chunks.shape, shape)
            if not chunks.sizes:
                return
            if everything:
                chunks.fill(out, self._read(well, record, f"{key}/c.0.0")[f"{key}/c.0.0"])
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
                number[here] = [i for s in record["sites"] for i in range(1, s["cells"] + 1)]
                continue
            result = read_array(self._read(well, record, f"{key}/"), key)
            self._check_shape(well, result.shape, (n,))
            number[here] = result
        plate = np.full(len(site), self.barcode, dtype=object)
        return dict(zip(ROW, (plate, np.array(list(records), dtype=object).repeat(counts), site, number), strict=True))

    def to_pandas(
        self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None, objects: str | None = None
    ) -> "pandas.DataFrame":
        """One row per cell: Metadata_Plate, Metadata_Well, Metadata_Site, Metadata_ObjectNumber, then float32 features.

        Parameters
        ----------
        wells : which, in which order; all where None
        columns : names, families and patterns (`choose`), in which order; all where None. The Metadata columns always come.
            Only the columns asked for are read.
        objects : an object set of `objects`, for a row per object of it; the cells where None
        """
        import pandas

        chosen = self.choose(columns, objects)
        identity, values = self._table(wells, chosen, self._table_of(objects))
        table = pandas.DataFrame(values, columns=chosen, copy=False)
        for position, (name, column) in enumerate(identity.items()):
            table.insert(position, name, column)  # a concat would copy the features
        return table

    def to_polars(
        self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None, objects: str | None = None
    ) -> "polars.DataFrame":
        """As `to_pandas`, for polars (which must be installed)."""
        import polars

        chosen = self.choose(columns, objects)
        identity, values = self._table(wells, chosen, self._table_of(objects))
        text = {name: polars.Series(name, identity[name].tolist(), dtype=polars.String) for name in ROW[:2]}
        frame = polars.DataFrame({**text, **{name: identity[name] for name in ROW[2:]}})
        return frame.hstack(polars.from_numpy(values, schema=chosen)) if chosen else frame

    def to_anndata(
        self,
        wells: Iterable[str] | None = None,
        columns: Iterable[str] | None = None,
        objects: str | None = None,
        annotation: "pandas.DataFrame | None" = None,
    ) -> "anndata.AnnData":
        """The cells of wells as one AnnData object, with the fields that scverse's Cell Painting drafts name.

        `X` is a dask array, a block per well: a well's features are read, and checked, when they are used; `.to_memory()`
        reads them all. The rest is read at once.

        obs : Metadata_Plate, _Well, _Site, _ObjectNumber, and the columns of `annotation`
        var : compartment, family, channel, channel_2, n_channels, scale, unit, feature_type
        obsm : `spatial`, x and y of each cell in its field, in um where the plate's pixel size is known and else in pixels;
            `spatial_pixels`, the same in pixels. Absent where no location was measured.
        uns : `jumpgpu`, where it comes from: plate, numbers versions, programs, settings (JSON), channels, pixel size

        Parameters
        ----------
        annotation : a row per well, found by Metadata_Well: treatments, such as `profiles.platemap.annotate` gives. A well
            without a row has none.
        """
        import anndata
        import dask.array
        import pandas
        from dask.delayed import delayed

        chosen, table = self.choose(columns, objects), self._table_of(objects)
        records = {w: self.record(w) for w in (self.wells if wells is None else wells)}
        blocks = [
            dask.array.from_delayed(
                delayed(self._values, pure=False)(well, record, chosen, *[table] * (table != "cells")),
                (rows_of(record, table), len(chosen)),
                np.float32,
            )
            for well, record in records.items()
        ]
        values = dask.array.concatenate(blocks) if blocks else dask.array.zeros((0, len(chosen)), np.float32)
        identity = self._identity(records, table)
        index = ["_".join(map(str, row)) for row in zip(*identity.values(), strict=True)]
        obs = pandas.DataFrame(identity, index=pandas.Index(index, dtype=object))
        if annotation is not None:
            obs = with_annotation(obs, annotation)
        described = variables(chosen, self.channels)
        variable = pandas.DataFrame(described, index=pandas.Index(chosen, dtype=object))
        for name in variable.columns.drop("n_channels"):
            variable[name] = pandas.Categorical(variable[name].where(variable[name] != ""))
        output = anndata.AnnData(values, obs=obs, var=variable, uns={"jumpgpu": self._provenance(records)})
        if places := self._location(table):
            x, y = self._table(list(records), places, table)[1].T.astype(np.float64)
            pixels = np.stack([x, y], axis=1)
            output.obsm["spatial"] = pixels * (self.manifest["pixel_size_um"] or 1.0)
            output.obsm["spatial_pixels"] = pixels
        return output

    def _location(self, table: str) -> list[str]:
        """The columns of a table that say where an object is, x and y: the cells', the nuclei's, or the first there are."""
        known = self._place(table)
        sets = dict.fromkeys(["Cells", "Nuclei", *(split_name(column)[0] for column in known)])
        pairs = (
            [f"{name}_{family}_Center_{axis}" for axis in "XY"] for name in sets for family in ("Location", "AreaShape")
        )
        return next((pair for pair in pairs if all(column in known for column in pair)), [])

    def _provenance(self, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Where an AnnData object comes from: values that .h5ad can hold."""
        made_with: dict[str, Any] = next((r["made_with"] for r in records.values() if r.get("made_with")), {})
        size = self.manifest["pixel_size_um"]
        return {
            "plate": self.barcode,
            "numbers": {name: str(version) for name, version in self.numbers.items()},
            "made_with": {"jumpgpu": str(made_with.get("jumpgpu", "")), "kernels": str(made_with.get("kernels", ""))},
            "settings": json.dumps(self.settings, sort_keys=True),
            "channels": np.array(self.channels, dtype=object),
            "pixel_size_um": float("nan") if size is None else float(size),
            "spatial_unit": "pixel" if size is None else "um",
        }

    def image_table(self, wells: Iterable[str] | None = None) -> "pandas.DataFrame":
        """The plate's Image table, as CellProfiler has it: a row per measured site, in plate order.

        Metadata_Plate, Metadata_Well, Metadata_Site, Image_Count_Cells, then the image measures of the run as float64.
        """
        import pandas

        records = {well: self.record(well) for well in (self.wells if wells is None else wells)}
        names, values = gathered([image_rows(self.path, r, f"{self.barcode} {well}") for well, r in records.items()])
        table = pandas.DataFrame(values, columns=names)
        sites = [(well, site["site"]) for well, record in records.items() for site in record["sites"]]
        table.insert(0, ROW[0], self.barcode)
        table.insert(1, ROW[1], [well for well, _ in sites])
        table.insert(2, ROW[2], np.array([site for _, site in sites], np.int32))
        return table

    def image_quality(self, wells: Iterable[str] | None = None) -> "pandas.DataFrame":
        """One row per site: Metadata_Plate, Metadata_Well, Metadata_Site, then Image_ImageQuality_*, of `image_table`.

        ValueError where the plate was made without `image_quality = true` under [features].
        """
        table = self.image_table(wells)
        result = [column for column in table.columns if split_name(column)[1] == "ImageQuality"]
        if not result and len(table):
            raise ValueError(f"{self.barcode} has no image quality; set image_quality = true under [features]")
        return table[[*ROW[:3], *result]]

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
        return {set_name(k): v for k, v in self._images(well, site, "labels/", "label images", "--save-labels").items()}

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

        result: dict[str, dict[str, int]] = {}
        for well in self.wells:
            for column, counts in self.record(well)["nonfinite"].items():
                total = result.setdefault(column, {"nan": 0, "inf": 0})
                for kind in total:
                    total[kind] += counts[kind]
        place = {c: i for i, c in enumerate(self.columns)}
        ordered = dict(sorted(result.items(), key=lambda item: place.get(item[0], len(place))))
        return pandas.DataFrame(ordered.values(), index=list(ordered), columns=["nan", "inf"])

    def verify(self, wells: Iterable[str] | None = None) -> list[str]:
        """What is wrong with the plate, a line each; empty where every stored byte, shape and identity is right."""
        problems = []
        if fingerprint(self.settings) != self.fingerprint:
            problems.append(f"{self.barcode}: its settings do not have its fingerprint")
        problems += self._verify_groups()
        try:
            problems += self._verify_image_table()
        except (ValueError, OSError) as error:
            problems.append(str(error))
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
        result = set(names_below(self.path)) if isinstance(self.path, Path) else known  # in a bucket half a well may lie
        known |= {key for key in result if ROW_GROUP.fullmatch(key)}  # a run may end between a row and its first well
        problems = [
            f"{self.barcode}: {key} {WRITTEN}" for key in sorted(known) if not self._exact(key, row=key != "zarr.json")
        ]
        with contextlib.suppress(ValueError):
            known |= {f"tables/{key}" for key in (*read_attributes(self.path / "tables")["files"], "zarr.json")}
        strange = sorted(key for key in result - known if "/".join(key.split("/")[:2]) not in homes)
        return problems + [f"{self.barcode}: {key} is of no well" for key in strange]

    def _exact(self, key: str, row: bool = False) -> bool:
        """Whether a group's metadata has the bytes that its attributes, or a row's, are written as, or were in format 1."""
        try:
            data = (self.path / key).read_bytes()
            attributes = {} if row else json.loads(data)["attributes"]
            return data in (node("group", attributes), node("group", attributes, indent=1))
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
        for table in ("cells", *self.objects):
            problems += self._verify_table(well, record, table)
        names, rows = image_rows(self.path, record, where)
        return problems + self._verify_finite(where, record, names, rows)

    def _verify_table(self, well: str, record: Mapping[str, Any], table: str) -> list[str]:
        """What is wrong with a well's table of objects."""
        where, columns = f"{self.barcode} {well}", self._names_in(well, table)
        self._known_names.setdefault(table, columns)
        problems = []
        identity, values = self._table([well], columns, table)
        for name in ROW[2:]:
            key = f"tables/{table}/obs/{name}"
            if not np.array_equal(read_array(self._read(well, record, f"{key}/"), key), identity[name]):
                problems.append(f"{where}: {name} of its rows in {table} is not as its record says")
        for site in record["sites"]:
            numbers, n = identity[ROW[3]][identity[ROW[2]] == site["site"]], rows_in(site, table)
            if len(numbers) != n or len(set(numbers.tolist())) != n:
                problems.append(
                    f"{where} site {site['site']}: {len(numbers)} rows, {n} recorded, or numbers repeat ({table})"
                )
        return problems + self._verify_finite(where, record, columns, values)

    def _verify_image_table(self) -> list[str]:
        """What is wrong with the plate's Image table. One that older wells than today's made is not held against these."""
        if not (self.path / "tables" / "zarr.json").is_file():
            return []  # no run has ended yet
        record = read_attributes(self.path / "tables")
        files = verified_files(self.path / "tables", record, "", self.barcode)
        records = read_records(self.path)
        if record["wells"] != {well: r["digest"] for well, r in records.items()}:
            return []
        known = plate_table_files(self.path, self.manifest, records)
        result = {**files, "zarr.json": read_file(self.path / "tables" / "zarr.json", MAX_RECORD)}
        return [f"{self.barcode}: tables/{key} {WRITTEN}" for key in known if result.get(key) != known[key]]

    @staticmethod
    def _verify_finite(where: str, record: Mapping[str, Any], columns: Sequence[str], values: np.ndarray) -> list[str]:
        """The columns whose NaN and infinite values are not as many as the record says."""
        result = nonfinite(columns, [values])
        return [
            f"{where}: {column} has {counts['nan']} NaN and {counts['inf']} infinite values, unlike its record"
            for column, counts in result.items()
            if record["nonfinite"].get(column) != counts
        ]


def rows_of(record: Mapping[str, Any], table: str) -> int:
    """Rows of a well's table of objects."""
    return int(record["cells"]) if table == "cells" else sum(rows_in(site, table) for site in record["sites"])


def rows_in(site: Mapping[str, Any], table: str) -> int:
    """Rows that a site has in a table of objects."""
    return int(site["cells"]) if table == "cells" else int(site.get("objects", {}).get(table, 0))


def with_annotation(obs: "pandas.DataFrame", annotation: "pandas.DataFrame") -> "pandas.DataFrame":
    """Rows of cells with the columns of their wells; ValueError where a well has two rows, or the plates are others."""
    key = ROW[1]
    if key not in annotation:
        raise ValueError(f"the annotation has no column {key}, by which wells are found")
    if ROW[0] in annotation:
        annotation = annotation[annotation[ROW[0]].astype(str).isin(set(obs[ROW[0]]))].drop(columns=ROW[0])
    if len(twice := annotation[key][annotation[key].duplicated()]):
        raise ValueError(f"the annotation has well {twice.iloc[0]} twice")
    new = [column for column in annotation.columns if column not in obs]
    rows = annotation.set_index(key)[new].reindex(obs[key])
    return obs.assign(**{column: rows[column].to_numpy() for column in new})
