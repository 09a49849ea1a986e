"""Percent Replicating: the share of treatments whose replicates are more alike than wells of different treatments."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..profiles.design_checks import check_controls
from ..profiles.platemap import SAMPLE
from ..profiles.recipe import NULLS
from .common import (
    DRAWS,
    Score,
    choose_wells,
    complete,
    correlations,
    draw_distinct,
    generator,
    groups_by_size,
    judge,
    medians_within,
)
from .control_check import check_replicating, negative_controls, own_features
from .intervals import held_null, percent_interval
from .position_null import CONTROLS, position_sets

WELLS, POSITION = "wells", "position"  # what a null set is: wells of different treatments, or wells of one position


def percent_replicating(
    profiles: pd.DataFrame,
    group: str = SAMPLE,
    condition: str = "",
    null_wells: int | str = "typical",
    draws: int = DRAWS,
    seed: int = 0,
    also: Sequence[str] = (),
    null: str = WELLS,
    controls: pd.DataFrame | str | None = None,
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
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.
    null : {"wells", "position"}
        What a null set is: wells of different treatments, as published; or wells of one position, of different treatments
        where the plates' layouts allow it and negative controls otherwise. ValueError where the layout allows neither.
    controls : DataFrame or str, optional
        Profiles of the negative controls to check the score by, where those in `profiles` were fitted on (`held_out`); or
        why there is no check.

    Returns
    -------
    Score
        Its table: the group, n_wells, value (nan for a group of one well). Its settings: the wells and features used, and
        the wells left out for want of features (`scores.complete` has the rule). Its interval: 95 %, by resampling
        treatments. Its checks: Percent Replicating of negative controls that share a position, a row, a column, a plate.
    """
    if null not in (WELLS, POSITION):
        raise ValueError(f"null must be {WELLS!r} or {POSITION!r}, got {null!r}")
    if not (isinstance(null_wells, int) and null_wells >= 2) and null_wells not in NULLS:
        raise ValueError(f"null_wells must be a number from 2 on or one of {NULLS}, got {null_wells!r}")
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, got {draws}")
    chosen = complete(choose_wells(profiles, group), also)
    wells = chosen.profiles.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)
    r = correlations(wells[chosen.features].to_numpy(float))
    codes, labels = pd.factorize(wells[group], sort=True)
    sizes = np.bincount(codes)
    replicated = sizes[sizes > 1]
    if len(replicated) == 0:
        raise ValueError(f"{condition or 'these plates'}: no value of {group} has two wells, so nothing replicates")
    if len(labels) < 2:
        raise ValueError(f"{condition or 'these plates'}: {labels[0]} is the only value of {group}; a null needs two")
    values = np.full(len(labels), np.nan)
    for groups, rows in groups_by_size(codes):
        values[groups] = medians_within(r, rows)

    where = condition or "these plates"
    if null == POSITION:
        if isinstance(controls, str):
            raise ValueError(f"{where}: no null by position: {controls}")
        dmso, dmso_values, _ = negative_controls(profiles, chosen.features)

    def null_of(k: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The null's medians, what each set is made of in codes of treatments or positions, and its kind."""
        if null == WELLS:
            random = generator("replicating", condition, group, k, draws, seed)
            rows = draw_distinct(codes, k, draws, random)
            return medians_within(r, rows), codes[rows], "wells of different treatments"
        random = generator("replicating", "position", condition, group, k, draws, seed)
        sets = position_sets(wells, codes, dmso, k, draws, random, where)
        similar = correlations(dmso_values) if sets.kind == CONTROLS else r
        return medians_within(similar, sets.rows), sets.units[:, None], sets.kind

    table = pd.DataFrame({group: labels, "n_wells": sizes, "value": values})
    typical = min(int(np.median(replicated)), len(labels)) if isinstance(null_wells, str) else null_wells
    medians, members, kind = null_of(typical)
    if null_wells == "matched":
        parts = [judge(rows, null_of(min(max(2, int(k)), len(labels)))[0]) for k, rows in table.groupby("n_wells")]
        table = pd.concat(parts).sort_index()
    else:
        table = judge(table, medians)
    random = generator("replicating interval", condition, group, seed)
    apart = generator("replicating interval of the null", condition, group, seed) if null == POSITION else None
    interval, held = percent_interval(values, np.arange(len(labels)), medians, members, random, apart), held_null(members)
    checks = check_replicating(
        controls if controls is not None else profiles,
        chosen.features if controls is None else own_features(controls, also),
        typical,
        condition,
        seed,
        own_null=medians if null == POSITION else None,
        circular=["position"] if kind == CONTROLS else [],
    )
    settings = {"group": group, "null": null, "null_of": kind, "null_wells": null_wells, "null_k": typical}
    return Score(
        "replicating",
        condition,
        table,
        medians,
        {**settings, "draws": draws, "seed": seed, "interval_held": held, **chosen.settings()},
        (*check_controls(profiles), *chosen.findings(), *filter(None, (held, *(c.finding() for c in checks)))),
        interval,
        tuple(checks),
    )
