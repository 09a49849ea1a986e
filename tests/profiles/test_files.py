"""Profile files of anyone: text identities, features by pycytominer's rule, nulls, refusals that name file and column."""

import gzip

import anndata
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycytominer.cyto_utils import infer_cp_features

from jumpgpu.profiles.design_checks import treated_wells
from jumpgpu.profiles.files import read_profiles, write_anndata, write_table
from jumpgpu.profiles.normalize import normalize
from jumpgpu.profiles.platemap import feature_columns, feature_findings, is_negcon, mark_controls
from jumpgpu.profiles.recipe import NormalizeSettings, load_recipe
from jumpgpu.scores.common import concatenate

TABLE = pd.DataFrame(
    {
        "Metadata_Plate": ["0012345"] * 3,
        "Metadata_Well": ["a1", "A2", "A003"],
        "Metadata_broad_sample": ["NA", "007", ""],
        "ImageNumber": [1, 2, 3],
        "Count_Cells": [10, 20, 30],
        "Cells_AreaShape_Area": [1.5, np.nan, 2.5],
        "Cytoplasm_x": [1, 2, 3],
        "Nuclei_y": [0.1, 0.2, 0.3],
        "efficientnet_1": [0.4, 0.5, 0.6],
    }
)
FEATURES = ["Cells_AreaShape_Area", "Cytoplasm_x", "Nuclei_y"]


def written(table, path):
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.parquet", "ours.parquet"])
def test_identities_are_text_and_features_pycytominers(tmp_path, name):
    path = tmp_path / name
    if name.startswith("ours"):
        write_table(TABLE, path)
    else:
        written(TABLE, path)
    table = read_profiles(path)
    assert table["Metadata_Plate"].tolist() == ["0012345"] * 3
    assert table["Metadata_Well"].tolist() == ["A01", "A02", "A03"]
    assert table["Metadata_broad_sample"].tolist()[:2] == ["NA", "007"]
    assert treated_wells(table).tolist() == [True, True, False]
    assert feature_columns(table) == FEATURES == infer_cp_features(TABLE)
    np.testing.assert_array_equal(table[FEATURES].to_numpy(float), TABLE[FEATURES].to_numpy(float))
    assert list(table) == list(TABLE)


@pytest.mark.parametrize("plate", [12345, 12345.0, pd.Categorical(["12345"] * 3), "12345 "])
def test_a_plate_that_is_a_number_or_a_category_is_text(tmp_path, plate):
    assert (
        read_profiles(written(TABLE.assign(Metadata_Plate=plate), tmp_path / "p.parquet"))["Metadata_Plate"].tolist()
        == ["12345"] * 3
    )


def test_pandas_own_index_and_extension_types_are_no_matter(tmp_path):
    table = TABLE.astype({"Cytoplasm_x": "Int64", "Cells_AreaShape_Area": "Float64", "Nuclei_y": object})
    table.set_index("Metadata_Well").to_parquet(tmp_path / "p.parquet")
    result = read_profiles(tmp_path / "p.parquet")
    assert feature_columns(result) == FEATURES
    np.testing.assert_array_equal(result[FEATURES].to_numpy(float), TABLE[FEATURES].to_numpy(float))
    assert result["Metadata_Well"].tolist() == ["A01", "A02", "A03"]
    TABLE.to_csv(tmp_path / "p.csv")  # with row numbers
    assert list(read_profiles(tmp_path / "p.csv")) == list(TABLE)


def test_other_columns_are_features_only_if_asked_for(tmp_path):
    path = written(TABLE, tmp_path / "p.csv")
    assert feature_findings(read_profiles(path)) == [
        "3 numeric columns are not features: ImageNumber, Count_Cells, efficientnet_1 (--features takes them)"
    ]
    also = ["efficientnet_*"]
    table = read_profiles(path, also)
    assert feature_columns(table, also) == [*FEATURES, "efficientnet_1"]
    assert feature_findings(table, also) == [
        "1 columns are features by --features: efficientnet_1",
        "2 numeric columns are not features: ImageNumber, Count_Cells (--features takes them)",
    ]
    with pytest.raises(ValueError, match=r"--features vgg_\*: no numeric column of that name"):
        feature_findings(table, ["vgg_*"])
    assert feature_columns(concatenate([table, table], also), also) == [*FEATURES, "efficientnet_1"]
    assert "ImageNumber" not in concatenate([table, table], also)
    scaled, _ = normalize(table, "all", NormalizeSettings(), also)
    assert scaled["efficientnet_1"].tolist() == pytest.approx([-1 / 1.4826, 0, 1 / 1.4826])
    assert scaled["ImageNumber"].tolist() == [1, 2, 3]
    write_anndata(table, tmp_path / "p.h5ad", also, "normalized")
    back = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert list(back.var_names) == [*FEATURES, "efficientnet_1"]
    assert back.uns["processing_stage"] == "normalized"


