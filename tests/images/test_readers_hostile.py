"""Hostile indexes, images, tables and folders: a clear error or a quarantined site, within bounds of memory and time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import open_illumination
from jumpgpu.images.illumination_files import read_function
from jumpgpu.images.label_files import read_labels
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import PlateSettings
from tests.helpers.hostile import labels, tables, tiffs, xml
from tests.helpers.image_plates import NUMBERS, image_name, index_xml, load_data_csv, noise, write_plate, write_tiff

BARCODE = "BR00000001"
UNNEEDED = xml.unneeded()
INDEXES, IMAGES, TABLES = xml.corpus(), tiffs.corpus(), tables.corpus()
SECONDS = 5.0  # for one small hostile file on a loaded machine; each takes far less


@pytest.fixture(scope="module")
def plate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    write_plate(root, wells=("A01",), sites=(1, 2))
    return root


@pytest.mark.parametrize("name", INDEXES)
def test_hostile_indexes_are_refused(plate_folder: Path, name: str) -> None:
    index = next(plate_folder.glob("*/Images")) / "Index.idx.xml"
    index.write_bytes(INDEXES[name])
    start = time.monotonic()
    try:
        with pytest.raises(ValueError, match=r".") as caught:
            list(read_fields(find_plate(BARCODE, plate_folder)))
        assert len(str(caught.value)) < 1000
        assert time.monotonic() - start < SECONDS
    finally:
        index.unlink()


@pytest.mark.parametrize("name", UNNEEDED)
def test_what_is_not_needed_does_not_refuse(plate_folder: Path, name: str, device: Device) -> None:
    index = next(plate_folder.glob("*/Images")) / "Index.idx.xml"
    index.write_bytes(UNNEEDED[name])
    start = time.monotonic()
    try:
        plate = find_plate(BARCODE, plate_folder)
        assert time.monotonic() - start < SECONDS
        if "position" in name:
            assert plate.sites[0].x_um is None
            assert plate.notes == ("Index.idx.xml: 30 positions of images are not lengths; they are left out",)
        else:
            with pytest.raises(ValueError, match=r"BR00000001 DNA: the FlatfieldProfile cannot be read: .*Index.idx.xml"):
                open_illumination(plate, "flatfield", device=device, channels=["DNA"])
    finally:
        index.unlink()


@pytest.mark.parametrize("name", TABLES)
def test_hostile_tables_are_refused(plate_folder: Path, tmp_path: Path, name: str) -> None:
    table = tmp_path / "load_data.csv"
    table.write_bytes(TABLES[name])
    start = time.monotonic()
    with pytest.raises(ValueError, match=r".") as caught:
        find_plate(BARCODE, table)
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("ignore")
def test_hostile_images_cost_their_site(tmp_path: Path, name: str) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1, 2))
    (images / image_name("A01", 1, NUMBERS["ER"])).write_bytes(IMAGES[name])
    start = time.monotonic()
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path), workers=1))
    assert time.monotonic() - start < SECONDS
    assert batch.sites == (("A01", 2),)
    (problem,) = batch.quarantined
    assert (problem.well, problem.site, problem.channel) == ("A01", 1, "ER")
    assert "unreadable ER image: " in problem.reason
    assert len(problem.reason) < 300


@pytest.mark.parametrize("name", tiffs.harmless())
def test_harmless_faults_are_read(tmp_path: Path, name: str) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1,))
    (images / image_name("A01", 1, NUMBERS["ER"])).write_bytes(tiffs.harmless()[name])
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path)))
    assert [f.reason for f in batch.flags] == ["zero-filled: every count is 0"]


def test_a_description_that_names_other_files_is_not_followed(tmp_path: Path) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1,))
    description = (
        '<?xml version="1.0"?><OME><Image><Pixels><TiffData><UUID FileName="/etc/passwd"/></TiffData></Pixels></Image></OME>'
    )
    write_tiff(images / image_name("A01", 1, 5), noise("A01", 1, 5), description=description)
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path), channels=["DNA"]))
    np.testing.assert_array_equal(batch.pixels[0, 0].numpy(), noise("A01", 1, 5))


MEASURED = """
import resource, sys, time
from pathlib import Path
from jumpgpu.images.reader import read_fields
from jumpgpu.images.locate import find_plate
root = Path(sys.argv[1])
list(read_fields(find_plate("BR00000001", root / "good"), workers=0))  # everything imported, everything touched
for kind in ("indexes", "tables", "images"):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    for path in sorted((root / kind).iterdir()):
        try:
            list(read_fields(find_plate("BR00000001", path), workers=0))
        except ValueError:
            pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - start)
