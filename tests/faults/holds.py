"""How long commands on plates of real size keep a signal waiting: Python hears one only between two of its own steps.

    python -m tests.faults.holds --output FOLDER [--only "export h5ad"] [--wells 96] [--moments 4]

Every command runs once while a timer knocks twenty times a second: where no knock is heard, a call (a kernel, a
decomposition, a compression) holds Ctrl-C for that long. Then it is stopped by SIGINT or SIGTERM at moments by lot; a case
is sound where it ends with 75, or had ended, LATEST seconds of processor time after that or sooner, and leaves no staging
folder. Each is a line of FOLDER/holds.jsonl. The plates: fields of 1080 x 1080 pixels (../shared/data/fields, again and
again), cells of all 3,515 columns, four plates of well profiles.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.faults.endings import LATEST, cpu_seconds

CHECKOUT = Path(__file__).parents[2]
DATA = CHECKOUT.parent / "shared/data"
EVERY_S, LONG_S = 0.05, 0.5
TABLES = " ".join(f"{DATA}/profiles/BR0011701{i}_normalized_feature_select_negcon_batch.csv.gz" for i in range(4))
ALL_BUT = "--without harmony --without well_position --without cell_count"  # which one layout does not allow
IMAGES = "--plate BR00117010 --images images"
FIELDS = f"{IMAGES} --device cpu --quiet --output out --wells A01"
FLAT = f"--illumination {DATA}/cellprofiler/flatfield"
CELLS = "big/BR00117010.zarr"
COMMANDS = {
    "extract": f"extract {FIELDS} {FLAT} --threads 2 --save-labels",
    "extract, its estimate": f"extract {FIELDS} --illumination estimate --threads 1",
    "segment": f"segment {FIELDS} {FLAT} --threads 1",
    "profile of cells": f"profile {CELLS} --output out --platemap map.txt --standard-errors 20 --anndata",
    "profile of wells": f"profile {TABLES} --output out --recipe jump-production {ALL_BUT}",
    "score replicating": f"score replicating {TABLES} --output out",
    "score matching": f"score matching {TABLES} --output out",
    "score map": f"score map {TABLES} --output out",
    "score embed": f"score embed {TABLES} --output out",
    "benchmark": f"benchmark {TABLES} --output out --task replicating --only classical",
    "export parquet": f"export {CELLS} --output out --format parquet",
    "export h5ad": f"export {CELLS} --output out --format h5ad",
    "export csv": f"export {CELLS} --output out --format csv",
    "export sqlite": f"export {CELLS} --output out --format sqlite",
    "export cellprofiler": f"export {CELLS} --output out --format cellprofiler",
    "report": f"report {CELLS} --output out",
    "verify": f"verify {CELLS}",
    "check-plate": f"check-plate {IMAGES} --threads 1 --json out/check.json",
}


def watched(file: Path, words: Sequence[str]) -> int:
    """A command in this process; `file` says for how long it heard no knock, and where."""
    from jumpgpu.__main__ import main

    holds, last = list[tuple[float, float, str]](), [time.process_time(), time.monotonic()]

    def knock(_: int, frame: FrameType | None) -> None:
        cpu, now = time.process_time(), time.monotonic()
        if now - last[1] > LONG_S:
            places = list[str]()
            while frame is not None and len(places) < 12:
                places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
                frame = frame.f_back
            holds.append((cpu - last[0], now - last[1], " < ".join(places)))
        last[:] = cpu, now

    signal.signal(signal.SIGALRM, knock)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)
    try:
        return main(list(words))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.write_text(json.dumps(sorted(holds, reverse=True)[:5]))


def stopped(command: Sequence[str], folder: Path, number: int, moment: float) -> dict[str, object]:
    """A command that is stopped at a moment, and how it ended."""
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, preexec_fn=hear)
        time.sleep(moment)
        before, sent = cpu_seconds(process.pid), time.monotonic()
        os.kill(process.pid, number)  # which has ended, perhaps
        end, usage = os.wait4(process.pid, 0)[1:]
    status, cpu = os.waitstatus_to_exitcode(end), usage.ru_utime + usage.ru_stime - before
    left = [str(path) for path in (folder / "out").rglob(".*") if path.name != ".jumpgpu.lock"]
    words = (folder / "said").read_text()
    wrong = f"left behind: {left[0]}" if left else "" if status in (0, 3, 75) else f"status {status}: {words[-500:]}"
    wrong = wrong or ("a traceback" if "Traceback (most" in words else "" if cpu <= LATEST else f"took {cpu:.1f} s")
    what = f"{signal.Signals(number).name} at {moment:.1f} s"
    return {"what": what, "status": status, "seconds": time.monotonic() - sent, "cpu_seconds": cpu, "wrong": wrong}


def hear() -> None:
    """What a shell starts behind it ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def draw(folder: Path, n_wells: int) -> None:
    from benchmarks import memory, stored_cells

    stored_cells.draw(folder / "big", n_wells, 4)
    memory.repeat_plate(str(DATA / "fields"), "BR00117010", 27, folder / "images")
    names = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)][:n_wells]
    rows = [f"{name}\t{'' if i % 6 == 0 else f'S{i % 7}'}\t{'negcon' * (i % 6 == 0)}" for i, name in enumerate(names)]
    (folder / "map.txt").write_text("\n".join(["well_position\tbroad_sample\tcontrol_type", *rows]) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS))
    parser.add_argument("--wells", type=int, default=96)
    parser.add_argument("--moments", type=int, default=4)
    parser.add_argument("--watched", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.output.resolve()
    if options.watched:
        return watched(folder / "holds.json", options.watched)
    if not (folder / "map.txt").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        draw(folder, options.wells)
    results, environment = (
        list[dict[str, object]](),
        {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
    )
    os.environ |= environment
    for name in options.only:
        words, lot = COMMANDS[name].split(), random.Random(name)
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        started = time.monotonic()
        command = [sys.executable, "-m", "tests.faults.holds", "--output", str(folder), "--watched", *words]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        takes = time.monotonic() - started
        assert process.returncode in (0, 3), f"{name}: {process.stderr[-2000:]}"
        result = {"command": name, "seconds": takes, "holds": json.loads((folder / "holds.json").read_text())}
        cases = list[dict[str, object]]()
        for i in range(options.moments):
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "out").mkdir()
            moment = (i + lot.random()) / options.moments * takes
            command = [sys.executable, "-m", "jumpgpu", *words]
            cases.append(stopped(command, folder, (signal.SIGINT, signal.SIGTERM)[i % 2], moment))
        results.append(result | {"cases": cases})
        with (folder / "holds.jsonl").open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        print(json.dumps(results[-1], indent=1), flush=True)
    return any(case["wrong"] for result in results for case in result["cases"])  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
