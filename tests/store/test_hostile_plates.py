"""Stored plates that lie: bombs, records of other types, another well's table, pipes in the place of files."""

import json
import os
import resource
import shutil
import struct
import threading

import numpy as np
import pytest
from numcodecs import Blosc

import jumpgpu
from jumpgpu.config import main as config
from jumpgpu.export import main as export
from jumpgpu.extract import main as extract
from jumpgpu.import_cppipe import main as import_cppipe
from jumpgpu.report import main as report
from jumpgpu.segment import main as segment
from jumpgpu.storage import claims
from jumpgpu.storage.atomic import read_file
from jumpgpu.storage.claims import lock
from jumpgpu.store.arrays import digest
from jumpgpu.store.layout import node, sealed
from jumpgpu.store.writer import write_csv
from jumpgpu.verify import main as verify
from tests.helpers.plates import write_images, write_plate

X = "tables/cells/X/c.0.0"
DEMO = ["--plate", "DEMO", "--images", "images", "--device", "cpu", "--quiet", "--threads", "1"]


@pytest.fixture
def plate(tmp_path):
    write_plate(tmp_path, {"A01": [1, 2], "A02": [1]}, plate="P", images=True)
    return tmp_path / "P.zarr"


def reseal(folder, change):
    """Change what a group says of itself, digest and all."""
    path = folder / "zarr.json"
    attributes = json.loads(path.read_bytes())["attributes"]
    change(attributes["jumpgpu"])
    path.write_bytes(node("group", sealed(attributes)))


def put(folder, key, data):
    """Give a well's file other bytes, and its record their digest."""
    (folder / key).write_bytes(data)

    def change(record):
        record["files"][key] = {"bytes": len(data), "sha256": digest(data)}

    reseal(folder, change)


def refused(plate, capsys, said):
    """All commands that read the plate end with 2 (verify: 1), say why in a line, and take no memory worth the name."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert verify([str(plate)]) in (1, 2)
    assert export([str(plate), "--format", "csv", "--overwrite", "--quiet"]) == 2
    assert report([str(plate)]) == 2
    output = capsys.readouterr()
    assert said in output.out + output.err
    assert "Traceback" not in output.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_chunk_that_unpacks_to_gigabytes_is_not_unpacked(plate, capsys):
    bomb = Blosc("zstd", 9, Blosc.SHUFFLE).encode(np.zeros(1 << 26, np.float32))
    assert len(bomb) < 200_000
    bomb = bomb[:4] + struct.pack("<I", 2_000_000_000) + bomb[8:]
    key = "tables/cells/var/_index/c.0"
    put(plate / "A" / "01", key, bomb)
    refused(plate, capsys, "more than its files can hold")


def test_a_chunk_of_another_codec_is_refused(plate, capsys):
    key = "tables/cells/obs/Metadata_Site/c.0"
    n = sum(site["cells"] for site in jumpgpu.open_plate(plate).record("A01")["sites"])
    put(plate / "A" / "01", key, Blosc("zstd", 5, Blosc.SHUFFLE).encode(np.ones(n, np.int32)))
    assert verify([str(plate)]) == 1
    assert "a chunk is not packed by LZ4" in capsys.readouterr().out


def test_a_record_that_says_a_billion_cells(plate, capsys):
    def change(record):
        record["sites"][0]["cells"] = 10**9
        record["cells"] = 10**9 + record["sites"][1]["cells"]

    reseal(plate / "A" / "01", change)
    refused(plate, capsys, "more than its files can hold")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(cells="7"), "record.cells is '7'"),
        (lambda r: r.update(cells=True), "record.cells is 'True'"),
        (lambda r: r["sites"][0].update(cells=-1), "record.sites[0].cells is '-1'"),
        (lambda r: r.update(cells=10**6), "says 1000000 cells, and another number by site"),
        (lambda r: r.update(sites={}), "record.sites is '{}'"),
        (lambda r: r["sites"].append(7), "record.sites[2] is '7'"),
        (lambda r: r.update(quarantine=[{}]), "record.quarantine[0].site is 'None'"),
        (lambda r: r.update(nonfinite=[]), "record.nonfinite is '[]'"),
        (lambda r: r["files"].update({X: None}), f"record.files.{X} is 'None'"),
        (lambda r: r["files"][X].update(bytes="many"), f"record.files.{X}.bytes is 'many'"),
    ],
)
def test_a_records_types_are_checked(plate, capsys, change, said):
    reseal(plate / "A" / "01", change)
    refused(plate, capsys, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(channels="DNA"), "record.channels is 'DNA'"),
        (lambda r: r.update(channels=[1]), "record.channels[0] is '1'"),
        (lambda r: r.update(settings=[]), "record.settings is '[]'"),
        (lambda r: r.update(plate=7), "record.plate is '7'"),
        (lambda r: r.update(format=[]), "expected 2 or older"),
        (lambda r: r.pop("columns"), "record.columns is 'None'"),
    ],
)
def test_a_plates_types_are_checked(plate, capsys, change, said):
    reseal(plate, change)
    refused(plate, capsys, said)


def test_another_wells_table_is_noticed(plate, capsys):
    def take(record):
        record.update(well="A01")

    shutil.rmtree(plate / "A" / "01")
    shutil.copytree(plate / "A" / "02", plate / "A" / "01")
    reseal(plate / "A" / "01", take)
    assert verify([str(plate)]) == 1
    assert "P A01: Metadata_Well of its rows in cells does not match its record" in capsys.readouterr().out


def within(seconds, call):
    """What a call raises or returns, if it ends in time."""
    answer = []

    def run():
        try:
            answer.append(call())
        except (OSError, ValueError) as error:
            answer.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert answer, f"still waiting after {seconds} s"
    return answer[0]


def test_nobody_waits_for_a_pipe(tmp_path, plate, capsys):
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    assert within(20, lambda: config([str(pipe)])) == 2
    assert within(20, lambda: import_cppipe([str(pipe)])) == 2
    assert "not a regular file" in capsys.readouterr().err
    assert isinstance(within(20, lambda: read_file(pipe, 100)), ValueError)
    assert isinstance(within(20, lambda: lock(pipe)), OSError)
    assert isinstance(within(20, lambda: write_csv(pipe, "P", [], tmp_path)), ValueError)
    for key in ("A/01/zarr.json", "A/zarr.json", f"A/01/{X}"):
        kept = (plate / key).read_bytes()
        (plate / key).unlink()
        os.mkfifo(plate / key)
        assert within(60, lambda: verify([str(plate)])) in (1, 2), key
        (plate / key).unlink()
        (plate / key).write_bytes(kept)
    assert verify([str(plate)]) == 0
    assert within(20, lambda: report([str(plate), "--scores", str(pipe)])) == 2


def bomb(kind):
    """A zstd chunk of 100 kB that unpacks to 2 GB, as it says itself, or says to unpack to little."""
    data = Blosc("zstd", 9, Blosc.SHUFFLE).encode(np.zeros(1 << 26, np.float32))
    return data[:4] + struct.pack("<I", 2_000_000_000) + data[8:] if kind == "says it" else data


@pytest.mark.parametrize("kind", ["says it", "all of it"])
@pytest.mark.parametrize("key", ["1/labels/nuclei/0/c.0.0", "1/labels/cells/0/c.0.0", "1/0/c.0.0.0"])
def test_a_bomb_among_label_images_and_overviews_is_not_unpacked(plate, tmp_path, capsys, key, kind):
    """What draws: the page with its pictures, outlines of a plate that is there, label images in Python."""
    put(plate / "A" / "01", key, bomb(kind))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    verify([str(plate)])  # whose business are digests: it unpacks no picture
    assert report([str(plate), "--output", str(tmp_path / "page"), "--pictures", "all"]) in (0, 2)
    stored = jumpgpu.open_plate(plate)
    with pytest.raises(ValueError, match=r"P A01: 1/.* cannot be read: a chunk holds \d+ bytes, expected"):
        stored.labels("A01", 1) if "labels" in key else stored.overview("A01", 1)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("kind", ["says it", "all of it"])
def test_a_bomb_given_as_masks_costs_its_site(tmp_path, capsys, monkeypatch, kind):
    """A plate of OME-Zarr labels, as --masks takes it, one of whose chunks is a bomb."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, wells=("A01",), sites=(1, 2))
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    words = ["--config", "small.toml", "--illumination", "none", *DEMO]
    assert extract([*words, "--masks", "masks", "--save-labels", "--output", "first"]) == 0
    assert segment([*words[:-2], "--output", "drawn"]) == 0
    put(tmp_path / "drawn/DEMO.zarr/A/01", "2/labels/nuclei/0/c.0.0", bomb(kind))
    put(tmp_path / "first/DEMO.zarr/A/01", "2/labels/nuclei/0/c.0.0", bomb(kind))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert segment([*words[:-2], "--output", "drawn", "--outlines"]) == 2
    assert "DEMO A01: 2/labels/nuclei" in capsys.readouterr().err
    assert extract([*words, "--masks", "first/DEMO.zarr", "--output", "second"]) == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    (left_out,) = jumpgpu.open_plate("second/DEMO").quarantine.to_dict("records")
    assert (left_out["well"], int(left_out["site"])) == ("A01", 2), left_out
    capsys.readouterr()


