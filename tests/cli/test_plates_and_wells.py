"""Plates as arguments or by --plate, options misspelled, wells in any spelling, wells that are gone or excluded."""

import importlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest

import jumpgpu
from jumpgpu import columns, verify
from jumpgpu.__main__ import main as jumpgpu_command
from jumpgpu.cli import options
from jumpgpu.export import main as export
from jumpgpu.profile import main as profile
from jumpgpu.score_options import parser as score_parser
from jumpgpu.settings.names import spelled_well
from tests.helpers.plates import write_plate
from tests.helpers.profiles_drawn import draw_effects, draw_plate, feature_names, write_metadata, write_store


@pytest.fixture
def plate(tmp_path):
    write_plate(tmp_path, {"A01": [1, 2], "B02": [1], "D14": [1]}, plate="P", images=True)
    return jumpgpu.open_plate(tmp_path / "P")


@pytest.mark.parametrize("text", ["D4", "d4", "d04", "D004", " D04 "])
def test_a_well_is_known_in_any_spelling(text):
    assert spelled_well(text) == "D04"


@pytest.mark.parametrize("text", ["", "D", "14", "D0", "D49", "AG01", "D1.5", "D4 D5", "D-4", "é4"])
def test_what_is_no_well_is_refused(text):
    with pytest.raises(ValueError, match="is not a well name; "):
        spelled_well(text)


def test_wells_in_any_spelling_are_taken_everywhere(plate, tmp_path):
    whole = plate.to_pandas(["D14"])
    for spelling in ("d14", "D14", "d014"):
        pd.testing.assert_frame_equal(plate.to_pandas([spelling]), whole)
    assert plate.to_anndata(["a1"]).n_obs == plate.record("A1")["cells"]
    assert plate.image_table(["a1"]).Metadata_Well.tolist() == ["A01", "A01"]
    assert plate.labels("a1", 1).keys() == plate.labels("A01", 1).keys()
    assert plate.overview("b2", 1).shape == plate.overview("B02", 1).shape
    assert plate.show("d14", 1).axes[0].get_title(loc="left").startswith("P D14 site 1")
    assert plate.verify(["b2"]) == []
    assert export([str(tmp_path / "P"), "--wells", "a1,B2", "--quiet"]) == 0
    assert set(pd.read_parquet(tmp_path / "P.parquet").Metadata_Well) == {"A01", "B02"}
    assert options.parse(["P", "--images", "x", "--wells", "d4", "D04,a1"])[1].wells == ("D04", "A01")
    with pytest.raises(TypeError, match=r"wells is a list: wells=\['D14'\]"):
        plate.to_pandas("D14")


def test_columns_by_channel_and_compartment(plate):
    dna = [c for c in plate.columns if "_DNA" in c]
    assert plate.choose(["DNA"]) == dna
    assert plate.choose(["ER"]) == [c for c in plate.columns if c.endswith("_ER")]  # pairs and single ones
    assert plate.choose(["Nuclei"]) == [c for c in plate.columns if c.startswith("Nuclei_")]
    assert list(plate.to_pandas(columns=["DNA"]).columns[4:]) == dna
    with pytest.raises(ValueError, match=r"no column 'DAN'; the nearest are .*DNA"):
        plate.choose(["DAN"])
    with pytest.raises(ValueError, match=r"'DNA' means .* columns; a heat map shows only one"):
        plate.heatmap("DNA")


@pytest.mark.parametrize("words", [["P", "Q"], ["--plate", "P", "--plate", "Q"], ["P", "--plate", "Q"]])
def test_plates_are_arguments_or_options_of_every_command(words):
    for parser in (options.parser(), options.parser("segment"), verify.parser()):
        assert parser.parse_args(words).plate == ["P", "Q"]
    for name in ("export", "profile", "report"):
        command = importlib.import_module(f"jumpgpu.{name}")  # jumpgpu.export is the function
        assert command.parser().parse_args(words).plates == ["P", "Q"]
    assert score_parser().parse_args(["map", *words]).plate == ["P", "Q"]


def test_a_command_without_a_plate_or_with_a_misspelled_option_says_what_to_do(capsys):
    for arguments, said in (
        (["extract"], "no plate was given; name one or more, such as BR00117010"),
        (["extract", "P", "--imgaes", "x"], "unrecognized arguments: --imgaes x; did you mean --images?"),
        (["profile", "P", "--metdata=x"], "did you mean --metadata?"),
        (["score", "map", "P", "--nul-size", "3"], "did you mean --null-size?"),
        (["score", "matching", "P", "--null-wells", "4"], "--null-wells is an option of jumpgpu score replicating"),
        (["verify", "P", "--zzz"], "unrecognized arguments: --zzz\n"),
    ):
        with pytest.raises(SystemExit) as ended:
            jumpgpu_command(arguments)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_columns_are_explained_by_pattern_and_unknown_channels_refused(capsys):
    assert columns.main(["--explain", "Nuclei_Texture_Variance_RNA_5_*"]) == 0
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("column ")]
    assert names == [f"Nuclei_Texture_Variance_RNA_5_0{d}_256" for d in range(4)]
    assert columns.main(["--explain", "Nuclei_Texture_*_GFP_*"]) == 2
    assert "no column of this configuration fits" in capsys.readouterr().err
    for name in ("Cells_Intensity_MeanIntensity_GFP", "Cells_Correlation_RWC_GFP_DNA", "Cells_Correlation_RWC_DNA_GFP"):
        assert columns.main(["--explain", name]) == 2
        assert "'GFP' is not a channel of this configuration (DNA, ER, RNA, AGP, Mito" in capsys.readouterr().err
        assert columns.main(["--explain", name, "--channels", "DNA", "GFP"]) == 0
        assert "produced    yes" in capsys.readouterr().out
    assert columns.main(["--explain", "Cells_Intensity_MeanIntensity_Mita"]) == 2
    assert "did you mean Mito?" in capsys.readouterr().err


