"""Cells around nuclei that somebody gives, against centrosome and scikit-image; nuclei alone are measured by themselves."""

import dataclasses

import centrosome.propagate
import numpy as np
import pytest
import tifffile
import torch
from skimage.segmentation import watershed

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.features.families import columns
from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.grow import grow_cells
from jumpgpu.settings.config import SegmentationSettings, ThresholdSettings
from jumpgpu.settings.names import CHANNELS, COMPARTMENTS
from tests.helpers.plates import write_images


def batch(seed: int = 3, shape: tuple[int, int] = (96, 131)) -> tuple[np.ndarray, np.ndarray]:
    """A cells' image, float32 [H, W], bright around nuclei whose numbers, int32 [H, W], are as they are drawn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    nuclei, image = np.zeros(shape, np.int32), np.zeros(shape)
    for n, (cy, cx) in enumerate(((20, 25), (30, 60), (70, 40), (55, 100), (85, 120), (3, 110)), 1):
        distance = np.hypot(y - cy, x - cx)
        nuclei[(distance < 7) & (nuclei == 0)] = n
        image += 0.6 * np.exp(-((distance / 14) ** 2))
    return (image + rng.uniform(0, 0.05, shape)).astype(np.float32), nuclei


def grown(image: np.ndarray, nuclei: np.ndarray, settings: SegmentationSettings, device: Device):
    pixels = device.tensor(np.stack([image] * 2)[None])
    result = grow_cells(pixels, ("DNA", "RNA"), device.tensor(nuclei[None]), settings, device)
    return {name: label[0].cpu().numpy() for name, label in result.labels.items()}, int(result.counts[0])


def settings_of(method: str, **further) -> SegmentationSettings:
    base = SegmentationSettings()
    threshold = ThresholdSettings(method="manual", manual=0.25)
    cells = dataclasses.replace(base.cells, method=method, threshold=threshold, fill_holes=False, **further)
    return dataclasses.replace(base, cells=cells)


@pytest.mark.oracle
def test_watershed_is_scikit_images(device: Device) -> None:
    image, nuclei = batch()
    labels, count = grown(image, nuclei, settings_of("watershed"), device)
    mask = (image.astype(np.float64) >= 0.25) | (nuclei > 0)
    expected = watershed(1 - image, nuclei, connectivity=np.ones((3, 3)), mask=mask)
    assert count == 6
    np.testing.assert_array_equal(labels["Cells"], expected)
    np.testing.assert_array_equal(labels["Nuclei"], nuclei)


@pytest.mark.oracle
def test_propagation_is_centrosomes(device: Device) -> None:
    image, nuclei = batch(4)
    labels, _ = grown(image, nuclei, settings_of("propagation", regularization=0.05), device)
    mask = image >= np.float32(0.25)
    expected, _ = centrosome.propagate.propagate(image.astype(np.float64), nuclei, mask, 0.05)
    expected[nuclei > 0] = nuclei[nuclei > 0]
    assert (labels["Cells"] != expected).mean() < 0.002  # equal distances are taken in another order


@pytest.mark.property
def test_every_nucleus_lies_in_the_cell_of_its_number_and_fields_are_alone(device: Device) -> None:
    image, nuclei = batch(5)
    other, others = batch(6)
    settings = SegmentationSettings()
    both = grow_cells(
        device.tensor(np.stack([np.stack([a, a]) for a in (image, other)])),
        ("DNA", "RNA"),
        device.tensor(np.stack([nuclei, np.where(others > 4, 0, others)])),
        settings,
        device,
    )
    one, count = grown(image, nuclei, settings, device)
    for name in COMPARTMENTS:
        assert torch.equal(both.labels[name][0].cpu(), torch.from_numpy(one[name])), name
    assert both.counts.tolist() == [6, 4]
    assert count == 6
    inside = nuclei > 0
    np.testing.assert_array_equal(one["Cells"][inside], nuclei[inside])
    assert set(np.unique(one["Cytoplasm"])) <= set(np.unique(one["Cells"]))


def test_cells_at_the_border_go_only_where_identify_secondary_objects_discards_them(device: Device) -> None:
    image, nuclei = batch()
    kept = dataclasses.replace(settings_of("watershed"), filter_border_nuclei=True)
    assert grown(image, nuclei, kept, device)[1] == 6  # FilterObjects is a later step
    labels, count = grown(image, nuclei, settings_of("watershed", discard_border=True), device)
    assert count < 6
    edge = np.concatenate([labels["Cells"][[0, -1]].ravel(), labels["Cells"][:, [0, -1]].ravel()])
    assert not edge.any()


@pytest.fixture
def nuclei_masks(tmp_path, monkeypatch):
    """A plate of noise with label images of nuclei alone, numbered with gaps."""
    write_images(tmp_path)
    for path in (tmp_path / "masks").glob("*.tiff"):
        if "Nuclei" in path.name:
            tifffile.imwrite(path, 10 * tifffile.imread(path))
        else:
            path.unlink()
    monkeypatch.chdir(tmp_path)
    return ["DEMO", "--images", "images", "--masks", "masks", "--illumination", "none", "--device", "cpu", "--save-labels"]


def test_nuclei_alone_are_measured_by_themselves(nuclei_masks, capsys) -> None:
    assert main([*nuclei_masks, "--output", "alone"]) == 0
    err = capsys.readouterr().err
    assert "nuclei alone (--grow-cells finds cells around them)" in err
    assert "nuclei numbered anew: 4 labels, highest 40" in err
    plate = jumpgpu.open_plate("alone/DEMO")
    assert plate.columns == columns(("Nuclei",), CHANNELS)
    assert plate.verify() == []
    assert plate.record("A01")["cells"] == 8
    labels = plate.labels("A01", 1)
    assert list(labels) == ["Nuclei"]
    areas = np.bincount(labels["Nuclei"].ravel())[1:]
    table = plate.to_pandas(["A01"])
    np.testing.assert_array_equal(table.loc[table.Metadata_Site == 1, "Nuclei_AreaShape_Area"], areas)
    assert plate.show("A01", 1).axes


def test_cells_are_grown_from_nuclei_of_masks(nuclei_masks, tmp_path, capsys) -> None:
    assert main([*nuclei_masks, "--grow-cells", "--output", "grown"]) == 0
    assert "cells grown from them" in capsys.readouterr().err
    plate = jumpgpu.open_plate("grown/DEMO")
    assert plate.columns == columns(COMPARTMENTS, CHANNELS)
    assert plate.verify() == []
    labels = plate.labels("B02", 1)
    inside = labels["Nuclei"] > 0
    np.testing.assert_array_equal(labels["Cells"][inside], labels["Nuclei"][inside])
    again = jumpgpu.extract(
        "DEMO", "images", masks="masks", grow_cells=True, illumination="none", device="cpu", output="api", quiet=True
    )
    np.testing.assert_array_equal(again.to_pandas().iloc[:, 4:], plate.to_pandas().iloc[:, 4:])
    assert main([*nuclei_masks, "--output", "grown"]) == 2
    assert "labels: stored cells grown from given nuclei, asked given nuclei" in capsys.readouterr().err
    nuclei = tifffile.imread("masks/A01_s1_Nuclei.tiff")
    tifffile.imwrite("masks/A01_s1_Cells.tiff", nuclei)
    assert main([*nuclei_masks, "--grow-cells", "--output", "else"]) == 2
    assert "has label images of cells, which --grow-cells would not use" in capsys.readouterr().err
    at = nuclei_masks.index("--masks")
    assert main([*nuclei_masks[:at], *nuclei_masks[at + 2 :], "--grow-cells", "--output", "else"]) == 2
    assert "--masks gives them" in capsys.readouterr().err
