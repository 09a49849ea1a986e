"""A plate beside a lab's output: what is equal is said to be, and everything that is not is found and named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jumpgpu
from jumpgpu.compare import main
from jumpgpu.outputs.comparison import compare_tables, swapped, tied
from jumpgpu.outputs.comparison_page import comparison_page
from jumpgpu.outputs.comparison_result import as_json, summary
from jumpgpu.outputs.lab_tables import shortened
from jumpgpu.store.reader import StoredPlate, open_plate
from tests.helpers.lab_output import as_database, read_csv, write_lab_plate


@pytest.fixture
def plate(tmp_path: Path) -> StoredPlate:
    return open_plate(write_lab_plate(tmp_path / "ours"))


@pytest.fixture
def lab(plate: StoredPlate, tmp_path: Path) -> Path:
    jumpgpu.export(plate, tmp_path / "lab", "cellprofiler")
    return tmp_path / "lab"


def edit(folder: Path, name: str, change) -> None:
    path = folder / f"LAB1_{name}.csv"
    table = read_csv(path)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, index=False)


def status(result, table: str) -> dict[str, str]:
    return {c.name: c.status for c in result.columns if c.table == table}


def test_a_column_that_differs_and_one_within_tolerance(plate: StoredPlate, lab: Path) -> None:
    def change(t: pd.DataFrame) -> None:
        t.loc[2, "Texture_Variance_DNA_5_03_256"] += 0.25
        t["Correlation_Correlation_DNA_ER"] *= 1 + 3e-5

    edit(lab, "Cells", change)
    result = compare_tables(plate, lab)
    assert status(result, "Cells")["Texture_Variance_DNA_5_03_256"] == "differs"
    assert status(result, "Cells")["Correlation_Correlation_DNA_ER"] == "within"
    assert set(status(result, "Nuclei").values()) == {"equal"}
    (column,) = [c for c in result.columns if c.status == "differs"]
    assert column.where == "A01 site 1 object 3"
    assert column.theirs - column.ours == pytest.approx(0.25)
    assert (column.n - column.within, column.n - column.equal) == (1, 1)
    assert result.findings == ["Cells: 1 column that differ: Texture_Variance_DNA_5_03_256"]


def test_nan_beside_a_number_differs(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Nuclei", lambda t: t.fillna({"Texture_Variance_DNA_5_03_256": 0.5}))
    result = compare_tables(plate, lab)
    assert status(result, "Nuclei")["Texture_Variance_DNA_5_03_256"] == "differs"
    json.dumps(as_json(result), allow_nan=False)


def test_orientations_turn_over(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Cells", lambda t: t.assign(AreaShape_Orientation=t["AreaShape_Orientation"] - 180))
    assert status(compare_tables(plate, lab), "Cells")["AreaShape_Orientation"] in ("equal", "within")


def test_columns_that_one_side_lacks(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Cells", lambda t: t.drop(columns="AreaShape_Orientation").assign(Texture_New_ER=1.0, Note="text"))
    edit(lab, "Image", lambda t: t.assign(Granularity_1_DNA=2.0, ExecutionTime_01=0.1, Scaling_DNA=255))
    result = compare_tables(plate, lab)
    assert result.lacking == {"Cells": ["Texture_New_ER"], "Image": ["Granularity_1_DNA"]}
    assert result.besides == {"Cells": ["AreaShape_Orientation"]}
    assert len(result.findings) == 2


def test_objects_with_other_numbers_are_matched_by_place(plate: StoredPlate, lab: Path) -> None:
    def change(t: pd.DataFrame) -> pd.DataFrame:
        of = t["ImageNumber"] == 1
        rows = t[of].iloc[::-1].assign(ObjectNumber=np.arange(1, of.sum() + 1))
        rows["Number_Object_Number"] = rows["ObjectNumber"]
        return pd.concat([rows, t[~of]])

    edit(lab, "Cells", change)
    result = compare_tables(plate, lab)
    cells = result.sets["Cells"]
    assert cells.matched == cells.alike == cells.ours == cells.theirs
    assert cells.by_place >= 4
    assert result.findings == []
    number = next(c for c in result.columns if (c.table, c.name) == ("Cells", "Number_Object_Number"))
    assert number.status == "equal"
    assert number.n < cells.ours  # of the site that is numbered otherwise it says nothing


def test_objects_that_are_missing_moved_or_of_another_outline(plate: StoredPlate, lab: Path) -> None:
    def change(t: pd.DataFrame) -> pd.DataFrame:
        t.loc[0, "AreaShape_Center_X"] += 50  # no counterpart
        t.loc[1, "AreaShape_Center_X"] += 3  # another outline
        t.loc[2, "AreaShape_Area"] += 10
        t.loc[2, "Texture_Variance_DNA_5_03_256"] += 1  # and so no column that differs
        return t.drop(index=3)

    edit(lab, "Cells", change)
    result = compare_tables(plate, lab)
    cells = result.sets["Cells"]
    assert cells.theirs == cells.ours - 1
    assert cells.matched == cells.ours - 2
    assert cells.alike == cells.ours - 4
    at = result.sets["Cells"].sites["A01 site 1"]
    assert at[0] - at[1] == 1
    assert at[0] - at[2] == 2
    assert status(result, "Cells")["Texture_Variance_DNA_5_03_256"] == "equal"
    assert any(f.startswith("Cells: ") and "are matched" in f for f in result.findings)
    page = comparison_page(result)
    assert "Sites whose objects do not all match" in page


def test_counts_of_images_differ(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Image", lambda t: t.assign(Count_Nuclei=t["Count_Nuclei"] + [0, 1, 0]))
    result = compare_tables(plate, lab)
    assert status(result, "Image")["Count_Nuclei"] == "differs"
    assert next(c for c in result.columns if c.name == "Count_Nuclei").where == "A01 site 2"


def test_means_over_a_sites_objects(plate: StoredPlate, lab: Path) -> None:
    cells, speckles = read_csv(lab / "LAB1_Cells.csv"), read_csv(lab / "LAB1_Speckles.csv")
    by = {"Mean": "mean", "Median": "median", "StDev": lambda v: np.std(v.dropna())}
    added = {
        f"{name}_Cells_{measure}": cells.groupby("ImageNumber")[measure].agg(how).to_numpy()
        for name, how in by.items()
        for measure in ("AreaShape_Area", "Texture_Variance_DNA_5_03_256", "RadialDistribution_MeanFrac_DNA_1of4")
    }
    added["Mean_Speckles_Parent_Cells"] = speckles.groupby("ImageNumber")["Parent_Cells"].mean().to_numpy()
    edit(lab, "Image", lambda t: t.assign(**added, Mean_Nuclei_New_Measure=1.0))
    result = compare_tables(plate, lab)
    assert result.lacking == {"Image": ["Mean_Nuclei_New_Measure"]}
    compared = status(result, "Image")
    chosen = [n for n in added if "RadialDistribution" not in n]  # CellProfiler's centres are chosen among equals
    assert {compared[n] for n in chosen} == {"equal"}
    assert not [n for n in compared if "RadialDistribution" in n]


def test_a_well_of_theirs_that_is_not_here(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Image", lambda t: t.assign(Metadata_Well=["A01", "A01", "C07"]))
    result = compare_tables(plate, lab)
    assert result.only_theirs == ["C07 site 1"]
    assert result.sites == ["A01 site 1", "A01 site 2"]
    assert result.findings == ["1 of their sites are not in the plate: C07 site 1"]


def test_wells_and_sites_as_labs_spell_them(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Image", lambda t: t.assign(Metadata_Well=["a1", "A-01", "b12"], Metadata_Site=["f01", "2.0", "s1"]))
    assert compare_tables(plate, lab).findings == []


def test_sites_by_their_files_names(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Image", lambda t: t.drop(columns=["Metadata_Well", "Metadata_Site"]))
    result = compare_tables(plate, lab)
    assert result.findings == []
    assert result.notes == ["3 images say no well and site; they are known by their files' names"]


def test_names_that_are_other_here(plate: StoredPlate, lab: Path) -> None:
    for name in ("Cells", "Nuclei", "Image", "Speckles"):
        edit(
            lab,
            name,
            lambda t: t.rename(columns=lambda c: c.replace("DNA", "CorrBlue").replace("_Nuclei", "_FilteredNuclei")),
        )
    (lab / "LAB1_Nuclei.csv").rename(lab / "LAB1_FilteredNuclei.csv")
    result = compare_tables(plate, lab)
    assert result.sets_lacking == ["FilteredNuclei"]
    assert "Texture_Variance_CorrBlue_5_03_256" in result.lacking["Cells"]
    result = compare_tables(plate, lab, {"FilteredNuclei": "Nuclei", "CorrBlue": "DNA"})
    assert result.findings == []
    assert {c.status for c in result.columns} == {"equal"}


def test_a_pair_named_the_other_way_round(plate: StoredPlate, lab: Path) -> None:
    edit(lab, "Cells", lambda t: t.rename(columns={"Correlation_Correlation_DNA_ER": "Correlation_Correlation_ER_DNA"}))
    result = compare_tables(plate, lab)
    assert status(result, "Cells")["Correlation_Correlation_ER_DNA"] == "equal"
    assert (result.lacking, result.besides) == ({}, {})
    assert swapped("Correlation_K_DNA_ER") == ""


def test_folders_of_wells(plate: StoredPlate, lab: Path, tmp_path: Path) -> None:
    """As a cluster leaves them: a folder for each site, with the same prefix and ImageNumber."""
    for number, folder in ((1, "A01-1"), (2, "A01-2"), (3, "B12-1")):
        (tmp_path / "many" / folder).mkdir(parents=True)
        for name in ("Cells", "Nuclei", "Image", "Speckles"):
            table = read_csv(lab / f"LAB1_{name}.csv")
            table[table["ImageNumber"] == number].assign(ImageNumber=1).to_csv(
                tmp_path / "many" / folder / f"{name}.csv", index=False
            )
    (tmp_path / "many" / "A01-1" / "Experiment.csv").write_text("Key,Value\nRun,1\n")
    result = compare_tables(plate, tmp_path / "many")
    assert len(result.sites) == 3
    assert result.findings == []


def test_several_sets_in_one_file(plate: StoredPlate, lab: Path) -> None:
    """ExportToSpreadsheet can put sets side by side, under their names."""
    parts = {n: read_csv(lab / f"LAB1_{n}.csv") for n in ("Cells", "Nuclei")}
    both = parts["Cells"].merge(parts["Nuclei"], on=["ImageNumber", "ObjectNumber"], how="left", suffixes=("", "|"))
    metadata = ["Metadata_Plate", "Metadata_Site", "Metadata_Well"]
    both = both.drop(columns=[*metadata, *(f"{m}|" for m in metadata)])
    first = ["Image" if c == "ImageNumber" else "Nuclei" if c.endswith("|") else "Cells" for c in both.columns]
    lines = [",".join(first), ",".join(c.rstrip("|") for c in both.columns), both.to_csv(index=False, header=False)]
    for name in parts:
        (lab / f"LAB1_{name}.csv").unlink()
    (lab / "LAB1_AllObjects.csv").write_text("\n".join(lines))
    result = compare_tables(plate, lab)
    assert set(result.sets) == {"Cells", "Nuclei", "Speckles"}
    assert result.sets["Cells"].alike == result.sets["Cells"].ours
    assert not [c for c in result.columns if c.status == "differs"]


@pytest.mark.parametrize("form", [{"combined": False}, {"combined": True}, {"combined": False, "view": True}], ids=str)
def test_databases(plate: StoredPlate, lab: Path, tmp_path: Path, form: dict[str, bool]) -> None:
    """A table per set, all in one, or a view of the sets' tables, whose rows are no others."""
    as_database(lab, tmp_path / "lab.db", **form)
    result = compare_tables(plate, tmp_path / "lab.db")
    assert result.findings == []
    assert set(result.sets) == {"Cells", "Nuclei", "Speckles"}
    assert {c.status for c in result.columns} == {"equal"}
    assert len(result.columns) == 25


