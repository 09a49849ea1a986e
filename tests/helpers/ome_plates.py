"""OME-Zarr plates for the tests, written by zarr from a plate that jumpgpu reads as TIFFs."""

import json
from pathlib import Path

import google_crc32c
import imagecodecs
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


def recoded(root: Path, packer: str, form: str = "compressor", **options: object) -> None:
    """Chunks of a plate that `write_ome_plate` made, packed anew as images, by the names that imagecodecs has for zarr."""
    encode = {"imagecodecs_jpeg2k": imagecodecs.jpeg2k_encode, "imagecodecs_jpegxl": imagecodecs.jpegxl_encode}[packer]
    said = {key: value for key, value in options.items() if key != "prefix"}
    for path in [p.parent for p in root.glob("*/*/*/0/.zarray")] + [p.parent for p in root.glob("*/*/*/0/zarr.json")]:
        array = zarr.open_array(path, mode="r")
        whole, version = array[...], 2 if (path / ".zarray").exists() else 3
        keys = [k for k in path.rglob("*") if k.is_file() and k.name not in (".zarray", ".zattrs", "zarr.json")]
        for key in keys:
            at = [int(n) for n in key.relative_to(path).parts if n != "c"]
            outer = array.shards or array.chunks
            block = np.zeros(outer, np.uint16)
            part = whole[tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, outer, strict=True))]
            block[tuple(slice(0, n) for n in part.shape)] = part
            if array.shards is None:
                key.write_bytes(encode(np.squeeze(block), **said))
                continue
            parts, index = [], []
            for place in np.ndindex(*[o // c for o, c in zip(outer, array.chunks, strict=True)]):
                tile = block[tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, array.chunks, strict=True))]
                index.append((sum(map(len, parts)), len(encode(np.squeeze(tile), **said))))
                parts.append(encode(np.squeeze(tile), **said))
            numbers = np.array(index, "<u8").tobytes()
            key.write_bytes(b"".join([*parts, numbers, google_crc32c.value(numbers).to_bytes(4, "little")]))

        def edit(tree: dict, version: int = version) -> None:
            if version == 2:
                told = {"id": packer, **said}
                tree.update(compressor=None, filters=[told]) if form == "filter" else tree.update(compressor=told)
                return
            codec = {"name": f"{options.get('prefix', '')}{packer}", **({"configuration": said} if said else {})}
            inner = tree["codecs"][0]["configuration"] if tree["codecs"][0]["name"] == "sharding_indexed" else tree
            inner["codecs"] = [codec]

        change(path / (".zarray" if version == 2 else "zarr.json"), edit)
