"""Tables of others at every command: a fault is exit status 2 and a line that names the file, never a traceback."""

import json

import numpy as np
import pandas as pd
import pytest

from jumpgpu import score, tables
from jumpgpu.profile import main as profile
from jumpgpu.profiles.files import write_table
from jumpgpu.report import main as report
from tests.helpers.profiles_drawn import draw_effects, draw_plate, feature_names, write_metadata, write_store

PLATES = ["0012345", "P2", "P3"]
SAMPLES = [f"{g}-{k}" for g in "ABCD" for k in (1, 2)]
WELLS = [f"{row}{column:02d}" for row in "CD" for column in range(5, 13)]
LAYOUT = [*SAMPLES, *[None] * 8]
COLUMNS = feature_names(40)


@pytest.fixture
def folder(tmp_path):
    """Three plates' profiles, one of them a store of cells too, and their metadata."""
    write_metadata(tmp_path / "metadata", dict(zip(WELLS, LAYOUT, strict=True)), PLATES)
    effects = draw_effects(SAMPLES, [2.0] * len(SAMPLES), len(COLUMNS))
    for plate in PLATES:
        table = draw_plate(plate, effects, LAYOUT, wells=WELLS)
        write_table(table, tmp_path / "profiles" / plate / f"{plate}_normalized_negcon.parquet")
        table.to_csv(tmp_path / f"{plate}.csv", index=False)
    rows = {"Batch": "b", "Assay_Plate_Barcode": PLATES, "Cell_type": "U2OS"}
    pd.DataFrame(rows).to_csv(tmp_path / "metadata" / "experiment-metadata.tsv", sep="\t", index=False)
    random = np.random.default_rng(0)
    write_store(tmp_path, "P2", {w: random.normal(size=(6, len(COLUMNS))) for w in WELLS}, COLUMNS)
    return tmp_path


def plates(names=PLATES):
    return [a for p in names for a in ("--plate", p)]


