"""The benchmark: rows are the scores' own, known representations stand in their order, published figures come out."""

import json

import numpy as np
import pandas as pd
import pytest

from jumpgpu.benchmark import main
from jumpgpu.profiles.files import read_profiles, write_table
from jumpgpu.profiles.platemap import feature_columns
from jumpgpu.scores.benchmark import benchmark
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.control_check import check_retrieval
from jumpgpu.scores.mean_average_precision import replicability
from jumpgpu.scores.percent_replicating import percent_replicating
from jumpgpu.scores.representations import beside, count_representation, model_of, representations
from jumpgpu.scores.transfer import split_of
from tests.helpers.profiles_drawn import draw_effects, draw_plate, draw_position_plates

SAMPLES = [f"G{i:02d}-{k}" for i in range(12) for k in "ab"]
PLATES = ("BR00117010", "BR00117011", "BR00117012", "BR00117013")


def drawn(seed: int = 0, strength: float = 0.45) -> pd.DataFrame:
    """Four plates: classical features with effects, a network that sees them better, one that sees nothing."""
    effects = draw_effects(SAMPLES, [strength] * len(SAMPLES))
    plates = []
    for k in range(4):
        plate = draw_plate(f"P{seed}{k}", effects, [*SAMPLES, *[None] * 24], seed=seed)
        random = np.random.default_rng([seed, k])
        strong = plate.filter(regex="^(Cells|Cytoplasm|Nuclei)_").to_numpy()[:, :20] * 0.2
        names = {s: np.random.default_rng([*map(ord, s)]).normal(size=20) for s in SAMPLES}
        strong += np.stack([names.get(s, np.zeros(20)) for s in plate["Metadata_broad_sample"]])
        good = pd.DataFrame(strong, columns=[f"Cells_Embedding_good_{i:04d}" for i in range(1, 21)])
        blind = pd.DataFrame(
            random.normal(size=(len(plate), 20)), columns=[f"Cells_Embedding_blind_{i:04d}" for i in range(1, 21)]
        )
        plates.append(pd.concat([plate, good, blind], axis=1))
    return concatenate(plates)


@pytest.fixture(scope="module")
def profiles() -> pd.DataFrame:
    return drawn()


@pytest.fixture(scope="module")
def judged(profiles):
    return benchmark(profiles, label="Metadata_gene", draws=2000, null_size=1000)


def test_representations_of_a_table(profiles):
    output, findings = representations(profiles)
    kinds = {r.name: (r.kind, r.n_features) for r in output}
    assert kinds["classical"] == ("classical", 60)
    assert kinds["cell count"] == ("baseline", 1)
    assert kinds["good"] == ("embedding", 20)
    assert kinds["classical + blind"] == ("together", 80)
    assert kinds["Intensity"] == ("family", 60)
    assert kinds["Cells"] == ("compartment", 20)
    assert not findings
    for one in output:
        assert [c for c in one.profiles if c.startswith("Metadata_")] == [c for c in profiles if c.startswith("Metadata_")]
    (lonely,) = representations(profiles.assign(Cells_Texture_Variance_DNA_3=1.0))[1]
    assert lonely.startswith("Texture: not judged: one feature")


def test_names_of_networks():
    assert model_of("net_0001") == "net"
    assert model_of("net_DNA_0012") == "net"
    assert model_of("my-net_2_Mito_0001") == "my-net_2"


def test_rows_are_the_scores_own(profiles, judged):
    features = [c for c in profiles if not c.startswith("Metadata_") and "Embedding" not in c]
    table = profiles[[c for c in profiles if c.startswith("Metadata_")] + features]
    score = percent_replicating(table, draws=2000)
    row = judged.measure("replicating", "percent replicating").set_index("representation").loc["classical"]
    assert (row["value"], row["low"], row["high"]) == (score.percent, *score.interval)
    assert row["controls_percent"] == next(c.percent for c in score.checks if c.place == "position")
    precision = replicability(table, null_size=1000)
    row = judged.measure("map", "mean mAP").set_index("representation").loc["classical"]
    assert row["value"] == precision.table["value"].mean()


def test_the_order_is_the_known_one(judged):
    value = judged.measure("replicating", "percent replicating").set_index("representation")["value"]
    assert value["good"] > 95
    assert value["classical"] > 60
    assert value["cell count"] < 25  # counts are drawn at random
    assert value["blind"] < 25
    assert value["cell count"] < value["classical"]
    assert value["classical + good"] > value["classical"]
    matching = judged.measure("matching", "percent matching").set_index("representation")["value"]
    assert matching["classical"] > 50 > matching["blind"]
    checks = judged.measure("replicating", "percent replicating")
    assert (checks["controls_low"] <= 5).all()  # no position effect was drawn


