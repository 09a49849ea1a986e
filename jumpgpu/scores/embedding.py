"""Data of two pictures of profiles: wells in a plane (principal components or UMAP) and how alike every two wells are."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..profiles.design_checks import treated_wells
from ..profiles.platemap import CONTROL, NEGATIVE, SAMPLE, is_negcon, metadata_columns
from ..profiles.text_tables import as_text
from .common import Complete, complete, correlations

METHODS = ("pca", "umap")


@dataclass(frozen=True)
class Picture:
    """A row per well: its metadata, then coordinates, or its correlation with every well in the order of rows."""

    name: str
    condition: str
    table: pd.DataFrame
    settings: dict[str, Any]
    findings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """What the picture is of, as a flat record."""
        return {"score": self.name, "condition": self.condition, **self.settings, "findings": list(self.findings)}

    def tidy(self) -> pd.DataFrame:
        """The table with its condition, to be put below others."""
        return self.table.assign(score=self.name, condition=self.condition)


def chosen_wells(profiles: pd.DataFrame, group: str, also: Sequence[str]) -> tuple[Complete, pd.DataFrame]:
    """Treated wells and negative controls without gaps, and their rows by group, plate and well; controls come last."""
    treated = treated_wells(profiles, group)
    negcon = is_negcon(profiles) if {CONTROL, NEGATIVE} & set(profiles) else ~treated & False
    chosen = complete(profiles[treated | negcon], also)
    wells = chosen.profiles.assign(**{group: as_text(chosen.profiles[group])})
    last = is_negcon(wells) if {CONTROL, NEGATIVE} & set(wells) else pd.Series(False, index=wells.index)
    order = wells.assign(_last=last).sort_values(["_last", group, "Metadata_Plate", "Metadata_Well"], kind="stable").index
    return chosen, wells.loc[order].reset_index(drop=True)


def embed(
    profiles: pd.DataFrame,
    group: str = SAMPLE,
    method: str = "pca",
    condition: str = "",
    seed: int = 0,
    also: Sequence[str] = (),
) -> Picture:
    """Wells in a plane: treated ones and negative controls.

    Parameters
    ----------
    method : {"pca", "umap"}
        The first two principal components of the standardised features, each turned so that its largest loading is
        positive; or umap-learn's layout of them (the extra `[umap]`).
    seed : int
        Of UMAP; the same seed gives the same picture on one machine.

    Returns
    -------
    Picture
        Its table: metadata, then PC1 and PC2 (UMAP1 and UMAP2); its settings name the share of variance of each component.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; expected one of {METHODS}")
    chosen, wells = chosen_wells(profiles, group, also)
    values = wells[chosen.features].to_numpy(float)
    varies = values.std(axis=0) > 1e-12 * np.abs(values).max(axis=0)
    if len(values) < 3 or varies.sum() < 2:
        raise ValueError(
            f"{condition or 'these plates'}: {len(values)} wells and {int(varies.sum())} features that vary; "
            "a plane needs three wells and two features"
        )
    settings: dict[str, Any] = {"group": group, "method": method, "seed": seed, **chosen.settings()}
    plane, names, explained = plane_of(values[:, varies], method, seed)
    if explained:
        settings["explained"] = explained
    placed = pd.DataFrame(np.asarray(plane, float), columns=names)
    table = pd.concat([wells[metadata_columns(wells)], placed], axis=1)
    return Picture("embed", condition, table, settings, tuple(chosen.findings()))


def plane_of(values: np.ndarray, method: str, seed: int = 0) -> tuple[np.ndarray, list[str], list[float]]:
    """float [N, F], every column with a spread, to [N, 2], the axes' names, and each component's share of the variance.

    Columns are standardised first; UMAP has no shares. RuntimeError where umap-learn is wanted and not installed.
    """
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    if method == "umap":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts of umap-learn that are not used here
            try:
                import umap
            except ImportError as error:
                raise RuntimeError("this layout needs umap-learn: pip install 'jumpgpu[umap]'") from error
            neighbors = min(15, len(scaled) - 1)
            plane = umap.UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1).fit_transform(scaled)
        return np.asarray(plane, float), ["UMAP1", "UMAP2"], []
    u, s, v = np.linalg.svd(scaled, full_matrices=False)
    sign = np.sign(v[np.arange(2), np.abs(v[:2]).argmax(axis=1)])
    return u[:, :2] * s[:2] * sign, ["PC1", "PC2"], (s[:2] ** 2 / (s**2).sum()).tolist()


def similarity(profiles: pd.DataFrame, group: str = SAMPLE, condition: str = "", also: Sequence[str] = ()) -> Picture:
    """Pearson r of every two wells, in the order of treatments (controls last), so that replicates form blocks.

    Returns
    -------
    Picture
        Its table: metadata, then a column `<plate> <well>` for every row, in the same order.
    """
    chosen, wells = chosen_wells(profiles, group, also)
    r = correlations(wells[chosen.features].to_numpy(float))
    names = (wells["Metadata_Plate"].astype(str) + " " + wells["Metadata_Well"].astype(str)).tolist()
    if len(set(names)) < len(names):
        raise ValueError(f"{condition or 'these plates'}: {len(names) - len(set(names))} wells are given more than once")
    table = pd.concat([wells[metadata_columns(wells)], pd.DataFrame(np.clip(r, -1, 1), columns=names)], axis=1)
    return Picture("similarity", condition, table, {"group": group, **chosen.settings()}, tuple(chosen.findings()))
