"""check-plate: a good plate has no finding; each fault that public plates had is found, by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from jumpgpu.check_plate import main
from jumpgpu.checks.channels import nuclear_score, order_findings
from jumpgpu.checks.images import corner_wells
from jumpgpu.checks.layout import TURNS, against_controls, against_sister, plate_format, turned
from jumpgpu.drawing.fields import Effects, draw_field, falloff, make_tiles
from jumpgpu.settings.names import CHANNELS, well_name
from tests.helpers.image_plates import NUMBERS, image_name, write_tiff
from tests.helpers.real import WELLS, real_pixels

SIZE = (324, 360)
PLATE = ("A01", "A04", "B02", "B03", "C01", "C04")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn plate of six wells with two sites."""
    root = tmp_path_factory.mktemp("good")
    images = root / "P1" / "Images"
    images.mkdir(parents=True)
    tiles, light = make_tiles(np.random.default_rng(1), SIZE), falloff(SIZE)
    for well in PLATE:
        for site in (1, 2):
            rng = np.random.default_rng([ord(well[0]), int(well[1:]), site])
            drawn = draw_field(rng, SIZE, 14, Effects(), tiles, light)
            for channel, number in NUMBERS.items():
                write_tiff(images / image_name(well, site, number), drawn.images[CHANNELS.index(channel)])
    return root


