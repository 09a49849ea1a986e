"""`export --format cellprofiler`: the files of ExportToSpreadsheet, header for header, and every stored number in them."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jumpgpu
from jumpgpu.export import main
from jumpgpu.outputs.comparison import compare_tables
from jumpgpu.store.reader import open_plate
from tests.helpers.lab_output import MEASURES, SPECKLES, read_csv, write_lab_plate
from tests.helpers.plates import write_plate


def header(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return next(csv.reader(file))


def test_files_and_their_columns(tmp_path: Path) -> None:
    plate = open_plate(write_lab_plate(tmp_path))
    assert main([str(plate.path), "--format", "cellprofiler", "--quiet"]) == 0
    folder = tmp_path / "LAB1_cellprofiler"
    assert sorted(p.name for p in folder.iterdir()) == [
        *("LAB1_Cells.csv", "LAB1_Image.csv", "LAB1_Nuclei.csv", "LAB1_Speckles.csv")
    ]
    front = ["ImageNumber", "ObjectNumber", "Metadata_Plate", "Metadata_Site", "Metadata_Well"]
    assert header(folder / "LAB1_Nuclei.csv") == [*front, *sorted(MEASURES)]
    assert header(folder / "LAB1_Speckles.csv") == [*front, *sorted(SPECKLES)]
    assert header(folder / "LAB1_Image.csv") == [
        *("Count_Cells", "Count_Nuclei", "Count_Speckles", "FileName_OrigBlue", "FileName_OrigGreen", "Group_Index"),
        *("Group_Length", "Group_Number", "ImageNumber", "Intensity_MeanIntensity_DNA", "Metadata_Plate"),
        *("Metadata_QCFlag", "Metadata_Site", "Metadata_Well", "PathName_OrigBlue", "PathName_OrigGreen"),
    ]


def test_rows_are_those_of_the_store(tmp_path: Path) -> None:
    plate = open_plate(write_lab_plate(tmp_path))
    assert jumpgpu.export(plate, tmp_path / "out", "cellprofiler") > 0
    image = read_csv(tmp_path / "out" / "LAB1_Image.csv")
    assert image["ImageNumber"].tolist() == [1, 2, 3]
    assert image[["Metadata_Well", "Metadata_Site"]].agg(tuple, axis=1).tolist() == [("A01", 1), ("A01", 2), ("B12", 1)]
    assert image["FileName_OrigGreen"].tolist() == ["A01_1_er.tiff", "A01_2_er.tiff", "B12_1_er.tiff"]
    assert set(image["PathName_OrigBlue"]) == {"Images"}
    stored = plate.to_pandas()
    for name in ("Cells", "Nuclei"):
        table = read_csv(tmp_path / "out" / f"LAB1_{name}.csv")
        counted = table.groupby("ImageNumber").size().tolist()
        assert counted == image[f"Count_{name}"].tolist()
        assert (table.groupby("ImageNumber")["ObjectNumber"].max() == counted).all()
        keys = ["Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"]
        rows = stored.set_index(keys).loc[
            list(table[["Metadata_Well", "Metadata_Site", "ObjectNumber"]].itertuples(index=False))
        ]
        for measure in MEASURES:
            np.testing.assert_array_equal(table[measure].to_numpy(np.float32), rows[f"{name}_{measure}"], err_msg=measure)
    own = read_csv(tmp_path / "out" / "LAB1_Speckles.csv")
    np.testing.assert_array_equal(own["Parent_Cells"], plate.to_pandas(objects="Speckles")["Speckles_Parent_Cells"])


def test_a_presets_plate_and_a_plate_map(tmp_path: Path) -> None:
    write_plate(tmp_path, {"A01": [1], "A02": [1, 2]})
    (tmp_path / "map.csv").write_text("well_position,broad_sample\nA01,BRD-1\nA02,=1+1\n")
    at = [str(tmp_path / "BR00117010.zarr"), "--format", "cellprofiler", "--quiet", "--output", str(tmp_path / "out")]
    assert main([*at, "--platemap", str(tmp_path / "map.csv"), "--wells", "A02"]) == 0
    image = read_csv(tmp_path / "out" / "BR00117010_Image.csv")
    assert set(image["Metadata_broad_sample"]) == {"'=1+1"}  # no formula
    assert image["Count_Nuclei"].tolist() == image["Count_Cells"].tolist()
    assert image["FileName_OrigDNA"].tolist() == ["A02_1_DNA.tiff", "A02_2_DNA.tiff"]
    cells = read_csv(tmp_path / "out" / "BR00117010_Cells.csv")
    assert cells["Correlation_Manders_DNA_ER"].isna().sum() == 2  # the store's NaN
    assert np.isinf(cells["Granularity_3_ER"]).sum() == 2


def test_files_that_are_there_stay(tmp_path: Path, capsys) -> None:
    write_lab_plate(tmp_path)
    at = [str(tmp_path / "LAB1.zarr"), "--format", "cellprofiler", "--quiet", "--output", str(tmp_path / "out")]
    assert main(at) == 0
    (tmp_path / "out" / "LAB1_Nuclei.csv").write_text("mine")
    assert main(at) == 2
    assert (tmp_path / "out" / "LAB1_Nuclei.csv").read_text() == "mine"
    assert main([*at, "--overwrite"]) == 0
    assert (tmp_path / "out" / "LAB1_Nuclei.csv").read_text() != "mine"
    assert [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--objects", "Nuclei"], "hold every table"),
        (["--columns", "AreaShape"], "hold every table"),
        (["--flag-cells"], "no flags"),
        (["--level", "profile"], "no profiles of LAB1"),
    ],
)
def test_options_that_have_no_meaning_there_are_refused(options: list[str], said: str, tmp_path: Path, capsys) -> None:
    write_lab_plate(tmp_path)
    assert main([str(tmp_path / "LAB1.zarr"), "--format", "cellprofiler", "--quiet", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "LAB1_cellprofiler").exists()


def test_what_is_written_compares_equal(tmp_path: Path) -> None:
    plate = open_plate(write_lab_plate(tmp_path))
    jumpgpu.export(plate, tmp_path / "out", "cellprofiler")
    result = compare_tables(plate, tmp_path / "out")
    assert result.findings == result.notes == []
    assert {c.status for c in result.columns} == {"equal"}
    assert not result.lacking
    assert not result.besides
    n = 2 * (len(MEASURES)) + len(SPECKLES) + 5
    assert len(result.columns) == n


@pytest.mark.parametrize("name", ["Cells", "Nuclei", "Cytoplasm", "NucleiIncludingEdges", "Image"])
def test_headers_beside_cellprofilers_own(name: str, shared: Path, tmp_path: Path) -> None:
    """v6's tables have CellProfiler's columns; its own file is in alphabetical order, as ExampleHuman's shows."""
    example = header(shared / "data/examples/ExampleHuman/cellprofiler/Nuclei.csv")
    assert example[:2] == ["ImageNumber", "ObjectNumber"]
    assert example[2:] == sorted(example[2:])
    images = header(shared / "data/examples/ExampleHuman/cellprofiler/Image.csv")
    assert images == sorted(images)
    theirs = set(pd.read_parquet(shared / f"data/pipeline_references/v6/{name}.parquet").columns)
    assert "ImageNumber" in theirs
    assert not {c for c in theirs if c.startswith(f"{name}_")}
