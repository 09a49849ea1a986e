"""A small stored plate with places and a set of its own, and its numbers as a lab's CellProfiler would have left them."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd

from jumpgpu.outputs.lab_tables import shortened
from jumpgpu.store.layout import Input, Layout, ObjectTable, SiteTable
from jumpgpu.store.writer import PlateWriter

MEASURES = (
    *("AreaShape_Area", "AreaShape_Center_X", "AreaShape_Center_Y", "AreaShape_Orientation", "Number_Object_Number"),
    *("Texture_Variance_DNA_5_03_256", "Correlation_Correlation_DNA_ER", "RadialDistribution_MeanFrac_DNA_1of4"),
)
SPECKLES = ("Location_Center_X", "Location_Center_Y", "Number_Object_Number", "Parent_Cells")
IMAGE = ("Image_Count_Nuclei", "Image_Count_Speckles", "Image_Metadata_QCFlag", "Image_Intensity_MeanIntensity_DNA")
WELLS = {"A01": [1, 2], "B12": [1]}


def site_table(well: str, site: int) -> SiteTable:
    rng = np.random.default_rng([ord(well[0]), int(well[1:]), site])
    n, speckles = int(rng.integers(4, 9)), int(rng.integers(2, 6))
    values = rng.normal(size=(n, 2, len(MEASURES)))
    values[:, :, 0] = rng.integers(80, 900, (n, 2))
    values[:, :, 1] = 30 * np.arange(n)[:, None] + rng.random((n, 2))
    values[:, :, 2] = rng.random((n, 2)) * 100
    values[:, :, 3] = rng.uniform(-90, 90, (n, 2))
    values[:, :, 4] = np.arange(1, n + 1)[:, None]
    values[0, 1, 5] = np.nan
    if site == 2:  # the last cell has no nucleus: an imported pipeline's counts say so
        values[-1, 1] = np.nan
    own = np.stack([*rng.random((2, speckles)) * 100, np.arange(1, speckles + 1), rng.integers(0, n, speckles)], 1)
    return SiteTable(
        well,
        site,
        numbers=np.arange(1, n + 1, dtype=np.int32),
        values=values.reshape(n, -1),
        inputs=(Input("DNA", f"Images/{well}_{site}_dna.tiff", 10), Input("ER", f"Images/{well}_{site}_er.tiff", 10)),
        image=np.array([n - (site == 2), speckles, site == 2, rng.random()]),
        objects={"Speckles": ObjectTable(np.arange(1, speckles + 1, dtype=np.int32), own)},
    )


def write_lab_plate(folder: Path, plate: str = "LAB1") -> Path:
    columns = [f"{name}_{m}" for name in ("Cells", "Nuclei") for m in MEASURES]
    others = {"Speckles": [f"Speckles_{m}" for m in SPECKLES]}
    steps = [{"do": "load", "image": "OrigBlue", "channel": "DNA"}, {"do": "load", "image": "OrigGreen", "channel": "ER"}]
    layout = Layout(plate, columns, ("DNA", "ER"), None, IMAGE, None, others)
    with PlateWriter(folder, layout, {"config": {"steps": steps}, "device": "cpu"}, WELLS) as writer:
        for well in writer.missing_wells():
            for site in WELLS[well]:
                writer.append(site_table(well, site))
    return folder / f"{plate}.zarr"


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, float_precision="round_trip")


def as_database(folder: Path, target: Path, *, combined: bool, view: bool = False, longest: int = 64) -> None:
    """ExportToSpreadsheet's files as ExportToDatabase's tables: one for every set, or Per_Object of sets with one number,
    or Per_Object as a view of the sets' tables; names of columns shortened as it shortens them."""
    image = read_csv(folder / "LAB1_Image.csv")
    image.columns = [c if c == "ImageNumber" else f"Image_{c}" for c in image.columns]
    tables = {}
    for name in ("Cells", "Nuclei", "Speckles"):
        table = read_csv(folder / f"LAB1_{name}.csv").drop(columns=["Metadata_Plate", "Metadata_Well", "Metadata_Site"])
        tables[name] = table.rename(columns=lambda c, n=name: c if c.endswith("Number") and "_" not in c else f"{n}_{c}")
    with contextlib.closing(sqlite3.connect(target)) as base:
        image.to_sql("Lab_Per_Image", base, index=False)
        if combined:
            both = tables["Cells"].merge(tables["Nuclei"], on=["ImageNumber", "ObjectNumber"], how="outer")
            both.to_sql("Lab_Per_Object", base, index=False)
            del tables["Cells"], tables["Nuclei"]
        for name, table in tables.items():
            short = table.rename(columns=lambda c: shortened(c, longest))
            short.drop(columns="ObjectNumber").to_sql(f"Lab_Per_{name}", base, index=False)
        if view:
            number = "Number_Object_Number"
            chosen = f"SELECT Lab_Per_Cells.ImageNumber, Cells_{number} AS ObjectNumber, Lab_Per_Cells.*, Lab_Per_Nuclei.*"
            on = f"Lab_Per_Cells.ImageNumber = Lab_Per_Nuclei.ImageNumber AND Cells_{number} = Nuclei_{number}"
            base.execute(f"CREATE VIEW Lab_Per_Object AS {chosen} FROM Lab_Per_Cells INNER JOIN Lab_Per_Nuclei ON {on}")
        base.commit()