def test_names_that_a_database_shortens(plate: StoredPlate, lab: Path, tmp_path: Path) -> None:
    as_database(lab, tmp_path / "lab.db", combined=False, longest=33)
    result = compare_tables(plate, tmp_path / "lab.db")
    assert result.findings == []
    assert {c.status for c in result.columns} == {"equal"}
    assert len(result.columns) == 25
    assert any("shortens to 33 characters" in note for note in result.notes)


@pytest.mark.parametrize(
    ("longest", "name", "short"),
    [  # CellProfiler 4.2.8.1's own
        (
            64,
            "FilteredNuclei_Texture_DifferenceVariance_CorrMitochondria_10_03_256",
            "FilteredNuclei_Texture_DifferenceVariance_CorrMitchndr_10_03_256",
        ),
        (30, "FilteredNuclei_Texture_DifferenceVariance_CorrMitochondria_10_03_256", "FilteredNuclei_T_DV__10_03_256"),
        (30, "Cells_Intensity_IntegratedIntensityEdge_Orig-DNA dye", "Cells_Intnsty_IntgrtdIE_O_DNA_"),
        (64, "Nuclei_AreaShape_Area", "Nuclei_AreaShape_Area"),
    ],
)
def test_shortened(longest: int, name: str, short: str) -> None:
    assert shortened(name, longest) == short


