"""A new user's first hour: every command and example of the pages for users runs, in their order, in one folder.

The pages speak of the plates BR00117010 and BR00117011 in /data/images; two drawn plates of these names stand in. What
needs more than a processor is named in `ELSEWHERE`.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jumpgpu import synthetic

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = ("first-plate", "plate-map", "tune-segmentation", "scanpy")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"^(?:    )?((?:jumpgpu|pip|python3?|conda|docker|apptainer|uv|curl|make|rattler-build)\b.*)$", re.MULTILINE
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
ELSEWHERE = {  # commands that stand in indented blocks of the pages for users, and what they need that a test has not
    "README": ("pip install jumpgpu", "jumpgpu extract BR00117010 --images /data/images --output out --save-labels"),
    "index": ("jumpgpu extract BR00117010 --images /data/images --output out --save-labels",),  # as in first-plate
    "install": ("pip ", "python3 -m venv", "make wheels", "conda ", "docker ", "apptainer ", "curl ", "uv ", "jumpgpu "),
    "troubleshooting": (),
}


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """Two drawn plates, a `jumpgpu` on PATH, and the folder that the hour is spent in."""
    folder = tmp_path_factory.mktemp("hour")
    images = folder / "images"
    options = ["--wells", "24", "--sites", "1", "--size", "300", "--cells", "12"]
    assert synthetic.main(["--output", str(images), "--plate", "BR00117010", "--plate", "BR00117011", *options]) == 0
    command = folder / "bin" / "jumpgpu"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jumpgpu "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    return folder, images, {**os.environ, "PATH": path, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}


def blocks(page: str, images: Path) -> list[tuple[str, str]]:
    """Language and text of a page's runnable blocks, with the drawn plates' folder in place of the pages'."""
    text = (CHECKOUT / "docs" / f"{page}.md").read_text()
    result = [(m[1], m[2].replace("/data/images", str(images))) for m in BLOCK.finditer(text)]
    assert result, page
    return result


def plate_map(images: Path) -> str:
    """Rows of the drawn plates' map in the page's columns."""
    lines = next((images / "metadata").rglob("*platemap*.txt")).read_text().splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    lines = []
    for row in rows:
        sample = row["broad_sample"] or "DMSO"
        lines.append("\t".join([row["well_position"], sample, sample, "negcon" if sample == "DMSO" else ""]))
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the pages' commands are a POSIX shell's")
def test_every_command_of_the_pages_for_users_runs(hour):
    folder, images, environment = hour
    done = 0
    for page in PAGES:
        for number, (language, text) in enumerate(blocks(page, images), 1):
            if "import scanpy" in text:
                pytest.importorskip("scanpy", reason="scanpy is in the extra [test]")
            if "screen_1.txt" in text:  # four wells stand on the page, all wells of the drawn plates are given
                text = re.sub(
                    r"(control_type\n).*?(?=END)", lambda m: m[1] + plate_map(images) + "\n", text, count=1, flags=re.S
                )
            if language == "bash":
                call = ["bash", "-euo", "pipefail", "-c", text]
            else:
                (folder / "earlier.py").touch()
                with (folder / "earlier.py").open("a") as file:  # a page's examples share their names
                    file.write(text)
                call = [sys.executable, "-W", "ignore", "earlier.py"]
            run = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
            assert run.returncode == 0, f"{page}, block {number}:\n{text}\n{run.stdout[-1500:]}\n{run.stderr[-3000:]}"
            done += 1
        (folder / "earlier.py").unlink(missing_ok=True)
    assert done >= 12
    for output in ("out/BR00117010.html", "out/index.html", "look/BR00117010_outlines/B02_s1.png", "B02.png", "cells.png"):
        assert (folder / output).stat().st_size > 1000, output
    shutil.rmtree(folder / "out")


@pytest.mark.parametrize("page", ELSEWHERE)
def test_commands_that_are_only_shown_are_named(page):
    """An indented command is run elsewhere, or needs the package index, conda or a container, and is on the list."""
    path = CHECKOUT / "README.md" if page == "README" else CHECKOUT / "docs" / f"{page}.md"
    shown = COMMAND.findall(FENCE.sub("", path.read_text()))
    known = (*ELSEWHERE[page], "jumpgpu report out/BR00117010.zarr", "make demo", "make test")
    assert [c for c in shown if not c.startswith(known)] == []
