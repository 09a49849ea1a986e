"""Design checks, plate maps, experiment tables, the metadata's own tables, figures."""

import numpy as np
import pandas as pd
import pytest

from jumpgpu import tables
from jumpgpu.profiles.design_checks import check_plate, check_replicates, is_inner
from jumpgpu.profiles.files import write_table
from jumpgpu.profiles.platemap import (
    add_conditions,
    find_platemap,
    find_treatments,
    read_experiments,
    read_platemap,
    read_treatments,
)
from jumpgpu.score import main
from jumpgpu.scores import figures
from jumpgpu.scores.common import concatenate
from jumpgpu.scores.percent_replicating import percent_replicating
from jumpgpu.settings.names import well_name
from tests.helpers.profiles_drawn import draw_effects, draw_plate, write_metadata

SAMPLES = ["A-1", "B-1", "C-1", "D-1"]
EFFECTS = draw_effects(SAMPLES, [1.0, 2.0, 3.0, 4.0])


def test_inner_wells_leave_two_rows_and_columns_at_each_edge():
    wells = pd.Series([well_name(r, c) for r in range(1, 17) for c in range(1, 25)])
    inner = is_inner(wells)
    assert inner.sum() == 12 * 20
    assert set(wells[inner].str[0]) == set("CDEFGHIJKLMN")
    assert set(wells[inner].str[1:]) == {f"{c:02d}" for c in range(3, 23)}
    with pytest.raises(ValueError, match="well A13 is not on a plate of 96 wells"):
        is_inner(wells, 96)


def test_findings_of_a_plate():
    profiles = draw_plate("P1", EFFECTS, [*SAMPLES, None], wells=["A01", "A02", "C03", "P24", "B02"])
    profiles.loc[0, "Metadata_pert_type"] = None
    platemap = pd.DataFrame({"well_position": ["A01", "A02", "C03", "P24", "B02", "D04", "D05"]})
    assert check_plate(profiles, platemap) == [
        "P1: 2 of the plate map's 7 wells have no profile: D04, D05",
        "P1: 1 negative control; medians and MADs of fewer than 8 are mostly noise",
        "P1: 1 treatment missing from the treatment table: A-1",
        "P1: 3 of 4 treatments only in outer wells",
        "P1: all negative controls are in outer wells: edge effects and treatment effects cannot be told apart",
    ]


def test_findings_of_plates_scored_together():
    same = [draw_plate(f"P{k}", EFFECTS, [*SAMPLES, None]) for k in range(2)]
    assert check_replicates(concatenate(same)) == [
        "every treatment is in the same well on all plates: position and treatment effects cannot be told apart"
    ]
    mixed = concatenate([same[0], draw_plate("P9", EFFECTS, ["A-1", "A-1", "B-1", "C-1", None])])
    assert check_replicates(mixed) == [
        "2 plates have 2 layouts",
        "1 of 4 treatments have one well and no score: D-1",
        "treatments have unlike numbers of wells: 1 with 1, 2 with 2, 1 with 3",
    ]
    assert check_replicates(concatenate([same[0], same[0]]))[0].startswith("5 wells are given more than once")


def test_plate_maps_are_found_or_said_to_be_missing(tmp_path):
    write_metadata(tmp_path, {"A01": "A-1", "A02": None}, ["P1"])
    path = find_platemap(tmp_path, "P1")
    assert list(read_platemap(path)["well_position"]) == ["A01", "A02"]
    treatments = find_treatments(tmp_path, path)
    assert treatments is not None
    assert len(read_treatments(treatments)) == 2
    with pytest.raises(ValueError, match="P2: no plate map in"):
        find_platemap(tmp_path, "P2")
    with pytest.raises(FileNotFoundError, match="give one by --metadata"):
        find_platemap(tmp_path / "nowhere", "P1")
    (tmp_path / "external" / "more_metadata.tsv").write_text("broad_sample\n")
    (tmp_path / "external" / "demo_metadata.tsv").rename(tmp_path / "external" / "other.tsv")
    with pytest.raises(ValueError, match=r"2 treatment tables .* give one by --treatments"):
        find_treatments(tmp_path, path)


def test_experiments_join_by_barcode_and_batch(shared):
    path = shared / "data" / "metadata" / "experiment-metadata.tsv"
    with pytest.raises(ValueError, match=r"is in several batches .*choose one by --batch"):
        read_experiments(path)
    table = read_experiments(path, "2020_11_04_CPJUMP1")
    assert len(table) == 51
    profiles = pd.DataFrame({"Metadata_Plate": ["BR00117010", "BR00117013"], "Cells_x": [1.0, 2.0]})
    joined = add_conditions(profiles, table)
    assert list(joined["Metadata_Anomaly"]) == ["Mitotracker", "Mitotracker"]
    assert list(joined["Metadata_Time"]) == [48, 48]
    with pytest.raises(ValueError, match="misses plate P7"):
        add_conditions(profiles.assign(Metadata_Plate="P7"), table)