def test_cytominer_database(tmp_path: Path) -> None:
    from tests.helpers.plates import write_plate

    write_plate(tmp_path, {"A01": [1, 2], "B03": [1]})
    path = tmp_path / "BR00117010.zarr"
    columns = open_plate(path).columns
    plate = open_plate(path)
    # Cytoplasm has no Parent_ columns here, which our own SQLite asks for, so its tables are written by hand.
    import contextlib
    import sqlite3

    cells = plate.to_pandas()
    images = plate.image_table().assign(ImageNumber=[1, 2, 3], TableNumber=77)
    with contextlib.closing(sqlite3.connect(tmp_path / "backend.sqlite")) as base:
        images.rename(columns=lambda c: f"Image_{c}" if c.startswith("Metadata") else c).to_sql("Image", base, index=False)
        keys = images.set_index(["Metadata_Well", "Metadata_Site"])["ImageNumber"]
        number = [keys[at] for at in zip(cells["Metadata_Well"], cells["Metadata_Site"], strict=True)]
        for name in ("Cells", "Cytoplasm", "Nuclei"):
            own = cells[[c for c in columns if c.startswith(f"{name}_")]]
            own = own.assign(ImageNumber=number, TableNumber=77, ObjectNumber=cells["Metadata_ObjectNumber"])
            own.to_sql(name, base, index=False)
        base.commit()
    result = compare_tables(plate, tmp_path / "backend.sqlite")
    assert not result.findings
    assert all(not s.placed for s in result.sets.values())
    assert sum(c.status == "equal" for c in result.columns) == len(columns) + 1