RUNS = {
    "metadata/barcode_platemap.csv": [
        (profile, ["--plate", "P2", "--output", "{0}"]),
        (report, ["{0}/P2", "--metadata", "{0}/metadata"]),
    ],
    "metadata/platemaps/demo_platemap.txt": [
        (profile, ["--plate", "P2", "--output", "{0}"]),
        (
            profile,
            ["--plate", "{0}/P2.csv", "--output", "{0}", "--platemap", "{0}/metadata/platemaps/demo_platemap.txt"],
        ),
        (report, ["{0}/P2", "--metadata", "{0}/metadata"]),
    ],
    "metadata/external/demo_metadata.tsv": [
        (profile, ["--plate", "P2", "--output", "{0}"]),
        (report, ["{0}/P2", "--metadata", "{0}/metadata"]),
        (tables.main, ["--metadata", "{0}/metadata"]),
        (
            score.main,
            ["replicating", *plates(), "--output", "{0}", "--treatments", "{0}/metadata/external/demo_metadata.tsv"],
        ),
    ],
    "metadata/experiment-metadata.tsv": [
        (score.main, [s, *plates(), "--output", "{0}", "--by", "Cell_type"]) for s in ("replicating", "matching", "map")
    ],
    "0012345.csv": [
        (profile, ["--plate", "{0}/0012345.csv", "--output", "{0}"]),
        *(
            (score.main, [s, "--plate", "{0}/0012345.csv", "--plate", "{0}/P2.csv", "--output", "{0}"])
            for s in ("replicating", "matching", "map")
        ),
        (score.main, ["transfer", "--plate", "{0}/0012345.csv", "--against", "{0}/P2.csv", "--output", "{0}"]),
    ],
}
FAULTS = {
    "empty": lambda text: b"",
    "other headers": lambda text: b"\n".join([b"alpha,beta", b"1,2", b""]),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "latin-1": lambda text: text.replace(b"\n", "\tµ\n".encode("latin-1"), 1),
    "binary": lambda text: bytes(range(256)) * 4,
    "long rows": lambda text: text.replace(b"\n", b"\n" + b"x\t,x\t,x\t," * 40 + b"\n", 1),
    "a column twice": lambda text: b"\n".join(
        (c := next(s for s in (b"\t", b",") if s in line)).join([line.split(c)[0], line])
        for line in text.split(b"\n")
        if line
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", RUNS)
def test_a_broken_table_ends_in_words(folder, capsys, file, fault):
    path = folder / (file if file != "metadata/barcode_platemap.csv" else "metadata/platemaps/barcode_platemap.csv")
    path.write_bytes(FAULTS[fault](path.read_bytes()))
    for main, arguments in RUNS[file]:
        assert main([a.format(folder) for a in arguments]) == 2, arguments
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith("error: ")
        assert path.name in said[-1], said[-1]


@pytest.mark.parametrize("file", RUNS)
def test_a_blank_last_line_is_no_row(folder, capsys, file):
    path = folder / (file if file != "metadata/barcode_platemap.csv" else "metadata/platemaps/barcode_platemap.csv")
    separator = b"," if path.suffix == ".csv" else b"\t"
    text = path.read_bytes()
    path.write_bytes(text + b"\n" + separator * text.split(b"\n")[0].count(separator) + b"\n\n")
    for main, arguments in RUNS[file]:
        if main is profile and "P2" in arguments:
            continue  # six cells per well and one plate: nothing else to see
        assert main([a.format(folder) for a in arguments]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replicating", "--plate", "P2"], "no value of Metadata_broad_sample has two wells"),
        (["map", "--plate", "P2"], "no value of Metadata_broad_sample has two wells"),
        (["matching", *plates(), "--label", "broad_sample"], "no two treatments share a Metadata_broad_sample"),
        (["map", *plates(), "--label", "broad_sample", "--keep", "all"], "no two treatments share a label"),
        (["matching", *plates(), "--label", "moa"], "no column Metadata_moa"),
        (["map", *plates(), "--label", "gene", "--across", "moa"], "no column Metadata_moa"),
        (["transfer", "--plate", "P2", "--against", "P3", "--group", "moa"], "no column Metadata_moa"),
        (["replicating", *plates(), "--where", "Cell_type"], "--where Cell_type: expected COLUMN=VALUE"),
        (["replicating", *plates(), "--where", "gene=Z"], r"no well is left; Metadata_gene holds "),
        (["replicating", *plates(), "--control", "gene=Z"], "--control gene=Z: no well has it; Metadata_gene holds "),
        (["replicating", *plates(), "--control", "Z"], "expected COLUMN=VALUE"),
        (["replicating", *plates(), "--features", "X_*"], "--features X_*: no numeric column of that name"),
        (["replicating", *plates(), "--draws", "0"], "draws must be 1 or more, got 0"),
        (["matching", *plates(), "--draws", "-3"], "draws must be 1 or more, got -3"),
        (["map", *plates(), "--null-size", "0"], "null_size must be 1 or more, got 0"),
        (["replicating", *plates(), "--null-wells", "many"], "null_wells must be a number from 2 on"),
        (["replicating", "--plate", "P2.csv", "--table", "normalized"], "P2.csv is a table itself"),
        (["replicating", *plates(), "--by", "Cell_type", "--batch", "z"], "no batch 'z'; expected one of b"),
    ],
)
def test_bad_use_is_told(folder, capsys, arguments, words):
    assert score.main([*arguments, "--output", str(folder)]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_batch_without_its_column(folder, capsys):
    path = folder / "metadata" / "experiment-metadata.tsv"
    path.write_text(path.read_text().replace("Batch", "Run"))
    arguments = ["replicating", *plates(), "--output", str(folder), "--by", "Cell_type", "--batch", "b"]
    assert score.main(arguments) == 2
    assert "no column 'Batch', by which --batch b chooses; found Run" in capsys.readouterr().err


def test_what_is_left_out_is_said_and_stored(folder, capsys):
    for k, plate in enumerate(PLATES):
        table = pd.read_csv(folder / f"{plate}.csv", dtype={"Metadata_Plate": str})
        table["ImageNumber"] = range(len(table))
        if k == 0:
            table.loc[3, COLUMNS[:38]] = np.nan
        table.drop(columns=COLUMNS[20 + k]).to_csv(folder / f"{plate}.csv", index=False)
    files = [a for p in PLATES for a in ("--plate", str(folder / f"{p}.csv"))]
    for kind in (["replicating"], ["matching"], ["map"], ["map", "--label", "gene", "--keep", "all"]):
        assert score.main([*kind, *files, "--output", str(folder), "--draws", "50", "--no-figures"]) == 0
        said = capsys.readouterr().err
        assert "1 numeric columns are not features: ImageNumber (--features takes them)" in said
        assert "37 features are on every plate, of 39 per plate; the others are not scored" in said
        record = json.loads((folder / "scores" / f"{kind[0]}.json").read_text())[0]
        assert record["wells_left_out"] == ["0012345 C08 (lacks 35 of 37 features)"]
        assert record["features"] == record["features_given"] == 37
        assert (
            record["findings"][0] == "1 well is left out because features are missing: 0012345 C08 (lacks 35 of 37 features)"
        )
        assert record["findings"][0] in said


def test_controls_by_option_and_by_recipe(folder, capsys):
    """Plates whose controls are `pert_type` control, as LINCS writes them: the same profiles and scores as with negcon."""
    for plate in PLATES:
        table = pd.read_csv(folder / f"{plate}.csv", dtype={"Metadata_Plate": str}).drop(columns="Metadata_control_type")
        table["Metadata_broad_sample"] = table["Metadata_broad_sample"].fillna("DMSO")
        table.to_csv(folder / f"{plate}.csv", index=False)
    files = [a for p in PLATES for a in ("--plate", str(folder / f"{p}.csv"))]
    (folder / "r.toml").write_text('controls = ["pert_type=control"]\n')
    result = {}
    for name, more in (("option", ["--control", "pert_type=control"]), ("recipe", ["--recipe", str(folder / "r.toml")])):
        out = ["--output", str(folder / name)]
        assert profile([*files, *out, *more]) == 0
        assert score.main(["replicating", *plates(), *out, "--draws", "99", "--no-figures"]) == 0  # profile marked them
        assert score.main(["replicating", *files, *out, *more, "--draws", "99", "--no-figures", "--name", "raw"]) == 0
        assert score.main(["map", *files, *out, *more, "--null-size", "99", "--no-figures"]) == 0
        assert "count as treatments" not in capsys.readouterr().err
        result[name] = [pd.read_parquet(folder / name / "scores" / f"{s}.parquet") for s in ("replicating", "raw", "map")]
    for option, recipe in zip(result["option"], result["recipe"], strict=True):
        assert list(option["Metadata_broad_sample"]) == SAMPLES
        pd.testing.assert_frame_equal(option, recipe)
    assert profile([*files, "--output", str(folder), "--control", "pert_type=DMSO"]) == 2
    assert "no well has it; Metadata_pert_type holds control (8), trt (8)" in capsys.readouterr().err


def test_the_recipes_null_wells_holds(folder, capsys):
    (folder / "r.toml").write_text('[score]\nnull_wells = "2"\n')
    run = ["replicating", *plates(), "--output", str(folder), "--recipe", str(folder / "r.toml"), "--draws", "50"]
    assert score.main([*run, "--no-figures"]) == 0
    assert json.loads((folder / "scores" / "replicating.json").read_text())[0]["null_k"] == 2


@pytest.mark.parametrize("content", ["", "[", "{}", '{"tables": 7}', "[1]", '{"tables": ["normalized_negcon"]}'])
def test_a_broken_record_is_told(folder, capsys, content):
    (folder / "profiles" / "P2" / "P2_recipe.json").write_text(content)
    assert score.main(["replicating", *plates(), "--output", str(folder)]) == 2
    assert "P2_recipe.json: not a record of profiles" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "7", "[7]", '[{"histogram": 1}]', '[{"score": "x", "histogram": {}}]'])
