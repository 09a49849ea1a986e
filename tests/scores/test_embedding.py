"""Planes and similarities of wells against scikit-learn and NumPy."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from jumpgpu import score
from jumpgpu.profiles.files import write_table
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.embedding import embed, similarity
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = ["B-1", "A-1", "C-1"]
EMPTY = "E-1"  # becomes an empty well
EFFECTS = draw_effects([*SAMPLES, EMPTY], [1.0, 2.0, 3.0, 0.0], 30)


@pytest.fixture
def profiles():
    return concatenate([draw_plate(f"P{k}", EFFECTS, [*SAMPLES, EMPTY, *[None] * 6]) for k in range(3)]).replace(EMPTY, "")


def test_components_are_scikit_learns(profiles):
    features = feature_columns(profiles)
    profiles[features[3]] = 7.0  # never varies
    picture = embed(profiles)
    wells = picture.table
    assert wells["Metadata_broad_sample"].tolist()[:9] == [s for s in sorted(SAMPLES) for _ in range(3)]
    assert len(wells) == 27  # the empty wells are none
    key = ["Metadata_Plate", "Metadata_Well"]
    values = wells[key].merge(profiles, on=key)[[f for f in features if f != features[3]]]
    pca = PCA(2, svd_solver="full").fit(StandardScaler().fit_transform(values))
    theirs = pca.transform(StandardScaler().fit_transform(values))
    for k in range(2):
        ours = wells[f"PC{k + 1}"].to_numpy()
        np.testing.assert_allclose(ours, theirs[:, k] * np.sign(theirs[:, k] @ ours), atol=1e-9)
        loading = ours @ StandardScaler().fit_transform(values)
        assert loading[np.abs(loading).argmax()] > 0
    np.testing.assert_allclose(picture.settings["explained"], pca.explained_variance_ratio_, rtol=1e-9)
    pd.testing.assert_frame_equal(embed(profiles.sample(frac=1, random_state=1)).table, wells)


def test_similarities_are_numpys(profiles):
    table = similarity(profiles).table
    features = feature_columns(profiles)
    names = [c for c in table if not c.startswith("Metadata_")]
    assert names == (table["Metadata_Plate"] + " " + table["Metadata_Well"]).tolist()
    key = ["Metadata_Plate", "Metadata_Well"]
    expected = np.corrcoef(table[key].merge(profiles, on=key)[features].to_numpy())
    np.testing.assert_allclose(table[names], expected, atol=1e-12)
    with pytest.raises(ValueError, match="wells are given more than once"):
        similarity(pd.concat([profiles, profiles]))


def test_a_well_without_features_is_left_out_by_name(profiles):
    profiles.loc[0, feature_columns(profiles)[:20]] = np.nan
    for picture in (embed(profiles), similarity(profiles)):
        assert picture.settings["wells_left_out"] == ["P0 A01 (lacks 20 of 30 features)"]
        assert len(picture.table) == 26


def test_umap_repeats_by_its_seed(profiles):
    pytest.importorskip("umap", reason="umap-learn is an extra")
    first, again = (embed(profiles, method="umap", seed=3).table[["UMAP1", "UMAP2"]] for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert np.isfinite(first.to_numpy()).all()


def test_what_cannot_be_placed_is_told(profiles):
    with pytest.raises(ValueError, match="unknown method 'tsne'"):
        embed(profiles, method="tsne")
    with pytest.raises(ValueError, match="2 wells and 30 features that vary; a plane needs three wells"):
        embed(profiles[profiles["Metadata_broad_sample"] == "A-1"].head(2))


def test_the_commands_write_tables(tmp_path, capsys):
    for k in range(2):
        write_table(draw_plate(f"P{k}", EFFECTS, [*SAMPLES, *[None] * 8]), tmp_path / f"P{k}.parquet")
    run = ["--plate", str(tmp_path / "P0.parquet"), "--plate", str(tmp_path / "P1.parquet"), "--output", str(tmp_path)]
    assert score.main(["embed", *run]) == 0
    assert "22 wells  30 features" in capsys.readouterr().out
    assert {"PC1", "PC2", "Metadata_gene"} <= set(pd.read_parquet(tmp_path / "scores" / "embed.parquet"))
    assert score.main(["similarity", *run]) == 0
    assert len(pd.read_parquet(tmp_path / "scores" / "similarity.parquet")) == 22
