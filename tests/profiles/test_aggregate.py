"""A well's means: every feature's cells added in turn, whatever the width of the table and its order in memory."""

import numpy as np
import pytest

from jumpgpu.profiles.aggregate import summarize
from jumpgpu.store.means import BLOCK


@pytest.mark.parametrize("width", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("order", ["C", "F"])
def test_means_are_those_of_values_added_in_turn(width, order):
    rng = np.random.default_rng(width)
    values = np.asarray(np.exp(3 * rng.normal(size=(301, width))), np.float32, order=order)
    values[rng.random(values.shape) < 0.02] = np.nan
    values[:, 0] = np.where(rng.random(301) < 0.5, values[:, 0], 0)
    before = values.copy()
    added = np.add.accumulate(np.where(np.isnan(values), 0, values).astype(np.float64), axis=0)[-1]
    expected = added / (~np.isnan(values)).sum(axis=0)
    result = summarize(values, "mean")
    if width > 1:  # of one column NumPy adds halves, as it always did
        assert result.tobytes() == expected.tobytes()
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    np.testing.assert_array_equal(values, before)


def test_a_feature_without_values_and_one_with_both_infinities_have_no_mean():
    values = np.array([[np.nan, np.inf, np.inf], [np.nan, -np.inf, 1.0]], np.float32)
    np.testing.assert_array_equal(summarize(values, "mean"), [np.nan, np.nan, np.inf])
