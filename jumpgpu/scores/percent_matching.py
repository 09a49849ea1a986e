"""Percent Matching: the share of pairs of treatments with one label (a gene) that are more alike than pairs with two.

Between two sets of profiles (compounds and guides or overexpression reagents of one gene) or within one (compounds of one
target, guides of one gene). Overexpression and inhibition are expected to oppose each other, knockout and inhibition
to agree, so both tails and |r| are reported.
"""

import numpy as np
import pandas as pd

from ..profiles.platemap import SAMPLE, common_features
from .common import DRAWS, Score, choose_wells, chunks, correlations, generator, groups_by_size, judge

LABEL = "Metadata_gene"


def percent_matching(
    profiles: pd.DataFrame,
    others: pd.DataFrame | None = None,
    label: str = LABEL,
    group: str = SAMPLE,
    condition: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> Score:
    """Median correlation between the wells of two treatments, for pairs of one label against pairs of different labels.

    Parameters
    ----------
    profiles, others : DataFrame
        Profiles of the two sets, each of all its plates (`scores.concatenate`); without `others`, pairs are within
        `profiles`. Negative controls and empty wells are left out. Features in common are compared.
    label : str
        The column whose equal values match. Treatments without one take no part, nor, between two sets, do those whose
        label the other set lacks.
    group : str
        The column that names a treatment; its wells form the blocks whose median correlation is taken.
    draws : int
        Pairs in the null, drawn from all pairs of treatments of different labels. (CPJUMP1's June 2021 code let the two
        labels of a null pair be equal by chance; they never are here.)

    Returns
    -------
    Score
        Its table: the two treatments, their label, n_pairs of wells, value.
    """
    a = labelled(profiles, label, group)
    b = a if others is None else labelled(others, label, group)
    if others is not None:
        shared = set(a[label]) & set(b[label])
        a, b = (t[t[label].isin(shared)].reset_index(drop=True) for t in (a, b))
        if a.empty:
            raise ValueError(f"{condition or 'the two sets'}: no {label} in both, so nothing can match")
    features = common_features([a, b])
    r = correlations(a[features].to_numpy(float), None if others is None else b[features].to_numpy(float))
    codes_a, names_a = pd.factorize(a[group], sort=True)
    codes_b, names_b = pd.factorize(b[group], sort=True)
    medians = block_medians(r, codes_a, codes_b)
    labels_a, labels_b = label_of(a, codes_a, label), label_of(b, codes_b, label)
    same = labels_a[:, None] == labels_b[None]
    candidates = np.ones_like(same) if others is not None else np.triu(np.ones_like(same), 1)
    i, j = np.nonzero(same & candidates)
    if len(i) == 0:
        raise ValueError(f"{condition or 'these plates'}: no two treatments share a {label}, so nothing can match")
    null_i, null_j = np.nonzero(~same & candidates)
    if len(null_i) == 0:
        raise ValueError(f"{condition or 'these plates'}: all treatments share one {label}; there is no null")
    random = generator("matching", condition, label, group, draws, seed)
    drawn = random.integers(len(null_i), size=draws)
    null = medians[null_i[drawn], null_j[drawn]]
    n_a, n_b = np.bincount(codes_a), np.bincount(codes_b)
    pairs = {group: names_a[i], f"{group}_other": names_b[j], label: labels_a[i], "n_pairs": n_a[i] * n_b[j]}
    table = judge(pd.DataFrame({**pairs, "value": medians[i, j]}), null)
    settings = {
        "group": group,
        "label": label,
        "labels": int(table[label].nunique()),
        "draws": draws,
        "seed": seed,
        "wells": len(a) + (0 if others is None else len(b)),
        "features": len(features),
    }
    return Score("matching", condition, table, null, settings)


def labelled(profiles: pd.DataFrame, label: str, group: str) -> pd.DataFrame:
    """Treated wells with a label, in (plate, well) order; a treatment of two labels is a ValueError."""
    if label not in profiles:
        raise ValueError(f"the profiles have no column {label}; annotate them with a treatment table that has it")
    wells = choose_wells(profiles, group)
    wells = wells[wells[label].notna()].sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)
    labels = wells.groupby(group)[label].nunique()
    if (labels > 1).any():
        raise ValueError(f"{labels.index[labels > 1][0]} has {labels.max()} values of {label}; a treatment has one")
    return wells


def label_of(wells: pd.DataFrame, codes: np.ndarray, label: str) -> np.ndarray:
    """The label of each group: object [G]."""
    labels = np.empty(int(codes.max(initial=-1)) + 1, object)
    labels[codes] = wells[label].to_numpy(object)
    return labels


def block_medians(r: np.ndarray, codes_a: np.ndarray, codes_b: np.ndarray) -> np.ndarray:
    """Median of each block of well-by-well correlations: float64 [P, Q] to [groups of a, groups of b]."""
    medians = np.empty((codes_a.max() + 1, codes_b.max() + 1))
    for groups_a, rows_a in groups_by_size(codes_a):
        for groups_b, rows_b in groups_by_size(codes_b):
            done = 0
            for part in chunks(rows_a, rows_a.shape[1] * rows_b.size):
                blocks = r[part[:, None, :, None], rows_b[None, :, None, :]].reshape(len(part), len(rows_b), -1)
                medians[np.ix_(groups_a[done : done + len(part)], groups_b)] = np.median(blocks, axis=2)
                done += len(part)
    return medians
