"""Planes to one image per channel: NumPy's maximum and mean, CellProfiler's arithmetic; planes that are missing or odd."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from jumpgpu.gpu.device import ITEMS, Device
from jumpgpu.images.illumination import correct, open_illumination
from jumpgpu.images.locate import find_plate, find_source
from jumpgpu.images.reader import read_fields
from jumpgpu.run.plates import extract
from jumpgpu.settings.config import Config, PlateSettings, load_config
from jumpgpu.settings.names import CHANNELS
from tests.helpers.image_plates import NUMBERS, image_name, index_xml, write_tiff
from tests.helpers.ome_plates import write_ome_plate
from tests.helpers.oracles import make_projection
from tests.helpers.oracles.make_projection import CASES
from tests.helpers.oracles.make_projection import planes as drawn_planes

SHAPE = 37, 59
PLANES = (1, 2, 3)


def plane_of(well: str, site: int, channel: int, plane: int) -> np.ndarray:
    """A plane, known from its name; high counts, so that sums pass 16 bits."""
    seed = [ord(well[0]), int(well[1:]), site, channel, plane]
    return np.random.default_rng(seed).integers(20_000, 65_536, SHAPE, dtype=np.uint16)


def write_planes(root: Path, wells: tuple[str, ...] = ("A01", "B03"), sites: tuple[int, ...] = (1, 2, 5)) -> Path:
    images = root / "P1" / "Images"
    images.mkdir(parents=True)
    for well in wells:
        for site in sites:
            for channel in NUMBERS.values():
                for plane in PLANES:
                    write_tiff(images / image_name(well, site, channel, plane), plane_of(well, site, channel, plane))
    (images / "Index.idx.xml").write_text(index_xml(wells, sites, name="P1", planes=PLANES, shape=SHAPE))
    return images


def stack(well: str, site: int, channel: str) -> np.ndarray:
    return np.stack([plane_of(well, site, NUMBERS[channel], p) for p in PLANES])


def rows(plate: object, **options: object) -> dict[tuple[str, int], tuple[np.ndarray, tuple[float, ...]]]:
    """Pixels and scales of every field that is read."""
    result = {}
    for fields in read_fields(plate, **options):  # type: ignore[arg-type]
        for row, site in enumerate(fields.sites):
            result[site] = fields.pixels[row].cpu().numpy().copy(), fields.scales[row]
    return result


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_maximum_is_numpys(tmp_path: Path, device: Device, batch: int) -> None:
    write_planes(tmp_path)
    plate = find_plate("P1", tmp_path, PlateSettings(projection="max"))
    fields = rows(plate, batch=batch, workers=2, device=device)
    assert len(fields) == 6
    for (well, site), (pixels, scales) in fields.items():
        assert pixels.dtype == np.uint16
        assert scales == (65535.0,) * 5
        for c, channel in enumerate(CHANNELS):
            np.testing.assert_array_equal(pixels[c], stack(well, site, channel).max(axis=0))


def test_mean_is_numpys_and_not_rounded(tmp_path: Path, device: Device) -> None:
    write_planes(tmp_path)
    plate = find_plate("P1", tmp_path, PlateSettings(projection="mean"))
    rounded = 0
    for (well, site), (pixels, scales) in rows(plate, batch=4, workers=2, device=device).items():
        assert pixels.dtype == np.int32
        assert scales == (3 * 65535.0,) * 5
        ones = torch.ones(5, *SHAPE)
        given = torch.from_numpy(pixels)[None]
        corrected = correct(device.tensor(given), device.tensor(ones), device=device, scales=[scales])[0].cpu().numpy()
        for c, channel in enumerate(CHANNELS):
            planes = stack(well, site, channel)
            np.testing.assert_array_equal(pixels[c], planes.astype(np.int64).sum(axis=0))
            exact = planes.astype(np.float64).mean(axis=0) / 65535
            np.testing.assert_array_equal(corrected[c], exact.astype(np.float32))
            rounded += int((planes.astype(np.int64).sum(axis=0) % 3 != 0).sum())
    assert rounded > 1000


def test_mean_is_cellprofilers(tmp_path: Path, device: Device) -> None:
    """MakeProjection adds the planes, on the scale 0 to 1, in float32, and divides: its roundings are all that differs."""
    write_planes(tmp_path, ("A01",), (1,))
    plate = find_plate("P1", tmp_path, PlateSettings(projection="mean"))
    ((pixels, scales),) = rows(plate, device=device).values()
    ones = device.tensor(torch.ones(5, *SHAPE))
    ours = correct(device.tensor(torch.from_numpy(pixels)[None]), ones, device=device, scales=[scales])[0].cpu().numpy()
    for c, channel in enumerate(CHANNELS):
        total = np.zeros(SHAPE, np.float32)
        for plane in stack("A01", 1, channel):
            total += plane.astype(np.float32) / np.float32(65535)
        theirs = total / np.float32(3)
        # three divisions, two additions below 4 and one division, each half a unit in the last place of at most 4 (2^-22)
        assert np.abs(ours[c] - theirs).max() <= (3 * 2**-25 + 2**-24 + 2**-23) / 3 + 2**-25


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_projections_are_those_of_make_projection(tmp_path: Path, device: Device, name: str) -> None:
    """CellProfiler 4.2.8.1's own module (helpers/oracles), with planes of every full scale that files may say."""
    scale, n = CASES[name]
    known = json.loads(Path(make_projection.__file__).with_suffix(".json").read_text())[name]
    images = tmp_path / "P1" / "Images"
    images.mkdir(parents=True)
    options = {"extratags": [(281, "H", 1, scale, True)]} if scale == 4095 else {}
    for number in NUMBERS.values():
        for k, plane in enumerate(drawn_planes(name).astype(np.uint8 if scale == 255 else np.uint16), 1):
            write_tiff(images / image_name("A01", 1, number, k), plane, **options)
    for projection, kind in (("max", "Maximum"), ("mean", "Average")):
        plate = find_plate("P1", tmp_path, PlateSettings(projection=projection))
        ((pixels, scales),) = rows(plate, device=device).values()
        ones = device.tensor(torch.ones(5, *pixels.shape[1:]))
        ours = correct(device.tensor(torch.from_numpy(pixels)[None]), ones, device=device, scales=[scales])[0].cpu().numpy()
        theirs = np.array(known[kind], np.float32).reshape(pixels.shape[1:])
        # A maximum is one division of a count, in float32 by both. A mean is here one division of a whole number; there n
        # divisions (2^-25 each), n - 1 additions and a division of up to n: no more than 2^-24 of n for each of them.
        bound = 0 if projection == "max" else 2**-25 + (n * 2**-25 + (n - 1) * n * 2**-25) / n + 2**-25
        for c in range(5):
            assert np.abs(ours[c].astype(np.float64) - theirs).max() <= bound