def bad(text: str):
    return lambda lab: (lab / "LAB1_Image.csv").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lab: shutil.rmtree(lab), "no CellProfiler output"),
        (lambda lab: (lab / "LAB1_Image.csv").unlink(), "no Image.csv"),
        (bad(""), "not a CSV table"),
        (bad("a,b\n1,2\n"), "no column ImageNumber"),
        (bad("ImageNumber,Count_Cells\n1,2\n"), "says no well and site"),
        (bad("ImageNumber,Metadata_Well,Metadata_Site\n1,C05,3\n"), "none of its sites"),
        (bad("ImageNumber,Metadata_Well,Metadata_Site\n1,A01,1\n2,A01,1\n"), "A01 site 1 is there twice"),
        (bad("ImageNumber,Metadata_Well,Metadata_Site,Metadata_Plate\n1,A01,1,P1\n2,A01,2,P2\n"), "has plates P1, P2"),
    ],
)
def test_what_cannot_be_compared_is_said(plate: StoredPlate, lab: Path, spoil, said: str, capsys) -> None:
    spoil(lab)
    assert main([str(plate.path), str(lab)]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_database(plate: StoredPlate, tmp_path: Path, capsys) -> None:
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(tmp_path / "without.sqlite")) as base:
        base.execute("CREATE TABLE MyExpt_Per_Image (Count_Nuclei INTEGER)")
    assert main([str(plate.path), str(tmp_path / "without.sqlite")]) == 2
    assert "MyExpt_Per_Image has no column ImageNumber" in capsys.readouterr().err
    (tmp_path / "x.sqlite").write_bytes(b"no database" * 100)
    assert main([str(plate.path), str(tmp_path / "x.sqlite")]) == 2
    assert "not an SQLite file" in capsys.readouterr().err


