"""What scores say of negative controls that share a place: NumPy twins, SciPy, known effects, the published plates."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.control_check import (
    PLACES,
    ControlCheck,
    check_matching,
    check_precision,
    check_replicating,
    draw_sets,
    judge_units,
    places,
    proportion_interval,
)
from jumpgpu.scores.mean_average_precision import replicability
from jumpgpu.scores.percent_matching import percent_matching
from jumpgpu.scores.percent_replicating import percent_replicating
from tests.helpers.profiles_drawn import draw_position_plates


def drawn(seed=0, effect=1.0, **options):
    plates, active = draw_position_plates(seed, effect, n_features=40, **options)
    return concatenate(plates), active


def of(checks, place):
    return next(c for c in checks if c.place == place)


def twin_values(profiles, features):
    """Median correlation of each control position's wells, by pandas."""
    controls = profiles[profiles["Metadata_control_type"] == "negcon"]
    values = []
    for _, rows in controls.groupby("Metadata_Well"):
        r = rows[features].T.corr().to_numpy()
        values.append(np.median(r[np.triu_indices(len(r), 1)]))
    return np.array(values)


def test_positions_are_judged_as_a_numpy_twin_judges_them():
    profiles, _ = drawn(0)
    features = feature_columns(profiles)
    check = of(check_replicating(profiles, features, 4), "position")
    values = twin_values(profiles, features)
    np.testing.assert_allclose(np.sort(check.values), np.sort(values), rtol=0, atol=1e-12)
    controls = profiles[profiles["Metadata_control_type"] == "negcon"]
    random, null = np.random.default_rng(5), []
    r = np.corrcoef(controls[features].to_numpy())
    plate, well = (pd.factorize(controls[c])[0] for c in ("Metadata_Plate", "Metadata_Well"))
    by_plate = [np.flatnonzero(plate == p) for p in range(4)]
    while len(null) < 4000:
        rows = np.array([random.choice(b) for b in by_plate])
        if len(set(well[rows])) == 4:
            null.append(np.median(r[np.ix_(rows, rows)][np.triu_indices(4, 1)]))
    expected = 100 * (values > np.percentile(null, 95)).mean()
    assert check.percent == pytest.approx(expected, abs=4)  # one null or another: two or three of 64 positions
    assert check.n == 64


def test_a_position_effect_is_found_and_its_absence_is_not():
    for effect, alarmed in ((1.5, True), (0.0, False)):
        score = percent_replicating(drawn(1, effect)[0], draws=500)
        check = of(score.checks, "position")
        assert (check.low > 5) == alarmed == bool(check.finding())
        assert any("share only a position" in f for f in score.findings) == alarmed
        record = score.summary()
        assert record["controls_position_percent"] == check.percent
        assert {f"controls_{p}_low" for p in PLACES} <= set(record)


def test_by_chance_five_percent_pass_over_many_draws():
    percents = [
        of(check_replicating(drawn(s, 0.0)[0], feature_columns(drawn(s, 0.0)[0]), 4), "position").percent for s in range(12)
    ]
    assert np.mean(percents) == pytest.approx(5, abs=2.4)  # 768 positions: a standard error of 0.8


def test_sets_differ_where_they_must():
    profiles, _ = drawn(2)
    at = places(profiles[profiles["Metadata_control_type"] == "negcon"].reset_index(drop=True))
    sets = draw_sets(at, 4, 500, np.random.default_rng(0), differ=("position", "plate", "row"))
    assert sets.shape == (500, 4)
    for place in ("position", "plate", "row"):
        codes = np.sort(at[place].to_numpy()[sets], axis=1)
        assert (np.diff(codes, axis=1) > 0).all()
    assert len(draw_sets(at, 5, 10, np.random.default_rng(0), differ=("plate",))) == 0


def test_rows_columns_and_plates_are_seen_by_themselves():
    profiles, _ = drawn(3, 0.0)
    features = feature_columns(profiles)
    random = np.random.default_rng(0)
    for place, key in (("row", profiles["Metadata_Well"].str[0]), ("plate", profiles["Metadata_Plate"])):
        shift = {k: random.normal(size=len(features)) * 1.5 for k in sorted(set(key))}
        moved = profiles.copy()
        moved[features] += np.stack([shift[k] for k in key])
        checks = check_replicating(moved, features, 4)
        assert of(checks, place).low > 5
        other = "column" if place == "row" else "row"
        assert of(checks, other).percent < of(checks, place).percent / 2


