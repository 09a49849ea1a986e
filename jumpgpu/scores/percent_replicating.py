"""Percent Replicating: the share of treatments whose replicates are more alike than wells of different treatments."""

import numpy as np
import pandas as pd

from ..profiles.platemap import SAMPLE, feature_columns
from .common import DRAWS, Score, choose_wells, correlations, draw_distinct, generator, groups_by_size, judge, medians_within

NULLS = ("typical", "matched")  # wells a draw: the median group's number for all, or each group's own


def percent_replicating(
    profiles: pd.DataFrame,
    group: str = SAMPLE,
    condition: str = "",
    null_wells: int | str = "typical",
    draws: int = DRAWS,
    seed: int = 0,
) -> Score:
    """Median pairwise Pearson correlation of each group's wells, against sets of wells of different groups.

    Parameters
    ----------
    profiles : DataFrame
        Profiles of the replicate plates together (`scores.concatenate`). Negative controls and empty wells are left out,
        positive controls stay.
    group : str
        The column whose equal values are replicates.
    condition : str
        What is scored; the null is seeded by it.
    null_wells : int, "typical" or "matched"
        Wells in a set of the null: a number; the median group's number (as published: 4 replicate plates, although some
        compounds have 8 wells); or a null for each group size, by which its groups are judged. The last two are held to
        the number of groups, since a set takes wells of different groups.
    draws : int
        Sets in the null (10,000 in CPJUMP1's December 2021 scores, 1,000 in June's).
    seed : int
        Another number draws another null.

    Returns
    -------
    Score
        Its table: the group, n_wells, value (nan for a group of one well).
    """
    if not (isinstance(null_wells, int) and null_wells >= 2) and null_wells not in NULLS:
        raise ValueError(f"null_wells must be a number from 2 on or one of {NULLS}, got {null_wells!r}")
    wells = choose_wells(profiles, group)
    wells = wells.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)
    r = correlations(wells[feature_columns(wells)].to_numpy(float))
    codes, labels = pd.factorize(wells[group], sort=True)
    sizes = np.bincount(codes)
    replicated = sizes[sizes > 1]
    if len(replicated) == 0:
        raise ValueError(f"{condition or 'these plates'}: no value of {group} has two wells, so nothing replicates")
    values = np.full(len(labels), np.nan)
    for groups, rows in groups_by_size(codes):
        values[groups] = medians_within(r, rows)

    def null_of(k: int) -> np.ndarray:
        return medians_within(r, draw_distinct(codes, k, draws, generator("replicating", condition, group, k, draws, seed)))

    table = pd.DataFrame({group: labels, "n_wells": sizes, "value": values})
    typical = min(int(np.median(replicated)), len(labels)) if isinstance(null_wells, str) else null_wells
    null = null_of(typical)
    if null_wells == "matched":
        parts = [judge(rows, null_of(min(max(2, int(k)), len(labels)))) for k, rows in table.groupby("n_wells")]
        table = pd.concat(parts).sort_index()
    else:
        table = judge(table, null)
    settings = {"group": group, "null_wells": null_wells, "null_k": typical, "draws": draws, "seed": seed}
    return Score(
        "replicating", condition, table, null, {**settings, "wells": len(wells), "features": len(feature_columns(wells))}
    )
