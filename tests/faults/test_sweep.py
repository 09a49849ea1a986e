"""The sweep of `sweep.py`: a few faults of every command here, each call site with each errno where there is time."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT
from tests.faults.commands import COMMANDS

pytestmark = [
    pytest.mark.mechanics,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="the shim needs Linux and gcc"
    ),
]


def endings(folder, *options):
    """What came of signals, streams and outputs; all of it sound."""
    command = [sys.executable, "-m", "tests.faults.endings", "--output", str(folder / "endings"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env=environment)
    print(process.stdout)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return [json.loads(line) for line in (folder / "endings" / "endings.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_command_ends_well_whatever_stops_it_or_does_not_hear_it(tmp_path):
    """Ctrl-C and SIGTERM at moments by lot, streams closed, full or on a full disk, outputs that cannot be written."""
    cases = endings(tmp_path)
    stopped = [case for case in cases if case["kind"] == "signals" and case["status"] == 75]
    assert len(stopped) > 30  # others had ended
    assert max(case["cpu_seconds"] for case in stopped) <= 2
    assert {case["command"] for case in cases} == set(COMMANDS)
    assert all(sum(case["kind"] == kind for case in cases) >= 33 for kind in ("signals", "streams", "outputs"))


def swept(folder, *options):
    """The cases of a sweep, all of them sound."""
    command = [sys.executable, "-m", "tests.faults.sweep", "--output", str(folder / "sweep"), *options]
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    print(process.stdout)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return [json.loads(line) for line in (folder / "sweep" / "cases.jsonl").read_text().splitlines()]


def test_a_few_faults_of_one_command(tmp_path):
    command = "export h5ad"  # of the plate that `extract` makes; run once before, so that its modules are there
    cases = swept(tmp_path, "--errnos", "EIO", "--sites", "3", "--only", command, "--after", "extract", command)
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
