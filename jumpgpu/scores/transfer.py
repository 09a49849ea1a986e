"""Condition transfer: predict a treatment's profile under one condition from its profile under another.

`pairs` gives matched wells under two conditions (cell line, time point, modality) as arrays with splits by treatment, and
`baselines` scores what a reader has to beat: the profile itself, a ridge regression, one of low rank, and optimal transport.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.platemap import SAMPLE
from ..profiles.text_tables import label_text
from .common import choose_wells, complete, generator, standardize
from .transfer_models import best, low_rank, transport

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.7, 0.1, 0.2)
RESAMPLES = 500
ALPHAS = tuple(10.0**k for k in range(-1, 7))  # ridge penalties tried, in units of the features' variance


@dataclass(frozen=True)
class Pairs:
    """n wells of one condition, each with a well of the same treatment under another.

    source, target   float64 [n, F]   features in `features`' order
    treatments       object [n]       what the two wells share
    split            object [n]       "train", "validation" or "test": a treatment is in one only
    wells            DataFrame [n]    plate and well of both
    settings         the features given and used, and the wells left out for want of features
    findings         what was left out, a line each
    """

    source: np.ndarray
    target: np.ndarray
    treatments: np.ndarray
    split: np.ndarray
    features: list[str]
    wells: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def part(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, target and treatments of one split."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; expected one of {SPLITS}")
        here = self.split == split
        return self.source[here], self.target[here], self.treatments[here]


def pairs(
    source: pd.DataFrame,
    target: pd.DataFrame,
    on: str = SAMPLE,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    also: Sequence[str] = (),
) -> Pairs:
    """Matched wells of two conditions.

    Parameters
    ----------
    source, target : DataFrame
        Profiles of all plates of each condition (`scores.concatenate`). Negative controls, empty wells and wells without
        enough features (`scores.complete`) are left out; of the features, those that are in both and finite in every
        well stay.
    on : str
        What two wells must share: the treatment (same plate map under two cell lines or times), or `Metadata_gene` between
        modalities.
    fractions : three shares
        Of the treatments in train, validation and test. Which one a treatment falls in depends on its name and the seed
        alone, so another condition splits it alike.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.

    Returns
    -------
    Pairs
        For each treatment the i-th of its source wells with the i-th of its target wells, both in (well, plate) order, until
        one side runs out.
    """
    if len(fractions) != 3 or abs(sum(fractions) - 1) > 1e-9 or min(fractions) < 0:
        raise ValueError(f"fractions must be three shares that sum to 1, got {tuple(fractions)}")
    chosen, sides = [], []
    for table in (source, target):
        wells = choose_wells(table, on)
        wells = wells.assign(**{on: label_text(wells[on])})
        chosen.append(complete(wells[wells[on].notna()], also))
        wells = chosen[-1].profiles.sort_values(["Metadata_Well", "Metadata_Plate"], kind="stable", ignore_index=True)
        sides.append(wells.assign(turn=wells.groupby(on).cumcount()))
    features = [f for f in chosen[0].features if f in set(chosen[1].features)]
    if not features:
        raise ValueError("no feature is finite in all wells of both conditions; select features first")
    keys = [s[[on, "turn", "Metadata_Plate", "Metadata_Well"]].assign(row=np.arange(len(s))) for s in sides]
    matched = keys[0].merge(keys[1], on=[on, "turn"], suffixes=("_source", "_target"))
    if matched.empty:
        raise ValueError(f"the two conditions share no {on}; nothing can be paired")
    matched = matched.sort_values([on, "turn"], kind="stable", ignore_index=True)
    source_values, target_values = (
        s[features].to_numpy(float)[matched[f"row_{side}"]] for s, side in zip(sides, ("source", "target"), strict=True)
    )
    split = split_of(matched[on].unique(), fractions, seed)
    columns = ["Metadata_Plate_source", "Metadata_Well_source", "Metadata_Plate_target", "Metadata_Well_target"]
    findings = [f for c in chosen for f in c.findings()]
    if len(features) < min(len(c.features) for c in chosen):
        findings.append(f"{len(features)} features are in common, of {' and '.join(str(len(c.features)) for c in chosen)}")
    return Pairs(
        source=source_values,
        target=target_values,
        treatments=matched[on].to_numpy(object),
        split=matched[on].map(split).to_numpy(object),
        features=features,
        wells=matched[columns],
        settings={
            "features": len(features),
            "features_given": max(c.n_features for c in chosen),
            "wells_left_out": [w for c in chosen for w in c.left_out],
        },
        findings=tuple(findings),
    )


def split_of(treatments: Iterable[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> dict[str, str]:
    """Treatment -> train, validation or test, by its name and the seed alone."""
    bounds = np.cumsum(fractions)
    places = {n: int(np.searchsorted(bounds, generator("split", n, seed).random(), "right")) for n in treatments}
    return {name: SPLITS[min(2, place)] for name, place in places.items()}


@dataclass(frozen=True)
class Baselines:
    """What is to be beaten: one row per baseline, as `evaluate` scores it."""

    condition: str
    table: pd.DataFrame
    settings: dict[str, Any]
    name: str = "transfer"
    findings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The scores as a record."""
        return {
            "score": self.name,
            "condition": self.condition,
            "baselines": self.table.to_dict("records"),
            **self.settings,
            "findings": list(self.findings),
        }

    def tidy(self) -> pd.DataFrame:
        """The table with its score and condition, to be put below others."""
        return self.table.assign(score=self.name, condition=self.condition)


