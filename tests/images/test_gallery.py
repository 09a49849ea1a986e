"""Plates from a bucket laid out as the Cell Painting Gallery: the bits of local files, whatever the network does."""

import io
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from jumpgpu import doctor
from jumpgpu.extract import main
from jumpgpu.images.locate import find_source
from jumpgpu.settings.config import PlateSettings
from jumpgpu.storage import buckets, prefetch
from jumpgpu.storage.buckets import place_of
from jumpgpu.synthetic import SyntheticSettings, draw_plate
from tests.helpers.buckets import BATCH, GALLERY, SOURCE, Proxy, serving
from tests.helpers.image_plates import index_xml, load_data_csv
from tests.helpers.image_plates import write_plate as write_noise
from tests.helpers.plates import contents

BARCODE = "BR00117010"
CONFIG = '[features]\nfamilies = ["number"]\n'
IMAGES = f"{SOURCE}/images/{BATCH}/images"
ILLUM = f"{SOURCE}/images/{BATCH}/illum/{BARCODE}"


def stored(folder: Path) -> dict[str, bytes]:
    """Every file below a folder. Records are without what a bucket has another word for: the mark of an image's last change
    and how functions were asked for, and so without digests of records, whose other files are compared themselves."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("mark", "illumination")}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return "" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else value

    return {
        name: json.dumps(plain(json.loads(data))).encode() if name.endswith("zarr.json") else data
        for name, data in contents(folder).items()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A drawn plate of three wells, and functions for it, in a folder."""
    root = tmp_path_factory.mktemp("drawn")
    draw_plate(root / "images", BARCODE, SyntheticSettings(wells=3, sites=2, height=96, width=112, cells=3.0))
    return root


@pytest.fixture(scope="module")
def here(drawn) -> dict[str, bytes]:
    """What local files give."""
    (drawn / "small.toml").write_text(CONFIG)
    config, output = drawn / "small.toml", drawn / "here"
    truth = drawn / "images/truth" / BARCODE
    known = ["--plate", BARCODE, "--config", str(config), "--device", "cpu", "--illumination", str(truth)]
    assert main([*known, "--images", str(drawn / "images"), "--output", str(output)]) == 0
    return stored(output)