def test_missing_and_broken_planes_leave_their_site_out(tmp_path: Path, device: Device) -> None:
    images = write_planes(tmp_path)
    (images / image_name("A01", 2, NUMBERS["ER"], 3)).unlink()
    (images / image_name("B03", 1, NUMBERS["DNA"], 2)).write_bytes(b"II*\0")
    text = (images / "Index.idx.xml").read_text()
    gone = image_name("B03", 5, NUMBERS["RNA"], 1)
    begin = text.rindex("<Image Version", 0, text.index(gone))
    (images / "Index.idx.xml").write_text(text[:begin] + text[text.index("</Image>", begin) + 8 :])
    plate = find_plate("P1", tmp_path, PlateSettings(projection="max"))
    seen, problems, finished = [], [], []
    for fields in read_fields(plate, batch=2, workers=2, device=device):
        seen += list(fields.sites)
        problems += [(p.well, p.site, p.channel, p.reason.split(";")[0]) for p in fields.quarantined]
        finished += list(fields.finished)
        for row, (well, site) in enumerate(fields.sites):
            np.testing.assert_array_equal(fields.pixels[row, 0].cpu().numpy(), stack(well, site, "DNA").max(axis=0))
    assert seen == [("A01", 1), ("A01", 5), ("B03", 2)]
    assert finished == ["A01", "B03"]
    assert problems[0] == ("A01", 2, "ER", "plane 3: no ER image: the file is missing")
    assert problems[1][:3] == ("B03", 1, "DNA")
    assert problems[1][3].startswith("plane 2: unreadable DNA image")
    assert problems[2] == ("B03", 5, "RNA", "plane 1: no RNA image is listed in Index.idx.xml")


def test_planes_of_each_channel(tmp_path: Path, device: Device) -> None:
    write_planes(tmp_path)
    settings = PlateSettings(projection="max", planes={"DNA": (2,), "ER": (1, 3)})
    plate = find_plate("P1", tmp_path, settings)
    assert plate.planes == ((2,), (1, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3))
    assert any("ER 1, 3" in note and "RNA 1-3" in note for note in plate.notes)
    for (well, site), (pixels, _) in rows(plate, batch=4, device=device).items():
        np.testing.assert_array_equal(pixels[0], stack(well, site, "DNA")[1])
        np.testing.assert_array_equal(pixels[1], stack(well, site, "ER")[[0, 2]].max(axis=0))
        np.testing.assert_array_equal(pixels[4], stack(well, site, "Mito").max(axis=0))
    one = find_plate("P1", tmp_path, PlateSettings(plane=1, planes={"DNA": (3,)}))
    pixels, _ = rows(one, device=device)["A01", 2]
    np.testing.assert_array_equal(pixels[0], stack("A01", 2, "DNA")[2])
    np.testing.assert_array_equal(pixels[2], stack("A01", 2, "RNA")[0])


