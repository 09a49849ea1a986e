"""Processes that live long: memory, descriptors and threads stay as they are, however often they are asked."""

import json
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

LONG = pytest.mark.slow


@pytest.mark.parametrize("n", [40, pytest.param(200, marks=LONG)])
@pytest.mark.parametrize("name", ["extract", *(pytest.param(n, marks=LONG) for n in ("open_plate", "export", "report"))])
def test_what_is_called_again_and_again_grows_nothing(tmp_path, name, n):
    command = [sys.executable, "-m", "tests.helpers.soak", name, str(n), str(tmp_path)]
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    said = json.loads(process.stdout.splitlines()[-1])
    print(name, said)
    megabytes, descriptors, threads = said["slopes"]
    assert megabytes <= 0.1  # a call
    assert abs(descriptors) < 0.01
    assert abs(threads) < 0.01
