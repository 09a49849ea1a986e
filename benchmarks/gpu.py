"""The first thing to run on a machine with a CUDA GPU: is it right, how fast is it, is it clean. Under nine minutes.

    make gpu                    # or: python -m benchmarks.gpu --json FILE

From a checkout with torch, CuPy and the test extra installed; nothing is downloaded. What matters most comes first; each
step is a process of its own with a limit (one that hangs is ended with all that it started), and the JSON is written anew
after each: what was found is kept whatever comes. A package that is missing costs the steps that need it alone.

  prepare      the host library, where it is not built (make lib), and a drawn plate, where the six real fields are not there
  versions     what is there; one kernel on two streams                                     (benchmarks.gpu_first)
  functions    every kernel compiled and loaded; registers and local memory beside the model's
  fields       six fields with each preset: bits of everything beside the CPU's, each kernel's time beside its prediction
               (benchmarks.gpu_fields)
  parts        64 fields, batches of 8 and 32: fields per second; reading, launching, waiting, writing (benchmarks.gpu_parts)
  throughput   the product: benchmarks.throughput --device cuda
  kernels      every kernel case of the tests that take a way on the GPU, bit for bit with the CPU, a process per file and a
               limit a test: with the blocks of production, then with others
  faults       out of memory, a giant cell, broken label images and images, an interruption (tests/gpu/test_gpu_faults.py)
  sanitize     compute-sanitizer's memcheck over one field, then initcheck, synccheck and racecheck over some cases; a tool
               that the machine refuses, or that its share of the time cuts short, is recorded and fails nothing

Exit status 0: all that could run passed; 1: something failed; 2: no CUDA device or no CuPy.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, write_json
from jumpgpu.gpu.cpu import library_folder
from jumpgpu.gpu.open import open_device

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "initcheck", "synccheck", "racecheck")  # the slowest last
SANITIZED = tuple(f"tests/ways/test_{name}.py" for name in ("lzw", "decode", "objects", "texture", "watershed"))
TAKES_WAY = re.compile(r"^def test_\w+\([^)]*\bway\b", re.M)
PRESETS = ("cpjump1", "jump-production")
FIELDS = 64
LIMIT_S = 530
STEP_LIMIT_S = {
    "prepare": 120,
    "versions": 60,
    "functions": 120,
    "fields": 75,
    "parts": 90,
    "throughput": 90,
}  # of one that hangs
TEST_LIMIT_S = 60
REFUSED = re.compile(
    r"not supported|not permitted|ERR_NVGPUCTRPERM|unsupported|no attachable process|failed to initialize", re.I
)
DRAWN = "DRAWN"
NO_TESTS = 5  # pytest: none was chosen
PACKAGES = (
    "pytest",
    "numpy",
    "tifffile",
    "imagecodecs",
    "zarr",
    "numcodecs",
    "scipy",
)  # what the steps import beside torch and CuPy


@dataclasses.dataclass(frozen=True)
class Plate:
    """The fields to work on, and whether they are the real ones that the predictions are of."""

    images: Path
    name: str
    illumination: str
    real: bool

    @property
    def options(self) -> list[str]:
        return ["--images", str(self.images), "--plate", self.name, "--illumination", self.illumination]


Runner = Callable[[Sequence[str], float, dict[str, str]], tuple[int, str]]


def run(command: Sequence[str], limit_s: float, environment: dict[str, str]) -> tuple[int, str]:
    """Status and output of a command; status 124 where it ran past its limit, and all that it had started is ended."""
    with tempfile.TemporaryFile() as output:  # a pipe would be waited for as long as any child holds it
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(max(limit_s, 1))
        except subprocess.TimeoutExpired:
            status = 124
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # compute-sanitizer leaves the program that it watches behind
        process.wait()
        output.seek(0)
        return status, output.read().decode(errors="replace")


def step(name: str, status: int, output: str, seconds: float, **more: Any) -> dict[str, Any]:
    """One step's entry; its last words only where it failed."""
    entry = {"step": name, "status": status, "seconds": round(seconds, 1), **more}
    print(f"{name:22s}{'passed' if status == 0 else f'FAILED ({status})'} in {seconds:.0f} s", file=sys.stderr, flush=True)
    if status:
        entry["output"] = output[-4000:]
        print(output[-4000:], file=sys.stderr)
    return entry


