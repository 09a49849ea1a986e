"""What a plate's tables hold beside cells: the Image table, object sets of a lab's own, embeddings, AnnData's fields."""

import contextlib
import json
import shutil
import sqlite3
import zipfile
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from pycytominer.cyto_utils import load_profiles

import jumpgpu
from jumpgpu.columns import explain
from jumpgpu.export import main as export_command
from jumpgpu.outputs.export import export
from jumpgpu.profile import main as profile
from jumpgpu.report import main as report
from jumpgpu.settings.names import family_of, split_name, stored_order
from jumpgpu.store.annotation import variables
from jumpgpu.store.layout import Layout, ObjectTable, SiteTable
from jumpgpu.store.writer import PlateWriter
from tests.helpers.plates import CHANNELS, SETTINGS, contents, write_plate

OLD = Path(__file__).with_name("plate_of_format_1.zip")
IMAGE = ["Image_ImageQuality_FocusScore_DNA", "Image_Texture_Variance_ER_3_00_256", "Image_Count_Speckles"]
SPECKLES = ["Speckles_AreaShape_Area", "Speckles_Parent_FilteredNuclei"]
CELLS = [
    "Cells_Location_Center_X",
    "Cells_Location_Center_Y",
    "Cells_Embedding_net_DNA_0001",
    "Cells_Embedding_net_DNA_0002",
    "FilteredNuclei_AreaShape_Area",
    "FilteredNuclei_Correlation_Manders_DNA_ER",
]
WELLS = {"A01": [1, 2], "B10": [1], "C03": [4]}


def site_of(well, site, n_speckles=None):
    rng = np.random.default_rng([ord(well[0]), site])
    n = 0 if well == "C03" else int(rng.integers(3, 7))
    k = 2 * n if n_speckles is None else n_speckles
    return SiteTable(
        well,
        site,
        numbers=np.arange(1, n + 1) * (1 if well == "A01" else 2),  # of B10, as masks may have them
        values=rng.uniform(1, 99, (n, len(CELLS))),
        labels={"FilteredNuclei": rng.integers(0, n + 1, (8, 9), dtype=np.int32), "Cells": np.zeros((8, 9), np.int32)},
        image=rng.uniform(size=3) / 3,
        objects={"Speckles": ObjectTable(np.arange(1, k + 1), rng.uniform(size=(k, 2)))},
        position_um=(12.5 * site, -650.0),
    )


def write(output, wells=WELLS, plate="DEMO", pixel_size_um=0.5):
    layout = Layout(
        plate, CELLS, CHANNELS, pixel_size_um, IMAGE, {"jumpgpu": "1.2", "kernels": "ab"}, {"Speckles": SPECKLES}
    )
    with PlateWriter(output, layout, SETTINGS, wells) as writer:
        for well in writer.missing_wells():
            for site in wells[well]:
                writer.append(site_of(well, site))
    return jumpgpu.open_plate(output / plate)


@pytest.fixture
def plate(tmp_path):
    return write(tmp_path)


def test_the_image_table_has_a_row_per_site(plate):
    table = plate.image_table()
    assert list(table.columns) == ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Image_Count_Cells", *IMAGE]
    assert [*zip(table.Metadata_Well, table.Metadata_Site, strict=True)] == [("A01", 1), ("A01", 2), ("B10", 1), ("C03", 4)]
    for row in table.itertuples(index=False):
        drawn = site_of(row.Metadata_Well, row.Metadata_Site)
        assert row.Image_Count_Cells == len(drawn.numbers)
        np.testing.assert_array_equal(row[4:], drawn.image)  # float64, to the last bit
    assert plate.image_table(["B10"])[IMAGE].to_numpy().tolist() == [site_of("B10", 1).image.tolist()]
    assert list(plate.image_quality().columns[3:]) == IMAGE[:1]
    whole = anndata.read_zarr(plate.path / "tables" / "image")
    np.testing.assert_array_equal(whole.X, table.iloc[:, 3:].to_numpy())
    assert list(whole.var_names) == list(table.columns[3:])
    assert whole.obs["Metadata_Site"].tolist() == [1, 2, 1, 4]
    assert plate.verify() == []


