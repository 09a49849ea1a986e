"""Steps that measure whole images: names and values beside NumPy's, flags, and a site that a flag ends."""

import math

import numpy as np
import pytest
import torch
from skimage.measure import perimeter

from jumpgpu.gpu.device import Device
from jumpgpu.settings import steps as kinds
from jumpgpu.settings import table_steps
from jumpgpu.settings.config import PrimarySettings, ThresholdSettings
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import State

SIZE = (90, 120)
NUCLEI = kinds.Primary(
    "DNA",
    "Nuclei",
    PrimarySettings(
        background=None,
        threshold=ThresholdSettings("manual", manual=0.02),
        min_diameter=4,
        max_diameter=60,
        discard_border=False,
        declump="none",
        dividing_lines="none",
        fill_holes="never",
    ),
)


def drawn() -> np.ndarray:
    """float32 [H, W]: four disks, one of them at the border, on noise."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.random.default_rng(1).integers(100, 300, SIZE)
    for cy, cx, r in ((20, 20, 8), (60, 30, 11), (0, 70, 9), (50, 90, 10)):
        image[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] += 6000
    return (image / 65535).astype(np.float32)


def run(steps: list[kinds.Step], device: Device, **options: float) -> State:
    pixels = device.tensor(torch.from_numpy(drawn()))[None]
    return run_steps([kinds.Load("DNA", "DNA"), NUCLEI, *steps], {"DNA": pixels}, {}, device, **options)


def test_intensity_within_objects_adds_their_names(device: Device) -> None:
    state = run([kinds.Tertiary("Nuclei", "Nuclei", "Rims"), kinds.MeasureImageIntensity("DNA", ("Nuclei", "Rims"))], device)
    image = drawn()
    for name, objects in (("DNA_Nuclei", "Nuclei"), ("DNA_Nuclei_Rims", "Rims")):
        inside = image[state.objects[objects].labels[0].cpu().numpy() > 0].astype(float)
        assert state.image_measured[f"Intensity_TotalIntensity_{name}"].item() == pytest.approx(inside.sum())
        assert state.image_measured[f"Intensity_TotalArea_{name}"].item() == inside.size
    assert "Intensity_TotalArea_DNA" not in state.image_measured


@pytest.mark.oracle
def test_area_occupied_is_of_objects_rounded_one_by_one(device: Device) -> None:
    mask = kinds.Threshold("DNA", "Mask", ThresholdSettings("manual", manual=0.02))
    state = run([mask, table_steps.MeasureAreaOccupied(("Nuclei",), ("Mask",))], device)
    labels = state.objects["Nuclei"].labels[0].cpu().numpy()
    lengths = [perimeter(np.pad(labels == n, 1)) for n in range(1, 5)]
    measured = {n.removeprefix("AreaOccupied_"): v.item() for n, v in state.image_measured.items() if n.startswith("Area")}
    assert measured == pytest.approx(
        {
            "AreaOccupied_Nuclei": (labels > 0).sum(),
            "Perimeter_Nuclei": sum(map(round, lengths)),
            "TotalArea_Nuclei": labels.size,
            "AreaOccupied_Mask": (labels > 0).sum(),
            "Perimeter_Mask": perimeter(np.pad(labels > 0, 1)),
            "TotalArea_Mask": labels.size,
        }
    )


def test_area_occupied_by_nothing(device: Device) -> None:
    mask = kinds.Threshold("DNA", "Mask", ThresholdSettings("manual", manual=0.9))
    state = run([mask, table_steps.MeasureAreaOccupied((), ("Mask",))], device)
    assert state.image_measured["AreaOccupied_AreaOccupied_Mask"].item() == 0
    assert state.image_measured["AreaOccupied_Perimeter_Mask"].item() == 0


def test_scales_and_shares_of_bins(device: Device) -> None:
    steps = [
        kinds.MeasureShape(("Nuclei",), zernike=False),
        kinds.Classify("Nuclei", "AreaShape_Area", (0, 250, math.inf), ("Small", "Large")),
        table_steps.MeasureImageQuality(("DNA",), scaling=True, saturation=True),
    ]
    measured = {n: v.tolist() for n, v in run(steps, device).image_measured.items()}
    assert measured["Classify_Small_NumObjectsPerBin"] == [2]
    assert measured["Classify_Large_PctObjectsPerBin"] == [50]
    assert measured["ImageQuality_Scaling_DNA"] == [65535]
    assert "ImageQuality_FocusScore_DNA" not in measured


def test_a_crop_says_how_much_is_left(device: Device) -> None:
    state = run([kinds.Crop("DNA", "Cut", left=10, right=60, top=20, bottom=80)], device)
    assert state.image_measured["Crop_AreaRetainedAfterCropping_Cut"].tolist() == [50 * 60]
    assert state.image_measured["Crop_OriginalImageArea_Cut"].tolist() == [90 * 120]


def flagged(lowest: tuple[float, ...], highest: tuple[float, ...], *, of_all: bool = False, **options) -> table_steps.Flag:
    names = ("Count_Nuclei", "Intensity_MeanIntensity_DNA")[: len(lowest)]
    sources = ("image",) * len(lowest)
    return table_steps.Flag("QC_Flag", names, sources, ("",) * len(lowest), lowest, highest, not of_all, **options)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        (flagged((5.0,), (math.inf,)), 1),  # four nuclei
        (flagged((4.0,), (4.0,)), 0),  # the limits themselves pass
        (flagged((-math.inf, 0.5), (10.0, 1.0)), 1),
        (flagged((-math.inf, 0.5), (10.0, 1.0), of_all=True), 0),
        (flagged((5.0, 0.5), (math.inf, 1.0), of_all=True), 1),
    ],
)
def test_flags(flag: table_steps.Flag, value: int, device: Device) -> None:
    state = run([kinds.MeasureImageIntensity("DNA"), flag], device)
    assert state.image_measured["QC_Flag"].tolist() == [value]
    assert not state.skipped


def test_a_flag_of_objects(device: Device) -> None:
    shape = kinds.MeasureShape(("Nuclei",), zernike=False)
    for source, low, value in (("average", 250.0, 0), ("average", 270.0, 1), ("all", 120.0, 0), ("all", 250.0, 1)):
        flag = table_steps.Flag("QC_Flag", ("AreaShape_Area",), (source,), ("Nuclei",), (low,), (math.inf,))
        areas = run([shape, flag], device)
        assert areas.image_measured["QC_Flag"].tolist() == [value], (source, low, areas.measured["Nuclei"]["AreaShape_Area"])


def test_a_flag_of_no_objects_fails(device: Device) -> None:
    none = kinds.Primary("DNA", "None", PrimarySettings(background=None, threshold=ThresholdSettings("manual", manual=0.9)))
    flag = table_steps.Flag("QC_Flag", ("Location_Center_X",), ("average",), ("None",), (-math.inf,), (math.inf,))
    assert run([none, flag], device).image_measured["QC_Flag"].tolist() == [1]


def test_a_flag_by_the_sites_number(device: Device) -> None:
    flag = table_steps.Flag("QC_Flag", ("Metadata_Site",), ("image",), ("",), (2.0,), (5.0,))
    for site, value in ((1, 1), (2, 0), (5, 0), (6, 1)):
        assert run([flag], device, site=site).image_measured["QC_Flag"].tolist() == [value]


def test_a_skipped_site_keeps_what_came_before(device: Device) -> None:
    steps = [flagged((5.0,), (math.inf,), skip=True, module="FlagImage (module 3)"), kinds.MeasureImageIntensity("DNA")]
    state = run(steps, device)
    assert state.skipped == "FlagImage (module 3): QC_Flag, skipped: Count_Nuclei is 4"
    assert state.image_measured["Count_Nuclei"].tolist() == [4]
    assert "Intensity_MeanIntensity_DNA" not in state.image_measured
    whole = run(steps, device, skip=False)  # as columns are found
    assert not whole.skipped
    assert "Intensity_MeanIntensity_DNA" in whole.image_measured


def test_area_occupied_in_a_masked_image_is_of_what_is_not_masked(device: Device) -> None:
    left = torch.zeros(1, *SIZE)
    left[..., :60] = 1
    mask = kinds.MaskImage("DNA", "Left", mask="Mask")
    nuclei = kinds.Primary("Left", "LeftNuclei", NUCLEI.settings)
    steps = [kinds.Load("DNA", "DNA"), kinds.Load("Mask", "Mask"), mask, nuclei]
    pixels = {"DNA": device.tensor(torch.from_numpy(drawn()))[None], "Mask": device.tensor(left)}
    state = run_steps([*steps, table_steps.MeasureAreaOccupied(("LeftNuclei",))], pixels, {}, device)
    assert state.image_measured["AreaOccupied_TotalArea_LeftNuclei"].item() == 90 * 60
    assert state.image_measured["AreaOccupied_AreaOccupied_LeftNuclei"].item() == int(
        state.objects["LeftNuclei"].labels.gt(0).sum()
    )
