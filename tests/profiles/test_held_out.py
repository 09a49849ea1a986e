"""Controls judged by steps that have not seen them, fitted again from the record; circular, unknown: by name."""

import dataclasses
import json
import sys

import numpy as np
import pandas as pd
import pytest

from jumpgpu import score
from jumpgpu.profile import main as profile
from jumpgpu.profiles.apart import steps_apart
from jumpgpu.profiles.files import recorded
from jumpgpu.profiles.held_out import hold_out
from jumpgpu.profiles.normalize import sphere
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.profiles.recipe import SphereSettings, load_recipe
from tests.helpers.profiles_drawn import draw_position_plates

RECIPE = """
corrections = {corrections}
[normalize]
references = ["negcon"]
[select]
level = "batch"
missing = 0.0
"""


@pytest.fixture
def run(tmp_path):
    """Profiles of three drawn plates by a recipe, as files; the plates' names and the folder."""

    def make(more="", corrections="[]", effect=1.5):
        plates, _ = draw_position_plates(0, effect, 3, n_features=60)
        for plate in plates:
            plate["Metadata_Object_Count"] = np.random.default_rng(0).integers(500, 900, len(plate))
            plate.to_parquet(tmp_path / f"{plate['Metadata_Plate'][0]}.parquet")
        (tmp_path / "recipe.toml").write_text(RECIPE.format(corrections=corrections) + more)
        given = [a for i in (1, 2, 3) for a in ("--plate", str(tmp_path / f"P{i}.parquet"))]
        assert profile([*given, "--output", str(tmp_path), "--recipe", str(tmp_path / "recipe.toml")]) == 0
        return tmp_path

    return make


def files(folder, name):
    paths = [folder / "profiles" / p / f"{p}_{name}.parquet" for p in ("P1", "P2", "P3")]
    return paths, [recorded(p.parent, p.parent.name) for p in paths]


def scored(folder, name, *options):
    paths, _ = files(folder, name)
    given = [a for p in paths for a in ("--plate", str(p))]
    status = score.main(["replicating", *given, "--output", str(folder), "--draws", "500", "--no-figures", *options])
    return status, json.loads((folder / "scores" / "replicating.json").read_text())[0] if status == 0 else None


def test_sphered_controls_look_clean_only_to_a_fit_that_has_seen_them(run):
    """More features than a fold's controls: by their own covariance controls are noise, held out they are not."""
    folder = run("[sphere]\nepsilon = 1e-6\n")
    name = "normalized_feature_select_negcon_batch_spherized"
    paths, records = files(folder, name)
    held = hold_out(paths, records)
    assert not held.refused
    assert held.replace is not None
    sphered = pd.concat([pd.read_parquet(p) for p in paths])
    own = sphered[sphered["Metadata_control_type"] == "negcon"]
    features = feature_columns(own)
    assert set(feature_columns(held.replace)) == set(features)
    assert held.replace[features].to_numpy().var() > 1.3 * own[features].to_numpy().var()
    status, record = scored(folder, name)
    assert status == 0
    assert any("sphered as fitted without those of their positions" in f for f in record["findings"])
    assert record["controls_position_low"] > 5  # the effect of 1.5 is still there, and the check says so


def test_each_control_is_sphered_by_the_others():
    plates, _ = draw_position_plates(1, 1.0, 3, n_features=20)
    together = pd.concat(plates, ignore_index=True)
    controls = together[together["Metadata_control_type"] == "negcon"].reset_index(drop=True)
    features = feature_columns(controls)
    recipe = dataclasses.replace(load_recipe("jumpgpu"), sphere=SphereSettings())
    sphered = steps_apart(controls, features, recipe, ["sphere"])
    changed = controls.copy()
    one = changed["Metadata_Well"] == changed["Metadata_Well"][0]
    changed.loc[one, features] += 3.0
    again = steps_apart(changed, features, recipe, ["sphere"])
    shift = again.loc[one, features].to_numpy() - sphered.loc[one, features].to_numpy()
    np.testing.assert_allclose(shift, np.tile(shift[0], (3, 1)), atol=1e-9)  # one linear map, not fitted on them
    seen = sphere(changed, SphereSettings())[features].to_numpy() - sphere(controls, SphereSettings())[features].to_numpy()
    assert np.abs(seen[one.to_numpy()] - shift).max() > 1e-3