def test_a_plate_without_image_measures_has_its_counts(tmp_path):
    write_plate(tmp_path, {"A02": [2, 1], "B10": [1]})
    plate = jumpgpu.open_plate(tmp_path / "BR00117010")
    table = plate.image_table()
    assert list(table.columns[3:]) == ["Image_Count_Cells"]
    counts = plate.to_pandas().groupby(["Metadata_Well", "Metadata_Site"]).size()
    assert table.set_index(["Metadata_Well", "Metadata_Site"])["Image_Count_Cells"].to_dict() == counts.to_dict()
    with pytest.raises(ValueError, match="has no image quality"):
        plate.image_quality()


def test_the_plates_image_table_is_brought_up_to_date_and_checked(tmp_path):
    write(tmp_path, {"A01": [1, 2]})
    first = contents(tmp_path / "DEMO.zarr" / "tables")
    plate = write(tmp_path)
    assert contents(plate.path / "tables") != first
    once = contents(plate.path)
    shutil.rmtree(tmp_path / "DEMO.zarr")
    assert contents(write(tmp_path).path) == once, "a plate gone on with has the bytes of one made at once"
    for name in ("image/X/c.0.0", "image/var/zarr.json", "zarr.json"):
        path, whole = plate.path / "tables" / name, (plate.path / "tables" / name).read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        assert plate.verify(), name
        path.write_bytes(whole)
    (plate.path / "tables" / "extra").write_text("x")
    assert plate.verify() == ["DEMO: tables/extra is of no well"]


def test_a_wells_image_rows_are_checked_against_its_record(plate):
    path = plate.path / "A" / "01" / "tables" / "image" / "c.0.0"
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(
        ValueError, match=r"A01.*tables/image.* is not as it was written|tables/image.c.0.0 is not as it was"
    ):
        plate.image_table()
    assert plate.verify()


def test_object_sets_with_rows_of_their_own(plate):
    assert plate.objects == ("Speckles",)
    assert plate.columns_of("Speckles") == SPECKLES
    table = plate.to_pandas(objects="Speckles")
    assert list(table.columns[4:]) == SPECKLES
    for (well, site), rows in table.groupby(["Metadata_Well", "Metadata_Site"]):
        drawn = site_of(well, site).objects["Speckles"]
        np.testing.assert_array_equal(rows[SPECKLES].to_numpy(), drawn.values.astype(np.float32))
        np.testing.assert_array_equal(rows.Metadata_ObjectNumber, drawn.numbers)
    area = plate.to_pandas(["B10"], ["AreaShape"], "Speckles")
    assert list(area.columns[4:]) == SPECKLES[:1]
    assert plate.to_polars(columns=SPECKLES[1:], objects="Speckles").height == len(table)
    assert plate.to_anndata(objects="Speckles").shape == (len(table), 2)
    with pytest.raises(ValueError, match="DEMO has no rows of objects 'Golgi'; it has Speckles"):
        plate.to_pandas(objects="Golgi")
    assert sorted(plate.labels("A01", 1)) == ["Cells", "FilteredNuclei"]
    np.testing.assert_array_equal(plate.labels("A01", 1)["FilteredNuclei"], site_of("A01", 1).labels["FilteredNuclei"])
    assert plate.record("A01")["sites"][1]["position_um"] == [25.0, -650.0]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ({"cells": ["x"]}, "cannot be called 'cells'"),
        ({"Image": ["x"]}, "cannot be called 'Image'"),
        ({"a b": ["x"]}, "'a b' names no object set"),
        ({"../x": ["x"]}, "names no object set"),
        ({"Foci": ["x"], "foci": ["y"]}, "'Foci' and 'foci' differ only in case"),
        ({"Foci": ["x", "x"]}, "column 'x' is there twice in the table 'Foci'"),
    ],
)
def test_object_sets_that_a_store_cannot_keep_apart_are_refused(objects, words):
    with pytest.raises(ValueError, match=words):
        Layout("DEMO", CELLS, CHANNELS, objects=objects)


