"""The sweep of `sweep.py`: a few faults of every command here, each call site with each errno where there is time."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

pytestmark = [
    pytest.mark.mechanics,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="the shim needs Linux and gcc"
    ),
]


def swept(folder, *options):
    """The cases of a sweep, all of them sound."""
    command = [sys.executable, "-m", "tests.faults.sweep", "--output", str(folder / "sweep"), *options]
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    print(process.stdout)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return [json.loads(line) for line in (folder / "sweep" / "cases.jsonl").read_text().splitlines()]


def test_a_few_faults_of_one_command(tmp_path):
    cases = swept(tmp_path, "--errnos", "EIO", "--sites", "3", "--only", "export h5ad")
    assert len(cases) == 3
    assert sum(case["met"] for case in cases) >= 2  # threads may come another way


@pytest.mark.slow
def test_six_wells_while_calls_fail_by_lot(tmp_path):
    """What is run for an hour on 384 wells x 9 sites: `python -m tests.faults.hour`."""
    shape = ["--minutes", "0.5", "--wells", "6", "--sites", "2", "--one-in", "400"]
    command = [sys.executable, "-m", "tests.faults.hour", "--output", str(tmp_path / "hour"), *shape]
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    said = json.loads((tmp_path / "hour" / "hour.json").read_text())
    assert said["runs"] >= 1
    assert said["faults"] >= 1
    assert said["wrong"] == []


@pytest.mark.slow
def test_every_call_site_of_every_command_with_each_errno(tmp_path):
    cases = swept(tmp_path, "--calls", "40")
    assert sum(case["met"] for case in cases) > 0.9 * len(cases)
    assert {case["status"] for case in cases} <= {0, 75}
