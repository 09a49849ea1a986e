"""Profiling recipes: what is done to a plate's wells, as TOML to frozen dataclasses.

A recipe is data only. The presets are files in `configs/recipes/`: `cpjump1-2021-06` and `cpjump1-2021-12` are the two
published settings of CPJUMP1, `jumpgpu` is our default, `jump-production` is in the manner of the JUMP production data.
"""

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..settings.config import build, config_folder, file_or_preset

STATISTICS = ("mean", "median")
REFERENCES = ("all", "negcon")  # which wells give the medians and MADs
CORRECTIONS = ("well_position", "cell_count", "position")  # before normalisation, in the recipe's order
POSITION_FITS = ("all", "controls")
OPERATIONS = ("frequency", "variance", "correlation", "missing", "blocklist", "outliers")
LEVELS = ("plate", "batch")
ZERO_MADS = ("keep", "drop")
NULLS = ("typical", "matched")  # wells a draw: the median group's number for all, or each group's own
STEPS = ("well_position", "cell_count", "position", "inverse_normal", "sphere", "combat", "harmony")  # may be left out
SPHERINGS = ("PCA", "ZCA", "PCA-cor", "ZCA-cor")  # pycytominer's names


@dataclass(frozen=True)
class NormalizeSettings:
    """(x - median) / (1.4826 MAD + epsilon), medians and MADs of each reference by itself."""

    references: tuple[str, ...] = REFERENCES
    epsilon: float = 0.0
    zero_mad: str = "drop"  # drop the features whose MAD is 0 and say so, or keep what the division gives
    inverse_normal: bool = False  # then ranks to normal quantiles, plate by plate


@dataclass(frozen=True)
class SelectSettings:
    """Feature selection. Every operation sees all features; what they exclude is united."""

    operations: tuple[str, ...] = ("frequency", "correlation", "missing", "blocklist")
    level: str = "plate"  # over the wells of a plate, or of all plates of the run
    frequency_cut: float = 0.05  # frequency: least count(second most common value) / count(most common value)
    unique_cut: float = 0.1  # frequency: least distinct values / wells
    min_variance: float = 1e-6  # variance: pycytominer's present rule
    correlation: float = 0.9  # signed Pearson r above which one of a pair is dropped
    missing: float = 0.05  # most missing values, as a share of wells
    outlier: float = 500.0  # outliers: largest absolute value


@dataclass(frozen=True)
class SphereSettings:
    method: str = "ZCA-cor"
    epsilon: float = 1e-6  # added to the singular values


@dataclass(frozen=True)
class PositionSettings:
    """The correction `position`: a surface over rows and columns, and directions that controls of one position share."""

    fit: str = "all"  # wells the surface is fitted to: all, robustly, or the negative controls alone
    per_plate: bool = False  # each plate's surface from its own wells, smoothed as the shared one
    max_directions: int = 10  # most directions that go; how many is chosen by cross-validation; 0: the surface alone
    folds: int = 10  # of positions; each is corrected by what the others say
    seed: int = 0  # deals positions into folds


@dataclass(frozen=True)
class ScoreSettings:
    """How `python -m jumpgpu.score` draws its nulls where its options do not say."""

    draws: int = 10_000  # sets or pairs of a null
    null_wells: str = "typical"  # wells a set: typical (the median group's), matched (each group's own), or a number


