"""OME-Zarr plates for the tests, written by zarr from a plate that jumpgpu reads as TIFFs."""

import json
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import GzipCodec, ZstdCodec

from jumpgpu.images.plate import Plate
from jumpgpu.images.reader import read_fields

LABELS = {"DNA": "HOECHST 33342", "ER": "Alexa 488", "RNA": "488 long", "AGP": "Alexa 568", "Mito": "Alexa 647"}


def write_ome_plate(
    path: Path,
    plate: Plate,
    version: str = "0.5",
    axes: str = "tczyx",
    first: int = 0,
    labels: bool = True,
    shards: bool = False,
    together: bool = False,
    packer: str = "zstd",
) -> Path:
    """The plate's fields, a chunk per channel in four tiles (or all channels in one), fields numbered from `first`."""
    wells = {well: [s.site for s in plate.sites if s.well == well] for well in plate.wells}
    rows, columns = sorted({w[0] for w in wells}), sorted({str(int(w[1:])) for w in wells}, key=int)
    described = {
        "name": plate.barcode,
        "rows": [{"name": r} for r in rows],
        "columns": [{"name": c} for c in columns],
        "wells": [
            {"path": f"{w[0]}/{int(w[1:])}", "rowIndex": rows.index(w[0]), "columnIndex": columns.index(str(int(w[1:])))}
            for w in wells
        ],
    }
    form = 2 if version == "0.4" else 3
    root = zarr.open_group(path, mode="w", zarr_format=form)

    def annotate(group: zarr.Group, **values: object) -> None:
        group.attrs.update(values if form == 2 else {"ome": {"version": version, **values}})

    annotate(root, plate={**described, **({"version": version} if form == 2 else {})})
    for row in rows:
        root.create_group(row)
    for well, sites in wells.items():
        group = root.create_group(f"{well[0]}/{int(well[1:])}")
        annotate(group, well={"images": [{"path": str(i + first)} for i in range(len(sites))]})
        for number, site in enumerate(sites):
            pixels = np.array(next(read_fields(plate, wells=[well], sites=[site], batch=1, workers=0)).pixels[0].numpy())
            order = [plate.channels.index(c) for c in reversed(plate.channels)]  # another order than ours
            image = group.create_group(str(number + first))
            full = pixels[order]
            for axis in axes:
                if axis in "tz":
                    full = np.expand_dims(full, axes.index(axis))
            n, height, width = pixels.shape
            tile = {"c": n if together else 1, "y": -(-height // 2), "x": -(-width // 2)}
            chunks = tuple(tile.get(a, 1) for a in axes)
            options = {"compressors": {"zstd": ZstdCodec(), "gzip": GzipCodec(), "none": None}[packer]} if form == 3 else {}
            array = image.create_array(
                "0",
                shape=full.shape,
                dtype="uint16",
                chunks=chunks,
                shards=tuple(n * (2 if a in "yx" else 1) for n, a in zip(chunks, axes, strict=True)) if shards else None,
                chunk_key_encoding={"name": "v2", "separator": "/"} if form == 2 else None,
                **options,
            )
            array[...] = full
            kinds = {"t": "time", "c": "channel"}
            units = {"y": {"unit": "micrometer"}, "x": {"unit": "micrometer"}}
            scale = {"y": 0.598, "x": 0.598}
            values: dict[str, object] = {
                "multiscales": [
                    {
                        "axes": [{"name": a, "type": kinds.get(a, "space"), **units.get(a, {})} for a in axes],
                        "datasets": [
                            {
                                "path": "0",
                                "coordinateTransformations": [{"type": "scale", "scale": [scale.get(a, 1.0) for a in axes]}],
                            }
                        ],
                        **({"version": version} if form == 2 else {}),
                    }
                ]
            }
            if labels:
                values["omero"] = {"channels": [{"label": LABELS[c], "color": "FFFFFF"} for c in reversed(plate.channels)]}
            annotate(image, **values)
    return path


def change(file: Path, edit: object) -> None:
    """Edit a JSON file in place."""
    value = json.loads(file.read_text())
    edit(value)  # type: ignore[operator]
    file.write_text(json.dumps(value))