def test_choices_that_contradict_are_refused(tmp_path: Path) -> None:
    write_planes(tmp_path)
    for settings, message in (
        (PlateSettings(), r"planes \[1, 2, 3\] of DNA; set plate.plane"),
        (PlateSettings(plane=4), r"planes \[1, 2, 3\] of DNA, not plate.plane = 4"),
        (PlateSettings(plane=1, projection="max"), "plate.plane = 1 reads one plane, and plate.projection = 'max'"),
        (PlateSettings(planes={"DNA": (1, 2)}), "plate.planes gives DNA the planes"),
        (PlateSettings(projection="max", planes={"DNA": (1, 7)}), "not plate.planes = 7"),
        (PlateSettings(projection="max", planes={"Brightfield": (1,)}), "plate.channels has DNA, ER"),
        (PlateSettings(projection="max", planes={"DNA": (1, 1)}), "1 to 256 different planes"),
        (PlateSettings(projection="max", planes={"DNA": ()}), "1 to 256 different planes"),
    ):
        with pytest.raises(ValueError, match=message):
            find_plate("P1", tmp_path, settings)


def test_settings_of_planes_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[plate]\nprojection = "mean"\ntime = 2\n[plate.planes]\ndna = [1, 2]\nBrightfield = 4\n')
    plate = load_config(path).plate
    assert (plate.projection, plate.time, plate.planes) == ("mean", 2, {"DNA": (1, 2), "Brightfield": (4,)})
    path.write_text('[plate]\nprojection = "sum"\n')
    with pytest.raises(ValueError, match="projection: expected one of none, max, mean"):
        load_config(path)


def test_one_plane_is_read_as_without_a_projection(tmp_path: Path) -> None:
    images = tmp_path / "P1" / "Images"
    images.mkdir(parents=True)
    for channel in NUMBERS.values():
        write_tiff(images / image_name("A01", 1, channel), plane_of("A01", 1, channel, 1))
    plate = find_plate("P1", tmp_path, PlateSettings(projection="mean"))
    assert plate.planes == ()
    assert any("nothing to do" in note for note in plate.notes)
    ((pixels, scales),) = rows(plate).values()
    assert (pixels.dtype, scales) == (np.uint16, (65535.0,) * 5)


def test_checks_are_the_greatest_of_the_planes_and_odd_planes_are_called_by_number(tmp_path: Path, device: Device) -> None:
    images = write_planes(tmp_path, ("A01",), (1,))
    flat = np.full(SHAPE, 7, np.uint16)
    full = np.full(SHAPE, 65535, np.uint16)
    full[0] = 1
    write_tiff(images / image_name("A01", 1, NUMBERS["DNA"], 2), flat)
    write_tiff(images / image_name("A01", 1, NUMBERS["ER"], 3), full)
    plate = find_plate("P1", tmp_path, PlateSettings(projection="max"))
    (fields,) = list(read_fields(plate, device=device))
    reasons = [(p.channel, p.reason) for p in fields.flags]
    assert ("DNA", "plane 2: constant: every count is 7") in reasons
    assert any(c == "ER" and r.startswith("plane 3: saturated: 97") for c, r in reasons)
    assert fields.checks[0][1][0] == pytest.approx(36 / 37)
    plates = [find_plate("P1", tmp_path, PlateSettings(plane=p)) for p in PLANES]
    singles = [next(iter(read_fields(p, device=device))).checks[0][2][1] for p in plates]
    assert fields.checks[0][2][1] == max(singles)


