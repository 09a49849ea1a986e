"""Well profiles, from aggregated wells to selected features: the steps of a recipe in their order.

    wells = aggregate(plate)                                   P            mean of every feature over a well's cells
    augmented = annotate(wells, platemap, treatments)          P_augmented  who sits where
    for plate, name, table in make_profiles([augmented, ...], recipe):
                                                               P_normalized, P_normalized_negcon,
                                                               P_normalized_feature_select_negcon_plate, ..., P_features

`P_features` is no profile: it lists what was fitted to every feature and why features went.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from .combat import combat
from .conventions import groups
from .normalize import Fit, correct_cell_count, correct_well_positions, harmonize, normalize, sphere
from .platemap import SAMPLE, common_features, feature_columns
from .position import Explained, correct_position
from .recipe import Recipe
from .select import Correlations, select

FEATURES = "features"  # name of the table of fits and reasons
LATER = {
    "sphere": "spherized",
    "combat": "combat",
    "harmony": "harmony",
}  # after selection: words of names


def table_name(reference: str, *steps: str) -> str:
    """`normalized`, `normalized_negcon`, `normalized_feature_select_negcon_plate`: the names pycytominer's users expect."""
    control = [] if reference == "all" else [reference]
    return "_".join(["normalized", *(["feature_select", *control, *steps] if steps else control)])


def make_profiles(augmented: Iterable[pd.DataFrame], recipe: Recipe) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """A recipe's tables of annotated plates, each as soon as it is made.

    Parameters
    ----------
    augmented : DataFrames
        Annotated profiles, one plate each. They are taken one at a time unless a step looks at all plates at once
        (well-position correction, selection over the batch, sphering, ComBat, Harmony).
    recipe : Recipe

    Yields
    ------
    (plate, name, table)
        The name is the table's file name after `<plate>_`; `features` lists medians, MADs and dropped features.
    """
    fits: dict[str, list[pd.DataFrame]] = {}
    batch: dict[str, list[pd.DataFrame]] = {reference: [] for reference in recipe.normalize.references}
    whole = recipe.select.level == "batch" or any((recipe.sphere, recipe.combat, recipe.harmony))
    explained: dict[str, pd.DataFrame] = {}
    for plate in correct(augmented, recipe, explained):
        barcode = barcode_of(plate)
        if barcode in fits:
            raise ValueError(f"plate {barcode} was given twice")
        fits[barcode] = []
        scaled_alone = recipe.normalize.zero_mad == "drop" and not recipe.normalize.inverse_normal
        known = Correlations() if scaled_alone else None  # by wells of any kind the features are alike
        for reference in recipe.normalize.references:
            table, fit = normalize(plate, reference, recipe.normalize, recipe.features)
            yield barcode, table_name(reference), table
            reasons = dict[str, str]()
            if recipe.select.level == "plate":
                table, reasons = select(table, recipe.select, recipe.features, known)
                yield barcode, table_name(reference, "plate"), table
            if whole:
                batch[reference].append(table)
            fits[barcode].append(describe(fit, "plate", reasons))
        if not whole:
            yield barcode, FEATURES, add_explained(pd.concat(fits[barcode], ignore_index=True), explained.get(barcode))
    if not whole:
        return
    for reference in recipe.normalize.references:
        reasons = {}
        for steps, tables in batch_steps(batch.pop(reference), recipe, reasons):
            for table in tables:
                yield barcode_of(table), table_name(reference, *steps), table
        if recipe.select.level == "batch":
            for barcode in fits:
                fits[barcode] = [mark(f, reference, "batch", reasons) for f in fits[barcode]]
    for barcode, rows in fits.items():
        yield barcode, FEATURES, add_explained(pd.concat(rows, ignore_index=True), explained.get(barcode))


