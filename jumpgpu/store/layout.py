"""A well as the files of a zarr v3 group, and back: the module that knows AnnData's and OME-Zarr's encodings.

    A/01/                          a well; its attributes hold the record: sites, inputs, quarantine, checksums
        tables/cells               an AnnData table: X float32 [cells, features], obs Metadata_*, var with the means of X
        tables/image               float64 [sites, columns], the site's rows of the plate's Image table (image_table.py)
        tables/Speckles            the same with a row per object of a set of its own, where the run measures one
        5/0                        with overviews: site 5, uint16 [C, H/8, W/8]
        5/labels/nuclei/0          with labels: int32 [H, W]

Everything here turns values into bytes by key; `arrays.py` has the arrays, `writer.py` and `reader.py` write and read them.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any

import numpy as np

from ..settings.names import CHANNELS, COMPARTMENTS, check_barcode, feature_name, well_position
from .annotation import variables
from .arrays import ARRAY, array_files, digest, table_files
from .means import column_means
from .render import COLOURS

FORMAT = 2  # of the records that are written
FORMATS = (1, 2)  # that are read; 1 has a table in one chunk, and `fields` for `image` where there is image quality
OME_VERSION = "0.5"
OVERVIEW = 8  # an overview's pixel is a square of this many
ROW = ("Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber")
COUNT = feature_name("Image", "Count", "Cells")
OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
TAKEN = {"cells", "image", "fields"}  # names of tables that are no object set's of its own
ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
DATAFRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0"}
TABLE_CHUNKS = r"tables/(\w+/X|image)/c\.0\.0"
STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


@dataclass(frozen=True)
class Input:
    """An image file that a site was made from, relative to the plate's images.

    bytes, mark : of the file that was read: its size, and its time of change in ns, or a bucket's mark of its content
    """

    channel: str
    file: str
    bytes: int
    mark: str = ""


@dataclass(frozen=True)
class Quarantined:
    """Why a site was left out (or, where `used`, measured and flagged)."""

    plate: str
    well: str
    site: int
    channel: str
    file: str
    reason: str
    used: bool = False


@dataclass(frozen=True)
class ObjectTable:
    """A field's objects of a set that is measured by itself, a row each: numbers int32 [n], values float [n, F]."""

    numbers: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class SiteTable:
    """One finished field.

    numbers      int32 [n]        the cells' label numbers
    values       float32 [n, F]   features in stored order (the writer takes any float type)
    labels       object set -> int32 [H, W], or empty
    overview     uint16 [C, h, w] the field at an eighth of its size, or None
    image        float [G]        measures of the whole image, in the order of the layout's `image`, or None
    checks       channel -> (saturated share, sharpness) of its raw image, or empty
    flags        channel -> what is odd about its numbers, for `quarantine.csv`
    objects      name -> table of an object set that is no part of a cell's row (the layout names its columns)
    position_um  x and y of the field's centre from the well's, where the stage's positions are known
    """

    well: str
    site: int
    numbers: np.ndarray
    values: np.ndarray
    inputs: tuple[Input, ...] = ()
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    overview: np.ndarray | None = None
    image: np.ndarray | None = None
    checks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[str, ObjectTable] = field(default_factory=dict)
    position_um: tuple[float, float] | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What the well's record says of the site."""
        checks = {c: [None if isnan(v) else v for v in values] for c, values in self.checks.items()}
        record: dict[str, Any] = {
            "site": self.site,
            "cells": len(self.numbers),
            "inputs": [dict(vars(i)) for i in self.inputs],
            "checks": checks,
        }
        if np.array_equal(self.numbers, np.arange(1, len(self.numbers) + 1)):
            record["numbers"] = "from 1 on"  # so that nobody need read them
        if self.objects:
            record["objects"] = {name: len(table.numbers) for name, table in self.objects.items()}
        if self.position_um is not None:
            record["position_um"] = list(self.position_um)
        return record