def test_a_broken_file_of_scores_is_told_by_report(folder, capsys, content):
    (folder / "s.json").write_text(content)
    assert report([str(folder / "P2"), "--scores", str(folder / "s.json")]) == 2
    assert "s.json: not what jumpgpu score writes" in capsys.readouterr().err


def test_repeats_are_said_by_tables_report_and_profile(folder, capsys):
    path = folder / "metadata" / "external" / "demo_metadata.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    words = "demo_metadata.tsv: 1 rows repeat another in every column and are dropped (broad_sample A-1)"
    assert tables.main(["--metadata", str(folder / "metadata")]) == 0
    assert words in capsys.readouterr().err
    assert profile(["--plate", str(folder / "P2.csv"), "--output", str(folder), "--metadata", str(folder / "metadata")]) == 0
    assert words in capsys.readouterr().err
    assert report([str(folder / "P2"), "--metadata", str(folder / "metadata")]) == 0
    assert words in (folder / "P2.html").read_text()


def test_inner_wells_of_a_plate_of_unknown_format_are_asked_for(folder, capsys):
    run = ["replicating", *plates(), "--output", str(folder), "--draws", "50", "--no-figures", "--inner"]
    assert score.main(run) == 2
    assert "every well is one of a plate of 96 too; say --plate-format 96 or 384" in capsys.readouterr().err
    assert score.main([*run, "--plate-format", "96"]) == 0
    record = json.loads((folder / "scores" / "replicating.json").read_text())[0]
    assert record["wells"] == 3 * 6  # of C05 .. C12 and D05 .. D12, columns 11 and 12 are outer
