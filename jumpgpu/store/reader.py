"""A plate read back: lazily, well by well, every byte checked against the record that was written with it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..settings.names import FAMILIES, spelled_well, split_name
from ..settings.numbers import comparable
from ..storage.buckets import Place, place_of
from .annotation import SCHEMA, provenance, said, schema_variables
from .arrays import read_array
from .blur import blurred, robust_z
from .image_table import gathered, image_rows
from .layout import ROW, set_name
from .plate_tables import PlateTables
from .records import rows_of
from .writer import CSV_COLUMNS

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars
    import spatialdata

    from .views import Picture


def open_plate(path: str | Place, images: str | Place | None = None) -> "StoredPlate":
    """Open a plate's store, by its path, s3:// URL or as `folder/barcode`; `images` is where `show` finds its raw images.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or of another kind.

    >>> open_plate("nowhere/BR00117010")
    Traceback (most recent call last):
    FileNotFoundError: no plate at nowhere/BR00117010 or nowhere/BR00117010.zarr; jumpgpu extract makes one
    """
    given = place_of(path)
    for candidate in (given, given.with_name(f"{given.name}.zarr")):
        if (candidate / "zarr.json").is_file():
            return StoredPlate(candidate, images)
    raise FileNotFoundError(f"no plate at {given} or {given}.zarr; jumpgpu extract makes one")


class StoredPlate(PlateTables):
    """A plate on disk: its whole wells, read with their checksums verified.

    barcode, path   what and where
    channels        names, order of the C axis
    settings        what it was made with; `fingerprint` is their digest
    images          where its raw images are, if that is known
    """

    def __init__(self, path: Place, images: str | Place | None = None):
        super().__init__(path)
        self.images = images

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

    def choose(self, columns: Iterable[str] | None, objects: str | None = None) -> list[str]:
        """Columns, each once, from names, families (`Texture`), channels (`DNA`), compartments (`Nuclei`) and patterns
        (`Nuclei_*_DNA`); all of them where None. A channel's columns are those that have it in their name, pairs too.

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
                result = [c for c in known if asked in words_of(c, self.channels) or fnmatchcase(c, asked)]
                if not result:
                    sets = dict.fromkeys(split_name(c)[0] for c in known)
                    near = get_close_matches(asked, [*FAMILIES, *self.channels, *sets, *known], 3)
                    hint = f"the nearest are {', '.join(near)}" if near else "its columns are in `.columns`"
                    raise ValueError(f"{self.barcode} has no column {asked!r}; {hint}")
                chosen |= dict.fromkeys(result)
        return list(chosen)

    def to_pandas(
        self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None, objects: str | None = None
    ) -> "pandas.DataFrame":
        """One row per cell: Metadata_Plate, Metadata_Well, Metadata_Site, Metadata_ObjectNumber, then float32 features.

        Parameters
        ----------
        wells : which, in which order; all where None
        columns : names, families, channels, compartments and patterns (`choose`), in which order; all where None. The
            Metadata columns always come. Only the columns asked for are read.
        objects : an object set of `objects`, for a row per object of it; the cells where None
        """
        import pandas

        chosen = self.choose(columns, objects)
        identity, values = self.read_table(wells, chosen, self._table_of(objects))
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
        identity, values = self.read_table(wells, chosen, self._table_of(objects))
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

        obs : Metadata_Plate, _Well, _Site, _ObjectNumber, _ImageID (the field), _ObjectType, and the columns of `annotation`
        var : compartment, family, channel (`DNA|ER` for a pair), channel_2, n_channels, scale, unit, feature_type; and what
            mantispy's schema asks for: object, feature_group, feature, angle, gray_levels, radial_bin, params, is_feature
            (false for places and numbers of objects), feature_kind
        obsm : `spatial`, x and y of each cell in its field, in um where the plate's pixel size is known and else in pixels;
            `spatial_pixels`, the same in pixels. Absent where no location was measured.
        uns : `jumpgpu`, where it comes from: plate, numbers versions, programs, settings (JSON), channels, pixel size; and
            the same in the words that validators of Cell Painting's AnnData look for (`annotation.provenance`); `mantispy`,
            by which `mantispy.io.read` knows a row for an object

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
        records = {w: self.record(w) for w in self.chosen(wells)}
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
        fields = ["|".join(map(str, row)) for row in zip(*(identity[name] for name in ROW[:3]), strict=True)]
        obs["Metadata_ImageID"] = pandas.Categorical(fields)
        obs["Metadata_ObjectType"] = pandas.Categorical([objects or "Cells"] * len(obs))
        if annotation is not None:
            obs = with_annotation(obs, annotation)
        described = schema_variables(chosen, self.channels)
        variable = pandas.DataFrame(described, index=pandas.Index(chosen, dtype=object))
        for name in [c for c in variable if not pandas.api.types.is_numeric_dtype(variable[c])]:
            variable[name] = pandas.Categorical(variable[name].where(variable[name] != ""))
        output = anndata.AnnData(values, obs=obs, var=variable, uns=self._provenance(records))
        if places := self._location(table):
            x, y = self.read_table(list(records), places, table)[1].T.astype(np.float64)
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
        ours = {
            "plate": self.barcode,
            "numbers": {name: str(version) for name, version in self.numbers.items()},
            "made_with": {"jumpgpu": str(made_with.get("jumpgpu", "")), "kernels": str(made_with.get("kernels", ""))},
            "settings": json.dumps(self.settings, sort_keys=True),
            "channels": np.array(self.channels, dtype=object),
            "pixel_size_um": float("nan") if size is None else float(size),
            "spatial_unit": "pixel" if size is None else "um",
        }
        schema = {"schema_version": SCHEMA, "resolution": "object", "grouped_by": np.array([], dtype=object)}
        return {"jumpgpu": ours, "mantispy": schema, **provenance(made_with, self.settings, self.channels)}

    def image_table(self, wells: Iterable[str] | None = None) -> "pandas.DataFrame":
        """The plate's Image table, as CellProfiler has it: a row per measured site, in plate order.

        Metadata_Plate, Metadata_Well, Metadata_Site, Image_Count_Cells, then the image measures of the run as float64.
        """
        import pandas

        records = {well: self.record(well) for well in self.chosen(wells)}
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
        """One row per raw image: plate, well, site, channel, `saturated` (share of counts at 65535), `sharpness`.

        Sharpness is 0 for a blurred image (`focus.check_image`); compare it within a channel: `sharpness_z` is the robust z
        of its logarithm among these images of the channel (nan among fewer than eight). Read from the records alone.
        """
        import pandas

        rows = [
            (self.barcode, well, site["site"], channel, *values)
            for well in self.chosen(wells)
            for site in self.record(well)["sites"]
            for channel, values in site.get("checks", {}).items()
        ]
        table = pandas.DataFrame(rows, columns=["plate", "well", "site", "channel", "saturated", "sharpness"])
        table = table.astype({"saturated": float, "sharpness": float})
        table["sharpness_z"] = table.groupby("channel")["sharpness"].transform(lambda v: robust_z(v.to_numpy()))
        return table

    def labels(self, well: str, site: int) -> dict[str, np.ndarray]:
        """Compartment -> int32 [H, W]; ValueError where the plate was made without --save-labels."""
        return {set_name(k): v for k, v in self._images(well, site, "labels/", "label images", "--save-labels").items()}

    def overview(self, well: str, site: int) -> np.ndarray:
        """uint16 [C, H/8, W/8]: a site's channels at an eighth of the size; ValueError where none was saved."""
        return self._images(well, site, "0/", "overview", "--save-overview")[str(site)]

    def _images(self, well: str, site: int, prefix: str, what: str, option: str) -> dict[str, np.ndarray]:
        well = spelled_well(well)
        files = self.files_of(well, self.record(well), f"{int(site)}/{prefix}")
        arrays = [key.removesuffix("/zarr.json") for key in files if key.endswith("/0/zarr.json")]
        if not arrays:
            raise ValueError(f"{self.barcode} {well} site {site} has no {what}; extract with {option} stores them")
        try:
            return {key.split("/")[-2]: read_array(files, key) for key in arrays}
        except ValueError as error:
            raise ValueError(f"{self.barcode} {well}: {error}") from error

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
        """The images that were left out or flagged: plate, well, site, channel, file, reason, used.

        Blurred ones are among the flagged: they are told by the plate's other images (`blur`).
        """
        import pandas

        records = [self.record(w) for w in self.wells]
        rows = [q for record in records for q in record["quarantine"]]
        return pandas.DataFrame([*rows, *blurred(records, self.barcode)], columns=CSV_COLUMNS)

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
        from .verification import verify

        return verify(self, wells)


def words_of(column: str, channels: Sequence[str]) -> set[str]:
    """Compartment, family and channels of a column."""
    compartment, family, rest = split_name(column)
    return {compartment, family, *said(family, rest, tuple(channels))[:2]} - {""}


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
