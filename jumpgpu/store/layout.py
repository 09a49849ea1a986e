"""A well as the files of a zarr v3 group, and back: the one module that knows zarr, AnnData's and OME-Zarr's encodings.

    A/01/                          a well; its attributes hold the record: sites, inputs, quarantine, checksums
        tables/cells               an AnnData table: X float32 [cells, features], obs Metadata_*, var
        tables/fields              with image quality: the same with a row a site
        5/0                        with overviews: site 5, uint16 [C, H/8, W/8]
        5/labels/nuclei/0          with labels: int32 [H, W]

Everything here turns values into bytes by key, or such bytes into values; `writer.py` writes and reads them.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from math import isnan
from typing import Any

import numpy as np

from ..settings.names import CHANNELS, check_barcode, family_of, well_position
from ..storage.atomic import check_key
from .render import COLOURS

FORMAT = 1  # of the records; a reader refuses others
OME_VERSION = "0.5"
MAX_RATIO = 512  # bytes of an array a stored byte; LZ4 does not reach 256
OVERVIEW = 8  # an overview's pixel is a square of this many
ROW = ("Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber")
ANNDATA = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
DATAFRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0"}
ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
STRINGS = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


@dataclass(frozen=True)
class Input:
    """An image file that a site was made from, relative to the plate's images."""

    channel: str
    file: str
    bytes: int


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
class SiteTable:
    """One finished field.

    numbers   int32 [n]        the cells' label numbers
    values    float32 [n, F]   features in stored order (the writer takes any float type)
    labels    compartment -> int32 [H, W], or empty
    overview  uint16 [C, h, w] the field at an eighth of its size, or None
    quality   float [G]        whole-image measures, or None
    checks    channel -> (saturated share, sharpness) of its raw image, or empty
    flags     channel -> what is odd about its numbers, for `quarantine.csv`
    """

    well: str
    site: int
    numbers: np.ndarray
    values: np.ndarray
    inputs: tuple[Input, ...] = ()
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    overview: np.ndarray | None = None
    quality: np.ndarray | None = None
    checks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """What the well's record says of the site."""
        checks = {c: [None if isnan(v) else v for v in values] for c, values in self.checks.items()}
        return {
            "site": self.site,
            "cells": len(self.numbers),
            "inputs": [asdict(i) for i in self.inputs],
            "checks": checks,
        }


