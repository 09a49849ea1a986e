"""A plate of 384 wells x 9 sites extracted again and again for an hour, while calls to the disk fail by lot and kills fall.

    nice python -m tests.faults.hour --output FOLDER [--minutes 60] [--wells 384] [--sites 9] [--size 80] [--one-in 20000]

`shim.c` fails one call in so many, each time with another errno; one run in four is killed or told to stop at a moment by
lot. A run that ends with 75 or a signal is started again, until the plate is whole; then it is held against the plate of an
undisturbed run, byte for byte, and the next is begun. What happened is FOLDER/hour.json, written anew after every run.
"""

import argparse
import contextlib
import ctypes
import io
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from tests.faults.runs import said_by
from tests.faults.sweep import OFF, preload

BY_LOT = 4
FIRST, LAST = 5, 240  # seconds between which a kill falls


class Hour:
    def __init__(self, folder: Path, one_in: int, seed: int):
        self.folder, self.one_in, self.draw = folder, one_in, random.Random(seed)
        self.shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.shim.faults_set.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        self.arguments = [
            *f"--plate HOUR --images {folder}/images --config {folder}/small.toml".split(),
            *["--device", "cpu", "--threads", "1", "--quiet", "--illumination", "estimate", "--save-labels"],
        ]

    def run(self, output: Path, faults: bool) -> tuple[int, float]:
        """The command; its status, or minus the signal that ended it, and its largest memory in MB."""
        from jumpgpu.extract import main

        seed, end = self.draw.randrange(1 << 30), self.draw.choice([signal.SIGKILL, signal.SIGTERM])
        process = os.fork()
        if not process:
            status = 99
            try:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                errors = os.open(self.folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                os.dup2(errors, 1)
                os.dup2(errors, 2)
                roots, log = f"{self.folder}/images:{output}".encode(), f"{self.folder}/faults.log".encode()
                self.shim.faults_set(BY_LOT if faults else OFF, self.one_in, seed, roots, log if faults else b"")
                status = main([*self.arguments, "--output", str(output)])
            finally:
                sys.stderr.flush()
                os._exit(status)
        timer = threading.Timer(self.draw.uniform(FIRST, LAST), os.kill, (process, end))
        if faults and self.draw.random() < 0.25:
            timer.start()
        status, used = os.wait4(process, 0)[1:]
        timer.cancel()
        return os.waitstatus_to_exitcode(status), used.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--sites", type=int, default=9)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--one-in", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.output = options.output.resolve()
    if "LD_PRELOAD" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.execve(sys.executable, [sys.executable, "-m", "tests.faults.hour", *sys.argv[1:]], preload(folder))
    from jumpgpu import open_plate
    from jumpgpu.synthetic import main as draw

    shape = f"--wells {options.wells} --sites {options.sites} --size {options.size} --cells 3 --threads 1".split()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert draw(["--output", str(folder / "images"), "--plate", "HOUR", *shape]) == 0
    (folder / "small.toml").write_text('[features]\nfamilies = ["number", "location", "intensity"]\n')
    hour = Hour(folder, options.one_in, options.seed)
    start = time.monotonic()
    assert hour.run(folder / "good", faults=False)[0] == 0, said_by(folder)
    good, statuses, memory, wrong, whole, n = said_of(folder / "good"), Counter(), [], [], 0, 0
    undisturbed, start = time.monotonic() - start, time.monotonic()
    while time.monotonic() - start < options.minutes * 60 and not wrong:
        status, used = hour.run(folder / "out", faults=True)
        n, memory = n + 1, [*memory, used]
        statuses[status] += 1
        if status not in (0, 75, -signal.SIGKILL):
            wrong.append(f"run {n} ended with {status}: {said_by(folder)}")
        if status == 0:
            whole += 1
            after = said_of(folder / "out")
            wrong += [key for key in sorted(set(good) | set(after)) if good.get(key) != after.get(key)][:5]
            wrong += open_plate(folder / "out" / "HOUR.zarr").verify()
            shutil.rmtree(folder / "out")
        result = {
            "minutes": (time.monotonic() - start) / 60,
            "undisturbed_minutes": undisturbed / 60,
            "wells": options.wells,
            "sites": options.sites,
            "runs": n,
            "statuses": dict(statuses),
            "plates_whole": whole,
            "faults": (folder / "faults.log").read_text().count(" FAILED"),
            "memory_mb": [min(memory), max(memory)],
            "wrong": wrong,
        }
        (folder / "hour.json").write_text(json.dumps(result, indent=1))
    if whole_now := (folder / "out" / "HOUR.zarr").exists():  # what the last run left holds whole wells alone
        wrong += open_plate(folder / "out" / "HOUR.zarr").verify()
    print(json.dumps(result | {"last_verified": whole_now, "wrong": wrong}, indent=1))
    return bool(wrong)


def said_of(folder: Path) -> dict[str, int]:
    """Every file's digest, by its name."""
    return {p.relative_to(folder).as_posix(): hash(p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


if __name__ == "__main__":
    sys.exit(main())