def well_key(well: str) -> str:
    """`A01` to its group in the store, `A/01`."""
    well_position(well)
    return f"{well[:-2]}/{well[-2:]}"


def node(kind: str, attributes: Mapping[str, Any], indent: int | None = None) -> bytes:
    """The zarr.json of a group, on one line: with indentation Python's own encoder takes 3 ms per well, under its lock."""
    return json.dumps({"zarr_format": 3, "node_type": kind, "attributes": attributes}, indent=indent).encode()


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with a digest of themselves among ours, so that a record that was changed is known."""
    ours = {key: value for key, value in attributes["jumpgpu"].items() if key != "digest"}
    body = json.dumps({**attributes, "jumpgpu": ours}, sort_keys=True).encode()
    return {**attributes, "jumpgpu": {**ours, "digest": digest(body)}}


def frame_files(key: str, index: Sequence[str], columns: Mapping[str, Any]) -> dict[str, bytes]:
    """A data frame in AnnData's encoding: string columns from lists, numbers from arrays."""
    order = {"_index": "_index", "column-order": list(columns)}
    files = {f"{key}/zarr.json": node("group", DATAFRAME | order)}
    for name, values in {"_index": index, **columns}.items():
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        files |= array_files(f"{key}/{name}", array, ARRAY if isinstance(values, np.ndarray) else STRINGS)
    return files


def label_name(name: str) -> str:
    """The name of an object set's label image in the store: CellProfiler's three in lower case, a lab's own as it is."""
    return name.lower() if name in COMPARTMENTS else name


def set_name(label: str) -> str:
    """The object set of a label image in the store."""
    return next((name for name in COMPARTMENTS if name.lower() == label), label)


def check_set_names(names: Sequence[str]) -> None:
    """ValueError for names of object sets that cannot be told apart in a store, or that are no names."""
    seen: dict[str, str] = {}
    for name in names:
        if not OWN_NAME.fullmatch(name):
            raise ValueError(f"{name!r} names no object set; expected letters, digits and '_', such as FilteredNuclei")
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ValueError(f"object sets {other!r} and {name!r} differ only in case, which a store cannot keep apart")


