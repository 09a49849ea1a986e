"""Every output of every command is written by `storage.atomic`: whenever a process dies, a file is the old or the new."""

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest

from jumpgpu.profiles.files import write_anndata, write_table
from jumpgpu.scores import figures
from jumpgpu.storage import atomic, staging
from jumpgpu.storage.atomic import whole_file, write_whole
from jumpgpu.store import h5ad
from tests.conftest import CHECKOUT

TABLE = pd.DataFrame({"Metadata_Plate": ["P"], "Metadata_Well": ["A01"], "Cells_AreaShape_Area": [1.0]})
STEPS = ("open", "fsync", "replace")


def figure(path: Path) -> None:
    import matplotlib.pyplot as plt

    drawn = plt.figure()
    figures.save(drawn, path.with_suffix(""))
    plt.close(drawn)


def streamed(path: Path) -> None:
    with whole_file(path) as part:
        part.write_bytes(b"new")


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "text and bytes": ("report.html", lambda path: write_whole(path, "<html>\u00e9</html>")),
    "a stream": ("cells.csv", streamed),
    "a Parquet table": ("P.parquet", lambda path: write_table(TABLE, path)),
    "an AnnData table": ("P.h5ad", lambda path: write_anndata(TABLE, path)),
    "a figure": ("score.png", figure),
}


def killed_at(step: str, count: int, write: Callable[[Path], None], path: Path) -> int:
    """A fork that writes, and dies before the count-th call of a step from when the write began; its exit status."""
    child = os.fork()
    if child == 0:
        honest, seen = getattr(os, step), [0]

        def dying(*arguments: object, **named: object) -> object:
            seen[0] += 1
            if seen[0] == count:
                os._exit(9)
            return honest(*arguments, **named)

        setattr(os, step, dying)
        status = 1
        try:
            write(path)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_killed_write_leaves_the_old_file_or_the_new(kind: str, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    path, wanted = tmp_path / name, tmp_path / "whole" / name
    write(wanted)
    deaths = 0
    for step in STEPS:
        for count in range(1, 4):
            path.write_bytes(b"old")
            status = killed_at(step, count, write, path)
            assert status in (0, 9), f"{step} {count}"
            deaths += status == 9
            read = pd.read_parquet if path.suffix == ".parquet" else Path.read_bytes
            if path.read_bytes() != b"old":
                assert len(path.read_bytes()) == len(wanted.read_bytes())
                read(path)
            elif status == 0:
                raise AssertionError(f"{kind}: nothing was written")
    assert deaths >= 3
    write(path)
    assert len(path.read_bytes()) == len(wanted.read_bytes())


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fails() -> None:
        with whole_file(path) as part:
            part.write_text("ne")
            tmp_path.write_text("fails half way")

    with pytest.raises(IsADirectoryError):
        fails()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"
    with pytest.raises(FileExistsError, match="--overwrite"), whole_file(path, overwrite=False):
        pass


def test_no_other_module_renames_files() -> None:
    renames = [p for p in (CHECKOUT / "jumpgpu").rglob("*.py") if "os.replace(" in p.read_text()]
    assert [p.name for p in renames] == ["atomic.py"]


class At:
    """Traces lines of the modules that make and remove staging folders, and sends a signal at the n-th."""

    FILES = frozenset({inspect.getsourcefile(module) for module in (atomic, staging)})

    def __init__(self, n: int, number: int):
        self.left, self.number = n, number

    def __call__(self, frame: FrameType, event: str, _: object) -> "At | None":
        if frame.f_code.co_filename not in self.FILES:
            return None
        self.left -= event == "line"
        if not self.left and event == "line":
            sys.settrace(None)
            signal.raise_signal(self.number)
        return self


@pytest.fixture
def heeded():
    """Signals as a command takes them."""
    before, hook = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}, sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    staging.heed()
    yield
    staging._raised.clear()
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_staging_folder_goes_wherever_a_signal_falls(tmp_path, heeded, number):
    """At each line of making and removing one: what the block itself does not remove, the end of the command does."""
    stopped, n = True, 0
    while stopped:
        n, stopped = n + 1, False
        sys.settrace(At(n, number))
        try:
            with whole_file(tmp_path / "a.txt") as part:
                part.write_bytes(b"x")
        except KeyboardInterrupt:
            stopped = True
        finally:
            sys.settrace(None)
        staging.remove_left()
        assert {p.name for p in tmp_path.iterdir()} <= {"a.txt"}, n
        assert (staging._held, staging._came) == (0, [])
    assert n > 40


def test_a_signal_within_hdf5_comes_after_it(tmp_path, heeded):
    """In what HDF5 calls an exception ends the process: a signal at such calls, one after another."""
    stopped = 0
    for n in range(1, 60, 3):
        left = [n]

        class Signals(h5ad.Watched):
            def __getattribute__(self, name: str, left: list[int] = left) -> Any:
                if name in ("write", "read", "readinto", "seek"):
                    left[0] -= 1
                    if not left[0]:
                        signal.raise_signal(signal.SIGINT)
                return super().__getattribute__(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(h5ad, "Watched", Signals)
            try:
                write_anndata(TABLE, tmp_path / f"{n}.h5ad", [])
                threading.Event().wait(0.2)  # it comes by then
            except KeyboardInterrupt:
                stopped += 1
        staging.remove_left()
        assert left[0] > 0 or stopped
    assert stopped > 5
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