def test_selection_is_done_again_without_the_controls(run):
    folder = run()
    paths, records = files(folder, "normalized_feature_select_negcon_batch")
    held = hold_out(paths, records)
    assert held.replace is None
    assert set(held.check["Metadata_control_type"]) == {"negcon"}
    assert len(held.check) == 192
    status, record = scored(folder, "normalized_feature_select_negcon_batch")
    assert status == 0
    assert any("selected without the negative controls" in f for f in record["findings"])
    for path in paths:  # other controls, the same features
        table = pd.read_parquet(path.parent / path.name.replace("_feature_select_negcon_batch", "_negcon"))
        is_control = table["Metadata_control_type"] == "negcon"
        table.loc[is_control, feature_columns(table)[1]] = table.loc[is_control, feature_columns(table)[0]]
        table.to_parquet(path.parent / path.name.replace("_feature_select_negcon_batch", "_negcon"))
    assert feature_columns(hold_out(paths, records).check) == feature_columns(held.check)


def test_before_selection_nothing_is_fitted_on_them_but_medians(run):
    folder = run()
    held = hold_out(*files(folder, "normalized_negcon"))
    assert held.check is None
    assert not held.refused
    assert held.findings == ()


def test_position_needs_no_second_fit(run):
    folder = run("[position]\nfolds = 3\nmax_directions = 0\n", '["position"]')
    held = hold_out(*files(folder, "normalized_negcon"))
    assert held.check is None
    assert not held.refused


@pytest.mark.parametrize(("corrections", "word"), [('["well_position"]', "well_position"), ('["cell_count"]', "cell_count")])
def test_other_corrections_are_named(run, corrections, word):
    if word == "cell_count":
        folder = run(corrections=corrections)
        assert word in hold_out(*files(folder, "normalized_negcon")).findings[0]
        return
    folder = run()
    paths, records = files(folder, "normalized_negcon")
    for record in records:
        record["recipe"]["corrections"] = [word]
    assert hold_out(paths, records).refused.startswith("circular: the correction well_position")


def by_recipe(folder, more):
    """The run again with more in its recipe."""
    recipe = folder / "recipe.toml"
    recipe.write_text(more + recipe.read_text())
    given = [a for i in (1, 2, 3) for a in ("--plate", str(folder / f"P{i}.parquet"))]
    assert profile([*given, "--output", str(folder), "--overwrite", "--recipe", str(recipe)]) == 0


def test_combat_and_harmony_are_fitted_without_the_controls_that_judge_them(run, monkeypatch, capsys):
    pytest.importorskip("harmonypy")
    pytest.importorskip("scanpy")
    folder = run("[sphere]\nepsilon = 1.0\n")
    by_recipe(folder, 'combat = "Metadata_Plate"\nharmony = "Metadata_Plate"\n')
    name = "normalized_feature_select_negcon_batch_spherized_combat_harmony"
    status, record = scored(folder, name)
    assert status == 0
    assert any(
        "sphered, put through ComBat, mapped onto Harmony's result as fitted without" in f for f in record["findings"]
    )
    assert record["controls_position_low"] > 5  # an effect of 1.5 outlives all three steps, and is seen
    assert scored(folder, name, "--null", "position")[0] == 0
    effects = json.loads((folder / "profiles" / "batch_effects.json").read_text())
    assert [e["table"] for e in effects][-1] == name
    assert not any(e["in_sample"] for e in effects)
    capsys.readouterr()

    monkeypatch.setitem(sys.modules, "harmonypy", None)  # not installed where the table is judged
    status, record = scored(folder, name)
    assert status == 0
    assert (
        "circular: steps of normalized_feature_select_negcon_batch_spherized_combat_harmony were fitted on these"
        in (record["controls_position_reason"])
    )
    assert record["controls_position_percent"] is None
    assert scored(folder, name, "--null", "position")[0] == 2
    assert "no null by position: circular: steps of" in capsys.readouterr().err


def test_profiles_of_others_are_unknown(run, tmp_path):
    folder = run()
    paths, _ = files(folder, "normalized_negcon")
    for path in paths:
        (tmp_path / "others").mkdir(exist_ok=True)
        (tmp_path / "others" / path.name).write_bytes(path.read_bytes())
    given = [a for p in paths for a in ("--plate", str(tmp_path / "others" / p.name))]
    assert score.main(["replicating", *given, "--output", str(tmp_path), "--draws", "100", "--no-figures"]) == 0
    record = json.loads((tmp_path / "scores" / "replicating.json").read_text())[0]
    assert any(f.startswith("unknown: no record says whether steps") for f in record["findings"])


