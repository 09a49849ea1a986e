"""ComBat against neuroCombat, the numbers of batch effects against twins, and the order of the steps."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profile import main as profile
from jumpgpu.profiles.batch import batch_effects, describe_effects, effects_by_step
from jumpgpu.profiles.combat import combat
from jumpgpu.profiles.pipeline import make_profiles
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.profiles.recipe import SelectSettings, SphereSettings, load_recipe
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"G{i}-a" for i in range(20)]
pytestmark = pytest.mark.filterwarnings("ignore")  # of scanpy's imports


def drawn(n_plates=3, n_features=60, shift=1.0, seed=0):
    """Plates of 20 treatments and 28 controls, each with a shift and a spread of its own."""
    effects, random = draw_effects(SAMPLES, [1.0] * 20, n_features), np.random.default_rng(seed)
    plates = []
    for k in range(n_plates):
        plate = draw_plate(f"P{k}", effects, [*SAMPLES, *[None] * 28], seed=seed)
        features = feature_columns(plate)
        plate[features] = plate[features] * (1 + 0.3 * shift * k) + shift * random.normal(size=n_features)
        plates.append(plate.assign(Metadata_Source=f"S{k % 2}"))
    return plates


def together(**options):
    return pd.concat(drawn(**options), ignore_index=True)


def test_combat_is_neurocombats():
    oracle = pytest.importorskip("neuroCombat", reason="neuroCombat is not installed").neuroCombat
    profiles = together(n_features=300)
    features = feature_columns(profiles)
    ours = combat(profiles, "Metadata_Plate")
    expected = oracle(
        dat=profiles[features].to_numpy().T, covars=profiles[["Metadata_Plate"]].copy(), batch_col="Metadata_Plate"
    )["data"].T
    # scanpy's prior divides a variance over features by F, neuroCombat's (and sva's) by F - 1: 1 in 300 of the prior, which
    # is a small part of an adjustment that 48 wells make
    np.testing.assert_allclose(ours[features], expected, rtol=0, atol=2e-3 * profiles[features].to_numpy().std())
    pd.testing.assert_frame_equal(ours.drop(columns=features), profiles.drop(columns=features))


def test_combat_takes_plates_away_and_leaves_treatments():
    profiles = together()
    features = feature_columns(profiles)
    after = combat(profiles, "Metadata_Plate")
    means = [t.groupby("Metadata_Plate")[features].mean().to_numpy().std(axis=0).mean() for t in (profiles, after)]
    assert means[1] < 0.1 * means[0]
    treated = [
        t[t["Metadata_broad_sample"].notna()].groupby("Metadata_broad_sample")[features].mean()
        for t in (drawn_clean(), after)
    ]
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(*(t.to_numpy() for t in treated), strict=True)]
    assert np.median(r) > 0.9


def drawn_clean():
    return together(shift=0.0)


@pytest.mark.parametrize(
    ("change", "column", "words"),
    [
        (lambda t: t, "Metadata_Batch", "no such column"),
        (lambda t: t.assign(Metadata_Source="one"), "Metadata_Source", r"one value here; leave it out \(--without combat\)"),
        (
            lambda t: t.assign(Metadata_Source=[None, *["a", "b"] * 71, "a"]),
            "Metadata_Source",
            "empty for 1 wells, first P0 A01",
        ),
        (lambda t: t.assign(Metadata_Source=["c", *["a", "b"] * 71, "a"]), "Metadata_Source", "and c has one"),
        (lambda t: t.assign(**{feature_columns(t)[3]: 4.0}), "Metadata_Plate", "spread within batches"),
        (
            lambda t: t.assign(**{feature_columns(t)[3]: [np.nan, *[1.0, 2.0] * 71, 1.0]}),
            "Metadata_Plate",
            "complete features",
        ),
    ],
)
def test_what_combat_cannot_do_is_refused(change, column, words):
    with pytest.raises(ValueError, match=words):
        combat(change(together()), column)


def test_effects_are_a_numpy_twins():
    profiles = together(shift=0.5)
    features = feature_columns(profiles)
    result = batch_effects(profiles, "Metadata_Plate")
    controls = profiles[profiles["Metadata_control_type"] == "negcon"]
    x, plate = controls[features].to_numpy(), controls["Metadata_Plate"].to_numpy()
    n, k = len(x), 3
    groups = [x[plate == p] for p in sorted(set(plate))]
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups)
    epsilon = 1 - (within / (n - k)) / x.var(axis=0, ddof=1)
    assert result["batch_share"] == pytest.approx(epsilon.mean(), rel=1e-12)
    means = np.stack([g.mean(0) for g in groups])
    shift = np.sqrt((((means - means.mean(0)) / np.sqrt(within / (n - k))) ** 2).mean(1))
    assert result["drift"] == pytest.approx(shift.max(), rel=1e-12)
    assert result["drift_batch"] == f"P{shift.argmax()}"
    similar = x @ x.T / np.linalg.norm(x, axis=1) / np.linalg.norm(x, axis=1)[:, None]
    nearest = [np.argsort(-np.where(np.arange(n) == i, -9, row))[:5] for i, row in enumerate(similar)]
    assert result["batch_neighbours"] == pytest.approx(np.mean([plate[m] == plate[i] for i, m in enumerate(nearest)]))
    assert result["batch_neighbours_chance"] == pytest.approx(27 / 83)
    assert (result["controls"], result["batches"]) == (84, 3)


def test_without_an_effect_the_numbers_are_chance():
    result = [batch_effects(together(shift=0.0, seed=s), "Metadata_Plate") for s in range(20)]
    assert np.mean([f["batch_share"] for f in result]) == pytest.approx(0, abs=0.003)
    assert np.mean([f["batch_neighbours"] for f in result]) == pytest.approx(27 / 83, abs=0.02)
    assert np.mean([f["drift_mean"] for f in result]) == pytest.approx(result[0]["drift_chance"], rel=0.05)


def test_steps_are_reported_as_fitted_without_the_controls():
    recipe = dataclasses.replace(load_recipe("jumpgpu"), sphere=SphereSettings(), combat="Metadata_Source")
    controls = together()[lambda t: t["Metadata_control_type"] == "negcon"].reset_index(drop=True)
    names = ["normalized_feature_select_batch", "normalized_feature_select_batch_spherized"]
    steps = {names[0]: controls, names[1]: controls, names[1] + "_combat": controls}
    effects, findings = effects_by_step(steps, recipe, ["Metadata_Source", "Metadata_Batch"])
    assert [(e["table"], e["in_sample"]) for e in effects] == [(n, False) for n in steps]
    assert effects[1]["batch_share"] != effects[0]["batch_share"]  # sphered here, out of fold, though the table was not
    assert effects[2]["batch_share"] < effects[0]["batch_share"]
    assert len(findings) == 3
    assert "no such column" in findings[0]
    effects, findings = effects_by_step(steps, dataclasses.replace(recipe, combat=None), ["Metadata_Source"])
    assert effects[2]["in_sample"]  # a step that cannot be fitted again: said, and marked
    assert findings == [f"{names[1]}_combat: judged on the controls that it was fitted on: the record has no combat"]
    assert describe_effects("combat", effects[2]).endswith("(fitted on these controls)")


def test_the_order_is_sphering_combat_harmony():
    pytest.importorskip("harmonypy")
    select = SelectSettings(operations=("variance", "missing"), level="batch", missing=0.0)
    recipe = dataclasses.replace(
        load_recipe("jumpgpu"), sphere=SphereSettings(), combat="Metadata_Plate", harmony="Metadata_Source", select=select
    )
    recipe = dataclasses.replace(recipe, normalize=dataclasses.replace(recipe.normalize, references=("negcon",)))
    output = [n for p, n, _ in make_profiles(drawn(), recipe) if p == "P0" and "select" in n]
    first = "normalized_feature_select_negcon_batch"
    assert output == [first, f"{first}_spherized", f"{first}_spherized_combat", f"{first}_spherized_combat_harmony"]


def test_profile_reports_each_step(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text(
        'combat = "Metadata_Plate"\n[normalize]\nreferences = ["negcon"]\n[select]\nlevel = "batch"\nmissing = 0.0\n'
        'operations = ["variance", "missing"]\n'
    )
    given = []
    for plate in drawn():
        path = tmp_path / f"{plate['Metadata_Plate'][0]}.parquet"
        plate.to_parquet(path)
        given += ["--plate", str(path)]
    arguments = [*given, "--output", str(tmp_path), "--recipe", str(tmp_path / "recipe.toml")]
    assert profile(arguments) == 0
    err = capsys.readouterr().err
    assert "normalized_feature_select_negcon_batch_combat: Metadata_Plate is " in err
    effects = json.loads((tmp_path / "profiles" / "batch_effects.json").read_text())
    assert [e["in_sample"] for e in effects] == [False, False]
    assert effects[1]["batch_share"] < effects[0]["batch_share"]
    assert profile([*arguments, "--overwrite", "--without", "combat"]) == 0
