"""Numbers versions: values that move raise one, runs that agree in them share a plate, older plates are read as they are."""

import dataclasses
import hashlib
import json
import shutil
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import jumpgpu
from jumpgpu.features.families import FAMILIES
from jumpgpu.profile import main as profile
from jumpgpu.profiles import design_checks as designs
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.config import Config, build, config_folder, load_config
from jumpgpu.settings.numbers import PRESETS, VERSIONS, changed_settings, comparable, differences, versions_of
from jumpgpu.store.layout import Layout, SiteTable
from jumpgpu.store.writer import PlateWriter
from tests.helpers import numbers_drawn
from tests.helpers.plates import CHANNELS, COLUMNS, contents, write_images, write_plate

RECORD = json.loads(numbers_drawn.RECORD.read_text())
OLD = Path(__file__).with_name("plate_of_format_1.zip")  # made by commit e695663: DEMO, A01, with labels and image quality


@pytest.mark.parametrize("name", numbers_drawn.CASES)
def test_values_over_drawn_fields_move_only_with_the_numbers_version(name):
    result = numbers_drawn.CASES[name]()
    assert numbers_drawn.complaints(name, result, RECORD) == []
    kept = RECORD.get(name, {"version": 0, "cases": {}})
    how = "python -m tools.numbers brings numbers.json up to date"
    assert kept["version"] == numbers_drawn.version_of(name), how
    assert set(result) == set(kept["cases"]), how


def test_everything_that_stores_numbers_has_a_version():
    assert set(numbers_drawn.CASES) == {*VERSIONS, *PRESETS}
    assert set(FAMILIES) < set(VERSIONS)
    for path in config_folder().glob("*.toml"):
        try:
            build(Config, tomllib.loads(path.read_text()), path.name)
        except ValueError:
            continue  # settings of another kind, such as rules for cells
        assert path.stem in PRESETS


def test_a_moved_value_is_told_by_family_and_case(monkeypatch):
    result = dict(RECORD["radial"]["cases"]) | {"bins=8": "0" * 16}
    assert numbers_drawn.complaints("radial", result, RECORD) == [
        "radial: values moved (bins=8) and its numbers version did not: raise it, if they are meant to move"
    ]
    monkeypatch.setitem(VERSIONS, "radial", VERSIONS["radial"] + 1)
    assert numbers_drawn.complaints("radial", result, RECORD) == []
    monkeypatch.setitem(VERSIONS, "radial", 0)
    assert "1 was there before" in numbers_drawn.complaints("radial", result, RECORD)[0].replace(
        str(RECORD["radial"]["version"]), "1"
    )


def test_a_last_bit_in_one_stored_value_is_a_move():
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    moved = values.copy()
    moved[3, 2] = np.nextafter(moved[3, 2], np.float32(9))
    assert numbers_drawn.digest(values) != numbers_drawn.digest(moved)
    assert numbers_drawn.digest(np.array([np.nan, 0.0])) == numbers_drawn.digest(np.array([-np.nan, -0.0]))
    assert numbers_drawn.digest(values.astype(np.float64) * (1 + 1e-12)) == numbers_drawn.digest(values)


def test_a_broken_step_is_noticed(monkeypatch):
    real = numbers_drawn.check_image
    monkeypatch.setattr(numbers_drawn, "check_image", lambda counts: tuple(1.0001 * v for v in real(counts)))
    assert numbers_drawn.complaints("image_checks", numbers_drawn.CASES["image_checks"](), RECORD)


def test_the_versions_of_a_run():
    default = versions_of(Config())
    assert set(default) == {"cpjump1", "illumination", "image_checks", "segmentation", *FAMILIES}
    assert set(versions_of(Config(), segmented=False)) == set(default) - {"segmentation"}
    production = load_config("jump-production")
    assert set(versions_of(production)) == {*default, "jump-production", "image_quality"}
    own = dataclasses.replace(production, features=dataclasses.replace(production.features, families=("texture",)))
    assert set(versions_of(own)) == {"cpjump1", "illumination", "image_checks", "image_quality", "segmentation", "texture"}


