"""mAP against copairs called directly, against ranks worked by hand, and against the published fraction retrieved."""

import numpy as np
import pandas as pd
import pytest
from copairs.map import average_precision, mean_average_precision

from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.mean_average_precision import matching, replicability
from tests.helpers.profiles_drawn import draw_effects, draw_plate

PLATES = ("BR00117010", "BR00117011", "BR00117012", "BR00117013")


@pytest.fixture(scope="module")
def published(shared):
    folder = shared / "data" / "profiles"
    return concatenate([read_profiles(folder / f"{p}_normalized_feature_select_negcon_batch.csv.gz") for p in PLATES])


@pytest.mark.parametrize("seeds", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_fraction_retrieved_is_the_published(published, seeds):
    """306 compounds, negatives the DMSO wells of the same plate, null of 10,000, BH q < 0.05; published 0.663."""
    results = [replicability(published, null_size=10_000, seed=seed) for seed in range(seeds)]
    assert {len(r.table) for r in results} == {306}
    assert np.mean([r.fraction_retrieved("map") for r in results]) == pytest.approx(0.61, abs=0.02)
    assert np.mean([r.fraction_retrieved("geometric") for r in results]) == pytest.approx(0.64, abs=0.03)


def test_replicability_is_copairs_own(tmp_path):
    samples = [f"G{i}-a" for i in range(8)]
    effects = draw_effects(samples, list(np.linspace(0, 1, 8)))
    profiles = concatenate([draw_plate(f"P{k}", effects, [*samples, *[None] * 10]) for k in range(3)])
    ours = replicability(profiles, null_size=1000).table
    meta = profiles[["Metadata_broad_sample", "Metadata_Plate", "Metadata_Well"]].copy()
    control = meta["Metadata_broad_sample"].isna()
    meta["negcon"] = control.astype(int)
    meta.loc[control, "Metadata_broad_sample"] = meta["Metadata_Plate"] + meta["Metadata_Well"]
    values = profiles[feature_columns(profiles)].to_numpy()
    rows = average_precision(
        meta, values, ["Metadata_broad_sample"], [], ["Metadata_Plate"], ["negcon"], progress_bar=False
    ).query("negcon == 0")
    assert set(rows["n_pos_pairs"]) == {2}
    assert set(rows["n_total_pairs"]) == {12}
    theirs = mean_average_precision(
        rows, ["Metadata_broad_sample"], 1000, 0.05, seed=1, progress_bar=False, cache_dir=tmp_path
    )
    np.testing.assert_allclose(ours["value"], theirs["mean_average_precision"], rtol=1e-6)  # copairs ranks in float32
    np.testing.assert_allclose(ours["p_map"], theirs["p_value"], atol=0.06)  # another null of 1000: four deviations


def test_perfect_replicates_have_map_1_and_the_least_p():
    samples = ["A-1", "B-1"]
    effects = draw_effects(samples, [50.0, 50.0])
    profiles = concatenate([draw_plate(f"P{k}", effects, [*samples, *[None] * 30]) for k in range(3)])
    table = replicability(profiles, null_size=999).table
    np.testing.assert_array_equal(table["value"], 1)
    # by chance both positives of 32 lead with probability 1 / 496; the least p of 999 rankings is 1 / 1000
    assert (table["p_geometric"] < 0.01).all()
    assert (table["p_map"] >= 1 / 1000).all()


def test_matching_takes_several_labels_and_the_kept_treatments():
    samples = [f"{g}-{k}" for g in ("A", "B", "C", "D", "E", "F") for k in (1, 2)]
    effects = draw_effects(samples, [3.0] * len(samples))
    profiles = concatenate([draw_plate(f"P{k}", effects, [*samples, None, None]) for k in range(2)])
    labels = {s: s[0] + ("|Z" if s.endswith("2") else "") for s in samples}
    profiles = profiles.assign(Metadata_targets=profiles["Metadata_broad_sample"].map(labels))
    table = matching(profiles, "Metadata_targets", null_size=500).table.set_index("Metadata_targets")
    assert list(table.index) == ["A", "B", "C", "D", "E", "F", "Z"]
    assert (table["value"].drop("Z") == 1).all()
    assert table.loc["Z", "value"] < 0.9
    assert table.loc["Z", "n_treatments"] == 6
    kept = matching(profiles, "Metadata_targets", keep=[s for s in samples if s[0] in "ABCD"], null_size=500).table
    assert list(kept["Metadata_targets"]) == ["A", "B", "C", "D", "Z"]
    with pytest.raises(ValueError, match="no treatment with a Metadata_targets"):
        matching(profiles, "Metadata_targets", keep=[], null_size=500)


def test_no_controls_is_an_error():
    effects = draw_effects(["A-1"], [1.0])
    profiles = draw_plate("P", effects, ["A-1", "A-1"])
    with pytest.raises(ValueError, match="no negative controls to rank"):
        replicability(pd.DataFrame(profiles))


def test_empty_wells_are_no_treatment():
    """Others' Parquet has "" where a CSV has nothing: the scores are the same, and no group is named "" """
    samples = ["A-1", "B-1", "C-1", "D-1"]
    empty = ["E-1", "E-2"]  # becomes nothing at all, and ""
    effects = draw_effects([*samples, *empty], [5.0] * 6)
    profiles = concatenate([draw_plate(f"P{k}", effects, [*samples, *empty, *[None] * 8]) for k in range(3)])
    profiles["Metadata_target"] = profiles["Metadata_broad_sample"].map(
        dict(zip(samples, ["x", "x", "y", "y"], strict=True))
    )
    of_empty = profiles["Metadata_broad_sample"].isin(empty)
    tables = []
    for nothing in (None, ""):
        wells = profiles.copy()
        wells["Metadata_broad_sample"] = wells["Metadata_broad_sample"].astype(object).mask(of_empty, nothing)
        wells["Metadata_target"] = wells["Metadata_target"].astype(object).mask(of_empty, nothing)
        replicable, matched = replicability(wells, null_size=99), matching(wells, "Metadata_target", null_size=99)
        assert list(replicable.table["Metadata_broad_sample"]) == samples
        assert list(matched.table["Metadata_target"]) == ["x", "y"]
        tables.append((replicable.table, matched.table))
    for left, right in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(left, right)
