"""Selection rules against tables worked by hand and against pycytominer's own operations on drawn tables."""

import numpy as np
import pandas as pd
import pytest
from pycytominer.operations import correlation_threshold, frequency_threshold

from jumpgpu.profiles.recipe import SelectSettings
from jumpgpu.profiles.select import Correlations, blocklist, correlated, correlations, frequency, missing, select

SETTINGS = SelectSettings()


def table(**columns):
    return pd.DataFrame({f"Cells_{name}": values for name, values in columns.items()}, dtype=float)


def test_frequency_by_hand():
    # 40 wells. Ratio of the second commonest count to the commonest below 1/20 goes; so do fewer than 4 distinct values.
    profiles = table(
        all_distinct=range(40),  # 1 / 1 and 40 / 40: stays
        constant=[7] * 40,  # no second value: goes
        one_outlier=[0] * 39 + [1],  # 1 / 39 < 0.05: goes
        four_values=[0] * 20 + [1] * 18 + [2, 3],  # 18 / 20, 4 / 40 = 0.1 is not below 0.1: stays
        three_values=[0] * 20 + [1] * 18 + [2] * 2,  # 3 / 40 < 0.1: goes
        at_the_cut=[0] * 20 + list(range(1, 21)),  # 1 / 20 = 0.05 is not below 0.05: stays
        below_the_cut=[0] * 21 + list(range(1, 20)),  # 1 / 21: goes
        missing_count=[np.nan] * 36 + [1, 2, 3, 4],  # 4 values of 40 wells: stays
        missing_too_many=[np.nan] * 37 + [1, 2, 3],  # 3 of 40: goes
        empty=[np.nan] * 40,  # goes
    )
    excluded = frequency(profiles, list(profiles), SETTINGS)
    expected = ["constant", "one_outlier", "three_values", "below_the_cut", "missing_too_many", "empty"]
    assert excluded == [f"Cells_{name}" for name in expected]


def correlation(profiles, features, settings):
    return correlated(correlations(profiles[features].to_numpy(float)), features, settings)


def test_correlation_by_hand():
    # a and b correlate at 0.98, c opposes both (-0.96, -0.96: signed, so no pair above 0.9), d is apart.
    a = np.array([1.0, 2, 3, 4, 5, 6])
    profiles = table(a=a, b=[1, 2, 3, 4, 5, 8], c=-a + [0, 1, -1, 0, 1, -1], d=[1, -1, 0, 0, -1, 1])
    r = np.corrcoef(profiles.to_numpy().T)
    assert r[0, 1] > 0.9
    assert r[0, 2] < -0.9 < 0.9 < r[0, 1]
    strength = np.abs(r).sum(axis=1)
    stronger = "Cells_a" if strength[0] > strength[1] else "Cells_b"
    assert correlation(profiles, list(profiles), SETTINGS) == [stronger]


def test_of_equal_features_the_first_stays():
    x = np.random.default_rng(0).normal(size=30)
    profiles = table(a=x, b=x, c=2 * x + 1, d=np.random.default_rng(1).normal(size=30))
    assert correlation(profiles, list(profiles), SETTINGS) == ["Cells_b", "Cells_c"]


def test_a_chain_is_judged_pair_by_pair():
    # a - b and b - c are above 0.9, a - c is not; b has the largest sum and is the only one to go
    random = np.random.default_rng(5)
    b = random.normal(size=400)
    noise = random.normal(size=400)
    profiles = table(a=b + 0.4 * noise, b=b, c=b - 0.4 * noise)
    r = np.corrcoef(profiles.to_numpy().T)
    assert r[0, 1] > 0.9
    assert r[1, 2] > 0.9
    assert r[0, 2] < 0.9
    assert correlation(profiles, list(profiles), SETTINGS) == ["Cells_b"]