def test_counts_that_tell_treatments_apart_replicate(profiles):
    code = pd.factorize(profiles["Metadata_broad_sample"])[0]
    noise = np.random.default_rng(0).normal(size=len(profiles))
    counts = np.where(code < 0, 1000 + 40 * noise, 1000 + 30 * (code - 12) + 2 * noise)
    table = benchmark(
        profiles.assign(Metadata_Object_Count=counts), only=["cell count"], tasks=["replicating"], draws=2000
    ).table
    assert table["value"].item() > 80


def test_cell_count_is_near_where_counts_are_near(profiles):
    metadata = [c for c in profiles if c.startswith("Metadata_")]
    one = count_representation(profiles, metadata)
    values = one.profiles.drop(columns=metadata).to_numpy()
    control = profiles["Metadata_control_type"] == "negcon"
    z = profiles["Metadata_Object_Count"].astype(float)
    first = profiles["Metadata_Plate"] == profiles["Metadata_Plate"][0]
    middle = z[first & control].median()
    z = (z - middle) / (1.4826 * (z[first & control] - middle).abs().median())
    rows = np.flatnonzero(first & (z.abs() < 5))
    r = np.corrcoef(values[rows])[0]
    away = np.abs(z.to_numpy()[rows] - z.to_numpy()[rows[0]])
    order = np.argsort(away)
    assert (np.diff(r[order]) < 1e-3).all()
    with pytest.raises(ValueError, match="Metadata_Object_Count"):
        count_representation(profiles.drop(columns="Metadata_Object_Count"), metadata[:2])


def test_sets_beside_each_other_have_equal_say(profiles):
    classical = [c for c in profiles if "_Intensity_" in c]
    network = [c for c in profiles if "_good_" in c]
    table = beside(profiles, ["Metadata_Plate"], (classical, network))
    variances = table.drop(columns="Metadata_Plate").var(ddof=0)
    assert variances[classical].sum() == pytest.approx(1)
    assert variances[network].sum() == pytest.approx(1)


def test_a_split_scores_its_treatments_and_keeps_the_controls(profiles):
    result = benchmark(profiles, only=["good"], tasks=["replicating"], split="train", draws=500)
    part = split_of(sorted(set(SAMPLES)))
    assert result.table["n"].item() == sum(v == "train" for v in part.values())
    assert np.isfinite(result.table["controls_percent"].item())


def test_transfer_between_conditions():
    result = benchmark(drawn(1, 1.5), drawn(5, -1.5), tasks=["transfer"], only=["classical", "blind"])
    table = result.table.set_index(["representation", "measure"])["value"]
    assert table["classical", "explained variance, ridge"] > 0.02 > table["blind", "explained variance, ridge"]
    assert table["classical", "explained variance, ridge"] > table["classical", "explained variance, identity"]
    assert {"explained variance, low rank (PLS)", "retrieval, identity"} <= set(result.table["measure"])


def test_shuffled_wells_score_alike(profiles, judged):
    again = benchmark(
        profiles.sample(frac=1, random_state=3, ignore_index=True),
        only=["good"],
        tasks=["replicating", "map"],
        draws=2000,
        null_size=1000,
    ).table
    first = judged.table[(judged.table["representation"] == "good") & judged.table["task"].isin(["replicating", "map"])]
    np.testing.assert_allclose(again["value"], first["value"], rtol=1e-12)


def test_the_command_writes_one_table_one_figure_one_page(profiles, tmp_path, capsys):
    write_table(profiles, tmp_path / "p.parquet")
    words = ["--plate", str(tmp_path / "p.parquet"), "--output", str(tmp_path), "--draws", "300", "--null-size", "200"]
    assert main([*words, "--only", "good", "--only", "cell count", "--task", "replicating", "--task", "map"]) == 0
    said = capsys.readouterr()
    assert "replicating  percent replicating  good" in said.out
    folder = tmp_path / "scores"
    assert {p.name for p in folder.iterdir()} == {f"benchmark.{e}" for e in ("parquet", "json", "png", "svg", "html")}
    record = json.loads((folder / "benchmark.json").read_text())
    assert {r["representation"] for r in record["rows"]} == {"good", "cell count"}
    page = (folder / "benchmark.html").read_text()
    assert page.count("<table>") == 4
    assert "<svg" in page
    assert "http" not in page.split("</svg>")[1]
    assert main([*words, "--only", "nosuch"]) == 2
    assert "no representation 'nosuch'; these profiles hold cell count, classical" in capsys.readouterr().err


