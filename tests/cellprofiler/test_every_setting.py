"""Every setting of every imported module is read: changed, it changes the steps or what is said, or it is named here.

A setting counts as read where a change of it makes a difference in one of the public pipelines, or in tests' own. What makes
none in any of them is listed with the reason; a setting that the importer should read and does not is in neither.
"""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jumpgpu.cellprofiler.parse import Module, Pipeline, read_pipeline
from jumpgpu.cellprofiler.settings import ONCE
from jumpgpu.cellprofiler.translate import HANDLERS, LOADING, read, translate

HERE = Path(__file__).parent
PUBLIC = Path(__file__).resolve().parents[3] / "shared/data/pipelines"
INSTANCES = 10  # of a setting that are tried
# What makes no difference in these pipelines: module and revision, settings, and why.
IRRELEVANT = (
    (r".*", (r"(Retain|Name the) .*outlines?.*",), "outlines are drawn for people"),
    (
        r".*",
        (
            r"(Retain|Save).*image.*",
            r"Name the (output|branchpoint) image",
            r"Enter the image name",
        ),
        "a picture for people; a module that takes it is told that it is not made",
    ),
    (
        r".*",
        (
            r"Select (the |a )?colormap",
            r"Select maxima color",
            r"Display accepted.*",
            r"Measurement",
        ),
        "how something is shown",
    ),
    (
        r"(Identify\w+|Threshold) \d+",
        (
            r"Manual threshold",
            r"# of deviations",
            r"(Averaging|Variance) method",
            r"(Lower|Upper) outlier fraction",
            r"Select the measurement to threshold with",
            r"Size of adaptive window",
            r"Method to calculate adaptive window size",
            r"Two-class.*",
            r"Assign pixels in the middle.*",
            r"Threshold smoothing scale",
        ),
        "of another threshold's method",
    ),
    (
        r"(Identify\w+|Threshold) \d+",
        (
            r"Masking objects",
            r"Select binary image",
            r"Approximate fraction.*",
            r"Use default parameters\?",
            r"Minimize the.*",
            r".*Laplacian of Gaussian.*",
            r"Enter LoG.*",
            r"Automatically calculate the threshold using the Otsu.*",
            r"Try to merge.*",
        ),
        "methods that CellProfiler 4 has no more",
    ),
    (
        r"Threshold 7",
        (
            r"Lower and upper.*",
            r"Select the smoothing.*",
            r"Threshold correction.*",
            r"Thresholding method",
        ),
        "of an automatic one",
    ),
    (
        r"Threshold 7",
        (
            r"Number of pixels by which to expand.*",
            r"Select the output image type",
            r"Set pixels.*",
            r"Subtract the threshold.*",
        ),
        "CellProfiler 4 makes a binary image of any",
    ),
    (r"IdentifyPrimaryObjects \d+", (r"Maximum number of objects",), "only where too many are erased"),
    (
        r"IdentifySecondaryObjects \d+",
        (
            r"Discard the associated.*",
            r"Name the new primary objects",
            r"Number of pixels by which.*",
        ),
        "only with Distance, or where cells at the border are discarded",
    ),
    (
        r"FilterObjects \d+",
        (
            r"Allow fuzzy.*",
            r"Class number",
            r"Rules or classifier.*",
            r"Select the location.*",
            r"Assign overlapping.*",
            r"Select the objects that contain.*",
        ),
        "of rules, a classifier or a parent, which are refused",
    ),
    (
        r"FilterObjects \d+",
        (
            r"Filter using.*",
            r"M(in|ax)imum value",
            r"Select the (filtering method|measurement to filter by)",
            r"Name the objects removed.*",
        ),
        "not of those at the border",
    ),
    (
        r"FlagImage \d+",
        (
            r"Allow fuzzy.*",
            r"Class number",
            r"Rules file.*",
            r"Select the object to be used.*",
        ),
        "of rules, or of objects",
    ),
    (
        r"ClassifyObjects \d+",
        (
            r"Enter the (custom|cutoff|high|low).*",
            r"Method to select the cutoff",
            r"Select the (first|second) measurement",
            r"Select the object name",
            r"Use custom names.*",
        ),
        "of custom bins, or of two measurements, which are refused",
    ),
    (
        r"CorrectIlluminationCalculate 2",
        (
            r"Approximate object.*",
            r"Automatically calculate spline.*",
            r"Background (mode|threshold)",
            r"Dilation radius",
            r"Image resampling.*",
            r"Maximum number of iter.*",
            r"Method to calculate smoothing.*",
            r"Name the (averaged|dilated) image",
            r"Number of spline.*",
            r"Residual value.*",
        ),
        "of another method of smoothing",
    ),
    (
        r"Crop 3",
        (
            r"Apply which.*",
            r"Coordinates of ellipse.*",
            r"Ellipse radius.*",
            r"Select the (masking image|objects)",
        ),
        "of another shape, or drawn with a mouse, which is refused",
    ),
    (
        r"EnhanceOrSuppressFeatures \d+",
        (
            r"Enhancement method",
            r"Select the operation",
            r"Speed and accuracy",
        ),
        "nothing takes the image",
    ),
    (r"CalculateMath 3", (r"Enter the (lower|upper) bound",), "of another choice in the same module"),
    (r"ExpandOrShrinkObjects 2", (r"Fill holes.*",), "of another choice in the same module"),
    (r"MaskImage 3", (r"Select image for mask",), "of another choice in the same module"),
    (
        r"RelateObjects \d",
        (
            r"Calculate distances to other.*",
            r"Parent name",
        ),
        "of another choice in the same module",
    ),
    (
        r"Smooth 2",
        (
            r"Edge intensity.*",
            r"Typical artifact.*",
        ),
        "of another choice in the same module",
    ),
    (r"RescaleIntensity 3", (r".*",), "of another choice in the same module"),
    (r"Morph 4", (r"(Number of times|Repetition|Rescale).*",), "of another choice in the same module"),
    (
        r"Morph 4",
        (
            r"Angle",
            r"Custom",
            r"Diameter",
            r"Height",
            r"Width",
            r"Structuring element",
            r"[XY] offset",
        ),
        "of operations that are no more",
    ),
    (
        r"MeasureColocalization 3",
        (
            r"Calculate.*",
            r"Run all metrics\?",
        ),
        "all are measured",
    ),
    (
        r"MeasureImage(AreaOccupied|Intensity|Quality) \d",
        (
            r"Select.*",
            r"Specify percent.*",
            r"Typical fraction.*",
            r"Assign pixels.*",
        ),
        "of another choice in the same module",
    ),
    (
        r"MeasureObjectIntensityDistribution \d",
        (
            r"Maximum radius",
            r"Select objects to use as centers",
        ),
        "of rings that are not scaled",
    ),
    (
        r"MeasureObjectSkeleton 3",
        (
            r"Edge file.*",
            r"Export the.*",
            r"File output.*",
            r"Intensity image",
            r"Vertex file.*",
        ),
        "a table of branches",
    ),
    (
        r"MeasureTexture \d",
        (
            r"Angles.*",
            r"Measure Gabor.*",
            r"Number of angles.*",
        ),
        "CellProfiler 4 measures all angles, and no Gabor",
    ),
    (
        r"Resize 5",
        (
            r"# of planes.*",
            r"Height.*",
            r"Method to specify.*",
            r"Select the image.*",
            r"Width.*",
            r"Z Resizing.*",
        ),
        "of another way to size",
    ),
    (r"(Images|Metadata|NamesAndTypes|Groups|LoadData) \d+", (r".*",), "where the images are: test_sources.py"),
    (r"MeasureObjectNeighbors \d", (r".*colormap",), "how something is shown"),
)


