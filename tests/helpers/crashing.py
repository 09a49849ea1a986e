"""Writes a small plate while something goes wrong at a chosen step, in a process that is killed or a disk that fails.

Run as a program it forks a child for each kill, checks what is left, and lets a second run finish:

    python -m tests.helpers.crashing steps N FOLDER    killed before N of its steps, with a seed; before each where N is 0
    python -m tests.helpers.crashing times N FOLDER    killed at N random moments, going on from what the last kill left
    python -m tests.helpers.crashing command N FOLDER  the same with the whole extract command, images to store

Wells are encoded before the fork, so that a child needs no thread.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jumpgpu.storage import atomic as durable
from jumpgpu.store.layout import Layout
from jumpgpu.store.reader import open_plate
from jumpgpu.store.writer import PlateWriter, fingerprint
from tests.helpers.plates import CHANNELS, COLUMNS, SETTINGS, contents, draw_site, write_images

WELLS = {"A01": [1], "B02": [1]}
STEPS = ("open", "write", "fsync", "mkdir", "rename", "replace")


MORE_WELLS = {f"{row}{column:02d}": [1] for row in "ABC" for column in range(1, 5)}


class Encoded(Layout):
    """A layout that has encoded its wells once for all."""

    def __init__(self, wells: Mapping[str, list[int]] = WELLS) -> None:
        self.wells = wells
        super().__init__("DEMO", COLUMNS, CHANNELS)
        print_ = fingerprint(SETTINGS)
        self.ready = {w: super(Encoded, self).well(w, [draw_site(w, s) for s in wells[w]], [], print_) for w in wells}

    def well(self, well: str, *_: Any) -> dict[str, bytes]:
        return self.ready[well]


class Faulty:
    """The os module, with something done before the n-th call that touches the disk."""

    def __init__(self, step: int, fault: Callable[[], None]):
        self.step, self.fault, self.count = step, fault, 0

    def __getattr__(self, name: str) -> Any:
        honest = getattr(os, name)
        if name not in STEPS:
            return honest

        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.count == self.step:
                self.fault()
            self.count += 1
            return honest(*arguments, **keywords)

        return call


def write(output: Path, layout: Encoded) -> None:
    """One run over the plate."""
    with PlateWriter(output, layout, SETTINGS, layout.wells) as writer:
        for well in writer.missing_wells():
            for site in layout.wells[well]:
                writer.append(draw_site(well, site))


def steps_of(folder: Path, layout: Encoded) -> int:
    """How many steps an undisturbed run takes."""
    counter = Faulty(-1, lambda: None)
    durable.os = counter  # type: ignore[assignment]
    write(folder, layout)
    durable.os = os
    return counter.count


def look(output: Path, layout: Encoded) -> int:
    """What is left is a plate of whole wells, or none. How many it holds."""
    if not (output / "DEMO.zarr").exists():
        return 0
    plate = open_plate(output / "DEMO.zarr")
    for well in plate.wells:
        for key, data in layout.well(well, []).items():
            assert (plate.path / well[:-2] / well[-2:] / key).read_bytes() == data, (well, key)
    assert plate.verify() == []
    return len(plate.wells)


def check(output: Path, layout: Encoded, whole: dict[str, bytes]) -> int:
    """Look, and let a second run make it the undisturbed plate. The wells that were there before."""
    held = look(output, layout)
    write(output, layout)
    assert contents(output / "DEMO.zarr") == whole
    assert sorted(p.name for p in output.iterdir()) == [".jumpgpu.lock", "DEMO.zarr"]
    return held


def kill_at_times(kills: int, folder: Path) -> None:
    """Kill runs at random moments, each going on from what the last left; a finished plate is begun anew."""
    layout, rng, held, finished = Encoded(MORE_WELLS), random.Random(0), [], 0
    began = time.monotonic()
    write(folder / "whole", layout)
    span = time.monotonic() - began
    whole = contents(folder / "whole" / "DEMO.zarr")
    while len(held) < kills:
        child = os.fork()
        if child == 0:
            write(folder / "killed", layout)
            os._exit(0)
        time.sleep(rng.uniform(0, span / 2))
        os.kill(child, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            held.append(look(folder / "killed", layout))
        else:
            finished += 1
            assert contents(folder / "killed" / "DEMO.zarr") == whole
            shutil.rmtree(folder / "killed")
    check(folder / "killed", layout, whole)
    print(f"{kills} kills, {finished} finished between; wells whole at each: {held}")


def in_a_child(work: Callable[[], int]) -> int:
    """Start a function in a child whose exit status it gives; the child's process number."""
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os._exit(work())
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_wells(output: Path) -> int:
    """How many wells per plate holds, all of them whole by `verify`; 0 where there is no plate."""
    if not (output / "DEMO.zarr").exists():
        return 0
    plate = open_plate(output / "DEMO.zarr")
    assert plate.verify() == []
    return len(plate.wells)


