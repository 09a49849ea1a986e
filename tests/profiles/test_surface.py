"""The smooth surface against scikit-learn's kernel ridge, SciPy's normal density and refits."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.kernel_ridge import KernelRidge

from jumpgpu.profiles.surface import RATIOS, SHAPES, Positions, Surface, activity, covariance, restricted_likelihood


def positions(n, seed=0, rows=16, columns=24):
    at = np.random.default_rng(seed).permutation(rows * columns)[:n]
    return Positions(at // columns, at % columns, rows, columns)


def drawn(n=70, n_features=5, seed=0):
    random = np.random.default_rng(seed)
    where = positions(n, seed)
    smooth = np.linalg.cholesky(covariance(where, where, SHAPES[4]) + 1e-9 * np.eye(n)) @ random.normal(size=(n, n_features))
    return where, 3 + smooth * np.linspace(0, 2, n_features) + random.normal(size=(n, n_features))


def test_predictions_are_kernel_ridge_on_what_the_mean_leaves():
    where, values = drawn()
    surface, others = Surface(where, values, learned=0), positions(40, 9)
    k = covariance(where, where, surface.shape)
    for f in range(1, values.shape[1]):
        ratio = surface.ratio[f]
        inverse = np.linalg.inv(ratio * k + np.eye(len(k)))
        mean = inverse.sum(axis=0) @ values[:, f] / inverse.sum()  # generalised least squares
        ridge = KernelRidge(alpha=1 / ratio, kernel="precomputed").fit(k, values[:, f] - mean)
        expected = mean + ridge.predict(covariance(others, where, surface.shape))
        np.testing.assert_allclose(surface.predict(others)[:, f], expected, rtol=0, atol=1e-8)


def test_the_likelihood_is_the_density_of_contrasts():
    where, values = drawn()
    k, n = covariance(where, where, SHAPES[0]), len(values)
    contrasts = np.linalg.qr(np.c_[np.ones(n), np.eye(n)[:, : n - 1]])[0][:, 1:]
    w, v = np.linalg.eigh(contrasts.T @ k @ contrasts)
    z = v.T @ contrasts.T @ values
    best, ratio = restricted_likelihood(np.maximum(w, 0), z**2)
    for f in range(values.shape[1]):
        densities = []
        for r in RATIOS:
            shape = contrasts.T @ (r * k + np.eye(n)) @ contrasts
            y = contrasts.T @ values[:, f]
            variance = y @ np.linalg.solve(shape, y) / (n - 1)
            densities.append(multivariate_normal.logpdf(y, cov=variance * shape))
        assert ratio[f] == RATIOS[int(np.argmax(densities))]
        constant = -0.5 * (n - 1) * (np.log(2 * np.pi) + 1)  # which our likelihood leaves out
        np.testing.assert_allclose(best[f] + constant, max(densities), rtol=1e-9)


def test_a_position_left_out_is_a_refit_without_it(monkeypatch):
    where, values = drawn()
    whole = Surface(where, values, learned=0)
    for i in (0, 13, 69):
        keep = np.arange(len(where)) != i
        for r in np.unique(whole.ratio):
            monkeypatch.setattr("jumpgpu.profiles.surface.RATIOS", np.array([r]))  # the same ratio, the same shape
            refit = Surface(where.take(keep), values[keep], shapes=[whole.shape], learned=0)
            same = whole.ratio == r
            expected = refit.predict(where.take(np.array([i])))[0, same]
            np.testing.assert_allclose(whole.predict_left_out()[i, same], expected, rtol=0, atol=1e-8)


def patterned(seed, n_features=60):
    """A few patterns in different mixtures: a gradient, a bow and the outer ring, and noise of variance 1."""
    random = np.random.default_rng(seed)
    whole = Positions(*np.divmod(np.arange(384), 24), 16, 24)
    y, x = (whole.row - 7.5) / 7.5, (whole.column - 11.5) / 11.5
    truth = np.column_stack([x, y * y, whole.edge == 0]) @ random.normal(size=(3, n_features))
    return whole, truth, truth + random.normal(size=truth.shape)


def test_a_learned_covariance_is_that_of_the_surfaces_before():
    whole, _, values = patterned(0)
    fitted = np.arange(384) % 4 > 0
    before = Surface(whole.take(fitted), values[fitted], learned=0)
    after = Surface(whole.take(fitted), values[fitted], learned=1)
    sizes = np.sqrt(before.variance)  # of each feature's noise
    surfaces = [(before.predict(p) - before.mean) / sizes for p in (whole, whole.take(fitted))]
    surfaces = [s - surfaces[1].mean(axis=0) for s in surfaces]
    expected = surfaces[0] @ surfaces[1].T
    expected /= np.trace(surfaces[1] @ surfaces[1].T) / fitted.sum()
    np.testing.assert_allclose(after.kernel(whole), expected, rtol=0, atol=1e-8)


def test_patterns_that_features_share_are_learned():
    """Half the error of surfaces that know of no other feature."""
    errors = []
    for seed in range(3):
        whole, truth, values = patterned(seed)
        fitted = np.arange(384) % 4 > 0
        apart = whole.take(~fitted)
        found = [Surface(whole.take(fitted), values[fitted], learned=n).predict(apart) for n in (0, 4)]
        errors.append([((f - truth[~fitted]) ** 2).mean() for f in found])
    alone, learned = np.mean(errors, axis=0)
    assert learned < 0.55 * alone


def test_noise_alone_gives_no_surface_and_a_plane_is_found():
    where = positions(60, 3)
    random = np.random.default_rng(1)
    noise = Surface(where, random.normal(size=(60, 200)))
    assert (noise.ratio == 0).mean() > 0.4  # the chance that REML finds nothing, on the boundary, is one half
    assert np.var(noise.predict(positions(200, 4)), axis=0).mean() < 0.1  # of the noise's variance of 1
    plane = 0.2 * where.row[:, None] - 0.1 * where.column[:, None] + 0.05 * random.normal(size=(60, 3))
    others = positions(200, 5)
    error = Surface(where, plane).predict(others) - 0.2 * others.row[:, None] + 0.1 * others.column[:, None]
    assert np.sqrt((error**2).mean()) < 0.08  # the plane's spread is 1.2; corners beyond the fitted wells are the worst


def test_actives_do_not_bend_a_robust_surface():
    where, random = positions(300, 2), np.random.default_rng(2)
    truth = 0.1 * where.row[:, None] * np.ones(40)
    values = truth + 0.5 * random.normal(size=truth.shape)
    active = random.random(300) < 0.3
    values[active] += 6.0  # all in one direction: the plain mean moves by 1.8
    robust = Surface(where, values, scale=np.full(40, 0.5))
    plain = Surface(where, values)
    error = [np.abs(s.predict(where) - truth).mean() for s in (robust, plain)]
    assert error[0] < 0.4 < error[1]
    assert robust.noise[active].mean() > 5 * robust.noise[~active].mean()


def test_activity_is_the_mean_square_in_scales_and_ignores_features_without_one():
    residuals = np.array([[0.0, 0.0, 9.0], [3.0, 4.0, 9.0], [100.0, 0.0, 9.0]])
    np.testing.assert_array_equal(activity(residuals, np.array([1.0, 1.0, 0.0])), [1, 12.5, 12.5])


def test_few_positions_are_refused():
    with pytest.raises(ValueError, match="it needs 4 at least"):
        Surface(positions(3), np.zeros((3, 2)))


def test_another_tables_surface_is_smoothed_alike():
    where, values = drawn()
    surface = Surface(where, values)
    again = surface.of(values)
    np.testing.assert_allclose(again.predict(where), surface.predict(where), rtol=0, atol=1e-9)
    moved = surface.of(2 * values - 1)  # smoothing is linear and keeps constants
    np.testing.assert_allclose(moved.predict(where), 2 * surface.predict(where) - 1, rtol=0, atol=1e-8)
    gaps = values.copy()
    gaps[5] = np.nan
    filled = values.copy()
    filled[5] = surface.fitted[5]
    np.testing.assert_allclose(surface.of(gaps).predict(where), surface.of(filled).predict(where), rtol=0, atol=1e-12)
