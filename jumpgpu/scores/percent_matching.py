"""Percent Matching: the share of pairs of treatments with one label (a gene) that are more alike than pairs with two.

Between two sets of profiles (compounds and guides or overexpression reagents of one gene) or within one (compounds of one
target, guides of one gene). Overexpression and inhibition are expected to oppose each other, knockout and inhibition
to agree, so both tails and |r| are reported.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..profiles.design_checks import check_controls
from ..profiles.platemap import SAMPLE
from ..profiles.text_tables import label_text, split_labels
from .common import DRAWS, Complete, Score, choose_wells, chunks, complete, correlations, generator, groups_by_size, judge
from .control_check import check_matching, own_features
from .intervals import held_null, percent_interval

LABEL = "Metadata_gene"


def percent_matching(
    profiles: pd.DataFrame,
    others: pd.DataFrame | None = None,
    label: str = LABEL,
    group: str = SAMPLE,
    condition: str = "",
    draws: int = DRAWS,
    seed: int = 0,
    also: Sequence[str] = (),
    controls: pd.DataFrame | str | None = None,
) -> Score:
    """Median correlation between the wells of two treatments, for pairs of one label against pairs of different labels.

    Parameters
    ----------
    profiles, others : DataFrame
        Profiles of the two sets, each of all its plates (`scores.concatenate`); without `others`, pairs are within
        `profiles`. Negative controls and empty wells are left out. Features in common are compared.
    label : str
        The column of labels; two treatments match that share one. Several labels of a treatment are separated by `|`.
        Treatments without one take no part, nor, between two sets, do labels that the other set lacks.
    group : str
        The column that names a treatment; its wells form the blocks whose median correlation is taken.
    condition : str
        What is scored; the null is seeded by it.
    draws, seed : int
        Pairs in the null, drawn from all pairs of treatments of different labels. (CPJUMP1's June 2021 code let the two
        labels of a null pair be equal by chance; they never are here.)
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.
    controls : DataFrame or str, optional
        Profiles of the negative controls of both sides to check the score by, where those given were fitted on; or why
        there is no check.

    Returns
    -------
    Score
        Its table: the two treatments, the labels they share, n_pairs of wells, value. Its settings: the wells and features
        used, and the wells left out for want of features (`scores.complete` has the rule).
    """
    if draws < 1:
        raise ValueError(f"draws must be 1 or more, got {draws}")
    where = condition or ("these plates" if others is None else "the two sets")
    sides = [profiles] if others is None else [profiles, others]
    chosen = [labelled(t, label, group, also) for t in sides]
    a, b = chosen[0].profiles, chosen[-1].profiles
    if others is not None:
        shared = labels_in(a, label) & labels_in(b, label)
        a, b = (t[[bool(shared & set(v)) for v in split_labels(t[label])]].reset_index(drop=True) for t in (a, b))
        if a.empty:
            raise ValueError(f"{where}: no {label} in both, so nothing can match")
    features = [f for f in chosen[0].features if f in set(chosen[-1].features)]
    if len(features) < 2:
        raise ValueError(f"{where}: {len(features)} features in common; give tables of one recipe")
    r = correlations(a[features].to_numpy(float), None if others is None else b[features].to_numpy(float))
    codes_a, names_a = pd.factorize(a[group], sort=True)
    codes_b, names_b = pd.factorize(b[group], sort=True)
    medians = block_medians(r, codes_a, codes_b)
    known = sorted(labels_in(a, label) & labels_in(b, label))
    carried_a, carried_b = carries(a, codes_a, label, known), carries(b, codes_b, label, known)
    same = carried_a.astype(np.int32) @ carried_b.T.astype(np.int32) > 0
    candidates = np.ones_like(same) if others is not None else np.triu(np.ones_like(same), 1)
    i, j = np.nonzero(same & candidates)
    if len(i) == 0:
        raise ValueError(f"{where}: no two treatments share a {label}, so nothing can match")
    null_i, null_j = np.nonzero(~same & candidates)
    if len(null_i) == 0:
        raise ValueError(f"{where}: all treatments share one {label}; there is no null")
    random = generator("matching", condition, label, group, draws, seed)
    drawn = random.integers(len(null_i), size=draws)
    null = medians[null_i[drawn], null_j[drawn]]
    n_a, n_b = np.bincount(codes_a), np.bincount(codes_b)
    shared_labels = carried_a[i] & carried_b[j]
    named = ["|".join(known[k] for k in np.flatnonzero(row)) for row in shared_labels]
    pairs = {group: names_a[i], f"{group}_other": names_b[j], label: named, "n_pairs": n_a[i] * n_b[j]}
    table = judge(pd.DataFrame({**pairs, "value": medians[i, j]}), null)
    settings = {
        "group": group,
        "label": label,
        "labels": int(shared_labels.any(axis=0).sum()),
        "draws": draws,
        "seed": seed,
        "wells": len(a) + (0 if others is None else len(b)),
        "features": len(features),
        "features_given": max(c.n_features for c in chosen),
        "wells_left_out": [w for c in chosen for w in c.left_out],
    }
    findings = [f for side, c in zip(sides, chosen, strict=True) for f in (*check_controls(side), *c.findings())]
    if len(features) < min(len(c.features) for c in chosen):
        sizes = " and ".join(str(len(c.features)) for c in chosen)
        findings.append(f"{len(features)} features are in common, of {sizes}; the others are not scored")
    if controls is None:
        checks = check_matching(profiles, others, features, condition, seed)
    elif isinstance(controls, str):
        checks = check_matching(controls, others, features, condition, seed)
    else:
        sides = [controls[controls["Metadata_Plate"].isin(set(t["Metadata_Plate"]))] for t in sides]
        own = own_features(controls, also)
        checks = check_matching(sides[0], None if others is None else sides[1], own, condition, seed)
    findings += filter(None, (c.finding() for c in checks))
    offset = 0 if others is None else len(names_a)
    units = np.column_stack([np.concatenate([i, null_i[drawn]]), np.concatenate([j, null_j[drawn]]) + offset])
    held = held_null(units[len(i) :])
    settings["interval_held"] = held
    findings += [held] if held else []
    interval = percent_interval(
        table["value"].to_numpy(),
        units[: len(i)],
        null,
        units[len(i) :],
        generator("matching interval", condition, label, group, seed),
    )
    return Score("matching", condition, table, null, settings, tuple(findings), interval, tuple(checks))


def labelled(profiles: pd.DataFrame, label: str, group: str, also: Sequence[str] = ()) -> Complete:
    """Treated wells with a label, in (plate, well) order; a treatment of two values of it is a ValueError."""
    if label not in profiles:
        raise ValueError(f"the profiles have no column {label}; annotate them with a treatment table that has it")
    wells = choose_wells(profiles, group)
    wells = wells.assign(**{label: label_text(wells[label])})
    wells = wells[wells[label].notna()].sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable", ignore_index=True)
    if wells.empty:
        raise ValueError(f"no treated well has a {label}, so nothing can match")
    labels = wells.groupby(group)[label].nunique()
    if (labels > 1).any():
        raise ValueError(
            f"{labels.index[labels > 1][0]} has {labels.max()} values of {label}; a treatment may have only one"
        )
    return complete(wells, also)


def labels_in(wells: pd.DataFrame, label: str) -> set[str]:
    return {name for names in split_labels(wells[label]) for name in names}


def carries(wells: pd.DataFrame, codes: np.ndarray, label: str, known: Sequence[str]) -> np.ndarray:
    """Which of the known labels each group has: bool [G, L]."""
    place = {name: k for k, name in enumerate(known)}
    carried = np.zeros((int(codes.max(initial=-1)) + 1, len(known)), bool)
    for code, names in zip(codes, split_labels(wells[label]), strict=True):
        carried[code, [place[n] for n in names if n in place]] = True
    return carried


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
