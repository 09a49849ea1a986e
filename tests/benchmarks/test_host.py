"""The benchmark of the host beside a GPU: a device that returns at once, and a plate that is written whole all the same."""

import json
import math

import pytest

from benchmarks import gpu_parts, host
from jumpgpu import synthetic
from jumpgpu.store.writer import PlateWriter


def test_a_plate_is_read_launched_and_written(tmp_path, monkeypatch, capsys):
    arguments = ["--output", str(tmp_path / "images"), "--plate", "DRAWN", "--wells", "2", "--sites", "1", "--size", "192"]
    assert not synthetic.main([*arguments, "--cells", "3"])
    written, write = [], PlateWriter._write
    monkeypatch.setattr(PlateWriter, "_write", lambda self, well, *rest: (written.append(well), write(self, well, *rest))[1])
    monkeypatch.setattr(host, "SITES", 2)
    out = tmp_path / "host.json"
    arguments = ["--images", str(tmp_path / "images"), "--plate", "DRAWN", "--fields", "8", "--batch", "2"]
    assert host.main([*arguments, "--repeats", "1", "--json", str(out)]) == 0
    assert sorted(written) == sorted(2 * ["A01", "A01", "A02", "A03", "A04"])  # the whole and one well, a warm-up and a run
    figures = json.loads(out.read_text())["batches"]["2"]
    assert figures["launches_a_batch"] > 80  # as many as a batch has on a GPU
    # Seconds are differences of two short runs: of their size nothing can be said here, of what is made of them it can.
    seconds, locked = figures["cpu_s_per_field"]["median"], figures["gil_s_per_field"]["median"]
    assert figures["fields_a_second"]["2"] == pytest.approx(min(2 / seconds, 1 / locked))
    assert figures["released_s_per_field"]
    assert all(map(math.isfinite, (seconds, locked, *figures["released_s_per_field"].values())))
    assert "under Python's lock" in capsys.readouterr().out


def test_a_run_in_parts(tmp_path, capsys):
    arguments = ["--output", str(tmp_path / "images"), "--plate", "DRAWN", "--wells", "2", "--sites", "1", "--size", "192"]
    assert not synthetic.main([*arguments, "--cells", "3"])
    out = tmp_path / "parts.json"
    arguments = ["--images", str(tmp_path / "images"), "--plate", "DRAWN", "--illumination", "none", "--device", "cpu"]
    assert gpu_parts.main([*arguments, "--fields", "4", "--batch", "1", "--batch", "2", "--json", str(out)]) == 0
    runs = json.loads(out.read_text())["runs"]
    assert [run["batch"] for run in runs] == [1, 2]
    for run in runs:
        spent = run["seconds_per_field"]
        parts = [spent[k] for k in ("reading", "launching", "waiting", "writing")]
        assert all(part > 0 for part in parts)
        assert run["fields_a_second"] == pytest.approx(1 / spent["all"])
    assert "batches of 2: " in capsys.readouterr().out
