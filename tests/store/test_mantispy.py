"""What mantispy (scverse's profiling on AnnData) reads in our objects: its schema 2.0, by itself where it is installed."""

import anndata
import numpy as np
import pandas as pd
import pytest

import jumpgpu
from jumpgpu.outputs.export import export
from jumpgpu.profiles.files import write_anndata
from jumpgpu.store.annotation import PARSED, schema_variables
from tests.helpers.plates import write_plate

FIVE = ["AGP", "DNA", "ER", "Mito", "RNA"]
NUMBERS = "ClosestObjectNumber"  # a neighbour's number: a measurement to mantispy 0.1, none to us


def read(shared, columns="columns.txt"):
    names = (shared / "spec" / columns).read_text().split()
    channels = FIVE if columns == "columns.txt" else [*FIVE, "Brightfield", "HighZBF", "LowZBF"]
    return names, channels, pd.DataFrame(schema_variables(names, channels), index=names)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("Cells_Texture_Variance_DNA_5_03_256", ("DNA", "Variance", 3, 256, "", "5_03_256", True, "measurement")),
        ("Cells_Granularity_7_ER", ("ER", "Granularity", None, None, "", "7", True, "measurement")),
        ("Cells_RadialDistribution_FracAtD_AGP_2of4", ("AGP", "FracAtD", None, None, "2of4", "", True, "measurement")),
        ("Nuclei_AreaShape_Zernike_9_1", ("", "Zernike", None, None, "", "9_1", True, "measurement")),
        ("Nuclei_Correlation_RWC_ER_RNA", ("ER|RNA", "RWC", None, None, "", "", True, "measurement")),
        ("Cells_Location_CenterMassIntensity_X_Mito", ("Mito", "", None, None, "", "", False, "")),
        ("Nuclei_AreaShape_BoundingBoxMinimum_X", ("", "", None, None, "", "", False, "")),
        ("Nuclei_AreaShape_BoundingBoxArea", ("", "BoundingBoxArea", None, None, "", "", True, "measurement")),
        ("Cells_Neighbors_FirstClosestObjectNumber_5", ("", "", None, None, "", "", False, "")),
        ("Cells_Embedding_net_DNA_0001", ("", "net_DNA_0001", None, None, "", "", True, "embedding")),
    ],
)
def test_names_are_parsed(column, words):
    row = pd.DataFrame(schema_variables([column], FIVE)).iloc[0]
    assert (row["object"], row["feature_group"]) == tuple(column.split("_")[:2])
    told = row[["channel", *PARSED]].astype(object)
    assert tuple(told.where(told.notna(), None)) == words


@pytest.mark.parametrize("columns", ["columns.txt", "columns_8_channels.txt"])
def test_no_two_features_are_described_alike(shared, columns):
    table = read(shared, columns)[2]
    measured = table[table.is_feature]
    assert not measured.duplicated(["object", "feature_group", "feature", "channel", "params", "radial_bin"]).any()
    assert set(table.feature_group[~table.is_feature]) == {
        "AreaShape",
        "Location",
        "Neighbors",
        "Number",
        "Children",
        "Parent",
    }


@pytest.mark.parametrize("columns", ["columns.txt", "columns_8_channels.txt"])
def test_names_are_parsed_as_mantispy_does(shared, columns):
    pytest.importorskip("mantispy", reason="no mantispy, which needs Python 3.12")
    from mantispy._core.features import parse_feature_names

    names, channels, ours = read(shared, columns)
    theirs = parse_feature_names(names, channels)
    same = ~ours.index.str.contains(NUMBERS)
    assert same.sum() == len(names) - 6
    for field in ("object", "feature_group", *PARSED):
        a, b = ours[field].astype(object)[same], theirs[field].astype(object)[same]
        assert a.where(a.notna(), "").tolist() == b.where(b.notna(), "").tolist(), field
    measured = theirs.is_feature & same
    assert ours.channel[measured].tolist() == theirs.channel[measured].astype(object).fillna("").tolist()


def test_mantispy_reads_an_exported_plate(tmp_path):
    mt = pytest.importorskip("mantispy", reason="no mantispy, which needs Python 3.12")
    write_plate(tmp_path, {"A01": [1, 2], "B02": [1]})
    plate = jumpgpu.open_plate(tmp_path / "BR00117010")
    assert str(mt.io.validate(plate.to_anndata())) == "valid"
    export(plate, tmp_path / "cells.h5ad")
    cells = mt.io.read(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(cells.X, plate.to_pandas()[plate.columns])
    texture = mt.get.features(cells, feature_group="Texture", channel="DNA")
    assert texture == [c for c in plate.columns if "_Texture_" in c and "_DNA_" in c]
    mt.pp.standardize_feature_names(cells)
    assert cells.var["original_name"].tolist() == plate.columns
    wells = mt.tl.aggregate(cells, by=["Metadata_Plate", "Metadata_Well"], min_cells=1)
    assert wells.obs["Metadata_Well"].tolist() == ["A01", "B02"]


def test_mantispy_takes_profiles(tmp_path):
    mt = pytest.importorskip("mantispy", reason="no mantispy, which needs Python 3.12")
    wells = {"Metadata_Plate": ["P", "P"], "Metadata_Well": ["A01", "A02"]}
    table = pd.DataFrame(wells | {"Cells_AreaShape_Area": [1.0, 2.0], "Nuclei_Correlation_K_DNA_RNA": [0.5, 0.25]})
    write_anndata(table, tmp_path / "p.h5ad")
    data = anndata.read_h5ad(tmp_path / "p.h5ad")
    data.X = data.X.astype(np.float32)
    mt.io.stamp(data, "well")
    assert mt.io.validate(data).ok
    assert mt.get.features(data, channel="RNA") == ["Nuclei_Correlation_K_DNA_RNA"]
