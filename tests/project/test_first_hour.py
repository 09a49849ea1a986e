"""A new user's first hour: every command and example of the documentation runs, in its pages' order, in one folder.

The wheel is built, installed into a fresh virtual environment, and used from there alone. The pages speak of the plates
BR00117010 and BR00117011 in /data/images; two drawn plates of these names stand in, and real fields (quarters of the six)
where ../shared/data has them. What needs more than this machine is named in `ELSEWHERE`, with the reason.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from jumpgpu import synthetic
from tests.helpers.real import IMAGES, PHENIX, WELLS

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = (
    "README",
    "index",
    "first-plate",
    "plate-map",
    "tune-segmentation",
    "scanpy",
    "report",
    "install",
    "features",
    "plates",
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"^(?:    )?((?:jumpgpu|pip|python3?|conda|docker|apptainer|uv|curl|make|rattler-build)\b.*)$", re.MULTILINE
)
ELSEWHERE = {  # commands that are shown and not run here: how they begin, or contain, and what they need
    "pip ": "the package index",
    "python3 -m venv": "done by this test, with the wheel",
    "make ": "a checkout; CI runs them",
    "conda ": "conda",
    "docker ": "Docker",
    "apptainer ": "Apptainer",
    "uv ": "uv",
    "curl ": "the network",
    "python batch_cluster.py": "a cluster",
    "--scheduler": "a cluster",
    "--workers 4": "four processors; tests/run/test_dask_scheduler.py has two workers",
    "bash plate.slurm": "Slurm; tests/run/test_workflows.py runs it where one answers",
    "s3://": "a bucket",
    "extract BR00117010 --wells A01 --output out": "the public bucket",
    "--images plate.ome.zarr": "an OME-Zarr plate; tests/images/test_ome_zarr.py has them",
    "-m benchmarks.": "CellProfiler, in an environment of its own",
    "-m tools.pipelines": "a folder of public pipelines",
    ".cppipe": "a CellProfiler pipeline; tests/cellprofiler has them",
    "cellprofiler_output/": "CellProfiler's tables; tests/outputs/test_comparison.py has them",
    "P1": "four plates and a network; tests/networks has small ones",
    "--watch": "a microscope at work; tests/run/test_watch.py stands in",
    "profile P Q": "P and Q stand for plates; plate-map has the same with names",
    "score replicating P Q": "likewise",
}


def page_text(page: str) -> str:
    return (CHECKOUT / "README.md" if page == "README" else CHECKOUT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def needs(command: str) -> str | None:
    """What a shown command needs that is not here; None for one that runs."""
    return next((why for part, why in ELSEWHERE.items() if command.startswith(part) or part in command), None)


def parts(page: str) -> list[tuple[str, str]]:
    """Language and text of what a page would have one run, in its order: its fenced blocks, and its shown commands."""
    text = page_text(page)
    found = [(m.start(), m[1], m[2]) for m in FENCE.finditer(text) if m[1] in ("bash", "python")]
    shown = FENCE.sub(lambda m: " " * len(m[0]), text)
    found += [(m.start(), "bash", m[1]) for m in COMMAND.finditer(shown) if needs(m[1]) is None]
    return [(language, part) for _, language, part in sorted(found)]


@dataclass
class Hour:
    """The folder that the hour is spent in, its images, and the environment with the wheel's `jumpgpu` on PATH."""

    folder: Path
    images: Path
    python: Path
    environment: Mapping[str, str]

    def run(self, language: str, text: str, status: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        call = (
            ["bash", "-euo", "pipefail", "-c", text]
            if language == "bash"
            else [str(self.python), "-W", "ignore", "-c", text]
        )
        run = subprocess.run(call, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=1800)
        assert run.returncode in status, f"{text}\n{run.stdout[-1500:]}\n{run.stderr[-3000:]}"
        return run


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh virtual environment with the wheel; what jumpgpu depends on comes from this one's packages."""
    pytest.importorskip("scikit_build_core", reason="scikit-build-core builds the wheel; it is in the extra [dev]")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "-q"]
    build = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "-C", "cmake.define.JUMPGPU_LEVELS=x86-64-v2"]
    subprocess.run(
        [*pip, "wheel", *build, "-C", f"build-dir={folder}/build", "-w", folder, CHECKOUT],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    inside = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True
    ).stdout.strip()
    Path(inside, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    where = subprocess.run(
        [python, "-c", "import jumpgpu; print(jumpgpu.__file__)"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(inside), where
    return python, environment


def draw_plates(images: Path) -> str:
    """Two drawn plates; rows of their plate map in the columns of the page."""
    options = ["--wells", "24", "--sites", "1", "--size", "300", "--cells", "12"]
    assert synthetic.main(["--output", str(images), "--plate", "BR00117010", "--plate", "BR00117011", *options]) == 0
    table = pd.read_csv(next((images / "metadata").rglob("*platemap*.txt")), sep="\t", dtype=str)
    names = table["broad_sample"].fillna("DMSO")
    return "\n".join(
        "\t".join([well, name, name, "negcon" * (name == "DMSO")])
        for well, name in zip(table["well_position"], names, strict=True)
    )


def cut_plates(images: Path, shared: Path) -> str:
    """Quarters of the six real fields as two plates of 24 wells, A01 to D06; rows of their plate map."""
    names = dict(zip(WELLS, ("dexamethasone", "FK-866", "DMSO", "quinidine", "LY2109761", "AMG900"), strict=True))
    lines = []
    for column, (well, name) in enumerate(names.items(), 1):
        r, c = ord(well[0]) - 64, int(well[1:])
        for number in PHENIX.values():
            pixels = tifffile.imread(shared / IMAGES / f"r{r:02d}c{c:02d}f05p01-ch{number}sk1fk1fl1.tiff")
            for quarter in range(4):
                for turned, plate in enumerate(("BR00117010", "BR00117011")):
                    top, left = divmod((quarter + turned) % 4, 2)
                    part = pixels[540 * top :, 540 * left :][:540, :540]
                    file = images / plate / "Images" / f"r{quarter + 1:02d}c{column:02d}f01p01-ch{number}sk1fk1fl1.tiff"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    tifffile.imwrite(file, np.ascontiguousarray(part[::-1] if turned else part))
        lines += ["\t".join([f"{'ABCD'[q]}{column:02d}", name, name, "negcon" * (name == "DMSO")]) for q in range(4)]
    return "\n".join(lines)


OWN = """
import json
import jumpgpu
profiles = jumpgpu.profile(["BR00117010", "BR00117011"], folder="out", metadata="metadata")
score = jumpgpu.percent_replicating(profiles, draws=1000, seed=0)
print(json.dumps({"wells": len(profiles), "percent": score.percent, "treatments": len(score.table)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the pages' commands are a POSIX shell's")
@pytest.mark.parametrize("fields", ["drawn", "real"])
def test_every_command_of_the_documentation_runs(installed, tmp_path, fields, request):
    images = tmp_path / "images"
    plate_map = draw_plates(images) if fields == "drawn" else cut_plates(images, request.getfixturevalue("shared"))
    hour = Hour(tmp_path, images, *installed)
    done = 0
    for page in PAGES:
        before = ""
        for language, text in parts(page):
            text = text.replace("/data/images", str(images)).replace("BR00117012", "BR00117011")
            if "import scanpy" in text:
                pytest.importorskip("scanpy", reason="scanpy is in the extra [test]")
            if "screen_1.txt" in text:  # four wells stand on the page, all wells of these plates are given
                text = re.sub(
                    r"(control_type\n).*?(?=END)", lambda m: m[1] + plate_map + "\n", text, count=1, flags=re.DOTALL
                )
            if page in ("README", "index"):
                text = text.replace("D14", "B02").replace('"B02", 5', '"B02", 1').replace('"A02"', '"B02"')
            if language == "python":
                before += text
                hour.run(language, before)  # a page's examples share their names
            else:
                hour.run(language, text, (0, 3) if "check-plate" in text else (0,))
            done += 1
        if page == "first-plate":  # and again: what is done is found done
            for language, text in parts(page):
                if language == "bash":
                    again = hour.run(language, text.replace("/data/images", str(images)))
            assert "24 of 24 wells are measured already" in again.stderr
    assert done >= 28
    for output in ("out/BR00117010.html", "out/index.html", "look/BR00117010_outlines/B02_s1.png", "B02.png", "cells.png"):
        assert (tmp_path / output).stat().st_size > 1000, output
    page = (tmp_path / "out" / "BR00117010.html").read_text(encoding="utf-8")
    assert 'class="happened"' in page
    assert ("AMG900" in page) == (fields == "real")
    again = hour.run("bash", "jumpgpu profile BR00117010 BR00117011 --output out --metadata metadata", (2,))
    assert "--overwrite replaces them" in again.stderr
    scored = json.loads(hour.run("python", OWN).stdout)
    assert scored["wells"] == 48
    assert scored["treatments"] == (5 if fields == "real" else 18)
    assert 0 <= scored["percent"] <= 100
    plane = hour.run("bash", "jumpgpu score embed BR00117010 BR00117011 --output out --method umap").stdout
    assert "48 wells" in plane


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell's commands")
def test_the_hour_on_real_fields_with_a_labs_own_names_and_masks(installed, shared, tmp_path):
    """Six whole fields; channels called as a lab calls them; nuclei found elsewhere; profiles and scores in Python."""
    hour = Hour(tmp_path, tmp_path / "images", *installed)
    hour.images.mkdir()
    own = dict(zip(("Blue", "Green", "GreenLong", "Orange", "FarRed"), ("DNA", "ER", "RNA", "AGP", "Mito"), strict=True))
    rows = []
    for well in WELLS:
        r, c = ord(well[0]) - 64, int(well[1:])
        files = {n: f"r{r:02d}c{c:02d}f05p01-ch{PHENIX[channel]}sk1fk1fl1.tiff" for n, channel in own.items()}
        for file in files.values():
            shutil.copy(shared / IMAGES / file, hour.images / file)
        names = {f"FileName_Orig{n}": f for n, f in files.items()}
        folders = {f"PathName_Orig{n}": "/home/ubuntu/bucket/projects/LAB1/Images" for n in own}
        rows.append({"Metadata_Plate": "LAB1", "Metadata_Well": well, "Metadata_Site": 5} | names | folders)
    pd.DataFrame(rows).to_csv(hour.images / "load_data.csv", index=False)
    extract = f"jumpgpu extract LAB1 --images images --illumination {shared}/data/cellprofiler/flatfield --save-labels"
    refused = hour.run("bash", f"{extract} --output lab", (2,)).stderr
    block = refused.partition("\n\n")[2]
    assert block.split("\n")[:6] == ["[plate.stains]", *(f'"{n}" = "{c}"' for n, c in own.items())]
    (tmp_path / "lab.toml").write_text(block)
    said = hour.run("bash", f"{extract} --output lab --config lab.toml")
    assert "526 cells" in said.stdout  # as CellProfiler finds with these flat fields

    (tmp_path / "masks").mkdir()
    for well in WELLS:
        shutil.copy(shared / f"data/cellprofiler/{well}_s5_Nuclei.tiff", tmp_path / "masks")
    masks = f"{extract} --config lab.toml --masks masks".replace(" --save-labels", "")
    alone = hour.run("bash", f"{masks} --output alone").stdout
    grown = hour.run("bash", f"{masks} --grow-cells --output grown").stdout
    assert "526 cells" in alone
    assert "526 cells" in grown
    sets = "print(*[sorted({c.split('_')[0] for c in jumpgpu.open_plate(p).columns}) for p in ('alone/LAB1', 'grown/LAB1')])"
    assert hour.run("python", f"import jumpgpu\n{sets}").stdout.strip() == "['Nuclei'] ['Cells', 'Cytoplasm', 'Nuclei']"
    hour.run("bash", "jumpgpu report lab/LAB1.zarr && jumpgpu verify lab/LAB1.zarr")
    hour.run("python", "import jumpgpu; jumpgpu.open_plate('lab/LAB1.zarr').show('d14', 5).savefig('d14.png')")
    assert (tmp_path / "d14.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", sorted(p.stem for p in (CHECKOUT / "docs").glob("*.md")))
def test_commands_that_are_only_shown_are_named(page):
    """A command of any page is run by the test above, or its need is on the list."""
    shown = COMMAND.findall(FENCE.sub("", page_text(page)))
    fenced = [text for language, text in FENCE.findall(page_text(page)) if language in ("bash", "python")]
    if page not in PAGES:
        assert [c for c in shown if needs(c) is None] == []
        assert not fenced or page in ("command-line", "store")  # their own tests run these