def test_intervals_are_exact_binomial():
    for passed, n in ((34, 64), (0, 64), (64, 64), (3, 64)):
        low, high = proportion_interval(np.arange(n) < passed)
        assert low == pytest.approx(0 if passed == 0 else 100 * beta.ppf(0.025, passed, n - passed + 1))
        assert high == pytest.approx(100 if passed == n else 100 * beta.ppf(0.975, passed + 1, n - passed))


def test_a_check_that_cannot_be_says_why():
    profiles, _ = drawn(4)
    features = feature_columns(profiles)
    assert of(check_replicating("Harmony was fitted on them", features, 4), "row").reason == "Harmony was fitted on them"
    treated = profiles[profiles["Metadata_control_type"] != "negcon"]
    assert "no negative control" in of(check_replicating(treated, features, 4), "position").reason
    one = profiles[profiles["Metadata_Plate"] == "P1"]
    checks = check_replicating(one, features, 4)
    assert "one plate" in of(checks, "position").reason
    assert of(checks, "position").line().startswith("negative controls that share only a position: not checked: ")
    few = profiles[(profiles["Metadata_control_type"] != "negcon") | profiles["Metadata_Well"].str.startswith("A")]
    assert "at least 8 are needed" in of(check_replicating(few, features, 4), "position").reason
    assert judge_units("row", [np.ones(3)] * 2, np.zeros(500), np.random.default_rng(0)).reason


def test_precision_of_controls_is_copairs_own():
    from copairs.map import average_precision

    profiles, _ = drawn(5, n_plates=3)
    features = feature_columns(profiles)
    check = of(check_precision(profiles, features, null_size=500), "position")
    controls = profiles[profiles["Metadata_control_type"] == "negcon"].reset_index(drop=True)
    meta = controls[["Metadata_Plate", "Metadata_Well"]]
    result = average_precision(
        meta,
        controls[features].to_numpy(),
        ["Metadata_Well"],
        ["Metadata_Plate"],
        ["Metadata_Plate"],
        ["Metadata_Well"],
        progress_bar=False,
    )
    expected = result.groupby("Metadata_Well")["average_precision"].mean().to_numpy()
    np.testing.assert_allclose(np.sort(check.values), np.sort(expected), rtol=0, atol=1e-12)
    assert check.further["mean_map"] == pytest.approx(expected.mean())


def test_matching_is_checked_by_position_between_sets_and_by_row_within():
    profiles, _ = drawn(6, 1.5)
    features = feature_columns(profiles)
    first, second = (profiles[profiles["Metadata_Plate"].isin(p)] for p in (["P1", "P2"], ["P3", "P4"]))
    between = check_matching(first, second, features)
    assert [c.place for c in between] == ["position", "row", "column"]
    assert of(between, "position").low > 5
    controls = [t[t["Metadata_control_type"] == "negcon"].groupby("Metadata_Well")[features].mean() for t in (first, second)]
    r = np.corrcoef(controls[0].to_numpy(), controls[1].to_numpy())[:64, 64:]
    np.testing.assert_allclose(np.sort(of(between, "position").values), np.sort(np.diag(r)), rtol=0, atol=1e-12)
    assert [c.place for c in check_matching(profiles, None, features)] == ["row", "column"]
    clean = check_matching(drawn(6, 0.0)[0], None, features)
    assert all(c.low <= 5 for c in clean)
    labelled = profiles.assign(
        Metadata_gene=[None if s is None else f"g{int(s[1:4]) % 40}" for s in profiles["Metadata_broad_sample"]]
    )
    assert [c.place for c in percent_matching(labelled, draws=200).checks] == ["row", "column"]


def test_lines_say_percent_interval_and_number():
    check = ControlCheck("position", 53.1, 40.2, 65.7, 64, further={"mean_map": 0.244})
    assert check.line() == (
        "negative controls that share only a position: 53.1 % pass [40.2, 65.7] over 64 positions (chance 5 %), "
        "mean map 0.244"
    )
    assert "53.1 %" in check.finding()
    assert "--null position" in check.finding()
    assert ControlCheck("row", 6.0, 2.0, 9.0, 12).finding() == ""


def test_published_controls_replicate_by_position(shared):
    folder = shared / "data" / "profiles"
    profiles = concatenate([read_profiles(f) for f in sorted(folder.glob("*.csv.gz"))])
    check = of(percent_replicating(profiles, draws=500).checks, "position")
    assert check.percent == pytest.approx(53.1, abs=2)
    assert check.low > 35
    assert check.n == 64
    maps = of(replicability(profiles, null_size=200).checks, "position")
    assert maps.further["mean_map"] == pytest.approx(0.2442, abs=0.0005)
