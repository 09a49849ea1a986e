"""Every command with one call to the disk failing: each call site once with five errnos, and calls chosen by lot.

    python -m tests.faults.sweep --output FOLDER [--only extract] [--errnos EIO] [--sites N] [--calls 500]

A process with `shim.c` preloaded imports once what the commands import, and forks for each case, in a copy of a small
plate. A case is sound where the command ends as it does undisturbed, with every output what an undisturbed run makes; or
with status 75, every output in place being whole: absent, as it was, or as it will be, and nothing left behind; the same
command then ends as the undisturbed one did. Each case is a line of FOLDER/cases.jsonl: the same command goes on from there.
"""

import argparse
import contextlib
import ctypes
import errno
import hashlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.commands import COMMANDS, write_inputs

SHIM = Path(__file__).with_name("shim.c")
READS = ("EIO", "ESTALE", "EMFILE", "ENOMEM", "ETIMEDOUT")
WRITES = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "ETIMEDOUT")
ERRNOS = {
    "create": ("EIO", "ENOSPC", "EMFILE", "ESTALE", "ETIMEDOUT"),
    "read": ("EIO", "ESTALE", "ENOTCONN", "ENOMEM", "ETIMEDOUT"),
}
ERRNOS |= dict.fromkeys(("write", "sync", "rename", "mkdir", "remove"), WRITES)
TMPFS = 0x01021994  # synced as whole as ext4 here, so that the sweep may run in memory
OFF, WATCH, BY_SITE, BY_NUMBER = range(4)
LIMIT_S = 300  # of a case
UNTOLD = {".jumpgpu.lock"}  # files that say nothing
SAID = ("stdout", "stderr")
TIMES = re.compile(r"\d+(\.\d+)? m?s\b|\d+(\.\d+)?(?= fields)|\d+(\.\d+)? [GM]i?B")  # of what a command prints


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


class Folder:
    """What lies in a folder: its files' bytes, which are read again where a file is another or was written to."""

    def __init__(self, path: Path):
        self.path, self.known = path, dict[str, tuple[tuple[int, ...], bytes]]()

    def files(self) -> dict[str, bytes]:
        """Every file's bytes by its name, and b'' for every folder, whose name ends with a slash."""
        result, self.known, before = dict[str, bytes](), {}, self.known
        for home, folders, names in os.walk(self.path):
            below = home[len(str(self.path)) + 1 :]
            result |= {os.path.join(below, name, ""): b"" for name in folders}
            for name in names:
                key, status = os.path.join(below, name), os.lstat(os.path.join(home, name))
                mark = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
                kept = before.get(key)
                data = kept[1] if kept and kept[0] == mark else Path(home, name).read_bytes()
                self.known[key], result[key] = (mark, data), data
        return dict(sorted(result.items()))

    def restore(self, wanted: dict[str, bytes]) -> None:
        """Make the folder hold `wanted`, and nothing else."""
        there = self.files()
        for key in sorted(set(there) - set(wanted), reverse=True):
            (self.path / key).rmdir() if key.endswith("/") else (self.path / key).unlink()
        for key, data in wanted.items():
            if key.endswith("/"):
                (self.path / key).mkdir(exist_ok=True)
            elif there.get(key) != data:
                (self.path / key).unlink(missing_ok=True)
                (self.path / key).write_bytes(data)


