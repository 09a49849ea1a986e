"""Label images from elsewhere: what is kept, what is reported, which files are read."""

from pathlib import Path

import numpy as np
import tifffile
import zarr

from jumpgpu.cli.options import MASK_PATTERN
from jumpgpu.gpu.device import Device
from jumpgpu.images.masks import binary, mask_files, pair, read_masks


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Nuclei 3, 7, 8, 20, 21; cells 2 (with 7), 5 (with 3), 6 (empty), 9 (with 20 and 21); nucleus 8 has none."""
    nuclei, cells = np.zeros((12, 30), np.int32), np.zeros((12, 30), np.int32)
    cells[0:8, 0:6], cells[0:8, 7:13], cells[9:12, 0:5], cells[0:6, 14:24] = 2, 5, 6, 9
    nuclei[2:6, 1:5], nuclei[2:6, 8:12], nuclei[8:11, 26:29] = 7, 3, 8
    nuclei[1:3, 15:18], nuclei[1:3, 20:23] = 20, 21
    return nuclei, cells


def test_one_nucleus_one_cell_one_number() -> None:
    nuclei, cells = batch()
    result, notes = pair(nuclei, cells)
    assert sorted(np.unique(result["Nuclei"])) == sorted(np.unique(result["Cells"])) == [0, 1, 2]
    np.testing.assert_array_equal(result["Cells"] == 1, cells == 2)
    np.testing.assert_array_equal(result["Nuclei"] == 1, nuclei == 7)
    np.testing.assert_array_equal(result["Nuclei"] == 2, nuclei == 3)
    inner = np.zeros_like(nuclei, bool)
    inner[3:5, 2:4] = inner[3:5, 9:11] = True
    np.testing.assert_array_equal(result["Cytoplasm"], np.where(inner, 0, result["Cells"]))
    assert notes == [
        "nuclei numbered anew: 5 labels, highest 21",
        "cells numbered anew: 4 labels, highest 9",
        "1 nuclei without a cell left out (8)",
        "1 cells without a nucleus left out (6)",
        "1 cells with several nuclei left out (9)",
    ]


def test_a_nucleus_belongs_to_the_cell_it_overlaps_most() -> None:
    nuclei, cells = np.zeros((4, 12), np.int32), np.zeros((4, 12), np.int32)
    cells[:, :5], cells[:, 5:] = 1, 2
    nuclei[1:3, 2:7] = 1
    nuclei[1:3, 9:11] = 2
    result, notes = pair(nuclei, cells)
    np.testing.assert_array_equal(result["Nuclei"], nuclei)
    assert notes == ["1 nuclei reach beyond their cell"]


def test_a_given_cytoplasm_keeps_to_its_cell() -> None:
    nuclei, cells = batch()
    cytoplasm = np.where(nuclei > 0, 0, cells)
    cytoplasm[11, 29] = 77
    result, notes = pair(nuclei, cells, cytoplasm)
    np.testing.assert_array_equal(result["Cytoplasm"], np.where(nuclei > 0, 0, result["Cells"]))
    assert "1 cytoplasms without a cell left out" in notes


def test_formats_give_the_same_labels(tmp_path: Path, device: Device) -> None:
    nuclei, cells = batch()
    for well, site in (("B03", 1), ("B03", 2), ("C04", 1)):
        for name, image in (("Nuclei", nuclei), ("Cells", cells)):
            stem = tmp_path / f"{well}_s{site}_{name}"
            if (well, site) == ("B03", 1):
                tifffile.imwrite(f"{stem}.tiff", image.astype(np.uint16))
            elif site == 2:
                np.save(f"{stem}.npy", image)
            else:
                zarr.save_array(f"{stem}.zarr", image)
    masks = read_masks(tmp_path, "P1", [("B03", 1), ("B03", 2), ("C04", 1)], (12, 30), device, MASK_PATTERN)
    for image in masks.labels.values():
        assert image.shape == (3, 12, 30)
        assert (image == image[:1]).all()
    assert len(masks.report) == 15
    assert masks.report[0].startswith("P1 B03 site 1: ")


def test_a_plate_of_ome_zarr_labels_is_read_by_its_layout(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text("{}")
    files = mask_files(tmp_path, "P1", "AB07", 12, MASK_PATTERN)
    assert files["Nuclei"] == tmp_path / "AB/07/12/labels/nuclei/0"


def test_a_site_that_cannot_be_used_takes_no_row_and_is_named(tmp_path: Path, device: Device) -> None:
    nuclei, cells = batch()
    for site in (1, 2):
        tifffile.imwrite(tmp_path / f"B03_s{site}_Nuclei.tiff", nuclei)
    tifffile.imwrite(tmp_path / "B03_s2_Cells.tiff", cells)
    file = tmp_path / "B03_s1_Cells.tiff"

    def problem() -> str:
        masks = read_masks(tmp_path, "P1", [("B03", 1), ("B03", 2)], (12, 30), device, MASK_PATTERN)
        assert masks.rows == (1,)
        assert masks.labels["Cells"].shape == (1, 12, 30)
        return str(masks.problems[0])

    start = "P1 B03 site 1 Cells: no Cells label image: "
    refused = f"{start}cannot be read as a label image: "
    assert problem() == f"{start}the file is missing ({file})"
    tifffile.imwrite(file, cells[:10])
    assert problem() == f"{refused}int32 10 x 30 pixels, expected integers, 12 x 30 ({file})"
    tifffile.imwrite(file, cells.astype(np.float32))
    assert problem() == f"{refused}float32 12 x 30 pixels, expected integers, 12 x 30 ({file})"
    file.write_bytes(b"nothing")
    assert problem().startswith(refused)


def test_cellprofilers_labels_stay_as_they_are(shared: Path, device: Device) -> None:
    folder = shared / "data/cellprofiler"
    masks = read_masks(folder, "BR00117010", [("A21", 5), ("M02", 5)], (1080, 1080), device, MASK_PATTERN)
    assert masks.report == masks.problems == ()
    for compartment, image in masks.labels.items():
        for b, well in enumerate(("A21", "M02")):
            np.testing.assert_array_equal(image[b].numpy(), tifffile.imread(folder / f"{well}_s5_{compartment}.tiff"))


def test_a_binary_mask_is_remarked_on(tmp_path: Path, device: Device) -> None:
    """One number for all nuclei: one object for us, said by plate, well, site and compartment."""
    nuclei, cells = batch()
    for name, image in (("Nuclei", (nuclei > 0) * np.uint8(255)), ("Cells", cells.astype(np.uint8))):
        tifffile.imwrite(tmp_path / f"B03_s1_{name}.tiff", image)
    masks = read_masks(tmp_path, "P1", [("B03", 1)], nuclei.shape, device, MASK_PATTERN)
    assert [w.partition(", as in")[0] for w in masks.warnings] == ["P1 B03 site 1: Nuclei: label 255 in 5 separate parts"]
    assert masks.rows == (0,)


def test_which_labels_look_binary() -> None:
    nuclei, cells = batch()
    assert binary(nuclei) is None
    assert binary(np.zeros((5, 6), int)) is None
    assert binary((nuclei == 7).astype(int)) is None  # one object in one part
    touching = np.zeros((5, 6), int)
    touching[1, 1] = touching[2, 2] = 3  # at a corner
    assert binary(touching) is None
    classes = np.where(nuclei > 0, 2, np.where(cells > 0, 1, 0))  # of a network: background, cell, nucleus
    assert (binary(classes) or "").startswith("labels 1 and 2 in 9 separate parts")
    two = np.zeros((5, 30), int)
    two[1:3, ::8], two[1:3, 4::8] = 1, 2  # two objects that are in pieces
    two[:, 12:] = 0
    assert binary(two) is None
