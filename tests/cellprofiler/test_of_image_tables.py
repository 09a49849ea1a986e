"""Modules that measure whole images, as steps: what each setting means, and what cannot be honoured is said by name."""

import math

import pytest

from jumpgpu.cellprofiler.of_image_tables import functions_beside
from jumpgpu.cellprofiler.parse import parse_text
from jumpgpu.cellprofiler.translate import Translated, translate
from jumpgpu.settings import steps as kinds
from jumpgpu.settings import table_steps

HEADER = "CellProfiler Pipeline: http://www.cellprofiler.org\nVersion:5\nDateRevision:428\n\n"
LOAD = "LoadData:[module_num:1|variable_revision_number:6|enabled:True]\n    Rescale intensities?:Yes\n\n"


def module(name: str, revision: int, values: list[str]) -> str:
    lines = "".join(f"    Setting {i}:{v}\n" for i, v in enumerate(values))
    return f"{name}:[module_num:1|variable_revision_number:{revision}|enabled:True]\n{lines}\n"


def imported(*modules: str) -> Translated:
    return translate([parse_text(HEADER + LOAD + "".join(modules), "lab.cppipe")])


NUCLEI = module(
    "IdentifyPrimaryObjects",
    15,
    [
        *("DNA", "Nuclei", "10,40", "Yes", "Yes", "Intensity", "Intensity", "10", "7", "Yes", "Never", "Yes", "Yes"),
        *("Continue", "500", "No", "12", "Global", "Minimum Cross-Entropy", "1.3488", "1", "0,1", "0", "None"),
        *("Two classes", "No", "Foreground", "50", "0.05", "0.05", "Mean", "Standard deviation", "2"),
        "Minimum Cross-Entropy",
    ],
)
MASK = module("MaskImage", 3, ["DNA", "Masked", "Objects", "Nuclei", "None", "No"])
QUALITY = [
    *("Select...", "1", "2", "3", "DNA, RNA", "Yes", "Yes", "10", "20", "Yes", "No", "Yes", "No"),
    *("Otsu", "0.1", "Three classes", "Entropy", "Background"),
    *("MoG", "0.25", "Two classes", "Weighted variance", "Foreground"),
    *("Kapur", "0.1", "Two classes", "Weighted variance", "Foreground"),
]


def only(result: Translated, kind: type) -> list:
    return [s for s in result.steps if isinstance(s, kind)]


def test_quality() -> None:
    (step,) = only(imported(module("MeasureImageQuality", 6, QUALITY)), table_steps.MeasureImageQuality)
    assert (step.images, step.scaling, step.scales) == (("DNA", "RNA"), True, (10, 20))
    assert (step.saturation, step.intensity) == (True, False)
    assert step.thresholds == ("Otsu_3BS", "MoG_25", "Kapur")


def test_quality_by_every_method() -> None:
    (step,) = only(
        imported(module("MeasureImageQuality", 6, [*QUALITY[:12], "Yes", *QUALITY[13:]])), table_steps.MeasureImageQuality
    )
    assert len(step.thresholds) == 15
    assert {"Otsu_2S", "MoG_95", "MCT"} <= set(step.thresholds)


def test_all_loaded_images_are_those_that_later_modules_use() -> None:
    quality = module("MeasureImageQuality", 6, ["All loaded images", *QUALITY[1:4], "", *QUALITY[5:]])
    result = imported(quality, NUCLEI, module("MeasureImageIntensity", 4, ["ER", "No", "", "No", "10,90"]))
    (step,) = only(result, table_steps.MeasureImageQuality)
    assert step.images == ("DNA", "ER")
    assert [s.image for s in only(result, kinds.Load)] == ["DNA", "ER"]
    assert result.verdict["image_tables"] == "equal"
    assert any("one that no other module uses is not loaded" in f.text for f in result.of_level("note"))


def test_a_function_that_is_loaded_beside_the_others_is_said_to_be_unmeasured() -> None:
    def loads(*functions: str) -> list[kinds.Load]:
        return [kinds.Load(f"Orig{c}", c) for c in ("DNA", "ER")] + [kinds.Load(f, "DNA", function=True) for f in functions]

    assert functions_beside(loads("IllumDNA")) == ["IllumER"]
    assert (
        functions_beside(loads("IllumDNA", "IllumER")) == functions_beside(loads()) == functions_beside(loads("Flat")) == []
    )


