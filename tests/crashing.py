"""Writes a small plate while something goes wrong at a chosen step, in a process that is killed or a disk that fails.

Run as a program (`python -m tests.crashing kill STEPS FOLDER`) it forks a child for each step, has it killed there,
checks what is left, and lets a second run finish. Wells are encoded before the fork, so that a child needs no thread.
"""

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jumpgpu import durable
from jumpgpu.layout import Layout
from jumpgpu.opened import open_plate
from jumpgpu.store import PlateWriter, fingerprint

from .plates import CHANNELS, COLUMNS, SETTINGS, contents, draw_site

WELLS = {"A01": [1], "B02": [1]}
STEPS = ("open", "write", "fsync", "mkdir", "rename", "replace")


class Encoded(Layout):
    """A layout that has encoded its wells once for all."""

    def __init__(self) -> None:
        super().__init__("DEMO", COLUMNS, CHANNELS)
        print_ = fingerprint(SETTINGS)
        self.ready = {w: super(Encoded, self).well(w, [draw_site(w, s) for s in WELLS[w]], [], print_) for w in WELLS}

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


def write(output: Path, layout: Layout) -> None:
    """One run over the plate."""
    with PlateWriter(output, layout, SETTINGS, WELLS) as writer:
        for well in writer.missing_wells():
            for site in WELLS[well]:
                writer.append(draw_site(well, site))


def steps_of(folder: Path, layout: Layout) -> int:
    """How many steps an undisturbed run takes."""
    counter = Faulty(-1, lambda: None)
    durable.os = counter  # type: ignore[assignment]
    write(folder, layout)
    durable.os = os
    return counter.count


def check(output: Path, layout: Layout, whole: dict[str, bytes]) -> int:
    """What is left is a plate of whole wells or none; a second run makes it the undisturbed one. The wells it held."""
    held = 0
    if (output / "DEMO.zarr").exists():
        plate = open_plate(output / "DEMO.zarr")
        held = len(plate.wells)
        for well in plate.wells:
            for key, data in layout.well(well, []).items():
                assert (plate.path / well[:-2] / well[-2:] / key).read_bytes() == data, (well, key)
    write(output, layout)
    assert contents(output / "DEMO.zarr") == whole
    assert sorted(p.name for p in output.iterdir()) == [".jumpgpu.lock", "DEMO.zarr"]
    return held


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
    place = Path(sys.argv[3])
    total = steps_of(place / "counted", Encoded())
    wanted = int(sys.argv[2])
    kill(list(range(total)) if not wanted else sorted(random.Random(0).sample(range(total), min(wanted, total))), place)
