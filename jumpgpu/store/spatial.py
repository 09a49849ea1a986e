"""A stored plate as SpatialData: fields as images, label images, and the cells' table linked to them (extra `spatial`).

Coordinate systems, in um with y downwards where not said otherwise:

    A01 site 3    pixels of a field: its image's rows and columns
    A01           a well: its centre is (0, 0)
    plate         the plate: the centre of A01 is (0, 0), wells lie at the pitch of the plate's format

The last two need the stage's positions, which a Harmony index and some load_data.csv have.
"""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..settings.names import spelled_well, well_position
from ..storage.buckets import Place
from . import views
from .layout import OVERVIEW

if TYPE_CHECKING:
    import anndata
    from spatialdata import SpatialData

PITCH_UM = {2: 39_120.0, 4: 18_000.0, 8: 9_000.0, 16: 4_500.0, 32: 2_250.0}  # by the plate's rows (ANSI/SLAS 4-2004)
TABLE = "cells"


class Plate(views.Plate, Protocol):
    """What is needed of `jumpgpu.open_plate`'s."""

    def to_anndata(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "anndata.AnnData": ...


def to_spatialdata(
    plate: Plate,
    wells: Iterable[str] | None = None,
    sites: Iterable[int] | None = None,
    columns: Iterable[str] | None = None,
    images: str | Place | None = None,
) -> "SpatialData":
    """The fields of some wells as one SpatialData object; `StoredPlate.to_spatialdata` says what is in it."""
    try:
        import spatialdata as sd
    except ImportError as error:
        raise ImportError(f"to_spatialdata needs spatialdata ({error}): pip install 'jumpgpu[spatial]'") from error

    chosen = plate.wells if wells is None else [spelled_well(well) for well in wells]
    wanted = None if sites is None else {int(site) for site in sites}
    table = plate.to_anndata(chosen, columns).to_memory()
    pitch = PITCH_UM[views.grid(plate.wells)["rows"]]
    elements: dict[str, dict[str, Any]] = {"images": {}, "labels": {}}
    regions: dict[tuple[str, int], str] = {}
    unplaced = []
    for well in chosen:
        for record in plate.record(well)["sites"]:
            site = int(record["site"])
            if wanted is not None and site not in wanted:
                continue
            labels = plate.labels(well, site)
            height, width = next(iter(labels.values())).shape
            systems = placements(plate, well, site, record.get("position_um"), (height, width), pitch)
            if len(systems) == 1:
                unplaced.append(f"{well} site {site}")
            name = f"{well}_{site}"
            for compartment, label in labels.items():
                elements["labels"][f"{name}_{compartment}"] = sd.models.Labels2DModel.parse(
                    label, dims=("y", "x"), transformations=affine(systems)
                )
            regions[well, site] = f"{name}_Cells"
            if result := picture(plate, well, site, images):
                pixels, step = result
                elements["images"][name] = sd.models.Image2DModel.parse(
                    pixels, dims=("c", "y", "x"), c_coords=list(plate.channels), transformations=affine(systems, step)
                )
    if wanted is not None and (absent := wanted - {site for _, site in regions}):
        raise ValueError(f"{plate.barcode} has no site {min(absent)} in wells {', '.join(map(str, chosen[:8]))}")
    if unplaced:
        warnings.warn(
            f"{plate.barcode}: no stage position of {len(unplaced)} fields ({', '.join(unplaced[:3])}): they are in no "
            "coordinate system of a well or the plate",
            stacklevel=3,
        )
    keys = list(zip(table.obs["Metadata_Well"], table.obs["Metadata_Site"], strict=True))
    table = table[[key in regions for key in keys]].copy()
    table.obs["region"] = [regions[key] for key in keys if key in regions]
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["instance"] = table.obs["Metadata_ObjectNumber"].astype(int)
    named = sorted(set(table.obs["region"]))
    if named:
        table = sd.models.TableModel.parse(table, region=named, region_key="region", instance_key="instance")
    about = {"plate": plate.barcode, "channels": list(plate.channels), "fingerprint": plate.fingerprint}
    return sd.SpatialData(**elements, tables={TABLE: table}, attrs={"jumpgpu": about})


def placements(
    plate: Plate, well: str, site: int, position_um: Any, shape: tuple[int, int], pitch: float
) -> dict[str, tuple[float, float, float]]:
    """Coordinate system -> (size of a pixel, x and y of the field's first corner) in it."""
    systems = {f"{well} site {site}": (1.0, 0.0, 0.0)}
    size = plate.manifest.get("pixel_size_um")
    if position_um is None or not size:
        return systems
    left = position_um[0] - size * shape[1] / 2
    top = -position_um[1] - size * shape[0] / 2  # a stage's y goes up
    row, column = well_position(well)
    return systems | {
        well: (size, left, top),
        "plate": (size, left + (column - 1) * pitch, top + (row - 1) * pitch),
    }


def affine(systems: dict[str, tuple[float, float, float]], step: int = 1) -> dict[str, Any]:
    """spatialdata's transformations of an element whose pixels are `step` of the field's."""
    from spatialdata.transformations import Affine

    return {
        name: Affine([[size * step, 0, left], [0, size * step, top], [0, 0, 1]], ("x", "y"), ("x", "y"))
        for name, (size, left, top) in systems.items()
    }


def picture(plate: Plate, well: str, site: int, images: str | Place | None) -> tuple[np.ndarray, int] | None:
    """uint16 [C, h, w] and how many pixels of the field one of its pixels is: raw, else the overview, else nothing."""
    if folder := images or plate.images:
        return views.raw_field(plate, well, site, folder), 1
    try:
        return plate.overview(well, site), OVERVIEW
    except ValueError:
        return None
