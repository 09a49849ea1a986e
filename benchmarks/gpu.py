"""The first thing to run on a machine with a CUDA GPU: is it right, is it clean, how fast is it. Under ten minutes.

    make gpu                    # or: python -m benchmarks.gpu --json FILE

From a checkout with torch, CuPy and the test extra installed; nothing is downloaded. In order, while time is left:

  prepare     the host library, where it is not built (make lib), and a drawn plate, where the six real fields are not there
  compare     every kernel case of the tests that take a way on the GPU, at three block sizes, bit for bit with the CPU
  fields      whole fields on the GPU and the CPU, bit for bit, and each kernel timed beside its prediction
              (benchmarks.gpu_fields)
  sanitize    compute-sanitizer's memcheck, racecheck, initcheck and synccheck over some cases, where it is installed; a tool
              that its share of the time cuts short is named, and what it saw until then held
  measure     benchmarks.stages on the GPU

Exit status 0: all that could run passed; 1: something failed; 2: no CUDA device, no CuPy or a package missing.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import re
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
from jumpgpu.gpu.cpu import library_folder
from jumpgpu.gpu.open import open_device

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED = tuple(f"tests/ways/test_{name}.py" for name in ("lzw", "decode", "objects", "texture", "watershed"))
TAKES_WAY = re.compile(r"^def test_\w+\([^)]*\bway\b", re.M)
LIMIT_S = 570
MEASURE_S = 60  # kept for the last step
DRAWN = "DRAWN"
PACKAGES = ("pytest", "numpy", "tifffile", "imagecodecs", "zarr", "anndata")  # the first that a step would miss


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
        files = [p for p in (ROOT / "tests").rglob("test_*.py") if TAKES_WAY.search(p.read_text())]
        cases = sorted(str(p.relative_to(ROOT)) for p in files)
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *cases]
        start = time.monotonic()
        status, output = runner(command, left(), {"JUMPGPU_WAYS_RECORD": str(record)})
        kernels = json.loads(record.read_text()) if record.exists() else {}
    passed = kernels.get("passed", {}).get("cuda", [])
    if status == 0 and not passed:
        status, output = 1, f"no kernel was compared\n{output}"
    more = {"kernels_equal": passed, "kernels_missing": kernels.get("missing", {}).get("cuda", [])}
    return step("compare", status, output, time.monotonic() - start, **more)


def prepare(left: Callable[[], float], runner: Runner, folder: Path, images: Path) -> tuple[dict[str, Any], Plate]:
    """The host library and the fields to work on."""
    start = time.monotonic()
    status, output = 0, ""
    if not any(library_folder().glob("kernels_*.so")):
        status, output = runner(["make", "lib"], left(), {})
    given = Plate(images, "BR00117010", str(images.parent / "cellprofiler" / "flatfield"), True)
    if not images.is_dir() and status == 0:
        command = [sys.executable, "-m", "jumpgpu.synthetic", "--output", str(folder), "--plate", DRAWN]
        status, output = runner([*command, "--wells", "6", "--sites", "1", "--cells", "88"], left(), {})
        given = Plate(folder, DRAWN, "flatfield", False)
    return step("prepare", status, output, time.monotonic() - start), given


def fields(left: Callable[[], float], runner: Runner, plate: Plate, json_file: Path) -> dict[str, Any]:
    """Whole fields on both devices, and the kernels' times."""
    start = time.monotonic()
    status, output = runner(
        [sys.executable, "-m", "benchmarks.gpu_fields", *plate.options, "--json", str(json_file)], left(), {}
    )
    figures = json.loads(json_file.read_text()) if json_file.exists() else {}
    return step("fields", status, output, time.monotonic() - start, figures=figures)


def sanitize(tool: str, left: Callable[[], float], runner: Runner, sanitizer: str, limit_s: float) -> dict[str, Any]:
    """One tool of compute-sanitizer over some cases, for at most so many seconds."""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    command += [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *SANITIZED]
    start = time.monotonic()
    status, output = runner(command, min(left(), limit_s), {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    cut = status == 124
    return step(f"sanitize {tool}", 0 if cut else status, output, time.monotonic() - start, cut=cut)


def measure(left: Callable[[], float], runner: Runner, plate: Plate, json_file: Path) -> dict[str, Any]:
    """Seconds a field of each stage on the GPU."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.stages",
        "--device",
        "cuda",
        *plate.options,
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
    if missing := [p for p in PACKAGES if importlib.util.find_spec(p) is None]:
        print(f"benchmarks.gpu: not installed: {', '.join(missing)}; pip install -e '.[cuda,test]'", file=sys.stderr)
        return 2
    print(device.description, file=sys.stderr)
    end = time.monotonic() + LIMIT_S

    def left() -> float:
        return end - time.monotonic()

    sanitizer = shutil.which("compute-sanitizer")
    skipped = [] if sanitizer else ["compute-sanitizer is not installed"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, plate = prepare(left, runner, folder / "images", options.images)
        steps = [first]
        if not plate.real:
            skipped.append(f"{options.images} is absent: drawn fields instead, whose times are not those predicted")
        steps += [compare(left, runner), fields(left, runner, plate, folder / "fields.json")]
        for done, tool in enumerate(TOOLS if sanitizer else ()):
            share = (left() - MEASURE_S) / (len(TOOLS) - done)
            if share < 10:
                skipped.append(f"no time was left for sanitize {tool}")
                continue
            steps.append(sanitize(tool, left, runner, str(sanitizer), share))
            if steps[-1]["cut"]:
                skipped.append(f"sanitize {tool} was cut after {share:.0f} s, with nothing found")
        if left() > 5:
            steps.append(measure(left, runner, plate, folder / "stages.json"))
        else:
            skipped.append("no time was left for measure")
    figures = {"device": device.description, "torch_cuda": torch.version.cuda, "steps": steps, "skipped": skipped}
    write_json(options.json, figures)
    failed = [s["step"] for s in steps if s["status"]]
    passed = f"{len(steps) - len(failed)} of {len(steps)} steps passed"
    print(f"{device.description}: {passed}; {'; '.join(skipped) or 'none skipped'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
