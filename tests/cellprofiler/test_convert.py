"""Pipelines that are changed, broken or hostile: a finding or one clear line each, and nothing evaluated."""

import contextlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jumpgpu.cellprofiler.convert import Imported, import_pipelines
from jumpgpu.cellprofiler.parse import MAX_BYTES, parse_text, read_pipeline, unescape
from jumpgpu.images.channels import channel_of
from jumpgpu.import_cppipe import as_settings, main
from jumpgpu.settings.config import Config, build

PIPELINES = Path(__file__).parent / "pipelines"
ANALYSIS = (PIPELINES / "cpjump1_analysis_load_data.cppipe").read_text(encoding="utf-8")
ILLUMINATION = (PIPELINES / "cpjump1_illumination_load_data.cppipe").read_text(encoding="utf-8")
PRODUCTION = (PIPELINES / "jump_production_load_data.cppipe").read_text(encoding="utf-8")


def imported(text: str) -> Imported:
    return import_pipelines([parse_text(text, "p.cppipe")])


def changed(text: str, *changes: tuple[str, str], after: str = "") -> Imported:
    """The pipeline with its first occurrence of each text (after `after`) replaced."""
    for old, new in changes:
        at = text.index(old, text.index(after) if after else 0)
        text = text[:at] + new + text[at + len(old) :]
    return imported(text)


@pytest.mark.parametrize(
    ("after", "old", "new", "setting", "value"),
    [
        ("IdentifyPrimary", "(Min,Max):10,75", "(Min,Max):12,60.5", "nuclei.max_diameter", 60.5),
        ("IdentifyPrimary", "filter for declumping?:No", "filter for declumping?:Yes", "nuclei.smoothing", None),
        ("IdentifyPrimary", "between local maxima?:No", "between local maxima?:Yes", "nuclei.suppression", None),
        ("IdentifyPrimary", "clumped objects:Shape", "clumped objects:None", "nuclei.declump", "none"),
        ("IdentifyPrimary", "holes in identified objects?:Never", "holes in identified objects?:After both thresholding and "
         "declumping", "nuclei.fill_holes", "both"),
        ("IdentifyPrimary", "input image:CorrBlue", "input image:DNA", "nuclei.background", None),
        ("IdentifyPrimary", "method:Minimum Cross-Entropy", "method:Robust Background", "nuclei.threshold.method",
         "robust_background"),
        ("IdentifyPrimary", "advanced settings?:Yes", "advanced settings?:No", "nuclei.threshold.smoothing", 1.3488),
        ("IdentifyPrimary", "advanced settings?:Yes", "advanced settings?:No", "nuclei.declump", "intensity"),
        ("IdentifySecondary", "Watershed - Image", "Propagation", "cells.method", "propagation"),
        ("IdentifySecondary", "Watershed - Image", "Distance - N", "cells.method", "distance"),
        ("IdentifySecondary", "input image:RNA", "input image:AGP", "cells.channel", "AGP"),
        ("IdentifyTertiary", "to subtraction?:Yes", "to subtraction?:No", "shrink_nucleus", False),
    ],
)  # fmt: skip
def test_a_setting_of_the_pipeline_is_the_setting_here(after: str, old: str, new: str, setting: str, value: object) -> None:
    result = changed(ANALYSIS, (old, new), after=after)
    got: object = result.config.segmentation
    for name in setting.split("."):
        got = getattr(got, name)
    assert got == value
    assert not result.of_kind("changes", "missing")


