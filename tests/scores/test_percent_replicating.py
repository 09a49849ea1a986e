"""Percent Replicating of four published plates against the published figures (../shared/spec/profiling.md).

CPJUMP1, December 2021 profiles of BR00117010..13: compounds, U2OS, 48 h. Published: 74.5 % with 10,000 draws.
"""

import numpy as np
import pytest

from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import choose_features, concatenate
from jumpgpu.scores.percent_replicating import percent_replicating
from jumpgpu.settings.names import BRIGHTFIELD

PLATES = ("BR00117010", "BR00117011", "BR00117012", "BR00117013")


@pytest.fixture(scope="module")
def published(shared):
    folder = shared / "data" / "profiles"
    return concatenate([read_profiles(folder / f"{p}_normalized_feature_select_negcon_batch.csv.gz") for p in PLATES])


def mean_of_seeds(profiles):
    """Over five seeds: the null is drawn, and one draw moves the score by a few treatments of 306."""
    return np.mean([percent_replicating(profiles, null_wells=4, draws=10_000, seed=seed).percent for seed in range(5)])


def test_percent_replicating_is_the_published(published):
    assert len(feature_columns(published)) == 904
    assert mean_of_seeds(published) == pytest.approx(74.5, abs=1)


def test_percent_replicating_of_fluorescence_alone(published):
    fluorescence = choose_features(feature_columns(published), without_channels=BRIGHTFIELD)
    assert len(fluorescence) == 602
    brightfield = [f for f in feature_columns(published) if f not in set(fluorescence)]
    assert mean_of_seeds(published.drop(columns=brightfield)) == pytest.approx(78, abs=1)


def test_neither_order_of_plates_nor_of_wells_changes_the_score(published):
    shuffled = published.sample(frac=1, random_state=3)
    a, b = (percent_replicating(p, draws=2000) for p in (published, shuffled))
    np.testing.assert_array_equal(a.null, b.null)
    assert a.table.equals(b.table)