def well_key(well: str) -> str:
    """`A01` to its group in the store, `A/01`."""
    well_position(well)
    return f"{well[:-2]}/{well[-2:]}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def node(kind: str, attributes: Mapping[str, Any]) -> bytes:
    """The zarr.json of a group, on one line: with an indentation Python's own encoder takes 3 ms a well, under its lock."""
    return json.dumps({"zarr_format": 3, "node_type": kind, "attributes": attributes}).encode()


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with a digest of themselves among ours, so that a record that was changed is known."""
    ours = {key: value for key, value in attributes["jumpgpu"].items() if key != "digest"}
    body = json.dumps({**attributes, "jumpgpu": ours}, sort_keys=True).encode()
    return {**attributes, "jumpgpu": {**ours, "digest": digest(body)}}


def array_files(key: str, array: np.ndarray, attributes: Mapping[str, Any], axes: str = "") -> dict[str, bytes]:
    """An array as zarr v3 files, one chunk: columns together, shuffled and LZ4 (0.8 of the size at 1 GB/s).

    The metadata is as zarr's own and the codecs are those that zarr calls; calling zarr itself costs 3 ms an array. `axes`
    names the dimensions of an image, a letter each.
    """
    from numcodecs import Blosc, VLenUTF8

    strings = array.dtype.kind in "OU"
    metadata = json.loads(array_metadata(array.ndim, "string" if strings else array.dtype.str))
    metadata["shape"] = list(array.shape)
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [max(1, n) for n in array.shape]
    metadata["attributes"] = dict(attributes)
    if axes:
        metadata["dimension_names"] = list(axes)
    files = {check_key(f"{key}/zarr.json"): json.dumps(metadata).encode()}
    if array.size:
        chunk = (
            VLenUTF8().encode(array.astype(object))
            if strings
            else np.ascontiguousarray(array.T if by_column(array) else array)
        )
        files[f"{key}/{'.'.join(['c', *'0' * array.ndim])}"] = Blosc("lz4", 5, not strings).encode(chunk)
    return files


def by_column(array: np.ndarray) -> bool:
    """Whether an array is stored column after column: a table of features."""
    return array.ndim == 2 and array.dtype.kind == "f"


@cache
def array_metadata(ndim: int, dtype: str) -> bytes:
    """The zarr.json of an array of this many axes with one value, equal to what zarr writes."""
    # zarr itself takes 0.15 s to import; test_writer.py compares with it.
    kind = "string" if dtype == "string" else np.dtype(dtype).name
    table = ndim == 2 and dtype == "<f4"
    size = 1 if kind == "string" else np.dtype(dtype).itemsize
    values: dict[str, Any] = {"name": "bytes"}
    if size > 1:
        values["configuration"] = {"endian": "little"}
    if kind == "string":
        values = {"name": "vlen-utf8", "configuration": {}}
    blosc = {
        "typesize": size,
        "cname": "lz4",
        "clevel": 5,
        "shuffle": "noshuffle" if kind == "string" else "shuffle",
        "blocksize": 0,
    }
    transpose = [{"name": "transpose", "configuration": {"order": [1, 0]}}] if table else []
    metadata = {
        "shape": [1] * ndim,
        "data_type": kind,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1] * ndim}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "" if kind == "string" else 0.0 if kind.startswith("float") else 0,
        "codecs": [*transpose, values, {"name": "blosc", "configuration": blosc}],
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(metadata, indent=2).encode()


def frame_files(key: str, index: Sequence[str], columns: Mapping[str, Any]) -> dict[str, bytes]:
    """A data frame in AnnData's encoding: string columns from lists, numbers from arrays."""
    order = {"_index": "_index", "column-order": list(columns)}
    files = {f"{key}/zarr.json": node("group", DATAFRAME | order)}
    for name, values in {"_index": index, **columns}.items():
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        files |= array_files(f"{key}/{name}", array, ARRAY if isinstance(values, np.ndarray) else STRINGS)
    return files


def variables(columns: Sequence[str], channels: Sequence[str]) -> dict[str, list[str]]:
    """What a feature's name says: compartment, family, channel (pairs joined by '_', '' for none) and scale."""
    rows: dict[str, list[str]] = {"compartment": [], "family": [], "channel": [], "scale": []}
    for column in columns:
        parts = column.split("_")
        rows["compartment"].append(parts[0])
        rows["family"].append(family_of(column))
        rows["channel"].append("_".join(p for p in parts[2:] if p in channels))
        rows["scale"].append(scale_of(column))
    return rows


def scale_of(column: str) -> str:
    """The scale word of a column: a texture's pixels, a spectrum's step, a ring, a neighbour distance; '' for none."""
    patterns = {
        "Texture": r"_(\d+)_\d\d_\d+$",
        "Granularity": r"_Granularity_(\d+)_",
        "RadialDistribution": r"_(\d+of\d+)$",
        "Neighbors": r"_(\d+|Adjacent)$",
    }
    match = re.search(patterns.get(family_of(column), r"(?!)"), column)
    return match[1] if match else ""