def test_names_from_tables_are_escaped(tmp_path):
    from jumpgpu.scores.benchmark import Benchmark
    from jumpgpu.scores.benchmark_page import write_benchmark

    row = {
        "representation": "<script>",
        "kind": "embedding",
        "features": 2,
        "condition": "",
        "task": "map",
        "measure": "mean mAP",
    }
    row |= {"value": 0.5, "low": 0.4, "high": 0.6, "chance": float("nan"), "n": 3}
    write_benchmark([Benchmark(pd.DataFrame([row]), ("<b>",))], tmp_path)
    page = (tmp_path / "benchmark.html").read_text().split("</svg>")[1]
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_published_profiles_give_the_published_figures(shared):
    """Percent Replicating 74.5, fraction retrieved 0.61 (map) and 0.66 (geometric): CPJUMP1, compounds, U2OS, 48 h."""
    folder = shared / "data" / "profiles"
    profiles = concatenate([read_profiles(folder / f"{p}_normalized_feature_select_negcon_batch.csv.gz") for p in PLATES])
    result = benchmark(profiles, only=["classical"], tasks=["replicating", "map"], null_wells=4)
    value = result.table.set_index("measure")["value"]
    assert value["percent replicating"] == pytest.approx(74.5, abs=0.5)
    assert value["fraction retrieved (map)"] == pytest.approx(0.61, abs=0.005)
    assert value["fraction retrieved (geometric)"] == pytest.approx(0.66, abs=0.005)


@pytest.mark.slow
def test_on_drawn_plates_cell_count_alone_lies_below_classical_features(tmp_path):
    """From images to the table; effects are fixed before any model runs, and two of eighteen compounds have none."""
    import jumpgpu
    from jumpgpu.profile import main as profile
    from jumpgpu.synthetic import main as draw

    plates = ["S1", "S2", "S3"]
    words = ["--wells", "48", "--sites", "1", "--size", "400", "--cells", "16"]
    assert draw(["--output", str(tmp_path / "images"), *(w for p in plates for w in ("--plate", p)), *words]) == 0
    (tmp_path / "my.toml").write_text(
        '[features]\nfamilies = ["location", "number", "intensity", "texture"]\n'
        '[[features.embedding.models]]\nname = "random"\nmodel = "random_convolutions"\n'
        'channels = ["DNA", "ER", "RNA", "AGP", "Mito"]\ncrop = 64\nnormalize = "plate"\n'
    )
    out, how = tmp_path / "out", {"illumination": "flatfield", "config": tmp_path / "my.toml", "quiet": True}
    for plate in plates:
        jumpgpu.extract(plate, tmp_path / "images", output=out, **how)
    assert profile([*plates, "--output", str(out), "--metadata", str(tmp_path / "images" / "metadata")]) == 0
    words = ["--output", str(out), "--draws", "2000", "--null-size", "2000", "--null-wells", "3", "--no-figures"]
    assert main([*plates, *words, "--task", "replicating", "--task", "map"]) == 0
    table = pd.read_parquet(tmp_path / "out" / "scores" / "benchmark.parquet")
    for measure in ("percent replicating", "mean mAP"):
        row = table[table["measure"] == measure].set_index("representation")
        assert row.loc["cell count", "high"] < row.loc["classical", "low"], measure
        assert row.loc["cell count", "value"] < row.loc["random", "value"], measure


def moved(seed: int, effect: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two conditions of two plates each, of one layout, with a position effect."""
    plates, _ = draw_position_plates(seed, effect, 4, n_features=40)
    return concatenate(plates[:2]), concatenate(plates[2:])


def test_transfer_says_what_controls_that_share_only_a_position_do():
    features = feature_columns(moved(0, 0.0)[0])
    clean, held = (check_retrieval(*moved(0, e), features) for e in (0.0, 1.5))
    assert clean.n == held.n == 64
    assert clean.further["chance"] == 100 / 64
    assert clean.percent < 6
    assert held.low > 3 * held.further["chance"]
    source, target = moved(0, 1.5)
    wells = source[source["Metadata_control_type"] == "negcon"]
    means = target[target["Metadata_control_type"] == "negcon"].groupby("Metadata_Well")[features].mean()
    r = np.corrcoef(wells[features], means)[: len(wells), len(wells) :]
    right = means.index[r.argmax(axis=1)] == wells["Metadata_Well"]
    assert held.percent == pytest.approx(100 * right.mean())
    result = benchmark(*moved(0, 1.5), tasks=["transfer"], only=["classical"])
    rows = result.table.set_index("measure")["controls_percent"]
    assert rows["retrieval, identity"] == held.percent
    assert rows.notna().sum() == 1
    assert any("of negative controls find their position in the other condition" in f for f in result.findings)
    refused = benchmark(*moved(0, 1.5), tasks=["transfer"], only=["classical"], controls="circular: sphered")
    assert refused.table["controls_percent"].isna().all()
    bare = [t[t["Metadata_control_type"] != "negcon"] for t in moved(0, 1.5)]
    assert check_retrieval(*bare, features).reason == "no negative control in these profiles"


def test_networks_named_as_features_are_kept_apart(profiles):
    renamed = profiles.rename(columns=lambda c: c.replace("_Embedding_good_", "_Embedding_Texture_"))
    names = [r.name for r in representations(renamed)[0]]
    assert "Texture (network)" in names
    assert len(set(names)) == len(names)