def test_rows_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    layout = Layout("DEMO", CELLS, CHANNELS, image=IMAGE, objects={"Speckles": SPECKLES})
    with PlateWriter(tmp_path, layout, SETTINGS, {"A01": [1]}) as writer:
        good = site_of("A01", 1)
        for change, words in (
            ({"image": np.zeros(2)}, "DEMO A01 site 1: 2 values for 3 columns of images"),
            (
                {"objects": {"Golgi": good.objects["Speckles"]}},
                "DEMO A01 site 1: object set 'Golgi' is not among the plate's",
            ),
            ({"objects": {"Speckles": ObjectTable(np.arange(3), np.zeros((2, 2)))}}, "table of Speckles is"),
        ):
            with pytest.raises(ValueError, match=words):
                writer.append(SiteTable(**{**vars(good), **change}))
        assert writer.append(SiteTable("A01", 1, good.numbers, good.values))  # neither image measures nor speckles
    plate = jumpgpu.open_plate(tmp_path / "DEMO")
    assert plate.image_table()[IMAGE].isna().all(axis=None)
    assert plate.to_pandas(objects="Speckles").empty
    assert plate.verify() == []
    with pytest.raises(ValueError, match="columns of Speckles: stored others"):
        PlateWriter(
            tmp_path, Layout("DEMO", CELLS, CHANNELS, image=IMAGE, objects={"Speckles": ["x"]}), SETTINGS, {"A02": [1]}
        )


def test_a_few_columns_are_read_without_the_others(tmp_path, monkeypatch):
    columns = [f"Cells_Texture_Variance_DNA_{i}_00_256" for i in range(1, 401)]
    layout = Layout("WIDE", columns, CHANNELS)
    values = np.random.default_rng(3).normal(size=(50, 400)).astype(np.float32)
    with PlateWriter(tmp_path, layout, SETTINGS, {"A01": [1], "A02": [1]}) as writer:
        for well in ("A01", "A02"):
            writer.append(SiteTable(well, 1, np.arange(1, 51), values))
    plate, read = jumpgpu.open_plate(tmp_path / "WIDE"), []
    real = jumpgpu.store.plate_tables.read_ranges
    monkeypatch.setattr("jumpgpu.store.plate_tables.read_ranges", lambda *given: read.append(given) or real(*given))
    asked = [columns[399], columns[0], columns[17], columns[16]]
    result = plate.to_pandas(columns=asked)
    np.testing.assert_array_equal(result[asked].to_numpy(), np.concatenate([values, values])[:, [399, 0, 17, 16]])
    whole = plate.path / "A/01/tables/cells/X/c.0.0"
    assert [len(ranges) for *_, ranges in read] == [3, 3]
    assert sum(n for _, n in read[0][3]) < 0.13 * whole.stat().st_size
    part = plate.to_anndata(columns=asked[1:3])
    np.testing.assert_array_equal(part.to_memory().X, result[asked[1:3]].to_numpy())
    data = bytearray(whole.read_bytes())
    data[read[0][3][0][0] + 40] ^= 1
    whole.write_bytes(data)
    with pytest.raises(ValueError, match=r"WIDE A01: tables/cells/X/c\.0\.0 is not as it was written \(columns 0 to 15\)"):
        plate.to_pandas(columns=asked)
    np.testing.assert_array_equal(plate.to_pandas(columns=[columns[399]]).iloc[:50, 4], values[:, 399])