def told(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that say something."""
    return {key: data for key, data in files.items() if not key.endswith("/") and Path(key).name not in UNTOLD}


def said_by(work: Path) -> str:
    """The end of what a command said."""
    return "".join((work / file).read_text()[-1500:] for file in SAID if (work / file).exists())


class Sweep:
    """The cases of some commands, run one after another by forks of this process, which has the shim preloaded."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder / "work"
        self.log, self.modules, self.results = folder / "calls.log", folder / "modules", folder / "cases.jsonl"
        self.ready = folder / "ready"  # the modules that the commands import, once their inputs are made
        self.shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.shim.faults_set.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        for command in COMMANDS.values():
            importlib.import_module(f"jumpgpu.{command.module}")
        from jumpgpu.storage import faults, file_system

        faults.PAUSES_S = (0.0, 0.0, 0.0)
        file_system.KNOWN.add(TMPFS)
        self.goes_on: dict[str, str] = {}  # what a state that a case left comes to, by its digest
        self.cases = read_cases(self.results)
        self.known = {(case.command, case.key, case.number) for case in self.cases}

    def prepare(self) -> None:
        """The inputs, what the commands make of them undisturbed, and all that they import."""
        from jumpgpu.synthetic import main as draw

        start, made = self.folder / "start", self.folder / "made"
        self.starts = {False: start, True: made}
        if self.ready.exists():
            for module in self.ready.read_text().split():
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
            return
        for folder in (start, made):
            shutil.rmtree(folder, ignore_errors=True)
        (start / "in").mkdir(parents=True)
        (start / "out").mkdir()
        shape = ["--wells", "2", "--sites", "1", "--size", "160", "--cells", "5"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert draw(["--output", str(start / "in" / "images"), "--plate", "DEMO", *shape]) == 0
        write_inputs(start / "in")
        shutil.copytree(start, made, symlinks=True)
        for name, command in COMMANDS.items():
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.copytree(made, self.work)
            status = self.run(name, OFF, imports=True)
            assert status == command.status, f"{name} ends with {status}: {said_by(self.work)}"
            for module in self.modules.read_text().split():
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
            for file in SAID:
                (self.work / file).unlink()
            shutil.rmtree(made)
            shutil.copytree(self.work, made)
        self.ready.write_text("\n".join(name for name in list(sys.modules) if name != "__main__"))

    def run(self, name: str, mode: int, wanted: int = 0, number: int = 0, imports: bool = False) -> int:
        """A command in the work folder, with a fault; its status, or minus the signal that ended it."""
        command = COMMANDS[name]
        process = os.fork()
        if not process:
            status = 99
            try:
                signal.alarm(LIMIT_S)
                if pools := sys.modules.get("dask.threaded"):  # threads did not come along
                    pools.default_pool = None
                    pools.pools.clear()
                os.chdir(self.work)
                for to, file in enumerate(SAID, 1):
                    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), to)
                roots = f"{self.work}/in:{self.work}/out".encode()
                self.shim.faults_set(mode, wanted, number, roots, str(self.log).encode() if mode != OFF else b"")
                status = importlib.import_module(f"jumpgpu.{command.module}").main(command.arguments.split())
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            except BaseException:  # noqa: BLE001 - told by the status
                import traceback

                traceback.print_exc()
                status = 98
            finally:
                self.shim.faults_set(OFF, 0, 0, b"", b"")
                if imports:
                    self.modules.write_text("\n".join(name for name in list(sys.modules) if name != "__main__"))
                sys.stderr.flush()
                sys.stdout.flush()
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def begin(self, name: str) -> None:
        """The work folder as the command begins with it, and the command run once: what it keeps in memory is there."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.starts[COMMANDS[name].later], self.work)
        self.out = Folder(self.work / "out")
        self.begun = self.out.files()
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            os.chdir(self.work)
            importlib.import_module(f"jumpgpu.{COMMANDS[name].module}").main(COMMANDS[name].arguments.split())

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

    def printed(self) -> str:
        return TIMES.sub("", (self.work / "stdout").read_text())

    def judge(self, name: str, status: int) -> str:
        """What is wrong with what a case left, in words."""
        files = self.out.files()
        after = told(files)
        if status == COMMANDS[name].status:
            return differences(after, self.good) or ("" if self.printed() == self.said else "says something else")
        if status != 75:
            return "undocumented status"
        if "Traceback (most recent" in said_by(self.work):
            return "a traceback"
        if left := [key for key in files if any(part.startswith(".") and part not in UNTOLD for part in key.split("/"))]:
            return f"left behind: {left[0]}"
        if damaged := [
            k for k, v in after.items() if v not in (self.good.get(k), self.begun.get(k)) and not own_metadata(k)
        ]:
            return f"damaged: {damaged[0]}"
        digest = hashlib.sha256(repr([name, sorted(files.items())]).encode()).hexdigest()
        if digest not in self.goes_on:
            self.goes_on[digest] = self.end(name)
        return self.goes_on[digest]

    def end(self, name: str) -> str:
        """What is wrong where the command is run once more on what a case left."""
        if name.startswith(("extract", "segment")) and (lost := lost_sites(self.work)):
            return f"lost: {lost}"
        before, ended = said_by(self.work), self.run(name, OFF)
        if ended != COMMANDS[name].status:
            return f"does not go on: {said_by(self.work)[-300:]}; before: {before[-300:]}"
        return differences(told(self.out.files()), self.good)


def own_metadata(key: str) -> bool:
    """Whether a file says which wells a plate has: with fewer it says other things, which the next run ends."""
    return key.endswith((".zarr/zarr.json", "/tables/zarr.json")) or ".zarr/tables/" in key


def differences(after: dict[str, bytes], good: dict[str, bytes]) -> str:
    absent, further = sorted(set(good) - set(after)), sorted(set(after) - set(good))
    other = sorted(k for k in set(after) & set(good) if after[k] != good[k])
    result = [f"absent: {k}" for k in absent] + [f"further: {k}" for k in further] + [f"other: {k}" for k in other]
    return "; ".join(result[:3])


def lost_sites(work: Path) -> str:
    from jumpgpu import open_plate

    for path in (work / "out").rglob("DEMO.zarr"):
        plate = open_plate(path)
        if len(plate.quarantine):
            return str(plate.quarantine.iloc[0].to_dict())
        if problems := plate.verify():
            return problems[0]
    return ""


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
    sweep.prepare()
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
