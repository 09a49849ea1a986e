"""Plates of several planes, sizes, times and formats over worker processes: the bytes of one process."""

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from jumpgpu.extract import main
from tests.helpers.image_plates import NUMBERS, STAINS, image_name, index_xml, write_tiff
from tests.helpers.plates import contents
from tests.run.test_mixed_sizes import SIZES, SMALL, write_wells

WELLS = ["A01", "B01", "B02"]


def planes(root: Path) -> str:
    """Three planes of every image, one of them missing."""
    images = write_wells(root, WELLS, (1,))
    for path in list(images.iterdir()):
        pixels = tifffile.imread(path)
        for plane in (2, 3):
            write_tiff(images / path.name.replace("p01", f"p{plane:02d}"), np.roll(pixels, plane, 1))
    (images / image_name("B01", 1, NUMBERS["ER"], 2)).unlink()
    (images / "Index.idx.xml").write_text(index_xml(tuple(WELLS), (1,), STAINS, "P1", planes=(1, 2, 3), shape=SMALL))
    return '[plate]\nprojection = "mean"\n'


def sizes(root: Path) -> str:
    write_wells(root, list(SIZES), (1,))
    return ""


def times(root: Path) -> str:
    images = write_wells(root, WELLS, (1,))
    for path in list(images.iterdir()):
        write_tiff(images / path.name.replace("sk1", "sk2"), np.roll(tifffile.imread(path), 7, 0))
    return "[plate]\ntime = 2\n"


def pngs(root: Path) -> str:
    """PNGs of 8 and 16 bits, under names that the config describes."""
    images = write_wells(root, WELLS, (1,))
    for path in list(images.iterdir()):
        pixels = tifffile.imread(path)
        pixels = (pixels >> 8).astype(np.uint8) if "ch1" in path.name else pixels
        path.with_suffix(".png").write_bytes(imagecodecs.png_encode(pixels))
        path.unlink()
    return (
        "[plate]\npattern = 'r(?P<row>..)c(?P<column>..)f(?P<site>..)p01-ch(?P<channel>.)'\n[plate.numbers]\n"
        + "\n".join(f"{c} = {n}" for c, n in NUMBERS.items())
    )


@pytest.mark.parametrize("write", [planes, sizes, times, pngs])
def test_two_workers_store_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(
        write(tmp_path / "images") + '\n[features]\nfamilies = ["shape", "number", "intensity"]\n'
    )
    monkeypatch.chdir(tmp_path)
    given = ["--plate", "P1", "--images", "images", "--config", "c.toml", "--device", "cpu", "--illumination", "estimate"]
    expected = 3 if write is planes else 0
    assert main([*given, "--output", "one", "--threads", "1"]) == expected, capsys.readouterr()
    assert main([*given, "--output", "two", "--workers", "2"]) == expected, capsys.readouterr()
    name = "P1_t2.zarr" if write is times else "P1.zarr"
    one, two = contents(tmp_path / "one" / name), contents(tmp_path / "two" / name)
    assert len(one) > 50
    assert two == one
    if write is planes:
        lines = [(tmp_path / run / "quarantine.csv").read_text() for run in ("one", "two")]
        assert lines[0] == lines[1]
        assert "plane 2: no ER image: the file is missing" in lines[0]
