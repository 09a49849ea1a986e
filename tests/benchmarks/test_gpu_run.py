"""`make gpu`, its logic: against the stand-in and with the commands answered here. Nothing here ran on a GPU."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_fields
from jumpgpu import synthetic
from jumpgpu.gpu.cuda import CudaDevice
from tests.simulators import ways
from tests.simulators.standin_cuda import standin
from tests.simulators.ways import Way


class Commands:
    """Answers commands, and remembers them."""

    def __init__(
        self,
        status: int = 0,
        kernels: Sequence[str] = ("sum_intensity",),
        late: str = "",
        refuses: str = "",
        out: Path | None = None,
    ):
        self.status, self.kernels, self.late, self.refuses, self.out = status, list(kernels), late, refuses, out
        self.asked: list[str] = []
        self.kept: list[list[dict[str, object]]] = []  # what the file held when each command began

    def __call__(self, command: Sequence[str], limit_s: float, environment: dict[str, str]) -> tuple[int, str]:
        assert 0 < limit_s <= gpu.LIMIT_S
        self.asked.append(" ".join(map(str, command)))
        if record := environment.get("JUMPGPU_WAYS_RECORD"):
            Path(record).write_text(json.dumps({"passed": {"cuda": self.kernels}, "missing": {"cuda": []}}))
        if "--json" in command:
            Path(command[list(command).index("--json") + 1]).write_text(json.dumps({"of": command[2]}))
        tool = command[list(command).index("--tool") + 1] if "--tool" in command else ""
        if tool and tool == self.refuses:
            return 1, "========= Error: Device not supported. Please refer to the list"
        self.kept.append(json.loads(self.out.read_text())["steps"] if self.out and self.out.exists() else [])
        return 124 if tool and tool == self.late else self.status, "its last words"


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--json", str(tmp_path / "gpu.json")]) == 2
    assert "no CUDA device is visible" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


OWN = ["versions", "functions", "fields cpjump1", "fields jump-production", "parts", "throughput"]


@pytest.mark.parametrize("sanitizer", [None, "/opt/compute-sanitizer"])
def test_the_steps_in_order(monkeypatch, tmp_path, sanitizer):
    monkeypatch.setattr(shutil, "which", lambda name: sanitizer)
    out = tmp_path / "gpu.json"
    commands = Commands(out=out)
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path)], commands) == 0
    written = json.loads(out.read_text())
    names = [s["step"] for s in written["steps"]]
    kernels = ["kernels, production blocks", "kernels, others blocks"]
    assert names == ["prepare", *OWN, *kernels, "faults", *[f"sanitize {t}" for t in gpu.TOOLS if sanitizer]]
    assert gpu.TOOLS[0] == "memcheck"
    assert gpu.TOOLS[-1] == "racecheck"
    by = {s["step"]: s for s in written["steps"]}
    assert by[kernels[0]]["kernels_equal"] == ["sum_intensity"]
    assert by["parts"]["figures"] == {"of": "benchmarks.gpu_parts"}
    assert by["throughput"]["figures"] == {"of": "benchmarks.throughput"}
    assert written["skipped"] == ([] if sanitizer else ["compute-sanitizer is not installed"])
    assert written["device"] == "cuda:0 (stand-in)"
    assert written["machine"]["commit"]
    files = [c.split()[-1] for c in commands.asked if "tests/" in c and "sanitizer" not in c]
    assert files.count("tests/ways/test_texture.py") == 2  # a process per file, once in each kind of blocks
    assert "tests/segmentation/test_expand.py" in files
    assert "tests/test_layers.py" not in files
    assert files[-1] == "tests/gpu/test_gpu_faults.py"


def test_what_was_found_is_kept_after_every_step(monkeypatch, tmp_path):
    """Of a machine that goes away in the middle, all but the step that was at work is there."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu, "AT_ONCE", 1)
    out = tmp_path / "gpu.json"
    commands = Commands(out=out)
    with standin():
        gpu.main(["--json", str(out), "--images", str(tmp_path)], commands)
    held = {c.split("-m ")[1].split(" --")[0]: kept for c, kept in zip(commands.asked, commands.kept, strict=True)}
    assert [s["step"] for s in held["benchmarks.gpu_first versions"]] == ["prepare"]
    assert [s["step"] for s in held["benchmarks.throughput"]] == ["prepare", *OWN[:-1]]
    files = [
        kept[-1]["files"] for c, kept in zip(commands.asked, commands.kept, strict=True) if kept and "files" in kept[-1]
    ]
    assert [len(f) for f in files[:3]] == [1, 2, 3]  # results appended as they come


