"""A smooth surface over a plate's rows and columns, for thousands of features at once, with shrinkage that the data choose.

Kriging: a feature's value at a position is a mean, a smooth random surface and noise. The surface's covariance has a smooth
part (Gaussian in the distance between wells), a part for the outermost wells, together and ring by ring, and one for whole
rows and columns. How strong the surface is beside the noise is found for every feature by restricted maximum likelihood
(REML; 0, no surface, is among the choices), and the covariance's shape for all features together. The same arithmetic is a
random-effects model with known covariances, or a smoothing spline whose penalty REML chose.

What places do is much the same in all features: a few patterns (an edge, a gradient) in different mixtures. So the
covariance is then learned: that of the fitted surfaces over the features takes the place of the one before, and surfaces
are fitted anew, a few times over. Patterns that noise made in few features die out, since each fit shrinks them again.

Fitted robustly, values far from the surface are drawn in (Huber's pseudo-values), and a position that is unlike its
neighbours in many features, as an active treatment's is, gets a larger noise in all of them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATIOS = np.concatenate([[0.0], 10.0 ** np.arange(-2, 1.6, 0.25)])  # surface's variance / noise's variance
SHAPES = tuple((length, lines, edge) for length in (2.0, 4.0, 8.0) for lines in (0.0, 0.1) for edge in (0.5, 2.0))
HUBER = 1.5  # residuals beyond so many scales are drawn in
FIRST = 2.5  # the same before there is a surface
CAP = 5.0  # a feature counts for at most this many scales in how unlike its neighbours a position is
ROUNDS = 4  # of fitting and drawing in
LEARNED = 4  # more, each with the covariance of the surfaces before
SAMPLE_FEATURES = 150  # features on which the covariance's shape is chosen


@dataclass(frozen=True)
class Positions:
    """Wells on a plate: row and column from 0, int [P], and the plate's rows and columns."""

    row: np.ndarray
    column: np.ndarray
    rows: int
    columns: int

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: np.ndarray) -> "Positions":
        return Positions(self.row[which], self.column[which], self.rows, self.columns)

    @property
    def edge(self) -> np.ndarray:
        """Wells between each and the nearest edge: 0 on it."""
        return np.minimum.reduce([self.row, self.rows - 1 - self.row, self.column, self.columns - 1 - self.column])

    def distances(self, other: "Positions") -> np.ndarray:
        """float64 [P, Q]: distances between wells, in wells of a 384-well plate (its pitch is 4.5 mm)."""
        wells = np.hypot(self.row[:, None] - other.row, self.column[:, None] - other.column)
        distances: np.ndarray = wells * (24 / self.columns)
        return distances


def covariance(a: Positions, b: Positions, shape: tuple[float, float, float]) -> np.ndarray:
    """Covariance of the surface between wells: float64 [P, Q]; shape is (length, of whole lines, of the edge)."""
    length, lines, edge = shape
    smooth = np.exp(-(a.distances(b) ** 2) / (2 * length**2))
    lines_part = lines * ((a.row[:, None] == b.row).astype(float) + (a.column[:, None] == b.column))
    ring = 1.0 + (a.edge[:, None] == b.edge)  # a part that rings share and one of each ring
    total: np.ndarray = smooth + edge * np.exp(-(a.edge[:, None] + b.edge).astype(float)) * ring + lines_part
    return total


