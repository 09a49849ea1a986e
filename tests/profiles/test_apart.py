"""Steps put to wells that they were not fitted on, against the same steps fitted on them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profiles.apart import harmony_of, steps_apart
from jumpgpu.profiles.combat import combat, combat_of
from jumpgpu.profiles.normalize import run_harmony
from jumpgpu.profiles.platemap import feature_columns, is_negcon
from jumpgpu.profiles.recipe import SphereSettings, load_recipe
from tests.helpers.profiles_drawn import draw_position_plates


@pytest.fixture(scope="module")
def wells() -> pd.DataFrame:
    """Three plates that stand apart in every feature, by a shift and a spread of their own."""
    plates, _ = draw_position_plates(0, 0.5, 3, n_features=40)
    random = np.random.default_rng(1)
    for plate in plates:
        features = feature_columns(plate)
        plate[features] = plate[features] * random.uniform(0.7, 1.4, 40) + random.normal(size=40)
    return pd.concat(plates, ignore_index=True)


def plate_means(table: pd.DataFrame) -> float:
    """How far the plates' means stand apart, on average over features."""
    return float(table.groupby("Metadata_Plate")[feature_columns(table)].mean().std().mean())


def test_combat_of_wells_that_it_was_fitted_on_is_combat(wells):
    pytest.importorskip("scanpy")
    seen, held = combat_of(wells, wells.iloc[100:600], "Metadata_Plate")
    pd.testing.assert_frame_equal(seen, combat(wells, "Metadata_Plate"))
    features = feature_columns(wells)
    np.testing.assert_allclose(held[features], seen[features].iloc[100:600], rtol=0, atol=1e-9)
    assert list(held["Metadata_Well"]) == list(wells["Metadata_Well"].iloc[100:600])


def test_what_is_held_out_is_not_fitted_on(wells):
    pytest.importorskip("scanpy")
    pytest.importorskip("harmonypy")
    features, out = feature_columns(wells), np.arange(len(wells)) % 7 == 0
    for fit in (combat_of, harmony_of):
        seen, held = fit(wells[~out], wells[out], "Metadata_Plate")
        others = wells[out].copy()
        others.iloc[1:, [others.columns.get_loc(f) for f in features]] += 50.0
        again, moved = fit(wells[~out], others, "Metadata_Plate")
        np.testing.assert_array_equal(again[features], seen[features])
        np.testing.assert_allclose(moved[features].iloc[0], held[features].iloc[0], rtol=0, atol=1e-9)
        assert plate_means(held) < 0.4 * plate_means(wells[out])  # and the plates' shifts go all the same
        with pytest.raises(ValueError, match="knows no other well of Metadata_Plate P9"):
            fit(wells[~out], wells[out].assign(Metadata_Plate="P9"), "Metadata_Plate")


def test_harmony_maps_the_wells_that_it_was_fitted_on_where_it_put_them(wells):
    pytest.importorskip("harmonypy")
    features = feature_columns(wells)
    result = np.asarray(run_harmony(wells, "Metadata_Plate", features).Z_corr)
    seen, held = harmony_of(wells, wells, "Metadata_Plate")
    np.testing.assert_array_equal(seen[features], result)
    moved = result - wells[features].to_numpy()
    # Harmony stops before its clusters stand still: a twentieth of what it moved is left.
    assert np.sqrt(((held[features].to_numpy() - result) ** 2).mean()) < 0.05 * np.sqrt((moved**2).mean())


def test_each_fold_is_held_out_of_every_step(wells):
    pytest.importorskip("scanpy")
    recipe = dataclasses.replace(load_recipe("jumpgpu"), sphere=SphereSettings(epsilon=1.0), combat="Metadata_Plate")
    features = feature_columns(wells)
    controls = steps_apart(wells, features, recipe, ["sphere", "combat"])
    expected = wells.loc[is_negcon(wells), ["Metadata_Plate", "Metadata_Well"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(controls[["Metadata_Plate", "Metadata_Well"]], expected)
    changed = wells.copy()
    one = is_negcon(wells) & (wells["Metadata_Well"] == expected["Metadata_Well"][0])
    changed.loc[one, features] += 3.0
    again = steps_apart(changed, features, recipe, ["sphere", "combat"])
    shift = (again[features] - controls[features])[controls["Metadata_Well"] == expected["Metadata_Well"][0]].to_numpy()
    # One linear map for each plate, which has not seen them: sphered alike, then stretched by the plate's own stretch.
    sphered = [steps_apart(t, features, recipe, ["sphere"]) for t in (wells, changed)]
    linear = (sphered[1][features] - sphered[0][features])[one[is_negcon(wells)].to_numpy()].to_numpy()
    np.testing.assert_allclose(linear, np.tile(linear[0], (3, 1)), rtol=0, atol=1e-9)
    assert (np.sign(shift) == np.sign(linear))[np.abs(linear) > 1e-6].all()
    with pytest.raises(ValueError, match="the record has no harmony"):
        steps_apart(wells, features, recipe, ["harmony"])
