"""Pipelines as steps: verdicts, what is refused and why, files of older and other forms; and CellProfiler's own runs, to
the pixel."""

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from jumpgpu.cellprofiler.findings import Translated
from jumpgpu.cellprofiler.parse import parse_text, read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.cellprofiler.verdict import settings
from jumpgpu.gpu.device import Device
from jumpgpu.import_cppipe import main as import_cppipe
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.config import Config, build, load_config
from jumpgpu.settings.limits import check_all
from jumpgpu.settings.toml import as_toml
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
    steps = changed().steps
    assert build(Config, tomllib.loads(as_toml(Config(steps=steps))), "lab.toml").steps == steps


REFUSED: dict[str, tuple[tuple[str, str], str, list[str]]] = {
    "lines of a kind that is not known": (
        ("lines between clumped objects:Shape", "lines between clumped objects:Something new"),
        "dividing lines by 'Something new'",
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


def illumination(*pairs: tuple[str, str]) -> str:
    text = text_of("cpjump1_illumination_load_data.cppipe")
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_an_illumination_pipeline_is_functions_of_channels() -> None:
    imported = translate([parse_text(illumination(), "illum.cppipe")])
    assert imported.verdict == {"labels": "equal", "columns": "equal", "image_tables": "equal"}
    assert not imported.steps
    kept = {s.channel: s.image for s in imported.function_steps if isinstance(s, kinds.KeepFunction)}
    assert sorted(kept) == sorted(["DNA", "ER", "RNA", "AGP", "Mito"])
    output = [s for s in imported.function_steps if isinstance(s, kinds.Illumination)]
    assert {(s.plate, s.background, s.smoothing, s.size, s.rescale) for s in output} == {
        (True, False, "median", 20.0, "yes")
    }
    assert kept["DNA"] not in {s.output for s in output}  # it is enlarged first


def test_functions_of_one_pipeline_are_loaded_by_the_other() -> None:
    texts = illumination(), text_of("cpjump1_analysis_load_data.cppipe")
    imported = translate([parse_text(text, f"{i}.cppipe") for i, text in enumerate(texts)])
    assert imported.verdict["labels"] == imported.verdict["columns"] == "equal"
    loaded = {s.channel for s in imported.steps if isinstance(s, kinds.Load) and s.function}
    assert loaded == {s.channel for s in imported.function_steps if isinstance(s, kinds.KeepFunction)}
    assert not any("not made by these" in f.text for f in imported.findings)
    alone = translate([parse_text(texts[1], "analysis.cppipe")])
    (finding,) = [f for f in alone.findings if f.level == "note" and "--illumination" in f.text]
    assert "DNA, ER, RNA, AGP, Mito" in finding.text


METHODS = {
    "Convex Hull": "convex_hull",
    "Fit Polynomial": "polynomial",
    "Gaussian Filter": "gaussian",
    "No smoothing": "none",
    "Smooth to Average": "average",
    "Splines": "splines",
}


@pytest.mark.parametrize("method", METHODS)
def test_every_smoothing_of_functions(method: str) -> None:
    imported = translate([parse_text(illumination(("method:Median Filter", f"method:{method}")), "illum.cppipe")])
    assert imported.verdict["labels"] == "equal"
    output = {s.smoothing for s in imported.function_steps if isinstance(s, kinds.Illumination)}
    assert output == {METHODS[method]}


def test_a_function_that_only_the_last_image_finishes() -> None:
    """Applied in the run that makes it, CellProfiler divides each image by what has come so far."""
    text = text_of("cpjump1_analysis_load_data.cppipe")
    calculate = illumination()
    begin = calculate.index("CorrectIlluminationCalculate:")
    block = calculate[begin : calculate.index("\n\n", begin)].replace("DownDNA", "OrigDNA").replace("AvgDNA", "IllumDNA")
    at = text.index("CorrectIlluminationApply:")
    with_it = text[:at] + block + "\n\n" + text[at:]
    across = translate([parse_text(with_it, "both.cppipe")])
    assert across.verdict["labels"] == "refused"
    assert any("finished with the last image only" in f.text for f in across.of_level("labels"))
    first = translate([parse_text(with_it.replace("All: Across cycles", "All: First cycle"), "both.cppipe")])
    assert first.verdict["labels"] == "equal"
    assert [s.image for s in first.function_steps if isinstance(s, kinds.KeepFunction)] == ["IllumDNA"]


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="no ../shared/data/pipelines")
def test_public_pipelines() -> None:
    """And the settings of every one are settings that `extract` takes, and a file says again."""
    verdicts = {}
    for path in sorted(p for p in PUBLIC.iterdir() if p.suffix in (".cppipe", ".cpproj")):
        imported = translate([read_pipeline(path)])
        verdicts[path.name] = imported.verdict
        config = settings(imported)
        check_all(config, path.name)
        assert build(Config, tomllib.loads(as_toml(config)), path.name) == config
    complete = [n for n, v in verdicts.items() if v["labels"] == v["columns"] == "equal"]
    assert len(complete) >= 39, sorted(set(verdicts) - set(complete))
    assert sum(v["image_tables"] == "equal" for v in verdicts.values()) >= 33


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


HEADER = "[module_num:20|svn_version:'Unknown'|variable_revision_number:3|enabled:True|wants_pause:False]"
MASK_OBJECTS = {
    "Select objects to be masked": "Cells",
    "Name the masked objects": "Inner",
    "Mask using a region defined by other objects or by binary image?": "Objects",
    "Select the masking object": "Nuclei",
    "Select the masking image": "None",
    "Handling of objects that are partially masked": "Remove depending on overlap",
    "Fraction of object that must overlap": "0.25",
    "Numbering of resulting objects": "Retain",
    "Invert the mask?": "Yes",
}


def appended(name: str, settings_of: dict[str, str], file: str = "cpjump1_analysis_load_data.cppipe") -> Translated:
    """CPJUMP1's analysis with one module more."""
    block = "\n".join([f"{name}:{HEADER}", *(f"    {k}:{v}" for k, v in settings_of.items())])
    return translate([parse_text(f"{text_of(file)}\n{block}\n", "lab.cppipe")])


def test_mask_objects() -> None:
    imported = appended("MaskObjects", MASK_OBJECTS)
    assert imported.verdict["labels"] == imported.verdict["columns"] == "equal"
    (step,) = [s for s in imported.steps if isinstance(s, kinds.MaskObjects)]
    assert (step.objects, step.output, step.by_objects, step.mask) == ("Cells", "Inner", "Nuclei", "")
    assert (step.overlap, step.share, step.renumber, step.invert) == ("share", 0.25, False, True)
    assert "Inner" in imported.objects


def test_masking_by_objects_that_are_not_made() -> None:
    others = MASK_OBJECTS | {"Select the masking object": "Others"}
    assert any("channel OthersObjects" in f.text for f in appended("MaskObjects", others).of_level("note"))
    imported = appended("MaskObjects", others, "cpjump1_analysis_names_and_types.cppipe")  # where no table may load them
    assert imported.verdict["labels"] == "refused"
    (finding,) = imported.of_level("labels")
    assert finding.module == "MaskObjects"
    assert "'Others'" in finding.text
    assert "'Inner' are not made" in finding.text


def test_an_unknown_module_is_said_once() -> None:
    makes = appended("EditObjectsManually", {"Select the objects": "Cells", "Name the edited objects": "Merged"})
    assert [(f.level, f.module) for f in makes.findings if f.module == "EditObjectsManually"] == [
        ("labels", makes.findings[0].module)
    ]
    assert makes.missing == ("Merged",)
    other = appended("Align", {"Select the input image": "DNA", "Name the output image": "Edges"})
    assert [f.level for f in other.findings if f.module == "Align"] == ["note"]
    assert other.verdict["labels"] == "equal"


def test_functions_of_groups_smaller_than_a_plate() -> None:
    """CellProfiler makes a function for each group of images; here there is one for the plate."""
    text = illumination()
    at = text.index("Group images by metadata?:Yes\n") + len("Group images by metadata?:Yes\n")
    line = text[at:].splitlines()[0]
    assert line.strip().startswith("Select metadata tags")
    for tags, verdict in (("Plate", "equal"), ("Plate,Well", "differ")):
        grouped = text.replace(line, f"    Select metadata tags for grouping:{tags}")
        imported = translate([parse_text(grouped, "illum.cppipe")])
        assert imported.verdict["columns"] == verdict
    (finding,) = imported.of_level("values")
    assert "'Well'" in finding.text


@pytest.mark.parametrize("text", ["Name the output image", "Image name", "Name the first output image"])
def test_an_image_of_a_module_that_is_not_imported_is_none_of_the_plates(text: str) -> None:
    intensity = "MeasureObjectIntensity:[module_num:20|variable_revision_number:4|enabled:True]"
    block = f"{intensity}\n    Select images to measure:Gray\n    Select objects to measure:Nuclei"
    imported = appended("UnmixColors", {"Select the input image": "DNA", text: f"Gray\n\n{block}"})
    assert imported.verdict == {"labels": "equal", "columns": "missing", "image_tables": "equal"}
    (finding,) = imported.of_level("columns")
    assert (finding.module, "Gray" in imported.channels) == ("UnmixColors", False)


def test_a_picture_that_a_module_makes_is_no_image_of_the_plate() -> None:
    """An outline's or a heat map's picture is not made here, so that a module that takes it is not taken to load it."""
    settings_of = {"Select the objects": "Cells", "Select neighboring objects to measure": "Cells", "Method": "Adjacent"}
    settings_of |= {"Neighbor distance": "5", "Consider objects discarded for touching image border?": "Yes"}
    settings_of |= {
        "Retain the image of objects colored by numbers of neighbors?": "Yes",
        "Name the output image": "Counted",
    }
    block = "\n".join([f"MeasureObjectNeighbors:{HEADER}", *(f"    {k}:{v}" for k, v in settings_of.items())])
    text = f"{text_of('cpjump1_analysis_load_data.cppipe')}\n{block}\n"
    intensity = text[text.index("MeasureObjectIntensity:") :].split("\n\n")[0]
    line = intensity.splitlines()[1]
    text += "\n" + intensity.replace(line, "    Select images to measure:Counted") + "\n"
    imported = translate([parse_text(text, "lab.cppipe")])
    assert imported.verdict["columns"] == "missing"
    assert any("'Counted' is not made" in f.text for f in imported.of_level("columns"))


SAVED = """
SaveImages:[module_num:9|svn_version:'Unknown'|variable_revision_number:16|show_window:False|notes:[]|enabled:True]
    Select the type of image to save:Image
    Select the image to save:CorrDNA
"""
CORRECTED = """CellProfiler Pipeline: http://www.cellprofiler.org
Version:5
DateRevision:428
ModuleCount:2

CorrectIlluminationApply:[module_num:8|svn_version:'Unknown'|variable_revision_number:5|show_window:False|notes:[]|enabled:True]
    Select the input image:OrigDNA
    Name the output image:CorrDNA
    Select the illumination function:IllumDNA
    Select how the illumination function is applied:Divide
    Set output image values less than 0 equal to 0?:Yes
    Set output image values greater than 1 equal to 1?:Yes
"""


def test_images_that_one_pipeline_saves_for_another_are_said() -> None:
    """A later pipeline would read the plate's own images in their place."""
    first = parse_text(CORRECTED + SAVED, "illum.cppipe")
    later = parse_text(text_of("cpjump1_analysis_load_data.cppipe"), "analysis.cppipe")
    imported = translate([first, later])
    (finding,) = imported.of_level("labels")
    assert (imported.verdict["labels"], finding.module) == ("differ", "SaveImages")
    assert "'CorrDNA', which a later pipeline may load" in finding.text
    assert translate([later, first]).verdict["labels"] == "equal"  # what the last one saves nobody loads
    alone = translate([first])
    assert alone.verdict["labels"] == "refused"
    assert "only makes images 'CorrDNA'" in alone.of_level("labels")[0].text
    assert translate([parse_text(text_of("cpjump1_illumination_load_data.cppipe"), "illum.cppipe"), later]).verdict[
        "labels"
    ] == ("equal")  # functions of a plate are passed on


def test_images_of_the_older_loading_module_have_names() -> None:
    loading = """CellProfiler Pipeline: http://www.cellprofiler.org
Version:1
SVNRevision:11710

LoadImages:[module_num:1|svn_version:'11587'|variable_revision_number:11|show_window:False|notes:[]]
    File type to be loaded:individual images
    Load the input as images or objects?:Images
    Name this loaded image:OrigDNA
    Name this loaded object:Nuclei
    Rescale intensities?:{}
"""
    translated = translate([parse_text(loading.format("Yes"), "old.cp")])
    assert any("loads 'OrigDNA'" in f.text for f in translated.of_level("note"))
    assert not translated.of_level("labels")
    assert "not rescaled" in translate([parse_text(loading.format("No"), "old.cp")]).of_level("labels")[0].text


def test_a_module_of_an_old_revision_is_refused_in_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.cppipe"
    path.write_text(CORRECTED.replace("variable_revision_number:5", "variable_revision_number:99"))
    assert import_cppipe([str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["labels"], result["columns"]) == ("refused", "missing")
    (finding,) = result["findings"]
    assert (finding["level"], finding["module"], finding["number"]) == ("labels", "CorrectIlluminationApply", 1)
    assert "revision 99" in finding["line"]


def test_a_pipeline_in_place_of_settings_is_told_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"a CellProfiler pipeline, not a settings file: give it by --pipeline"):
        load_config(Path(__file__).parent / "pipelines/cpjump1_old.cppipe")