def test_settings_at_their_default_and_those_that_move_no_number_are_left_out(tmp_path):
    assert changed_settings(Config()) == {}
    lab = tmp_path / "lab.toml"
    lab.write_text(
        'batch = 3\n[plate]\nimages = "/data"\n[plate.remap]\n"/a" = "/b"\n'
        '[segmentation.cells]\ndistance = 10\nregularization = 0.1\n[segmentation.nuclei]\nbackground = "none"\n'
        f"[features]\nfamilies = {sorted(FAMILIES, reverse=True)}\n[features.texture]\nscales = [3, 5, 10]\nlevels = 64\n"
    )
    assert changed_settings(load_config(lab)) == {
        "segmentation": {"nuclei": {"background": None}, "cells": {"regularization": 0.1}},
        "features": {"texture": {"levels": 64}},
    }


def test_differences_are_said_in_words():
    config = {"segmentation": {"nuclei": {"background": None}}}
    stored = {"numbers": {"texture": 1, "shape": 1}, "config": config, "device": "cpu", "saved": []}
    asked = {
        "numbers": {"texture": 2, "radial": 1},
        "config": {"features": {"texture": {"levels": 64}}},
        "device": "cuda",
        "saved": [],
    }
    assert differences(stored, asked) == [
        "config.features.texture.levels: stored 256, asked 64",
        "config.segmentation.nuclei.background: stored None, asked {'block': 30, 'filter_size': 50}",
        "device: stored cpu, asked cuda",
        "numbers version of radial: stored absent, this jumpgpu has 1",
        "numbers version of shape: stored 1, this jumpgpu has absent",
        "numbers version of texture: stored 1, this jumpgpu has 2",
    ]
    assert differences(stored, json.loads(json.dumps(stored))) == []


def settings(**versions):
    return {"numbers": {"texture": 1, **versions}, "config": {}, "device": "cpu"}


def test_a_run_resumes_if_and_only_if_versions_and_settings_agree(tmp_path, monkeypatch):
    write_plate(tmp_path, {"A01": [1]}, settings=settings())
    monkeypatch.setattr("jumpgpu.__version__", "99.0")
    assert write_plate(tmp_path, {"A01": [1], "B02": [1]}, settings=settings()) == ["B02"]
    with pytest.raises(ValueError, match="numbers version of texture: stored 1, this jumpgpu has 2"):
        write_plate(tmp_path, {"A01": [1], "C03": [1]}, settings=settings(texture=2))
    assert jumpgpu.open_plate(tmp_path / "BR00117010").numbers == {"texture": 1}


@pytest.fixture
def old(tmp_path):
    """A plate made before numbers versions, unpacked."""
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(tmp_path / "plates")
    return tmp_path / "plates" / "DEMO.zarr"


def checksum(table):
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def test_an_old_plate_opens_verifies_and_has_its_values(old):
    plate = jumpgpu.open_plate(old)
    assert plate.verify() == []
    assert (
        checksum(plate.to_pandas()) == "533d7176cf8e0643a647d1c0b1791cd5233ebf440cec13bd6e51aafe6b2c17d2"
    )  # as e695663 read it
    quality = plate.image_quality()
    assert (
        checksum(quality.astype(dict.fromkeys(quality.columns[3:], np.float32)))
        == "8484bc3ebfd2b2401abed629ac71ca6bbf3077ea124fca0fb43045d0433f7b41"
    )
    assert set(plate.numbers) == {"cpjump1", "illumination", "image_checks", "image_quality", "location", "number"}
    assert set(plate.numbers.values()) == {1}
    assert [sorted(plate.labels("A01", site)) for site in (1, 2)] == [["Cells", "Cytoplasm", "Nuclei"]] * 2


