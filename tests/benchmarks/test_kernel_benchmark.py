"""The kernel benchmark runs small: every case, with its rival, into a JSON file."""

import json
from pathlib import Path

import pytest

from benchmarks import kernels


def test_every_case_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "kernels.json", tmp_path / "kernels.md"
    assert kernels.main(["--size", "128", "--repeats", "1", "--json", str(out), "--page", str(page)]) == 0
    written = json.loads(out.read_text())
    assert sorted({c["case"] for c in written["cases"]}) == sorted(kernels.CASES)
    assert all(c["ratio"] > 0 for c in written["cases"])
    assert "ratio" in capsys.readouterr().out
    assert written["machine"]["packages"]["scikit-image"]
    assert page.read_text().count("\n| ") == 1 + len(written["cases"])
