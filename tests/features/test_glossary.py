"""Every column is explained, and the command prints columns and explanations."""

import re

import numpy as np
import pytest

from jumpgpu import columns as command
from jumpgpu.columns import explain
from jumpgpu.features import families as features
from jumpgpu.features import image_quality as quality
from jumpgpu.features.glossary import FAMILIES
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.kernel_source import kernel_folder
from jumpgpu.settings.config import (
    Config,
    CorrelationSettings,
    FeatureSettings,
    PlateSettings,
    RadialSettings,
    ShapeSettings,
)
from jumpgpu.settings.names import BRIGHTFIELD, CHANNELS
from tests.features.test_columns import CONFIGS
from tests.helpers.scenes import drawn_labels, drawn_scene


def test_all_columns_are_explained() -> None:
    every = (CONFIGS / "columns_8_channels.txt").read_text().split()
    assert len(every) == 5792
    used = set()
    for column in every:
        result = explain(column)
        assert result.column == column
        assert all(vars(result).values()), result
        used.add((result.family, result.parts.split(";")[0]))
    wide = FeatureSettings(
        shape=ShapeSettings(advanced=True, convex_area=True),
        correlation=CorrelationSettings(costes=True),
        radial=RadialSettings(zernike="magnitudes_and_phase"),
    )
    for column in features.columns(channels=CHANNELS + BRIGHTFIELD, settings=wide):
        used.add((explain(column).family, explain(column).parts.split(";")[0]))
    for column in quality.columns(CHANNELS):
        used.add((explain(column).family, explain(column).parts.split(";")[0]))
    places = {(f, m): family.place(m) for f, family in FAMILIES.items() for m in family.measures}
    lines = {key: kernel_line(place) for key, place in places.items() if place.startswith("kernels/")}
    named = {m for (_, m), line in lines.items() if m and re.search(rf"\b{m}\b", line)}
    assert len(named) >= 85, "the kernels name these measures where they compute them"
    stale = [(f, m) for f, family in FAMILIES.items() for m in family.measures if m and (f, m) not in used]
    assert not stale, "these measures are no column's"


def kernel_line(place: str) -> str:
    """The line of a kernel file that `kernels/features/X.cu:N` names."""
    file, _, number = place.partition(":")
    return (kernel_folder().parent / file).read_text().splitlines()[int(number) - 1]


def test_nan_rules_hold_for_objects_without_pixels(device: Device) -> None:
    batch = drawn_scene(device, drawn_labels())
    table = features.measure_batch(batch, FeatureSettings(), device).numpy()
    o = batch.objects
    empty = dict(zip(o.compartments, (o.stop == o.start).numpy().reshape(len(o.compartments), o.n), strict=True))
    assert empty["Cytoplasm"].any()
    assert empty["Nuclei"].any()
    for column, values in zip(features.columns(channels=CHANNELS), table.T, strict=True):
        without = values[empty[column.split("_", 1)[0]]]
        said = explain(column).nan
        assert np.isnan(without).all() == said.startswith("nan") or not without.size, f"{column}: {without}, but {said!r}"


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    assert capsys.readouterr().out.split() == (CONFIGS / "columns.txt").read_text().split()
    assert command.main(["--channels", "GFP", "--compartments", "Blobs"]) == 0
    assert "Blobs_Intensity_MeanIntensity_GFP" in capsys.readouterr().out.split()
    asked = ["--explain", "Cells_Texture_Contrast_RNA_5_02_256", "Blobs_RadialDistribution_FracAtD_My_dye_1of4"]
    assert command.main(asked) == 2
    assert "'My_dye' is not a channel of this configuration" in capsys.readouterr().err
    assert command.main([*asked, "--channels", "RNA", "My_dye"]) == 0
    out = capsys.readouterr().out
    assert "MeasureTexture" in out
    assert "channel: My_dye" in out


@pytest.mark.parametrize(
    "name",
    [
        "Cells_Texture_Contrast_RNA_5_07_256",
        "Cells",
        "Cells_Colour_Hue_RNA",
        "_Number_Object_Number",
        "Cells_ImageQuality_FocusScore_DNA",
        "Image_ImageQuality_LocalFocusScore_DNA",
    ],
)
def test_names_that_are_no_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--explain", name]) == 2
    assert f"{name!r} is not a column" in capsys.readouterr().err


def test_image_quality_is_explained() -> None:
    channels = Config(plate=PlateSettings(channels=("DNA", "My_dye_5"), stains={"My_dye_5": "dye"}))
    result = explain("Image_ImageQuality_LocalFocusScore_My_dye_5_20", channels)
    assert "channel: My_dye_5" in result.parts
    assert "scale: 20" in result.parts
    assert "MeasureImageQuality, of illumination-corrected pixels" in result.source
    column = "Image_ImageQuality_ThresholdOtsu_DNA_2W"
    assert explain(column).produced.startswith("not by this configuration")
    assert explain(column, Config(features=FeatureSettings(image_quality=True))).produced == "yes"


@pytest.mark.parametrize(
    ("column", "parts", "produced"),
    [
        ("Cells_Texture_Contrast_RNA_5_02_256", "grey levels: 256", True),
        ("Cells_Texture_Contrast_RNA_5_02_16", "grey levels: 16", False),
        ("Cells_Texture_Contrast_RNA_7_02_256", "scale: 7", False),
        ("Cells_Neighbors_NumberOfNeighbors_5", "(Adjacent is 1): 5", True),
        ("Cells_Neighbors_NumberOfNeighbors_12", "(Adjacent is 1): 12", False),
        ("Nuclei_RadialDistribution_FracAtD_RNA_3of4", "ring (1 is the innermost): 3", True),
        ("Nuclei_RadialDistribution_FracAtD_RNA_3of8", "to its edge: 8", False),
        ("Nuclei_Intensity_MeanIntensity_HighZBF", "channel: HighZBF", False),
    ],
)
def test_a_name_has_its_own_parameters(column: str, parts: str, produced: bool) -> None:
    assert parts in explain(column).parts
    assert (explain(column).produced == "yes") == produced