@pytest.fixture
def plate(good: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoilt; its images."""
    shutil.copytree(good / "P1", tmp_path / "P1")
    return tmp_path / "P1" / "Images"


def findings(images: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[str]]:
    status = main(["--plate", "P1", "--images", str(images), "--threads", "1", *more])
    lines = capsys.readouterr().out.splitlines()
    return status, [line.removeprefix("finding: ") for line in lines if line.startswith("finding: ")]


def test_a_good_plate(good: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert findings(good, capsys, "--json", str(tmp_path / "c.json")) == (0, [])
    seen = json.loads((tmp_path / "c.json").read_text())
    assert len(seen["images"]) == len(PLATE) * 2 * 5
    first = seen["images"][0]
    raw = tifffile.imread(good / "P1" / "Images" / image_name(first["well"], first["site"], NUMBERS[first["channel"]]))
    assert (first["low"], first["median"], first["high"]) == tuple(np.percentile(raw, (1, 50, 99.9)))


def test_missing_and_empty_files(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plate / image_name("B03", 2, NUMBERS["ER"])).unlink()
    (plate / image_name("B02", 1, NUMBERS["Mito"])).write_bytes(b"")
    status, result = findings(plate, capsys)
    assert status == 3
    assert "1 of 60 images is missing: B03 site 2 ER" in result
    assert "1 of 60 images is an empty file: B02 site 1 Mito" in result


def test_the_same_image_twice(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(plate / image_name("A01", 1, NUMBERS["RNA"]), plate / image_name("C04", 2, NUMBERS["RNA"]))
    shutil.copy(plate / image_name("B02", 1, NUMBERS["ER"]), plate / image_name("B02", 1, NUMBERS["AGP"]))
    status, result = findings(plate, capsys)
    assert status == 3
    same = next(f for f in result if f.startswith("2 images are the same as another"))
    assert "C04 site 2 RNA is A01 site 1 RNA" in same
    assert "B02 site 1 AGP is B02 site 1 ER" in same
    assert any(f.startswith("AGP: the AGP image is the ER image again (B02 site 1)") for f in result)


def test_dark_saturated_and_blurred(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(5)
    write_tiff(plate / image_name("A01", 1, NUMBERS["AGP"]), rng.integers(100, 110, SIZE, dtype=np.uint16))
    bright = tifffile.imread(plate / image_name("B02", 1, NUMBERS["Mito"]))
    bright[:40] = 65535
    write_tiff(plate / image_name("B02", 1, NUMBERS["Mito"]), bright)
    for number in NUMBERS.values():
        path = plate / image_name("C01", 2, number)
        write_tiff(path, gaussian_filter(tifffile.imread(path).astype(float), 5).astype(np.uint16))
    status, result = findings(plate, capsys)
    assert status == 3
    assert any(f.startswith("AGP: nothing stands out in 1 of 12 sampled images (A01 site 1)") for f in result)
    assert any(f.startswith("Mito: saturated: 12") and "B02 site 1" in f for f in result)
    for channel in ("DNA", "ER", "RNA"):
        assert any(f.startswith(f"{channel}: out of focus") and "C01 site 2" in f for f in result)


def test_a_corner_unlike_the_rest(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for site in (1, 2):
        path = plate / image_name("C04", site, NUMBERS["ER"])
        write_tiff(path, tifffile.imread(path) + np.uint16(5000))
    status, result = findings(plate, capsys)
    assert status == 3
    assert len(result) == 1
    assert result[0].startswith("ER: corner well C04 has a background of ")


@pytest.mark.parametrize("other", ["ER", "RNA", "AGP", "Mito"])
def test_dna_where_nuclei_are(plate: Path, capsys: pytest.CaptureFixture[str], other: str, tmp_path: Path) -> None:
    """The config says another channel number for DNA: nuclei are found under the other's name."""
    numbers = {**NUMBERS, "DNA": NUMBERS[other], other: NUMBERS["DNA"]}
    config = tmp_path / "c.toml"
    config.write_text("[plate.numbers]\n" + "\n".join(f"{c} = {n}" for c, n in numbers.items()))
    status, result = findings(plate, capsys, "--config", str(config))
    assert status == 3
    assert len(result) == 1
    assert f"nuclei are in the {other} images rather than in the DNA images" in result[0]


def test_nuclei_of_real_fields_are_in_dna(shared: Path) -> None:
    """CPJUMP1's six fields: DNA wins in each but the emptiest, and the right order is never doubted."""
    pixels = (real_pixels(shared) * 65535).astype(np.uint16)
    scores = [{c: nuclear_score(pixels[b, k]) for k, c in enumerate(CHANNELS)} for b in range(len(WELLS))]
    assert order_findings(scores) == []
    for other in CHANNELS[1:]:
        swapped = [{**s, "DNA": s[other], other: s["DNA"]} for s in scores]
        assert f"nuclei are in the {other} images" in order_findings(swapped)[0]


def test_dna_elsewhere_in_some_wells(shared: Path) -> None:
    """Two real fields with DNA and RNA exchanged, of six; one alone is no finding."""
    pixels = (real_pixels(shared) * 65535).astype(np.uint16)
    scores = [{c: nuclear_score(pixels[b, k]) for k, c in enumerate(CHANNELS)} for b in range(len(WELLS))]
    crowded = sorted(range(len(WELLS)), key=lambda b: -scores[b]["DNA"])[:2]
    swapped = [{**s, "DNA": s["RNA"], "RNA": s["DNA"]} if b in crowded else s for b, s in enumerate(scores)]
    places = [f"{well} site 5" for well in WELLS]
    (finding,) = order_findings(swapped, places)
    at = ", ".join(places[b] for b in sorted(crowded))
    assert f"in the RNA images rather than in the DNA images of 2 of 6 sampled fields ({at})" in finding
    assert order_findings([s if b == crowded[0] else swapped[b] for b, s in enumerate(scores)], places) == []


def wells_of(rows: int, columns: int) -> list[str]:
    return [well_name(r, c) for r in range(1, rows + 1) for c in range(1, columns + 1)]


@pytest.mark.parametrize("size", [(8, 12), (16, 24)])
def test_a_plate_that_was_turned(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    wells = wells_of(*size)
    effect = dict(zip(wells, rng.normal(4, 0.5, len(wells)), strict=True))
    sister = {w: float(np.exp(e + rng.normal(0, 0.3))) for w, e in effect.items()}
    right = {w: float(np.exp(e + rng.normal(0, 0.3))) for w, e in effect.items()}
    assert plate_format(wells) == size
    assert against_sister(right, sister, "S") == []
    for words, turn in TURNS.items():
        wrong = {turned(w, size, turn): n for w, n in right.items()}
        (result,) = against_sister(wrong, sister, "S")
        assert f"agree with S's {words} (rank correlation 0." in result
    unrelated = {w: float(n) for w, n in zip(wells, rng.uniform(10, 90, len(wells)), strict=True)}
    assert against_sister(unrelated, sister, "S") == []
    assert "fewer than 12 wells" in against_sister({"A01": 3.0}, sister, "S")[0]


def test_controls_at_turned_places() -> None:
    rng = np.random.default_rng(4)
    wells = wells_of(16, 24)
    controls = [well_name(r, c) for r in range(1, 17) for c in (1, 6)]
    spread = {w: 0.1 if w in controls else 0.8 for w in wells}
    right = {w: float(np.exp(rng.normal(4, spread[w]))) for w in wells}
    assert against_controls(right, controls, "M") == []
    for words in ("turned by 180 degrees", "mirrored left to right"):
        wrong = {turned(w, (16, 24), TURNS[words]): n for w, n in right.items()}
        (result,) = against_controls(wrong, controls, "M")
        assert f"M {words} vary less" in result or "M turned" in result or "M mirrored" in result
    assert against_controls({w: float(np.exp(rng.normal(4, 0.5))) for w in wells}, controls, "M") == []


def test_corners() -> None:
    assert corner_wells(["B02", "B05", "C03", "D02", "D05"]) == ("B02", "B05", "D02", "D05")
    assert corner_wells(["B02"]) == ("B02",)


def test_bad_use(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plate", "P2", "--images", str(plate.parent.parent)]) == 2
    assert main(["--plate", "P1", "--images", str(plate), "--wells", "H12"]) == 2
    assert main(["--plate", "P1", "--images", str(plate), "--sites", "0"]) == 2
    assert "P1 has no images of well H12" in capsys.readouterr().err
