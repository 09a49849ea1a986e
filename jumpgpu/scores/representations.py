"""Representations of wells that can be judged side by side: sets of columns of one table of profiles.

Classical features together, by family and by compartment; each network's embedding; classical features with each embedding;
and the number of cells alone, which any representation must beat.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..profiles.consensus import cell_counts
from ..profiles.platemap import feature_columns, metadata_columns
from ..settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS, FAMILIES, split_name

EMBEDDING = "Embedding"
BUMPS = np.arange(-8, 8.5, 0.5)  # deviations of cell count at which its bumps stand
COUNT = "cell count"
TOGETHER, OTHERS = "classical", "others"
TAKEN = {COUNT, TOGETHER, OTHERS, *FAMILIES, *COMPARTMENTS}  # names of what is no network


@dataclass(frozen=True)
class Representation:
    """A set of features under a name.

    kind      baseline, classical, family, compartment, embedding or together
    profiles  the wells' metadata, then these features alone
    """

    name: str
    kind: str
    profiles: pd.DataFrame
    n_features: int


def representations(profiles: pd.DataFrame, also: Sequence[str] = ()) -> tuple[list[Representation], list[str]]:
    """What a table of profiles holds, and what it lacks, a line each.

    Parameters
    ----------
    profiles : DataFrame
        A row per well: `Metadata_` columns and features. Cells' counts are `Metadata_Object_Count`.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei: they are a representation of their own, `others`.
    """
    columns, metadata = feature_columns(profiles, also), metadata_columns(profiles)
    parts = [split_name(c) for c in columns]
    classical = [c for c, (compartment, family, _) in zip(columns, parts, strict=True) if is_classical(compartment, family)]
    networks: dict[str, list[str]] = {}
    for column, (_, family, rest) in zip(columns, parts, strict=True):
        if family == EMBEDDING:
            name = model_of(rest)
            networks.setdefault(f"{name} (network)" if name in TAKEN else name, []).append(column)
    others = [c for c, (compartment, _, _) in zip(columns, parts, strict=True) if compartment not in COMPARTMENTS]
    sets: list[tuple[str, str, list[str]]] = [(TOGETHER, "classical", classical)]
    for family in FAMILIES[:-1]:
        sets.append((family, "family", [c for c in classical if split_name(c)[1] == family]))
    for compartment in COMPARTMENTS:
        sets.append((compartment, "compartment", [c for c in classical if c.startswith(f"{compartment}_")]))
    sets += [(name, "embedding", members) for name, members in networks.items()]
    sets.append((OTHERS, "embedding", [c for c in others if c not in classical]))
    result, findings = [], []
    try:
        result.append(count_representation(profiles, metadata))
    except ValueError as error:
        findings.append(f"{COUNT}: not judged: {error}")
    for name, kind, members in sets:
        if len(members) > 1:
            result.append(Representation(name, kind, profiles[[*metadata, *members]], len(members)))
        elif members:
            findings.append(f"{name}: not judged: one feature ({members[0]}) has no profile to compare")
    for name, members in networks.items():
        if len(classical) > 1 and len(members) > 1:
            both = beside(profiles, metadata, (classical, members))
            result.append(Representation(f"{TOGETHER} + {name}", "together", both, len(classical) + len(members)))
    return result, findings


def is_classical(compartment: str, family: str) -> bool:
    return compartment in COMPARTMENTS and family != EMBEDDING


def model_of(rest: str) -> str:
    """The network of `net_0001`, and of `net_DNA_0001` where channels go by themselves."""
    name = re.sub(r"_\d+$", "", rest)
    return re.sub(rf"_({'|'.join((*CHANNELS, *BRIGHTFIELD))})$", "", name) or name


def beside(profiles: pd.DataFrame, metadata: Sequence[str], sets: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Sets of columns with equal say: each as z-scores over the wells, divided by the root of its number of columns."""
    parts = []
    for members in sets:
        values = profiles[list(members)].to_numpy(float)
        spread = np.nanstd(values, axis=0)
        values = (values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, 1) / np.sqrt(len(members))
        parts.append(pd.DataFrame(values, columns=list(members), index=profiles.index))
    return pd.concat([profiles[list(metadata)], *parts], axis=1)


def count_representation(profiles: pd.DataFrame, metadata: Sequence[str]) -> Representation:
    """The number of cells alone, in a form in which wells can correlate.

    A count is its deviation from the controls of its plate (in their MAD), spread over bumps of one deviation at fixed
    places: wells are the more alike the nearer their counts; nothing else is in it. ValueError without counts or controls.
    """
    well = profiles["Metadata_Plate"].astype(str) + " " + profiles["Metadata_Well"].astype(str)
    z = cell_counts(profiles.assign(_Well=well), "_Well")["cell_count_z"].reindex(well).to_numpy(float)
    if not np.isfinite(z).any():
        raise ValueError("the negative controls of every plate have one number of cells")
    bumps = np.exp(-((np.clip(z, BUMPS[0], BUMPS[-1])[:, None] - BUMPS) ** 2) / 2)
    names = [f"Cells_Count_{i:02d}" for i in range(1, len(BUMPS) + 1)]
    table = pd.concat([profiles[list(metadata)], pd.DataFrame(bumps, columns=names, index=profiles.index)], axis=1)
    return Representation(COUNT, "baseline", table, 1)
