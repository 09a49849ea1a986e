"""Pipelines as steps: verdicts, what is refused and why, files of older and other forms; and CellProfiler's own runs, to
the pixel."""

import dataclasses
from pathlib import Path

import pytest

from jumpgpu.cellprofiler.findings import Translated
from jumpgpu.cellprofiler.parse import parse_text, read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.gpu.device import Device
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.config import Config, as_toml, build
from tools.pipelines import run_reference

SHARED = Path(__file__).resolve().parents[3] / "shared"
PIPELINES = Path(__file__).parent / "pipelines"
PUBLIC = SHARED / "data/pipelines"
REFERENCES = SHARED / "data/pipeline_references"
FEW = (
    "examplefly_D08",
    "jump_qc",
    "cfret",
    "v2",
    "jump_production_v3",
)  # unlike each other; tools/pipelines.py runs them all


def text_of(name: str) -> str:
    return (PIPELINES / name).read_text()


def changed(*pairs: tuple[str, str]) -> Translated:
    """CPJUMP1's analysis with text replaced."""
    text = text_of("cpjump1_analysis_load_data.cppipe")
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return translate([parse_text(text, "lab.cppipe")])


def test_cpjump1_is_equal() -> None:
    imported = changed()
    assert imported.verdict["labels"] == imported.verdict["columns"] == "equal"
    assert imported.channels == imported.functions == ("DNA", "ER", "RNA", "AGP", "Mito")
    assert imported.objects == ("Nuclei", "Cells", "Cytoplasm")
    primary = next(s for s in imported.steps if isinstance(s, kinds.Primary))
    assert (primary.image, primary.settings.threshold.correction, primary.settings.declump) == ("CorrBlue", 1.25, "shape")


def test_steps_survive_a_settings_file() -> None:
    import tomllib

    steps = changed().steps
    assert build(Config, tomllib.loads(as_toml(Config(steps=steps))), "lab.toml").steps == steps


REFUSED: dict[str, tuple[tuple[str, str], str, list[str]]] = {
    "lines by Propagate": (
        ("lines between clumped objects:Shape", "lines between clumped objects:Propagate"),
        "dividing lines by 'Propagate'",
        ["Nuclei", "Cells", "Cytoplasm"],
    ),
    "a threshold that is not made": (
        (
            "Threshold strategy:Global\n    Thresholding method:Minimum Cross-Entropy",
            "Threshold strategy:Global\n    Thresholding method:Measurement",
        ),
        "threshold by measurement",
        ["Nuclei", "Cells", "Cytoplasm"],
    ),
    "a method of cells": (
        ("secondary objects:Watershed - Image", "secondary objects:Something new"),
        "method by 'Something new'",
        ["Cells", "Cytoplasm"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_not_made_and_said_once(name: str) -> None:
    change, said, lost = REFUSED[name]
    imported = changed(change)
    assert imported.verdict["labels"] == "refused"
    assert imported.verdict["columns"] == "missing"
    (finding,) = imported.of_level("labels")
    assert said in finding.text
    assert finding.module.startswith("Identify")
    assert sorted(imported.missing) == sorted(lost)
    assert not any(isinstance(s, kinds.Primary) and s.objects in lost for s in imported.steps)
    assert not {
        o for s in imported.steps for o in getattr(s, "objects", ()) if isinstance(getattr(s, "objects", ""), tuple)
    } & set(lost)


def test_more_modules_declared_than_there_are() -> None:
    imported = changed(("ModuleCount:17", "ModuleCount:21"))
    assert imported.verdict["labels"] == "equal"
    assert any("declares 21 modules" in f.text for f in imported.findings)


@pytest.mark.parametrize("name", ["cpjump1_old", "jump_production_old"])
def test_older_revisions_mean_what_cellprofiler_makes_of_them(name: str) -> None:
    old, new = (translate([read_pipeline(PIPELINES / f"{n}.cppipe")]) for n in (name, f"{name}_upgraded"))
    assert list(map(in_order, old.steps)) == list(map(in_order, new.steps))


def in_order(step: kinds.Step) -> kinds.Step:
    """A step with its lists sorted: CellProfiler reads those of older revisions into sets."""
    lists = {
        f.name: tuple(sorted(v))
        for f in dataclasses.fields(step)
        if f.name in ("images", "objects") and isinstance(v := getattr(step, f.name), tuple)
    }
    return dataclasses.replace(step, **lists)


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="no ../shared/data/pipelines")
def test_public_pipelines() -> None:
    verdicts = {}
    for path in sorted(p for p in PUBLIC.iterdir() if p.suffix in (".cppipe", ".cpproj")):
        verdicts[path.name] = translate([read_pipeline(path)]).verdict
    complete = [n for n, v in verdicts.items() if v["labels"] == v["columns"] == "equal"]
    assert len(complete) >= 37, sorted(set(verdicts) - set(complete))


@pytest.mark.skipif(not REFERENCES.is_dir(), reason="no ../shared/data/pipeline_references")
@pytest.mark.parametrize("name", FEW)
def test_beside_cellprofilers_own_run(name: str, device: Device) -> None:
    result, _ = run_reference(REFERENCES / name, SHARED, device)
    assert not {n: p for n, p in result.labels.items() if p}
    assert not result.absent
    assert not result.differ
    assert result.agree == result.columns > 100
    assert not result.image_differ
    assert result.image_columns > 30