def test_metadata_tables_count_the_compounds_and_genes(shared):
    output = tables.make_tables(shared / "data" / "metadata")
    targets = output["compounds_by_targets"]
    assert targets["compounds"].sum() == 306  # every compound has a target; DMSO is none
    assert targets.set_index("targets").loc["1", "compounds"] == 98
    genes = output["genes_by_reagents"].set_index("reagents")
    assert list(genes.columns) == ["compound", "crispr", "orf"]
    assert list(genes.sum()) == [160, 160, 160]
    assert (genes.mul(genes.index, axis=0).sum() == [306, 305, 160]).all()


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Profile files of two cell lines at one time point, and their experiment table."""
    folder = tmp_path_factory.mktemp("scored")
    rows = []
    for line, strength in (("A549", 0.1), ("U2OS", 1.0)):
        effects = draw_effects([f"G{i}-a" for i in range(12)], [strength] * 12)
        for k in range(3):
            plate = f"{line}{k}"
            layout = [*effects.index, *[None] * 12]
            name = f"{plate}_normalized_negcon.parquet"
            write_table(draw_plate(plate, effects, layout), folder / "profiles" / plate / name)
            rows.append({"Batch": "b", "Assay_Plate_Barcode": plate, "Cell_type": line, "Time": 24 + k})
    (folder / "metadata").mkdir()
    pd.DataFrame(rows).to_csv(folder / "metadata" / "experiment-metadata.tsv", sep="\t", index=False)
    return folder


def plates(*lines):
    return [a for line in lines for k in range(3) for a in ("--plate", f"{line}{k}")]


def test_scores_by_condition_with_figures(scored, capsys):
    arguments = ["replicating", *plates("A549", "U2OS"), "--output", str(scored), "--by", "Cell_type", "--draws", "300"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [["replicating", "A549"], ["replicating", "U2OS"]]
    for name in ("replicating", "replicating_percent"):
        assert (scored / "scores" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (scored / "scores" / f"{name}.svg").read_bytes()
    tidy = pd.read_parquet(scored / "scores" / "replicating.parquet")
    assert list(tidy["condition"].unique()) == ["A549", "U2OS"]
    alone = ["replicating", *plates("U2OS"), "--output", str(scored), "--where", "Cell_type=U2OS", "--by", "Cell_type"]
    assert main([*alone, "--draws", "300", "--name", "alone", "--no-figures"]) == 0
    assert not (scored / "scores" / "alone.png").exists()
    result = pd.read_parquet(scored / "scores" / "alone.parquet")
    # the features in common are all, so another condition beside it changes nothing
    pd.testing.assert_frame_equal(result, tidy[tidy["condition"] == "U2OS"].reset_index(drop=True))


def test_matching_and_transfer_between_two_sides(scored, capsys):
    against = [a.replace("--plate", "--against") for a in plates("U2OS")]
    arguments = [*plates("A549"), *against, "--output", str(scored), "--by", "Cell_type", "--no-figures"]
    assert main(["matching", *arguments, "--draws", "200"]) == 0
    assert "matching  A549 to U2OS" in capsys.readouterr().out
    assert main(["transfer", *arguments]) == 0
    assert "transfer  A549 to U2OS  identity: r" in capsys.readouterr().out
    assert main(["matching", *arguments, "--same", "Cell_type"]) == 2
    assert "no two conditions of --plate and --against agree in Cell_type" in capsys.readouterr().err


def test_map_by_command(scored, capsys):
    assert main(["map", *plates("U2OS"), "--output", str(scored), "--null-size", "300"]) == 0
    assert "retrieved (p map)" in capsys.readouterr().out
    assert (scored / "scores" / "map.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plate", "Q1"], "plate Q1: no normalized table in"),
        (["--plate", "U2OS0", "--by", "Cell_line"], "no column Metadata_Cell_line"),
        (["--plate", "U2OS0", "--where", "Cell_type=HeLa"], "--where Cell_type=HeLa: no well is left"),
        (["--plate", "U2OS0"], "no value of Metadata_broad_sample has two wells"),
        (["--plate", "U2OS0", "--plate", "U2OS1", "--channel", "Mito", "--family", "AreaShape"], "no feature of 60 is left"),
    ],
)
def test_bad_use_of_score_is_told(scored, capsys, arguments, message):
    assert main(["replicating", *arguments, "--output", str(scored)]) == 2
    assert message in capsys.readouterr().err


def test_figures_are_the_same_bytes_again(tmp_path):
    score = percent_replicating(concatenate([draw_plate(f"P{k}", EFFECTS, [*SAMPLES, None]) for k in range(3)]), draws=50)
    first, again = (figures.save(figures.distributions([score]), tmp_path / n / "x") for n in "ab")
    for a, b in zip(first, again, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert np.isfinite(score.percent)