def outcome(pipeline: Pipeline) -> Any:
    try:
        result = translate([pipeline])
        return read(pipeline).steps, result.function_steps, result.findings, result.source
    except ValueError as error:
        return str(error)


def pipelines() -> list[Pipeline]:
    return [
        read_pipeline(p)
        for p in sorted([*(HERE / "pipelines").glob("*.cppipe"), *PUBLIC.glob("*.cppipe"), *PUBLIC.glob("*.cpproj")])
    ]


def others(value: str, known: list[str]) -> list[str]:
    """Values that a setting might have instead."""
    if value in ("Yes", "No"):
        return ["No" if value == "Yes" else "Yes"]
    if re.fullmatch(r"\d+", value):
        return [str(int(value) + 1), *known[:2]]
    if re.fullmatch(r"\d*\.\d*", value) and value != ".":
        return [str(float(value) * 2 + 1), str(float(value) / 2), *known[:2]]
    return [*known[:3], "Something new"]


def changed(pipeline: Pipeline, at: int, setting: int, value: str) -> Pipeline:
    module = pipeline.modules[at]
    settings = list(module.settings)
    settings[setting] = settings[setting][0], value
    modules = list(pipeline.modules)
    modules[at] = replace(module, settings=tuple(settings))
    return replace(pipeline, modules=tuple(modules))


def name_of(module: Module, text: str) -> str:
    return f"{ONCE.get(module.name, module.name)} {module.revision}|{text}"


def ignored(every: list[Pipeline]) -> set[str]:
    """Settings of which no change makes a difference."""
    places, values = defaultdict(list), defaultdict(dict)
    for p, pipeline in enumerate(every):
        for m, module in enumerate(pipeline.modules):
            if module.enabled and (ONCE.get(module.name, module.name) in HANDLERS or module.name in LOADING):
                for s, (text, value) in enumerate(module.settings):
                    places[name_of(module, text)].append((p, m, s))
                    values[module.name, text][value] = None
    before = [outcome(pipeline) for pipeline in every]

    def matters(p: int, m: int, s: int) -> bool:
        text, value = every[p].modules[m].settings[s]
        known = [v for v in values[every[p].modules[m].name, text] if v != value]
        return any(outcome(changed(every[p], m, s, other)) != before[p] for other in others(value, known))

    return {name for name, at in places.items() if not any(matters(*place) for place in at[:: max(1, len(at) // INSTANCES)])}


@pytest.mark.slow
@pytest.mark.skipif(not PUBLIC.is_dir(), reason="no ../shared/data/pipelines")
def test_every_setting_is_read_or_named() -> None:
    result = ignored(pipelines())
    patterns = [rf"{module}\|{setting}" for module, settings, _ in IRRELEVANT for setting in settings]
    unknown = sorted(name for name in result if not any(re.fullmatch(pattern, name) for pattern in patterns))
    assert not unknown, "\n".join(unknown)
    unused = [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in result)]
    assert not unused, "\n".join(unused)


def test_a_setting_that_is_not_read_is_found() -> None:
    one = read_pipeline(HERE / "pipelines/cpjump1_analysis_load_data.cppipe")
    module = next(m for m in one.modules if m.name == "MeasureObjectSizeShape")
    extra = replace(module, settings=(*module.settings, ("A new setting?", "No")))
    modules = tuple(extra if m is module else m for m in one.modules)
    assert name_of(module, "A new setting?") in ignored([replace(one, modules=modules)])
