"""Every output of every command is written by `storage.atomic`: whenever a process dies, a file is the old or the new."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from jumpgpu.profiles.files import write_anndata, write_table
from jumpgpu.scores import figures
from jumpgpu.storage.atomic import whole_file, write_whole
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