def test_missing_by_hand():
    profiles = table(two=[np.nan] * 2 + [1.0] * 38, three=[np.nan] * 3 + [1.0] * 37)  # 2 / 40 is not above 0.05
    assert missing(profiles, list(profiles), SETTINGS) == ["Cells_three"]


def test_the_blocklist_has_the_55_names():
    channels = ("AGP", "DNA", "ER", "Mito", "RNA")
    names = [f"Nuclei_Correlation_{m}_{a}_{b}" for m in ("Manders", "RWC") for a in channels for b in channels if a != b]
    names += [f"Nuclei_Granularity_{k}_{c}" for k in (14, 15, 16) for c in channels]
    profiles = pd.DataFrame(np.zeros((2, len(names) + 1)), columns=[*names, "Nuclei_Granularity_13_RNA"])
    assert len(names) == 55
    assert sorted(blocklist(profiles, list(profiles), SETTINGS)) == sorted(names)


def test_operations_are_united_not_chained():
    # b goes by frequency and by correlation with a; chained, it would be gone before correlation saw it and a pair unseen
    random = np.random.default_rng(2)
    a = random.integers(0, 2, 60).astype(float)
    profiles = table(a=a, b=a, c=random.normal(size=60))
    kept, reasons = select(profiles, SETTINGS)
    assert list(kept) == ["Cells_c"]
    assert reasons == {"Cells_a": "frequency", "Cells_b": "frequency; correlation"}


def test_correlations_are_kept_for_the_same_wells():
    profiles = drawn(3)
    known = Correlations()
    first = select(profiles, SETTINGS, known=known)
    other = profiles * np.random.default_rng(0).uniform(0.5, 3, profiles.shape[1]) + 7  # normalised by other wells
    assert select(other, SETTINGS, known=known)[1] == select(other, SETTINGS)[1] == first[1]
    fewer = other.drop(columns=list(other)[::3])
    assert select(fewer, SETTINGS, known=known)[1] == select(fewer, SETTINGS)[1]
    more = other.assign(Cells_more=other["Cells_1"] * 2)
    assert select(more, SETTINGS, known=known)[1] == select(more, SETTINGS)[1]


def drawn(seed, missing_share=0.0, n_wells=60, n_features=50):
    """Correlated features, some rounded to few values, some with missing and infinite entries."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(6, n_features)) * (random.random((6, n_features)) < 0.3)
    values = random.normal(size=(n_wells, 6)) @ mixing + 0.2 * random.normal(size=(n_wells, n_features))
    rounded = random.random(n_features) < 0.3
    values[:, rounded] = np.round(values[:, rounded] * random.choice([0.2, 1, 5], rounded.sum()))
    values[random.random(values.shape) < missing_share] = np.nan
    if missing_share:
        values[3, 7] = np.inf
    return pd.DataFrame(
        values * 10.0 ** random.integers(-6, 12, n_features), columns=[f"Cells_{i}" for i in range(n_features)]
    )


@pytest.mark.parametrize("share", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(8))
def test_drawn_tables_are_selected_as_pycytominer_does(seed, share):
    profiles = drawn(seed, share)
    features = list(profiles)
    expected = frequency_threshold(profiles, features, freq_cut=0.05, unique_cut=0.1)
    assert set(frequency(profiles, features, SETTINGS)) == set(expected)
    with np.errstate(invalid="ignore", divide="ignore"):  # constant features have no correlation
        expected = correlation_threshold(profiles, features, threshold=0.9)
    assert expected
    assert set(correlation(profiles, features, SETTINGS)) == set(expected)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_correlations_are_pandas(share):
    profiles = drawn(11, share)
    profiles["Cells_constant"] = 1e9 + 0.1
    expected = profiles.corr().to_numpy()
    # float64 over 60 rows; the constant column's rounding may pass for spread in pandas
    np.testing.assert_allclose(correlations(profiles.to_numpy())[:-1, :-1], expected[:-1, :-1], rtol=1e-9, atol=1e-10)
    assert np.isnan(correlations(profiles.to_numpy())[-1]).all()
