"""The first thing to run on a machine with a CUDA GPU: is it right, how fast is it, is it clean. Under nine minutes.

    make gpu                    # or: python -m benchmarks.gpu --json FILE

From a checkout with torch, CuPy and the test extra installed; nothing is downloaded. What matters most comes first; each
step is a process of its own with a limit (one that hangs is ended with all that it started), and the JSON is written anew
after each: what was found is kept whatever comes. A package that is missing costs the steps that need it alone. Limits add
up to less than nine minutes: a step has its share of them, and up to twice as much again of what those before it left.

  prepare      the host library, where it is not built (make lib), and a drawn plate, where the six real fields are not there
  versions     what is there; one kernel on two streams                                     (benchmarks.gpu_first)
  functions    every kernel compiled and loaded; registers and local memory beside the model's
  fields       six fields with each preset: bits of everything beside the CPU's, each kernel's time beside its prediction
               (benchmarks.gpu_fields)
  parts        64 fields, batches of 8 and 32: fields per second; reading, launching, waiting, writing (benchmarks.gpu_parts)
  throughput   the product: benchmarks.throughput --device cuda
  kernels      every kernel case of the tests that take a way on the GPU, bit for bit with the CPU, a process per file, four
               at once, and a limit a test: with the blocks of production, then with others
  faults       out of memory, a giant cell, broken label images and images, an interruption (tests/gpu/test_gpu_faults.py)
  sanitize     compute-sanitizer's memcheck over one field, then initcheck, synccheck and racecheck over some cases; a tool
               that the machine refuses, or that its share of the time cuts short, is recorded and fails nothing

Exit status 0: all that could run passed; 1: something failed; 2: no CUDA device or no CuPy.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, write_json
from jumpgpu.gpu.cpu import library_folder
from jumpgpu.gpu.machine import usable_cores
from jumpgpu.gpu.open import open_device

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "initcheck", "synccheck", "racecheck")  # the slowest last
SANITIZED = tuple(f"tests/ways/test_{name}.py" for name in ("lzw", "decode", "objects", "texture", "watershed"))
TAKES_WAY = re.compile(r"^def test_\w+\([^)]*\bway\b", re.M)
PRESETS = ("cpjump1", "jump-production")
FIELDS = 64
LIMIT_S = 520  # of all, from the start; the interpreter and its imports are before it
SHARES_S = {  # of the limit, in the order of the steps; the sanitizer's other tools have what is left
    "start": 20,
    "prepare": 50,
    "versions": 30,
    "functions": 60,
    "fields cpjump1": 35,
    "fields jump-production": 40,
    "parts": 50,
    "throughput": 70,
    "kernels, production blocks": 60,
    "kernels, others blocks": 40,
    "faults": 40,
    "sanitize memcheck": 25,
}
TIMES = 3  # its share that a step may take of what was left before it
TEST_LIMIT_S = 30
AT_ONCE = min(4, usable_cores())  # files of tests
REFUSED = re.compile(
    r"not supported|not permitted|ERR_NVGPUCTRPERM|unsupported|no attachable process|failed to initialize", re.I
)
DRAWN = "DRAWN"
NO_TESTS = 5  # pytest: none was chosen
NO_TIME = -1
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


class Budget:
    """The time of all steps. A step that hangs takes none of another's share."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.due = 0.0  # seconds after the start at which the steps until now are to have ended

    def left(self) -> float:
        return self.start + LIMIT_S - time.monotonic()

    def of(self, step: str) -> float:
        """Seconds that the next step may take."""
        self.due += SHARES_S[step]
        return max(1.0, min(self.start + min(self.due, LIMIT_S) - time.monotonic(), TIMES * SHARES_S[step]))


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
    print(f"{name:28s}{'passed' if status == 0 else f'FAILED ({status})'} in {seconds:.0f} s", file=sys.stderr, flush=True)
    if status:
        entry["output"] = output[-4000:]
        print(output[-4000:], file=sys.stderr)
    return entry


