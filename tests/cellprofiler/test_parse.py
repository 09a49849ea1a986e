"""Pipelines that CellProfiler 4.2.8.1 wrote (helpers/oracles/cppipes.py) come out as the settings they were written from."""

from dataclasses import replace
from pathlib import Path

import pytest

from jumpgpu import import_cppipe
from jumpgpu.cellprofiler.convert import import_pipelines
from jumpgpu.cellprofiler.parse import parse_text, read_pipeline
from jumpgpu.import_cppipe import main
from jumpgpu.settings.config import Config, load_config

PIPELINES = Path(__file__).parent / "pipelines"
FORMS = ("load_data", "names_and_types")


def with_order(config: Config, order: tuple[str, ...] = ("DNA", "ER", "RNA", "AGP", "Mito")) -> Config:
    """The settings with pairs in the order in which the files list the images."""
    return replace(config, features=replace(config.features, correlation=replace(config.features.correlation, order=order)))


def written(*names: str) -> list[str]:
    return [str(PIPELINES / (name if "." in name else f"{name}.cppipe")) for name in names]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [1, -1])
def test_cpjump1_comes_out_as_its_preset(form: str, order: int) -> None:
    both = written(f"cpjump1_illumination_{form}", f"cpjump1_analysis_{form}")[::order]
    imported = import_cppipe(*both)
    assert imported.config == with_order(load_config("cpjump1"))
    assert set(imported.sections) == {"plate", "illumination", "segmentation", "features"}
    assert not imported.of_kind("changes", "missing", "more")


@pytest.mark.parametrize("name", [*(f"jump_production_{form}" for form in FORMS), "jump_production_load_data.json"])
def test_jump_production_comes_out_as_its_preset(name: str) -> None:
    imported = import_cppipe(*written(name))
    assert imported.config == with_order(load_config("jump-production"))
    assert not imported.of_kind("changes", "more")
    missing = {(f.module, f.text.split(",")[0]) for f in imported.of_kind("missing")}
    assert missing == {
        ("MeasureImageQuality", "the image's rescaling value"),
        ("MeasureObjectSkeleton", "is not among the modules that are imported; its numbers are not made"),
        ("MeasureObjectIntensityDistribution", "measures image 'Tube'"),
        ("MeasureImageIntensity", "is not among the modules that are imported; its numbers are not made"),
    }
    left_out = {"EnhanceOrSuppressFeatures", "Threshold", "MorphologicalSkeleton", "MaskImage", "OverlayOutlines"}
    assert left_out <= {f.module for f in imported.of_kind("note")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", ["cpjump1", "jump-production"])
def test_the_file_that_is_written_loads_as_the_preset(preset: str, form: str, tmp_path: Path, capsys) -> None:
    names = [f"cpjump1_illumination_{form}", f"cpjump1_analysis_{form}"]
    if preset == "jump-production":
        names = [f"jump_production_{form}"]
    assert main([*written(*names), "--approximate", "--output", str(tmp_path / "made.toml")]) == 0
    assert load_config(tmp_path / "made.toml") == with_order(load_config(preset))
    said = capsys.readouterr().err.splitlines()
    text = (tmp_path / "made.toml").read_text()
    assert all(f"# {line.strip()}" in text.replace("#   ", "# ") for line in said)  # what was said stands in the file


def test_strict_takes_cpjump1_and_refuses_what_would_be_missing(tmp_path: Path, capsys) -> None:
    target = tmp_path / "made.toml"
    assert main([*written("jump_production_load_data"), "--strict", "--output", str(target)]) == 1
    assert "error: image tables missing; without --strict" in capsys.readouterr().err
    assert not target.exists()
    assert main([*written("cpjump1_analysis_load_data"), "--strict", "--output", str(target)]) == 0
    assert target.exists()


@pytest.mark.parametrize("name", ["cpjump1_old", "jump_production_old"])
def test_old_revisions_mean_what_cellprofiler_makes_of_them(name: str) -> None:
    old, upgraded = (import_pipelines([read_pipeline(p)]) for p in written(name, f"{name}_upgraded"))
    assert old.config == with_order(upgraded.config, ())
    assert upgraded.config.features.correlation.order == ("ER", "DNA", "RNA", "AGP", "Mito")  # by chance, when it was saved
    told = [(f.kind, f.module, f.text) for f in old.findings if "orders its images by chance" not in f.text]
    assert told == [(f.kind, f.module, f.text) for f in upgraded.findings]
    assert len(old.findings) == len(told) + 1
    preset = load_config(name.removesuffix("_old").replace("_", "-"))
    assert old.config.segmentation == preset.segmentation
    assert old.config.features.families == preset.features.families
    revisions = {m.name: m.revision for m in read_pipeline(written(name)[0]).modules}
    assert revisions["IdentifyPrimaryObjects"] in (13, 14)
    assert revisions["MeasureTexture"] == 5


def test_values_survive_cellprofilers_escapes() -> None:
    old, new = (read_pipeline(p).modules for p in written("cpjump1_old", "cpjump1_old_upgraded"))
    assert [m.name for m in old] == [m.name for m in new]
    assert old[0].values[0] == new[0].values[0] == "Elsewhere...|"
    apply = read_pipeline(written("cpjump1_analysis_load_data")[0]).modules[1]
    assert (apply.name, apply.values[:4]) == ("CorrectIlluminationApply", ["OrigDNA", "DNA", "IllumDNA", "Divide"])
    text, json = (read_pipeline(p).modules for p in written("jump_production_load_data", "jump_production_load_data.json"))
    assert text == json


@pytest.mark.parametrize(("index", "which"), [([[1, 0, 1]], 0), ([[1, 2, 3]], 2), ([[1, 0, 3]], None), (None, None)])
def test_a_project_that_was_saved_more_than_once(tmp_path: Path, index: list[list[int]] | None, which: int | None) -> None:
    """CellProfiler appends its pipeline at each saving, and `index` says which one holds."""
    h5py = pytest.importorskip("h5py")
    text = (PIPELINES / "cpjump1_analysis_load_data.cppipe").read_text()
    texts = [text.replace("(Min,Max):10,75", f"(Min,Max):{n},75") for n in (11, 12, 13)]
    assert len(set(texts)) == 3
    path = tmp_path / "lab.cpproj"
    with h5py.File(path, "w") as file:
        group = file.create_group("Measurements/2022-06-29-08-06-52/Experiment/Pipeline_Pipeline")
        group.create_dataset("data", data=texts, dtype=h5py.string_dtype())
        if index is not None:
            group.create_dataset("index", data=index)
    if which is None:
        with pytest.raises(ValueError, match="with 3 pipelines"):
            read_pipeline(path)
    else:
        assert read_pipeline(path).modules == parse_text(texts[which], "").modules