@pytest.fixture
def gallery(server, drawn, monkeypatch) -> Iterator[Proxy]:
    """The bucket with that plate, behind a proxy; the environment leads there."""
    if server.holds != str(drawn):
        fill(server, drawn)
        server.holds = str(drawn)
    monkeypatch.setattr(buckets, "PAUSE_S", 0.01)
    with serving(Proxy(server.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def fill(server, drawn: Path) -> None:
    server.empty()
    server.make(GALLERY)
    server.upload(
        next((drawn / "images").glob(f"{BARCODE}__*")), GALLERY, f"{IMAGES}/{BARCODE}__2020-11-08T18_18_00-Measurement 1"
    )
    for path in (drawn / "images/truth" / BARCODE).glob("Illum*.npy"):
        server.put(GALLERY, f"{ILLUM}/{BARCODE}_{path.name}", path.read_bytes())
    for other in (
        "cpg0000-jump-pilot/source_4/images/2020_12_02_CPJUMP1_2WeeksTimePoint",
        "cpg0016-jump/source_1/images/Batch1",
    ):
        server.put(GALLERY, f"{other}/images/BR00999999__2021-01-01-Measurement1/Images/Index.idx.xml", b"")


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    (tmp_path / "small.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return main(["--plate", BARCODE, "--config", "small.toml", "--device", "cpu", *arguments])


def local(drawn: Path, *arguments: str) -> int:
    return run("--images", str(drawn / "images"), *arguments)


def test_the_gallery_gives_the_bits_of_local_files_through_busy_servers_slow_reads_and_cut_connections(
    gallery, here, work, monkeypatch, capsys
):
    monkeypatch.setattr(buckets, "READ_S", 0.3)

    def fault(method: str, path: str, n: int) -> str | None:
        if n > 2:
            return None
        kind = sum(path.encode()) % 4
        return ["busy", "cut", "drop", "slow" if n == 1 and path.endswith(".tiff") else "busy"][kind]

    gallery.fault = fault
    assert run("--output", "there") == 0
    out, err = capsys.readouterr()
    assert stored(work / "there") == here
    assert f"illumination files in s3://{GALLERY}/{ILLUM}" in err
    assert f"images: s3://{GALLERY}/{IMAGES}/{BARCODE}__2020-11-08T18_18_00-Measurement 1/Images" in err
    assert re.search(rf"{BARCODE}  3 wells  \d+ cells", out.splitlines()[-1])
    assert gallery.count("GET", ".tiff") > 30  # some were asked for again


def test_without_functions_in_the_gallery_they_are_estimated_as_from_local_files(gallery, server, drawn, work):
    server.remove(GALLERY, f"{ILLUM}/{BARCODE}_IllumMito.npy")
    assert local(drawn, "--output", "here") == 0
    assert run("--output", "there") == 0
    assert stored(work / "there" / f"{BARCODE}.zarr") == stored(work / "here" / f"{BARCODE}.zarr")
    asked = gallery.count("GET", ".tiff")
    assert run("--output", "there", "--overwrite") == 0
    assert gallery.count("GET", ".tiff") - asked == 30  # the estimate was kept


def test_a_network_that_ends_leaves_nothing_quarantined_and_the_run_goes_on_later(gallery, here, work, monkeypatch, capsys):
    monkeypatch.setattr(prefetch, "TRIES", 2)
    assert run("--output", "out", "--wells", "A01") == 0
    gallery.fault = lambda method, path, n: "drop" if "/r01c02" in path else None
    assert run("--output", "out") == 75
    err = capsys.readouterr().err
    assert re.search(r"error: s3://\S+ .*r01c02.*cannot be reached \(2 tries.*the same command resumes the run", err)
    assert not (work / "out/quarantine.csv").exists()
    gallery.fault = lambda method, path, n: None
    asked = gallery.count("GET", ".tiff")
    assert run("--output", "out") == 0
    assert "1 of 3 wells are measured already" in capsys.readouterr().err
    assert gallery.count("GET", ".tiff") - asked == 20  # of the two other wells
    assert stored(work / "out") == here


def test_no_network_is_one_line(work, capsys, monkeypatch):
    monkeypatch.setattr(buckets, "PAUSE_S", 0.01)
    assert run() == 75
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        rf"error: {BARCODE} \(no --images was given, so the Cell Painting Gallery was asked\): s3://{GALLERY}/cpg0000.* "
        r"cannot be reached \(3 tries in \d+ s; the last: Connection refused\); check the network and try again, or give "
        r"--images FOLDER for images on this machine\n",
        err,
    )


def test_a_cache_serves_the_next_run_and_is_not_believed_blindly(gallery, here, work):
    assert run("--cache", "kept", "--output", "one") == 0
    files = sorted((work / "kept").rglob("*.tiff"))
    assert len(files) == 30
    assert not list((work / "kept").rglob(".*"))
    files[3].write_bytes(files[3].read_bytes()[:-1])  # a copy that was cut off
    gallery.asked.clear()
    assert run("--cache", "kept", "--output", "two") == 0
    assert gallery.count("GET", ".tiff") == 1
    assert stored(work / "one") == stored(work / "two") == here
    plate = find_source(BARCODE, files[0].parents[1], PlateSettings())  # the cache is a plate's folder too
    assert len(plate.sites) == 6


def test_a_missing_or_broken_object_costs_its_site(gallery, server, drawn, work, tmp_path):
    folder = f"{IMAGES}/{BARCODE}__2020-11-08T18_18_00-Measurement 1/Images"
    copy = tmp_path / "copy"
    shutil.copytree(drawn / "images", copy)
    files = sorted(copy.rglob("*.tiff"))
    files = [f for f in files if f.parent.name == "Images"]
    server.remove(GALLERY, f"{folder}/{files[0].name}")
    files[0].unlink()
    broken = files[12].read_bytes()[:-100]
    server.put(GALLERY, f"{folder}/{files[12].name}", broken)
    files[12].write_bytes(broken)
    assert run("--output", "there") == 3
    assert run("--images", str(copy), "--illumination", str(copy / "truth" / BARCODE), "--output", "here") == 3
    assert stored(work / "there") == stored(work / "here")
    assert files[0].name in (work / "there/quarantine.csv").read_text()


def test_an_archived_object_costs_its_site_and_lost_credentials_end_the_run(gallery, work, capsys):
    gallery.fault = lambda method, path, n: "archived" if path.endswith("r01c03f02p01-ch1sk1fk1fl1.tiff") else None
    assert run("--output", "there") == 3
    quarantined = (work / "there/quarantine.csv").read_text()
    assert re.search(r"A03,2,.*Mito.*The operation is not valid for the object's storage class", quarantined)
    assert len(quarantined.splitlines()) == 2
    gallery.fault = lambda method, path, n: "expired" if path.endswith(".tiff") else None
    assert run("--output", "two") == 75
    assert "may not be read: The provided token has expired." in capsys.readouterr().err
    assert not (work / "two/quarantine.csv").exists()


def test_what_was_searched_is_named_where_there_is_no_plate_or_several(gallery, server, work, capsys):
    assert main(["--plate", "BR00000000"]) == 2
    assert re.fullmatch(
        rf"error: no plate BR00000000 in the Cell Painting Gallery: searched s3://{GALLERY}/cpg0000-jump-pilot "
        rf"\(\d+ folders looked into\) and s3://{GALLERY}/cpg0016-jump \(\d+ folders looked into\); give --images "
        rf"s3://{GALLERY}/PROJECT .*\n",
        capsys.readouterr().err,
    )
    server.put(GALLERY, f"{IMAGES}/{BARCODE}__2020-11-09T00_00_00-Measurement 2/Images/x", b"")
    assert run() == 2
    assert "has 2 measurements" in (err := capsys.readouterr().err)
    assert "give --images the one to read" in err
    one = f"s3://{GALLERY}/{IMAGES}/{BARCODE}__2020-11-08T18_18_00-Measurement 1"
    assert run("--images", one, "--dry-run") == 0
    assert "30 files" in capsys.readouterr().out


@pytest.mark.parametrize("level", ["cpg0000-jump-pilot", SOURCE, f"{SOURCE}/images/{BATCH}", IMAGES])
def test_a_url_may_name_any_level(gallery, level):
    plate = find_source(BARCODE, f"s3://{GALLERY}/{level}/", PlateSettings())
    assert len(plate.sites) == 6
    assert plate.channel_source == "Index.idx.xml"
    assert str(plate.illumination).endswith(f"/illum/{BARCODE}")


@pytest.mark.parametrize("name", ["Index.ref.xml", "index.IDX.xml", "ImageIndex.ColumbusIDX.xml", "Index (1).xml"])
def test_an_index_of_any_spelling_says_the_channels(gallery, server, tmp_path, name):
    """And one under another name is refused, in place of CPJUMP1's channel numbers."""
    folder = f"{SOURCE}/images/{BATCH}/images/BR00000001__2020-11-08T18_18_00-Measurement1"
    server.upload(write_noise(tmp_path / "noise"), GALLERY, f"{folder}/Images")
    rotated = {1: "HOECHST 33342", 2: "Alexa 488", 3: "488 long", 4: "Alexa 568", 5: "Alexa 647"}
    server.put(GALLERY, f"{folder}/{name}", index_xml(stains=rotated).encode())
    if name == "Index (1).xml":
        with pytest.raises(ValueError, match=r"BR00000001: s3://.*Index \(1\).xml: an index file with an unknown name"):
            find_source("BR00000001", None, PlateSettings())
        return
    plate = find_source("BR00000001", None, PlateSettings())
    assert plate.channel_source == name
    assert plate.channel_labels[0] == "ch1 HOECHST 33342"
    assert not plate.warnings


def test_a_table_alone_finds_images_in_folders_of_other_names(gallery, server, tmp_path):
    folder = "cpg0016-jump/source_9/images/20210829-Run7/images/GR00004416/GR00004416__2021-08-29-Measurement 1/Images"
    server.upload(write_noise(tmp_path / "noise"), GALLERY, folder)
    columns = pandas.read_csv(io.StringIO(load_data_csv(f"s3://{GALLERY}/{folder}/")))
    place = "cpg0016-jump/source_9/workspace/load_data_csv/20210829-Run7/BR00000001"
    server.put(GALLERY, f"{place}/load_data_with_illum.parquet", columns.to_parquet())
    plate = find_source("BR00000001", None, PlateSettings())
    assert len(plate.sites) == 6
    assert plate.images.status(plate.sites[5].files[4])[0] > 1000
    server.put(GALLERY, f"{place}/load_data_with_illum.parquet", columns.to_parquet()[:-40])
    with pytest.raises(ValueError, match="not a Parquet table"):
        find_source("BR00000001", None, PlateSettings())


def test_the_doctor_asks_the_gallery_only_when_told(gallery, tmp_path, capsys, monkeypatch):
    doctor.main(["--output", str(tmp_path), "--no-speed"])
    assert gallery.asked == {}
    capsys.readouterr()
    doctor.main(["--output", str(tmp_path), "--gallery", "--no-speed"])
    said = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"ok +gallery +s3://{GALLERY} answers in \d+\.\d s: cpg0000-jump-pilot, cpg0016-jump", said)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    doctor.main(["--output", str(tmp_path), "--gallery", "--no-speed"])
    assert re.match(r"note +gallery +s3://\S+ cannot be reached", capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("kind", ["urls", "cluster", "parquet", "names"])
def test_plates_without_an_index_are_read_by_table_or_name(gallery, server, tmp_path, kind):
    folder = f"{SOURCE}/images/{BATCH}/images/BR00000001__2020-11-08T18_18_00-Measurement1/Images"
    server.upload(write_noise(tmp_path / "noise"), GALLERY, folder)
    table = f"{SOURCE}/workspace/load_data_csv/{BATCH}/BR00000001/load_data.csv"
    if kind == "urls":
        server.put(GALLERY, table, load_data_csv(f"s3://{GALLERY}/{folder}").encode())
    if kind == "cluster":
        elsewhere = f"/home/ubuntu/bucket/projects/2019_07_11_JUMP/{BATCH}/images/{'/'.join(folder.split('/')[-2:])}"
        server.put(GALLERY, table, load_data_csv(elsewhere).encode())
    if kind == "parquet":
        columns = pandas.read_csv(io.StringIO(load_data_csv(f"s3://{GALLERY}/{folder}/")))
        server.put(GALLERY, table.replace(".csv", "_with_illum.parquet"), columns.to_parquet())
    plate = find_source("BR00000001", None, PlateSettings())
    assert [(s.well, s.site) for s in plate.sites] == [(w, s) for w in ("A01", "B03") for s in (1, 2, 5)]
    assert plate.channel_source.startswith("load_data") == (kind != "names")
    file = plate.sites[0].files[0]
    assert plate.images.relative(file).rpartition("/")[2] == "r01c01f01p01-ch5sk1fk1fl1.tiff"
    assert plate.images.read(file, 100_000) == next((tmp_path / "noise").rglob("r01c01f01p01-ch5*")).read_bytes()


def test_names_sizes_and_functions_from_a_bucket_are_not_believed(gallery, server, work, tmp_path, capsys):
    folder = f"{IMAGES}/{BARCODE}__2020-11-08T18_18_00-Measurement 1/Images"
    index = server.get(GALLERY, f"{folder}/Index.idx.xml").decode()
    server.put(
        GALLERY, f"{folder}/Index.idx.xml", index.replace("<URL>r01c01f01p01-ch1", "<URL>../../r01c01f01p01-ch1", 1).encode()
    )
    assert run() == 2
    assert "which is not a file name; refused" in capsys.readouterr().err
    server.put(GALLERY, f"{folder}/Index.idx.xml", index.encode())

    plate = find_source(BARCODE, None, PlateSettings(), tmp_path / "cache")
    with pytest.raises(ValueError, match="outside of"):
        plate.images.read(f"s3://{GALLERY}/cpg0016-jump/source_1/images/x.tiff", 100)
    with pytest.raises(ValueError, match="outside of"):
        plate.images.read("/etc/passwd", 10_000)
    with pytest.raises(ValueError, match="more than 100"):
        plate.images.read(plate.sites[0].files[0], 100)
    for name in ("..", "a\\b", "a:b", "a\x07"):
        with pytest.raises(ValueError, match="cannot be a file's name"):
            prefetch.cached(tmp_path / "cache", buckets.RemotePath(GALLERY, f"a/{name}/b"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "cache" / GALLERY / "evil").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of the cache"):
        prefetch.keep(tmp_path / "cache", tmp_path / "cache" / GALLERY / "evil" / "x", b"1")
    assert not list(outside.iterdir())

    for bad, message in (
        (np.ones((3, 4), np.float32), r"shape \(3, 4\); expected float32 or float64 of shape \(96, 112\)"),
        (np.array([{"a": 1}] * 2, dtype=object), "object of shape"),
        (np.ones((900, 900)), "bytes, more than"),
        (np.zeros((96, 112), np.float32), "not positive numbers"),
    ):
        buffer = io.BytesIO()
        np.save(buffer, bad, allow_pickle=True)
        server.put(GALLERY, f"{ILLUM}/{BARCODE}_IllumER.npy", buffer.getvalue())
        assert run("--output", "out") == 2
        err = capsys.readouterr().err
        assert re.search(message, err)
        assert "IllumER.npy cannot be used" in err
    table = f"{SOURCE}/workspace/load_data_csv/{BATCH}/BR00000001/load_data.csv"
    for evil in (
        "s3://other-bucket/x",
        f"s3://{GALLERY}/cpg0016-jump/source_1/images",
        "/etc",
        f"s3://{GALLERY}/{SOURCE}/../x",
    ):
        server.put(GALLERY, table, load_data_csv(evil).encode())
        with pytest.raises(ValueError, match=r"outside of s3://|only folders and s3|no place in a URL"):
            find_source("BR00000001", None, PlateSettings())


def test_files_fetched_ahead_stay_within_their_bytes(gallery, monkeypatch):
    plate = find_source(BARCODE, None, PlateSettings())
    files = [f for s in plate.sites for f in s.files]
    sizes = {f: plate.images.status(f)[0] for f in files}
    budget = 3 * max(sizes.values())
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", budget)
    gallery.maximum = 0
    with plate.images.ahead(files, 1 << 20):
        coming = plate.images._coming
        for number, file in enumerate(files):
            assert 0 < coming.held <= budget
            assert len(plate.images.read(file, 1 << 20)) == sizes[file]
            if number == 4:
                assert len(plate.images.read(files[20], 1 << 20)) == sizes[files[20]]  # out of turn
    assert coming.held == 0
    assert 2 <= gallery.maximum <= 5


def test_many_files_are_fetched_at_once(gallery):
    plate = find_source(BARCODE, None, PlateSettings())
    files = [f for s in plate.sites for f in s.files]
    release = threading.Event()
    gallery.fault = lambda method, path, n: release.wait(5) and None if path.endswith(".tiff") else None
    with plate.images.ahead(files, 1 << 20):
        for _ in range(500):
            if gallery.under_way >= 12:
                break
            threading.Event().wait(0.01)
        seen = gallery.under_way
        release.set()
        assert [len(plate.images.read(f, 1 << 20)) for f in files] == [plate.images.status(f)[0] for f in files]
    assert seen >= 12


def test_pauses_grow_and_differ(gallery, monkeypatch):
    asked: list[float] = []
    monkeypatch.setattr(buckets, "PAUSE_S", 0.05)
    gallery.fault = lambda method, path, n: asked.append(time.monotonic()) or "busy"
    with pytest.raises(ConnectionError, match=r"8 tries.*reduce your request rate"):
        place_of(f"s3://{GALLERY}/x").listing(tries=8)
    pauses = np.diff(asked)
    assert len(pauses) == 7  # and no other layer tries again
    assert (pauses >= 0.05).all()
    assert len(set(pauses.round(3))) > 3
    assert pauses.max() > 2 * 0.05


def test_errors_are_the_buckets_own_in_pythons_words(gallery, monkeypatch):
    place = place_of(f"s3://{GALLERY}/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    for fault, kind, message in (
        ("archived", PermissionError, "not valid for the object's storage class"),
        ("expired", PermissionError, "token has expired"),
        ("elsewhere", PermissionError, "another region; set AWS_REGION"),
    ):
        gallery.fault = lambda method, path, n, fault=fault: fault
        for call in (place.read_bytes, place.listing, lambda: place.write_bytes(b"1")):
            gallery.asked.clear()
            with pytest.raises(kind, match=message) as caught:
                call()
            assert caught.value.filename == str(place)
            assert sum(gallery.asked.values()) == 1  # what will not go away is not asked for again
    gallery.fault = lambda method, path, n: None
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket"):
        place_of("s3://no-such-bucket/x").listing()


def test_a_key_that_no_path_can_have_is_named(gallery, server):
    server.put(GALLERY, "odd//key", b"1")
    with pytest.raises(ValueError, match=r"s3://cellpainting-gallery/odd: .*odd//.* empty path segment"):
        place_of(f"s3://{GALLERY}/odd").listing()


def test_a_read_goes_on_where_the_connection_was_cut(gallery, server):
    data = bytes(range(256)) * 20_000
    server.put(GALLERY, "large", data)
    gallery.fault = lambda method, path, n: "cut" if n < 3 else None
    assert place_of(f"s3://{GALLERY}/large").read_bytes() == data
    assert gallery.ranges[1:] == [f"bytes={len(data) // 2}-{len(data) - 1}", f"bytes={len(data) * 3 // 4}-{len(data) - 1}"]


def test_batches_are_remembered_for_a_day_and_asked_again_for_a_plate_that_is_not_there(gallery, server, tmp_path):
    cache = tmp_path / "cache"
    find_source(BARCODE, None, PlateSettings(), cache)
    gallery.asked.clear()
    find_source(BARCODE, None, PlateSettings(), cache)
    remembered = gallery.count("GET")
    notes = list(cache.rglob("folders.json"))
    assert [json.loads(n.read_text()) for n in notes if n.parent.name == "images"] != []
    for note in notes:
        note.write_text('["../../x", 3]')
    find_source(BARCODE, None, PlateSettings(), cache)
    assert gallery.count("GET") - remembered > remembered  # what was written there was not believed
    new = f"{SOURCE}/images/2026_01_01_New/images/BR00117099__2026-01-01-Measurement1/Images"
    server.put(GALLERY, f"{new}/r01c01f01p01-ch1sk1fk1fl1.tiff", b"x")
    with pytest.raises(ValueError, match="no DNA channel"):
        find_source("BR00117099", None, PlateSettings(), cache)
    assert os.listdir(cache) == [GALLERY]
