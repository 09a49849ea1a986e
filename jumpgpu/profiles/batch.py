"""How much of the profiles is the batch (plate, source), before and after each step.

The numbers of `batch_effects` are of negative controls, which every batch shares: what tells their batches apart is no
treatment. A step that was fitted on these controls (sphering, ComBat, Harmony) is fitted again for them without those of
their positions (`apart`); where it cannot be, the numbers say what the fit did to them, and `in_sample` marks them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .apart import steps_apart, steps_of
from .combat import batch_of
from .platemap import feature_columns, is_negcon
from .recipe import Recipe

NEIGHBOURS = 5


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
    tables: dict[str, pd.DataFrame], recipe: Recipe, columns: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """`batch_effects` after each step, and findings where a step has none.

    Parameters
    ----------
    tables : dict
        Table's name (`normalized_feature_select_negcon_batch_spherized`) to the wells of all plates, in the order of the
        steps: the first of a reference with all wells that the steps are fitted on, the others with the controls at least.
    columns : list of str
        Whose values are batches.
    """
    result, findings = [], []
    selected: pd.DataFrame | None = None
    for name, table in tables.items():
        judged, in_sample = table[is_negcon(table)].reset_index(drop=True), False
        if not (steps := steps_of(name)):
            selected = table
        elif selected is not None:
            try:
                judged = steps_apart(selected, feature_columns(selected, recipe.features), recipe, steps)
            except (ValueError, RuntimeError) as error:
                findings.append(f"{name}: judged on the controls that it was fitted on: {error}")
                in_sample = True
        for column in columns:
            try:
                effects = batch_effects(judged, column, recipe.features)
            except ValueError as error:
                findings.append(f"{name}: no batch report: {error}")
                continue
            result.append({"table": name, **effects, "in_sample": in_sample})
    return result, findings
