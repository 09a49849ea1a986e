"""Crops of cells as files that networks are trained from: zarr (OME-Zarr 0.5), WebDataset shards, scPortrait's h5sc.

A file (for zarr a group) holds a well and is complete or absent, so that a stopped export goes on where it stopped.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..storage.atomic import whole_file, whole_folder
from ..store.h5ad import hdf5_file, plain_strings

FORMATS = {"crops-zarr": "", "webdataset": ".tar", "h5sc": ".h5sc"}  # and how a well's file ends
MASKS = ("Nuclei", "Cells")  # that h5sc has before the channels
SITE_STEP = 1_000_000  # a cell_id is its site times this and its number


@dataclass(frozen=True)
class CropPart:
    """Some of a well's cells.

    sites, numbers  int [n]; the site and the object number of each cell
    centers         float64 [n, 2], y and x in pixels of the field
    crops           float32 or float16 [n, K, S, S]
    masks           float32 [n, 2, S, S]: share of each pixel that is the nucleus, the cell
    """

    sites: np.ndarray
    numbers: np.ndarray
    centers: np.ndarray
    crops: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class WellCrops:
    """A well's crops, a part at a time.

    n         cells
    pixel_um  of a crop's pixel; None where it is not known
    rule      what a crop is, as JSON values
    """

    plate: str
    well: str
    channels: tuple[str, ...]
    n: int
    size: int
    half: bool
    pixel_um: float | None
    rule: dict[str, Any]
    parts: Iterator[CropPart]


def path_of(folder: Path, plate: str, well: str, format: str) -> Path:
    """Where a well's crops go."""
    if format == "crops-zarr":
        return folder / f"{plate}_crops.zarr" / well
    return folder / f"{plate}_{well}{FORMATS[format]}"


def write_well(well: WellCrops, path: Path, format: str) -> int:
    """Write a well's crops; the number of cells."""
    if format == "crops-zarr":
        with whole_folder(path) as part:
            return write_zarr(well, part)
    with whole_file(path) as part:
        return write_webdataset(well, part) if format == "webdataset" else write_h5sc(well, part)


def write_root(folder: Path, plate: str) -> None:
    """The group that a plate's wells stand in, for zarr."""
    import zarr

    zarr.open_group(folder / f"{plate}_crops.zarr", mode="a", zarr_format=3).attrs["plate"] = plate


def write_zarr(well: WellCrops, folder: Path) -> int:
    """An image [cells, channels, y, x]: cells lie along OME-Zarr's `t`, its one axis that is neither channel nor space.

    Beside it `site`, `number` (int32 [N]) and `center` (float64 [N, 2], y and x in pixels of the field).
    """
    import zarr

    size, kind = well.size, "float16" if well.half else "float32"
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    shape = (well.n, len(well.channels), size, size)
    chunks = (min(64, max(1, well.n)), *shape[1:])
    image = group.create_array("0", shape=shape, chunks=chunks, dtype=kind, dimension_names=["t", "c", "y", "x"])
    tables = {
        "site": group.create_array("site", shape=(well.n,), dtype="int32"),
        "number": group.create_array("number", shape=(well.n,), dtype="int32"),
        "center": group.create_array("center", shape=(well.n, 2), dtype="float64"),
    }
    unit = {"unit": "micrometer"} if well.pixel_um else {}
    axes: list[Any] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", **unit} for a in "yx"]
    scale = [1.0, 1.0, *[well.pixel_um or 1.0] * 2]
    datasets: list[Any] = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    name = f"{well.plate} {well.well}"
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
        "omero": {"channels": [{"label": c} for c in well.channels]},
    }
    group.attrs["crops"] = {"plate": well.plate, "well": well.well, "channels": list(well.channels), **well.rule}
    at = 0
    for part in well.parts:
        rows = slice(at, at + len(part.numbers))
        image[rows] = part.crops
        tables["site"][rows], tables["number"][rows], tables["center"][rows] = part.sites, part.numbers, part.centers
        at = rows.stop
    return at


