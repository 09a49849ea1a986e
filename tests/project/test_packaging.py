"""What a release is made of: recipes, workflows, containers and modules say what pyproject.toml and the commands say."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml

from jumpgpu.__main__ import main
from tools.wheels import PLATFORMS

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"torch": "pytorch", "dask": "dask-core", "matplotlib": "matplotlib-base"}
MODULE = CHECKOUT / "docs" / "examples" / "nf-core" / "jumpgpu" / "extract"


def read(path: str) -> dict:
    return yaml.safe_load((CHECKOUT / path).read_text(encoding="utf-8"))


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_conda_recipe_needs_what_the_project_needs():
    wanted = []
    for dependency in PROJECT["dependencies"]:
        name, bounds = re.match(r"([\w-]+)(?:\[\w+\])?(.*)", dependency).groups()
        wanted.append(f"{CONDA.get(name, name)} {bounds}".strip())
    recipe = read("conda/recipe.yaml")
    assert recipe["requirements"]["run"] == ["python", *wanted]
    assert recipe["about"]["license"] == PROJECT["license"]


@pytest.mark.parametrize("name", ["test", "release"])
def test_workflows_use_targets_and_files_that_exist(name):
    workflow = read(f".github/workflows/{name}.yml")
    text = " ".join(s.get("run", "") for job in workflow["jobs"].values() for s in job["steps"])
    for target in re.findall(r"\bmake ([\w-]+)", text):
        assert target in targets()
    for path in re.findall(r"\btests/[\w/.]+", text):
        assert (CHECKOUT / path).exists()
    checkouts = [s["with"] for job in workflow["jobs"].values() for s in job["steps"] if "/checkout@" in s.get("uses", "")]
    assert all(given["persist-credentials"] is False for given in checkouts)  # or the token lies in the files that are kept
    assert workflow["permissions"] == {"contents": "read"}
    if name == "release":
        assert f'wc -l)" = {len(PLATFORMS)}' in text  # every wheel, or no release


def test_containers_take_extras_and_pythons_that_exist():
    for name in ("cpu", "cuda"):
        text = (CHECKOUT / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8")
        values = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.MULTILINE))
        asked = re.search(r'"jumpgpu\[(.*?)\]"', text)[1].replace("${CUDA}", values.get("CUDA", ""))
        assert set(asked.split(",")) <= PROJECT["optional-dependencies"].keys()
        python = re.search(r"^FROM python:3\.(\d+)", text, re.MULTILINE)[1]
        assert f"Programming Language :: Python :: 3.{python}" in PROJECT["classifiers"]


def test_the_citation_names_what_is_cited():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["license"] == PROJECT["license"]
    assert all(re.fullmatch(r"10\.\d{4,}/\S+", r["doi"]) for r in citation["references"])


def test_the_nextflow_module_says_in_both_files_what_it_gives():
    text = (MODULE / "main.nf").read_text(encoding="utf-8")
    meta = yaml.safe_load((MODULE / "meta.yml").read_text(encoding="utf-8"))
    assert re.findall(r"emit: (\w+)", text) == list(meta["output"])
    tests = (MODULE / "tests" / "main.nf.test").read_text(encoding="utf-8")
    assert set(re.findall(r"process\.out\.(\w+)", tests)) <= meta["output"].keys()


def test_the_nextflow_modules_script_runs(tmp_path):
    """As Nextflow would run it: its script block, with the values of a drawn plate, by bash that stops at an error."""
    assert (
        main(shlex.split(f"synthetic --output {tmp_path}/images --plate DEMO --wells 2 --sites 1 --size 200 --cells 8")) == 0
    )
    script = re.search(r'script:.*?"""\n(.*?)"""', (MODULE / "main.nf").read_text(encoding="utf-8"), re.DOTALL)[1]
    script = textwrap.dedent(script)  # as Nextflow does
    values = {"prefix": "DEMO", "settings": "", "device": "cpu", "task.cpus": "2", "task.process": "EXTRACT"}
    values["args"] = "--illumination flatfield"
    script = (
        re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda match: values[match[1]], script).replace("\\$", "$").replace("\\\\", "\\")
    )
    command = tmp_path / "bin" / "jumpgpu"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jumpgpu "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    versions = yaml.safe_load((tmp_path / "versions.yml").read_text())
    assert versions["EXTRACT"]["jumpgpu"]
    for name in ("DEMO.zarr/zarr.json", "DEMO.parquet", "DEMO_mqc.json"):
        assert (tmp_path / name).is_file(), done.stderr
