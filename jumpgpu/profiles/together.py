"""Profiles of several plates as one table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..settings.names import COMPARTMENTS
from .platemap import common_features, feature_columns, other_columns, some


def concatenate(tables: Sequence[pd.DataFrame], also: Sequence[str] = ()) -> pd.DataFrame:
    """Profiles of several plates: the features they have in common, rows in (plate, well) order.

    `attrs["findings"]` says how many features are not in every plate.
    """
    if not tables:
        raise ValueError("no profiles to score")
    features = common_features(tables, also)
    if not features:
        if not any(feature_columns(t, also) for t in tables):
            raise ValueError(no_features(tables[0]))
        raise ValueError("the plates have no feature in common; give tables of one recipe")
    names = list(dict.fromkeys(c for t in tables for c in t if c.startswith("Metadata_")))
    parts = [t[[c for c in names if c in t]].dropna(axis=1, how="all") for t in tables]
    parts = [p.assign(**{c: p[c].astype(object) for c in p.select_dtypes("category")}) for p in parts]
    metadata = pd.concat(parts, ignore_index=True).reindex(columns=names)
    order = metadata.sort_values(["Metadata_Plate", "Metadata_Well"], kind="stable").index
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    values, row = np.empty((len(order), len(features))), 0
    for table in tables:  # one copy of the features, however many plates
        values[place[row : row + len(table)]] = table[features].to_numpy(float)
        row += len(table)
    together = pd.concat([metadata.loc[order].reset_index(drop=True), pd.DataFrame(values, columns=features)], axis=1)
    together.attrs["findings"] = few_in_common(tables, features, also)
    return together


def few_in_common(tables: Sequence[pd.DataFrame], features: Sequence[str], also: Sequence[str] = ()) -> list[str]:
    """A finding where tables have features that others lack."""
    counts = [len(feature_columns(t, also)) for t in tables]
    if max(counts) == len(features):
        return []
    sizes = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
    few = "; so few say little of either" if 2 * len(features) < min(counts) else ""
    return [f"{len(features)} features are on every plate, of {sizes} per plate; the others are not scored{few}"]


def no_features(profiles: pd.DataFrame) -> str:
    others = other_columns(profiles)
    named = f"; there are {some(others)}: name them by --features" if others else ""
    return f"no column is a feature of {', '.join(COMPARTMENTS)}{named}"
