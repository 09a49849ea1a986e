"""The segment command: what it writes, and that its labels can be read back as masks."""

import re
from collections.abc import Callable
from pathlib import Path

import defusedxml.ElementTree
import imagecodecs
import numpy as np
import pytest

import jumpgpu
from jumpgpu.cli.options import MASK_PATTERN
from jumpgpu.extract import main as extract
from jumpgpu.gpu.device import Device
from jumpgpu.images.masks import read_masks
from jumpgpu.segment import main
from jumpgpu.store.outline_pictures import GAP, PictureStyle, draw, outlined
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
    picture = outlined(np.full((9, 11, 3), 255, np.uint8), {"Nuclei": inner, "Cells": labels})
    assert tuple(picture[2, 2]) == (64, 255, 64)
    assert tuple(picture[3, 3]) == (255, 64, 255)
    assert tuple(picture[4, 4]) == (255, 255, 255)
    assert tuple(picture[0, 0]) == (255, 255, 255)


def test_pictures_for_a_talk_have_the_channels_asked_for() -> None:
    rng = np.random.default_rng(5)
    field = rng.uniform(0, 0.4, (3, 60, 91)).astype(np.float32)
    channels, labels = ("DNA", "ER", "RNA"), {"Nuclei": np.zeros((60, 91), np.int32), "Cells": np.zeros((60, 91), np.int32)}
    labels["Cells"][10:40, 20:60], labels["Nuclei"][20:30, 30:45] = 1, 1
    usual = imagecodecs.png_decode(draw(field, channels, labels, PictureStyle(), 0.6))
    assert usual.shape == (60, 91, 3)
    grey = np.clip(field[2] / np.quantile(field[2], 0.998), 0, 1) * 255
    away = np.s_[:8, :]  # no outline, no bar
    np.testing.assert_allclose(usual[away][..., 0], grey[away].astype(np.uint8), atol=1)
    assert np.ptp(usual[away], axis=2).max() == 0  # grey
    panels = imagecodecs.png_decode(draw(field, channels, labels, PictureStyle(("DNA", "ER"), panels=True), 0.6))
    assert panels.shape == (60, 3 * 91 + 2 * GAP, 3)  # two in grey, then both as colours
    both = imagecodecs.png_decode(draw(field, channels, labels, PictureStyle(("DNA", "ER")), 0.6))
    assert both.shape == (60, 91, 3)
    assert np.ptp(both[away], axis=2).max() > 50
    assert (usual[50:, 60:] == 255).all(axis=2).any()  # the bar: 10 um are 16.7 of 91 pixels


def test_an_svg_has_outlines_as_paths_and_words_as_text() -> None:
    field, labels = np.random.default_rng(6).uniform(0, 1, (2, 40, 50)).astype(np.float32), np.zeros((40, 50), np.int32)
    labels[5:15, 10:30] = 1
    text = draw(field, ("DNA", "ER"), {"Nuclei": labels}, PictureStyle(("DNA", "ER"), True, "svg"), None)
    root = defusedxml.ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert [t.text for t in root.iter(f"{space}text")] == ["DNA", "ER", "composite", "10 px"]
    assert len(list(root.iter(f"{space}image"))) == 3
    outline = [e.get("d") for e in root.iter(f"{space}path")]
    points = np.array([[float(v) for v in p.split()] for p in re.split("[MLZ]", outline[0]) if p])
    assert points.min(0).tolist() == [10, 5]  # x and y of the object's corner, in SVG's coordinates
    assert points.max(0).tolist() == [30, 15]


def test_an_unknown_channel_of_a_picture_is_told_before_anything_is_read(tmp_path, capsys) -> None:
    write_images(tmp_path)
    given = ["DEMO", "--images", str(tmp_path / "images"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*given, "--outline-channels", "GFP"]) == 2
    assert "DEMO has no channel 'GFP' to show; it has DNA, ER, RNA, AGP, Mito" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    options = [
        "--illumination",
        "none",
        "--wells",
        "a1",
        "--sites",
        "1",
        "--outline-channels",
        "DNA,RNA",
        "--outline-format",
        "svg",
    ]
    assert main([*given, *options]) == 0
    assert (tmp_path / "out/DEMO_outlines/A01_s1.svg").read_bytes().startswith(b"<svg ")


def test_a_dry_run_says_what_would_be_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are not replaced by label images, nor label images by those of other settings; nothing is written."""
    write_images(tmp_path, wells=("A01",), sites=(1,))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\nimage_quality = false\n')
    given = ["DEMO", "--images", "images", "--illumination", "none", "--device", "cpu", "--output", "out"]
    assert extract([*given, "--config", "small.toml"]) == 0
    before = contents(tmp_path / "out")
    for dry, said in (([], capsys.readouterr), (["--dry-run"], capsys.readouterr)):
        assert main([*given, *dry]) == 2
        text = "".join(said())
        assert "out/DEMO.zarr holds" in text
        assert "segment writes label images alone; give another --output" in text
        assert ("would be refused: " in text) == bool(dry)
    assert contents(tmp_path / "out") == before
    given[-1] = "labels"
    assert main(given) == 0
    (tmp_path / "small.toml").write_text("[segmentation.nuclei]\nmin_diameter = 12\n")
    capsys.readouterr()
    assert main([*given, "--config", "small.toml", "--dry-run"]) == 2
    assert "config.segmentation.nuclei.min_diameter: stored 10" in capsys.readouterr().out
    assert main([*given, "--dry-run"]) == 0
    assert "DEMO: labels of 1 site of 1 well to labels/DEMO.zarr" in capsys.readouterr().out
