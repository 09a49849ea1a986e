"""The plate's Image table: a row per site, as CellProfiler's. A well keeps its own rows; a run that ends gathers them.

A/01/tables/image     the well's rows, float64 [sites, columns], where there is more than the count of cells
tables/image          of all wells: an AnnData table, X float64, obs Metadata_Plate, _Well and _Site
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..storage.buckets import Place
from .annotation import variables
from .arrays import digest, read_array, table_files
from .layout import ANNDATA, COUNT, FORMAT, ROW, frame_files, node, sealed
from .records import home_of, verified_files


def image_rows(plate: Place, record: Mapping[str, Any], where: str) -> tuple[list[str], np.ndarray]:
    """A well's rows of the Image table: names of its columns, float64 [sites, columns]. The first is the count of cells.

    ValueError where the rows are not those of the well's record. `where` names the well in it.
    """
    counts = np.array([[site["cells"]] for site in record["sites"]], np.float64).reshape(-1, 1)
    key = "tables/image" if record["format"] > 1 else "tables/fields/X"
    files = verified_files(home_of(plate, record["well"], where), record, key.removesuffix("X"), where)
    if not files:
        return [COUNT], counts
    names = record["image"] if record["format"] > 1 else read_array(files, "tables/fields/var/_index").tolist()
    values = read_array(files, key)
    if values.shape != (len(counts), len(names)):
        raise ValueError(f"{where}: its image table is {values.shape}, expected {(len(counts), len(names))}")
    return [COUNT, *map(str, names)], np.concatenate([counts, values], axis=1)


def gathered(parts: Sequence[tuple[list[str], np.ndarray]]) -> tuple[list[str], np.ndarray]:
    """Wells' rows as one table, nan where a well has not a column."""
    names = list(dict.fromkeys(name for columns, _ in parts for name in columns)) or [COUNT]
    values = np.full((sum(len(rows) for _, rows in parts), len(names)), np.nan)
    row = 0
    for columns, rows in parts:
        values[row : row + len(rows), [names.index(c) for c in columns]] = rows
        row += len(rows)
    return names, values


def plate_table_files(plate: Place, ours: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """The plate's `tables` group: the Image table of all its wells, with a record of what it was made from."""
    barcode = ours["plate"]
    parts = [image_rows(plate, record, f"{barcode} {well}") for well, record in records.items()]
    names, values = gathered(parts)
    sites = [(well, site["site"]) for well, record in records.items() for site in record["sites"]]
    index = [f"{barcode}_{well}_{site}" for well, site in sites]
    site_numbers = np.array([site for _, site in sites], np.int32)
    obs = {ROW[0]: [barcode] * len(sites), ROW[1]: [well for well, _ in sites], ROW[2]: site_numbers}
    files = {
        "image/zarr.json": node("group", ANNDATA),
        **table_files("image/X", [values], len(names), "float64"),
        **frame_files("image/obs", index, obs),
        **frame_files("image/var", names, variables(names, ours["channels"])),
    }
    record = {
        "format": FORMAT,
        "plate": barcode,
        "wells": {well: r["digest"] for well, r in records.items()},
        "files": {key: {"bytes": len(data), "sha256": digest(data)} for key, data in sorted(files.items())},
    }
    return files | {"zarr.json": node("group", sealed({"jumpgpu": record}))}