def test_names_say_what_var_holds(shared):
    columns = (shared / "spec" / "columns.txt").read_text().split()
    table = pd.DataFrame(variables(columns, ["AGP", "DNA", "ER", "Mito", "RNA"]), index=columns)
    names = {"AGP": "agp", "DNA": "dna", "ER": "er", "Mito": "mito", "RNA": "rna"}
    for column, row in table.iterrows():  # cell-painting-io's rule: words of the name that are channels, in their order
        words = [word for word in column.split("_") if word in names]
        assert [row.channel, row.channel_2, row.n_channels] == [*[*words[:2], "", ""][:2], len(words)], column
        assert [row.compartment, row.family] == column.split("_")[:2]
        unit = explain(column).unit  # the glossary's
        wanted = {"pixels squared": "pixels^2", "intensity, 0..1 of the camera's range": "intensity", "none": ""}.get(
            unit, unit
        )
        assert row.unit == ("" if wanted.startswith("none") else wanted), column
    assert set(table.feature_type) == {"shape", "intensity", "correlation", "texture", "granularity", "categorical"}
    own = ["My_Nuclei_Intensity_MeanIntensity_OrigDNA", "Cells_Embedding_DNA_net_0001", "Nuclei_AreaShape_SpatialMoment_2_1"]
    table = pd.DataFrame(variables(own, ["OrigDNA", "DNA"]), index=own)
    assert table.compartment.tolist() == ["My_Nuclei", "Cells", "Nuclei"]
    assert table.family.tolist() == ["Intensity", "Embedding", "AreaShape"]
    assert table.channel.tolist() == ["OrigDNA", "", ""]
    assert table.unit.tolist() == ["intensity", "", "pixels^3"]
    assert split_name("Cells") == ("Cells", "Cells", "")
    assert family_of("Cells_Embedding_net_0001") == "Embedding"
    assert stored_order(["B_Texture_x", "A_Embedding_n_0001", "A_Texture_x", "A_AreaShape_Area"]) == [3, 2, 1, 0]


def test_anndata_has_the_fields_of_the_drafts(plate, tmp_path):
    wells = pd.DataFrame({"Metadata_Plate": "DEMO", "Metadata_Well": ["B10", "A01"], "Metadata_broad_sample": ["X", None]})
    output = plate.to_anndata(annotation=wells)
    cells = plate.to_pandas()
    known = ["Metadata_ImageID", "Metadata_ObjectType"]
    assert list(output.obs.columns) == [*cells.columns[:4], *known, "Metadata_broad_sample"]
    assert output.obs[known].iloc[0].tolist() == ["DEMO|A01|1", "Cells"]
    assert not output.obs[["Metadata_ImageID", "Metadata_ObjectNumber"]].duplicated().any()
    assert output.obs["Metadata_broad_sample"].isna().tolist() == (cells.Metadata_Well != "B10").tolist()
    pixels = cells[CELLS[:2]].to_numpy(np.float64)
    np.testing.assert_array_equal(output.obsm["spatial_pixels"], pixels)
    np.testing.assert_array_equal(output.obsm["spatial"], pixels * 0.5)
    told = output.var.loc[CELLS[5]].astype(object)
    words = told.where(told.notna(), "").to_dict()
    assert words == {
        "compartment": "FilteredNuclei",
        "family": "Correlation",
        "channel": "DNA|ER",
        "channel_2": "ER",
        "n_channels": 2,
        "scale": "",
        "unit": "",
        "feature_type": "correlation",
        "object": "FilteredNuclei",
        "feature_group": "Correlation",
        "feature": CELLS[5].split("_")[2],
        "angle": "",
        "gray_levels": "",
        "radial_bin": "",
        "params": "",
        "is_feature": True,
        "feature_kind": "measurement",
    }
    assert output.var["is_feature"].tolist() == ["_Location_" not in c and "_Number_" not in c for c in CELLS]
    assert output.uns["mantispy"]["resolution"] == "object"
    assert output.var["channel"].dtype == "category"
    assert output.var["channel"].isna().tolist() == [True, True, True, True, True, False]
    told = output.uns["jumpgpu"]
    assert [told["plate"], told["pixel_size_um"], told["spatial_unit"], told["made_with"]["jumpgpu"]] == [
        "DEMO",
        0.5,
        "um",
        "1.2",
    ]
    assert json.loads(told["settings"]) == SETTINGS
    assert output.uns["feature_extraction_provenance"] == {"tool": "jumpgpu", "version": "1.2"}
    assert output.uns["processing_stage"] == "raw"
    export(plate, tmp_path / "cells.h5ad", annotation=wells)
    back = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(back.obsm["spatial"], output.obsm["spatial"])
    np.testing.assert_array_equal(back.X, cells[CELLS].to_numpy())
    assert back.var["n_channels"].tolist() == [0, 0, 0, 0, 0, 2]
    assert back.uns["jumpgpu"]["channels"].tolist() == list(CHANNELS)
    assert back.uns["image_provenance"]["channels"].tolist() == list(CHANNELS)
    assert back.uns["segmentation_provenance"]["method"] == output.uns["segmentation_provenance"]["method"]
    back.obs_names = [str(i) for i in range(len(back))]  # pycytominer's reader makes whole numbers of them
    back.write_h5ad(tmp_path / "numbered.h5ad")
    theirs = load_profiles(str(tmp_path / "numbered.h5ad"))
    assert [c for c in theirs.columns if not c.startswith("Metadata_")] == CELLS
    np.testing.assert_array_equal(theirs[CELLS].to_numpy(np.float32), cells[CELLS].to_numpy())
    part = plate.to_anndata(columns=CELLS[4:])
    np.testing.assert_array_equal(part.obsm["spatial_pixels"], pixels, "places come though their columns are not asked for")
    for wrong, words in (
        (wells.drop(columns="Metadata_Well"), "no column Metadata_Well"),
        (pd.concat([wells, wells]), "has well B10 twice"),
    ):
        with pytest.raises(ValueError, match=words):
            plate.to_anndata(annotation=wrong)