@pytest.mark.parametrize(
    ("revision", "values", "steps"),
    [
        (4, ["DNA, ER", "No", "Nuclei", "Yes", "90, 10,x,10"], [("DNA", (), (10, 90)), ("ER", (), (10, 90))]),
        (4, ["DNA", "Yes", "Nuclei", "No", "10"], [("DNA", ("Nuclei",), ())]),
        (3, ["DNA, ER", "No", ""], [("DNA", (), ()), ("ER", (), ())]),
        (2, ["DNA", "No", "None", "ER", "No", "None"], [("DNA", (), ()), ("ER", (), ())]),
        # of two runs CellProfiler 4 makes one, of both images within the objects
        (2, ["DNA", "No", "None", "ER", "Yes", "Nuclei"], [("DNA", ("Nuclei",), ()), ("ER", ("Nuclei",), ())]),
    ],
)
def test_intensity(revision: int, values: list[str], steps: list) -> None:
    result = imported(NUCLEI, module("MeasureImageIntensity", revision, values))
    translated = [(s.image, s.objects, s.percentiles) for s in only(result, kinds.MeasureImageIntensity)]
    assert translated == steps


def test_whole_images_beside_objects() -> None:
    result = imported(
        NUCLEI,
        module("MeasureTexture", 7, ["DNA, ER", "Nuclei", "64", "2", "Both", "3", "5"]),
        module("MeasureTexture", 7, ["ER", "Nuclei", "256", "1", "Images", "7"]),
        module("MeasureGranularity", 4, ["DNA", "No", "Nuclei", "0.25", "0.5", "12", "4"]),
        module(
            "MeasureColocalization",
            5,
            ["DNA, ER", "20.0", "Across entire image", "None", "No", "Yes", "No", "No", "Yes", "No", "Faster"],
        ),
    )
    first, second = only(result, table_steps.MeasureImageTexture)
    assert (first.images, first.scales, first.levels) == (("DNA", "ER"), (3, 5), 64)
    assert (second.images, second.scales) == (("ER",), (7,))
    assert [s.scales for s in only(result, kinds.MeasureTexture)] == [(3, 5)]
    (granular,) = only(result, table_steps.MeasureImageGranularity)
    assert (granular.background_subsampling, granular.radius, granular.spectrum) == (0.5, 12, 4)
    assert not only(result, kinds.MeasureGranularity)
    (pairs,) = only(result, table_steps.MeasureImageCorrelation)
    assert (pairs.threshold, pairs.metrics) == (20.0, ("correlation", "overlap"))
    assert result.verdict["image_tables"] == "equal"


@pytest.mark.parametrize(
    ("revision", "values"),
    [
        (5, ["Both", "Mask", "Nuclei"]),
        (4, ["2", "Objects", "Nuclei", "None", "Binary Image", "None", "Mask"]),
    ],
)
def test_area(revision: int, values: list[str]) -> None:
    mask = module("ConvertObjectsToImage", 1, ["Nuclei", "Mask", "Binary (black & white)", "Default"])
    result = imported(NUCLEI, mask, module("MeasureImageAreaOccupied", revision, values))
    (step,) = only(result, table_steps.MeasureAreaOccupied)
    assert (step.objects, step.images) == (("Nuclei",), ("Mask",))


def test_what_masked_images_cannot_be_measured_for_is_said() -> None:
    result = imported(
        NUCLEI,
        MASK,
        module("MeasureImageQuality", 6, [*QUALITY[:4], "Masked", *QUALITY[5:]]),
        module("MeasureGranularity", 4, ["Masked", "No", "", "0.25", "0.25", "10", "16"]),
        module("MeasureImageIntensity", 4, ["Masked", "No", "", "No", ""]),
    )
    assert [f.module for f in result.of_level("image tables")] == ["MeasureImageQuality", "MeasureGranularity"]
    assert all("'Masked'" in f.text for f in result.of_level("image tables"))
    assert [s.image for s in only(result, kinds.MeasureImageIntensity)] == ["Masked"]


