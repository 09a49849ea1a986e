"""The null by position, and intervals: layouts that allow it, layouts that do not, twins, coverage."""

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.hits import hits
from jumpgpu.scores.intervals import held_null, mean_interval, percent_interval
from jumpgpu.scores.mean_average_precision import replicability
from jumpgpu.scores.percent_replicating import percent_replicating
from jumpgpu.scores.position_null import CONTROLS, TREATMENTS, position_sets
from tests.helpers.profiles_drawn import draw_position_plates


def one_layout(seed=0, effect=1.0):
    plates, active = draw_position_plates(seed, effect, n_features=40)
    return concatenate(plates), active


def several_layouts(seed=0, effect=1.0, n_plates=4):
    """The same plates, each with its treatments at other positions; controls stay."""
    plates, active = draw_position_plates(seed, 0.0, n_plates, n_features=40)
    surface = [
        values(a) - values(b)
        for a, b in zip(draw_position_plates(seed, effect, n_plates, n_features=40)[0], plates, strict=True)
    ]
    for i, plate in enumerate(plates):
        treated = np.flatnonzero(plate["Metadata_control_type"].isna())
        order = np.random.default_rng([seed, i]).permutation(treated)
        moved = [*feature_columns(plate), "Metadata_broad_sample"]
        plate.loc[treated, moved] = plate.loc[order, moved].to_numpy()
        plate[feature_columns(plate)] = values(plate) + surface[i]
    return concatenate(plates), active


def values(plate):
    return plate[feature_columns(plate)].to_numpy(float)


def rates(score, active):
    table = score.table.set_index("Metadata_broad_sample")["above"]
    is_active = table.index.isin(active)
    return 100 * table[is_active].mean(), 100 * table[~is_active].mean()


def test_one_layout_is_judged_by_controls_of_a_position():
    profiles, active = one_layout()
    score = percent_replicating(profiles, null="position")
    assert score.settings["null_of"] == CONTROLS
    assert len(score.null) == 64
    check = next(c for c in percent_replicating(profiles, draws=200).checks if c.place == "position")
    np.testing.assert_allclose(np.sort(score.null), np.sort(check.values), rtol=0, atol=1e-12)
    assert "circular" in next(c for c in score.checks if c.place == "position").reason
    usual, by_position = rates(percent_replicating(profiles, draws=2000), active), rates(score, active)
    assert usual[1] > 40
    assert by_position[1] < 12


def test_several_layouts_are_judged_by_other_treatments_of_a_position():
    profiles, _active = several_layouts(1, 1.5)
    score = percent_replicating(profiles, null="position", draws=2000)
    assert score.settings["null_of"] == TREATMENTS
    usual = percent_replicating(profiles, draws=2000)
    assert np.median(score.null) > np.median(usual.null) + 0.02  # a place makes wells alike
    check = next(c for c in score.checks if c.place == "position")
    assert check.n == 64
    assert not check.reason


def test_sets_share_a_position_and_no_treatment():
    profiles, _ = several_layouts(2)
    wells = profiles[profiles["Metadata_control_type"].isna()].reset_index(drop=True)
    controls = profiles[profiles["Metadata_control_type"] == "negcon"].reset_index(drop=True)
    codes = pd.factorize(wells["Metadata_broad_sample"])[0]
    sets = position_sets(wells, codes, controls, 3, 400, np.random.default_rng(0), "here")
    assert sets.rows.shape == (400, 3)
    assert sets.kind == TREATMENTS
    at = pd.factorize(wells["Metadata_Well"])[0]
    assert (np.ptp(at[sets.rows], axis=1) == 0).all()
    assert (np.diff(np.sort(codes[sets.rows], axis=1), axis=1) > 0).all()
    assert len(np.unique(sets.units)) > 200


def test_a_layout_that_allows_none_is_an_error():
    profiles, _ = one_layout(3)
    few = profiles[(profiles["Metadata_control_type"] != "negcon") | profiles["Metadata_Well"].str.startswith("A")]
    with pytest.raises(ValueError, match=r"no null by position in this layout: .* negative controls at [0-7] positions"):
        percent_replicating(few, null="position")
    with pytest.raises(ValueError, match="no null by position in this layout: every treatment keeps its well"):
        replicability(few, null="position", null_size=100)
    with pytest.raises(ValueError, match="no null by position: Harmony"):
        percent_replicating(profiles, null="position", controls="Harmony was fitted on them")
    with pytest.raises(ValueError, match="null must be"):
        percent_replicating(profiles, null="row")


def test_maps_negatives_are_the_wells_of_a_position_where_layouts_allow_it():
    from copairs.map import average_precision

    profiles, _ = several_layouts(4, n_plates=3)
    result = replicability(profiles, null="position", null_size=200)
    assert result.settings["null_of"] == TREATMENTS
    rows = profiles.copy()
    control = rows["Metadata_control_type"] == "negcon"
    rows["sample"] = rows["Metadata_broad_sample"].where(~control, [f"control {i}" for i in range(len(rows))])
    score = average_precision(
        rows[["sample", "Metadata_Well"]], values(rows), ["sample"], [], ["Metadata_Well"], ["sample"], progress_bar=False
    )
    here = rows.groupby("Metadata_Well")["sample"]
    others = here.transform("size") - rows.groupby(["Metadata_Well", "sample"])["sample"].transform("size")
    expected = score[~control & (others >= 2)].groupby("sample")["average_precision"].mean()
    assert (~control & (others < 2)).any()
    assert any("left out" in f for f in result.findings)
    assert all(c.reason.startswith("replicates are ranked among wells of their own position") for c in result.checks)
    np.testing.assert_allclose(result.table.set_index("Metadata_broad_sample")["value"], expected, rtol=0, atol=1e-12)


