"""Every command with one call to the disk failing: each call site once with five errnos, and calls chosen by lot.

    python -m tests.faults.sweep --output FOLDER [--only extract] [--after extract] [--errnos EIO] [--sites N] [--calls 500]

A process with `shim.c` preloaded imports once what the commands import, and forks for each case, in a copy of a small
plate. A case is sound where the command ends as it does undisturbed, with every output what an undisturbed run makes; or
with status 75, every output in place being whole: absent, as it was, or as it will be, and nothing left behind; the same
command then ends as the undisturbed one did. Each case is a line of FOLDER/cases.jsonl: the same command goes on from there.
"""

import argparse
import ctypes
import errno
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.commands import COMMANDS
from tests.faults.runs import Runs, ended, said_by, told

SHIM = Path(__file__).with_name("shim.c")
READS = ("EIO", "ESTALE", "EMFILE", "ENOMEM", "ETIMEDOUT")
WRITES = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "ETIMEDOUT")
ERRNOS = {
    "create": ("EIO", "ENOSPC", "EMFILE", "ESTALE", "ETIMEDOUT"),
    "read": ("EIO", "ESTALE", "ENOTCONN", "ENOMEM", "ETIMEDOUT"),
}
ERRNOS |= dict.fromkeys(("write", "sync", "rename", "mkdir", "remove"), WRITES)
OFF, WATCH, BY_SITE, BY_NUMBER = range(4)


@dataclass(frozen=True)
class Case:
    """What failed, and what came of it: '' where that is sound."""

    command: str
    key: str  # the site, or the number of the call
    number: str
    what: str
    status: int
    wrong: str
    met: bool = True  # whether the call came to pass


def read_cases(file: Path) -> list[Case]:
    return [Case(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def preload(folder: Path) -> dict[str, str]:
    """The environment of a process with the shim, which is compiled into `folder`."""
    library = folder / "shim.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


class Sweep(Runs):
    """The cases of some commands, run one after another by forks of this process, which has the shim preloaded."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.log, self.results = folder / "calls.log", folder / "cases.jsonl"
        self.shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.shim.faults_set.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        self.cases = read_cases(self.results)
        self.known = {(case.command, case.key, case.number) for case in self.cases}

    def run(self, name: str, mode: int, wanted: int = 0, number: int = 0) -> int:
        """A command in the work folder, with a fault; its status, or minus the signal that ended it."""
        main, set_faults = self.main(name), self.shim.faults_set

        def work() -> int:
            roots = f"{self.work}/in:{self.work}/out".encode()
            set_faults(mode, wanted, number, roots, str(self.log).encode() if mode != OFF else b"")
            return main()

        return ended(self.started(work, finish=lambda: set_faults(OFF, 0, 0, b"", b"")))

    def watched(self, name: str, mode: int, wanted: int = 0, number: str = "EIO") -> tuple[int, str]:
        """A command in a folder as new, with a fault; its status, and what the shim logged."""
        self.out.restore(self.begun)
        self.log.unlink(missing_ok=True)
        status = self.run(name, mode, wanted, getattr(errno, number))
        return status, self.log.read_text() if self.log.exists() else ""

    def sweep(self, name: str, errnos: list[str], n_sites: int | None, n_calls: int, seed: int = 0) -> None:
        """Each site of a command (or `n_sites` of them by lot) with each errno, and `n_calls` further calls."""
        draw = random.Random(f"{seed} {name}")
        self.begin(name)
        status, log = self.watched(name, WATCH)
        assert status == COMMANDS[name].status, said_by(self.work)
        self.good, self.said = told(self.out.files()), self.printed()
        calls = [line.split(" ", 2) for line in log.splitlines()]
        sites = {site: n for n, (site, _, _) in reversed(list(enumerate(calls, 1)))}  # -> its first call
        chosen = sorted(sites) if n_sites is None else sorted(draw.sample(sorted(sites), min(n_sites, len(sites))))
        print(f"{name}: {len(sites)} call sites, {len(calls)} calls", flush=True)
        for site in chosen:
            _, call, path = calls[sites[site] - 1]
            for number in errnos or ERRNOS.get(call, READS):
                self.case(name, site, sites[site], number, f"{call} {path}")
        for n in sorted(draw.sample(range(1, len(calls) + 1), min(n_calls, len(calls)))):
            _, call, path = calls[n - 1]
            self.case(name, f"call {n}", n, draw.choice(errnos or ERRNOS.get(call, READS)), f"{call} {path}")

    def case(self, name: str, key: str, n: int, number: str, what: str) -> None:
        """One fault: the n-th call, which is the first of its site where everything goes the same way once more."""
        if (name, key, number) in self.known:
            return
        status, log = self.watched(name, BY_NUMBER, n, number)
        if not key.startswith("call ") and log.split(" ")[0] != key:  # threads went another way
            status, log = self.watched(name, BY_SITE, int(key, 16), number)
        wrong, what = self.judge(name, status), what.replace(str(self.work), "")
        case = Case(name, key, number, what, status, wrong, bool(log))
        self.cases.append(case)
        with self.results.open("a") as file:
            file.write(json.dumps(vars(case)) + "\n")
        if wrong:
            print(f"  {key} {number} {what}: status {status}: {wrong}\n{said_by(self.work)}", flush=True)


def table_of(cases: list[Case]) -> str:
    """Markdown: cases by command and what became of them."""
    lines = ["| command | call sites | faults | met | as undisturbed | status 75 | wrong |", "|---|---|---|---|---|---|---|"]
    for name in [*dict.fromkeys(case.command for case in cases), "all"]:
        here = [case for case in cases if name in (case.command, "all")]
        sites = {(case.command, case.key) for case in here if not case.key.startswith("call ")}
        met = [case.status for case in here if case.met]
        figures = (
            len(sites),
            len(here),
            len(met),
            len(met) - met.count(75),
            met.count(75),
            sum(bool(c.wrong) for c in here),
        )
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS))
    parser.add_argument("--after", nargs="+", default=list(COMMANDS), help="what is run before (default: every command)")
    parser.add_argument("--errnos", nargs="+", default=[], help="default: five by the kind of call")
    parser.add_argument("--sites", type=int, help="of each command, by lot (default: all)")
    parser.add_argument("--calls", type=int, default=0, help="of each command, by lot")
    options = parser.parse_args()
    options.output = options.output.resolve()
    if "LD_PRELOAD" not in os.environ:
        options.output.mkdir(parents=True, exist_ok=True)
        os.execve(sys.executable, [sys.executable, "-m", "tests.faults.sweep", *sys.argv[1:]], preload(options.output))
    start = time.monotonic()
    sweep = Sweep(options.output)
    sweep.prepare(options.after)
    for name in options.only:
        if not (process := os.fork()):  # what a command leaves in memory is not the next one's
            status = 1
            try:
                sweep.sweep(name, options.errnos, options.sites, options.calls)
                status = 0
            except BaseException:  # noqa: BLE001 - told, and by the status
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        assert os.waitpid(process, 0)[1] == 0, f"{name}: the sweep failed"
    cases = read_cases(sweep.results)
    print(table_of(cases))
    wrong = [case for case in cases if case.wrong]
    print(f"{len(cases)} faults, {len(wrong)} wrong, {time.monotonic() - start:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