def test_a_sanitizer_that_the_machine_refuses_is_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/compute-sanitizer")
    out = tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path)], Commands(refuses="memcheck")) == 0
    written = json.loads(out.read_text())
    assert [
        "Device not supported" in s.get("refused", "") for s in written["steps"] if s["step"] == "sanitize memcheck"
    ] == [True]
    assert written["skipped"] == ["sanitize memcheck is refused by this machine"]


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pyarrow", "anndata", "s3fs", "moto", "boto3"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def test_kernels_are_compared_without_packages_for_tables_and_buckets():
    files = [str(p) for p in (gpu.ROOT / "tests").rglob("test_*.py") if gpu.TAKES_WAY.search(p.read_text())]
    command = [sys.executable, "-c", BLOCKED, *files]
    done = subprocess.run(
        command, cwd=gpu.ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(gpu.ROOT)}
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "error" not in done.stdout.splitlines()[-1]


def test_a_kernel_keeps_to_its_bounds_in_other_blocks():
    """quality_finish is bound to 32 threads: 64 of them would not launch."""
    assert [ways.max_threads(k) for k in ("quality_finish", "texture_logs", "basin_forest")] == [32, 128, 1024]
    assert ways.CUDA_BLOCKS == (None, 32, 64, 128)


def test_without_the_real_fields_a_plate_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    commands, out = Commands(), tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path / "absent")], commands) == 0
    assert any("jumpgpu.synthetic" in c for c in commands.asked)
    for step in ("benchmarks.gpu_fields", "benchmarks.gpu_parts", "benchmarks.throughput"):
        assert any(step in c and "--plate DRAWN" in c for c in commands.asked)
    assert any("drawn fields instead" in s for s in json.loads(out.read_text())["skipped"])


def test_a_host_library_that_is_absent_is_built(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu, "library_folder", lambda: tmp_path / "none")
    commands = Commands()
    with standin():
        assert gpu.main(["--json", str(tmp_path / "gpu.json"), "--images", str(tmp_path)], commands) == 0
    assert commands.asked[0] == "make lib"


def test_a_sanitizer_that_is_cut_is_named_and_does_not_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/compute-sanitizer")
    out = tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path)], Commands(late="racecheck")) == 0
    written = json.loads(out.read_text())
    assert [s["step"] for s in written["steps"] if s.get("cut")] == ["sanitize racecheck"]
    assert any(s.startswith("sanitize racecheck was cut after") for s in written["skipped"])


def test_no_time_left_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/compute-sanitizer")
    monkeypatch.setattr(gpu, "LIMIT_S", 26)
    out = tmp_path / "gpu.json"
    with standin():
        gpu.main(["--json", str(out), "--images", str(tmp_path)], Commands())
    written = json.loads(out.read_text())
    assert "no time was left for sanitize initcheck" in written["skipped"]
    assert "no time was left for sanitize memcheck" not in written["skipped"]  # which matters most


def test_a_missing_package_is_named_and_the_rest_is_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "PACKAGES", ("numpy", "not_a_package"))
    with standin():
        assert gpu.main(["--json", str(tmp_path / "gpu.json")], Commands()) == 0
    assert "not installed: not_a_package" in capsys.readouterr().err
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert "not_a_package is not installed: steps that need it fail, the others are run" in written["skipped"]
    assert [s["step"] for s in written["steps"]][: len(OWN) + 1] == ["prepare", *OWN]


@pytest.mark.parametrize(("status", "kernels"), [(1, ["sum_intensity"]), (124, []), (0, [])])
def test_a_failure_or_an_empty_comparison_is_a_failure(monkeypatch, tmp_path, capsys, status, kernels):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    out = tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path / "absent")], Commands(status, kernels)) == 1
    steps = {s["step"]: s for s in json.loads(out.read_text())["steps"]}
    assert steps["kernels, production blocks"]["status"] == 1
    assert ("its last words" if status else "no kernel was compared") in steps["kernels, production blocks"]["output"]
    assert "FAILED" in capsys.readouterr().err


def test_a_command_that_never_ends_is_cut():
    status, _ = gpu.run(["sleep", "30"], 1, {})
    assert status == 124


def test_what_a_command_that_is_cut_had_started_ends_with_it(tmp_path):
    """As compute-sanitizer's program does not by itself: it would hold the device, and the output."""
    mark = tmp_path / "mark"
    begun = time.monotonic()
    status, output = gpu.run(["sh", "-c", f"echo begun; (sleep 4; touch {mark}) & wait"], 1, {})
    assert (status, output) == (124, "begun\n")
    assert time.monotonic() - begun < 3
    time.sleep(3.5)
    assert not mark.exists()