def test_a_table_that_cannot_be_fitted_again_is_circular_by_name(run):
    folder = run()
    paths, records = files(folder, "normalized_feature_select_negcon_batch")
    (folder / "profiles" / "P2" / "P2_normalized_negcon.parquet").unlink()
    assert "P2_normalized_negcon.parquet is not there" in hold_out(paths, records).refused


def in_runs(folder, runs, more=""):
    """Profiles of four drawn plates in a run of `profile` for each list of plates, by one recipe."""
    for plate in draw_position_plates(3, 1.0, 4, n_features=30)[0]:
        plate.to_parquet(folder / f"{plate['Metadata_Plate'][0]}.parquet")
    (folder / "recipe.toml").write_text(RECIPE.format(corrections="[]") + more)
    for plates in runs:
        given = [str(folder / f"{p}.parquet") for p in plates]
        arguments = ["--output", str(folder), "--recipe", str(folder / "recipe.toml"), "--overwrite"]
        assert profile([*given, *arguments]) == 0


def scored_by_barcode(folder, capsys):
    capsys.readouterr()
    arguments = ["P1", "P2", "P3", "P4", "--output", str(folder), "--draws", "500", "--no-figures"]
    assert score.main(["replicating", *arguments]) == 0
    return json.loads((folder / "scores" / "replicating.json").read_text())[0], capsys.readouterr().err


@pytest.mark.parametrize(
    ("runs", "more"),
    [((("P1", "P2"), ("P3", "P4")), "[sphere]\nepsilon = 1e-6\n"), ((("P1",), ("P2",), ("P3",), ("P4",)), "")],
)
def test_plates_of_several_runs_are_judged_by_the_controls_of_all_of_them(tmp_path, capsys, runs, more):
    in_runs(tmp_path, runs, more)
    record, said = scored_by_barcode(tmp_path, capsys)
    assert record["controls_position_n"] == 64
    assert record["controls_plate_n"] == 4
    assert f"run by run ({len(runs)} runs" in said
    paths = [
        tmp_path / "profiles" / p / f"{p}_normalized_feature_select_negcon_batch.parquet" for p in ("P1", "P2", "P3", "P4")
    ]
    check = hold_out(paths, [recorded(p.parent, p.parent.name) for p in paths]).check
    assert check["Metadata_Plate"].value_counts().to_dict() == {"P1": 64, "P2": 64, "P3": 64, "P4": 64}
    if more:  # no plate keeps controls that its sphering was fitted on
        name = "normalized_feature_select_negcon_batch_spherized"
        assert name in said
        paths = [p.with_name(f"{p.parent.name}_{name}.parquet") for p in paths]
        replace = hold_out(paths, [recorded(p.parent, p.parent.name) for p in paths]).replace
        assert sorted(replace["Metadata_Plate"].unique()) == ["P1", "P2", "P3", "P4"]


def test_a_plate_that_went_through_another_run_since_is_named(tmp_path, capsys):
    in_runs(tmp_path, [("P1", "P2", "P3", "P4"), ("P3",)], "[sphere]\nepsilon = 1e-6\n")
    record, _ = scored_by_barcode(tmp_path, capsys)
    assert record["controls_position_reason"].endswith("(P3 went through another run of jumpgpu profile since)")


def test_plates_selected_one_by_one_need_no_common_run(tmp_path, capsys):
    in_runs(tmp_path, [("P1", "P2", "P3", "P4"), ("P3",)])
    text = (tmp_path / "recipe.toml").read_text().replace('level = "batch"', 'level = "plate"')
    (tmp_path / "recipe.toml").write_text(text)
    for plates in (("P1", "P2"), ("P3", "P4"), ("P1",)):
        given = [str(tmp_path / f"{p}.parquet") for p in plates]
        assert profile([*given, "--output", str(tmp_path), "--recipe", str(tmp_path / "recipe.toml"), "--overwrite"]) == 0
    record, said = scored_by_barcode(tmp_path, capsys)
    assert record["controls_position_n"] == 64
    assert "run by run" not in said


def test_tables_of_different_steps_cannot_be_judged(run):
    folder = run()
    paths, records = files(folder, "normalized_negcon")
    paths[1] = paths[1].with_name("P2_normalized_feature_select_negcon_batch.parquet")
    assert hold_out(paths, records).refused.startswith("the tables are of different steps: normalized_feature_select_")
