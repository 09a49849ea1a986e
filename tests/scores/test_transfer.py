"""Condition transfer: pairing and splits as stated, ridge against scikit-learn's, baselines against known answers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

import jumpgpu
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.transfer import ALPHAS, baselines, evaluate, ridge
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
