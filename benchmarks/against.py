"""Two checkouts, one run: processor seconds of the same work, in turn, and the ratio of this checkout's to the other's.

    git worktree add --detach ../old e695663 && make -C ../old lib
    python -m benchmarks.against --other ../old --case stages --case command --repeats 12
    python -m benchmarks.against --other ../old --case 'stored cells' --case profiles --repeats 3

Every figure is of processes of their own (user and system seconds of a child and its children), one of each checkout in
turn, the first of a pair alternating, so that load of others falls on both. A ratio is of a pair; the median of all pairs is
given with the 95 % interval of 10 000 bootstrap samples. Above 1 this checkout is the faster.
"""

import argparse
import json
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, Usage, run_command, spread, write_json
from benchmarks.memory import SITES_PER_WELL, repeat_plate
from benchmarks.stored_cells import PLATE
from benchmarks.throughput import DONE, STAGES
from jumpgpu.settings.names import BRIGHTFIELD, CHANNELS

HERE = Path(__file__).resolve().parent.parent
Figures = dict[str, float]


class Run:
    """What every case is given: images, where a checkout lies, and a folder for what it writes."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.images = str(Path(options.images).resolve())
        self.plate = options.plate
        self.illumination = str(Path(options.illumination).resolve())
        self.fields = options.fields
        self.wells, self.sites = options.wells, options.sites
        self.metadata = str(Path(options.metadata).resolve())
        self.folder = folder
        self.drawn: dict[Path, Figures] = {}  # of each checkout, what drawing its plate of stored cells took

    def child(self, checkout: Path, *words: str, statuses: Sequence[int] = (0,)) -> float:
        """CPU seconds of `python words` on one core, with the checkout's modules, whose bytecode is kept as a user's is."""
        return self.usage(checkout, *words, statuses=statuses).cpu_s

    def usage(self, checkout: Path, *words: str, statuses: Sequence[int] = (0,)) -> Usage:
        command = [
            "env",
            "-u",
            "PYTHONDONTWRITEBYTECODE",
            f"--chdir={checkout}",
            f"PYTHONPATH={checkout}",
            "OMP_NUM_THREADS=1",
        ]
        command += [sys.executable, *words]
        return run_command(command, statuses, cores=1)

    def repeated(self) -> str:
        """The images in turn, as a plate of `fields` fields."""
        folder = self.folder / "images"
        if not folder.exists():
            repeat_plate(self.images, self.plate, self.fields, folder)
        return str(folder)

    def stored(self, checkout: Path, what: str) -> Figures:
        """What `stored_cells.py` prints of a drawn plate of the checkout's own: of drawing it, or of reading."""
        size = ["--wells", str(self.wells), "--sites", str(self.sites)]
        words = [str(HERE / "benchmarks" / "stored_cells.py"), what, str(self.store_of(checkout)), *size]
        figures: Figures = json.loads(self.usage(checkout, *words).output)
        return figures

    def store_of(self, checkout: Path) -> Path:
        return self.folder / f"stored by {checkout.name}"

    def extract(self, checkout: Path, images: str, *words: str, config: str = "cpjump1") -> float:
        """CPU seconds of measuring a plate into a folder of its own."""
        command = ["-m", "jumpgpu.extract", "--plate", self.plate, "--images", images, "--config", config, "--device", "cpu"]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            command += ["--illumination", self.illumination, "--output", folder, "--threads", "1", "--quiet", *words]
            return self.child(checkout, *command, statuses=DONE)


def stages(run: Run, checkout: Path) -> Figures:
    """Milliseconds per field of the stages that CellProfiler has too, of all, and of each (the better of two repeats)."""
    path = run.folder / "stages.json"
    words = ["--images", run.images, "--plate", run.plate, "--illumination", run.illumination]
    run.child(checkout, "-m", "benchmarks.stages", *words, "--repeats", "2", "--json", str(path))
    ms = json.loads(path.read_text())["stages_ms"]
    return {"shared stages": sum(ms[s] for s in STAGES), "all stages": sum(ms.values()), **ms}


def command(run: Run, checkout: Path) -> Figures:
    """The whole command: seconds per field beyond the first well's, and those of starting up."""
    images = run.repeated()
    one, whole = run.extract(checkout, images, "--wells", "A01"), run.extract(checkout, images)
    per_field = (whole - one) / (run.fields - SITES_PER_WELL)
    return {"command, per field": per_field, "command, start-up": one - SITES_PER_WELL * per_field, "command, whole": whole}


