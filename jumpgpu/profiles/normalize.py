"""Corrections and normalisation of well profiles: on the CPU, a plate by itself unless said.

Where pycytominer has the step, its class does the arithmetic; fitting and applying are separate here so that what was
fitted can be written down.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pycytominer.operations import InverseNormalTransform, RobustMAD, Spherize

from .aggregate import COUNT
from .platemap import SAMPLE, common_features, control_values, feature_columns, is_negcon
from .recipe import NormalizeSettings, SphereSettings
from .text_tables import as_text

SCALE = 1.4826  # MAD to standard deviation of a normal distribution
ROUNDING = 1e-12  # a MAD this small beside the median is the rounding of a constant


@dataclass(frozen=True)
class Fit:
    """What a normalisation learnt from its reference wells."""

    reference: str  # "all" or "negcon"
    n_wells: int
    median: pd.Series  # by feature
    mad: pd.Series  # 1.4826 MAD, by feature
    dropped: dict[str, str]  # feature to reason

    def table(self) -> pd.DataFrame:
        """One row per feature: reference, wells, median, mad, dropped (the reason, or empty)."""
        reasons = [self.dropped.get(f, "") for f in self.median.index]
        columns = {"feature": self.median.index, "reference": self.reference, "wells": self.n_wells}
        return pd.DataFrame({**columns, "median": self.median.to_numpy(), "mad": self.mad.to_numpy(), "dropped": reasons})


def reference_wells(profiles: pd.DataFrame, reference: str) -> pd.Series:
    """bool a row; ValueError where a plate has no well of that kind."""
    wells = pd.Series(True, index=profiles.index) if reference == "all" else is_negcon(profiles)
    if not wells.any():
        plate = profiles["Metadata_Plate"].iloc[0]
        raise ValueError(
            f"{plate}: no negative control among {len(profiles)} wells; {control_values(profiles)}, or normalise by all "
            "wells alone (--reference all)"
        )
    return wells


def normalize(
    profiles: pd.DataFrame, reference: str, settings: NormalizeSettings, also: Sequence[str] = ()
) -> tuple[pd.DataFrame, Fit]:
    """(x - median) / (1.4826 MAD + epsilon), median and MAD over one plate's reference wells.

    Parameters
    ----------
    profiles : DataFrame
        Annotated profiles of one plate.
    reference : {"all", "negcon"}
        Which wells give medians and MADs (the MAD is about that median; nan is left out).
    settings : NormalizeSettings
        `zero_mad` "drop" leaves out features whose MAD is 0 (or the rounding of a constant) or that no reference well
        has; "keep" keeps what the division gives, infinities included.
    also : patterns of columns
        Features besides those of Cells, Cytoplasm and Nuclei; so in every step here.
    """
    features = feature_columns(profiles, also)
    wells = reference_wells(profiles, reference)
    values = profiles[features].astype(float)
    known = values[wells].notna().any()
    scaler = RobustMAD(epsilon=settings.epsilon).fit(values.loc[wells, known])
    scaler.median, scaler.mad = scaler.median.reindex(features), scaler.mad.reindex(features)  # nan where none is known
    dropped: dict[str, str] = {}
    if settings.zero_mad == "drop":
        empty = scaler.mad.isna()
        degenerate = ~(scaler.mad > ROUNDING * scaler.median.abs()) & ~empty
        kind = "wells" if reference == "all" else "negative controls"
        dropped = dict.fromkeys(scaler.mad.index[degenerate], f"MAD 0 over {int(wells.sum())} {kind}")
        dropped |= dict.fromkeys(scaler.mad.index[empty], f"missing in all {int(wells.sum())} {kind}")
    kept = [f for f in features if f not in dropped]
    scaled = scaler.transform(values)[kept]
    if settings.inverse_normal:
        scaled = inverse_normal(scaled)
    table = pd.concat([profiles.drop(columns=features), scaled], axis=1)
    return table, Fit(reference, int(wells.sum()), scaler.median, scaler.mad, dropped)


def inverse_normal(values: pd.DataFrame) -> pd.DataFrame:
    """Each feature's ranks as normal quantiles (pycytominer's transform; missing values stay missing)."""
    transform = InverseNormalTransform(n_quantiles=len(values), random_state=0)
    finite = values.replace([np.inf, -np.inf], np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a feature may be missing throughout
        ranks = transform.fit(finite).transform(finite)
    return pd.DataFrame(np.asarray(ranks), columns=values.columns, index=values.index)


def correct_cell_count(profiles: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """Each feature minus its least-squares dependence on the wells' cell count, over one plate; means stay."""
    if COUNT not in profiles:
        raise ValueError(f"the profiles have no {COUNT}, which the cell-count correction needs")
    features = feature_columns(profiles, also)
    values = profiles[features].to_numpy(float)
    known = np.isfinite(values)
    count = np.broadcast_to(profiles[COUNT].to_numpy(float)[:, None], values.shape)
    n = np.maximum(known.sum(axis=0), 1)
    x = np.where(known, count - np.where(known, count, 0).sum(axis=0) / n, 0)
    y = np.where(known, values, 0)
    variance = (x * x).sum(axis=0)
    slope = np.divide((x * y).sum(axis=0), variance, out=np.zeros_like(variance), where=variance > 0)
    corrected = pd.DataFrame(values - slope * x, columns=features, index=profiles.index)
    return pd.concat([profiles.drop(columns=features), corrected], axis=1)


