"""The table of hits beside its sources, strength and dose response beside NumPy and SciPy, the page that shows them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test, spearmanr

from jumpgpu import score
from jumpgpu.outputs.plate_page import hits_of
from jumpgpu.profiles.files import write_table
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.hits import dose_response, hits, spearman
from jumpgpu.scores.mean_average_precision import replicability
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"G{i}-{k}" for i in range(6) for k in ("a", "b")]
STRONG = dict.fromkeys(SAMPLES[:8], 2.0)
EFFECTS = draw_effects(SAMPLES, [STRONG.get(s, 0.0) for s in SAMPLES], 50)


def plate(name, **columns):
    table = draw_plate(name, EFFECTS, [*SAMPLES, *[None] * 16])
    counts = np.full(len(table), 1000) + 10 * (np.arange(len(table)) % 5)
    counts[[0, 1]] = 300, 700  # the first treatment kills, the second slows
    return table.assign(
        Metadata_Object_Count=counts, Metadata_pert_iname=table["Metadata_broad_sample"].str.lower(), **columns
    )


@pytest.fixture(scope="module")
def profiles():
    return concatenate([plate(f"P{k}") for k in range(4)])


@pytest.fixture(scope="module")
def result(profiles):
    return hits(replicability(profiles, null_size=1000), profiles, "Metadata_gene")


def test_hits_are_the_map_table_sorted(profiles, result):
    precision = replicability(profiles, null_size=1000)
    table = result.table.set_index("Metadata_broad_sample")
    source = precision.table.set_index("Metadata_broad_sample").loc[table.index]
    for ours, theirs in (
        ("value", "value"),
        ("p", "p_map"),
        ("q", "q_map"),
        ("hit", "retrieved_map"),
        ("n_wells", "n_wells"),
    ):
        np.testing.assert_array_equal(table[ours], source[theirs])
    assert set(table.index[table["hit"]]) >= set(SAMPLES[:8])
    assert (np.diff(table["q"]) >= 0).all()
    assert table.loc[SAMPLES[3], "name"] == SAMPLES[3].lower()
    controls = next(c.values for c in precision.checks if c.place == "position")
    np.testing.assert_array_equal(table["position_checked"].astype(bool), source["value"] > np.percentile(controls, 95))


def test_toxic_treatments_are_flagged(result):
    table = result.table.set_index("Metadata_broad_sample")
    assert table.index[table["toxic"]].tolist() == [SAMPLES[0]]
    controls = 1000 + 10 * (np.arange(12, 28) % 5)
    assert table.loc[SAMPLES[1], "cell_count_ratio"] == pytest.approx(700 / np.median(controls))
    assert result.summary()["n_toxic"] == 1


def test_hits_by_label(profiles, result):
    table = result.summaries["by_label"].set_index("label")
    assert table.loc["G1", ["treatments", "hits"]].tolist() == [2, 2]
    assert table.loc["G1", "named"] == "g1-a, g1-b"
    several = profiles.assign(Metadata_moa=profiles["Metadata_gene"].map(lambda g: g and f"{g} | all"))
    table = hits(replicability(several, null_size=200), several, "Metadata_moa").summaries["by_label"].set_index("label")
    assert table.loc["all", "treatments"] == 12
    assert table["treatments"].drop("all").tolist() == [2] * 6


def test_what_is_not_known_is_said(profiles):
    bare = profiles.drop(columns=["Metadata_Object_Count", "Metadata_pert_iname"])
    one = bare[bare["Metadata_Plate"].isin(["P0"]) | bare["Metadata_broad_sample"].notna()]
    with pytest.raises(ValueError, match="no negative controls"):
        replicability(one, null_size=50)
    output = hits(replicability(bare, null_size=50), bare)
    assert "toxic" not in output.table
    assert output.table["name"].tolist() == [s[:2] for s in output.table["Metadata_broad_sample"]]  # by gene
    assert any("no treatment is flagged as toxic: the profiles have no Metadata_Object_Count" in f for f in output.findings)
    with pytest.raises(ValueError, match="must lie between 0 and 1, got 2"):
        hits(replicability(bare, null_size=50), bare, toxic=2)


def dosed():
    """One plate: two compounds at six doses, the first stronger with each and deadly at the last, the second idle."""
    samples = [f"{c}-{d}" for c in ("X", "Y") for d in range(6)]
    random = np.random.default_rng(3)
    direction = random.normal(size=50)
    effects = pd.DataFrame([d * direction if c == "X" else 0 * direction for c in "XY" for d in range(6)], index=samples)
    effects.columns = EFFECTS.columns
    table = draw_plate("P", effects, [*samples, *[None] * 20])
    parts = table["Metadata_broad_sample"].str.split("-", expand=True)
    counts = np.full(len(table), 900) + 10 * (np.arange(len(table)) % 5)
    counts[5] = 100
    return table.assign(
        Metadata_broad_sample=parts[0], Metadata_dose=3.0 ** pd.to_numeric(parts[1]), Metadata_Object_Count=counts
    )


def test_strength_is_the_root_mean_square_of_robust_z():
    table = dosed()
    result = dose_response(table, "Metadata_broad_sample", "Metadata_dose")
    values = table[feature_columns(table)].to_numpy()
    controls = values[12:]
    median = np.median(controls, axis=0)
    z = (values - median) / (1.4826 * np.median(np.abs(controls - median), axis=0))
    expected = np.sqrt((z**2).mean(axis=1))
    np.testing.assert_allclose(result.table["strength"], expected[:12], rtol=1e-12)
    assert result.settings["strength_95th"] == pytest.approx(np.percentile(expected[12:], 95))
    assert result.table["Metadata_dose"].tolist() == [3.0**d for d in range(6)] * 2
    np.testing.assert_array_equal(result.table["active"], expected[:12] > np.percentile(expected[12:], 95))


def test_dose_response_of_a_drawn_compound():
    table = dosed()
    summary = dose_response(table, "Metadata_broad_sample", "Metadata_dose").summaries["dose_response"]
    x = summary.set_index("Metadata_broad_sample").loc["X"]
    assert x["rho"] > 0.9
    assert x["p"] < 0.02
    assert x["least_toxic_dose"] == 3.0**5
    assert x["least_active_dose"] <= 9
    assert pd.isna(summary.set_index("Metadata_broad_sample").loc["Y", "least_toxic_dose"])
    plates = concatenate([table, table.assign(Metadata_Plate="Q")])
    assert (dose_response(plates, "Metadata_broad_sample", "Metadata_dose").table["n_wells"] == 2).all()
    with pytest.raises(ValueError, match="no treated well has a number in Metadata_dose"):
        dose_response(table.assign(Metadata_dose="high"), "Metadata_broad_sample", "Metadata_dose")


@pytest.mark.parametrize("n", [3, 5, 7])
def test_the_exact_p_is_that_of_every_order(n):
    random = np.random.default_rng(n)
    x, y = random.normal(size=n), np.round(random.normal(size=n), 0)
    rho, p = spearman(x, y)
    assert rho == pytest.approx(spearmanr(x, y)[0])
    exact = permutation_test(
        (x,),
        lambda v: abs(spearmanr(v, y)[0]),
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=False,
    )
    assert p == pytest.approx(exact.pvalue)
    assert spearman(np.arange(12.0), np.arange(12.0) ** 2)[0] == pytest.approx(1)
    assert np.isnan(spearman(x[:2], y[:2])).all()


def test_the_commands_write_tables_figures_and_what_the_page_shows(tmp_path, capsys):
    for k in range(3):
        write_table(plate(f"P{k}"), tmp_path / f"P{k}.parquet")
    files = [a for k in range(3) for a in ("--plate", str(tmp_path / f"P{k}.parquet"))]
    run = ["--output", str(tmp_path), "--null-size", "200", "--label", "gene"]
    assert score.main(["hits", *files, *run]) == 0
    out = capsys.readouterr().out
    assert "12 rows" in out
    assert "1 toxic" in out
    folder = tmp_path / "scores"
    assert {p.name for p in folder.iterdir()} == {
        "hits.parquet",
        "hits.json",
        "hits.png",
        "hits.svg",
        "hits_by_label.parquet",
    }
    assert "g0-b" in (folder / "hits.svg").read_text() or b"<svg" in (folder / "hits.svg").read_bytes()
    record = json.loads((folder / "hits.json").read_text())[0]
    table = pd.read_parquet(folder / "hits.parquet")
    assert [r["Metadata_broad_sample"] for r in record["hits"]] == table["Metadata_broad_sample"].tolist()
    (shown,) = hits_of(folder / "hits.json")
    assert len(shown["rows"]) == int(table["hit"].sum())
    assert shown["columns"][:3] == ["broad_sample", "name", "label"]
    write_table(dosed(), tmp_path / "D.parquet")
    assert score.main(["dose", "--plate", str(tmp_path / "D.parquet"), "--dose", "dose", "--output", str(tmp_path)]) == 0
    assert (folder / "dose_dose_response.parquet").is_file()
    assert (folder / "dose.svg").is_file()
    (shown,) = hits_of(folder / "dose.json")
    assert all(row[shown["columns"].index("active")] == "yes" for row in shown["rows"])
    assert score.main(["dose", "--plate", str(tmp_path / "D.parquet"), "--dose", "mg", "--output", str(tmp_path)]) == 2
    assert "no column Metadata_mg" in capsys.readouterr().err
