"""The segment command: what it writes, and that its labels can be read back as masks."""

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

import jumpgpu
from jumpgpu.cli.options import MASK_PATTERN
from jumpgpu.extract import main as extract
from jumpgpu.gpu.device import Device
from jumpgpu.images.masks import read_masks
from jumpgpu.run.label_images import outline_picture
from jumpgpu.segment import main
from tests.helpers.plates import contents, write_images


def test_labels_and_outlines_are_written_and_read_back(
    tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["--plate", "DEMO", "--images", "images", "--illumination", "none", "--device", "cpu", "--outlines"]
    assert main([*given, "--dry-run"]) == 0
    assert not (tmp_path / "labels").exists()
    assert main(given) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("DEMO  2 wells  ")
    plate = jumpgpu.open_plate("labels/DEMO")
    assert plate.verify() == []
    pictures = sorted(p.name for p in (tmp_path / "labels/DEMO_outlines").iterdir())
    site = int(pictures[0].rsplit("_s", 1)[1].removesuffix(".png"))
    stored = plate.labels("A01", site)
    picture = imagecodecs.png_decode((tmp_path / "labels/DEMO_outlines" / pictures[0]).read_bytes())
    assert picture.shape == (*stored["Nuclei"].shape, 3)
    masks = read_masks(tmp_path / "labels/DEMO.zarr", "DEMO", [("A01", site)], stored["Nuclei"].shape, device, MASK_PATTERN)
    assert masks.report == ()
    for name, image in masks.labels.items():
        np.testing.assert_array_equal(image[0].numpy(), stored[name])


def test_outlines_of_a_plate_that_is_there_are_drawn_from_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["--plate", "DEMO", "--images", "images", "--illumination", "none", "--device", "cpu", "--quiet"]
    assert main([*given, "--output", "once", "--outlines"]) == 0
    assert main([*given, "--output", "twice", "--wells", "A01"]) == 0
    assert main([*given, "--output", "twice", "--outlines"]) == 0
    once = contents(tmp_path / "once/DEMO_outlines")
    assert len(once) == 4
    assert contents(tmp_path / "twice/DEMO_outlines") == once


def test_bad_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plate", "NONE", "--images", str(tmp_path)]) == 2
    assert "NONE" in capsys.readouterr().err


@pytest.mark.parametrize("command", [main, extract])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_channel_that_is_not_there_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int], dry: list[str]
) -> None:
    write_images(tmp_path)
    (tmp_path / "lab.toml").write_text('[segmentation.cells]\nchannel = "Actin"\n')
    given = ["--plate", "DEMO", "--images", str(tmp_path / "images"), "--config", str(tmp_path / "lab.toml")]
    assert command([*given, "--device", "cpu", "--output", str(tmp_path / "out"), *dry]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: segmentation.cells.channel is 'Actin'; this plate's channels are (")
    assert not (tmp_path / "out").exists()


def test_outlines_are_drawn_on_the_objects() -> None:
    labels = np.zeros((9, 11), np.int32)
    labels[2:7, 2:8] = 1
    inner = np.zeros_like(labels)
    inner[3:6, 3:6] = 1
    picture = outline_picture(np.full((9, 11), 0.5, np.float32), inner, labels)
    assert tuple(picture[2, 2]) == (64, 255, 64)
    assert tuple(picture[3, 3]) == (255, 64, 255)
    assert tuple(picture[4, 4]) == (255, 255, 255)
    assert tuple(picture[0, 0]) == (255, 255, 255)