def baselines(pairs: Pairs, condition: str = "", settings: dict[str, Any] | None = None) -> Baselines:
    """Scores on the test treatments: identity, ridge, low rank (PLS) and, with POT, entropic optimal transport.

    Each score has a 95 % interval (`<score>_low`, `_high`), by resampling the test treatments with their wells. The
    validation treatments decide what a method leaves open: penalty, rank, entropy.
    """
    source, target, treatments = pairs.part("test")
    predicted, alpha = ridge(pairs)
    trained = pairs.part("train")[:2]
    predictions = {"identity": source, f"ridge, alpha {alpha:g}": predicted}
    findings = list(pairs.findings)
    for name, models in (("low rank (PLS), rank", low_rank), ("optimal transport (Sinkhorn), entropy", transport)):
        try:
            value, predict = best(models(*trained), *pairs.part("validation")[:2])
        except RuntimeError as error:
            findings.append(str(error))
            continue
        predictions[f"{name} {value:g}"] = predict(source)
    center = trained[1].mean(axis=0)
    rows = []
    for name, values in predictions.items():
        random = generator("transfer interval", condition, len(target))
        scores = evaluate(values, target, treatments, center)
        rows.append({"baseline": name, **scores, **intervals(values, target, treatments, center, random)})
    return Baselines(condition, pd.DataFrame(rows), (settings or {}) | pairs.settings, findings=tuple(findings))


def ridge(pairs: Pairs) -> tuple[np.ndarray, float]:
    """The test targets as ridge regression on the training wells predicts them, and the penalty.

    Features are standardised by the training wells; the penalty of least squared error on the validation wells is taken.
    """
    source, target, _ = pairs.part("train")
    if len(source) < 2 or not (pairs.split == "validation").any() or not (pairs.split == "test").any():
        raise ValueError("too few treatments for a split into train, validation and test")
    mean, spread = source.mean(axis=0), source.std(axis=0)
    spread[spread == 0] = 1
    x, y = (source - mean) / spread, target - target.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(x @ x.T)  # the dual problem: as many unknowns as wells, one decomposition
    rotated = vectors.T @ y

    def predict(new: np.ndarray, alpha: float) -> np.ndarray:
        weights = vectors @ (rotated / (np.maximum(eigenvalues, 0) + alpha * x.shape[1])[:, None])
        result: np.ndarray = ((new - mean) / spread) @ x.T @ weights + target.mean(axis=0)
        return result

    held_source, held_target, _ = pairs.part("validation")
    errors = [float(((predict(held_source, a) - held_target) ** 2).mean()) for a in ALPHAS]
    alpha = ALPHAS[int(np.argmin(errors))]
    return predict(pairs.part("test")[0], alpha), alpha


@dataclass(frozen=True)
class Errors:
    """Of each test well: its treatment, r of prediction and target, whether it was retrieved, squared error and spread."""

    codes: np.ndarray
    own: np.ndarray
    retrieved: np.ndarray
    error: np.ndarray
    spread: np.ndarray

    def scores(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        total = self.spread[rows].sum()
        return {
            "correlation": float(np.nanmedian(self.own[rows])),
            "explained_variance": float(1 - self.error[rows].sum() / total) if total > 0 else float("nan"),
            "retrieval": float(self.retrieved[rows].mean()),
        }


def errors_of(predicted: np.ndarray, target: np.ndarray, treatments: np.ndarray, center: np.ndarray | None) -> Errors:
    names, codes = np.unique(treatments.astype(str), return_inverse=True)
    centers = np.stack([target[codes == i].mean(axis=0) for i in range(len(names))])
    own = (standardize(predicted) * standardize(target)).sum(axis=1)
    nearest = np.nan_to_num(standardize(predicted) @ standardize(centers).T, nan=-2).argmax(axis=1)
    about = target.mean(axis=0) if center is None else center
    return Errors(codes, own, nearest == codes, ((predicted - target) ** 2).sum(1), ((target - about) ** 2).sum(1))


def evaluate(
    predicted: np.ndarray, target: np.ndarray, treatments: np.ndarray, center: np.ndarray | None = None
) -> dict[str, float]:
    """How near predictions come to their targets.

    Parameters
    ----------
    predicted, target : float64 [n, F]
    treatments : [n]
    center : float64 [F], optional
        What a prediction of no knowledge is, against which variance is explained: the mean of the training targets. The
        targets' own mean where None.

    Returns
    -------
    dict
        correlation: median Pearson r between a predicted profile and its own target. explained_variance: 1 - squared error
        over the squared distance of the targets to `center`, over all wells and features; below 0 is worse than no
        knowledge. retrieval: share of predictions nearest (by r) to the mean target of their own treatment. chance:
        retrieval by guessing, one over the number of treatments.
    """
    errors = errors_of(predicted, target, treatments, center)
    n = int(errors.codes.max()) + 1
    return {**errors.scores(), "chance": 1 / n, "treatments": n, "wells": len(target)}


def intervals(
    predicted: np.ndarray,
    target: np.ndarray,
    treatments: np.ndarray,
    center: np.ndarray | None,
    random: np.random.Generator,
) -> dict[str, float]:
    """95 % intervals of `evaluate`'s scores, by resampling treatments with their wells: `<score>_low` and `_high`."""
    errors = errors_of(predicted, target, treatments, center)
    wells = [np.flatnonzero(errors.codes == i) for i in range(int(errors.codes.max()) + 1)]
    drawn = [
        errors.scores(np.concatenate([wells[i] for i in random.integers(len(wells), size=len(wells))]))
        for _ in range(RESAMPLES)
    ]
    result: dict[str, float] = {}
    for name in drawn[0]:
        values = np.array([d[name] for d in drawn])
        low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
        result |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return result