def test_without_a_pixel_size_places_are_in_pixels(tmp_path):
    output = write(tmp_path, pixel_size_um=None).to_anndata()
    np.testing.assert_array_equal(output.obsm["spatial"], output.obsm["spatial_pixels"])
    assert output.uns["jumpgpu"]["spatial_unit"] == "pixel"
    write_plate(tmp_path, {"A01": [1]})
    assert "spatial" not in jumpgpu.open_plate(tmp_path / "BR00117010").to_anndata().obsm


def test_tables_are_exported(plate, tmp_path):
    image, speckles = plate.image_table(), plate.to_pandas(objects="Speckles")
    for format, read in (("parquet", pd.read_parquet), ("csv", pd.read_csv)):
        for objects, table in (("Image", image), ("Speckles", speckles)):
            arguments = [str(plate.path), "--format", format, "--output", str(tmp_path), "--quiet", "--objects", objects]
            assert export_command(arguments) == 0
            result = read(tmp_path / f"DEMO_{objects}.{format}")
            pd.testing.assert_frame_equal(result, table, check_dtype=False, check_exact=format == "parquet")
    export(plate, tmp_path / "i.h5ad", objects="Image")
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "i.h5ad").X, image.iloc[:, 3:].to_numpy())
    export(plate, tmp_path / "all.sqlite")
    with contextlib.closing(sqlite3.connect(tmp_path / "all.sqlite")) as base:
        result = pd.read_sql("select * from Image", base)
        np.testing.assert_array_equal(result[["Image_Count_Cells", *IMAGE]].to_numpy(), image.iloc[:, 3:].to_numpy())
        assert len(result) == 4, "a site without cells has its row"
        joined = pd.read_sql(f"select ImageNumber, ObjectNumber, {', '.join(SPECKLES)} from Speckles", base)
        np.testing.assert_array_equal(joined[SPECKLES].to_numpy(np.float32), speckles[SPECKLES].to_numpy())
        cells = pd.read_sql("select * from FilteredNuclei", base)
        np.testing.assert_array_equal(cells[CELLS[4]].to_numpy(np.float32), plate.to_pandas()[CELLS[4]])
    for wrong, words in (
        ({"objects": "Golgi"}, "no rows of objects"),
        ({"objects": "Image", "columns": ["x"]}, "no image column"),
    ):
        with pytest.raises(ValueError, match=words):
            export(plate, tmp_path / "no.csv", **wrong)


