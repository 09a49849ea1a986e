"""Batches (plates, sources): ComBat, and how much of the profiles is the batch, before and after each step.

The numbers of `batch_effects` are of negative controls, which every batch shares: what tells their batches apart is no
treatment. After a step that was fitted on these controls (sphering, ComBat, Harmony) the numbers say what the fit did to
them, not what it would do to other wells; `in_sample` marks them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .held_out import sphere_apart
from .platemap import feature_columns, is_negcon, some
from .recipe import Recipe
from .text_tables import as_text

NEIGHBOURS = 5


def batch_of(profiles: pd.DataFrame, column: str, step: str, flag: str) -> pd.Series:
    """The batch of each row as text; ValueError where it does not name two batches or more, or leaves wells out."""
    if column not in profiles:
        raise ValueError(f"{step} integrates over {column}, and the profiles have no such column")
    batch = as_text(profiles[column])
    if batch.isna().any():
        row = profiles[batch.isna()].iloc[0]
        raise ValueError(
            f"{step} integrates over {column}, which is empty for {int(batch.isna().sum())} wells, first "
            f"{row['Metadata_Plate']} {row['Metadata_Well']}"
        )
    if batch.nunique() < 2:
        raise ValueError(f"{step} integrates over {column}, which has one value here; leave it out (--without {flag})")
    return batch


def combat(profiles: pd.DataFrame, column: str, also: Sequence[str] = ()) -> pd.DataFrame:
    """Features with each batch's mean and spread drawn to the others', by ComBat (scanpy's; the extra `[combat]`).

    Parametric empirical Bayes without covariates: treatments are not told to it, so batches that hold different
    treatments lose a part of that difference too.

    Raises
    ------
    ValueError
        For an absent column, empty or single batches, missing values or features of one value.
    RuntimeError
        Without scanpy.
    """
    batch = batch_of(profiles, column, "ComBat", "combat")
    sizes = batch.value_counts()
    if few := sorted(sizes.index[sizes < 2]):
        raise ValueError(f"ComBat needs two wells of every {column}, and {some(few)} has one: its spread is unknown")
    try:
        import anndata
        import scanpy
    except ImportError as error:
        raise RuntimeError("this recipe's ComBat needs scanpy: pip install 'jumpgpu[combat]'") from error
    features = feature_columns(profiles, also)
    values = profiles[features].to_numpy(float)
    if not np.isfinite(values).all():
        lost = [f for f, ok in zip(features, np.isfinite(values).all(axis=0), strict=True) if not ok]
        raise ValueError(f"ComBat needs complete features, and {some(lost)} lacks values; select with 'missing' at 0")
    codes = pd.factorize(batch, sort=True)[0]
    centered = values - (np.stack([values[codes == b].mean(axis=0) for b in range(codes.max() + 1)]))[codes]
    still = np.sqrt((centered**2).mean(axis=0)) <= 1e-12 * np.maximum(np.abs(values).max(axis=0), 1e-300)
    if still.any():
        constant = [f for f, s in zip(features, still, strict=True) if s]
        raise ValueError(
            f"ComBat divides by the spread within batches, and {some(constant)} has none; select features first"
        )
    table = anndata.AnnData(values, obs=pd.DataFrame({"batch": batch.to_numpy()}, index=[str(i) for i in range(len(batch))]))
    corrected = scanpy.pp.combat(table, key="batch", inplace=False)
    features_after = pd.DataFrame(np.asarray(corrected), columns=features, index=profiles.index)
    return pd.concat([profiles.drop(columns=features), features_after], axis=1)


def batch_effects(profiles: pd.DataFrame, column: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """How far the batches of a column stand apart.

    Parameters
    ----------
    profiles : DataFrame
        Profiles of several plates together, with negative controls in two batches at least.
    column : str
        Whose values are batches, such as Metadata_Plate or Metadata_Source.

    Returns
    -------
    dict
        controls, batches      how many
        batch_share            share of the controls' variance that lies between batches, mean over features, corrected for
                               the number of batches (epsilon squared): 0 by chance
        batch_neighbours       share of the five most similar controls (cosine) that are of the same batch
        batch_neighbours_chance  the same where similarity knows nothing of batches
        drift, drift_batch     distance of a batch's controls from the mean of all batches, in their spread within a batch
                               (root mean square over features): the largest, and whose it is
        drift_mean             its mean over batches
        drift_chance           what controls of one distribution would have on average
    """
    batch = batch_of(profiles, column, "the batch report", "combat")
    controls = is_negcon(profiles)
    features = feature_columns(profiles, also)
    x = profiles.loc[controls, features].to_numpy(float)
    x = x[:, np.isfinite(x).all(axis=0)]
    codes, names = pd.factorize(batch[controls], sort=True)
    sizes = np.bincount(codes)
    n, k = len(x), len(sizes)
    if k < 2 or (sizes < 2).any() or x.shape[1] < 2:
        raise ValueError(f"the batch report needs two negative controls in two values of {column} at least")
    means = np.stack([x[codes == b].mean(axis=0) for b in range(k)])
    within = ((x - means[codes]) ** 2).sum(axis=0)
    total = ((x - x.mean(axis=0)) ** 2).sum(axis=0)
    known = total > 0
    share = 1 - (within[known] / (n - k)) / (total[known] / (n - 1))
    spread = np.sqrt(within / (n - k))
    usable = spread > 0
    shift = np.sqrt((((means - means.mean(axis=0))[:, usable] / spread[usable]) ** 2).mean(axis=1))
    z = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    similar = z @ z.T
    np.fill_diagonal(similar, -np.inf)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : min(NEIGHBOURS, n - 1)]
    worst = int(shift.argmax())
    return {
        "batch": column,
        "controls": n,
        "batches": k,
        "batch_share": float(share.mean()),
        "batch_neighbours": float((codes[nearest] == codes[:, None]).mean()),
        "batch_neighbours_chance": float(((sizes[codes] - 1) / (n - 1)).mean()),
        "drift": float(shift[worst]),
        "drift_batch": str(names[worst]),
        "drift_mean": float(shift.mean()),
        "drift_chance": float(np.sqrt((1 - 2 / k) / sizes + (1 / sizes).sum() / k**2).mean()),
    }


def describe_effects(step: str, effects: dict[str, Any]) -> str:
    """The numbers in words."""
    e = effects
    fitted = " (fitted on these controls)" if e.get("in_sample") else ""
    return (
        f"{step}: {e['batch']} is {100 * e['batch_share']:.1f} % of the controls' variance (0 by chance), "
        f"{100 * e['batch_neighbours']:.0f} % of a control's nearest are of its batch "
        f"({100 * e['batch_neighbours_chance']:.0f} by chance), controls drift by {e['drift_mean']:.2f} on average and "
        f"{e['drift']:.2f} at most ({e['drift_batch']}), {e['drift_chance']:.2f} by chance{fitted}"
    )


def effects_by_step(
    controls: dict[str, pd.DataFrame], recipe: Recipe, columns: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """`batch_effects` after each step, and findings where a step has none.

    Parameters
    ----------
    controls : dict
        Table's name (`normalized_feature_select_negcon_batch_spherized`) to the negative controls of all plates, in the
        order of the steps. Sphered controls are reported as the controls of other positions sphere them.
    columns : list of str
        Whose values are batches.
    """
    result, findings = [], []
    before: pd.DataFrame | None = None
    for name, table in controls.items():
        judged, in_sample = table, any(word in name.split("_") for word in ("combat", "harmony"))
        if name.endswith("_spherized") and before is not None:
            judged = sphere_apart(before, feature_columns(before, recipe.features), recipe)
        for column in columns:
            try:
                effects = batch_effects(judged, column, recipe.features)
            except ValueError as error:
                findings.append(f"{name}: no batch report: {error}")
                continue
            result.append({"table": name, **effects, "in_sample": in_sample})
        before = table
    return result, findings
