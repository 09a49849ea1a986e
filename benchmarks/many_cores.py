"""Python's lock on many cores: for how much of a field it is held, and what that leaves of 16 and 64 cores.

    pip install py-spy
    python -m benchmarks.many_cores --images ../shared/data/fields --plate BR00117010

`py-spy record --gil` looks 500 times a second, from another core, whether some thread of a run on one thread holds the
lock; a field's share is marginal, that of the whole plate less that of one well. The model is a closed queue: each of n
threads computes on a core of its own and then waits for the lock, which one holds at a time (mean value analysis, times of
exponential spread). Efficiency is fields per second over n times those of one thread. Processes (`--workers`) have a lock
each, so that 64 cores are 16 processes of four threads. What cores share otherwise, memory and disk, is not in the model.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, run_command, spread, write_json
from benchmarks.memory import SITES_PER_WELL, repeat_plate

RATE = 500  # looks a second
CORES = (2, 4, 8, 16, 64)
PER_PROCESS = 4  # threads of a worker


def efficiency(threads: int, share: float) -> float:
    """Of `threads` in one process, where a field holds the lock for this share of its time."""
    waiting = 0.0
    answer = share
    for n in range(1, threads + 1):
        answer = share * (1 + waiting)
        waiting = n / (1 - share + answer) * answer
    return 1 / (1 - share + answer)


def held(options: argparse.Namespace, images: str, folder: Path, wells: Sequence[str]) -> tuple[float, float]:
    """Seconds under the lock, and of the processor, of one run on one thread."""
    samples = folder / "samples.txt"
    command = [options.spy, "record", "--gil", "--nonblocking", "--rate", RATE, "--format", "raw", "--output", samples, "--"]
    extract = [sys.executable, "-m", "jumpgpu.extract", "--plate", options.plate, "--images", images, "--threads", "1"]
    extract += ["--illumination", options.illumination, "--output", folder / "out", "--overwrite", "--quiet", *wells]
    run_command([str(word) for word in (*command, *extract)], OMP_NUM_THREADS="1")
    counts = [int(line.rpartition(" ")[2]) for line in samples.read_text().splitlines()]
    return sum(counts) / RATE, run_command(extract, cores=1, OMP_NUM_THREADS="1").cpu_s


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_cores", description=__doc__)
    parser.add_argument("--images", default="../shared/data/fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument("--illumination", default="../shared/data/cellprofiler/flatfield")
    parser.add_argument("--fields", type=int, default=54, help="images repeated to so many fields (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--spy", default="py-spy", help="the program, where it is not on the path")
    parser.add_argument("--json", type=Path, default=RESULTS / "many_cores.json")
    options = parser.parse_args(argv)
    locked, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        images = str(Path(folder) / "images")
        repeat_plate(options.images, options.plate, options.fields, Path(images))
        for _ in range(options.repeats):
            one, whole = (held(options, images, Path(folder), wells) for wells in (["--wells", "A01"], []))
            per_field = [(b - a) / (options.fields - SITES_PER_WELL) for a, b in zip(one, whole, strict=True)]
            locked.append(1000 * per_field[0])
            cpu.append(1000 * per_field[1])
    share = spread(locked).median / spread(cpu).median
    figures: dict[str, Any] = {"ms under the lock": spread(locked), "ms of a field": spread(cpu), "share": share}
    figures["one process"] = {n: efficiency(n, share) for n in CORES}
    figures[f"processes of {PER_PROCESS}"] = {n: efficiency(min(n, PER_PROCESS), share) for n in CORES}
    write_json(options.json, figures)
    print(f"under the lock {spread(locked)} ms of {spread(cpu)} ms a field: {share:.1%}")
    for name in ("one process", f"processes of {PER_PROCESS}"):
        print(f"{name}: " + ", ".join(f"{n} cores {e:.2f}" for n, e in figures[name].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
