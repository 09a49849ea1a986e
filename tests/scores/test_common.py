"""Scores against plain loops over np.corrcoef, as CPJUMP1's notebooks wrote them."""

import numpy as np
import pytest

from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import choose_features, concatenate, correlations, draw_distinct, generator
from jumpgpu.scores.percent_matching import block_medians, percent_matching
from jumpgpu.scores.percent_replicating import percent_replicating
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"G{i}-{k}" for i in range(6) for k in ("a", "b")]


@pytest.fixture(scope="module")
def profiles():
    """Three plates; the first sample sits twice on each, the last on one only."""
    effects = draw_effects(SAMPLES, list(np.linspace(0, 1, len(SAMPLES))))
    layouts = [[*SAMPLES, SAMPLES[0], None, None], [*SAMPLES[:-1], SAMPLES[0], None], [*SAMPLES[:-1], SAMPLES[0], None]]
    return concatenate([draw_plate(f"P{k}", effects, layout) for k, layout in enumerate(layouts)])


def values_of(profiles, sample):
    return profiles.loc[profiles["Metadata_broad_sample"] == sample, feature_columns(profiles)].to_numpy()


def test_replicate_correlations(profiles):
    table = percent_replicating(profiles, draws=100).table.set_index("Metadata_broad_sample")
    assert list(table.index) == sorted(SAMPLES)
    for sample in SAMPLES:
        r = np.corrcoef(values_of(profiles, sample))
        n = r.shape[0] if r.ndim else 1
        assert table.loc[sample, "n_wells"] == n
        expected = np.median(r[np.triu_indices(n, 1)]) if n > 1 else np.nan
        np.testing.assert_allclose(table.loc[sample, "value"], expected, rtol=1e-12)  # order of sums


def test_a_sample_of_one_well_has_no_score(profiles):
    score = percent_replicating(profiles, draws=100)
    assert score.summary()["unscored"] == 1
    assert score.percent == 100 * score.table["above"].sum() / (len(SAMPLES) - 1)


def test_the_null_draws_wells_of_different_samples(profiles):
    codes = np.repeat(np.arange(5), [1, 2, 3, 4, 40])
    sets = draw_distinct(codes, 3, 4000, generator("test"))
    drawn = np.sort(codes[sets], axis=1)
    assert (np.diff(drawn, axis=1) > 0).all()
    # wells of one sample are drawn alike: 10 of 40 make a quarter of that sample's draws, 3 of 4000 sets' deviations wide
    big = sets[codes[sets] == 4]
    assert np.mean(big < 20) == pytest.approx(0.25, abs=3 * np.sqrt(0.25 * 0.75 / len(big)))
    with pytest.raises(ValueError, match="needs 6 treatments, found 5"):
        draw_distinct(codes, 6, 10, generator("test"))


def test_cross_block_medians(profiles):
    r = correlations(profiles[feature_columns(profiles)].to_numpy())
    a, b = np.array([0, 0, 1, 1, 1, 2]), np.array([1, 0, 1, 2])
    medians = block_medians(r[:6, 6:10], a, b)
    for i in range(3):
        for j in range(3):
            assert medians[i, j] == np.median(r[:6, 6:10][np.ix_(a == i, b == j)])


def test_matching_pairs_within(profiles):
    score = percent_matching(profiles, draws=300)
    pairs = list(zip(score.table["Metadata_broad_sample"], score.table["Metadata_broad_sample_other"], strict=True))
    assert pairs == [(f"G{i}-a", f"G{i}-b") for i in range(6)]
    for (x, y), value, n in zip(pairs, score.table["value"], score.table["n_pairs"], strict=True):
        block = np.corrcoef(values_of(profiles, x), values_of(profiles, y))[
            : len(values_of(profiles, x)), len(values_of(profiles, x)) :
        ]
        assert n == block.size
        np.testing.assert_allclose(value, np.median(block), rtol=1e-12)
    null = {round(v, 12) for v in score.null}
    assert not null & {round(v, 12) for v in score.table["value"]}  # pairs of one gene never serve as null


def test_percentiles_judge_values(profiles):
    score = percent_replicating(profiles, draws=500)
    upper, lower = np.percentile(score.null, [95, 5])
    np.testing.assert_array_equal(score.table["above"], score.table["value"] > upper)
    np.testing.assert_array_equal(score.table["below"], score.table["value"] < lower)


def test_matched_nulls_have_each_groups_own_size(profiles):
    score = percent_replicating(profiles, draws=3000, null_wells="matched")
    by_size = score.table.groupby("n_wells")["threshold"].agg(["min", "max"])
    assert (by_size["min"] == by_size["max"]).all()
    assert by_size.loc[3, "min"] > by_size.loc[6, "min"]  # medians of more pairs spread less


def test_features_are_chosen_by_what_they_name():
    names = [
        "Cells_AreaShape_Area",
        "Cells_Texture_Variance_RNA_5_03_256",
        "Nuclei_Correlation_K_DNA_RNA",
        "Nuclei_Correlation_K_DNA_HighZBF",
        "Cytoplasm_Intensity_MeanIntensity_Brightfield",
    ]
    assert choose_features(names, channels=["RNA"]) == names[1:2]
    assert choose_features(names, channels=["RNA", "DNA"]) == names[1:3]
    assert choose_features(names, without_channels=["HighZBF", "LowZBF", "Brightfield"]) == names[:3]
    assert choose_features(names, families=["Correlation"], compartments=["Nuclei"]) == names[2:4]
    assert choose_features([*names, "embedding"], families=["Texture"]) == names[1:2]
    with pytest.raises(ValueError, match="unknown channel 'Hoechst'"):
        choose_features(names, channels=["Hoechst"])
    with pytest.raises(ValueError, match="no feature of 5 is left"):
        choose_features(names, families=["Neighbors"])