def test_the_command(plate: StoredPlate, lab: Path, tmp_path: Path, capsys) -> None:
    at = [str(plate.path), str(lab), "--output", str(tmp_path / "pages")]
    assert main(at) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 11
    assert lines[2] == "columns: 25 of 25 equal, 0 within tolerance, 0 differ"
    edit(lab, "Cells", lambda t: t.assign(AreaShape_Orientation=1.0, **{"Texture_<b>_DNA": 1.0}))
    assert main(at) == 3
    record = json.loads((tmp_path / "pages" / "LAB1_compare.json").read_text())
    (wrong,) = [c for c in record["columns"] if c["status"] == "differs"]
    assert (wrong["table"], wrong["column"]) == ("Cells", "AreaShape_Orientation")
    page = (tmp_path / "pages" / "LAB1_compare.html").read_text()
    assert "AreaShape_Orientation" in page
    assert "Texture_&lt;b&gt;_DNA" in page
    assert "Texture_<b>_DNA" not in page
    assert main([*at, "--names", "A"]) == 2


def test_ten_lines_at_most(plate: StoredPlate, lab: Path) -> None:
    for name in ("Cells", "Nuclei", "Speckles"):
        more = {f"Texture_{name}_{i}": 1.0 for i in range(3)}
        edit(lab, name, lambda t, more=more: t.drop(index=[0]).assign(**more))
    for name in ("More", "Others", "Third", "Fourth"):
        shutil.copy(lab / "LAB1_Speckles.csv", lab / f"LAB1_{name}.csv")
    result = compare_tables(plate, lab)
    assert len(result.findings) > 6
    assert len(summary(result)) <= 10
    assert "more findings" in "\n".join(summary(result))


def test_ties() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:5, 2:5] = 1  # one middle
    labels[2:6, 10:13] = 2  # two
    labels[0:2, 20:23] = 3  # at the border, which is no edge
    assert tied(labels) == {2}


@pytest.mark.parametrize("preset", ["cpjump1"])
def test_beside_cellprofilers_own_tables_of_real_fields(preset: str, shared: Path, tmp_path: Path) -> None:
    """A well of the real plate, from its raw images on: every column that both have is within tolerance."""
    from jumpgpu.extract import main as extract

    (tmp_path / "illum").mkdir()
    for channel in ("DNA", "ER", "RNA", "AGP", "Mito"):
        flat = np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz")["illum"]
        np.save(tmp_path / f"illum/BR00117010_Illum{channel}.npy", flat)
    at = ["--plate", "BR00117010", "--images", str(shared / "data/fields"), "--wells", "D14", "--illumination"]
    assert (
        extract([*at, str(tmp_path / "illum"), "--device", "cpu", "--save-labels", "--quiet", "--output", str(tmp_path)])
        == 0
    )
    (tmp_path / "lab").mkdir()
    image = pd.read_parquet(shared / "data/cellprofiler/Image.parquet")
    image[image["Metadata_Well"] == "D14"].to_csv(tmp_path / "lab/MyExpt_Image.csv", index=False)
    number = image.set_index("Metadata_Well")["ImageNumber"]["D14"]
    for name in ("Nuclei", "Cells", "Cytoplasm"):
        table = pd.read_parquet(shared / f"data/cellprofiler/{name}.parquet")
        table[table["Metadata_Well"] == "D14"].assign(ImageNumber=number).to_csv(
            tmp_path / f"lab/MyExpt_{name}.csv", index=False
        )
    result = compare_tables(open_plate(tmp_path / "BR00117010.zarr"), tmp_path / "lab")
    assert not [c for c in result.columns if c.status == "differs"]
    assert sum(c.status == "equal" for c in result.columns) > 3450
    assert all(s.alike == s.ours == s.theirs > 80 for s in result.sets.values())
    assert result.lacking["Cells"] == ["AreaShape_ConvexArea"]