@pytest.mark.parametrize(
    ("after", "old", "new", "kind", "line"),
    [
        ("IdentifyPrimary", "Threshold strategy:Global", "Threshold strategy:Adaptive", "changes",
         "IdentifyPrimaryObjects (module 5): threshold strategy Adaptive"),
        ("IdentifyPrimary", "method:Minimum Cross-Entropy", "method:Measurement", "changes", "threshold by 'Measurement'"),
        ("IdentifyPrimary", "clumped objects:Shape", "clumped objects:Propagate", "changes", "declumping by 'Propagate'"),
        ("IdentifyPrimary", "objects identified:Continue", "objects identified:Erase", "changes", "erases all objects"),
        ("IdentifySecondary", "Watershed - Image", "Watershed - Gradient", "changes", "method by 'Watershed - Gradient'"),
        ("IdentifySecondary", "border of the image?:No", "border of the image?:Yes", "changes", "keeps their nuclei"),
        ("IdentifySecondary", "input image:RNA", "input image:OrigRNA", "changes", "cells in 'OrigRNA', not corrected"),
        ("CorrectIlluminationApply", "applied:Divide", "applied:Subtract", "changes", "Subtract 'IllumDNA'"),
        ("CorrectIlluminationCalculate", "Gaussian Filter", "Median Filter", "changes", "background by Median Filter"),
        ("CorrectIlluminationCalculate", "filter size:Manually", "filter size:Automatic", "changes", "size by Automatic"),
        ("CorrBlue", "equal to 1?:Yes", "equal to 1?:No", "changes", "does not clip"),
        ("LoadData", "Rescale intensities?:Yes", "Rescale intensities?:No", "changes", "(module 1): intensities are"),
        ("MeasureTexture", "images or objects?:Objects", "images or objects?:Both", "missing", "measures whole images"),
        ("MeasureTexture", "measure:Nuclei, Cells", "measure:Nucleoli, Cells", "missing", "'Nucleoli'"),
        ("MeasureTexture", "images to measure:DNA, ER", "images to measure:CorrBlue, ER", "missing",
         "image 'CorrBlue', made by CorrectIlluminationApply (module 4)"),
        ("MeasureTexture", "images to measure:DNA, ER", "images to measure:ER", "more", "texture is measured besides of"),
        ("MeasureObjectNeighbors", "Within a specified distance", "Expand until adjacent", "missing", "Expand until"),
        ("MeasureObjectNeighbors", "image border?:Yes", "image border?:No", "changes", "leaves out objects discarded"),
        ("MeasureObjectIntensityDistribution", "Scale the bins?:Yes", "Scale the bins?:No", "missing", "not scaled"),
        ("MeasureObjectIntensityDistribution", "center?:These objects", "center?:Edges of other objects", "missing",
         "'Nuclei' from edges of other objects"),
        ("MeasureColocalization", "Manders coefficients?:Yes", "Manders coefficients?:No", "more", "ask for manders"),
        ("ExportToSpreadsheet", "ExportToSpreadsheet", "NewPlugin", "note", "NewPlugin (module 17): is not run"),
        ("ExportToSpreadsheet", "ExportToSpreadsheet", "MeasureNewThing", "missing", "is not among the modules"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_listed(after: str, old: str, new: str, kind: str, line: str) -> None:
    result = changed(ANALYSIS, (old, new), after=f"\n{after}" if after != "CorrBlue" else after)
    lines = [str(f) for f in result.of_kind(kind)]
    assert any(line in text for text in lines), result.findings


def test_measurements_of_the_pipeline_are_the_features_here() -> None:
    result = changed(
        ANALYSIS,
        ("auto threshold?:No", "auto threshold?:Yes"),
        ("Zernike features?:Yes", "Zernike features?:No"),
        ("intensity Zernikes?:None", "intensity Zernikes?:Magnitudes and phase"),
        ("Number of bins:4", "Number of bins:7"),
        ("measure the texture at:256", "measure the texture at:64"),
        ("granular spectrum:16", "granular spectrum:8"),
    ).config.features
    assert (result.correlation.costes, result.shape.zernike, result.granularity.spectrum) == (True, False, 8)
    assert (result.radial.zernike, result.radial.bins, result.texture.levels) == ("magnitudes_and_phase", 7, 64)


def test_a_filter_by_measurement_changes_numbers() -> None:
    result = changed(PRODUCTION, ("mode:Image or mask border", "mode:Measurements"))
    assert any("filters 'Nuclei', 'Cells' by Measurements" in str(f) for f in result.of_kind("changes"))
    assert not result.config.segmentation.filter_border_nuclei


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("Median Filter", "Gaussian Filter", "CorrectIlluminationCalculate (module 3): smooths by Gaussian Filter"),
        ("All: Across cycles", "Each", "calculates Regular, from Each"),
        ("function?:Yes", "function?:Median", "rescales: Median"),
        ("filter size:Manually", "filter size:Automatic", "sizes its filter by Automatic"),
        ("averaged image?:No\n    Dilation", "averaged image?:Yes\n    Dilation", "dilates"),
        ("Resizing factor:5", "Resizing factor:4", "functions are resized by 4 after 0.2"),
        ("Bilinear", "Bicubic", "takes images that are not raw"),
    ],
)
def test_illumination_functions_of_another_kind(old: str, new: str, line: str) -> None:
    result = imported(ILLUMINATION.replace(old, new))
    assert result.sections == ("illumination",)
    assert any(line in str(f) for f in result.of_kind("changes")), result.findings


def test_channels_with_other_functions_are_listed() -> None:
    result = changed(ILLUMINATION, ("Smoothing filter size:20", "Smoothing filter size:12"))
    assert result.config.illumination.filter_size == 12  # the first channel's
    assert any("set otherwise than that of other channels" in str(f) for f in result.of_kind("changes"))


def test_names_of_a_lab_become_channels_and_compartments() -> None:
    text = ANALYSIS.replace("Cytoplasm", "Cyto").replace("Mito", "Lysosome")
    result = imported(text)
    assert result.config.plate.channels == ("DNA", "ER", "RNA", "AGP", "Lysosome")
    assert result.config.plate.stains["lysosome"] == "Lysosome"
    assert any("objects 'Cyto' are called Cytoplasm" in str(f) for f in result.of_kind("note"))
    assert "lysosome" in as_settings(result, [parse_text(text, "p.cppipe")])


def test_a_manual_intensity_range_becomes_the_scale() -> None:
    text = (PIPELINES / "cpjump1_analysis_names_and_types.cppipe").read_text(encoding="utf-8")
    assert imported(text).config.plate.scale is None
    manual = text.replace("Set intensity range from:Image metadata", "Set intensity range from:Manual")
    result = imported(manual.replace("Maximum intensity:255.0", "Maximum intensity:4095"))
    assert result.config.plate.scale == 4095.0
    assert not any("intensity range" in str(f) for f in result.findings)
    assert imported(manual).config.plate.scale == 255.0  # as it says
    result = changed(manual, ("Maximum intensity:255.0", "Maximum intensity:4095"), after="Select the rule criteria")
    assert result.config.plate.scale is None
    assert any("intensity range from 'Manual'" in str(f) for f in result.of_kind("changes"))
    result = imported(text.replace("range from:Image metadata", "range from:Image bit-depth"))
    assert result.config.plate.scale is None
    assert any("full scale from the bits" in str(f) for f in result.of_kind("note"))


def test_what_a_loaded_image_is_called_becomes_a_stain() -> None:
    """As in JUMP's pipelines: OrigBrightfield_L is BFLow once corrected."""
    text = (
        ANALYSIS.replace("OrigMito", "OrigBrightfield_L").replace("IllumMito", "IllumBrightfield_L").replace("Mito", "BFLow")
    )
    result = imported(text)
    assert result.config.plate.channels == ("DNA", "ER", "RNA", "AGP", "BFLow")
    assert result.config.plate.stains["brightfield_l"] == "BFLow"
    assert channel_of("Brightfield_L", result.config.plate.stains) == "BFLow"
    result = imported(ANALYSIS.replace("Mito", "Mito_tracker"))
    assert result.config.plate.channels[-1] == "Mitotracker"  # a column's name is cut at its underscores
    with pytest.raises(ValueError, match="is called as another channel is"):
        imported(ANALYSIS.replace("Mito", "R_N_A"))


def test_clipping_by_image_math_is_followed() -> None:
    old = (PIPELINES / "cpjump1_old.cppipe").read_text(encoding="utf-8")
    assert "ImageMath:" in old
    at = old.index("ImageMath:")
    start = old.index("Setting:", at)
    text = old[:start] + "Setting:Invert" + old[old.index("\n", start) :]
    result = imported(text)
    assert any("made by ImageMath (module 3)" in str(f) for f in result.of_kind("changes", "missing")), result.findings
    assert "ImageMath (module 3): is not done" in str(result.of_kind("note")[1])


def test_image_quality_is_read_group_by_group() -> None:
    """All methods are set but no threshold is asked for: nothing is missing of that group."""
    text = PRODUCTION.replace("Use all thresholding methods?:No", "Use all thresholding methods?:Yes")
    assert any("thresholds other than" in str(f) for f in imported(text).of_kind("missing"))
    result = imported(text.replace("Calculate thresholds?:Yes", "Calculate thresholds?:No"))
    assert not any("thresholds other than" in str(f) for f in result.of_kind("missing"))


def test_metrics_count_each_whatever_runs_all() -> None:
    """In CellProfiler "Run all metrics?" only shows or hides the others."""
    result = changed(ANALYSIS, ("Run all metrics?:No", "Run all metrics?:Yes"))
    assert not result.config.features.correlation.costes
    assert not result.of_kind("changes", "missing", "more")


def test_rows_and_volumes_are_said() -> None:
    result = changed(ANALYSIS, ("a range of rows?:No", "a range of rows?:Yes"))
    assert any("range of rows" in str(f) for f in result.of_kind("note"))
    text = (PIPELINES / "cpjump1_analysis_names_and_types.cppipe").read_text(encoding="utf-8")
    assert any("volumes" in str(f) for f in changed(text, ("Process as 3D?:No", "Process as 3D?:Yes")).of_kind("changes"))


def test_disabled_modules_are_left_out() -> None:
    at = ANALYSIS.index("\nMeasureTexture")
    text = ANALYSIS[:at] + ANALYSIS[at:].replace("enabled:True", "enabled:False", 1)
    result = imported(text)
    assert "texture" not in result.config.features.families
    assert "MeasureTexture (module 16): is disabled" in [str(f) for f in result.of_kind("note")]


def old_primary(text: str) -> str:
    at = text.index("variable_revision_number:15")
    return text[:at] + "variable_revision_number:9" + text[at + 27 :]


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "no pipeline": (lambda t: "hello", "its first line is not"),
    "empty": (lambda t: "", "its first line is not"),
    "format of the future": (lambda t: t.replace("Version:5", "Version:7"), "pipeline format 7"),
    "cut to nothing": (lambda t: t[: t.index("LoadData")], "has no modules"),
    "a thousand modules": (lambda t: t.replace("ModuleCount:17", "ModuleCount:100000"), "at most 1000 are read"),
    "count of modules": (lambda t: t.replace("ModuleCount:17", "ModuleCount:\u0663"), "expected a number"),
    "header of a module": (lambda t: t.replace("MeasureTexture:[", "Measure Texture:("), "is not a module's"),
    "no revision": (lambda t: t.replace("variable_revision_number:7", "x:7"), "has no variable_revision_number"),
    "no setting": (lambda t: t.replace("    Texture scale to measure:10", "    Texture"), "is not a setting of"),
    "old revision": (old_primary, "revision 9 of its settings is not read, 10 to 15 are"),
    "threshold's old revision": (lambda t: t.replace("version:12", "version:7", 1), "revision 7 of its threshold's"),
    "fewer settings": (lambda t: t.replace("    Texture scale to measure:10\n", ""), "has fewer settings than revision 7"),
    "endless count": (lambda t: t.replace("Hidden:3", "Hidden:99999"), "has fewer settings"),
    "odd count": (lambda t: t.replace("Hidden:3", "Hidden:-3"), "expected a count"),
    "no number": (lambda t: t.replace("(Min,Max):10,75", "(Min,Max):10,nan"), "expected 2 numbers, got '10,nan'"),
    "out of range": (lambda t: t.replace("scale to measure:10", "scale to measure:1e9"), "scales: expected a finite number"),
    "code": (lambda t: t.replace("(Min,Max):10,75", "(Min,Max):__import__('os').abort()"), "expected 2 numbers"),
    "a channel's name": (lambda t: t.replace("RNA", "../.."), "cannot name a channel"),
    "nothing to import": (lambda t: t[: t.index("\nCorrectIllum")].replace("Count:17", "Count:1"), "nothing in this"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pipelines_are_refused_in_one_line(name: str, tmp_path: Path, capsys) -> None:
    change, message = BROKEN[name]
    path = tmp_path / "p.cppipe"
    path.write_text(change(ANALYSIS), encoding="utf-8")
    assert main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89HDF\r\n\x1a\n\0\0", "a CellProfiler project (HDF5)"),
        (b"{", "not a JSON pipeline"),
        (b"[" * 100_000, "its first line is not"),
        (b'{"a":' + b"[" * 100_000, "not a JSON pipeline"),
        (b'{"version": "v6", "modules": 3}', "a list of modules"),
        (b'{"version": "v6", "modules": [{"attributes": []}]}', "module 1 is not a module"),
        (b'{"version": "v6", "modules": [1]}', "module 1 is not a module"),
        (b"\xff\xfe\x00", "its first line is not"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "p.cppipe"
    path.write_bytes(data)
    assert main([str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "p.cppipe"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 32 MiB"):
        read_pipeline(path)


def test_json_settings_must_be_text(tmp_path: Path) -> None:
    table = json.loads((PIPELINES / "jump_production_load_data.json").read_text())
    table["modules"][2]["settings"][0]["value"] = ["DNA"]
    (tmp_path / "p.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match="module 3 is not a module of a JSON pipeline"):
        read_pipeline(tmp_path / "p.json")


def test_notes_and_types_do_not_confuse_a_modules_line() -> None:
    """As older files have them: pipes and brackets in notes, `|S1` in the batch state; what stands outside counts."""
    notes = "notes:['a | b', '|enabled:False|', '[x] — |variable_revision_number:3|']|batch_state:array(b'', dtype='|S1')"
    line = next(row for row in ANALYSIS.splitlines() if row.startswith("MeasureTexture:"))
    text = ANALYSIS.replace(line, line.replace("notes:[]|batch_state:array([], dtype=uint8)", notes))
    assert text != ANALYSIS
    module = next(m for m in parse_text(text, "p").modules if m.name == "MeasureTexture")
    assert (module.revision, module.enabled) == (7, True)
    assert imported(text).config == imported(ANALYSIS).config


def test_text_of_a_pipeline_stays_text(tmp_path: Path, capsys) -> None:
    """Names with line ends, escapes for the terminal or direction marks stay in their comment and off the terminal."""
    evil = r"x\x0a[plate]\x0achannels = 3\x1b[31m\u202e"
    path = tmp_path / "p.cppipe"
    path.write_text(ANALYSIS.replace("images to measure:DNA, ER", f"images to measure:{evil}, ER"), encoding="utf-8")
    assert main([str(path)]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    written = tomllib.loads(out)
    assert written["plate"]["channels"] == ["DNA", "ER", "RNA", "AGP", "Mito", "xplatechannels331m"]
    path.write_text(ANALYSIS.replace("objects to measure:Nuclei,", f"objects to measure:{evil},"), encoding="utf-8")
    assert main([str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.count("[plate]\n") == 1
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err


def test_an_output_that_is_there_stays(tmp_path: Path, capsys) -> None:
    target = tmp_path / "lab.toml"
    target.write_text("mine")
    source = str(PIPELINES / "cpjump1_analysis_load_data.cppipe")
    assert main([source, "--output", str(target)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main([source, "--output", str(target), "--overwrite"]) == 0
    assert "[segmentation.nuclei]" in target.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab.toml"]
    assert main([str(tmp_path / "none.cppipe")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"a\x7Cb", "a|b"),
        (r"[\\/]\.", r"[\\/]\."),  # no escape in it: as it stands
        (r"\x5B\\d\x5D\.", r"[\d]\."),
        ("\\xff\\xfeD\\x00N\\x00A\\x00", "DNA"),
        ("\\xff\\xfeD\\x00N", "DN"),
        (r"h\u00e9 \x41", "hé A"),
    ],
)
def test_escapes(written: str, value: str) -> None:
    assert unescape(written) == value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_pipeline_is_refused_or_imported(data: st.DataObject) -> None:
    """Whatever line is cut, doubled or swapped: a ValueError, or a file that reads back."""
    lines = ANALYSIS.split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["cut", "double", "text", "swap"]))
        if kind == "cut":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = lines[at].partition(":")[0] + ":" + data.draw(st.text(max_size=12))
    text = "\n".join(lines)
    with contextlib.suppress(ValueError):
        pipeline = parse_text(text, "p.cppipe")
        output = import_pipelines([pipeline])
        assert build(Config, tomllib.loads(as_settings(output, [pipeline])), "") == output.config