def test_missing_values_are_null_in_parquet(tmp_path):
    """A SQL engine leaves null out of a mean; NaN would be the mean."""
    wells = [f"A{k + 1:02d}" for k in range(4)]
    table = pd.DataFrame(
        {"Metadata_Plate": "P", "Metadata_Well": wells, "Metadata_dose": [1.0, np.nan, 3.0, np.nan]}
    ).assign(Cells_a=[1.0, np.nan, 3.0, np.nan], Cells_b=np.array([1, np.nan, 2, np.inf], np.float32), other=[np.nan] * 4)
    write_table(table, tmp_path / "p.parquet")
    engine = polars.SQLContext(p=polars.read_parquet(tmp_path / "p.parquet"), eager=True)
    means = engine.execute("select avg(Cells_a) a, avg(Metadata_dose) d, count(Cells_b) b, count(other) o from p")
    assert means.row(0) == (2.0, 2.0, 3, 0)
    back = read_profiles(tmp_path / "p.parquet")
    np.testing.assert_array_equal(back[["Cells_a", "Cells_b"]], table[["Cells_a", "Cells_b"]])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.csv", b"", "empty"),
        ("p.csv", b"Metadata_Plate,Metadata_Well,Cells_x\n", "no rows"),
        ("p.csv", b"Run,Place,Cells_x\nP,A01,1\n", "no column Metadata_Plate"),
        ("p.csv", b"Metadata_Plate,Metadata_Well,Cells_x,Cells_x\nP,A01,1,2\n", "column 'Cells_x' appears twice"),
        ("p.csv", b"Metadata_Plate,Metadata_Well,Cells_x\nP,A01,low\n", "Cells_x holds 'low', which is not a number"),
        ("p.csv", b'Metadata_Plate,Metadata_Well,Cells_x\nP,A01,"1,5"\n', "Cells_x holds '1,5', which is not a number"),
        ("p.csv", b"Metadata_Plate,Metadata_Well,Cells_x\nP,,1\n", "1 of 1 rows have no well, the first is row 1"),
        ("p.csv", b"Metadata_Plate,Metadata_Well,Cells_x\n,A01,1\n", "1 of 1 rows have no plate"),
        ("p.csv", b"Metadata_Plate,Metadata_Well,Cells_x\nP,A01,1,2\n", "p.csv"),
        ("p.csv", "Metadata_Plate,Metadata_Well,Metadata_dose,Cells_x\nP,A01,µM,1\n".encode("latin-1"), "not UTF-8"),
        ("p.csv.gz", b"no gzip", "p.csv.gz"),
        ("p.csv.gz", gzip.compress(b"Metadata_Plate,Metadata_Well,Cells_x\nP,A01,1\n", mtime=0)[:-9], "p.csv.gz"),
        ("p.parquet", b"PAR1 no parquet PAR1", "p.parquet"),
        ("p.parquet", b"", "p.parquet"),
        ("p.xlsx", b"", r"profiles are read from .parquet, .csv and .csv.gz"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as told:
        read_profiles(tmp_path / name)
    assert str(tmp_path / name) in str(told.value)


def test_nested_or_doubled_parquet_columns_are_refused(tmp_path):
    pq.write_table(
        pa.table({"Metadata_Plate": ["P"], "Metadata_Well": ["A1"], "Cells_x": [[1.0, 2.0]]}), tmp_path / "n.parquet"
    )
    with pytest.raises(ValueError, match=r"n.parquet: Cells_x holds .*, which is not a number"):
        read_profiles(tmp_path / "n.parquet")
    pq.write_table(
        pa.table([["P"], ["A1"], [1.0], [2.0]], ["Metadata_Plate", "Metadata_Well", "C", "C"]), tmp_path / "d.parquet"
    )
    with pytest.raises(ValueError, match=r"d.parquet: column 'C' appears twice"):
        read_profiles(tmp_path / "d.parquet")


def test_a_blank_last_line_of_a_csv_is_no_well(tmp_path):
    (tmp_path / "p.csv").write_text("Metadata_Plate,Metadata_Well,Cells_x\nP,A01,1\n\n,,\n")
    assert len(read_profiles(tmp_path / "p.csv")) == 1


@pytest.mark.parametrize(
    ("column", "value", "spelled"), [("Metadata_pert_type", "control", "pert_type"), ("Metadata_dose", 7, "Metadata_dose")]
)
def test_controls_are_the_wells_that_are_named(column, value, spelled):
    table = TABLE.assign(**{column: pd.Categorical([value, value, "trt"])}, Metadata_control_type=["", "", "negcon"])
    assert is_negcon(table).tolist() == [False, False, True]
    marked = mark_controls(table, [f"{spelled}={value}"])
    assert is_negcon(marked).tolist() == [True, True, False]
    assert is_negcon(mark_controls(marked, [f"{spelled}=trt", f"{spelled}={value}"])).all()
    assert mark_controls(table, ()) is table
    with pytest.raises(
        ValueError, match=rf"--control {spelled}=DMSO: no well has it; {column} holds {value} \(2\), trt \(1\)"
    ):
        mark_controls(table, [f"{spelled}=DMSO"])
    with pytest.raises(ValueError, match="expected COLUMN=VALUE"):
        mark_controls(table, ["DMSO"])
    with pytest.raises(ValueError, match="--control x=y: no column Metadata_x; there are Metadata_Plate"):
        mark_controls(table, ["x=y"])


def test_where_nothing_names_controls_the_values_there_are_told():
    with pytest.raises(
        ValueError, match=r"no Metadata_control_type; Metadata_pert_type holds trt \(2\), control \(1\); name"
    ):
        is_negcon(TABLE.assign(Metadata_pert_type=["trt", "trt", "control"]))


def test_recipes_name_controls_and_features(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('controls = ["Metadata_pert_type=negcon"]\nfeatures = ["X_*"]\n')
    assert load_recipe(path).controls == ("Metadata_pert_type=negcon",)
    assert load_recipe(path).features == ("X_*",)
    for text, words in (
        ('controls = ["negcon"]', "controls: 'negcon' is not COLUMN=VALUE"),
        ("[score]\ndraws = 0", "score.draws is 0; expected 1 to"),
        ('[score]\nnull_wells = "some"', "score.null_wells is 'some'"),
        ("[select]\nmissing = 5.0", "select.missing is 5; expected 0 to 1"),
        ("[select]\ncorrelation = 9.0", "select.correlation is 9"),
        ("[normalize]\nepsilon = -1.0", "normalize.epsilon is -1"),
        ("[select]\noutlier = nan", "outlier: expected a finite number"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load_recipe(path)
