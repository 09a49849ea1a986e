"""Settings files: what cannot be meant is refused by name, and what is printed reads back."""

import re
from pathlib import Path
from typing import Any

import pytest

from jumpgpu.config import main
from jumpgpu.profiles.recipe import load_recipe
from jumpgpu.settings.config import Config, config_folder, load_config
from jumpgpu.settings.toml import as_toml

NUCLEI, CELLS = "segmentation.nuclei", "segmentation.cells"


@pytest.mark.parametrize(
    ("table", "line", "expected"),
    [
        ("", "batch = 0", "at least 1"),
        ("illumination", "resize = 0", "above 0 and at most 1"),
        ("illumination", "quantile = nan", "at least 0 and at most 1"),
        (f"{NUCLEI}.background", "block = 0", "at least 1"),
        (f"{NUCLEI}.background", "filter_size = -1", "at least 1"),
        (f"{NUCLEI}.threshold", "smoothing = -0.5", "at least 0"),
        (f"{NUCLEI}.threshold", "correction = inf", "above 0"),
        (f"{NUCLEI}.threshold", "correction = 0.0", "above 0"),
        (f"{NUCLEI}.threshold", "deviations = nan", "a finite number"),
        (f"{NUCLEI}.threshold", "lower = 0.5\nupper = 0.25", "at most upper, which is 0.25"),
        (f"{NUCLEI}.threshold", 'method = "otsu"', "one of minimum_cross_entropy, otsu2"),
        (f"{NUCLEI}.threshold", 'averaging = "middle"', "one of mean, median, mode"),
        (f"{NUCLEI}.threshold", 'variance = "var"', "one of sd, mad"),
        (f"{NUCLEI}.threshold", 'middle_class = "both"', "one of foreground, background"),
        (NUCLEI, "min_diameter = 0", "above 0"),
        (NUCLEI, "min_diameter = 80\nmax_diameter = 70", "at most max_diameter, which is 70.0"),
        (NUCLEI, "smoothing = inf", "at least 0"),
        (NUCLEI, "suppression = -1", "at least 0"),
        (NUCLEI, 'declump = "size"', "one of shape, intensity, none"),
        (NUCLEI, 'dividing_lines = "size"', "one of shape, intensity, none"),
        (NUCLEI, 'fill_holes = "always"', "one of never, after_declump, both"),
        (CELLS, 'method = "grow"', "one of watershed, propagation, distance"),
        (CELLS, "distance = 0", "at least 1"),
        (CELLS, "regularization = -1", "at least 0"),
        ("features.correlation", "threshold = 101", "at most 100"),
        ("features.granularity", "spectrum = 17", "at most 16"),
        ("features.granularity", "radius = 0", "at least 1"),
        ("features.radial", "bins = 0", "at least 1"),
        ("features.radial", 'zernike = "phase"', "one of none, magnitudes"),
        ("features.texture", "scales = [0, 3]", "at least 1"),
        ("features.texture", "levels = 1", "at least 2"),
        ("features.neighbors", "nuclei = [-1]", "at least 0"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(tmp_path: Path, table: str, line: str, expected: str) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(f"[{table}]\n{line}\n" if table else f"{line}\n")
    key, value = line.splitlines()[0].split(" = ")
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(": ".join([str(file), *filter(None, table.split(".")), key]) + ": expected ")
    assert value.strip('"[]').split(",")[0] in message.rpartition(", got ")[2]


@pytest.mark.parametrize("preset", sorted(p.stem for p in config_folder().glob("*.toml")))
def test_what_is_printed_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str) -> None:
    assert main([preset]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "printed.toml").write_text(printed)
    assert load_config(tmp_path / "printed.toml") == load_config(preset)
    assert as_toml(Config()).count("\n") == printed.count("\n")


def test_printing_an_unknown_preset_is_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpjump9"]) == 2
    assert "unknown preset 'cpjump9'" in capsys.readouterr().err


@pytest.mark.parametrize(("load", "name"), [(load_config, "jump-production"), (load_recipe, "jumpgpu")])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_presets_name_means_the_preset_whatever_the_working_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any, name: str, kind: str
) -> None:
    """A checkout has a folder `jumpgpu`, and a user may keep a script of that name."""
    expected = load(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("exec jumpgpu") if kind == "file" else (tmp_path / name).mkdir()
    assert load(name) == expected
    with pytest.raises((ValueError, OSError), match=name):
        load(f"./{name}" if kind == "file" else tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no/such"):
        load(f"no/such/{name}")