def test_maps_p_in_one_layout_is_the_share_of_control_positions_that_do_as_well():
    profiles, _ = one_layout(5)
    usual, result = (replicability(profiles, null=n, null_size=200) for n in ("wells", "position"))
    control = next(c for c in usual.checks if c.place == "position").values
    np.testing.assert_array_equal(result.table["value"], usual.table["value"])
    expected = [(1 + (control >= v).sum()) / (1 + len(control)) for v in result.table["value"]]
    np.testing.assert_allclose(result.table["p_map"], expected, rtol=1e-12)
    assert result.table["p_geometric"].min() == pytest.approx(1 / 65)


def test_an_interval_is_the_bootstrap_that_numpy_would_do():
    random = np.random.default_rng(0)
    values, members = random.normal(1, 1, 60), np.arange(60)
    null_members = random.integers(60, size=(300, 2))
    null = random.normal(size=300)
    low, high = percent_interval(values, members, null, null_members, np.random.default_rng(1))
    shares = []
    for seed in range(400):
        counts = np.bincount(np.random.default_rng([2, seed]).integers(60, size=60), minlength=60)
        weights = counts[null_members].prod(axis=1)
        threshold = np.percentile(np.repeat(null, weights), 95)
        shares.append(100 * (np.repeat(values, counts) > threshold).mean())
    np.testing.assert_allclose([low, high], np.percentile(shares, [2.5, 97.5]), atol=5)  # 500 and 400 resamples


def test_intervals_cover_the_truth():
    hits = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        passes = random.normal(0, 1, 100) + 1.0
        null = random.normal(size=2000)
        low, high = percent_interval(passes, np.arange(100), null, np.arange(2000) % 100, np.random.default_rng(seed))
        hits += low <= 26.0 <= high  # P(normal + 1 > 1.645) = 0.26
    assert hits >= 52  # of 57 expected, a standard deviation of 1.7
    low, high = mean_interval(np.random.default_rng(0).normal(size=400), np.random.default_rng(1))
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_nothing_scored_has_no_interval():
    low, high = percent_interval(
        np.array([np.nan]), np.array([0]), np.zeros(5), np.zeros((5, 1), int), np.random.default_rng(0)
    )
    assert np.isnan(low)
    assert np.isnan(high)


def test_a_null_whose_sets_outlive_no_resample_is_held_and_said():
    """16 of 18 treatments in a set: a resample of treatments leaves no set whole, and the interval was nan."""
    random = np.random.default_rng(0)
    members = np.stack([random.permutation(18)[:16] for _ in range(500)])
    values, null = np.where(np.arange(18) < 12, 3.0, -3.0), random.normal(size=500)
    low, high = percent_interval(values, np.arange(18), null, members, np.random.default_rng(1))
    resampled = [100 * (values[random.integers(18, size=18)] > 0).mean() for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.percentile(resampled, [2.5, 97.5]), atol=6)  # in steps of 100 / 18
    assert held_null(members).endswith("take 16 of 18 treatments, so that most resamples leave no set whole")
    assert held_null(members[:, :4]) == ""
    assert held_null(np.arange(20)) == ""


def test_a_score_says_that_its_null_is_held():
    plates, _ = draw_position_plates(0, 0.0, n_features=30)
    few = []
    for plate in plates:  # 6 treatments of many wells: a set of the null takes all of them
        control = plate["Metadata_control_type"].eq("negcon")
        names = [None if c else f"T{i % 6}" for i, c in zip(plate.index, control, strict=True)]
        few.append(plate.assign(Metadata_broad_sample=names)[control | (plate.index < 120)])
    score = percent_replicating(concatenate(few), draws=200)
    assert np.isfinite(score.interval).all()
    assert score.settings["interval_held"] in score.findings
    assert percent_replicating(concatenate(plates), draws=200).settings["interval_held"] == ""


@pytest.mark.parametrize("layouts", [one_layout, several_layouts])
def test_hits_of_a_null_by_position_are_checked_by_its_p(layouts):
    profiles = layouts(4)[0]
    precision = replicability(profiles, null="position", null_size=200)
    result = hits(precision, profiles)
    np.testing.assert_array_equal(result.table["position_checked"].astype(bool), result.table["p"] < 0.05)
    assert result.table["position_checked"].any()
    assert result.settings["null_of"] == precision.settings["null_of"]
    assert result.settings["position_threshold"] is None
    assert "hits are checked by position with p: the null is by position" in result.findings


def test_sets_that_no_plates_can_make_say_which_can():
    profiles = one_layout(6)[0]
    treated = profiles["Metadata_control_type"] != "negcon"
    names = profiles["Metadata_broad_sample"].where(~treated, profiles["Metadata_broad_sample"].str[:3])  # ten wells a plate
    profiles = profiles.assign(Metadata_broad_sample=names)
    n_plates = profiles["Metadata_Plate"].nunique()
    with pytest.raises(ValueError, match=rf"sets of fewer wells need fewer plates \(--null-wells {n_plates}\)"):
        percent_replicating(profiles, null="position", draws=100)
    assert percent_replicating(profiles, null="position", draws=100, null_wells=n_plates).settings["null_of"] == CONTROLS
