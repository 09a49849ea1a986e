"""Aggregation, annotation, normalisation and corrections against pycytominer's own calls and closed forms."""

import numpy as np
import pandas as pd
import pycytominer
import pytest

from jumpgpu.profiles.aggregate import summarize
from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.normalize import (
    correct_cell_count,
    correct_well_positions,
    harmonize,
    inverse_normal,
    normalize,
    sphere,
)
from jumpgpu.profiles.pipeline import make_profiles
from jumpgpu.profiles.platemap import (
    annotate,
    feature_columns,
    find_platemap,
    find_treatments,
    read_platemap,
    read_treatments,
)
from jumpgpu.profiles.recipe import NormalizeSettings, SphereSettings, load_recipe
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"G{i}-a" for i in range(20)]
KEEP = {"cpjump1-2021-06": 1e-18, "cpjump1-2021-12": 0.0}


def plate(name="P1", samples=None, n_features=40, seed=0):
    samples = samples or SAMPLES
    effects = draw_effects(samples, [1.0] * len(samples), n_features)
    return draw_plate(name, effects, [*samples, *[None] * 28], seed=seed)


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_wells_are_aggregated_as_pycytominer_does(statistic, n):
    cells = np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32)
    cells[0, 1] = cells[:, 2] = np.nan
    cells[n // 2, 3] = np.inf
    table = pd.DataFrame(cells, columns=[f"Cells_{i}" for i in range(6)]).assign(Metadata_Plate="P", Metadata_Well="A01")
    theirs = pycytominer.aggregate(table, strata=["Metadata_Plate", "Metadata_Well"], operation=statistic)
    # float64 sums in another order
    np.testing.assert_allclose(
        summarize(cells, statistic), theirs[[f"Cells_{i}" for i in range(6)]].iloc[0].astype(float), rtol=1e-12
    )


@pytest.mark.parametrize("recipe", KEEP)
@pytest.mark.parametrize("reference", ["all", "negcon"])
def test_the_published_presets_are_pycytominers_mad_robustize(recipe, reference):
    profiles = plate()
    features = feature_columns(profiles)
    profiles[features[0]] = 2.0  # MAD 0 and every value at the median
    profiles[features[1]] = np.where(profiles["Metadata_broad_sample"].isna(), 3.0, profiles[features[1]])  # MAD 0 of negcon
    profiles.loc[3:6, features[2]] = np.nan
    ours, fit = normalize(profiles, reference, load_recipe(recipe).normalize)
    theirs = pycytominer.normalize(
        profiles,
        features=features,
        samples="all" if reference == "all" else "Metadata_control_type == 'negcon'",
        method="mad_robustize",
        mad_robustize_epsilon=KEEP[recipe],
    )
    pd.testing.assert_frame_equal(ours[features], theirs[features], rtol=1e-12)
    assert not fit.dropped
    if reference == "negcon":
        assert np.abs(ours[features[1]]).max() > 1e15  # huge or infinite, as published


def test_our_default_drops_degenerate_mads_with_their_reason():
    profiles = plate()
    features = feature_columns(profiles)
    profiles[features[0]] = 0.1 * (1 + 1e-16 * np.arange(len(profiles)))  # constant but for rounding
    profiles[features[1]] = np.where(profiles["Metadata_broad_sample"].isna(), 3.0, profiles[features[1]])
    profiles[features[2]] = np.where(profiles["Metadata_broad_sample"].isna(), np.nan, profiles[features[2]])
    ours, fit = normalize(profiles, "negcon", NormalizeSettings())
    assert fit.dropped == {
        features[0]: "MAD 0 over 28 negative controls",
        features[1]: "MAD 0 over 28 negative controls",
        features[2]: "missing in all 28 negative controls",
    }
    assert feature_columns(ours) == features[3:]
    assert np.isfinite(ours[features[3:]].to_numpy()).all()
    _, fit = normalize(profiles, "all", NormalizeSettings())
    # 28 of 48 wells have one value of the second feature: its MAD is 0 over all wells too
    assert fit.dropped == dict.fromkeys(features[:2], "MAD 0 over 48 wells")


def test_annotation_is_the_published_one(shared):
    """A published plate stripped to wells and annotated again from the plate map and the treatment table."""
    folder = shared / "data" / "metadata"
    path = shared / "data" / "profiles" / "BR00117010_normalized_feature_select_negcon_batch.csv.gz"
    published = read_profiles(path)
    features = feature_columns(published)
    platemap = find_platemap(folder, "BR00117010")
    assert platemap.name == "JUMP-Target-1_compound_platemap.txt"
    treatments = find_treatments(folder, platemap)
    assert treatments is not None
    wells = published[["Metadata_Plate", "Metadata_Well", *features]].sample(frac=1, random_state=0)
    ours = annotate(wells, read_platemap(platemap), read_treatments(treatments))
    genetic = ["Metadata_target_sequence", "Metadata_negcon_control_type"]  # of the CRISPR table, empty here
    theirs = published.drop(columns=[c for c in published if c in genetic])
    assert list(ours.columns[:4]) == ["Metadata_broad_sample", "Metadata_solvent", "Metadata_Plate", "Metadata_Well"]
    # the published file rounded pubchem_cid to five digits
    ignored = ["Metadata_pubchem_cid"]
    pd.testing.assert_frame_equal(ours.drop(columns=ignored), theirs[ours.columns].drop(columns=ignored))
    assert (ours["Metadata_control_type"] == "negcon").sum() == 64
    again = annotate(ours.assign(Metadata_gene="stale"), read_platemap(platemap), read_treatments(treatments))
    pd.testing.assert_frame_equal(again, ours)


def test_empty_wells_of_a_genetic_map_are_no_controls(shared):
    folder = shared / "data" / "metadata"
    path = find_platemap(folder, "BR00118045")
    platemap = read_platemap(path)
    wells = pd.DataFrame({"Metadata_Plate": "BR00118045", "Metadata_Well": platemap["well_position"], "Cells_x": 1.0})
    ours = annotate(wells, platemap, read_treatments(find_treatments(folder, path)))
    empty = ours["Metadata_broad_sample"].isna()
    assert empty.sum() == 4
    assert ours.loc[empty, "Metadata_control_type"].isna().all()
    assert (ours["Metadata_control_type"] == "negcon").sum() == 60  # 30 guides, two wells each


def test_cell_count_correction_is_least_squares():
    profiles = plate()
    features = feature_columns(profiles)
    profiles[features[0]] += 0.01 * profiles["Metadata_Object_Count"]
    profiles.loc[4, features[1]] = np.nan
    corrected = correct_cell_count(profiles)
    for feature in features[:3]:
        known = profiles[feature].notna()
        x, y = profiles.loc[known, "Metadata_Object_Count"].astype(float), profiles.loc[known, feature]
        slope = np.polyfit(x - x.mean(), y, 1)[0]
        np.testing.assert_allclose(corrected.loc[known, feature], y - slope * (x - x.mean()), rtol=1e-9, atol=1e-9)
        assert abs(np.corrcoef(x, corrected.loc[known, feature])[0, 1]) < 1e-9
    assert np.isnan(corrected.loc[4, features[1]])


def test_well_position_correction_takes_the_mean_of_each_position():
    plates = [plate("P1", SAMPLES), plate("P2", SAMPLES[::-1]), plate("P3", SAMPLES)]
    features = feature_columns(plates[0])
    plates[1].loc[2, features[3]] = np.nan
    corrected = correct_well_positions(plates)
    together, before = pd.concat(corrected), pd.concat(plates)
    overall = before[features].mean()
    position = together.groupby("Metadata_Well")[features].mean()
    np.testing.assert_allclose(position, np.broadcast_to(overall, position.shape), atol=1e-12)
    with pytest.raises(ValueError, match="one plate map would subtract the treatments"):
        correct_well_positions([plates[0], plates[2]])


def test_inverse_normal_gives_normal_quantiles_of_ranks():
    values = pd.DataFrame({"Cells_a": np.random.default_rng(0).exponential(size=99), "Cells_b": [np.nan] * 99})
    ranks = inverse_normal(values)
    assert (ranks["Cells_a"].rank() == values["Cells_a"].rank()).all()
    assert abs(ranks["Cells_a"].median()) < 1e-9
    assert ranks["Cells_b"].isna().all()


def test_sphering_whitens_the_controls():
    plates = pd.concat([plate(f"P{k}", n_features=10, seed=k) for k in range(3)], ignore_index=True)
    features = feature_columns(plates)
    mixed = plates.assign(**{features[1]: plates[features[0]] * 0.9 + 0.3 * plates[features[1]]})
    sphered = sphere(mixed, SphereSettings(epsilon=1e-9))
    controls = sphered.loc[sphered["Metadata_control_type"] == "negcon", feature_columns(sphered)].to_numpy()
    np.testing.assert_allclose(
        np.cov(controls.T, ddof=1), np.eye(10), atol=1e-6
    )  # epsilon beside singular values of about 10
    with pytest.raises(ValueError, match="sphering needs complete features"):
        sphere(mixed.mask(mixed == mixed.loc[0, features[0]]), SphereSettings())


def test_harmony_brings_batches_together():
    plates = [plate(f"P{k}", n_features=48 * 2, seed=k) for k in range(2)]  # as many features as wells
    features = feature_columns(plates[0])
    plates[1][features] += 3.0
    together = pd.concat(plates, ignore_index=True)
    joined = harmonize(together, "Metadata_Plate")
    first = together["Metadata_Plate"] == "P0"
    gap = lambda t: np.abs(t.loc[first, features].mean() - t.loc[~first, features].mean()).mean()  # noqa: E731
    assert gap(joined) < 0.75 * gap(together)
    before, after = together[features].to_numpy(), joined[features].to_numpy()
    within = [np.corrcoef(before[i], after[i])[0, 1] for i in (0, 5, 60)]
    assert min(within) > 0.5  # rows stayed in their places
    with pytest.raises(ValueError, match="has one value here"):
        harmonize(plates[0], "Metadata_Plate")


def test_jump_production_runs_to_its_last_step():
    plates = [plate(f"P{k}", SAMPLES[::-1] if k % 2 else SAMPLES, seed=k) for k in range(4)]
    output = {(p, n): t for p, n, t in make_profiles(plates, load_recipe("jump-production"))}
    names = {n for _, n in output}
    assert names == {
        "normalized_negcon",
        "normalized_feature_select_negcon_batch",
        "normalized_feature_select_negcon_batch_spherized",
        "normalized_feature_select_negcon_batch_spherized_harmony",
        "features",
    }
    last = [output[f"P{k}", "normalized_feature_select_negcon_batch_spherized_harmony"] for k in range(4)]
    assert all(len(t) == 48 and np.isfinite(t[feature_columns(t)].to_numpy()).all() for t in last)


def test_selection_over_the_batch_keeps_one_set_of_features():
    plates = [plate(f"P{k}", seed=k) for k in range(3)]
    features = feature_columns(plates[0])
    plates[1][features[4]] = 1.0  # without a MAD on one plate: not in every plate
    for table in plates:
        table[features[7]] = table[features[6]] * 2 + 1
    output = {(p, n): t for p, n, t in make_profiles(plates, load_recipe("cpjump1-2021-12"))}
    default = {(p, n): t for p, n, t in make_profiles(plates, load_recipe("jumpgpu"))}
    kept = {tuple(feature_columns(output[f"P{k}", "normalized_feature_select_negcon_batch"])) for k in range(3)}
    assert len(kept) == 1
    assert len(set(kept.pop()) & {features[6], features[7]}) == 1
    reasons = output["P1", "features"].query("reference == 'negcon'").set_index("feature")["dropped"]
    assert "selection (batch): correlation" in set(reasons)
    assert features[4] not in default["P1", "normalized_feature_select_negcon_plate"]
    assert features[4] in default["P0", "normalized_feature_select_negcon_plate"]


def test_a_plate_of_one_control_or_none_says_so():
    effects = draw_effects(SAMPLES, [1.0] * len(SAMPLES), 40)
    one = draw_plate("P1", effects, [*SAMPLES, None])
    output = {n: t for _, n, t in make_profiles([one], load_recipe("jumpgpu"))}
    assert feature_columns(output["normalized_feature_select_negcon_plate"]) == []
    assert len(feature_columns(output["normalized_feature_select_plate"])) > 20
    reasons = output["features"].query("reference == 'negcon'")["dropped"]
    assert set(reasons) == {"MAD 0 over 1 negative controls"}
    with pytest.raises(ValueError, match=r"P1: no negative control among 20 wells; .*--reference all"):
        list(make_profiles([draw_plate("P1", effects, SAMPLES)], load_recipe("jumpgpu")))
