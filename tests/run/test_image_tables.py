"""A plate's Image table by an imported pipeline: every site has its row, a flagged one what came before; exports."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from jumpgpu.export import main as export
from jumpgpu.extract import main as extract
from jumpgpu.store.reader import open_plate
from jumpgpu.verify import main as verify
from tests.cellprofiler.test_of_image_tables import HEADER, LOAD, flag, module
from tests.helpers.plates import write_images

QUALITY = module(
    "MeasureImageQuality",
    6,
    ["Select...", "1", "1", "1", "DNA", "Yes", "No", "20", "Yes", "Yes", "No", "No", "Otsu", "0.1", *["x"] * 3],
)
NUCLEI = module(
    "IdentifyPrimaryObjects",
    15,
    [
        *("DNA", "Nuclei", "3,40", "Yes", "No", "None", "None", "10", "7", "Yes", "Never", "Yes", "Yes"),
        *("Continue", "500", "Yes", "12", "Global", "Manual", "2", "1", "0,1", "0.03", "None"),
        *("Two classes", "No", "Foreground", "50", "0.05", "0.05", "Mean", "Standard deviation", "2", "Manual"),
    ],
)
SHAPE = module("MeasureObjectSizeShape", 3, ["Nuclei", "No", "No"])


def dna(folder: Path, well: str, site: int) -> np.ndarray:
    row, column = ord(well[0]) - 64, int(well[1:])
    return tifffile.imread(folder / f"r{row:02d}c{column:02d}f{site:02d}p01-ch5sk1fk1fl1.tiff")


def test_every_site_has_a_row_and_a_flag_ends_one(tmp_path: Path) -> None:
    folder = write_images(tmp_path)
    sites = [(well, site) for well in ("A01", "B02") for site in (1, 2)]
    totals = {at: dna(folder, *at).astype(float).sum() / 65535 for at in sites}
    worst = max(totals, key=lambda at: totals[at])
    limit = sorted(totals.values())[-2] + 1e-6
    low = ["Whole-image measurement", "None", "ImageQuality_TotalIntensity_DNA", "No", "0", "Yes", f"{limit:.9f}"]
    text = HEADER + LOAD + QUALITY + flag([low], "Yes") + NUCLEI + SHAPE
    (tmp_path / "lab.cppipe").write_text(text)
    at = ["--plate", "DEMO", "--images", str(tmp_path / "images"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert extract([*at, "--pipeline", str(tmp_path / "lab.cppipe"), "--illumination", "none", "--quiet"]) in (0, 3)
    plate = open_plate(tmp_path / "out" / "DEMO.zarr")
    table = plate.image_table().set_index(["Metadata_Well", "Metadata_Site"])
    assert list(table.index) == sites
    for site, total in totals.items():
        assert np.isclose(table.loc[site, "Image_ImageQuality_TotalIntensity_DNA"], total, rtol=1e-7)
    assert table["Image_Metadata_QCFlag"].to_dict() == {site: float(site == worst) for site in sites}
    assert table["Image_ImageQuality_Scaling_DNA"].tolist() == [65535.0] * 4
    assert table["Image_Count_Nuclei"].isna().to_dict() == {site: site == worst for site in sites}
    cells = plate.to_pandas()
    assert not ((cells["Metadata_Well"] == worst[0]) & (cells["Metadata_Site"] == worst[1])).any()
    entries = pd.read_csv(tmp_path / "out" / "quarantine.csv")
    (entry,) = entries[entries["reason"].str.contains("QCFlag")].itertuples()
    assert (entry.well, entry.site) == worst
    assert "ImageQuality_TotalIntensity_DNA is" in entry.reason
    assert verify([str(tmp_path / "out" / "DEMO.zarr")]) == 0

    for kind in ("csv", "parquet", "h5ad"):
        assert export([str(tmp_path / "out" / "DEMO.zarr"), "--format", kind, "--objects", "Image", "--quiet"]) == 0
    written = pd.read_csv(tmp_path / "out" / "DEMO_Image.csv", float_precision="round_trip")
    columns = [c for c in plate.image_table() if c.startswith("Image_")]
    np.testing.assert_array_equal(written[columns], plate.image_table()[columns])
    assert export([str(tmp_path / "out" / "DEMO.zarr"), "--format", "sqlite", "--quiet"]) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "DEMO.sqlite")) as base:
        kept = pd.read_sql("SELECT * FROM Image ORDER BY ImageNumber", base)
    np.testing.assert_array_equal(kept[columns].astype(float), plate.image_table()[columns])
