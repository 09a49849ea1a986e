"""Objects that a pipeline loads from label images: by NamesAndTypes' rules, and by LoadData's table.

`label_images.json` has, of CellProfiler 4.2.8.1's run of `label_images_{rules,table}.cppipe` on the images drawn here, the
number of objects of each well and sums of columns, row i counted i times.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from jumpgpu.cellprofiler.parse import parse_text, read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.extract import main
from jumpgpu.store.reader import open_plate

MODULES = Path(__file__).parent / "modules"
COLUMNS = ("AreaShape_Area", "Location_Center_X", "Location_Center_Y", "Intensity_IntegratedIntensity_OrigDNA")


def wells() -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """An image, and label images of nuclei and cells for each well."""
    y, x = np.mgrid[:48, :64]
    block, many = (y // 8) * 8 + x // 8 + 1, (y // 2) * 32 + x // 2 + 1
    gaps = np.where((block % 9 == 0) | (y % 8 == 7) | (x % 8 == 7), 0, block)
    pieces = np.where((y % 8 == 3) & (block % 5 == 0), 0, gaps)
    missing = np.where(many % 50 == 0, 0, many)
    kinds = [
        (np.where(gaps > 0, 255, 0).astype(np.uint8), (gaps * 300).astype(np.uint16)),
        (pieces.astype(np.uint16), gaps.astype(np.uint8)),
        (missing.astype(np.uint16), many.astype(np.uint16)),
        (np.zeros((48, 64), np.uint8), block.astype(np.uint8)),
        (np.where(x % 8 < 3, 8, 3).astype(np.uint8), (block + 200).astype(np.uint8)),
    ]
    return ((x * 37 + y * 101) % 997 * 60).astype(np.uint16), kinds


def draw(folder: Path, which: list[int]) -> None:
    folder.mkdir()
    dna, kinds = wells()
    rows = []
    for i in which:
        row = {"Metadata_Plate": "P1", "Metadata_Well": f"A{i:02d}", "Metadata_Site": 1}
        images = {
            "FileName_OrigDNA": dna,
            "ObjectsFileName_Nuclei": kinds[i - 1][0],
            "ObjectsFileName_Cells": kinds[i - 1][1],
        }
        for column, word in zip(images, ("dna", "nucmask", "cellmask"), strict=True):
            tifffile.imwrite(folder / f"A{i:02d}_s1_{word}.tif", images[column])
            row |= {column: f"A{i:02d}_s1_{word}.tif", column.replace("File", "Path"): str(folder)}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "load_data.csv", index=False)


@pytest.mark.parametrize(("name", "which"), [("rules", [1, 2, 3, 4, 5]), ("table", [1, 2, 3, 4, 5])])
def test_loaded_objects_are_cellprofilers(tmp_path: Path, name: str, which: list[int]) -> None:
    draw(tmp_path / "in", which)
    if name == "rules":
        (tmp_path / "in/load_data.csv").unlink()
    pipeline = MODULES / f"label_images_{name}.cppipe"
    verdict = translate([read_pipeline(pipeline)]).verdict
    assert (verdict["labels"], verdict["columns"]) == ("equal", "equal")
    arguments = ["P1", "--images", str(tmp_path / "in"), "--pipeline", str(pipeline), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--illumination", "none"]) == 0
    assert not (tmp_path / "out/quarantine.csv").exists()  # nothing is said of label images that are mostly 0
    plate = open_plate(tmp_path / "out/P1.zarr")
    for objects, lines in json.loads((MODULES / "label_images.json").read_text())[name].items():
        columns = [*COLUMNS, "Children_Cells_Count" if objects == "Nuclei" else "Parent_Nuclei"]
        table = plate.to_pandas(objects=objects if objects in plate.objects else None)
        for well, n, *sums in lines:
            rows = table[table["Metadata_Well"] == well]
            values = rows[[f"{objects}_{c}" for c in columns]].to_numpy(float)
            assert len(rows) == n, (objects, well)
            ours = np.arange(1, n + 1) @ np.nan_to_num(values)
            np.testing.assert_allclose(ours, sums, rtol=1e-6, atol=1e-6, err_msg=f"{objects} {well}")


def test_a_module_that_is_not_imported_makes_its_own_objects() -> None:
    text = (MODULES / "label_images_table.cppipe").read_text()
    other = "RunCellpose:[module_num:2|svn_version:'Unknown'|variable_revision_number:3|show_window:False|notes:[]|"
    other += "batch_state:array([], dtype=uint8)|enabled:True|wants_pause:False]\n    Name the output object:Cells\n\n"
    imported = translate([parse_text(text.replace("RelateObjects:", f"{other}RelateObjects:"), "lab.cppipe")])
    assert imported.verdict["labels"] == "refused"
    assert [f.module for f in imported.of_level("labels")] == ["RunCellpose"]
