"""Flags of single cells against coSMicQC's rule, and profiles without the flagged cells."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import zscore

import jumpgpu
from jumpgpu.outputs.plate_page import image_measures
from jumpgpu.profile import main as profile
from jumpgpu.profiles.aggregate import aggregate
from jumpgpu.profiles.cell_quality import (
    FLAGGED,
    PREFIX,
    CellRules,
    WithoutFlagged,
    add_flags,
    flag_cells,
    flag_plate,
    load_cell_rules,
    shares,
)
from tests.helpers.profiles_drawn import write_metadata, write_store

RULES = load_cell_rules()
NAMES = [*RULES.features, "Cells_AreaShape_Area", "Cells_Texture_Variance_DNA_3_00_256"]
PLATEMAP = {"A01": None, "A02": "X-1", "A03": "Y-1", "B01": None, "B02": "X-1", "B03": "Y-1"}


def cosmicqc(cells, thresholds):
    """coSMicQC 1.1's rule as it is written there: scipy's z-score of each feature, all conditions together."""
    conditions = [(zscore(cells[f]) > t) if t > 0 else (zscore(cells[f]) < t) for f, t in thresholds.items()]
    result = conditions[0]
    for other in conditions[1:]:
        result = result & other
    return np.asarray(result)


def drawn(n=4000, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, len(NAMES))) * 2 + 5
    intensities = [i for i, c in enumerate(NAMES) if "MaxIntensity" in c]
    values[:, intensities] = random.uniform(0.2, 1.0, (n, len(intensities)))
    return pd.DataFrame(values, columns=NAMES)


@pytest.mark.parametrize("seed", range(3))
def test_outliers_are_cosmicqcs(seed):
    cells = drawn(seed=seed)
    flags = flag_cells(cells, RULES)
    for name, thresholds in RULES.z.items():
        np.testing.assert_array_equal(flags[PREFIX + name], cosmicqc(cells, thresholds), err_msg=name)
    assert flags[[PREFIX + n for n in RULES.z]].any().sum() >= 4  # the rules are not idle here
    every = [PREFIX + n for n in RULES.names]
    np.testing.assert_array_equal(flags[FLAGGED], flags[every].any(axis=1))


def test_cosmicqc_itself_agrees():
    cosmic = pytest.importorskip("cosmicqc", reason="coSMicQC is not installed")
    cells = drawn(seed=4)
    for name, thresholds in RULES.z.items():
        ours = flag_cells(cells, CellRules(z={name: thresholds}))[FLAGGED]
        np.testing.assert_array_equal(ours, np.asarray(cosmic.identify_outliers(cells, thresholds), bool), err_msg=name)


def test_saturated_is_any_channel_at_its_number():
    cells = drawn()
    cells.loc[3, "Cells_Intensity_MaxIntensity_ER"] = 0.999
    cells.loc[4, "Cells_Intensity_MaxIntensity_ER"] = 0.9989
    cells.loc[5, "Cells_Intensity_MaxIntensity_ER"] = np.nan
    flags = flag_cells(cells, RULES)[PREFIX + "saturated"]
    expected = (cells[[*RULES.at_least["saturated"]]] >= 0.999).any(axis=1)
    assert flags[3]
    assert not flags[4]
    np.testing.assert_array_equal(flags, expected)


def test_missing_values_are_no_outliers_and_a_constant_is_a_finding():
    cells = drawn()
    cells.loc[:9, "Nuclei_AreaShape_Area"] = np.nan
    rule = {"Nuclei_AreaShape_Area": -1.0}
    flags = flag_cells(cells, CellRules(z={"small": rule}))[FLAGGED]
    assert not flags[:10].any()
    np.testing.assert_array_equal(flags[10:], cosmicqc(cells[10:], rule))
    cells["Nuclei_AreaShape_Area"] = 3.0
    result = flag_cells(cells, CellRules(z={"small": rule}))
    assert not result[FLAGGED].any()
    assert result.attrs["findings"] == [
        "Nuclei_AreaShape_Area has no spread over the plate's cells: no cell is an outlier by it"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[z.small]\n", "z.small names no feature"),
        ("[z.small]\nA = 0.0\n", "expected a number other than 0"),
        ("[z.small]\nA = 1.0\n[at_least.small]\nA = 1.0\n", "a rule has one name"),
        ("", "no rule"),
        ("[zscore.small]\nA = 1.0\n", "unknown key 'zscore'"),
        ("[z.small]\nA = 'one'\n", "expected float"),
        ("[z.small\n", "line 1"),
    ],
)
def test_bad_rules_are_refused_by_file_and_key(tmp_path, text, words):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="rules.toml.*" + words):
        load_cell_rules(path)


def test_a_feature_that_is_not_there_names_its_rule():
    with pytest.raises(ValueError, match=r"no Nuclei_Granularity_1_DNA, by which rule blurred flags \(they lack 1 of"):
        flag_cells(drawn().drop(columns="Nuclei_Granularity_1_DNA"), RULES)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flags")
    write_metadata(folder / "metadata", PLATEMAP, ["P1"])
    wells = {w: drawn(120, i).to_numpy().copy() for i, w in enumerate(PLATEMAP)}
    area, ratio = (NAMES.index(f"Nuclei_AreaShape_{n}") for n in ("Area", "FormFactor"))
    wells["B02"][:40, [area, ratio]] = [-9.0, -30.0]  # specks
    write_store(folder, "P1", wells, NAMES)
    return folder


def test_flags_of_a_plate_are_of_all_its_cells_and_go_into_obs(stored):
    plate = jumpgpu.open_plate(stored / "P1.zarr")
    cells = plate.to_pandas()
    flags = flag_plate(plate, RULES)
    pd.testing.assert_frame_equal(flags[[FLAGGED]], flag_cells(cells, RULES)[[FLAGGED]])
    share = shares(flags)
    assert share.loc["B02", "Metadata_Flag_small_and_low_formfactor_nuclei_Share"] >= 40 / 120
    data = plate.to_anndata(wells=["B02", "A01"])
    add_flags(data, flags)
    of = flags.set_index(["Metadata_Well", "Metadata_Site", "Metadata_ObjectNumber"])[FLAGGED]
    expected = [of[(r.Metadata_Well, r.Metadata_Site, r.Metadata_ObjectNumber)] for r in data.obs.itertuples()]
    np.testing.assert_array_equal(data.obs[FLAGGED], expected)
    with pytest.raises(ValueError, match="120 of 240 cells have no flags"):
        add_flags(data, flags[flags["Metadata_Well"] != "A01"])


@pytest.mark.parametrize("format", ["parquet", "csv", "h5ad"])
def test_exported_cells_have_their_flags(stored, tmp_path, format):
    """One well's flags are those of the whole plate's cells."""
    plate = jumpgpu.open_plate(stored / "P1.zarr")
    want = flag_plate(plate, RULES)
    want = want[want["Metadata_Well"] == "B02"].reset_index(drop=True)
    path = tmp_path / f"cells.{format}"
    jumpgpu.export(plate, path, wells=["B02"], columns=["Nuclei_AreaShape_Area"], cell_rules=RULES)
    read = {"parquet": pd.read_parquet, "csv": pd.read_csv, "h5ad": lambda p: anndata.read_h5ad(p).obs}[format]
    cells = read(path)
    columns = [*(PREFIX + name for name in RULES.names), FLAGGED]
    assert list(cells["Metadata_ObjectNumber"]) == list(want["Metadata_ObjectNumber"])
    for column in columns:
        np.testing.assert_array_equal(cells[column].to_numpy(bool), want[column].to_numpy(bool), err_msg=column)
    with pytest.raises(ValueError, match="flags belong to single cells"):
        jumpgpu.export(plate, tmp_path / "plate.sqlite", cell_rules=RULES)


def test_means_without_flagged_cells(stored):
    plate = jumpgpu.open_plate(stored / "P1.zarr")
    flags = flag_plate(plate, RULES)
    table = aggregate(WithoutFlagged(plate, flags)).set_index("Metadata_Well")
    cells = plate.to_pandas()[~flags[FLAGGED].to_numpy()]
    expected = cells.groupby("Metadata_Well")[NAMES].mean()
    np.testing.assert_allclose(table[NAMES], expected.loc[table.index], rtol=1e-6)
    assert table["Metadata_Object_Count"].to_dict() == cells.groupby("Metadata_Well").size().to_dict()


def test_profile_flags_drops_and_says_so(stored, tmp_path, capsys):
    common = ["--plate", str(stored / "P1.zarr"), "--metadata", str(stored / "metadata"), "--reference", "all"]
    assert profile([*common, "--output", str(tmp_path / "flagged"), "--flag-cells"]) == 0
    assert "kept (--drop-flagged leaves them out)" in capsys.readouterr().err
    assert profile([*common, "--output", str(tmp_path / "dropped"), "--drop-flagged"]) == 0
    assert "cells flagged and left out" in capsys.readouterr().err
    tables = [pd.read_parquet(tmp_path / k / "profiles" / "P1" / "P1.parquet") for k in ("flagged", "dropped")]
    share = "Metadata_Flagged_Share"
    np.testing.assert_array_equal(tables[0][share], tables[1][share])
    lost = tables[0]["Metadata_Object_Count"] - tables[1]["Metadata_Object_Count"]
    np.testing.assert_allclose(lost, tables[0][share] * tables[0]["Metadata_Object_Count"])
    flags = pd.read_parquet(tmp_path / "dropped" / "profiles" / "P1" / "P1_cell_flags.parquet")
    assert len(flags) == 720
    assert flags[FLAGGED].sum() == lost.sum()
    table = tmp_path / "flagged" / "profiles" / "P1" / "P1.parquet"
    assert profile(["--plate", str(table), "--output", str(tmp_path), "--drop-flagged", "--metadata", str(stored)]) == 2
    assert "--flag-cells needs a plate's cells" in capsys.readouterr().err


def test_a_well_without_a_cell_left_is_named(stored, tmp_path, capsys):
    rules = tmp_path / "all.toml"
    rules.write_text("[at_least.large]\nCells_AreaShape_Area = -1000.0\n")
    arguments = ["--plate", str(stored / "P1.zarr"), "--output", str(tmp_path), "--drop-flagged", "--flag-cells", str(rules)]
    assert profile([*arguments, "--metadata", str(stored / "metadata")]) == 2
    assert "no well with cells" in capsys.readouterr().err


def test_the_report_shows_the_share_of_each_flag(stored):
    plate = jumpgpu.open_plate(stored / "P1.zarr")
    try:
        measures = image_measures(plate)
    except (ValueError, KeyError) as error:
        pytest.skip(f"a drawn store without image checks: {error}")
    by_name = dict(zip(measures["names"], measures["values"], strict=True))
    share = 100 * shares(flag_plate(plate, RULES)).loc[plate.wells, "Metadata_Flagged_Share"]
    np.testing.assert_allclose(by_name["cells Flagged, percent"], share, rtol=1e-5)
    assert json.dumps(measures)