def test_an_old_plate_is_gone_on_with_while_its_versions_are_todays(old, tmp_path, monkeypatch):
    for versions in (VERSIONS, PRESETS):
        for name in versions:
            monkeypatch.setitem(versions, name, 1)
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["location", "number"]\nimage_quality = true\n')
    options = {
        "images": tmp_path / "images",
        "output": old.parent,
        "masks": tmp_path / "masks",
        "config": tmp_path / "small.toml",
        "illumination": "none",
        "save_labels": True,
        "device": "cpu",
    }
    before = contents(old / "A")
    monkeypatch.setitem(VERSIONS, "location", 2)
    with pytest.raises(ValueError, match="numbers version of location: stored 1, this jumpgpu has 2"):
        jumpgpu.extract("DEMO", **options)
    monkeypatch.setitem(VERSIONS, "location", 1)
    plate = jumpgpu.extract("DEMO", **options)
    assert plate.wells == ["A01", "B02"]
    assert contents(old / "A") == before
    assert plate.verify() == []
    assert len(plate.to_pandas()) == 16
    shutil.rmtree(old / "B")
    stored = jumpgpu.open_plate(old).settings
    assert differences(stored, plate.settings) == []
    assert differences({**stored, "kernels": "abc", "device": "cuda"}, {**comparable(stored), "numbers": {"number": 1}}) == [
        "numbers versions: the plate is older than they are, made with kernels abc that are not known",
        "device: stored cuda, asked cpu",
    ]


def test_plates_of_different_numbers_versions_are_a_finding(tmp_path, capsys):
    assert designs.check_numbers({"P": {"texture": 1}, "Q": {"texture": 1, "shape": 2}, "R": {}}) == []
    assert designs.check_numbers({"P": {"texture": 1}, "Q": {"texture": 2}, "R": {"texture": 2}}) == [
        "the plates have different numbers of texture (version 1 in P; version 2 in Q, R): extract them with one version to "
        "compare them"
    ]
    assert designs.check_numbers({"P": {"kernels": "abc"}, "Q": {"texture": 1}}) == [
        "P: older than numbers versions, and its values may differ from the other plates'"
    ]
    wells = {f"{row}{column:02d}": [1] for row in "AB" for column in range(1, 7)}
    for plate, version in (("P1", 1), ("P2", 2)):
        with PlateWriter(tmp_path, Layout(plate, COLUMNS, CHANNELS), settings(texture=version), wells) as writer:
            for i, well in enumerate(wells):
                values = np.random.default_rng([i, version]).normal(size=(9, len(COLUMNS)))
                writer.append(SiteTable(well, 1, np.arange(1, 10), values))
    (tmp_path / "map.txt").write_text(
        "well_position\tbroad_sample\n" + "".join(f"{w}\t{'' if i % 2 else 'X'}\n" for i, w in enumerate(wells))
    )
    arguments = ["--plate", "P1", "--plate", "P2", "--output", str(tmp_path), "--platemap", str(tmp_path / "map.txt")]
    assert profile([*arguments, "--reference", "all"]) == 0
    said = "the plates have different numbers of texture (version 1 in P1; version 2 in P2)"
    assert said in capsys.readouterr().err
    tables = [str(tmp_path / f"profiles/{p}/{p}.parquet") for p in ("P1", "P2")]
    again = [word for table in tables for word in ("--plate", table)]
    assert profile([*again, "--output", str(tmp_path / "again"), *arguments[6:], "--reference", "all"]) == 0
    assert said in capsys.readouterr().err, "from tables the versions are those that were recorded beside them"


def test_limits_that_are_infinite_are_kept_as_words():
    step = kinds.Filter("Cells", "Large", measurements=("AreaShape_Area",), lowest=(9.0,), highest=(float("inf"),))
    kept = changed_settings(Config(steps=(step,)))["steps"]
    assert kept == [
        {
            "do": "filter_objects",
            "objects": "Cells",
            "output": "Large",
            "measurements": ["AreaShape_Area"],
            "lowest": [9.0],
            "highest": ["inf"],
        }
    ]
    assert json.dumps(kept, allow_nan=False)
