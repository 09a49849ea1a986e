"""copairs' calls: average precision of every row, and its mAP, p and q of every group."""

import tempfile

import numpy as np
import pandas as pd

from .common import generator

CONVENTIONS = ("map", "geometric")
NULL_SIZE = 10_000
THRESHOLD = 0.05


def average_precision(
    meta: pd.DataFrame,
    values: np.ndarray,
    same: list[str],
    differ: list[str],
    negative_same: list[str],
    negative_differ: list[str],
    multilabel: str | None = None,
) -> pd.DataFrame:
    """copairs' average precision a row (a row and label where labels are lists).

    RuntimeError without copairs; ValueError where no row has a positive, or none a negative.
    """
    try:
        import copairs.map
        from copairs.map import multilabel as lists
        from copairs.matching import UnpairedException
    except ImportError as error:
        raise RuntimeError("mean average precision needs copairs: pip install 'jumpgpu[map]'") from error
    arguments = (meta, values, same, differ, negative_same, negative_differ)
    try:
        if multilabel is None:
            return copairs.map.average_precision(*arguments, progress_bar=False)
        return lists.average_precision(*arguments, multilabel_col=multilabel, distance="abs_cosine", progress_bar=False)
    except UnpairedException as error:
        raise ValueError(f"nothing can be ranked: {str(error).rstrip('.')}") from error


def significance(precision: pd.DataFrame, group: str, served: tuple[str, str], null_size: int, seed: int) -> pd.DataFrame:
    """mAP, p and q of each group by both conventions."""
    from copairs.compute import random_ap
    from copairs.map import mean_average_precision
    from scipy.stats import false_discovery_control

    precision = precision[precision["average_precision"].notna() & (precision["n_pos_pairs"] > 0)]
    copairs_seed = int(generator("map", *served, null_size, seed).integers(2**31))
    with tempfile.TemporaryDirectory() as cache:  # copairs would otherwise keep its nulls in the home folder
        table = mean_average_precision(
            precision, [group], null_size, THRESHOLD, copairs_seed, progress_bar=False, max_workers=2, cache_dir=cache
        )
    p = np.empty(len(precision))
    configurations = precision[["n_pos_pairs", "n_total_pairs"]].to_numpy(int)
    for positives, total in np.unique(configurations, axis=0):
        own = int(generator("average precision", positives, total, null_size, seed).integers(2**31))
        null = np.sort(random_ap(null_size, int(positives), int(total), own))
        here = (configurations == (positives, total)).all(axis=1)
        reached = np.searchsorted(null, precision["average_precision"].to_numpy()[here])
        p[here] = (null_size - reached + 1) / (null_size + 1)
    logs = pd.Series(np.log(p), index=precision.index).groupby(precision[group].to_numpy())
    geometric = np.exp(logs.mean())
    wells = logs.size()
    table = table.sort_values(group, ignore_index=True)
    result = pd.DataFrame({group: table[group], "n_wells": wells.reindex(table[group]).to_numpy()})
    result["value"] = table["mean_average_precision"]
    result["p_map"], result["q_map"] = table["p_value"], table["corrected_p_value"]
    result["p_geometric"] = geometric.reindex(table[group]).to_numpy()
    result["q_geometric"] = false_discovery_control(result["p_geometric"])
    for convention in CONVENTIONS:
        result[f"retrieved_{convention}"] = result[f"q_{convention}"] < THRESHOLD
    return result