def test_verify_counts_the_wells_that_are_gone(plate, tmp_path, capsys):
    shutil.rmtree(tmp_path / "P.zarr/B/02")
    assert verify.main([str(tmp_path / "P")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("P  2 of 3 wells  1 problem\n")
    assert "  P B02: listed by the plate but missing; extract it again" in out
    assert jumpgpu.open_plate(tmp_path / "P").wells == ["A01", "D14"]
    write_plate(tmp_path, {"D14": [1]}, plate="P", images=True)  # any run brings the list up to date
    assert verify.main([str(tmp_path / "P")]) == 0
    assert capsys.readouterr().out == "P  2 wells  whole\n"


@pytest.fixture
def cells(tmp_path):
    """Two plates of cells with a plate map: four treatments and four negative controls."""
    names = feature_names(40)
    samples = ["A-1", "B-1", "C-1", "D-1", None, None, None, None]
    platemap = {f"A{i + 1:02d}": s for i, s in enumerate(samples)}
    write_metadata(tmp_path / "metadata", platemap, ["P1", "P2"])
    effects = draw_effects(samples[:4], [2.0] * 4, len(names))
    for plate in ("P1", "P2"):
        random = np.random.default_rng([8, *map(ord, plate)])
        shift = {w: 0 if s is None else effects.loc[s].to_numpy() for w, s in platemap.items()}
        write_store(tmp_path, plate, {w: random.normal(size=(30, 40)) + v for w, v in shift.items()}, names)
    return tmp_path


def test_profile_says_ten_lines_and_where_it_wrote(cells, capsys):
    command = ["P1", "P2", "--output", str(cells)]
    assert profile([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("would write ") == 2
    assert "8 wells; plate map " in out
    assert not (cells / "profiles").exists()
    assert profile(command) == 0
    out, err = capsys.readouterr()
    lines = [*out.splitlines(), *err.splitlines()]
    assert len(lines) <= 10
    assert all(len(line) < 240 and "{" not in line for line in lines)
    assert out.splitlines()[0].startswith("P1  8 wells  40 features")
    assert out.splitlines()[0].endswith(f"  {cells}/profiles/P1")
    assert f"next: jumpgpu score replicating P1 P2 --output {cells}" in err
    stamp = (cells / "profiles/P1/P1.parquet").stat().st_mtime_ns
    assert profile(command) == 2
    assert "has profiles of P1 already; --overwrite replaces them" in capsys.readouterr().err
    assert profile([*command, "--dry-run"]) == 2
    assert "P1: would be refused: " in capsys.readouterr().out
    assert (cells / "profiles/P1/P1.parquet").stat().st_mtime_ns == stamp
    assert profile([*command, "--overwrite", "--quiet"]) == 0
    err = capsys.readouterr().err
    assert "next:" not in err
    assert "recipe" not in err
    assert profile(["P9", "--output", str(cells), "--dry-run"]) == 2
    assert "P9: would be refused: no plate at " in capsys.readouterr().out


def test_excluded_wells_are_left_out_of_everything_and_recorded(cells, capsys):
    assert profile(["P1", "P2", "--output", str(cells), "--exclude-wells", "a5", "P2:A01"]) == 0
    assert "P1: 1 well excluded: A05" in capsys.readouterr().err
    for plate, wells in (("P1", ["A05"]), ("P2", ["A01", "A05"])):
        folder = cells / "profiles" / plate
        assert json.loads((folder / f"{plate}_recipe.json").read_text())["excluded_wells"] == wells
        whole, left = (pd.read_parquet(folder / f"{plate}{name}.parquet") for name in ("", "_normalized_negcon"))
        assert not set(wells) & set(left.Metadata_Well)
        assert len(left) == len(whole) - len(wells)
        controls = whole[whole.Metadata_Well.isin(["A06", "A07", "A08"])]
        feature = left.columns[-1]
        median = controls[feature].median()
        mad = 1.4826 * (controls[feature] - median).abs().median()
        expected = (whole.set_index("Metadata_Well")[feature] - median) / mad
        got = left.set_index("Metadata_Well")[feature]
        np.testing.assert_allclose(got, expected[got.index], rtol=1e-5)
    for wells, said in (
        (["H12"], "--exclude-wells H12: no such well on any of 2 plates"),
        (["P3:A01"], "on plate P3"),
        (["x"], "'x' is no"),
    ):
        assert profile(["P1", "P2", "--output", str(cells), "--overwrite", "--exclude-wells", *wells]) == 2
        assert said in capsys.readouterr().err


def test_a_reference_without_a_usable_feature_is_an_error(tmp_path, capsys):
    """One DMSO well: every MAD is 0, and nothing would be left."""
    names = ["A-1", "B-1", "C-1", None]
    draw_plate("P", draw_effects(names[:3], [1.0] * 3, 30), names).to_parquet(tmp_path / "P.parquet")
    command = [str(tmp_path / "P.parquet"), "--output", str(tmp_path)]
    assert profile(command) == 2
    said = "P: no feature varies among its 1 negative control, so there is nothing to normalise by; name more of them"
    assert said in capsys.readouterr().err
    assert profile([*command, "--reference", "all"]) == 0