def correct(
    augmented: Iterable[pd.DataFrame], recipe: Recipe, explained: dict[str, pd.DataFrame] | None = None
) -> Iterator[pd.DataFrame]:
    """The plates after the recipe's corrections, in the recipe's order; `explained` is filled with what `position` took."""
    plates = iter(augmented)
    for correction in recipe.corrections:
        if correction == "well_position":
            plates = iter(correct_well_positions(list(plates), recipe.features))
        elif correction == "position":
            corrected, what = correct_plates(list(plates), recipe)
            if explained is not None:
                explained |= {barcode: what.of(barcode) for barcode in map(barcode_of, corrected)}
            plates = iter(corrected)
        else:
            plates = (correct_cell_count(plate, recipe.features) for plate in plates)
    return plates


def correct_plates(plates: list[pd.DataFrame], recipe: Recipe) -> tuple[list[pd.DataFrame], Explained]:
    """The correction `position`, by the column that names treatments in these plates."""
    group = next((c for c in groups(plates[0]) if all(c in p for p in plates)), SAMPLE)
    return correct_position(plates, recipe.position, group, recipe.features)


def add_explained(fits: pd.DataFrame, explained: pd.DataFrame | None) -> pd.DataFrame:
    """The table of fits with what the correction `position` took from each feature."""
    return fits if explained is None else fits.merge(explained, on="feature", how="left", validate="many_to_one")


def batch_steps(
    plates: list[pd.DataFrame], recipe: Recipe, reasons: dict[str, str]
) -> Iterator[tuple[tuple[str, ...], list[pd.DataFrame]]]:
    """The steps over all plates at once: their words in the table's name, and the plates after them.

    `reasons` is filled with what selection excluded.
    """
    steps: tuple[str, ...] = (recipe.select.level,)
    features = common_features(plates, recipe.features)
    if recipe.select.level == "batch":
        values = np.concatenate([p[features].to_numpy(float) for p in plates])
        selected, excluded = select(pd.DataFrame(values, columns=features), recipe.select, features)
        reasons |= excluded
        for plate in plates:  # what another plate lacks
            reasons |= {f: "not in every plate" for f in feature_columns(plate, recipe.features) if f not in set(features)}
        features = list(selected.columns)
        del values, selected
        plates = [pd.concat([p.drop(columns=feature_columns(p, recipe.features)), p[features]], axis=1) for p in plates]
        yield steps, plates
    if not any((recipe.sphere, recipe.combat, recipe.harmony)):
        return
    together = pd.concat(
        [p.drop(columns=[f for f in feature_columns(p, recipe.features) if f not in set(features)]) for p in plates]
    )
    together = together.reset_index(drop=True)
    if recipe.sphere is not None:
        together = sphere(together, recipe.sphere, recipe.features)
        steps = (*steps, LATER["sphere"])
        yield steps, split(together)
    if recipe.combat is not None:
        together = combat(together, recipe.combat, recipe.features)
        steps = (*steps, LATER["combat"])
        yield steps, split(together)
    if recipe.harmony is not None:
        together = harmonize(together, recipe.harmony, recipe.features)
        yield (*steps, LATER["harmony"]), split(together)


def split(together: pd.DataFrame) -> list[pd.DataFrame]:
    """One table per plate, in order of appearance."""
    return [t.reset_index(drop=True) for _, t in together.groupby("Metadata_Plate", sort=False)]


def barcode_of(profiles: pd.DataFrame) -> str:
    """The plate that a table belongs to; ValueError where it holds several or none."""
    barcodes = profiles["Metadata_Plate"].unique()
    if len(barcodes) != 1:
        raise ValueError(f"a table of one plate was expected, found {len(barcodes)} plates")
    return str(barcodes[0])


def describe(fit: Fit, level: str, reasons: dict[str, str]) -> pd.DataFrame:
    """A plate's features under one reference: median, mad, and why a feature went (empty: it stayed)."""
    return mark(fit.table(), fit.reference, level, reasons)


def mark(fits: pd.DataFrame, reference: str, level: str, reasons: dict[str, str]) -> pd.DataFrame:
    """The table of fits with selection's reasons put in."""
    if fits["reference"].iloc[0] != reference:
        return fits
    selected = fits["feature"].map(reasons)
    ours = selected.notna() & (fits["dropped"] == "")
    return fits.assign(dropped=fits["dropped"].where(~ours, f"selection ({level}): " + selected.astype(object).fillna("")))
