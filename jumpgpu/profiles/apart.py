"""Negative controls as sphering, ComBat and Harmony make them when fitted without the controls of their positions.

The control positions are dealt into folds. For each fold the steps are fitted, one after the other, to all wells but the
fold's controls, and the fold's controls are then put through them: sphered by the other controls; moved and stretched as
ComBat does the rest of their batch; and mapped as Symphony maps new cells onto a Harmony result (Kang et al. 2021, Nature
Communications 12, 5890): a well takes part in Harmony's clusters by its likeness to their centres, and loses what the other
wells of its batch lose in those clusters.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .combat import combat_of
from .normalize import run_harmony, sphere_by
from .platemap import feature_columns, is_negcon, metadata_columns, some
from .recipe import Recipe
from .text_tables import as_text

FOLDS = 10
WORDS = {"spherized": "sphere", "combat": "combat", "harmony": "harmony"}  # of tables' names, in the order of the steps
SIGMA, THETA = 0.1, 2.0  # harmonypy's defaults: the width of its clusters, and the weight of their diversity
ROUNDS = 3  # of a well's clusters by where it lies, and of where it lies by its clusters


def steps_of(name: str) -> list[str]:
    """The steps after selection that a table's name lists."""
    return [step for word, step in WORDS.items() if word in name.split("_")]


def steps_apart(profiles: pd.DataFrame, features: list[str], recipe: Recipe, steps: Sequence[str]) -> pd.DataFrame:
    """The negative controls after these steps, each fitted without the controls of the same fold of positions.

    Parameters
    ----------
    profiles : DataFrame
        Wells of all plates after selection. Sphering needs the controls alone, ComBat and Harmony all wells.
    steps : of "sphere", "combat", "harmony"

    Raises ValueError where a step cannot be fitted without them.
    """
    for step in steps:
        if getattr(recipe, step) is None:
            raise ValueError(f"the record has no {step}")
    profiles = profiles[[*metadata_columns(profiles), *features]].reset_index(drop=True)
    controls = is_negcon(profiles).to_numpy()
    codes = pd.factorize(profiles.loc[controls, "Metadata_Well"], sort=True)[0]
    n = int(codes.max()) + 1
    folds = np.full(len(profiles), -1)
    folds[controls] = np.random.Generator(np.random.PCG64(0)).permutation(n)[codes] % min(FOLDS, n)
    parts = []
    for fold in range(min(FOLDS, n)):
        seen, held = profiles[folds != fold], profiles[folds == fold]
        for step in steps:
            if step == "sphere":
                assert recipe.sphere is not None
                by = seen.loc[is_negcon(seen), features]
                later = step != steps[-1]
                held = held.assign(**sphere_by(by, held[features], recipe.sphere))
                seen = seen.assign(**sphere_by(by, seen[features], recipe.sphere)) if later else seen
            elif step == "combat":
                seen, held = combat_of(seen, held, str(recipe.combat), recipe.features)
            else:
                seen, held = harmony_of(seen, held, str(recipe.harmony), recipe.features)
        parts.append(held)
    return pd.concat(parts).sort_index().reset_index(drop=True)


def harmony_of(
    seen: pd.DataFrame, held: pd.DataFrame, column: str, also: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Harmony fitted to the wells `seen`: those integrated, and the wells `held` mapped onto the result."""
    features = feature_columns(seen, also)
    result = run_harmony(seen, column, features)
    shares, centres = np.asarray(result.R, float), np.asarray(result.Y, float).T  # [wells, K], [K, F]
    before, after = seen[features].to_numpy(float), np.asarray(result.Z_corr, float)
    batches, own = as_text(seen[column]).fillna(""), as_text(held[column]).fillna("")
    if lost := sorted(set(own) - set(batches)):
        raise ValueError(f"Harmony knows no other well of {column} {some(lost)}")
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-300)
    new = held[features].to_numpy(float, copy=True)
    for batch in own.unique():
        rows, mine = (batches == batch).to_numpy(), (own == batch).to_numpy()
        # What a cluster takes from this batch; harmonypy keeps it to itself, but its shares and its output tell.
        taken = np.linalg.lstsq(shares[rows], before[rows] - after[rows], rcond=None)[0]
        rarity = ((rows.mean() * shares.sum(axis=0) + 1) / (shares[rows].sum(axis=0) + 1)) ** THETA
        x = z = new[mine]
        for _ in range(ROUNDS):
            z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
            closeness = 2 / SIGMA * (z @ centres.T)
            part = rarity * np.exp(closeness - closeness.max(axis=1, keepdims=True))
            z = x - part / part.sum(axis=1, keepdims=True) @ taken
        new[mine] = z
    integrated = [frame.assign(**dict(zip(features, v.T, strict=True))) for frame, v in ((seen, after), (held, new))]
    return integrated[0], integrated[1]
