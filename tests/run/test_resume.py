"""A run that goes on with a plate: judged before anything is computed, its words, and labels added later."""

import numpy as np
import pytest

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.run import plate as runs
from jumpgpu.settings.config import Config, build, load_config
from tests.helpers.plates import contents, write_images


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A small plate of images in the current folder, and its command without masks."""
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    return ["DEMO", "--images", "images", "--output", "out", "--device", "cpu", "--threads", "1"]


@pytest.fixture
def no_estimate(monkeypatch):
    """Fail where illumination functions are asked for."""

    def refuse(*args, **options):
        raise AssertionError("the illumination was estimated before the settings were judged")

    monkeypatch.setattr(runs, "open_functions", refuse)


def test_a_refused_run_does_not_wait_for_the_illumination(demo, tmp_path, capsys, request):
    assert main([*demo, "--wells", "a1"]) == 0
    before = contents(tmp_path / "out")
    request.getfixturevalue("no_estimate")
    (tmp_path / "other.toml").write_text("[features.texture]\nscales = [3]\n")
    for options, said in (
        (["--sites", "1"], "sites: stored all, asked [1]"),
        (["--config", "other.toml"], "config.features.texture.scales: stored"),
        (["--masks", "masks"], "labels: stored segmented, asked given"),
    ):
        assert main([*demo, *options, "--quiet"]) == 2
        assert said in capsys.readouterr().err
        assert main([*demo, *options, "--dry-run"]) == 2
        out = capsys.readouterr().out
        assert "  would be refused: " in out
        assert said in out
    for path in (tmp_path / "images").rglob("r01c01f01*ch5*"):
        path.write_bytes(path.read_bytes() + b"x")
    assert main([*demo, "--quiet"]) == 2
    assert "A01 site 1 DNA: stored" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_a_dry_run_that_would_work_says_so(demo, capsys):
    assert main([*demo, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "refused" not in out
    assert "DEMO: 2 wells, 4 sites, " in out
    assert "measured already: 0 wells" in out


def test_another_illumination_is_named(demo, capsys):
    assert main([*demo, "--illumination", "none", "--quiet"]) == 0
    capsys.readouterr()
    assert main([*demo, "--illumination", "estimate", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "illumination: other functions than those the plate was made with (by --illumination none; now" in err
    assert "--illumination estimate)" in err
    assert len(max(err.split(), key=len)) < 60  # no digest


def test_labels_are_added_to_a_plate_that_has_none(demo, tmp_path, capsys):
    assert main([*demo, "--illumination", "none"]) == 0
    plate = jumpgpu.open_plate("out/DEMO")
    before, fingerprint = plate.to_pandas(), plate.fingerprint
    with pytest.raises(ValueError, match="has no label images"):
        plate.labels("A01", 1)
    again = [*demo, "--illumination", "none", "--save-labels"]
    assert main([*again, "--wells", "A01"]) == 0
    assert "DEMO: 1 well measured again, with the same settings, to have label images" in capsys.readouterr().err
    assert main(again) == 0
    plate = jumpgpu.open_plate("out/DEMO")
    assert plate.verify() == []
    assert plate.fingerprint == fingerprint
    after = plate.to_pandas()
    np.testing.assert_array_equal(after.iloc[:, 4:].to_numpy(), before.iloc[:, 4:].to_numpy())
    for well in plate.wells:
        for site in (1, 2):
            cells = len(after[(after.Metadata_Well == well) & (after.Metadata_Site == site)])
            assert plate.labels(well, site)["Cells"].max() == cells
            assert plate.overview(well, site).shape[0] == 5
    stamps = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "out/DEMO.zarr").rglob("*") if p.parts[-2:] == ("01", "zarr.json")
    }
    assert main(again) == 0  # all there
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert main([*demo[:-2], "--illumination", "none", "--quiet"]) == 0  # and without labels it goes on too


def test_a_plate_with_labels_goes_on_with_labels_whether_they_are_asked_for_or_not(demo, capsys):
    """`demo` ends with --output: a plate whose first well was stored with label images, the same command without them."""
    plain = [*demo, "--illumination", "none"]
    assert main([*plain, "--save-labels", "--wells", "A01"]) == 0
    capsys.readouterr()
    assert main([*plain, "--dry-run"]) == 0
    assert "the plate was made with label images and overviews, so the wells that" in capsys.readouterr().out
    assert main(plain) == 0
    assert "DEMO: the plate was made with label images and overviews, so the wells" in capsys.readouterr().err
    plate = jumpgpu.open_plate("out/DEMO")
    assert plate.verify() == []
    assert len(plate.wells) > 1
    cells = plate.to_pandas()
    for well in plate.wells:
        for site in (1, 2):
            n = len(cells[(cells.Metadata_Well == well) & (cells.Metadata_Site == site)])
            assert plate.labels(well, site)["Cells"].max() == n
    assert main(plain) == 0  # nothing is missing: nothing to say
    assert "made with label images" not in capsys.readouterr().err
    assert main([*plain, "--overwrite", "--wells", "A01"]) == 0  # one of several: as the others are
    assert jumpgpu.open_plate("out/DEMO").labels("A01", 1)["Cells"].any()
    assert main([*plain, "--overwrite"]) == 0  # all anew: as asked
    with pytest.raises(ValueError, match="has no label images"):
        jumpgpu.open_plate("out/DEMO").labels("A01", 1)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"plates": {}}, "unknown key 'plates'; did you mean plate? known here: "),
        ({"plate": {"chanels": ["DNA"]}}, "unknown key 'chanels'; did you mean channels?"),
        ({"segmentation": {"nuclei": {"min_diametre": 3}}}, "unknown key 'min_diametre'; did you mean min_diameter?"),
        ({"features": {"texture": {"Scales": [3]}}}, "unknown key 'Scales'; did you mean scales?"),
        ({"zzz": 1}, "unknown key 'zzz'; known here: "),
    ],
)
def test_a_misspelled_key_names_the_one_that_was_meant(table, said):
    with pytest.raises(ValueError, match="unknown key") as error:
        build(Config, table, "lab.toml")
    assert said in str(error.value)


def test_a_misspelled_preset_too():
    with pytest.raises(ValueError, match=r"unknown preset 'jump-prodution'; did you mean jump-production\?"):
        load_config("jump-prodution")