"""


def test_memory_and_time_are_bounded(tmp_path: Path) -> None:
    """Each corpus in a fresh process: at most 60 MB more than before it, in 60 s; files have up to 15 MB."""
    write_plate(tmp_path / "good", wells=("A01",), sites=(1,))
    for k, data in enumerate(INDEXES.values()):
        folder = tmp_path / f"indexes/{k}/{BARCODE}"
        folder.mkdir(parents=True)
        (folder / "Index.idx.xml").write_bytes(data)
    (tmp_path / "tables").mkdir()
    row = load_data_csv(".").split("\n")[1]
    large = "\n".join([tables.HEADER, *(row.replace("A01,1", f"A01,{k}") for k in range(132_000))])
    for k, data in enumerate([*TABLES.values(), large.encode(), large[:3_000_000].replace(BARCODE, "BR9").encode()]):
        (tmp_path / f"tables/{k}.csv").write_bytes(data)
    for k, data in enumerate([*IMAGES.values(), *tiffs.bombs().values()]):
        folder = write_plate(tmp_path / f"images/{k}", wells=("A01",), sites=(1,))
        (folder / image_name("A01", 1, 5)).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for line in done.stdout.splitlines():
        kilobytes, seconds = line.split()
        assert int(kilobytes) < 60_000, done.stdout
        assert float(seconds) < 60, done.stdout


def test_symlinked_metadata_and_folders_stay_inside(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    images = write_plate(outside)
    root.mkdir()
    (root / BARCODE).symlink_to(images.parent)
    with pytest.raises(ValueError, match="outside the images root"):
        find_plate(BARCODE, root)
    (root / BARCODE).unlink()
    inner = write_plate(root)
    secret = tmp_path / "secret.xml"
    secret.write_text(index_xml())
    (inner / "Index.idx.xml").symlink_to(secret)
    with pytest.raises(ValueError, match="outside the images root"):
        find_plate(BARCODE, root)
    (inner / "Index.idx.xml").unlink()
    (inner / "real.xml").write_text(index_xml())
    (inner / "Index.idx.xml").symlink_to("real.xml")
    assert len(find_plate(BARCODE, root).sites) == 6


def test_a_remapped_prefix_is_a_root_and_no_more(tmp_path: Path) -> None:
    images = write_plate(tmp_path / "data", wells=("A01",), sites=(1,))
    table = tmp_path / "elsewhere/load_data.csv"
    table.parent.mkdir()
    settings = PlateSettings(remap={"/cluster": str(images)})
    table.write_text(load_data_csv("/cluster", wells=("A01",), sites=(1,)))
    (batch,) = list(read_fields(find_plate(BARCODE, table, settings)))
    assert len(batch.sites) == 1
    for folder in ("/cluster/../..", "/clusterx", "/cluster/../../elsewhere"):
        table.write_text(load_data_csv(folder, wells=("A01",), sites=(1,)))
        with pytest.raises(ValueError, match=r"refused|outside"):
            find_plate(BARCODE, table, settings)


def test_pipes_and_devices_do_not_block(tmp_path: Path) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1, 2))
    path = images / image_name("A01", 1, 1)
    path.unlink()
    os.mkfifo(path)
    (batch,) = list(read_fields(find_plate(BARCODE, tmp_path)))
    assert batch.sites == (("A01", 2),)
    assert "not a regular file" in batch.quarantined[0].reason


def test_file_names_past_the_plate(tmp_path: Path) -> None:
    images = write_plate(tmp_path, wells=("A01",), sites=(1,))
    write_tiff(images / "r77c01f01p01-ch5sk1fk1fl1.tiff", noise("A01", 1, 5))
    with pytest.raises(ValueError, match=rf"{BARCODE}: .*row 77"):
        find_plate(BARCODE, tmp_path)


def test_zip_bomb_as_illumination(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "IllumDNA.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("illum.npy", bytes(50_000_000))
    with pytest.raises(ValueError, match="larger than a float64 array"):
        read_function(path, (40, 56), "x")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../illum.npy", b"")
    with pytest.raises(ValueError, match="no array 'illum'"):
        read_function(path, (40, 56), "x")


@pytest.mark.filterwarnings("ignore")
def test_hostile_label_images_are_refused(tmp_path: Path) -> None:
    mark, folder = tmp_path / "mark", tmp_path / "masks"
    folder.mkdir()
    files: dict[str, bytes] = {f"{name}.npy": data for name, data in labels.arrays(mark).items()}
    files |= {f"{name}.tiff": data for name, data in labels.images().items()}
    paths = []
    for k, (name, data) in enumerate(files.items()):
        paths.append(folder / f"{k}{Path(name).suffix}")
        paths[-1].write_bytes(data)
    for k, write in enumerate(labels.zarrs(mark).values()):
        paths.append(folder / f"{k}.zarr")
        write(paths[-1])
    os.mkfifo(folder / "pipe.tiff")
    (folder / "link.tiff").symlink_to("/etc/passwd")
    for path, name in zip(
        [*paths, folder / "pipe.tiff", folder / "link.tiff"], [*files, *labels.zarrs(mark), "pipe", "link"], strict=True
    ):
        start = time.monotonic()
        with pytest.raises(ValueError, match=r".") as caught:
            read_labels(path, folder, labels.SIZE)
        assert len(str(caught.value)) < 400, name
        assert time.monotonic() - start < SECONDS, name
    assert not mark.exists(), "a pickle ran"