class Layout:
    """What every well of a plate shares: barcode, columns, channels, and the encoded `var` of its tables.

    `quality` names the whole-image measures, if there are any. `made_with` says which program writes, for the records.
    """

    def __init__(
        self,
        plate: str,
        columns: Sequence[str],
        channels: Sequence[str],
        pixel_size_um: float | None = None,
        quality: Sequence[str] = (),
        made_with: Mapping[str, Any] | None = None,
    ):
        self.plate = check_barcode(plate)
        self.columns, self.quality = list(columns), list(quality)
        self.columns_digest = digest("\n".join(self.columns).encode())
        self.channels = list(channels)
        self.pixel_size_um = pixel_size_um
        self.made_with = dict(made_with or {})
        self._var = frame_files("tables/cells/var", self.columns, variables(self.columns, self.channels))
        if quality:
            self._quality_var = frame_files("tables/fields/var", self.quality, variables(self.quality, self.channels))

    def tables(self, well: str, sites: Sequence[SiteTable]) -> dict[str, bytes]:
        """`tables` of a well: an AnnData table of its sites' cells, in the order of the sites, and one of the sites."""
        number = np.concatenate([np.asarray(s.numbers, np.int32) for s in sites] or [np.zeros(0, np.int32)])
        site = np.array([s.site for s in sites], np.int32)
        cells = [len(s.numbers) for s in sites]
        files = {"tables/zarr.json": node("group", {})}
        files |= (
            self._table("cells", well, [s.values for s in sites], {ROW[2]: site.repeat(cells), ROW[3]: number}) | self._var
        )
        if self.quality:
            measures = [np.reshape(s.quality, (1, -1)) for s in sites if s.quality is not None]
            files |= self._table("fields", well, measures, {ROW[2]: site}) | self._quality_var
        return files

    def _table(
        self, name: str, well: str, parts: Sequence[np.ndarray], identity: Mapping[str, np.ndarray]
    ) -> dict[str, bytes]:
        """An AnnData table but for its `var`: the parts' rows as float32, and who they are."""
        n = len(next(iter(identity.values())))
        values = np.empty((n, len(self.columns if name == "cells" else self.quality)), np.float32)
        if parts:
            np.concatenate(parts, out=values, casting="same_kind")
        names = ["_".join(map(str, row)) for row in zip(*(v.tolist() for v in identity.values()), strict=True)]
        index = [f"{self.plate}_{well}_{row}" for row in names]
        key = f"tables/{name}"
        return {
            f"{key}/zarr.json": node("group", ANNDATA),
            **array_files(f"{key}/X", values, ARRAY),
            **frame_files(f"{key}/obs", index, {ROW[0]: [self.plate] * n, ROW[1]: [well] * n, **identity}),
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
            names = sorted(c.lower() for c in site.labels)
            files.setdefault(f"{key}/zarr.json", node("group", {}))
            files[f"{key}/labels/zarr.json"] = node("group", {"ome": {"version": OME_VERSION, "labels": names}})
            for compartment, labels in site.labels.items():
                image = f"{key}/labels/{compartment.lower()}"
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
            "nonfinite": self._nonfinite(sites),
            "files": {key: {"bytes": len(data), "sha256": digest(data)} for key, data in sorted(files.items())},
        }
        images = [{"path": str(s.site)} for s in sites if s.overview is not None]
        ome = {"ome": {"version": OME_VERSION, "well": {"images": images}}} if images else {}
        files["zarr.json"] = node("group", sealed(ome | {"jumpgpu": record}))
        return files

    def _nonfinite(self, sites: Sequence[SiteTable]) -> dict[str, dict[str, int]]:
        """NaN and infinite values by column, where there are any."""
        found: dict[str, dict[str, int]] = {}
        nan = sum((np.isnan(s.values).sum(axis=0) for s in sites), np.zeros(len(self.columns), np.int64))
        inf = sum((np.isinf(s.values).sum(axis=0) for s in sites), np.zeros_like(nan))
        for i in np.flatnonzero(nan + inf):
            found[self.columns[i]] = {"nan": int(nan[i]), "inf": int(inf[i])}
        return found


def read_array(files: Mapping[str, bytes], key: str) -> np.ndarray:
    """An array back from its files; ValueError where they are no such array."""
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    make = default_buffer_prototype().buffer.from_bytes
    store = MemoryStore({k: make(v) for k, v in files.items() if k.startswith(f"{key}/")}, read_only=True)
    try:
        opened = zarr.open_array(store, path=key, mode="r")
        if opened.nbytes > (1 << 20) + MAX_RATIO * sum(len(v) for k, v in files.items() if k.startswith(f"{key}/")):
            raise ValueError(f"declares {opened.nbytes} bytes, more than its files can hold")
        return np.asarray(opened[...])
    except (KeyError, TypeError, RuntimeError, FileNotFoundError, ValueError) as error:
        raise ValueError(f"{key} cannot be read: {error}") from error
