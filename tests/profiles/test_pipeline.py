"""`python -m jumpgpu.profile` and `score`: files, names, options, errors."""

import json
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

import jumpgpu
from jumpgpu import score
from jumpgpu.profile import main as profile
from jumpgpu.profiles.aggregate import summarize
from jumpgpu.profiles.recipe import load_recipe
from jumpgpu.settings.names import well_name
from tests.helpers.profiles_drawn import draw_effects, feature_names, write_metadata, write_store

PLATES = ["P1", "P2"]
COLUMNS = feature_names(40)
SAMPLES = ["A-1", "B-1", "C-1", "D-1"]
PLATEMAP = {well_name(1 + i // 6, 1 + i % 6): ([*SAMPLES, None, None][i % 6]) for i in range(12)}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Two plates of 12 wells as stores of cells, with their metadata, profiled with the default recipe."""
    folder = tmp_path_factory.mktemp("profiles")
    write_metadata(folder / "metadata", PLATEMAP, PLATES)
    effects = draw_effects(SAMPLES, [2.0] * 4, len(COLUMNS))
    for plate in PLATES:
        random = np.random.default_rng([7, *map(ord, plate)])
        cells = {}
        for well, sample in PLATEMAP.items():
            cells[well] = random.normal(size=(30, len(COLUMNS))) + (0 if sample is None else effects.loc[sample].to_numpy())
            cells[well][:, 5] = 3.0  # a feature that never varies
        write_store(folder, plate, cells, COLUMNS)
    assert profile([*plates(), "--output", str(folder), "--anndata"]) == 0
    return folder


def plates():
    return [a for p in PLATES for a in ("--plate", p)]


def table(output, plate, name):
    return pd.read_parquet(output / "profiles" / plate / f"{plate}{name}.parquet")


def test_tables_have_the_names_that_pycytominer_users_expect(output):
    names = sorted(p.stem for p in (output / "profiles" / "P2").glob("*.parquet"))
    assert names == sorted(
        "P2" + n
        for n in (
            "",
            "_augmented",
            "_features",
            "_normalized",
            "_normalized_feature_select_negcon_plate",
            "_normalized_feature_select_plate",
            "_normalized_negcon",
        )
    )


def test_a_well_is_the_mean_of_its_cells(output):
    cells = jumpgpu.open_plate(output / "P1").to_pandas()
    wells = table(output, "P1", "")
    expected = cells[COLUMNS].astype(float).groupby(cells["Metadata_Well"]).mean()
    np.testing.assert_allclose(wells.set_index("Metadata_Well").loc[expected.index, COLUMNS], expected, rtol=1e-12)
    assert (wells["Metadata_Object_Count"] == 30).all()
    assert (wells["Metadata_Site_Count"] == 2).all()


def test_wells_are_annotated_and_controls_found(output):
    augmented = table(output, "P1", "_augmented").set_index("Metadata_Well")
    for well, sample in PLATEMAP.items():
        assert augmented.loc[well, "Metadata_broad_sample"] == sample
        kind = augmented.loc[well, "Metadata_control_type"]
        assert pd.isna(kind) if sample else kind == "negcon"
    assert list(augmented.columns[:3]) == ["Metadata_broad_sample", "Metadata_solvent", "Metadata_Plate"]


def test_normalisation_is_by_the_reference_wells(output):
    augmented = table(output, "P1", "_augmented")
    kept = [c for c in COLUMNS if c != COLUMNS[5]]
    for name, wells in (
        ("_normalized", slice(None)),
        ("_normalized_negcon", augmented["Metadata_control_type"] == "negcon"),
    ):
        reference = augmented.loc[wells, kept].to_numpy()
        median = np.median(reference, axis=0)
        mad = 1.4826 * np.median(np.abs(reference - median), axis=0)
        result = table(output, "P1", name)
        assert COLUMNS[5] not in result
        np.testing.assert_allclose(result[kept], (augmented[kept] - median) / mad, rtol=1e-9)


def test_every_feature_has_its_fit_and_its_reason(output):
    features = table(output, "P1", "_features")
    assert len(features) == 2 * len(COLUMNS)
    constant = features[features["feature"] == COLUMNS[5]]
    assert set(constant["dropped"]) == {"MAD 0 over 12 wells", "MAD 0 over 4 negative controls"}
    selected = table(output, "P1", "_normalized_feature_select_negcon_plate")
    stayed = features[(features["reference"] == "negcon") & (features["dropped"] == "")]["feature"]
    assert list(stayed) == [c for c in selected if not c.startswith("Metadata_")]


def test_the_recipe_is_recorded_and_the_score_takes_the_last_runs_table(output, tmp_path, capsys):
    record = json.loads((output / "profiles" / "P1" / "P1_recipe.json").read_text())
    assert record["recipe"]["normalize"]["zero_mad"] == "drop"
    assert "normalized_feature_select_negcon_plate" in record["tables"]
    wells = [a for p in PLATES for a in ("--plate", str(output / "profiles" / p / f"{p}_augmented.parquet"))]
    run = ["--output", str(tmp_path)]
    again = [*run, "--overwrite"]
    assert profile([*wells, *run, "--level", "batch"]) == 0
    assert profile([*wells[:2], *again, "--level", "plate"]) == 0
    assert score.main(["replicating", *plates(), *run]) == 2
    assert "the plates have different tables" in capsys.readouterr().err
    assert profile([*wells, *again, "--level", "plate"]) == 0
    assert score.main(["replicating", *plates(), *run, "--no-figures"]) == 0
    assert "P2_normalized_feature_select_negcon_plate.parquet" in capsys.readouterr().err


def test_anndata_holds_the_same_table(output):
    data = anndata.read_h5ad(output / "profiles" / "P1" / "P1_normalized_negcon.h5ad")
    result = table(output, "P1", "_normalized_negcon")
    np.testing.assert_array_equal(data.X, result[list(data.var_names)])
    assert list(data.obs["Metadata_Well"]) == list(result["Metadata_Well"])


def test_score_writes_table_and_json(output, capsys):
    assert score.main(["replicating", *plates(), "--output", str(output), "--recipe", "cpjump1-2021-06"]) == 0
    assert "replicating  100.0 % above  0.0 % below  4 scored" in capsys.readouterr().out
    record = json.loads((output / "scores" / "replicating.json").read_text())[0]
    assert (record["percent"], record["draws"], record["null_k"], record["wells"]) == (100.0, 1000, 4, 16)
    tidy = pd.read_parquet(output / "scores" / "replicating.parquet")
    assert list(tidy["Metadata_broad_sample"]) == SAMPLES
    assert tidy["above"].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plate", "P9"], "no plate at"),
        (
            ["--plate", "P1", "--recipe", "cpjump2"],
            "unknown recipe 'cpjump2'; did you mean cpjump1-2021-12? expected one of cpjump1-2021-06",
        ),
        (["--plate", "P1", "--metadata", "/nowhere"], "no such metadata folder"),
        (["--plate", "P1", "--plate", "P1"], "plate P1 was given twice"),
        (["--plate", "P1", "--recipe", "jump-production"], "of one plate map would subtract the treatments"),
    ],
)
def test_bad_use_is_told_and_exits_2(output, capsys, arguments, message):
    assert profile([*arguments, "--output", str(output), "--overwrite"]) == 2
    assert message in capsys.readouterr().err