class Layout:
    """What every well of a plate shares: barcode, columns, channels, and the encoded `var` of its tables.

    Parameters
    ----------
    columns : feature columns of a cell's row, in stored order, of object sets of any names
    image : columns of the plate's image table after `Image_Count_Cells`, which every plate has
    objects : name -> columns, of object sets that have rows of their own
    made_with : which program writes, for the records
    """

    def __init__(
        self,
        plate: str,
        columns: Sequence[str],
        channels: Sequence[str],
        pixel_size_um: float | None = None,
        image: Sequence[str] = (),
        made_with: Mapping[str, Any] | None = None,
        objects: Mapping[str, Sequence[str]] | None = None,
    ):
        self.plate = check_barcode(plate)
        self.columns, self.image = list(columns), list(image)
        self.objects = {name: list(names) for name, names in (objects or {}).items()}
        check_set_names(list(self.objects))
        if taken := [name for name in self.objects if name.lower() in TAKEN]:
            raise ValueError(f"an object set with rows of its own cannot be called {taken[0]!r}")
        self.columns_digest = digest("\n".join(self.columns).encode())
        self.channels = list(channels)
        self.pixel_size_um = pixel_size_um
        self.made_with = dict(made_with or {})
        tables = {"cells": self.columns, **self.objects}
        for name, names in [*tables.items(), ("image", [COUNT, *self.image])]:
            if twice := sorted(c for c, n in Counter(names).items() if n > 1):
                raise ValueError(f"{plate}: column {twice[0]!r} is there twice in the table {name!r}")
        self._var = {
            name: frame_files(f"tables/{name}/var", names, variables(names, self.channels) | {"mean": np.zeros(len(names))})
            for name, names in tables.items()
        }

    def tables(self, well: str, sites: Sequence[SiteTable]) -> dict[str, bytes]:
        """`tables` of a well: AnnData tables of its cells, in the order of the sites, of the sites, and of other objects."""
        files = {"tables/zarr.json": node("group", {})}
        files |= self._objects("cells", well, sites, [ObjectTable(s.numbers, s.values) for s in sites], len(self.columns))
        for name, columns in self.objects.items():
            absent = ObjectTable(np.zeros(0, np.int32), np.zeros((0, len(columns)), np.float32))
            files |= self._objects(name, well, sites, [s.objects.get(name, absent) for s in sites], len(columns))
        if self.image:
            files |= table_files("tables/image", [np.array([self.measures(s)]) for s in sites], len(self.image), "float64")
        return files

    def measures(self, site: SiteTable) -> list[float]:
        """A site's measures of the whole image; nan where it has none."""
        if site.image is None:
            return [float("nan")] * len(self.image)
        result: list[float] = np.ravel(site.image).tolist()
        if len(result) != len(self.image):
            raise ValueError(
                f"{self.plate} {site.well} site {site.site}: {len(result)} values for {len(self.image)} columns of images"
            )
        return result

    def _objects(
        self, name: str, well: str, sites: Sequence[SiteTable], tables: Sequence[ObjectTable], n_columns: int
    ) -> dict[str, bytes]:
        number = np.concatenate([np.zeros(0, np.int32), *(np.asarray(t.numbers, np.int32) for t in tables)])
        site = np.array([s.site for s in sites], np.int32).repeat([len(t.numbers) for t in tables])
        return self._table(name, well, [t.values for t in tables], n_columns, {ROW[2]: site, ROW[3]: number})

    def _table(
        self, name: str, well: str, parts: Sequence[np.ndarray], n_columns: int, identity: Mapping[str, np.ndarray]
    ) -> dict[str, bytes]:
        """An AnnData table: the parts' rows, who they are, and what the columns' names say."""
        n = len(next(iter(identity.values())))
        names = ["_".join(map(str, row)) for row in zip(*(v.tolist() for v in identity.values()), strict=True)]
        index = [f"{self.plate}_{well}_{row}" for row in names]
        key = f"tables/{name}"
        means = column_means([np.asarray(part, np.float32) for part in parts], n_columns)  # of the values as stored
        return {
            f"{key}/zarr.json": node("group", ANNDATA),
            **table_files(f"{key}/X", parts, n_columns),
            **frame_files(f"{key}/obs", index, {ROW[0]: [self.plate] * n, ROW[1]: [well] * n, **identity}),
            **self._var[name],
            **array_files(f"{key}/var/mean", means, ARRAY),
        }

    def images(self, site: SiteTable) -> dict[str, bytes]:
        """A site's overview and label images as OME-Zarr, where it has them."""
        files: dict[str, bytes] = {}
        key = str(site.site)
        if site.overview is not None:
            side = self.pixel_size_um or 1.0
            middle = [0.0, *[(OVERVIEW - 1) / 2 * side] * 2]  # of the square that an overview's pixel stands for
            ome = self._multiscale("cyx", [1.0, *[OVERVIEW * side] * 2], middle)
            files[f"{key}/zarr.json"] = node("group", {"ome": ome | self._shown(site.overview)})
            files |= array_files(f"{key}/0", site.overview, {}, "cyx")
        if site.labels:
            check_set_names(list(site.labels))
            names = sorted(map(label_name, site.labels))
            files.setdefault(f"{key}/zarr.json", node("group", {}))
            files[f"{key}/labels/zarr.json"] = node("group", {"ome": {"version": OME_VERSION, "labels": names}})
            for name, labels in site.labels.items():
                image = f"{key}/labels/{label_name(name)}"
                ome = self._multiscale("yx", [self.pixel_size_um or 1.0] * 2)
                source = {"image-label": {"version": OME_VERSION, "source": {"image": "../../"}}}
                files[f"{image}/zarr.json"] = node("group", {"ome": ome | source})
                files |= array_files(f"{image}/0", labels, {}, "yx")
        return files

    def _shown(self, overview: np.ndarray) -> dict[str, Any]:
        """How a viewer shows an overview's channels: name, colour, and brightness up to the brightest pixel."""
        tops = overview.reshape(len(overview), -1).max(axis=1, initial=1).tolist()
        channels = []
        for channel, top in zip(self.channels, tops, strict=True):
            lights = COLOURS.get(channel, (1.0, 1.0, 1.0))
            red, green, blue = (round(255 * light / max(lights)) for light in lights)
            window = {"min": 0, "max": 65535, "start": 0, "end": top}
            colour = f"{red:02X}{green:02X}{blue:02X}"
            channels.append({"label": channel, "color": colour, "active": channel in CHANNELS, "window": window})
        return {"omero": {"channels": channels}}

    def _multiscale(self, axes: str, scale: list[float], translation: Sequence[float] = ()) -> dict[str, Any]:
        unit = {"unit": "micrometer"} if self.pixel_size_um else {}
        described = [{"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", **unit} for a in axes]
        transform: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if translation:
            transform.append({"type": "translation", "translation": list(translation)})
        datasets = [{"path": "0", "coordinateTransformations": transform}]
        return {"version": OME_VERSION, "multiscales": [{"name": self.plate, "axes": described, "datasets": datasets}]}

    def well(
        self, well: str, sites: Sequence[SiteTable], quarantine: Sequence[Quarantined], settings_fingerprint: str
    ) -> dict[str, bytes]:
        """Every file of a well; its own zarr.json, which holds the record, comes last."""
        sites = sorted(sites, key=lambda s: s.site)
        files = self.tables(well, sites)
        for site in sites:
            files |= self.images(site)
        record = {
            "format": FORMAT,
            "plate": self.plate,
            "well": well,
            "fingerprint": settings_fingerprint,
            "made_with": self.made_with,
            "cells": sum(len(s.numbers) for s in sites),
            "sites": [s.record for s in sites],
            "quarantine": [asdict(q) for q in sorted(quarantine, key=lambda q: (q.site, q.channel, q.file))],
            **({"image": self.image} if self.image else {}),
            "nonfinite": self._nonfinite(sites),
            "files": {key: file_record(key, data) for key, data in sorted(files.items())},
        }
        images = [{"path": str(s.site)} for s in sites if s.overview is not None]
        ome = {"ome": {"version": OME_VERSION, "well": {"images": images}}} if images else {}
        files["zarr.json"] = node("group", sealed(ome | {"jumpgpu": record}))
        return files

    def _nonfinite(self, sites: Sequence[SiteTable]) -> dict[str, dict[str, int]]:
        """NaN and infinite values by column, where there are any."""
        result = nonfinite(self.columns, [s.values for s in sites])
        for name, columns in self.objects.items():
            result |= nonfinite(columns, [s.objects[name].values for s in sites if name in s.objects])
        return result | nonfinite(self.image, [np.array([self.measures(s)]) for s in sites])


def nonfinite(columns: Sequence[str], parts: Sequence[np.ndarray]) -> dict[str, dict[str, int]]:
    """NaN and infinite values of a table by column, where there are any."""
    finite = np.ones(len(columns), bool)
    for part in parts:
        finite &= np.isfinite(part).all(axis=0)
    result = {}
    for i in np.flatnonzero(~finite).tolist():
        values = np.concatenate([part[:, i] for part in parts])
        result[columns[i]] = {"nan": int(np.isnan(values).sum()), "inf": int(np.isinf(values).sum())}
    return result


def file_record(key: str, data: bytes) -> dict[str, Any]:
    """What a well's record says of a file. The chunks of a table are recorded in the zarr.json beside them."""
    if re.fullmatch(TABLE_CHUNKS, key):
        return {"bytes": len(data)}
    return {"bytes": len(data), "sha256": digest(data)}