def settings(run: Run, checkout: Path) -> Figures:
    """CPU seconds per field, without illumination functions, of CPJUMP1's settings, of those with three brightfield planes
    (here further images of the other channels), and of JUMP production's with image quality; and over the first."""
    images = run.repeated()
    for file in Path(images).rglob("*-ch[123]sk*"):
        brightfield = file.with_name(re.sub(r"-ch(\d)", lambda m: f"-ch{int(m[1]) + 5}", file.name))
        if not brightfield.exists():
            brightfield.hardlink_to(file)
    config = run.folder / "eight.toml"
    config.write_text(f"[plate]\nchannels = {json.dumps([*CHANNELS, *BRIGHTFIELD])}\n")
    seconds = {}
    for name, words in (("cpjump1", "cpjump1"), ("eight channels", str(config)), ("jump-production", "jump-production")):
        one, whole = (
            run.extract(checkout, images, "--illumination", "none", *wells, config=words)
            for wells in (["--wells", "A01"], [])
        )
        seconds[name] = (whole - one) / (run.fields - SITES_PER_WELL)
    return seconds | {f"{name} / cpjump1": seconds[name] / seconds["cpjump1"] for name in list(seconds)[1:]}


def start_up(run: Run, checkout: Path) -> Figures:
    """Seconds of a run that reads nothing, and of what no run can do without."""
    dry = run.extract(checkout, run.images, "--dry-run")
    libraries = run.child(checkout, "-c", "import torch, zarr")
    return {"dry run": dry, "import torch, zarr": libraries, "dry run / imports": dry / libraries}


def stored_cells(run: Run, checkout: Path) -> Figures:
    """Writing a plate of cells, its bytes (of one drawing, 4 GB), and reading five columns of all wells back."""
    if checkout not in run.drawn:
        run.drawn[checkout] = run.stored(checkout, "draw")
    return run.drawn[checkout] | run.stored(checkout, "read")


def profiles(run: Run, checkout: Path) -> Figures:
    """Seconds of `profile` and of `score` from a plate of stored cells."""
    folder = run.store_of(checkout)
    if checkout not in run.drawn:
        run.drawn[checkout] = run.stored(checkout, "draw")
    common = ["--plate", PLATE, "--output", str(folder), "--metadata", run.metadata]
    shutil.rmtree(folder / "profiles", ignore_errors=True)  # the earlier commit knows no --overwrite
    profile = run.child(checkout, "-m", "jumpgpu.profile", *common)
    score = run.child(checkout, "-m", "jumpgpu.score", "replicating", *common)
    return {"profile": profile, "score": score, "profile and score": profile + score}


CASES: dict[str, Callable[[Run, Path], Figures]] = {
    "stages": stages,
    "command": command,
    "settings": settings,
    "start-up": start_up,
    "stored cells": stored_cells,
    "profiles": profiles,
}


def interval(ratios: Sequence[float], samples: int = 10_000) -> tuple[float, float]:
    """The 95 % interval of the median, by the bootstrap's percentiles."""
    drawn = np.random.default_rng(0).choice(ratios, (samples, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def compare(run: Run, case: Callable[[Run, Path], Figures], here: Path, other: Path, repeats: int) -> dict[str, Any]:
    """Figures of both checkouts in turn, after a warm-up of each, and the ratios of the other's to this one's."""
    taken: dict[Path, list[Figures]] = {here: [], other: []}
    for i in range(repeats + 1):
        for checkout in (here, other) if i % 2 else (other, here):
            figures = case(run, checkout)
            if i:
                taken[checkout].append(figures)
    result = {}
    for name in taken[here][0]:
        ours, theirs = ([figures[name] for figures in taken[c]] for c in (here, other))
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        low, high = interval(ratios)
        result[name] = {
            "this": spread(ours),
            "other": spread(theirs),
            "ratio": statistics.median(ratios),
            "low": low,
            "high": high,
        }
    return result


def commit_of(checkout: Path) -> str:
    return run_command(["git", "-C", str(checkout), "rev-parse", "HEAD"]).output.strip()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__.split("\n\n")[0])
    parser.add_argument("--other", type=Path, required=True, help="checkout of another commit, with its library built")
    parser.add_argument("--this", type=Path, default=HERE, help="checkout that is compared with it (default: this one)")
    parser.add_argument("--case", action="append", choices=CASES, help="may be given several times (default: all)")
    parser.add_argument("--images", default="../shared/data/fields")
    parser.add_argument("--plate", default="BR00117010")
    parser.add_argument("--illumination", default="../shared/data/cellprofiler/flatfield")
    parser.add_argument(
        "--fields", type=int, default=24, help="of the plate that the command measures (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--wells", type=int, default=384, help="of a drawn plate of stored cells (default: %(default)s)")
    parser.add_argument("--sites", type=int, default=9, help="per well of that (default: %(default)s)")
    parser.add_argument("--metadata", default="../shared/data/metadata", help="plate map of BR00117010")
    parser.add_argument("--json", type=Path, default=RESULTS / "against.json")
    options = parser.parse_args(argv)
    here, other = options.this.resolve(), options.other.resolve()
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options, Path(folder))
        for name in options.case or CASES:
            result = compare(run, CASES[name], here, other, options.repeats)
            results[name] = {"this": commit_of(here), "other": commit_of(other), "figures": result}
            write_json(options.json, {k: v for k, v in results.items() if k != "machine"})
            for figure, r in result.items():
                print(f"{figure:24s} {r['other']} / {r['this']}: {r['ratio']:.3f} ({r['low']:.3f} .. {r['high']:.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
