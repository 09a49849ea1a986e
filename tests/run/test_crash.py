"""Crashes: a run killed, a disk that fails at any step, power lost; what is left is whole, the next run ends the same."""

import errno
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jumpgpu
from jumpgpu.extract import main
from jumpgpu.storage import atomic as durable
from jumpgpu.storage import file_system
from jumpgpu.verify import main as verify
from tests.conftest import CHECKOUT
from tests.helpers.crashing import Encoded, Faulty, check, steps_of, write
from tests.helpers.plates import contents, write_images


def killed(how, n, folder):
    process = subprocess.run(
        [sys.executable, "-m", "tests.helpers.crashing", how, str(n), str(folder)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_killed_at_some_steps_of_a_commit(tmp_path):
    assert killed("steps", 12, tmp_path).startswith("12 kills")


def test_killed_at_fifty_random_moments(tmp_path):
    said = killed("times", 50, tmp_path)
    print(said)
    held = [int(n) for n in re.findall(r"\d+", said.split(":")[1])]
    assert len(held) == 50
    assert len(set(held)) > 5


@pytest.mark.slow
def test_killed_at_every_step_of_a_commit(tmp_path):
    kills, *held = map(int, re.findall(r"\d+", killed("steps", 0, tmp_path))[:4])
    print(f"{kills} kills")
    assert kills > 150
    assert min(held) > 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_at_some_steps(tmp_path, monkeypatch, number):
    layout = Encoded()
    total = steps_of(tmp_path / "whole", layout)
    whole = contents(tmp_path / "whole" / "DEMO.zarr")

    def fail():
        raise OSError(number, os.strerror(number))

    for step in random.Random(number).sample(range(total), 12):
        output = tmp_path / f"failed{step}"
        monkeypatch.setattr(durable, "os", Faulty(step, fail))
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            write(output, layout)
        monkeypatch.undo()
        assert not list(output.glob(".DEMO.run-*")), "a run that ends by an error takes its staging folder along"
        check(output, layout, whole)


def test_a_disk_that_stays_full(tmp_path, monkeypatch):
    layout = Encoded()
    total = steps_of(tmp_path / "whole", layout)

    class Full(Faulty):
        def __getattr__(self, name):
            if self.count > self.step:
                self.count = self.step
            return super().__getattr__(name)

    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    whole = contents(tmp_path / "whole" / "DEMO.zarr")
    for step in range(3, total, total // 10):
        output = tmp_path / f"full{step}"
        monkeypatch.setattr(durable, "os", Full(step, fail))
        with pytest.raises(OSError, match="No space left"):
            write(output, layout)
        monkeypatch.undo()
        assert not list(output.glob(".DEMO.run-*"))
        check(output, layout, whole)


class Journal:
    """The os module; notes what was written and what is synced, and judges every rename."""

    def __init__(self):
        self.paths, self.unsynced, self.judged = {}, set(), 0

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, *mode):
        descriptor = os.open(path, flags, *mode)
        self.paths[descriptor] = Path(path)
        if flags & os.O_CREAT:
            self.unsynced |= {Path(path), Path(path).parent}
        return descriptor

    def write(self, descriptor, data):
        self.unsynced.add(self.paths[descriptor])
        return os.write(descriptor, data)

    def fsync(self, descriptor):
        os.fsync(descriptor)
        self.unsynced.discard(self.paths[descriptor])

    def mkdir(self, path):
        os.mkdir(path)
        self.unsynced |= {Path(path), Path(path).parent}

    def sync_file_system(self, descriptor):
        assert os.fstat(descriptor)
        self.unsynced.clear()

    def rename(self, old, new):
        assert not self.below(old), "renamed before all of it was synced"
        self.judged += 1
        for directory in [old, *(p for p in Path(old).rglob("*") if p.is_dir())]:
            self.paths[directory] = directory
        os.rename(old, new)
        self.unsynced.add(Path(new).parent)

    def replace(self, old, new):
        assert Path(old) not in self.unsynced, "put in place before it was synced"
        self.judged += 1
        os.replace(old, new)
        self.unsynced.add(Path(new).parent)

    def below(self, folder):
        return {p for p in self.unsynced if p == Path(folder) or Path(folder) in p.parents}


@pytest.mark.parametrize("whole", [False, True])
def test_everything_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch, whole):
    journal = Journal()
    monkeypatch.setattr(durable, "os", journal)
    monkeypatch.setattr(durable, "syncs_whole", lambda _: whole)
    monkeypatch.setattr(durable, "sync_file_system", journal.sync_file_system)
    write(tmp_path / "out", Encoded())
    assert journal.judged == 1 + 2 * 2 + 2  # the plate; a row and a well, twice; the plate's tables and metadata at the end
    assert not journal.below(tmp_path / "out" / "DEMO.zarr"), "renamed into a folder that was not synced afterwards"


def test_a_file_system_that_cannot_be_synced(tmp_path, monkeypatch):
    layout = Encoded()
    write(tmp_path / "whole", layout)

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "syncs_whole", lambda _: True)
    monkeypatch.setattr(durable, "sync_file_system", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(tmp_path / "failed", layout)
    monkeypatch.undo()
    assert not list((tmp_path / "failed").glob(".DEMO.run-*"))
    assert check(tmp_path / "failed", layout, contents(tmp_path / "whole" / "DEMO.zarr")) == 0


class Any:
    def __contains__(self, kind):
        return True


def test_one_sync_a_well_where_the_file_system_is_known(tmp_path, monkeypatch):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        durable.sync_file_system(descriptor)
        monkeypatch.setattr(file_system, "TELLS", (2, 6))
        monkeypatch.setattr(file_system, "KNOWN", Any())
        assert durable.syncs_whole(descriptor)
        monkeypatch.setattr(file_system, "TELLS", (1000, 0))
        assert not durable.syncs_whole(descriptor), "a Linux that keeps what failed to itself"
        monkeypatch.setattr(file_system, "TELLS", (2, 6))
        monkeypatch.setattr(file_system, "KNOWN", set())
        assert not durable.syncs_whole(descriptor), "a file system of which nothing is known"
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        durable.sync_file_system(descriptor)


def arguments(tmp_path):
    write_images(tmp_path, wells=tuple(f"A{n:02d}" for n in range(1, 13)))
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number", "texture"]\n')
    paths = {"--images": "images", "--masks": "masks", "--config": "small.toml"}
    return ["--plate", "DEMO", "--illumination", "none", "--device", "cpu", "--batch", "1"] + [
        word for option, path in paths.items() for word in (option, str(tmp_path / path))
    ]


def start(command, output):
    """Start the command in a process of its own and wait until it is at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jumpgpu.extract", *command, "--output", str(output), "--quiet"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    before = set(output.glob(".DEMO.run-*"))
    while process.poll() is None and set(output.glob(".DEMO.run-*")) <= before:
        time.sleep(0.002)
    return process


def test_the_command_killed_at_work(tmp_path):
    command = arguments(tmp_path)
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    process = start(command, tmp_path / "killed")
    time.sleep(0.1)
    process.kill()
    process.wait()
    if (tmp_path / "killed/DEMO.zarr").exists():
        assert jumpgpu.open_plate(tmp_path / "killed/DEMO").verify() == []
    assert main([*command, "--output", str(tmp_path / "killed")]) == 0
    assert contents(tmp_path / "killed" / "DEMO.zarr") == contents(tmp_path / "whole" / "DEMO.zarr")


@pytest.mark.slow
def test_the_command_killed_at_random_fifty_times(tmp_path):
    said = killed("command", 50, tmp_path)
    print(said)
    held = [int(n) for n in re.findall(r"\d+", said.split(":")[1])]
    assert len(held) == 50
    assert len(set(held)) > 5


def test_verify_says_what_is_wrong(tmp_path, capsys):
    write(tmp_path, Encoded())
    assert verify([str(tmp_path / "DEMO")]) == 0
    assert capsys.readouterr().out == "DEMO  2 wells  whole\n"
    (tmp_path / "DEMO.zarr/B/02/tables/cells/X/c.0.0").write_bytes(b"")
    assert verify([str(tmp_path / "DEMO.zarr")]) == 1
    assert re.match(r"DEMO  2 wells  1 problem\n  DEMO B02: tables/cells/X/c.0.0 is not as", capsys.readouterr().out)
    assert verify([str(tmp_path / "NONE")]) == 2
    assert "no plate at" in capsys.readouterr().err