def kill_the_command(kills: int, folder: Path) -> None:
    """Kill `extract` at moments drawn over the length of an undisturbed run, each run going on from what the last left.

    The command runs in a fork of this process, which has imported it and started no thread: its start-up is spared, and the
    kills fall on its work. A run that ends before its kill is held against the undisturbed plate, and the plate begun anew.
    """
    from jumpgpu.extract import main

    write_images(folder, wells=tuple(f"A{n:02d}" for n in range(1, 13)))
    (folder / "small.toml").write_text('[features]\nfamilies = ["number", "texture"]\n')
    paths = {"--images": folder / "images", "--masks": folder / "masks", "--config": folder / "small.toml"}
    command = [*["--plate", "DEMO", "--illumination", "estimate", "--device", "cpu", "--batch", "1", "--quiet", "--output"]]
    command[:0] = [str(word) for pair in paths.items() for word in pair]
    rng, held, finished, killed = random.Random(1), [], 0, str(folder / "killed")
    began = time.monotonic()
    assert status_of(in_a_child(lambda: main([*command, str(folder / "whole")]))) == 0
    span = time.monotonic() - began
    whole = contents(folder / "whole" / "DEMO.zarr")
    while len(held) < kills:
        child = in_a_child(lambda: main([*command, killed]))
        time.sleep(rng.uniform(0, span))
        os.kill(child, signal.SIGKILL)
        if (status := status_of(child)) == -signal.SIGKILL:
            held.append(status_of(in_a_child(lambda: whole_wells(folder / "killed"))))
            assert 0 <= held[-1] <= 12, "what a kill left is no plate of whole wells"
            continue
        assert status == 0
        finished += 1
        assert contents(folder / "killed" / "DEMO.zarr") == whole
        shutil.rmtree(killed)
    assert status_of(in_a_child(lambda: main([*command, killed]))) == 0
    assert contents(folder / "killed" / "DEMO.zarr") == whole
    print(f"{kills} kills, {finished} finished between; wells whole at each: {held}")


def kill(steps: list[int], folder: Path) -> None:
    """Kill a run before each of these steps."""
    layout = Encoded()
    write(folder / "whole", layout)
    whole, held = contents(folder / "whole" / "DEMO.zarr"), []
    for step in steps:
        output = folder / "killed"
        child = os.fork()
        if child == 0:
            durable.os = Faulty(step, lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[assignment]
            write(output, layout)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), f"step {step} was never reached"
        assert os.WTERMSIG(status) == signal.SIGKILL
        held.append(check(output, layout, whole))
        shutil.rmtree(output)
    print(f"{len(steps)} kills, {held.count(0)} {held.count(1)} {held.count(2)} with 0 1 2 wells whole")


if __name__ == "__main__":
    count, place = int(sys.argv[2]), Path(sys.argv[3])
    if sys.argv[1] == "times":
        kill_at_times(count, place)
    elif sys.argv[1] == "command":
        kill_the_command(count, place)
    else:
        total = steps_of(place / "counted", Encoded())
        kill(list(range(total)) if not count else sorted(random.Random(0).sample(range(total), count)), place)
