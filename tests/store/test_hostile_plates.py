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
from jumpgpu.import_cppipe import main as import_cppipe
from jumpgpu.report import main as report
from jumpgpu.storage.atomic import read_file
from jumpgpu.storage.claims import lock
from jumpgpu.store.arrays import digest
from jumpgpu.store.layout import node, sealed
from jumpgpu.store.writer import write_csv
from jumpgpu.verify import main as verify
from tests.helpers.plates import write_plate

X = "tables/cells/X/c.0.0"


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