@dataclass(frozen=True)
class Recipe:
    aggregate: str = "mean"  # of every feature over a well's cells
    corrections: tuple[str, ...] = ()
    position: PositionSettings = field(default_factory=PositionSettings)
    normalize: NormalizeSettings = field(default_factory=NormalizeSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    sphere: SphereSettings | None = None  # fitted on the negative controls of all plates of the run
    combat: str | None = None  # the column whose values are batches; after sphering, before Harmony
    harmony: str | None = None  # the column whose values are batches, such as Metadata_Plate
    controls: tuple[str, ...] = ()  # negative controls as COLUMN=VALUE, any of several; none: Metadata_control_type=negcon
    features: tuple[str, ...] = ()  # columns that are features besides those of Cells, Cytoplasm and Nuclei; patterns
    score: ScoreSettings = field(default_factory=ScoreSettings)


def load_recipe(path: str | Path) -> Recipe:
    """A TOML file, or the name of a preset in `configs/recipes/`; ValueError for what is wrong."""
    path = file_or_preset(path, config_folder() / "recipes", "recipe")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe file")
    with open(path, "rb") as file:
        try:
            table = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from error
    recipe: Recipe = build(Recipe, table, str(path))
    check(recipe, str(path))
    return recipe


def check(recipe: Recipe, where: str = "recipe") -> None:
    """ValueError that names the first word a recipe does not know."""
    choices = [
        ("aggregate", (recipe.aggregate,), STATISTICS),
        ("corrections", recipe.corrections, CORRECTIONS),
        ("position.fit", (recipe.position.fit,), POSITION_FITS),
        ("normalize.references", recipe.normalize.references, REFERENCES),
        ("normalize.zero_mad", (recipe.normalize.zero_mad,), ZERO_MADS),
        ("select.operations", recipe.select.operations, OPERATIONS),
        ("select.level", (recipe.select.level,), LEVELS),
        ("sphere.method", (recipe.sphere.method,) if recipe.sphere else (), SPHERINGS),
    ]
    for key, words, known in choices:
        for word in words:
            if word not in known:
                raise ValueError(f"{where}: {key}: unknown word {word!r}; expected one of {known}")
    for control in recipe.controls:
        if "=" not in control:
            raise ValueError(f"{where}: controls: {control!r} is not COLUMN=VALUE, such as Metadata_pert_type=negcon")
    select, score = recipe.select, recipe.score
    ranges: list[tuple[str, float, float, float]] = [
        ("normalize.epsilon", recipe.normalize.epsilon, 0, 1),
        ("select.frequency_cut", select.frequency_cut, 0, 1),
        ("select.unique_cut", select.unique_cut, 0, 1),
        ("select.correlation", select.correlation, -1, 1),
        ("select.missing", select.missing, 0, 1),
        ("select.min_variance", select.min_variance, 0, float("inf")),
        ("select.outlier", select.outlier, 0, float("inf")),
        ("sphere.epsilon", recipe.sphere.epsilon if recipe.sphere else 0, 0, float("inf")),
        ("position.max_directions", recipe.position.max_directions, 0, 40),
        ("position.folds", recipe.position.folds, 2, 50),
        ("position.seed", recipe.position.seed, 0, 2**63 - 1),
        ("score.draws", score.draws, 1, 10_000_000),
    ]
    for key, value, minimum, maximum in ranges:
        if not minimum <= value <= maximum:
            raise ValueError(f"{where}: {key} is {value:g}; expected {minimum:g} to {maximum:g}")
    if score.null_wells not in NULLS and not (score.null_wells.isdecimal() and int(score.null_wells) >= 2):
        raise ValueError(
            f"{where}: score.null_wells is {score.null_wells!r}; expected one of {NULLS}, or a number from 2 on"
        )


def reduce(recipe: Recipe, without: Sequence[str], level: str | None, references: Sequence[str] | None) -> Recipe:
    """The recipe without the named steps, with the level of selection and the references that are given."""
    normalize, select = recipe.normalize, recipe.select
    if "inverse_normal" in without:
        normalize = dataclasses.replace(normalize, inverse_normal=False)
    if references:
        normalize = dataclasses.replace(normalize, references=tuple(dict.fromkeys(references)))
    if level is not None:
        select = dataclasses.replace(select, level=level)
    recipe = dataclasses.replace(
        recipe,
        corrections=tuple(c for c in recipe.corrections if c not in without),
        normalize=normalize,
        select=select,
        sphere=None if "sphere" in without else recipe.sphere,
        combat=None if "combat" in without else recipe.combat,
        harmony=None if "harmony" in without else recipe.harmony,
    )
    check(recipe)
    return recipe


def in_words(recipe: Recipe) -> str:
    """A recipe's steps in one line; every setting stands in the record beside the profiles."""
    by = {"all": "all wells", "negcon": "the negative controls"}
    steps = [f"{recipe.aggregate} over cells", *(f"corrected for {c.replace('_', ' ')}" for c in recipe.corrections)]
    steps.append("normalised by " + " and by ".join(by[r] for r in recipe.normalize.references))
    over = "each plate" if recipe.select.level == "plate" else "all plates"
    steps.append(f"features selected over {over} ({', '.join(recipe.select.operations) or 'no rule'})")
    steps += ["sphered"] * (recipe.sphere is not None)
    steps += [f"{name} over {column}" for name, column in (("ComBat", recipe.combat), ("Harmony", recipe.harmony)) if column]
    return "; ".join(steps)