def huge(path, shape):
    """An .npy file that declares an array and, where that is many, is as long as it by a hole."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(min(4 * int(np.prod(shape, dtype=object)), 3 << 30))


@pytest.mark.parametrize("shape", [(10**6, 10**6), (1 << 15, 1 << 14), (56 * 64,)])
def test_an_illumination_function_that_declares_much_is_not_read(tmp_path, capsys, monkeypatch, shape):
    """By every command that reads one: given in a folder, and where an estimate is kept."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, wells=("A01",), sites=(1,))
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    (tmp_path / "light").mkdir()
    channels = ("DNA", "ER", "RNA", "AGP", "Mito")
    for channel in channels:
        huge(tmp_path / "light" / f"Illum{channel}.npy", shape)
    words = DEMO
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command, more in ((extract, ["--masks", "masks"]), (segment, [])):
        config = ["--config", "small.toml"]
        assert command([*words, *config, *more, "--illumination", "light", "--output", "out"]) == 2
        assert "light/Illum" in capsys.readouterr().err
    estimated = [*words, "--masks", "masks", "--config", "small.toml", "--illumination", "estimate", "--save-overview"]
    assert extract([*estimated, "--output", "out"]) == 0
    kept = sorted((tmp_path / "out/illum/DEMO").glob("*.npy"))
    assert len(kept) == len(channels)
    for file in kept:
        huge(file, shape)
    assert report(["out/DEMO.zarr", "--images", "images"]) in (0, 2)
    assert extract([*estimated, "--output", "out", "--overwrite"]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_a_lock_that_a_stopped_process_holds_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "WAIT_S", 0.5)
    holder = lock(tmp_path / ".jumpgpu.lock")
    with pytest.raises(BlockingIOError, match="is it stopped"), claims.gate(tmp_path):
        pass
    claims.release(holder)
    with claims.gate(tmp_path):
        pass
