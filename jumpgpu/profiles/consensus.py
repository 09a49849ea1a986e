"""Consensus profiles: one a treatment, over all its wells."""

from collections.abc import Sequence

import pandas as pd

from .aggregate import COUNT
from .platemap import SAMPLE, feature_columns, is_negcon, metadata_columns
from .text_tables import as_text

STATISTICS = ("median", "mean")


def consensus(
    profiles: pd.DataFrame, group: str = SAMPLE, statistic: str = "median", also: Sequence[str] = ()
) -> pd.DataFrame:
    """Median or mean of every feature over a treatment's wells (pycytominer's `consensus`).

    Parameters
    ----------
    profiles : DataFrame
        Profiles of all plates together (`scores.common.concatenate`).
    group : str
        The column that names a treatment; wells without one are left out.
    statistic : {"median", "mean"}
        Wells where a feature is missing do not count for it.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei.

    Returns
    -------
    DataFrame
        One row per treatment, sorted: `group`, the metadata that all its wells share, Metadata_Well_Count,
        Metadata_Plate_Count, Metadata_Object_Count (the median of its wells', where the profiles have it), features.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"unknown statistic {statistic!r}; expected one of {STATISTICS}")
    names = as_text(profiles[group])
    wells = profiles.assign(**{group: names})[names.notna()]
    if wells.empty:
        raise ValueError(f"no well has a {group}; there is nothing to take a consensus of")
    groups = wells.groupby(group, sort=True)
    own = {group, COUNT, "Metadata_Plate", "Metadata_Well", "Metadata_Site_Count"}
    columns = [c for c in metadata_columns(wells) if c not in own]
    # as text, so that a column of numbers and one of categories are compared alike
    shared = [c for c in columns if (as_text(wells[c]).fillna("").groupby(wells[group]).nunique() == 1).all()]
    table = groups[shared].first() if shared else pd.DataFrame(index=groups.size().index)
    table["Metadata_Well_Count"] = groups.size()
    table["Metadata_Plate_Count"] = groups["Metadata_Plate"].nunique()
    if COUNT in wells:
        table[COUNT] = groups[COUNT].median()
    values = groups[feature_columns(wells, also)].agg(statistic)
    return pd.concat([table, values], axis=1).reset_index()


def cell_counts(profiles: pd.DataFrame, group: str = SAMPLE) -> pd.DataFrame:
    """What treatments do to the number of cells, beside the negative controls of their plates.

    Returns
    -------
    DataFrame
        By treatment: cell_count (median of its wells), cell_count_ratio (median of each well's count over the median of its
        plate's negative controls), cell_count_z (the same difference over 1.4826 MAD of those controls).

    Raises ValueError where there is no Metadata_Object_Count, or a plate without negative controls.
    """
    if COUNT not in profiles:
        raise ValueError(f"the profiles have no {COUNT}, so nothing is known of the cells' number")
    count, negcon = pd.to_numeric(profiles[COUNT]).astype(float), is_negcon(profiles)
    controls = count[negcon].groupby(profiles["Metadata_Plate"][negcon])
    median = controls.median()
    mad = (
        1.4826
        * (count[negcon] - profiles["Metadata_Plate"][negcon].map(median))
        .abs()
        .groupby(profiles["Metadata_Plate"][negcon])
        .median()
    )
    if lost := sorted(set(profiles["Metadata_Plate"]) - set(median.index)):
        raise ValueError(f"plate {lost[0]} has no negative controls to compare cell counts with ({len(lost)} in all)")
    of_plate, spread = profiles["Metadata_Plate"].map(median), profiles["Metadata_Plate"].map(mad)
    wells = pd.DataFrame(
        {
            "cell_count": count,
            "cell_count_ratio": count / of_plate.where(of_plate > 0),
            "cell_count_z": (count - of_plate) / spread.where(spread > 0),
        }
    )
    return wells.groupby(as_text(profiles[group])).median()