class Clock:
    """Stands for the time module's; commands move it on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        monkeypatch.setattr(gpu, "time", self)
        monkeypatch.setattr(gpu, "AT_ONCE", 1)  # the clock is one

    def monotonic(self) -> float:
        return self.now


def test_limits_add_up_to_less_than_nine_minutes():
    assert sum(gpu.SHARES_S.values()) == gpu.LIMIT_S <= 540 - 20
    assert max(gpu.SHARES_S.values()) < gpu.LIMIT_S / 4
    assert set(OWN) < set(gpu.SHARES_S)


def test_steps_that_hang_leave_the_others_their_share(monkeypatch, tmp_path):
    """Every command runs to its limit: each step still has its share, and all end within the limit of all."""
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/compute-sanitizer")
    clock = Clock(monkeypatch)
    limits: list[tuple[str, float]] = []

    def hangs(command: Sequence[str], limit_s: float, environment: dict[str, str]) -> tuple[int, str]:
        limits.append((" ".join(map(str, command)), limit_s))
        clock.now += limit_s
        return 124, ""

    out = tmp_path / "gpu.json"
    with standin():
        assert gpu.main(["--json", str(out), "--images", str(tmp_path)], hangs) == 1
    assert sum(limit for _, limit in limits) <= gpu.LIMIT_S
    assert clock.now - 100 <= gpu.LIMIT_S
    written = json.loads(out.read_text())
    steps = {s["step"]: s["seconds"] for s in written["steps"]}
    for name, seconds in steps.items():
        assert seconds <= gpu.TIMES * gpu.SHARES_S[name], name
        assert seconds >= gpu.SHARES_S[name] or name == "prepare", name  # whose library is there
    assert list(steps)[-2:] == ["faults", "sanitize memcheck"]
    assert "no time was left for sanitize racecheck" in written["skipped"]
    late = [s for s in written["skipped"] if "files of kernels, production blocks" in s]
    assert len(late) == 1
    assert late[0].startswith("no time was left for ")


def test_what_quick_steps_leave_goes_to_later_ones(monkeypatch):
    clock = Clock(monkeypatch)
    budget = gpu.Budget()
    assert budget.of("start") == gpu.SHARES_S["start"]
    clock.now += 5
    assert budget.of("versions") == gpu.SHARES_S["versions"] + gpu.SHARES_S["start"] - 5
    assert budget.of("functions") == pytest.approx(105)  # of a step that took no time, more
    assert budget.of("fields cpjump1") == pytest.approx(gpu.TIMES * gpu.SHARES_S["fields cpjump1"])
    clock.now += gpu.LIMIT_S
    assert budget.of("parts") == 1  # nothing is left


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    arguments = [
        "--output",
        str(folder),
        "--plate",
        "DRAWN",
        "--wells",
        "2",
        "--sites",
        "1",
        "--size",
        "192",
        "--cells",
        "3",
    ]
    assert not synthetic.main(arguments)
    return folder


def test_whole_fields_are_compared_and_their_kernels_timed(drawn, tmp_path, capsys, monkeypatch):
    model = tmp_path / "model.json"
    model.write_text(
        json.dumps({"plate": "DRAWN", "predicted": {"RTX 4090": {}, "stand-in": {"correct": [4e-4, 6e-4, 1e-4]}}})
    )
    monkeypatch.setattr(gpu_fields, "MODEL", model)
    monkeypatch.setattr(gpu_fields, "RUNS", 1)
    out = tmp_path / "fields.json"
    with standin():
        assert gpu_fields.main(["--images", str(drawn), "--plate", "DRAWN", "--json", str(out)]) == 0
    assert "equal bits" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["fields"] == 2
    assert written["cells"] > 0
    assert written["differences"] == {}
    assert written["same_fields_as_predicted"]
    rows = {r["kernel"]: r for r in written["kernels"]}
    assert len(rows) > 60
    correct = rows["correct"]  # the stand-in says 1 ms per launch, of two fields
    assert correct == {
        "kernel": "correct",
        "measured_ms": 0.5,
        "least_ms": 0.4,
        "most_ms": pytest.approx(0.6),
        "floor_ms": 0.1,
        "inside": True,
        "floors": pytest.approx(5),
    }
    assert "inside" not in rows["texture_count"]


def test_fields_that_differ_are_a_failure(drawn, tmp_path, capsys, monkeypatch):
    launch = CudaDevice.launch

    def wrong(self: CudaDevice, kernel: str, grid: int, **values: torch.Tensor) -> None:
        launch(self, kernel, grid, **values)
        if kernel == "correct":
            values["corrected"].view(-1)[7] = 0.25

    monkeypatch.setattr(CudaDevice, "launch", wrong)
    monkeypatch.setattr(gpu_fields, "kernel_seconds", lambda work, device: {})
    out = tmp_path / "fields.json"
    with standin():
        assert gpu_fields.main(["--images", str(drawn), "--plate", "DRAWN", "--json", str(out)]) == 1
    assert "DIFFERENT BITS" in capsys.readouterr().out
    assert json.loads(out.read_text())["differences"]["pixels"].startswith("1 of ")


@pytest.mark.parametrize(
    ("name", "want"),
    [("Tesla T4", "T4"), ("NVIDIA A100-SXM4-40GB", "A100"), ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA L40S", None)],
)
def test_a_gpu_is_known_by_its_name(tmp_path, name, want):
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"predicted": {g: {"of": g} for g in ("T4", "A100", "H100", "RTX 4090")}}))
    assert gpu_fields.predicted(name, model).get("of") == want
    assert gpu_fields.predicted(name, tmp_path / "absent") == {}


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