def correct_well_positions(plates: Sequence[pd.DataFrame], also: Sequence[str] = ()) -> list[pd.DataFrame]:
    """Each feature minus its mean over the plates at that well position, plus its mean over everything.

    On plates of one layout this would take each treatment's own mean away, so two layouts at the least are asked for.
    """
    if len({tuple(sorted(zip(p["Metadata_Well"], as_text(p[SAMPLE]).fillna(""), strict=True))) for p in plates}) < 2:
        raise ValueError(
            f"the well-position correction over {len(plates)} plates of one plate map would subtract the treatments "
            "themselves; add plates of other maps or leave it out (--without well_position)"
        )
    features = common_features(plates, also)
    wells = sorted(set().union(*(p["Metadata_Well"] for p in plates)))
    position = {w: i for i, w in enumerate(wells)}
    totals, counts = np.zeros((len(wells), len(features))), np.zeros((len(wells), len(features)))
    for plate in plates:  # sums only: no copy of all plates together
        rows = plate["Metadata_Well"].map(position).to_numpy()
        values = plate[features].to_numpy(float)
        known = np.isfinite(values)
        np.add.at(totals, rows, np.where(known, values, 0))
        np.add.at(counts, rows, known)
    overall = totals.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    offset = totals / np.maximum(counts, 1) - overall
    corrected = []
    for plate in plates:
        values = plate[features] - offset[plate["Metadata_Well"].map(position).to_numpy()]
        corrected.append(pd.concat([plate.drop(columns=feature_columns(plate, also)), values], axis=1))
    return corrected


def sphere(profiles: pd.DataFrame, settings: SphereSettings, also: Sequence[str] = ()) -> pd.DataFrame:
    """Features whitened by the negative controls' covariance (pycytominer's Spherize), over all plates at once."""
    features = feature_columns(profiles, also)
    controls = reference_wells(profiles, "negcon")
    if profiles[features].isna().any(axis=None):
        raise ValueError("sphering needs complete features; select with 'missing' at 0 or drop the wells that lack them")
    sphered = sphere_by(profiles.loc[controls, features], profiles[features], settings)
    return pd.concat([profiles.drop(columns=features), sphered], axis=1)


def sphere_by(controls: pd.DataFrame, values: pd.DataFrame, settings: SphereSettings) -> pd.DataFrame:
    """Values whitened by the covariance of controls (pycytominer's Spherize); both hold features alone."""
    sphered: pd.DataFrame = Spherize(method=settings.method, epsilon=settings.epsilon).fit(controls).transform(values)
    return sphered.set_axis(values.index)


def harmonize(profiles: pd.DataFrame, column: str, also: Sequence[str] = ()) -> pd.DataFrame:
    """Features integrated over the batches that a column names, by Harmony (harmonypy; the extra `[harmony]`)."""
    features = feature_columns(profiles, also)
    corrected = pd.DataFrame(run_harmony(profiles, column, features).Z_corr, columns=features, index=profiles.index)
    return pd.concat([profiles.drop(columns=features), corrected], axis=1)


def run_harmony(profiles: pd.DataFrame, column: str, features: Sequence[str]) -> Any:
    """harmonypy's result for these features."""
    try:
        import harmonypy
    except ImportError as error:
        raise RuntimeError("this recipe's last step needs harmonypy: pip install 'jumpgpu[harmony]'") from error
    if column not in profiles:
        raise ValueError(f"Harmony integrates over {column}, and the profiles have no such column")
    if as_text(profiles[column]).nunique() < 2:
        raise ValueError(f"Harmony integrates over {column}, which has one value here; leave it out (--without harmony)")
    values = profiles[features].to_numpy(float).T  # features first: with as many features as wells harmonypy could not tell
    return harmonypy.run_harmony(
        values, profiles[[column]].apply(as_text).fillna(""), [column], random_state=0, verbose=False
    )