def compare(limit_s: float, runner: Runner, blocks: str, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Every ways case on the GPU in these blocks, a process per file; which kernels that were. `keep` is told of each."""
    files = sorted(p for p in (ROOT / "tests").rglob("test_*.py") if TAKES_WAY.search(p.read_text()))
    equal: set[str] = set()
    failed, late = [], []
    entry: dict[str, Any] = {"step": f"kernels, {blocks} blocks", "status": 0, "seconds": 0.0, "files": {}}
    start = time.monotonic()

    lock = threading.Lock()

    def ask(path: Path) -> tuple[int, str, set[str]]:
        """Status (of none where no time is left), output, and the kernels that were equal."""
        left = start + limit_s - time.monotonic()
        if left < 5:
            return NO_TIME, "no time was left", set()
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "ways.json"
            environment = {
                "JUMPGPU_WAYS_RECORD": str(record),
                "JUMPGPU_WAYS_BLOCKS": blocks,
                "JUMPGPU_TEST_LIMIT_S": str(TEST_LIMIT_S),
            }
            command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", relative(path)]
            status, output = runner(command, left, environment)
            result = json.loads(record.read_text()) if record.exists() else {}
        return status, output, set(result.get("passed", {}).get("cuda", ()))

    def one(path: Path) -> None:
        name, (status, output, kernels) = relative(path), ask(path)
        with lock:
            equal.update(kernels)
            entry["files"][name] = "passed" if status in (0, NO_TESTS) else output[-4000:]
            if status == NO_TIME:
                late.append(name)
            elif status not in (0, NO_TESTS):
                failed.append(name)
            entry.update(kernels_equal=sorted(equal), status=int(bool(failed)), seconds=time.monotonic() - start)
            keep(entry)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            list(pool.map(one, files))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    status = 1 if failed or not equal else 0
    output = "\n".join(f"{n}:\n{entry['files'][n][-1000:]}" for n in sorted(failed)) or "no kernel was compared"
    more = {"kernels_equal": sorted(equal), "files": entry["files"], "late": sorted(late)}
    return step(entry["step"], status, output, time.monotonic() - start, **more)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def script(name: str, command: Sequence[str], limit_s: float, runner: Runner, out: Path) -> dict[str, Any]:
    """A step that is a module of ours, and writes its figures as JSON."""
    start = time.monotonic()
    status, output = runner([sys.executable, "-m", *command, "--json", str(out)], limit_s, {})
    figures = json.loads(out.read_text()) if out.exists() else {}
    return step(name, status, output, time.monotonic() - start, figures=figures)


def faults(limit_s: float, runner: Runner) -> dict[str, Any]:
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu/test_gpu_faults.py"]
    status, output = runner(command, limit_s, {"JUMPGPU_TEST_LIMIT_S": str(TEST_LIMIT_S)})
    return step("faults", status, output, time.monotonic() - start)


def prepare(limit_s: float, runner: Runner, folder: Path, images: Path) -> tuple[dict[str, Any], Plate]:
    """The host library and the fields to work on."""
    start = time.monotonic()
    status, output = 0, ""
    if not any(library_folder().glob("kernels_*.so")):
        status, output = runner(["make", "lib"], limit_s, {})
    given = Plate(images, "BR00117010", str(images.parent / "cellprofiler" / "flatfield"), True)
    if not images.is_dir() and status == 0:
        command = [sys.executable, "-m", "jumpgpu.synthetic", "--output", str(folder), "--plate", DRAWN]
        left = max(1.0, start + limit_s - time.monotonic())
        status, output = runner([*command, "--wells", "6", "--sites", "1", "--cells", "88"], left, {})
        given = Plate(folder, DRAWN, "flatfield", False)
    return step("prepare", status, output, time.monotonic() - start), given


def sanitize(tool: str, limit_s: float, runner: Runner, sanitizer: str, plate: Plate, folder: Path) -> dict[str, Any]:
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
    status, output = runner(command, limit_s, environment)
    cut, refused = status == 124, status not in (0, 9, 124) and bool(REFUSED.search(output))
    more = {"cut": cut, "refused": output[-1000:] if refused else ""}
    return step(f"sanitize {tool}", 0 if cut or refused else status, output, time.monotonic() - start, **more)


def main(arguments: Sequence[str] | None = None, runner: Runner = run) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--images", type=Path, default=ROOT.parent / "shared" / "data" / "fields")
    options = parser.parse_args(arguments)
    budget = Budget()
    hangs_s = budget.of("start") + SHARES_S["prepare"]  # a driver may hang; one that is slow takes from the next step
    faulthandler.dump_traceback_later(hangs_s, exit=True, file=sys.__stderr__)
    try:
        device = open_device("cuda")
    except RuntimeError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    finally:
        faulthandler.cancel_dump_traceback_later()
    missing = [p for p in PACKAGES if importlib.util.find_spec(p) is None]
    if missing:
        print(f"benchmarks.gpu: not installed: {', '.join(missing)}; pip install -e '.[cuda,test]'", file=sys.stderr)
    print(device.description, file=sys.stderr)
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

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first, plate = prepare(budget.of("prepare"), runner, folder / "images", options.images)
        if not plate.real:
            skipped.append(f"{options.images} is absent: drawn fields instead, whose times are not those predicted")
        done(first)
        many = ["--fields", str(FIELDS)]
        threads = str(min(16, usable_cores()))
        scripts = {name: ["benchmarks.gpu_first", name] for name in ("versions", "functions")}
        scripts |= {f"fields {p}": ["benchmarks.gpu_fields", *plate.options, "--config", p] for p in PRESETS}
        scripts["parts"] = ["benchmarks.gpu_parts", *plate.options, *many, "--batch", "8", "--batch", "32"]
        scripts["throughput"] = ["benchmarks.throughput", *plate.options, *many, "--device", "cuda", "--repeats", "1"]
        scripts["throughput"] += ["--threads", threads]
        for name, command in scripts.items():
            done(script(name, command, budget.of(name), runner, folder / f"{name}.json"))
        for blocks in ("production", "others"):
            entry = done(compare(budget.of(f"kernels, {blocks} blocks"), runner, blocks, keep))
            if entry["late"]:
                skipped.append(f"no time was left for {len(entry['late'])} files of {entry['step']}")
        done(faults(budget.of("faults"), runner))
        for n, tool in enumerate(TOOLS if sanitizer else ()):
            share = budget.left() / (len(TOOLS) - n)
            if tool == "memcheck":
                share = max(budget.left() / 2, min(budget.left(), SHARES_S["sanitize memcheck"]))
            if share < 10:
                skipped.append(f"no time was left for sanitize {tool}")
                continue
            entry = done(sanitize(tool, share, runner, str(sanitizer), plate, folder))
            if entry["cut"]:
                skipped.append(f"sanitize {tool} was cut after {share:.0f} s, with nothing found")
            if entry["refused"]:
                skipped.append(f"sanitize {tool} is refused by this machine")
    keep(steps[-1])
    failed = [s["step"] for s in steps if s["status"]]
    passed = f"{len(steps) - len(failed)} of {len(steps)} steps passed"
    print(f"{device.description}: {passed}; {'; '.join(skipped) or 'none skipped'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