def test_planes_of_different_full_scale_are_on_no_common_scale(tmp_path: Path) -> None:
    images = write_planes(tmp_path, ("A01",), (1, 2))
    path = images / image_name("A01", 1, NUMBERS["AGP"], 2)
    write_tiff(path, plane_of("A01", 1, NUMBERS["AGP"], 2) // 16, extratags=[(281, "H", 1, 4095, True)])
    plate = find_plate("P1", tmp_path, PlateSettings(projection="max"))
    (fields,) = list(read_fields(plate, batch=8))
    assert fields.sites == (("A01", 2),)
    assert "differ in full scale (4095 to 65535)" in fields.quarantined[0].reason


def test_illumination_is_estimated_from_the_projections(tmp_path: Path, device: Device) -> None:
    write_planes(tmp_path)
    same = tmp_path / "same" / "P1" / "Images"
    same.mkdir(parents=True)
    for well in ("A01", "B03"):
        for site in (1, 2, 5):
            for channel, number in NUMBERS.items():
                write_tiff(same / image_name(well, site, number), stack(well, site, channel).max(axis=0))
    projected = open_illumination(find_plate("P1", tmp_path, PlateSettings(projection="max")), device=device)
    plain = open_illumination(find_plate("P1", tmp_path / "same"), device=device)
    assert torch.equal(projected.functions, plain.functions)
    mean = open_illumination(find_plate("P1", tmp_path, PlateSettings(projection="mean")), device=device)
    assert mean.functions.shape == (5, *SHAPE)
    assert not torch.equal(mean.functions, plain.functions)


def test_time_points_are_plates_of_their_own_name(tmp_path: Path) -> None:
    images = tmp_path / "P1" / "Images"
    images.mkdir(parents=True)
    for time in (1, 2):
        for channel in NUMBERS.values():
            name = image_name("A01", 1, channel).replace("sk1", f"sk{time}")
            write_tiff(images / name, plane_of("A01", 1, channel, time))
    with pytest.raises(ValueError, match=r"time points \[1, 2\]; set plate.time"):
        find_plate("P1", tmp_path)
    with pytest.raises(ValueError, match=r"time points \[1, 2\], not plate.time = 3"):
        find_plate("P1", tmp_path, PlateSettings(time=3))
    for time in (1, 2):
        plate = find_source("P1", tmp_path, PlateSettings(time=time))
        assert plate.barcode == f"P1_t{time}"
        assert find_source(f"P1_t{time}", tmp_path, PlateSettings(time=time)).sites == plate.sites
        ((pixels, _),) = rows(plate).values()
        np.testing.assert_array_equal(pixels[0], plane_of("A01", 1, NUMBERS["DNA"], time))


def test_planes_of_a_table(tmp_path: Path) -> None:
    images = write_planes(tmp_path)
    (images / "Index.idx.xml").unlink()
    lines = ["Metadata_Plate,Metadata_Well,Metadata_Site,Metadata_PlaneID," + ",".join(f"FileName_Orig{c}" for c in NUMBERS)]
    for well in ("A01", "B03"):
        for site in (1, 2):
            for plane in PLANES:
                names = ",".join(image_name(well, site, n, plane) for n in NUMBERS.values())
                lines.append(f"P1,{well},{site},{plane},{names}")
    (images / "load_data.csv").write_text("\n".join(lines))
    plate = find_plate("P1", images, PlateSettings(projection="max"))
    assert plate.channel_source == "load_data.csv"
    fields = rows(plate)
    assert len(fields) == 4
    np.testing.assert_array_equal(fields["B03", 2][0][3], stack("B03", 2, "AGP").max(axis=0))
    (images / "load_data.csv").write_text("\n".join([*lines, lines[-1]]))
    with pytest.raises(ValueError, match="B03 site 2 Metadata_PlaneID 3 appears twice"):
        find_plate("P1", images, PlateSettings(projection="max"))


def test_names_that_are_missing_are_said_with_their_plane(tmp_path: Path) -> None:
    images = write_planes(tmp_path)
    (images / "Index.idx.xml").unlink()
    (images / image_name("B03", 5, NUMBERS["RNA"], 2)).unlink()
    plate = find_plate("P1", tmp_path, PlateSettings(projection="max"))
    bad = [p for fields in read_fields(plate) for p in fields.quarantined]
    assert [(p.well, p.site, Path(p.file).name) for p in bad] == [("B03", 5, image_name("B03", 5, NUMBERS["RNA"], 2))]


@pytest.mark.parametrize("together", [False, True])
def test_planes_and_times_of_an_ome_zarr_plate(tmp_path: Path, together: bool) -> None:
    """Maximum, mean and planes by channel are NumPy's of the arrays themselves, at either time."""
    images = tmp_path / "P1" / "Images"
    images.mkdir(parents=True)
    for site in (1, 2):
        for channel in NUMBERS.values():
            write_tiff(images / image_name("A01", site, channel), plane_of("A01", site, channel, 1))
    root = write_ome_plate(tmp_path / "P1.zarr", find_plate("P1", tmp_path), together=together)
    whole = {}
    for field in ("0", "1"):
        group = zarr.open_group(root / "A" / "1" / field, mode="r+")
        array = group["0"]
        pixels = np.random.default_rng(int(field)).integers(0, 65536, (2, 5, 3, *SHAPE), dtype=np.uint16)
        array.resize(pixels.shape)  # t, c, z, y, x
        array[...] = pixels
        whole[int(field) + 1] = pixels[:, ::-1]  # the file has the channels in the other order
    with pytest.raises(ValueError, match=r"time points \[1, 2\]; set plate.time"):
        find_source("P1", root, PlateSettings(projection="max"))
    for time in (1, 2):
        for site in (1, 2):
            planes = whole[site][time - 1]
            largest = find_source("P1", root, PlateSettings(time=time, projection="max"))
            assert largest.barcode == f"P1_t{time}"
            np.testing.assert_array_equal(rows(largest)["A01", site][0], planes.max(axis=1))
            mean = find_source("P1", root, PlateSettings(time=time, projection="mean"))
            np.testing.assert_array_equal(rows(mean)["A01", site][0], planes.sum(axis=1, dtype=np.int32))
            some = find_source("P1", root, PlateSettings(time=time, projection="max", planes={"DNA": (2,), "ER": (1, 3)}))
            np.testing.assert_array_equal(rows(some)["A01", site][0][0], planes[0, 1])
            np.testing.assert_array_equal(rows(some)["A01", site][0][1], planes[1, [0, 2]].max(axis=0))
            one = find_source("P1", root, PlateSettings(time=time, plane=3))
            np.testing.assert_array_equal(rows(one)["A01", site][0], planes[:, 2])


@pytest.mark.parametrize("n_pixels", [1, 37 * 59, ITEMS, 2 * ITEMS + 5])
def test_kernels_are_numpy(device: Device, n_pixels: int) -> None:
    rng = np.random.default_rng(n_pixels)
    planes = rng.integers(0, 65536, (3, n_pixels), dtype=np.uint16)
    before = rng.integers(0, 65536, (5, n_pixels), dtype=np.uint16)
    sums = before.astype(np.int32) * 255
    places = [4, 0, 2]
    grid = 3 * -(-n_pixels // ITEMS)
    given = {"planes": device.tensor(planes), "places": device.tensor(places, torch.int32), "n_pixels": n_pixels}
    images, totals = device.tensor(before.copy()), device.tensor(sums.copy())
    device.launch("project_max", grid, **given, images=images)
    device.launch("project_sum", grid, **given, sums=totals)
    before[places] = np.maximum(before[places], planes)
    sums[places] += planes
    np.testing.assert_array_equal(images.cpu().numpy(), before)
    np.testing.assert_array_equal(totals.cpu().numpy(), sums)


def test_sums_are_corrected_as_counts_are(device: Device) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 65536, (2, 3, 31, 47), dtype=np.uint16)
    functions = rng.uniform(0.5, 4, (3, 31, 47)).astype(np.float32)
    plain = correct(device.tensor(pixels), device.tensor(functions), device=device)
    sums = correct(device.tensor(pixels.astype(np.int32)), device.tensor(functions), device=device)
    assert torch.equal(plain, sums)


def test_a_plate_of_planes_is_measured_and_records_each_file(tmp_path: Path) -> None:
    """Every plane is an input of its site, so a plane that was changed is another input."""
    write_planes(tmp_path, ("A01",), (1,))
    config = Config(plate=PlateSettings(projection="mean"))
    for _ in range(2):  # the second run finds the well there
        plate = extract(
            "P1", tmp_path, output=tmp_path / "out", config=config, illumination="none", device="cpu", quiet=True
        )
    inputs = plate.record("A01")["sites"][0]["inputs"]
    assert [i["channel"] for i in inputs[:4]] == ["DNA plane 1", "DNA plane 2", "DNA plane 3", "ER plane 1"]
    assert all(i["bytes"] > 0 for i in inputs)
    write_tiff(tmp_path / "P1" / "Images" / image_name("A01", 1, NUMBERS["ER"], 2), np.zeros(SHAPE, np.uint16))
    with pytest.raises(ValueError, match=r"(?s)measured from other files.*A01 site 1 ER plane 2"):
        extract("P1", tmp_path, output=tmp_path / "out", config=config, illumination="none", device="cpu", quiet=True)
    other = Config(plate=PlateSettings(projection="max"))
    with pytest.raises(ValueError, match=r"(?s)projection: stored mean, asked max"):
        extract("P1", tmp_path, output=tmp_path / "out", config=other, illumination="none", device="cpu", quiet=True)