def test_a_plate_map_that_misses_a_well_is_an_error(output, tmp_path, capsys):
    layout = pd.DataFrame({"well_position": ["A01"], "broad_sample": ["A-1"]})
    layout.to_csv(tmp_path / "map.txt", sep="\t", index=False)
    arguments = ["P1", "--output", str(output), "--overwrite", "--platemap", str(tmp_path / "map.txt")]
    assert profile(arguments) == 2
    assert "P1: the plate map misses 11 wells of the profiles, first A02" in capsys.readouterr().err


def test_recipes_load_and_unknown_words_are_refused(tmp_path):
    for name in ("cpjump1-2021-06", "cpjump1-2021-12", "jumpgpu", "jump-production"):
        assert load_recipe(name).aggregate == "mean"
    (tmp_path / "r.toml").write_text('[select]\noperations = ["frequncy"]')
    with pytest.raises(ValueError, match="unknown word 'frequncy'"):
        load_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text("[select]\ncorelation = 0.9")
    with pytest.raises(ValueError, match="unknown key 'corelation'"):
        load_recipe(tmp_path / "r.toml")


def test_commands_run_as_modules():
    for command in ("profile", "score"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", f"jumpgpu.{command}", "--help"], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(f"usage: jumpgpu {command}")


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_a_wells_profile_has_the_same_bits_however_its_cells_lie_in_memory(statistic):
    cells = np.random.default_rng(5).lognormal(sigma=4, size=(791, 33)).astype(np.float32)
    cells[::7, 3] = np.nan
    rows = summarize(cells, statistic)
    np.testing.assert_array_equal(summarize(np.asfortranarray(cells), statistic), rows)
    np.testing.assert_array_equal(summarize(np.repeat(cells, 2, axis=1)[:, ::2], statistic), rows)
