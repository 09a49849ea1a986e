"""Consensus profiles against pycytominer's, cell counts beside controls worked by hand, files and their `var`."""

import anndata
import numpy as np
import pandas as pd
import pycytominer
import pytest

from jumpgpu.profile import main as profile
from jumpgpu.profiles.consensus import cell_counts, consensus
from jumpgpu.profiles.files import write_anndata
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import concatenate
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"{g}-{k}" for g in "ABCD" for k in (1, 2)]
EFFECTS = draw_effects(SAMPLES, [1.5] * len(SAMPLES), 40)


@pytest.fixture
def profiles():
    return concatenate([draw_plate(f"P{k}", EFFECTS, [*SAMPLES, SAMPLES[0], *[None] * 9]) for k in range(3)])


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_consensus_is_pycytominers(profiles, statistic):
    features = feature_columns(profiles)
    profiles.loc[3, features[4]] = np.nan
    ours = consensus(profiles, statistic=statistic)
    theirs = pycytominer.consensus(
        profiles[profiles["Metadata_broad_sample"].notna()],
        replicate_columns=["Metadata_broad_sample"],
        operation=statistic,
        features=features,
    ).sort_values("Metadata_broad_sample", ignore_index=True)
    assert ours["Metadata_broad_sample"].tolist() == theirs["Metadata_broad_sample"].tolist() == SAMPLES
    np.testing.assert_allclose(ours[features], theirs[features].astype(float), rtol=1e-12)  # sums in another order
    assert ours["Metadata_Well_Count"].tolist() == [6, *[3] * 7]
    assert ours["Metadata_Plate_Count"].tolist() == [3] * 8
    assert ours["Metadata_gene"].tolist() == [s[0] for s in SAMPLES]
    counts = profiles.groupby("Metadata_broad_sample")["Metadata_Object_Count"].median()
    np.testing.assert_array_equal(ours["Metadata_Object_Count"], counts)


def test_consensus_keeps_what_all_wells_share_and_takes_numbers_and_categories(profiles):
    table = profiles.assign(
        Metadata_broad_sample=profiles["Metadata_broad_sample"].map({s: k for k, s in enumerate(SAMPLES)}),
        Metadata_line=pd.Categorical(["U2OS"] * len(profiles)),
        Metadata_turn=range(len(profiles)),
    )
    result = consensus(table)
    assert result["Metadata_broad_sample"].tolist() == [str(k) for k in range(8)]
    assert result["Metadata_line"].tolist() == ["U2OS"] * 8
    assert "Metadata_turn" not in result
    with pytest.raises(ValueError, match="unknown statistic 'modz'"):
        consensus(profiles, statistic="modz")
    with pytest.raises(ValueError, match="no well has a Metadata_broad_sample"):
        consensus(profiles.assign(Metadata_broad_sample=" "))


def test_cell_counts_are_beside_the_controls_of_the_plate():
    table = pd.DataFrame(
        {
            "Metadata_Plate": ["P"] * 5 + ["Q"] * 5,
            "Metadata_broad_sample": ["x", "y", None, None, None] * 2,
            "Metadata_control_type": [None, None, "negcon", "negcon", "negcon"] * 2,
            "Metadata_Object_Count": [50, 100, 90, 100, 120, 100, 200, 190, 200, 220],
        }
    )
    result = cell_counts(table)
    assert result.loc["x", "cell_count"] == 75
    assert result.loc["x", "cell_count_ratio"] == 0.5  # 50 of 100 and 100 of 200
    assert result.loc["y", "cell_count_ratio"] == 1
    # the controls' deviations are 10, 0, 20 on both plates: MAD 10
    assert result.loc["x", "cell_count_z"] == pytest.approx((-50 / 14.826 - 100 / 14.826) / 2)
    with pytest.raises(ValueError, match="no Metadata_Object_Count"):
        cell_counts(table.drop(columns="Metadata_Object_Count"))
    with pytest.raises(ValueError, match="plate Q has no negative controls"):
        cell_counts(table.drop(index=[7, 8, 9]))


def test_the_command_writes_consensus_files(tmp_path, capsys):
    plates = {f"P{k}": draw_plate(f"P{k}", EFFECTS, [*SAMPLES, *[None] * 12]) for k in range(3)}
    files = []
    for plate, table in plates.items():
        table.assign(Metadata_dose=3).to_csv(tmp_path / f"{plate}.csv", index=False)
        files += ["--plate", str(tmp_path / f"{plate}.csv")]
    run = [*files, "--output", str(tmp_path), "--level", "batch", "--anndata"]
    assert profile([*run, "--consensus", "broad_sample,dose"]) == 0
    folder = tmp_path / "profiles" / "consensus"
    names = ["normalized_feature_select_batch", "normalized_feature_select_negcon_batch"]
    assert sorted(p.stem for p in folder.glob("*.parquet")) == names
    result = pd.read_parquet(folder / f"{names[1]}.parquet")
    wells = pd.concat([pd.read_parquet(tmp_path / "profiles" / p / f"{p}_{names[1]}.parquet") for p in plates])
    assert result["Metadata_broad_sample,dose"].tolist() == [f"{s} @ 3" for s in SAMPLES]
    expected = wells.groupby("Metadata_broad_sample")[feature_columns(wells)].median()
    np.testing.assert_allclose(result[feature_columns(wells)], expected, rtol=1e-12)
    read = anndata.read_h5ad(folder / f"{names[1]}.h5ad")
    assert list(read.obs_names) == [f"{s} @ 3" for s in SAMPLES]
    assert profile([*run, "--overwrite", "--consensus", "moa"]) == 2
    assert "no column Metadata_moa" in capsys.readouterr().err


def test_an_h5ad_says_what_its_features_are(tmp_path, profiles):
    names = [
        "Cells_AreaShape_Area",
        "Nuclei_Correlation_K_DNA_RNA",
        "Cytoplasm_Texture_Variance_ER_5_03_256",
        "Cells_x",
        "emb_1",
    ]
    table = pd.concat(
        [profiles.iloc[:, :2], profiles[["Metadata_Plate", "Metadata_Well"]], pd.DataFrame(0.5, profiles.index, names)],
        axis=1,
    )
    table = table.loc[:, ~table.columns.duplicated()]
    write_anndata(table, tmp_path / "p.h5ad", ["emb_*"])
    var = anndata.read_h5ad(tmp_path / "p.h5ad").var
    words = ["compartment", "family", "channel", "n_channels"]
    assert var.loc[names[0], words].tolist() == ["Cells", "AreaShape", "", 0]
    assert var.loc[names[1], words].tolist()[:2] == ["Nuclei", "Correlation"]
    assert var.loc[names[1], "n_channels"] == 2
    assert var.loc[names[2], [*words, "scale"]].tolist() == ["Cytoplasm", "Texture", "ER", 1, "5"]
    assert var.loc["Cells_x", words].tolist() == var.loc["emb_1", words].tolist() == ["", "", "", 0]
