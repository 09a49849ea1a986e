"""Modules beyond Cell Painting's own: what is read of them, and what is refused by name."""

from typing import Any

import pytest

from jumpgpu.cellprofiler.findings import Translated
from jumpgpu.cellprofiler.parse import parse_text
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.settings import object_steps
from jumpgpu.settings import steps as kinds

from .test_translate import text_of

OVERLAP = ["Nuclei", "Cells", "No", "250", "K Means", "250", "No"]
COLOURS = [
    "1",
    "1",
    "1",
    "Yes",
    "Red1",
    "No",
    "Green1",
    "Yes",
    "Blue1",
    *("Yes", "H", "Yes", "S", "Yes", "V"),
    "1",
    "1",
    "1",
    "P1",
]
MERGE = ["Cells", "New", "Merge", "5", "No", "None", "0.9", "Closest point", "Distance", "None", "Disconnected"]
WATERSHED = ["DNA", "New", "No", "Markers", "RNA", "Leave blank", "1", "0.0", "8", "1"]
FILTER = ["Cells", "New", "Measurements", "Maximal per object", "Nuclei", "Elsewhere...|", "rules.txt", "1", "1", "0"]
FILTER += ["Parent with most overlap", "No", "Gone", "AreaShape_Area", "Yes", "0", "Yes", "1", "No"]


def appended(name: str, revision: int, values: list[str]) -> Translated:
    """CPJUMP1's analysis with one module more."""
    header = f"{name}:[module_num:20|svn_version:'Unknown'|variable_revision_number:{revision}|enabled:True]"
    block = "\n".join([header, *(f"    s{i}:{v}" for i, v in enumerate(values))])
    return translate([parse_text(f"{text_of('cpjump1_analysis_load_data.cppipe')}\n{block}\n", "lab.cppipe")])


STEPS: dict[str, tuple[str, int, list[str], type[kinds.Step], dict[str, Any]]] = {
    "resized by a factor": (
        "ResizeObjects", 2, ["Cells", "New", "Factor", "2", "100", "50", "None"],
        object_steps.ResizeObjects, {"factor_y": 2.0, "factor_x": 2.0, "height": 0},
    ),
    "resized to a size": (
        "ResizeObjects", 1, ["Cells", "New", "Dimensions", "3", "100", "50"],
        object_steps.ResizeObjects, {"factor_y": 0.0, "height": 50, "width": 100},
    ),
    "merged": ("SplitOrMergeObjects", 6, MERGE, object_steps.Regroup, {"method": "merge", "distance": 5, "image": ""}),
    "once unified, with outlines": (
        "ReassignObjectNumbers", 4, ["Cells", "New", "Unify", *MERGE[3:8], "No", "Outlines", *MERGE[8:]],
        object_steps.Regroup, {"method": "merge", "distance": 5},
    ),
    "merged by parent": (
        "SplitOrMergeObjects", 6, [*MERGE[:8], "Per-parent", "Nuclei", "Disconnected"],
        object_steps.Regroup, {"method": "parent", "parent": "Nuclei", "hull": False},
    ),
    "from markers": ("Watershed", 3, WATERSHED, object_steps.Watershed, {"markers": "RNA", "corners": False}),
    "the largest of each": (
        "FilterObjects", 10, FILTER, kinds.Filter, {"keep": "maximal", "enclosing": "Nuclei", "most_overlap": True},
    ),
    "overlap": ("MeasureObjectOverlap", 2, OVERLAP, object_steps.MeasureOverlap, {"truth": "Nuclei", "of": "objects"}),
    "a skeleton": ("MeasureImageSkeleton", 1, ["DNA"], object_steps.MeasureImageSkeleton, {"image": "DNA"}),
    "neighbours of another kind": (
        "MeasureObjectNeighbors", 2, ["Cells", "Nuclei", "Adjacent", "5", "No", "a", "b", "No", "c", "d"],
        kinds.MeasureNeighbors, {"objects": "Cells", "among": "Nuclei"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_steps(name: str) -> None:
    module, revision, values, kind, expected = STEPS[name]
    imported = appended(module, revision, values)
    assert imported.verdict == {"labels": "equal", "columns": "equal", "image_tables": "equal"}
    step = [s for s in imported.steps if isinstance(s, kind)][-1]
    assert {k: getattr(step, k) for k in expected} == expected


REFUSED: dict[str, tuple[str, int, list[str], str]] = {
    "a parent that is none": (
        "SplitOrMergeObjects", 6, [*MERGE[:8], "Per-parent", "Cytoplasm", "Disconnected"], "'Cytoplasm', which is no parent",
    ),
    "lines between basins": ("Watershed", 3, [*WATERSHED, "Yes"], "lines between basins"),
    "advanced settings": ("Watershed", 3, ["DNA", "New", "Yes", *WATERSHED[3:]], "advanced settings"),
    "a measurement that there is not": (
        "FilterObjects", 10, [v.replace("AreaShape_Area", "Texture_X") for v in FILTER], "'Texture_X', which is not",
    ),
    "by rules": (
        "FilterObjects", 10, [v.replace("Measurements", "Rules") for v in FILTER], "filters by Rules",
    ),
    "a factor without an image": ("ResizeObjects", 2, ["Cells", "New", "Factor", "0", "1", "1", "None"], "factors 0 and 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    module, revision, values, said = REFUSED[name]
    imported = appended(module, revision, values)
    assert imported.verdict["labels"] == "refused"
    assert imported.missing == ("New",)
    assert any(said in f.text for f in imported.of_level("labels"))


def test_earth_movers_distance_is_said_to_be_missing() -> None:
    imported = appended("MeasureObjectOverlap", 2, ["Nuclei", "Cells", "Yes", *OVERLAP[3:]])
    assert imported.verdict == {"labels": "equal", "columns": "equal", "image_tables": "missing"}


def test_noise_reduction_is_refused() -> None:
    """scikit-image computes it otherwise since 0.19: 2.5 % of a drawn image's values."""
    text = text_of("cpjump1_analysis_load_data.cppipe")
    at = text.index("MeasureObjectIntensity:")
    header = "ReduceNoise:[module_num:1|variable_revision_number:1|enabled:True]"
    block = "\n".join([header, *(f"    s{i}:{v}" for i, v in enumerate(("DNA", "DNA2", "7", "11", "0.1")))])
    rest = text[at:].replace("Select images to measure:", "Select images to measure:DNA2, ", 1)
    imported = translate([parse_text(f"{text[:at]}{block}\n\n{rest}", "lab.cppipe")])
    assert imported.verdict["columns"] == "missing"
    assert any("non-local means" in f.text for f in imported.of_level("columns"))


def test_planes_of_a_colour_image_are_channels_of_their_own() -> None:
    imported = appended("ColorToGray", 4, ["OrigColor", "Split", "RGB", "Gray", *COLOURS])
    loaded = {s.image: s.channel for s in imported.steps if isinstance(s, kinds.Load)}
    assert "Red1" not in loaded  # nothing needs it
    assert any("Red as ColorRed, Blue as ColorBlue" in f.text for f in imported.of_level("note"))


def test_colours_of_an_image_that_is_grey_elsewhere() -> None:
    imported = appended("ColorToGray", 4, ["DNA", "Combine", "RGB", "Gray", *COLOURS])
    assert not any(isinstance(s, kinds.GrayOfColors) for s in imported.steps)
