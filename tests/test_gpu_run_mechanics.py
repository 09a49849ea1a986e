"""`make gpu`, its logic: against the stand-in and with the commands answered here. Nothing here ran on a GPU."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from tests import ways
from tests.standin_cuda import standin
from tests.ways import Way


class Commands:
    """Answers commands, and remembers them."""

    def __init__(self, status: int = 0, kernels: Sequence[str] = ("sum_intensity",)):
        self.status, self.kernels, self.asked = status, list(kernels), []

    def __call__(self, command: Sequence[str], limit_s: float, environment: dict[str, str]) -> tuple[int, str]:
        assert 0 < limit_s <= gpu.LIMIT_S
        self.asked.append(" ".join(map(str, command)))
        if record := environment.get("JUMPGPU_WAYS_RECORD"):
            Path(record).write_text(json.dumps({"passed": {"cuda": self.kernels}, "missing": {"cuda": []}}))
        return self.status, "its last words"


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--json", str(tmp_path / "gpu.json")]) == 2
    assert "no CUDA device is visible" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.parametrize("sanitizer", [None, "/opt/compute-sanitizer"])
def test_the_steps_in_order(monkeypatch, tmp_path, sanitizer):
    monkeypatch.setattr(shutil, "which", lambda name: sanitizer)
    commands, out = Commands(), tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path)], commands) == 0
    written = json.loads(out.read_text())
    names = [s["step"] for s in written["steps"]]
    assert names == ["compare", *[f"sanitize {t}" for t in gpu.TOOLS if sanitizer], "measure"]
    assert written["steps"][0]["kernels_equal"] == ["sum_intensity"]
    assert written["skipped"] == ([] if sanitizer else ["compute-sanitizer is not installed"])
    assert written["device"] == "cuda:0 (stand-in)"
    assert written["machine"]["commit"]
    assert "-m gpu" in commands.asked[0]


@pytest.mark.parametrize(("status", "kernels"), [(1, ["sum_intensity"]), (124, []), (0, [])])
def test_a_failure_or_an_empty_comparison_is_a_failure(monkeypatch, tmp_path, capsys, status, kernels):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    out = tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path / "absent")], Commands(status, kernels)) == 1
    assert "its last words" in json.loads(out.read_text())["steps"][0]["output"]
    assert "FAILED" in capsys.readouterr().err


def test_a_command_that_never_ends_is_cut():
    status, _ = gpu.run(["sleep", "30"], 1, {})
    assert status == 124


def test_the_cuda_way_compares_with_the_cpu():
    """The case that `-m gpu` runs, on the stand-in."""

    def work(device: ways.Device) -> torch.Tensor:
        out = device.empty(5, dtype=torch.int64)
        device.launch("texture_logs", 1, entries=5, logs=out)
        return out

    with standin() as gpu_state:
        Way("cuda").check(work)
        assert len(gpu_state.launches) == len(ways.CUDA_BLOCKS)
        with pytest.raises(AssertionError, match="differs"):
            Way("cuda").check(lambda device: work(device) + (device.name == "cuda"))


def test_a_missing_gpu_is_a_failure_of_the_cuda_way(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device is visible"):
        Way("cuda").check(lambda device: device.zeros(1, dtype=torch.int32))
