"""What worker processes gain: several drawn plates with one process, with workers, and with commands side by side.

    python -m benchmarks.workers --workers 2

Three ways to measure the same plates, their stores compared byte by byte: one process on one core; `--workers N` on one
thread each and N cores; and N commands side by side on a core each with a share of the plates, which is what the machine
gives at most. Seconds are of the wall clock, of a run of all plates and of one of no wells (start-up alone, each way's own).
What others did on the processors meanwhile is recorded as the share of their time that was not ours.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, write_json
from jumpgpu.synthetic import SyntheticSettings, draw_plate


def busy_s() -> float:
    """Seconds that this machine's processors have worked, for anybody."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def timed(commands: Sequence[Sequence[str]], cores: int) -> dict[str, float]:
    """Wall seconds of commands run side by side on so many cores each, their processor seconds, and others' share."""
    here = sorted(os.sched_getaffinity(0))
    before, times, start = busy_s(), os.times(), time.perf_counter()
    started = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in commands]
    for i, process in enumerate(started):  # before it has a thread
        os.sched_setaffinity(process.pid, {here[(i * cores + k) % len(here)] for k in range(cores)})
    statuses = [process.wait() for process in started]
    wall, after = time.perf_counter() - start, os.times()
    if any(statuses):
        raise RuntimeError(f"a run ended with {max(statuses)}: {' '.join(commands[0])}")
    ours = after.children_user + after.children_system - times.children_user - times.children_system
    return {"wall_s": wall, "cpu_s": ours, "others": max(0.0, (busy_s() - before - ours) / (len(here) * wall))}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the plates under a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("*.zarr/**/*")) if p.is_file()}


def measure(images: Path, plates: Sequence[str], workers: int, repeats: int, side_by_side: bool) -> dict[str, Any]:
    def command(output: Path, chosen: Sequence[str], *options: str) -> list[str]:
        names = [word for plate in chosen for word in ("--plate", plate)]
        extract = [sys.executable, "-m", "jumpgpu.extract", *names, "--images", str(images), "--output", str(output)]
        return [*extract, "--illumination", "flatfield", "--device", "cpu", "--quiet", *options]

    shares = [plates[i::workers] for i in range(workers)]
    ways = {
        "one process": lambda out: [command(out, plates, "--threads", "1")],
        "workers": lambda out: [command(out, plates, "--workers", str(workers), "--threads", "1")],
        "side by side": lambda out: [command(out, share, "--threads", "1") for share in shares],
    }
    ways = {way: produced for way, produced in ways.items() if way != "side by side" or side_by_side}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    start_up: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    stores: dict[str, dict[str, bytes]] = {}
    for _ in range(repeats):
        for way, commands in ways.items():
            cores = workers if way == "workers" else 1
            with tempfile.TemporaryDirectory() as folder:
                output = Path(folder) / "out"
                runs[way].append(timed(commands(output), cores))
                stores[way] = contents(output)
                start_up[way].append(
                    timed(commands(output), cores)
                )  # all wells are there: what is left is starting and ending
    minimum = {way: min(r["wall_s"] for r in result) for way, result in runs.items()}
    work = {way: minimum[way] - min(r["wall_s"] for r in start_up[way]) for way in ways}
    cpu = {w: min(r["cpu_s"] for r in runs[w]) - min(r["cpu_s"] for r in start_up[w]) for w in ways}
    figures = {
        "runs": runs,
        "start_up": start_up,
        "same_bits": all(store == stores["one process"] for store in stores.values()),
        "speed_up": minimum["one process"] / minimum["workers"],
        "speed_up_without_start_up": work["one process"] / work["workers"],
        "processor_seconds_to_one_process": cpu["workers"] / cpu["one process"],
    }
    if side_by_side:
        figures["speed_up_of_side_by_side"] = minimum["one process"] / minimum["side by side"]
        figures["side_by_side_without_start_up"] = work["one process"] / work["side by side"]
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plates", type=int, default=4)
    parser.add_argument("--wells", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-side-by-side", action="store_true", help="leave out the commands side by side")
    parser.add_argument("--images", type=Path, help="drawn plates are kept and found there")
    parser.add_argument("--json", type=Path, default=RESULTS / "workers.json")
    options = parser.parse_args(argv)
    images = options.images or Path(tempfile.mkdtemp())
    plates = [f"W{i}" for i in range(1, options.plates + 1)]
    for i, plate in enumerate(plates):
        if not (images / plate).exists() and not list(images.glob(f"{plate}__*")):
            draw_plate(images, plate, SyntheticSettings(wells=options.wells, sites=2, seed=i))
    figures = measure(images, plates, options.workers, options.repeats, not options.no_side_by_side)
    figures |= {"workers": options.workers, "plates": options.plates, "wells": options.wells, "sites": 2}
    write_json(options.json, figures)
    for way, result in figures["runs"].items():
        lines = [f"{r['wall_s']:.1f} s wall, {r['cpu_s']:.1f} s of processors, others {r['others']:.0%}" for r in result]
        start = min(r["wall_s"] for r in figures["start_up"][way])
        print(f"{way}: {'; '.join(lines)}; start-up {start:.1f} s")
    for name, value in figures.items():
        if isinstance(value, float):
            print(f"{name.replace('_', ' ')}: {value:.2f}")
    print(f"same bits: {figures['same_bits']}")
    if not options.images:
        shutil.rmtree(images)


if __name__ == "__main__":
    main()
