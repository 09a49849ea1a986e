"""What a benchmark was run on, and how a figure is taken: repeats, median, spread, and a JSON file per run."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("jumpgpu", "torch", "numpy", "scipy", "scikit-image", "imagecodecs", "tifffile", "zarr", "anndata")


@dataclasses.dataclass(frozen=True)
class Spread:
    """Least, median and most of repeated figures."""

    minimum: float
    median: float
    maximum: float
    runs: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.minimum:.3g} .. {self.maximum:.3g}, {self.runs} runs)"


def spread(values: Sequence[float]) -> Spread:
    return Spread(min(values), statistics.median(values), max(values), len(values))


def seconds(work: Callable[[], Any], runs: int, *, cpu: bool = True, warm_up: int = 1) -> Spread:
    """Seconds of `work` over some runs after a warm-up: of this process's processor time, or of the wall clock."""
    clock = time.process_time if cpu else time.perf_counter
    for _ in range(warm_up):
        work()
    taken = []
    for _ in range(runs):
        start = clock()
        work()
        taken.append(clock() - start)
    return spread(taken)


@dataclasses.dataclass(frozen=True)
class Usage:
    """One finished command: wall seconds, processor seconds, peak resident bytes, and its standard output."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str


def run_command(
    command: Sequence[str | Path], statuses: Sequence[int] = (0,), cores: int | None = None, **environment: str
) -> Usage:
    """Run a command as a process of its own and account for it (its children's children too, once they have ended).

    `cores` confines it to so many of this machine's cores. RuntimeError with its last words if it ends with another status
    than `statuses`.
    """
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    words = list(map(str, command))
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=output, stderr=errors, env={**os.environ, **environment})
        os.sched_setaffinity(process.pid, allowed)  # before it has a thread
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (output, errors):
            stream.seek(0)
        if process.returncode not in statuses:
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {errors.read()[-2000:]}")
        return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, output.read())


def machine() -> dict[str, Any]:
    """Processor, cores, memory, commit and library versions."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "packages": {p: version(p) for p in PACKAGES},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """One run's figures with the machine they were taken on; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps({"machine": machine(), **figures}, indent=1, default=dataclasses.asdict) + "\n")
    part.replace(path)