def restricted_likelihood(eigenvalues: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greatest REML log-likelihood over `RATIOS` and the ratio that has it, both float64 [F].

    eigenvalues [P - 1] are the covariance's over contrasts; squares [P - 1, F] the squared contrasts.
    """
    n = len(eigenvalues)
    best, ratio = np.full(squares.shape[1], -np.inf), np.zeros(squares.shape[1])
    for r in RATIOS:
        d = r * eigenvalues + 1
        variance = np.maximum((1 / d) @ squares / n, 1e-300)
        likelihood = -0.5 * (n * np.log(variance) + np.log(d).sum())
        better = likelihood > best
        best, ratio = np.where(better, likelihood, best), np.where(better, r, ratio)
    return best, ratio


class Surface:
    """Surfaces of F features, fitted to P positions.

    Parameters
    ----------
    positions : Positions
    values : float64 [P, F]
        Finite.
    scale : float64 [F], optional
        The spread of positions without an effect (the negative controls'). With it the fit is robust; without, it is
        ordinary: right where every position is a control.
    noise : float64 [P], optional
        Variance of each position's noise beside the others' (fewer plates: larger); 1 without.
    learned : int
        Rounds in which the covariance is learned from the surfaces; 0: it stays what `shape` says.

    Attributes
    ----------
    shape : (length, lines, edge) of the covariance, before it is learned
    ratio : float64 [F], the surface's variance over the noise's; 0: no surface, a mean
    noise : float64 [P], each position's noise variance beside a control's
    """

    def __init__(
        self,
        positions: Positions,
        values: np.ndarray,
        scale: np.ndarray | None = None,
        noise: np.ndarray | None = None,
        shapes: Sequence[tuple[float, float, float]] = SHAPES,
        learned: int = LEARNED,
    ) -> None:
        if len(positions) < 4:
            raise ValueError(f"a surface over {len(positions)} wells; it needs 4 at least")
        self.positions, self.values = positions, values
        base = np.ones(len(positions)) if noise is None else noise / np.median(noise)
        pseudo, self.noise = values, base
        if scale is not None:
            middle = np.median(values, axis=0)
            pseudo = middle + np.clip(values - middle, -FIRST * scale, FIRST * scale)
            self.noise = base * activity(values - middle, scale)
        self.patterns, self.offset = np.eye(len(positions)), np.zeros(len(positions))
        rounds = 1 if scale is None else ROUNDS
        for i in range(rounds + learned):
            if i >= rounds:
                self._learn()
            self._fit(pseudo, shapes if i in (0, rounds // 2) else [self.shape])
            if scale is not None and i < rounds + learned - 1:
                pseudo = self.fitted + np.clip(values - self.fitted, -HUBER * scale, HUBER * scale)
                self.noise = base * activity(values - self.fitted, scale)

    def kernel(self, positions: Positions) -> np.ndarray:
        """Covariance of the surface between positions and those it was fitted to: float64 [Q, P]."""
        k: np.ndarray = covariance(positions, self.positions, self.shape) @ self.patterns + self.offset
        return k

    def _learn(self) -> None:
        """The covariance of the fitted surfaces, in units of each feature's noise, as the surface's covariance.

        A surface is linear in the covariance to the fitted positions, and so is the new covariance: patterns and offset.
        """
        given = self.weights * self.ratio / np.sqrt(self.variance)
        surfaces = self.kernel(self.positions) @ given
        centre = surfaces.T @ (1 / self.noise) / (1 / self.noise).sum()
        surfaces -= centre
        size = (surfaces**2).sum() / len(surfaces)
        if size > 0:
            self.patterns, self.offset = (
                self.patterns @ (given @ surfaces.T) / size,
                (self.offset @ given - centre) @ surfaces.T / size,
            )

    def _fit(self, pseudo: np.ndarray, shapes: Sequence[tuple[float, float, float]]) -> None:
        n, n_features = pseudo.shape
        weight = 1 / np.sqrt(self.noise)
        scaled = weight[:, None] * pseudo
        basis = np.concatenate([weight[:, None], np.eye(n)[:, : n - 1]], axis=1)
        contrasts = np.linalg.qr(basis)[0][:, 1:]
        some = np.unique(np.linspace(0, n_features - 1, min(n_features, SAMPLE_FEATURES)).astype(int))
        best, chosen = -np.inf, shapes[0]
        for self.shape in shapes:
            k = self.kernel(self.positions)
            k = weight[:, None] * (k + k.T) / 2 * weight
            w, v = np.linalg.eigh(contrasts.T @ k @ contrasts)
            w, u = np.maximum(w, 0), contrasts @ v
            likelihood = restricted_likelihood(w, (u.T @ scaled[:, some]) ** 2)[0].sum()
            if likelihood > best:
                best, chosen, eigenvalues, vectors = likelihood, self.shape, w, u
        self.shape = chosen
        squares = (vectors.T @ scaled) ** 2
        self.ratio = restricted_likelihood(eigenvalues, squares)[1]
        self.variance = np.maximum((squares / (self.ratio * eigenvalues[:, None] + 1)).mean(axis=0), 1e-300)
        self.eigenvalues, self.vectors = eigenvalues, vectors
        self._solve(pseudo)

    def _solve(self, pseudo: np.ndarray) -> None:
        """Weights, mean and fit for values under the covariance, noise and ratios that stand."""
        weight = 1 / np.sqrt(self.noise)
        z = self.vectors.T @ (weight[:, None] * pseudo)
        self.weights = weight[:, None] * (self.vectors @ (z / (self.ratio * self.eigenvalues[:, None] + 1)))
        self.fitted = pseudo - self.noise[:, None] * self.weights
        smooth = self.kernel(self.positions) @ self.weights
        self.mean = (self.fitted - self.ratio * smooth).mean(axis=0)
        leverage = np.empty_like(self.weights)  # of the restricted inverse: what leaving a position out divides by
        for r in np.unique(self.ratio):
            diagonal = weight**2 * (self.vectors**2 @ (1 / (r * self.eigenvalues + 1)))
            leverage[:, self.ratio == r] = diagonal[:, None]
        self.left_out = pseudo - self.weights / leverage

    def of(self, values: np.ndarray, scale: np.ndarray | None = None) -> "Surface":
        """Another table's surface, float64 [P, F], smoothed as this one: covariance, noise and ratios are not fitted again.

        nan takes this surface's own value; with a scale, values far from the new surface are drawn in.
        """
        other = copy.copy(self)
        values = np.where(np.isfinite(values), values, self.fitted)
        other._solve(values)
        if scale is not None:
            for _ in range(ROUNDS - 1):
                other._solve(other.fitted + np.clip(values - other.fitted, -HUBER * scale, HUBER * scale))
        return other

    def predict(self, positions: Positions) -> np.ndarray:
        """Mean and surface at these positions: float64 [Q, F]."""
        surface: np.ndarray = self.mean + self.ratio * (self.kernel(positions) @ self.weights)
        return surface

    def predict_left_out(self) -> np.ndarray:
        """Mean and surface at each fitted position, from the others (ratios and shape as fitted): float64 [P, F]."""
        return self.left_out


def activity(residuals: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """How unlike its surroundings each position is: mean over features of its squared scaled residual, 1 at the least."""
    usable = scale > 0
    z = np.minimum(np.abs(residuals[:, usable]) / scale[usable], CAP)
    return np.maximum(1.0, (z * z).mean(axis=1)) if usable.any() else np.ones(len(residuals))
