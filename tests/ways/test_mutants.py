"""The ways can fail: each of them notices some broken kernels, and every broken kernel is noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutants import MUTANTS, QUICK, break_kernels


def run(tmp_path: Path, *arguments: str) -> dict[str, dict[str, str]]:
    out = tmp_path / "mutants.json"
    command = [sys.executable, "-m", "tools.mutants", "--json", str(out), *arguments]
    root = Path(__file__).parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    subprocess.run(command, check=True, env=env, cwd=root, capture_output=True)
    return json.loads(out.read_text())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_every_mutant_applies(mutant, tmp_path):
    break_kernels(mutant, tmp_path / "kernels")


def test_some_mutants_are_noticed(tmp_path):
    result = run(tmp_path, *QUICK, "--ways", "fibers", "tsan", "ptx")
    assert set(result) == set(QUICK)
    for name, words in result.items():
        assert sum(bool(word) for word in words.values()) >= 2, (name, words)


@pytest.mark.slow
def test_every_mutant_is_noticed_and_every_way_notices_some(tmp_path):
    result = run(tmp_path)
    assert not [name for name, words in result.items() if not any(words.values())]
    for way in ("serial", "fibers", "tsan", "asan", "ptx"):
        assert any(words[way] for words in result.values()), f"{way} noticed nothing"
