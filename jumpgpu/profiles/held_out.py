"""Negative controls as the steps of a recipe make them when those steps have not seen them.

A step that was fitted on the wells that judge it makes them look better than they are: sphered by their own covariance,
controls look like noise whatever their position does. What our own record of a table says is done again here for the
controls: features are selected without them, and each is sphered by the controls of other positions. The correction
`position` needs nothing (it never fits a well that it corrects). A step that cannot be done again makes the judgement
circular, and that is said by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..settings.config import build
from .normalize import sphere_by
from .platemap import common_features, feature_columns, is_negcon, metadata_columns
from .recipe import Recipe
from .select import select

FOLDS = 10
CIRCULAR = {
    "well_position": "the correction well_position subtracted each position's own mean over the plates",
    "harmony": "Harmony was fitted on these very wells and cannot be fitted without them",
    "combat": "ComBat was fitted on these very wells",
}


@dataclass(frozen=True)
class HeldOut:
    """The negative controls that may judge a table.

    check     profiles of the controls, nothing fitted on them; None: those of the table are as good
    replace   the same in the features of the table, to rank treatments among; None: those of the table are as good
    refused   why the controls may judge nothing; empty where they may
    findings  what is not known or was done again, a line each
    """

    check: pd.DataFrame | None = None
    replace: pd.DataFrame | None = None
    refused: str = ""
    findings: tuple[str, ...] = ()


def hold_out(files: Sequence[Path], records: Sequence[dict[str, Any]]) -> HeldOut:
    """How the negative controls of these tables may be judged.

    Parameters
    ----------
    files : paths
        The tables that are scored, `<plate>_<name>.parquet`.
    records : dicts
        What `files.recorded` says of each; empty where there is none.
    """
    unknown = [str(f.name) for f, r in zip(files, records, strict=True) if not r]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        return HeldOut(
            findings=(
                f"unknown: no record says whether steps (sphering, correction, selection) of {unknown[0]}{more} were fitted "
                "on the wells that judge them",
            )
        )
    recipe: Recipe = build(Recipe, records[0]["recipe"], f"the record of {files[0].name}")
    if any(r["recipe"] != records[0]["recipe"] for r in records):
        return HeldOut(refused="the tables were made by different recipes")
    plate = str(files[0].parent.name)
    name = files[0].stem.removeprefix(f"{plate}_")
    steps = [s for s in ("well_position",) if s in recipe.corrections]
    steps += [s for s in ("harmony", "combat") if s in name.split("_")]
    if steps:
        return HeldOut(refused="circular: " + "; ".join(CIRCULAR[s] for s in steps))
    findings = []
    if "cell_count" in recipe.corrections:
        findings.append(
            "the correction cell_count was fitted on all wells of a plate, controls included: a slope per feature"
        )
    if "feature_select" not in name:
        return HeldOut(findings=tuple(findings))
    try:
        check, replace = fit_again(files[0].parent.parent, name, recipe, records[0].get("plates", ()))
    except (FileNotFoundError, ValueError) as error:
        return HeldOut(refused=f"circular: steps of {name} were fitted on these wells and cannot be fitted again ({error})")
    n = len(feature_columns(check, recipe.features))
    done = "selected without the negative controls" + (
        " and sphered by those of other positions" if "spherized" in name else ""
    )
    return HeldOut(check, replace, "", (*findings, f"controls are judged on {n} features, {done}"))


def fit_again(folder: Path, name: str, recipe: Recipe, plates: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The controls of all plates of the run, with selection and sphering that have not seen them.

    The second table is sphered in the features of the table itself; None where it is not sphered.
    """
    if not plates:
        raise ValueError("the record does not list the run's plates")
    reference = "negcon" if "negcon" in name.split("_") else "all"
    base = "normalized" if reference == "all" else "normalized_negcon"
    tables = [read(folder, p, base) for p in plates]
    also = recipe.features
    if recipe.select.level == "batch":
        features = common_features(tables, also)
        treated = pd.concat([t.loc[~is_negcon(t), features] for t in tables], ignore_index=True)
        kept = [list(select(treated, recipe.select, features)[0].columns)]
    else:
        chosen = [select(t[~is_negcon(t)], recipe.select, also)[0] for t in tables]
        kept = [feature_columns(c, also) for c in chosen]
    features = [f for f in kept[0] if all(f in set(k) for k in kept) and all(f in t for t in tables)]
    controls = pd.concat([t.loc[is_negcon(t), [*metadata_columns(t), *features]] for t in tables], ignore_index=True)
    if "spherized" not in name:
        return controls, None
    before = [read(folder, p, name.split("_spherized")[0]) for p in plates]
    own = common_features(before, also)
    together = pd.concat([t.loc[is_negcon(t), [*metadata_columns(t), *own]] for t in before], ignore_index=True)
    return sphere_apart(controls, features, recipe), sphere_apart(together, own, recipe)


def sphere_apart(controls: pd.DataFrame, features: list[str], recipe: Recipe) -> pd.DataFrame:
    """Controls, each sphered by those of other positions: positions in folds, in the order of their names."""
    if recipe.sphere is None:
        raise ValueError("the record has no sphering")
    codes = pd.factorize(controls["Metadata_Well"], sort=True)[0]
    folds = np.random.Generator(np.random.PCG64(0)).permutation(codes.max() + 1)[codes] % min(FOLDS, codes.max() + 1)
    sphered = controls.copy()
    values = np.empty((len(controls), len(features)))
    for fold in np.unique(folds):
        out = folds == fold
        values[out] = sphere_by(controls.loc[~out, features], controls.loc[out, features], recipe.sphere).to_numpy()
    sphered[features] = values
    return sphered


def read(folder: Path, plate: str, name: str) -> pd.DataFrame:
    """A table of the run, or FileNotFoundError by name."""
    path = folder / plate / f"{plate}_{name}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not there")
    return pd.read_parquet(path)
