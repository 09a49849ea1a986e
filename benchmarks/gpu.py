"""The first thing to run on a machine with a CUDA GPU: is it right, is it clean, how fast is it. Under ten minutes.

    make gpu                    # or: python -m benchmarks.gpu --json FILE

From a checkout with torch, CuPy and the test extra installed; nothing is downloaded. In order, while time is left:

  compare     every kernel case of tests/test_*_ways.py on the GPU, at three block sizes, bit for bit with the CPU
  sanitize    compute-sanitizer's memcheck, racecheck, initcheck and synccheck over some of these, where it is installed
  measure     benchmarks.stages on the GPU, where its fields are there

Exit status 0: all that could run passed; 1: something failed; 2: no CUDA device or no CuPy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, write_json
from jumpgpu.device import open_device

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED = ("tests/test_objects_ways.py", "tests/test_texture_ways.py", "tests/test_watershed_ways.py")
LIMIT_S = 570
Runner = Callable[[Sequence[str], float, dict[str, str]], tuple[int, str]]


def run(command: Sequence[str], limit_s: float, environment: dict[str, str]) -> tuple[int, str]:
    """Status and output of a command; status 124 where it ran past its limit."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=max(limit_s, 1),
        )
    except subprocess.TimeoutExpired as late:
        return 124, late.output.decode(errors="replace") if isinstance(late.output, bytes) else late.output or ""
    return done.returncode, done.stdout


def step(name: str, status: int, output: str, seconds: float, **more: Any) -> dict[str, Any]:
    """One step's entry; its last words only where it failed."""
    entry = {"step": name, "status": status, "seconds": round(seconds, 1), **more}
    print(f"{name:22s}{'passed' if status == 0 else f'FAILED ({status})'} in {seconds:.0f} s", file=sys.stderr, flush=True)
    if status:
        entry["output"] = output[-4000:]
        print(output[-4000:], file=sys.stderr)
    return entry


def compare(left: Callable[[], float], runner: Runner) -> dict[str, Any]:
    """Every ways case on the GPU, and which kernels that were."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "ways.json"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
        start = time.monotonic()
        status, output = runner(command, left(), {"JUMPGPU_WAYS_RECORD": str(record)})
        kernels = json.loads(record.read_text()) if record.exists() else {}
    passed = kernels.get("passed", {}).get("cuda", [])
    if status == 0 and not passed:
        status, output = 1, f"no kernel was compared\n{output}"
    more = {"kernels_equal": passed, "kernels_missing": kernels.get("missing", {}).get("cuda", [])}
    return step("compare", status, output, time.monotonic() - start, **more)


def sanitize(tool: str, left: Callable[[], float], runner: Runner, sanitizer: str) -> dict[str, Any]:
    """One tool of compute-sanitizer over some cases."""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    command += [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *SANITIZED]
    start = time.monotonic()
    status, output = runner(command, min(left(), 90), {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    return step(f"sanitize {tool}", status, output, time.monotonic() - start)


def measure(left: Callable[[], float], runner: Runner, images: Path, json_file: Path) -> dict[str, Any]:
    """Seconds a field of each stage on the GPU."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.stages",
        "--device",
        "cuda",
        "--images",
        str(images),
        "--json",
        str(json_file),
    ]
    start = time.monotonic()
    status, output = runner(command, left(), {})
    figures = json.loads(json_file.read_text()) if status == 0 and json_file.exists() else {}
    return step("measure", status, output, time.monotonic() - start, figures=figures)


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
    print(device.description, file=sys.stderr)
    end = time.monotonic() + LIMIT_S

    def left() -> float:
        return end - time.monotonic()

    steps = [compare(left, runner)]
    sanitizer = shutil.which("compute-sanitizer")
    for tool in TOOLS if sanitizer else ():
        if left() > 30:
            steps.append(sanitize(tool, left, runner, str(sanitizer)))
    if options.images.is_dir() and left() > 30:
        with tempfile.TemporaryDirectory() as folder:
            steps.append(measure(left, runner, options.images, Path(folder) / "stages.json"))
    skipped = [] if sanitizer else ["compute-sanitizer is not installed"]
    skipped += [] if options.images.is_dir() else [f"{options.images} is absent: nothing measured"]
    if len(steps) < 1 + len(TOOLS) * bool(sanitizer) + options.images.is_dir():
        skipped.append("no time was left for some steps")
    figures = {"device": device.description, "torch_cuda": torch.version.cuda, "steps": steps, "skipped": skipped}
    write_json(options.json, figures)
    failed = [s["step"] for s in steps if s["status"]]
    passed = f"{len(steps) - len(failed)} of {len(steps)} steps passed"
    print(f"{device.description}: {passed}; {'; '.join(skipped) or 'none skipped'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
