"""Negative controls as the steps of a recipe make them when those steps have not seen them.

A step that was fitted on the wells that judge it makes them look better than they are: sphered by their own covariance,
controls look like noise whatever their position does. What our own record of a table says is done again here for the
controls: features are selected without them, and each goes through sphering, ComBat and Harmony as fitted without the
controls of its position (`apart`). The correction `position` needs nothing (it never fits a well that it corrects). A step
that cannot be done again makes the judgement circular, and that is said by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..settings.config import build
from ..settings.names import counted
from .apart import steps_apart, steps_of
from .files import read_parquet, recorded
from .platemap import common_features, feature_columns, is_negcon, metadata_columns, some
from .recipe import Recipe
from .select import select

CIRCULAR = {"well_position": "the correction well_position subtracted each position's own mean over the plates"}
WORDS = {"sphere": "sphered", "combat": "put through ComBat", "harmony": "mapped onto Harmony's result"}


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
    names = {f.stem.removeprefix(f"{f.parent.name}_") for f in files}
    if len(names) > 1:
        return HeldOut(refused=f"the tables are of different steps: {', '.join(sorted(names))}")
    name = names.pop()
    steps = [s for s in ("well_position",) if s in recipe.corrections]
    if steps:
        return HeldOut(refused="circular: " + "; ".join(CIRCULAR[s] for s in steps))
    findings = []
    if "cell_count" in recipe.corrections:
        findings.append(
            "the correction cell_count was fitted on all wells of a plate, controls included: a slope per feature"
        )
    if "feature_select" not in name:
        return HeldOut(findings=tuple(findings))
    alone = recipe.select.level == "plate" and not steps_of(name)  # no plate has a part in another's table
    runs: dict[tuple[Path, tuple[str, ...]], None] = {}
    for f, record in zip(files, records, strict=True):
        runs[f.parent.parent, (f.parent.name,) if alone else tuple(record.get("plates", ()))] = None
    try:
        fitted = [fit_again(folder, name, recipe, plates) for folder, plates in runs]
    except (OSError, ValueError, RuntimeError) as error:
        return HeldOut(refused=f"circular: steps of {name} were fitted on these wells and cannot be fitted again ({error})")
    check = in_common([check for check, _ in fitted], recipe)
    replace = in_common([replace for _, replace in fitted if replace is not None], recipe)
    n = 0 if check is None else len(feature_columns(check, recipe.features))
    if check is None or n < 2:
        return HeldOut(refused=f"selected without the negative controls, the plates have {counted(n, 'feature')} in common")
    words = [WORDS[s] for s in steps_of(name)]
    done = "selected without the negative controls"
    done += f" and {', '.join(words)} as fitted without those of their positions" if words else ""
    done += f", run by run ({len(runs)} runs of jumpgpu profile)" if len(runs) > 1 and not alone else ""
    return HeldOut(check, replace, "", (*findings, f"controls are judged on {n} features, {done}"))


def in_common(tables: Sequence[pd.DataFrame], recipe: Recipe) -> pd.DataFrame | None:
    """The controls of several runs together, in the features that all have; None where there is no table."""
    if len(tables) < 2:
        return tables[0] if tables else None
    shared = common_features(tables, recipe.features)
    return pd.concat([t[[*metadata_columns(t), *shared]] for t in tables], ignore_index=True)


def fit_again(folder: Path, name: str, recipe: Recipe, plates: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The controls of all plates of the run, with selection and later steps that have not seen them.

    The second table has the features of the table itself; None where there are no later steps.
    """
    if not plates:
        raise ValueError("the record does not list the run's plates")
    if len(plates) > 1 and (changed := [p for p in plates if recorded(folder / p, p).get("plates") != list(plates)]):
        raise ValueError(f"{some(changed)} went through another run of jumpgpu profile since")
    reference = "negcon" if "negcon" in name.split("_") else "all"
    base = "normalized" if reference == "all" else "normalized_negcon"
    tables = [read(folder, p, base) for p in plates]
    also, steps = recipe.features, steps_of(name)
    if recipe.select.level == "batch":
        features = common_features(tables, also)
        treated = pd.concat([t.loc[~is_negcon(t), features] for t in tables], ignore_index=True)
        kept = [list(select(treated, recipe.select, features)[0].columns)]
    else:
        chosen = [select(t[~is_negcon(t)], recipe.select, also)[0] for t in tables]
        kept = [feature_columns(c, also) for c in chosen]
    shared = set(kept[0]).intersection(*kept[1:], *tables)
    features = [f for f in kept[0] if f in shared]

    def together(wells: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
        """The wells that the steps are fitted on: the controls alone, where they are enough."""
        rows = [t if set(steps) - {"sphere"} else t[is_negcon(t)] for t in wells]
        return pd.concat([t[[*metadata_columns(t), *names]] for t in rows], ignore_index=True)

    if not steps:
        return together(tables, features), None
    first = name.split("_batch")[0] + "_batch" if recipe.select.level == "batch" else name.split("_plate")[0] + "_plate"
    before = [read(folder, p, first) for p in plates]
    own = common_features(before, also)
    return (
        steps_apart(together(tables, features), features, recipe, steps),
        steps_apart(together(before, own), own, recipe, steps),
    )


def read(folder: Path, plate: str, name: str) -> pd.DataFrame:
    """A table of the run, or FileNotFoundError by name."""
    path = folder / plate / f"{plate}_{name}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not there")
    return read_parquet(path)