def compare(
    left: Callable[[], float], runner: Runner, blocks: str, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Every ways case on the GPU in these blocks, a process per file; which kernels that were. `keep` is told of each."""
    files = sorted(p for p in (ROOT / "tests").rglob("test_*.py") if TAKES_WAY.search(p.read_text()))
    equal: set[str] = set()
    failed, entry = [], {"step": f"kernels, {blocks} blocks", "status": 0, "seconds": 0.0, "files": {}}
    start = time.monotonic()
    for path in files:
        name = str(path.relative_to(ROOT))
        if left() < 5:
            entry["files"][name] = "no time was left"
            continue
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "ways.json"
            environment = {
                "JUMPGPU_WAYS_RECORD": str(record),
                "JUMPGPU_WAYS_BLOCKS": blocks,
                "JUMPGPU_TEST_LIMIT_S": str(TEST_LIMIT_S),
            }
            command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", name]
            status, output = runner(command, left(), environment)
            result = json.loads(record.read_text()) if record.exists() else {}
        equal |= set(result.get("passed", {}).get("cuda", ()))
        entry["files"][name] = "passed" if status in (0, NO_TESTS) else output[-4000:]
        if status not in (0, NO_TESTS):
            failed.append(name)
        entry |= {"kernels_equal": sorted(equal), "status": int(bool(failed)), "seconds": time.monotonic() - start}
        keep(entry)
    status = 1 if failed or not equal else 0
    output = "\n".join(f"{n}:\n{entry['files'][n][-1000:]}" for n in failed) or "no kernel was compared"
    more = {"kernels_equal": sorted(equal), "files": entry["files"]}
    return step(str(entry["step"]), status, output, time.monotonic() - start, **more)


def script(name: str, command: Sequence[str], left: Callable[[], float], runner: Runner, out: Path) -> dict[str, Any]:
    """A step that is a module of ours, and writes its figures as JSON."""
    start = time.monotonic()
    limit_s = min(left(), STEP_LIMIT_S[name.split()[0]])
    status, output = runner([sys.executable, "-m", *command, "--json", str(out)], max(limit_s, 1), {})
    figures = json.loads(out.read_text()) if out.exists() else {}
    return step(name, status, output, time.monotonic() - start, figures=figures)


def faults(left: Callable[[], float], runner: Runner) -> dict[str, Any]:
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu/test_gpu_faults.py"]
    status, output = runner(command, left(), {"JUMPGPU_TEST_LIMIT_S": str(TEST_LIMIT_S)})
    return step("faults", status, output, time.monotonic() - start)


def prepare(left: Callable[[], float], runner: Runner, folder: Path, images: Path) -> tuple[dict[str, Any], Plate]:
    """The host library and the fields to work on."""
    start = time.monotonic()
    status, output = 0, ""
    if not any(library_folder().glob("kernels_*.so")):
        status, output = runner(["make", "lib"], STEP_LIMIT_S["prepare"], {})
    given = Plate(images, "BR00117010", str(images.parent / "cellprofiler" / "flatfield"), True)
    if not images.is_dir() and status == 0:
        command = [sys.executable, "-m", "jumpgpu.synthetic", "--output", str(folder), "--plate", DRAWN]
        status, output = runner([*command, "--wells", "6", "--sites", "1", "--cells", "88"], STEP_LIMIT_S["prepare"], {})
        given = Plate(folder, DRAWN, "flatfield", False)
    return step("prepare", status, output, time.monotonic() - start), given


def sanitize(
    tool: str, left: Callable[[], float], runner: Runner, sanitizer: str, limit_s: float, plate: Plate, folder: Path
) -> dict[str, Any]:
    """One tool of compute-sanitizer, for at most so many seconds: memcheck over one field, the others over some cases."""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", sys.executable, "-m"]
    if tool == "memcheck":
        command += [
            "benchmarks.gpu_fields",
            *plate.options,
            "--batch",
            "1",
            "--once",
            "--json",
            str(folder / "memcheck.json"),
        ]
    else:
        command += ["pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *SANITIZED]
    start = time.monotonic()
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "JUMPGPU_WAYS_BLOCKS": "production"}
    status, output = runner(command, min(left(), limit_s), environment)
    cut, refused = status == 124, status not in (0, 9, 124) and bool(REFUSED.search(output))
    more = {"cut": cut, "refused": output[-1000:] if refused else ""}
    return step(f"sanitize {tool}", 0 if cut or refused else status, output, time.monotonic() - start, **more)


def main(arguments: Sequence[str] | None = None, runner: Runner = run) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--images", type=Path, default=ROOT.parent / "shared" / "data" / "fields")
    options = parser.parse_args(arguments)
    try:
        device = open_device("cuda")
    except RuntimeError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    missing = [p for p in PACKAGES if importlib.util.find_spec(p) is None]
    if missing:
        print(f"benchmarks.gpu: not installed: {', '.join(missing)}; pip install -e '.[cuda,test]'", file=sys.stderr)
    print(device.description, file=sys.stderr)
    end = time.monotonic() + LIMIT_S

    def left() -> float:
        return end - time.monotonic()

    sanitizer = shutil.which("compute-sanitizer")
    skipped = [] if sanitizer else ["compute-sanitizer is not installed"]
    skipped += [f"{p} is not installed: steps that need it fail, the others are run" for p in missing]
    steps: list[dict[str, Any]] = []

    def keep(entry: dict[str, Any]) -> None:
        """Write what there is until now, with this step's entry."""
        others = [s for s in steps if s["step"] != entry["step"]]
        figures = {
            "device": device.description,
            "torch_cuda": torch.version.cuda,
            "steps": [*others, entry],
            "skipped": skipped,
        }
        write_json(options.json, figures)

    def done(entry: dict[str, Any]) -> dict[str, Any]:
        keep(entry)
        steps.append(entry)
        return entry

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, plate = prepare(left, runner, folder / "images", options.images)
        if not plate.real:
            skipped.append(f"{options.images} is absent: drawn fields instead, whose times are not those predicted")
        done(first)
        for what in ("versions", "functions"):
            done(script(what, ["benchmarks.gpu_first", what], left, runner, folder / f"{what}.json"))
        for preset in PRESETS:
            command = ["benchmarks.gpu_fields", *plate.options, "--config", preset]
            done(script(f"fields {preset}", command, left, runner, folder / f"{preset}.json"))
        command = ["benchmarks.gpu_parts", *plate.options, "--fields", str(FIELDS), "--batch", "8", "--batch", "32"]
        done(script("parts", command, left, runner, folder / "parts.json"))
        command = ["benchmarks.throughput", *plate.options, "--device", "cuda", "--fields", str(FIELDS), "--repeats", "1"]
        done(script("throughput", command, left, runner, folder / "throughput.json"))
        for blocks in ("production", "others"):
            done(compare(left, runner, blocks, keep))
        done(faults(left, runner))
        for n, tool in enumerate(TOOLS if sanitizer else ()):
            share = left() / (len(TOOLS) - n)
            if share < 10:
                skipped.append(f"no time was left for sanitize {tool}")
                continue
            entry = sanitize(tool, left, runner, str(sanitizer), share, plate, folder)
            if entry["cut"]:
                skipped.append(f"sanitize {tool} was cut after {share:.0f} s, with nothing found")
            if entry["refused"]:
                skipped.append(f"sanitize {tool} is refused by this machine")
            done(entry)
    keep(steps[-1])
    failed = [s["step"] for s in steps if s["status"]]
    passed = f"{len(steps) - len(failed)} of {len(steps)} steps passed"
    print(f"{device.description}: {passed}; {'; '.join(skipped) or 'none skipped'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
