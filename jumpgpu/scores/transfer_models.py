"""Predictors of one condition's profiles from another's beside identity and ridge: low rank and optimal transport.

Both are libraries' own (scikit-learn's PLSRegression, POT's SinkhornTransport); the validation treatments decide what they
leave open. Features are standardised by the training wells, each side by its own.
"""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RANKS = (1, 2, 4, 8, 16, 32)
ENTROPIES = (0.03, 0.1, 0.3, 1.0)  # of Sinkhorn, in units of the median cost

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Standard:
    """Values as z-scores of the training wells: float64 [n, F]."""

    mean: np.ndarray
    spread: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> "Standard":
        spread = values.std(axis=0)
        return Standard(values.mean(axis=0), np.where(spread == 0, 1, spread))

    def to(self, values: np.ndarray) -> np.ndarray:
        return (values - self.mean) / self.spread

    def back(self, values: np.ndarray) -> np.ndarray:
        return values * self.spread + self.mean


def best(models: dict[float, Predict], held_source: np.ndarray, held_target: np.ndarray) -> tuple[float, Predict]:
    """The model of least squared error on the validation wells, and what it was made with."""
    errors = {value: float(((predict(held_source) - held_target) ** 2).mean()) for value, predict in models.items()}
    value = min(errors, key=lambda v: (errors[v], v))
    return value, models[value]


def low_rank(source: np.ndarray, target: np.ndarray) -> dict[float, Predict]:
    """Partial least squares by the number of directions: source and target [n, F] of the training wells."""
    from sklearn.cross_decomposition import PLSRegression

    before, after = Standard.of(source), Standard.of(target)
    ranks = [r for r in RANKS if r <= min(len(source) - 1, source.shape[1], target.shape[1])]
    full = PLSRegression(n_components=ranks[-1], scale=False).fit(before.to(source), after.to(target))
    x, y = full.x_rotations_, full.y_loadings_

    def predict(rank: int) -> Predict:
        # Directions are found one after the other, so those of a lower rank are the first of a higher.
        return lambda new: after.back((before.to(new) - full._x_mean) @ x[:, :rank] @ y[:, :rank].T + full.intercept_)

    return {rank: predict(rank) for rank in ranks}


def transport(source: np.ndarray, target: np.ndarray) -> dict[float, Predict]:
    """Entropic optimal transport from the training wells of one condition to those of the other, without their pairs.

    It learns how the two clouds of wells lie to each other. A new well moves as the nearest training well does. An entropy
    for which Sinkhorn does not converge is left out. RuntimeError without POT, or where none converges.
    """
    try:
        import ot
    except ImportError as error:
        raise RuntimeError("optimal transport needs POT: pip install 'jumpgpu[transfer]'") from error
    before, after = Standard.of(source), Standard.of(target)

    def predict(entropy: float) -> Predict:
        model = ot.da.SinkhornTransport(reg_e=entropy, norm="median", max_iter=2000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(Xs=before.to(source), Xt=after.to(target))

        def move(new: np.ndarray) -> np.ndarray:
            result: np.ndarray = after.back(model.transform(before.to(new)))
            return result

        return move

    models = {}
    for entropy in ENTROPIES:
        with contextlib.suppress(UserWarning):
            models[entropy] = predict(entropy)
    if not models:
        raise RuntimeError(f"optimal transport: Sinkhorn converges for no entropy of {', '.join(map(str, ENTROPIES))}")
    return models
