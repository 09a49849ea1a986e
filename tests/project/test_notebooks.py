"""The notebooks of the documentation run from nothing and show what is committed; they name no machine."""

import subprocess
import sys

import nbformat
import pytest

from tools.notebooks import CHECKOUT, FOLDER, NOTEBOOKS, shown


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_what_is_committed(name, tmp_path):
    command = [sys.executable, "-m", "tools.notebooks", name, "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    committed, fresh = (nbformat.read(folder / f"{name}.ipynb", as_version=4) for folder in (FOLDER, tmp_path))
    compared = 0
    for kept, now in zip(committed.cells, fresh.cells, strict=True):
        if kept.cell_type == "code" and "varies" not in kept.metadata.get("tags", ()):
            assert shown(now) == shown(kept), f"{name}: python -m tools.notebooks {name} writes it anew\n{kept.source}"
            compared += 1
    assert compared >= 4


def test_notebooks_are_small_and_name_no_machine():
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)
    for path in FOLDER.glob("*.ipynb"):
        assert path.stat().st_size < 400_000
        assert not [folder for folder in ("/home/", "/tmp/", "/work/", "/root/") if folder in path.read_text()]