def flag(measurements: list[list[str]], skip: str = "No", linked: str = "Flag if any fail") -> str:
    values = ["1", str(len(measurements)), "Metadata", "QCFlag", linked, skip]
    for m in measurements:
        values += [*m, "None", "rules.txt", "1", "No"]
    return module("FlagImage", 5, [*values, "No"])


SATURATED = ["Whole-image measurement", "None", "ImageQuality_PercentMaximal_DNA", "No", "0", "Yes", "1.5"]


def test_flags() -> None:
    mean = ["Average measurement for all objects in each image", "Nuclei", "Location_Center_X", "Yes", "3", "No", "0"]
    result = imported(module("MeasureImageQuality", 6, QUALITY), NUCLEI, flag([SATURATED, mean], "Yes", "Flag if all fail"))
    (step,) = only(result, table_steps.Flag)
    assert step.name == "Metadata_QCFlag"
    assert (step.sources, step.objects) == (("image", "average"), ("", "Nuclei"))
    assert (step.lowest, step.highest) == ((-math.inf, 3.0), (1.5, math.inf))
    assert (step.any, step.skip) == (False, True)


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (["Rules", *SATURATED[1:]], "'Rules', whose file is not read"),
        (["Whole-image measurement", "None", "Metadata_Row", *SATURATED[3:]], "'Metadata_Row', which is not measured"),
    ],
)
@pytest.mark.parametrize(("skip", "level"), [("Yes", "labels"), ("No", "image tables")])
def test_a_flag_that_cannot_be_honoured_is_said(measurement: list[str], said: str, skip: str, level: str) -> None:
    result = imported(module("MeasureImageQuality", 6, QUALITY), NUCLEI, flag([measurement], skip))
    assert not only(result, table_steps.Flag)
    (finding,) = result.of_level(level)
    assert said in finding.text
    assert "'Metadata_QCFlag'" in finding.text


def test_an_image_that_only_a_flag_names_is_loaded() -> None:
    quality = module("MeasureImageQuality", 6, ["All loaded images", *QUALITY[1:4], "", *QUALITY[5:]])
    result = imported(quality, NUCLEI, flag([[*SATURATED[:2], "ImageQuality_PercentMaximal_DIC", *SATURATED[3:]]], "Yes"))
    assert "DIC" in [s.image for s in only(result, kinds.Load)]
    assert result.verdict["labels"] == "equal"


def test_images_that_rules_name_are_loaded_though_nothing_else_uses_them() -> None:
    rules = "NamesAndTypes:[module_num:2|variable_revision_number:8|enabled:True]\n"
    for i, name in enumerate(("single", "DNA", "DIC", "Loaded")):
        objects = "" if i == 0 else "    Name to assign these objects:Cells\n"
        kind = "Objects" if name == "Loaded" else "Grayscale image"
        rules += f"    Name to assign these images:{name}\n{objects}    Select the image type:{kind}\n"
    quality = module("MeasureImageQuality", 6, ["All loaded images", *QUALITY[1:4], "", *QUALITY[5:]])
    result = imported(rules + "\n", quality, NUCLEI)
    assert not result.of_level("image tables")
    (step,) = only(result, table_steps.MeasureImageQuality)
    assert step.images == ("DNA", "DIC")
    assert [s.image for s in only(result, kinds.Load)] == ["CellsObjects", "DNA", "DIC"]
    assert "Cells" in result.objects


def test_area_of_sets_derived_from_a_masked_image_is_said_to_be_missing() -> None:
    mask = module("MaskImage", 3, ["DNA", "Masked", "Image", "None", "Binary", "No"])
    settings = NUCLEI.replace(":DNA", ":Masked")
    grown = module("ExpandOrShrinkObjects", 2, ["Nuclei", "Wide", "Expand objects by a specified number of pixels", "3"])
    result = imported(mask, settings, grown, module("MeasureImageAreaOccupied", 5, ["Objects", "", "Nuclei, Wide"]))
    (step,) = only(result, table_steps.MeasureAreaOccupied)
    assert step.objects == ("Nuclei",)
    assert [f.text for f in result.of_level("image tables")] == [
        "objects 'Wide' come of a masked image; their area is not measured"
    ]
