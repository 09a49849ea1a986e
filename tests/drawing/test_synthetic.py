"""Drawn plates: the files a Phenix and a screen would leave, readable by what reads real ones; deterministic by seed."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import open_illumination
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.names import CHANNELS
from jumpgpu.synthetic import SyntheticSettings, draw_plate, main, plate_map, plate_wells

SMALL = ["--wells", "4", "--sites", "2", "--size", "96x128", "--cells", "6"]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def read_csv(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("synthetic")
    assert main(["--output", str(output), "--plate", "DEMO", "--replicates", "2", *SMALL]) == 0
    return output


def test_the_plate_reads_as_a_real_one(drawn: Path) -> None:
    plate = find_plate("DEMO2", drawn)
    assert plate.channel_source == "Index.idx.xml"
    assert plate.channels == CHANNELS
    assert plate.size == (96, 128)
    assert plate.pixel_um == pytest.approx(0.598, abs=1e-3)
    assert plate.wells == tuple(plate_wells(4)) == ("A01", "A02", "A03", "B01")
    assert not plate.notes
    (batch,) = list(read_fields(plate))
    assert len(batch.sites) == 8
    assert not batch.quarantined
    assert not batch.flags
    with tifffile.TiffFile(plate.sites[0].files[0]) as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.LZW


def test_the_index_holds_the_flat_fields_of_the_drawing(drawn: Path, device: Device) -> None:
    plate = find_plate("DEMO1", drawn)
    result = open_illumination(plate, "flatfield", device=device)
    truth = open_illumination(plate, str(drawn / "truth/DEMO1"), device=device)
    for ours, theirs in zip(result.functions.numpy(), truth.functions.numpy(), strict=True):
        ratio = theirs / ours
        unclamped = ours > 1
        np.testing.assert_allclose(ratio[unclamped], ratio[unclamped].flat[0], rtol=1e-5)  # float32, and 11 digits of scale
        assert unclamped.mean() > 0.95


def test_metadata_has_the_layout_of_cpjump1(drawn: Path) -> None:
    folder = drawn / "metadata"
    assert (folder / "platemaps/barcode_platemap.csv").read_text().splitlines() == [
        "Assay_Plate_Barcode,Plate_Map_Name",
        "DEMO1,SYNTHETIC_compound_platemap",
        "DEMO2,SYNTHETIC_compound_platemap",
    ]
    rows = read_csv(folder / "platemaps/SYNTHETIC_compound_platemap.txt", "\t")
    assert [r["well_position"] for r in rows] == plate_wells(4)
    table = {r["broad_sample"]: r for r in read_csv(folder / "external/SYNTHETIC_compound_metadata.tsv", "\t")}
    assert {r["broad_sample"] for r in rows} <= set(table)
    assert table[""]["control_type"] == "negcon"
    assert sum(not r["broad_sample"] for r in rows) == 1


def test_truth_labels_and_table_agree(drawn: Path) -> None:
    rows = read_csv(drawn / "truth/DEMO1/cells.csv")
    seen = 0
    for well in plate_wells(4):
        for site in (1, 2):
            nuclei, cells = (tifffile.imread(drawn / f"truth/DEMO1/{well}_s{site}_{k}.tiff") for k in ("Nuclei", "Cells"))
            mine = [r for r in rows if (r["well"], r["site"]) == (well, str(site))]
            assert nuclei.max() == len(mine)
            np.testing.assert_array_equal(np.unique(cells), np.arange(len(mine) + 1))
            assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
            areas = np.bincount(nuclei.ravel(), minlength=len(mine) + 1)[1:]
            np.testing.assert_array_equal(areas, [float(r["nucleus_area"]) for r in mine])
            seen += len(mine)
    assert seen == len(rows)


def test_same_seed_same_bytes_whatever_the_threads(drawn: Path, tmp_path: Path) -> None:
    assert main(["--output", str(tmp_path), "--plate", "DEMO1", "--threads", "1", *SMALL]) == 0
    again, first = digests(tmp_path), digests(drawn)
    shared = [k for k in again if "DEMO1" in k]
    assert len(shared) > 50
    assert {k: again[k] for k in shared} == {k: first[k] for k in shared}
    assert any(first[k] != first[k.replace("DEMO1", "DEMO2")] for k in shared if k.endswith("ch1sk1fk1fl1.tiff"))


def test_an_image_depends_on_its_own_site_alone(drawn: Path, tmp_path: Path) -> None:
    """Fewer sites drawn, the same pixels in those that are."""
    draw_plate(tmp_path, "DEMO1", SyntheticSettings(4, 1, 96, 128, 6.0, 0))
    plate, other = find_plate("DEMO1", drawn), find_plate("DEMO1", tmp_path)
    for site in other.sites:
        for file, same in zip(site.files, plate.select([site.well], [1])[0].files, strict=True):
            np.testing.assert_array_equal(tifffile.imread(file), tifffile.imread(same))


def test_drawn_again_is_left_alone_and_other_settings_are_refused(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (drawn / "truth").rglob("*")}
    assert main(["--output", str(drawn), "--plate", "DEMO1", *SMALL]) == 0
    assert {p: p.stat().st_mtime_ns for p in (drawn / "truth").rglob("*")} == before
    assert main(["--output", str(drawn), "--plate", "DEMO1", *SMALL, "--seed", "5"]) == 2
    assert "drawn with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--wells", "400"], ["--size", "7"], ["--size", "axb"], ["--sites", "0"], ["--plate", "../x"], ["--cells", "-1"]],
)
def test_bad_use(tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path), *wrong]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_plate_maps_of_every_size() -> None:
    for n in (1, 2, 7, 24, 96, 384):
        layout = plate_map(SyntheticSettings(wells=n))
        assert len(layout) == n
        assert sum(not c.sample for c in layout.values()) == max(1, n // 4)
    full = plate_map(SyntheticSettings(wells=384))
    counts = [sum(c.sample == s for c in full.values()) for s in {c.sample for c in full.values()} - {""}]
    assert len(counts) == 18
    assert min(counts) >= 16