def test_treatments_come_with_the_rows(plate, tmp_path, capsys):
    (tmp_path / "map.txt").write_text("well_position\tbroad_sample\nA01\tBRD-1\nB10\t\nC03\tBRD-2\n")
    arguments = [str(plate.path), "--platemap", str(tmp_path / "map.txt"), "--output", str(tmp_path), "--quiet"]
    assert export_command(arguments) == 0
    result = pd.read_parquet(tmp_path / "DEMO.parquet")
    assert set(result.loc[result.Metadata_Well == "A01", "Metadata_broad_sample"]) == {"BRD-1"}
    assert result.loc[result.Metadata_Well == "B10", "Metadata_broad_sample"].isna().all()
    assert export_command([*arguments, "--format", "h5ad"]) == 0
    assert "Metadata_broad_sample" in anndata.read_h5ad(tmp_path / "DEMO.h5ad").obs
    assert export_command([*arguments, "--format", "sqlite"]) == 2
    assert "no plate map" in capsys.readouterr().err
    assert export_command([*arguments[:1], "--treatments", "x.tsv", "--output", str(tmp_path)]) == 2


def test_embeddings_and_own_names_pass_through_profile_and_report(tmp_path):
    wells = {f"{row}{column:02d}": [1] for row in "ABCD" for column in range(1, 7)}
    write(tmp_path, wells, "P1")
    (tmp_path / "map.txt").write_text(
        "well_position\tbroad_sample\n" + "".join(f"{w}\t{'' if i % 3 else 'X'}\n" for i, w in enumerate(wells))
    )
    assert (
        profile(["--plate", "P1", "--output", str(tmp_path), "--platemap", str(tmp_path / "map.txt"), "--reference", "all"])
        == 0
    )
    output = pd.read_parquet(tmp_path / "profiles/P1/P1.parquet")
    assert list(output.columns[4:]) == CELLS
    cells = jumpgpu.open_plate(tmp_path / "P1").to_pandas(["A01"])
    np.testing.assert_allclose(
        output.loc[output.Metadata_Well == "A01", CELLS].to_numpy()[0], cells[CELLS].mean(), rtol=1e-6
    )
    normalized = pd.read_parquet(tmp_path / "profiles/P1/P1_normalized.parquet")
    assert {c for c in normalized.columns if "Embedding" in c} == set(CELLS[2:4])
    assert report([str(tmp_path / "P1.zarr")]) == 0
    assert "Cells_Embedding_net_DNA_0001" in (tmp_path / "P1.html").read_text()


def test_plates_of_format_1_are_exported_and_profiled(tmp_path):
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(tmp_path)
    plate = jumpgpu.open_plate(tmp_path / "DEMO")
    assert plate.record("A01")["format"] == 1
    table = plate.image_table()
    assert table["Image_Count_Cells"].tolist() == [4, 4]
    np.testing.assert_array_equal(table.iloc[:, 4:], plate.image_quality().iloc[:, 3:])
    cells = plate.to_pandas()
    few = [plate.columns[5], plate.columns[0]]
    pd.testing.assert_frame_equal(plate.to_pandas(columns=few)[few], cells[few])
    export(plate, tmp_path / "c.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "c.parquet"), cells)
    export(plate, tmp_path / "i.csv", objects="Image")
    assert pd.read_csv(tmp_path / "i.csv").shape == table.shape
    export(plate, tmp_path / "c.h5ad")
    back = anndata.read_h5ad(tmp_path / "c.h5ad")
    np.testing.assert_array_equal(back.obsm["spatial_pixels"], cells[["Cells_Location_Center_X", "Cells_Location_Center_Y"]])
    output = jumpgpu.profiles.aggregate.aggregate(plate)
    np.testing.assert_allclose(output[few].to_numpy()[0], cells[few].mean(), rtol=1e-6)
    assert report([str(tmp_path / "DEMO.zarr")]) == 0
