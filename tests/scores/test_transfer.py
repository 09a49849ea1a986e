"""Condition transfer: pairing and splits as stated, ridge against scikit-learn's, baselines against known answers."""

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

import jumpgpu
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.transfer import ALPHAS, baselines, evaluate, ridge
from jumpgpu.scores.transfer_models import low_rank, transport
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"G{i:02d}-a" for i in range(60)]


def condition(name, effects, layout=None, n=2):
    return concatenate([draw_plate(f"{name}{k}", effects, [*(layout or SAMPLES), None, None], seed=k) for k in range(n)])


@pytest.fixture(scope="module")
def matched():
    """Under the second condition every effect is turned by one linear map."""
    effects = draw_effects(SAMPLES, [2.0] * 60, 20)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    turned = pd.DataFrame(effects.to_numpy() @ turn, index=effects.index, columns=effects.columns)
    return jumpgpu.pairs(condition("A", effects), condition("B", turned))


def test_wells_of_one_position_are_paired_and_controls_left_out(matched):
    assert matched.source.shape == matched.target.shape == (120, 20)
    wells = matched.wells
    assert (wells["Metadata_Well_source"] == wells["Metadata_Well_target"]).all()
    assert (wells["Metadata_Plate_source"].str[1] == wells["Metadata_Plate_target"].str[1]).all()
    assert not wells.duplicated(["Metadata_Plate_source", "Metadata_Well_source"]).any()


def test_rows_carry_their_wells_profiles():
    effects = draw_effects(SAMPLES, [2.0] * 60, 20)
    a, b = condition("A", effects), condition("B", effects, SAMPLES[::-1])
    pairs = jumpgpu.pairs(a, b.sample(frac=1, random_state=0))
    keyed = b.set_index(["Metadata_Plate", "Metadata_Well"])
    for i in (0, 17, 119):
        plate, well = pairs.wells.loc[i, ["Metadata_Plate_target", "Metadata_Well_target"]]
        np.testing.assert_array_equal(pairs.target[i], keyed.loc[(plate, well), pairs.features].to_numpy(float))
        assert keyed.loc[(plate, well), "Metadata_broad_sample"] == pairs.treatments[i]


def test_a_treatment_is_in_one_split_whatever_else_there_is(matched):
    splits = pd.DataFrame({"treatment": matched.treatments, "split": matched.split}).drop_duplicates()
    assert splits["treatment"].is_unique
    share = splits["split"].value_counts(normalize=True)
    assert share["train"] == pytest.approx(0.7, abs=0.18)  # 60 treatments: three deviations
    effects = draw_effects(SAMPLES[:20], [1.0] * 20, 20)
    fewer = jumpgpu.pairs(condition("C", effects, SAMPLES[:20]), condition("D", effects, SAMPLES[:20]))
    again = dict(zip(fewer.treatments, fewer.split, strict=True))
    assert again == {k: v for k, v in zip(matched.treatments, matched.split, strict=True) if k in again}


def test_ridge_is_scikit_learns(matched):
    predicted, alpha = ridge(matched)
    assert alpha in ALPHAS
    source, target, _ = matched.part("train")
    mean, spread = source.mean(axis=0), source.std(axis=0)
    model = Ridge(alpha=alpha * source.shape[1]).fit((source - mean) / spread, target)
    np.testing.assert_allclose(predicted, model.predict((matched.part("test")[0] - mean) / spread), rtol=1e-8, atol=1e-8)


def test_ridge_learns_a_linear_map_and_the_identity_does_not(matched):
    table = baselines(matched).table.set_index("baseline")
    identity, learned = table.loc["identity"], table.iloc[1]
    assert learned["correlation"] > 0.6 > 0.3 > abs(identity["correlation"])
    assert learned["retrieval"] > 5 * learned["chance"]


def test_perfect_predictions_retrieve_everything():
    target = np.random.default_rng(0).normal(size=(12, 30))
    score = evaluate(target, target, np.repeat(list("abcdefghijkl"), 1))
    assert score["correlation"] == pytest.approx(1)
    assert score["retrieval"] == 1
    assert score["chance"] == 1 / 12


def test_nothing_shared_is_an_error():
    effects = draw_effects(SAMPLES, [2.0] * 60, 20)
    a = condition("A", effects)
    other = a.assign(Metadata_broad_sample="x" + a["Metadata_broad_sample"])
    with pytest.raises(ValueError, match="share no Metadata_broad_sample"):
        jumpgpu.pairs(a, other)
    with pytest.raises(ValueError, match="three shares that sum to 1"):
        jumpgpu.pairs(a, a, fractions=(0.5, 0.5, 0.5))


def test_explained_variance_is_r_squared_about_the_training_mean():
    random = np.random.default_rng(1)
    target, error = random.normal(size=(40, 7)), random.normal(size=(40, 7)) * 0.3
    from sklearn.metrics import r2_score

    score = evaluate(target + error, target, np.arange(40).astype(str))
    expected = r2_score(target, target + error, multioutput="variance_weighted")
    assert score["explained_variance"] == pytest.approx(expected, abs=1e-12)
    center = random.normal(size=7)
    assert evaluate(np.tile(center, (40, 1)), target, np.arange(40).astype(str), center)["explained_variance"] == 0


def test_low_rank_is_scikit_learns_pls_of_that_rank(matched):
    from sklearn.cross_decomposition import PLSRegression

    source, target, _ = matched.part("train")
    models = low_rank(source, target)
    assert list(models) == [1, 2, 4, 8, 16]
    new = matched.part("test")[0]
    for rank, predict in models.items():
        expected = PLSRegression(n_components=rank, scale=True).fit(source, target).predict(new)
        # scikit-learn divides by the sample's deviation (n - 1) and finds directions by iteration to 1e-6
        np.testing.assert_allclose(predict(new), expected, rtol=0, atol=2e-3)


def test_transport_finds_a_shift_without_pairs():
    """Two clouds of which one is the other moved: transport knows where each well goes, and needs no pairs for it."""
    pytest.importorskip("ot", reason="POT is not installed")
    random = np.random.default_rng(4)
    source = random.normal(size=(60, 3)) * 3
    shift = np.array([5.0, -2.0, 1.0])
    target = (source + shift)[random.permutation(60)]
    models = transport(source, target)
    moved = models[min(models)](source)
    np.testing.assert_allclose((moved - source).mean(0), shift, atol=0.5)
    assert all(np.corrcoef(moved[:, k], source[:, k])[0, 1] > 0.9 for k in range(3))


def test_baselines_stand_beside_each_other_with_intervals(matched):
    table = baselines(matched, "A to B").table
    names = [n.split(",")[0] for n in table["baseline"]]
    assert names[:3] == ["identity", "ridge", "low rank (PLS)"]
    for score in ("correlation", "explained_variance", "retrieval"):
        assert (table[f"{score}_low"] <= table[score] + 1e-12).all()
        assert (table[score] <= table[f"{score}_high"] + 1e-12).all()
    identity, learned, low = (table.iloc[i] for i in range(3))
    assert identity["explained_variance"] < 0 < low["explained_variance"]
    assert low["retrieval"] > 5 * low["chance"]
    assert learned["explained_variance_low"] > 0
    pd.testing.assert_frame_equal(table, baselines(matched, "A to B").table)


def test_without_pot_the_row_is_missed_by_name(matched, monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    result = baselines(matched)
    assert not any("transport" in n for n in result.table["baseline"])
    assert "optimal transport needs POT: pip install 'jumpgpu[transfer]'" in result.findings