def write_webdataset(well: WellCrops, path: Path) -> int:
    """A tar of `<plate>_<well>_s<site>_<number>.npy` and `.json`, the same bytes whenever it is written."""
    n = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for part in well.parts:
            for site, number, center, crop in zip(part.sites, part.numbers, part.centers, part.crops, strict=True):
                key = f"{well.plate.replace('.', '-')}_{well.well}_s{site}_{number:05d}"
                array = io.BytesIO()
                np.save(array, crop)
                identity = {"plate": well.plate, "well": well.well, "site": int(site), "number": int(number)}
                place = {"y": float(center[0]), "x": float(center[1]), "channels": list(well.channels)}
                add(archive, f"{key}.npy", array.getvalue())
                add(archive, f"{key}.json", json.dumps(identity | place | well.rule).encode())
                n += 1
    return n


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_h5sc(well: WellCrops, path: Path) -> int:
    """scPortrait's layout: AnnData with `obs/cell_id`, `var` of planes, and float16 images [N, masks + channels, S, S].

    A mask's plane is 1 where at least half of the pixel is of the object. ValueError without h5py, OSError as `hdf5_file`.
    """
    import anndata

    parts = list(well.parts) if well.n == 0 else well.parts
    identity: dict[str, list[np.ndarray]] = {"sites": [], "numbers": [], "centers": []}
    planes = [*MASKS, *well.channels]
    mapping = ["mask"] * len(MASKS) + ["image_channel"] * len(well.channels)
    about: dict[str, object] = {
        "n_cells": well.n,
        "n_channels": len(planes),
        "n_masks": len(MASKS),
        "n_image_channels": len(well.channels),
        "image_size_x": well.size,
        "image_size_y": well.size,
    }
    images = path.with_name("images.h5")
    with hdf5_file(images, "w") as file:
        shape = (well.n, len(planes), well.size, well.size)
        data = file.create_dataset("images", shape, "float16", chunks=(1, 1, *shape[2:]) if well.n else None)
        at = 0
        for part in parts:
            rows = slice(at, at + len(part.numbers))
            data[rows] = np.concatenate([(part.masks >= 0.5).astype(np.float16), part.crops.astype(np.float16)], 1)
            for name, values in identity.items():
                values.append(getattr(part, name))
            at = rows.stop
    empty = {"sites": np.zeros(0, int), "numbers": np.zeros(0, int), "centers": np.zeros((0, 2))}
    result = {name: np.concatenate(values) if values else empty[name] for name, values in identity.items()}
    obs = pd.DataFrame(
        {
            "cell_id": (result["sites"].astype(np.uint64) * SITE_STEP + result["numbers"].astype(np.uint64)),
            "Metadata_Plate": well.plate,
            "Metadata_Well": well.well,
            "Metadata_Site": result["sites"],
            "Metadata_ObjectNumber": result["numbers"],
            "y": result["centers"][:, 0],
            "x": result["centers"][:, 1],
        },
        index=[str(i) for i in range(well.n)],
    )
    var = pd.DataFrame({"channels": planes, "channel_mapping": mapping}, index=[str(i) for i in range(len(planes))])
    table = anndata.AnnData(obs=obs, var=var)
    names = {"channel_names": np.array(planes), "channel_mapping": np.array(mapping), "compression": "gzip"}
    table.uns["single_cell_images"] = {**about, **names}
    table.uns["crops"] = json.dumps(well.rule)
    table.strings_to_categoricals()
    with hdf5_file(images, "r") as source, hdf5_file(path, "w") as file:
        with plain_strings():
            anndata.io.write_elem(file, "/", table)
        shape = source["images"].shape
        options = {"chunks": (1, 1, *shape[2:]), "compression": "gzip"} if well.n else {}
        target = file.create_dataset("obsm/single_cell_images", shape, "float16", **options)
        target.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0", **about})
        target.attrs["channel_names"] = np.array([p.encode() for p in planes])
        target.attrs["channel_mapping"] = np.array([m.encode() for m in mapping])
        target.attrs["compression"] = "gzip"
        for start in range(0, well.n, 64):
            target[start : start + 64] = source["images"][start : start + 64]
    images.unlink()
    return at
