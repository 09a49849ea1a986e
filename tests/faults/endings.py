"""Every command stopped by a signal at moments by lot; with streams that nobody hears; with outputs that cannot be.

    python -m tests.faults.endings --output FOLDER [--only extract] [--kinds signals streams outputs] [--moments 3]

Each case is a line of FOLDER/endings.jsonl, and what is printed at the end is docs/survival.md's table. A signal's case is
sound where the command ends with 75, or had ended, within LATEST seconds of processor time; leaves each output as it was,
as it will be, or absent, and nothing else; and then ends as it does undisturbed. A stream that nobody hears changes nothing;
one on a full disk gives 75 (standard error: nothing). An output that cannot be is bad use, 2, and nothing is changed.
"""

import argparse
import contextlib
import ctypes
import fcntl
import importlib
import json
import logging
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults.commands import COMMANDS
from tests.faults.runs import Runs, differences, ended, left_behind, said_by, told

LATEST = 2.0  # seconds of processor time between a signal and the end
KINDS = ("signals", "streams", "outputs")
OUTPUTS = ("--output", "--json", "--multiqc")  # options that name what is written
FILES = ("--json", "--multiqc", "in/a.cppipe --output")  # those that name a file
READERS = ("extract dry-run", "profile dry-run", "verify", "config", "columns")  # which write nothing
MOUNT_PRIVATE, MOUNT_BIND, MOUNT_READ_ONLY = 0x44000, 0x1000, 0x1021  # of mount(2)


@dataclass(frozen=True)
class Ending:
    """What was done to a command, and what came of it: `wrong` is '' where that is sound."""

    command: str
    kind: str
    what: str
    status: int
    wrong: str
    seconds: float = 0.0  # from the signal to the end
    cpu_seconds: float = 0.0


class Endings(Runs):
    """The cases of commands, one after another."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.file, self.cases = folder / "endings.jsonl", list[Ending]()

    def add(self, *case: object) -> None:
        self.cases.append(Ending(*case))  # type: ignore[arg-type]
        with self.file.open("a") as file:
            file.write(json.dumps(vars(self.cases[-1])) + "\n")
        if self.cases[-1].wrong:
            print(f"  {self.cases[-1]}\n{said_by(self.work)[-1500:]}", flush=True)

    def of(self, name: str, kinds: list[str], moments: int) -> None:
        """All cases of a command."""
        self.begin(name)
        self.out.restore(self.begun)
        start = time.monotonic()
        status = ended(self.started(self.as_process(name)))
        self.takes = time.monotonic() - start
        assert status == COMMANDS[name].status, said_by(self.work)
        self.good, self.said, self.words = told(self.out.files()), self.printed(), (self.work / "stdout").stat().st_size
        if "signals" in kinds:
            self.signals(name, moments)
        if "streams" in kinds:
            self.streams(name)
        if "outputs" in kinds:
            self.outputs(name)

    def as_process(self, name: str, words: str | None = None, before: Callable[[], object] = bool) -> Callable[[], int]:
        """A command as `python -m` would run it, with its own words or others, once `before` was done."""
        from jumpgpu.cli.exit_status import run_command

        main = importlib.import_module(f"jumpgpu.{COMMANDS[name].module}").main
        arguments = (COMMANDS[name].arguments if words is None else words).split()

        def work() -> int:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts behind it
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            before()
            return run_command(main, arguments)

        return work

    def signals(self, name: str, moments: int) -> None:
        draw = random.Random(name)
        for i in range(moments):
            number = (signal.SIGINT, signal.SIGTERM)[i % 2]
            moment = (i + draw.random()) / moments * self.takes
            self.out.restore(self.begun)
            reader, writer = os.pipe()
            process = self.started(self.as_process(name, before=partial(os.write, writer, b"1")))
            os.read(reader, 1)
            os.close(reader)
            os.close(writer)
            time.sleep(moment)
            before, sent = cpu_seconds(process), time.monotonic()
            os.kill(process, number)
            end, usage = os.wait4(process, 0)[1:]
            seconds, cpu = time.monotonic() - sent, max(0.0, usage.ru_utime + usage.ru_stime - before)
            status = os.waitstatus_to_exitcode(end)
            quick = "" if cpu <= LATEST else f"took {cpu:.1f} s"
            said = (self.work / "stderr").read_text()
            wrong = quick or ("not said" if status == 75 and "interrupted" not in said else self.judge(name, status))
            self.add(name, "signals", f"{number.name} at {moment:.2f} s", status, wrong, seconds, cpu)

    def streams(self, name: str) -> None:
        for what, before in STREAMS.items():
            self.out.restore(self.begun)
            status = ended(self.started(self.as_process(name, before=before)))
            wanted = COMMANDS[name].status
            if what == "stdout on a full disk" and self.words:
                wanted, wrong = 75, self.judge(name, status)
            else:
                wrong = differences(told(self.out.files()), self.good)
            self.add(name, "streams", what, status, wrong or self.of_status(status, wanted))
        if COMMANDS[name].module in ("extract", "segment"):
            for more in ("", " --sites 99", " --wells Z99", " --threads 0"):
                self.out.restore(self.begun)
                words = COMMANDS[name].arguments.replace("--quiet", "") + " --log-json" + more
                status = ended(self.started(self.as_process(name, words, before=noisy)))
                lines = (self.work / "stderr").read_text().splitlines()
                wrong = self.of_status(status, 2 if more else COMMANDS[name].status)
                self.add(name, "streams", f"--log-json{more}", status, wrong or not_events(lines, bool(more)))

    def outputs(self, name: str) -> None:
        words = COMMANDS[name].arguments
        if name.startswith(("export", "report")) and not any(option in words for option in OUTPUTS):
            words += " --output out"
        named = [option for option in OUTPUTS if option in words]
        of_file = any(option in words for option in FILES)
        for option in named:
            head, _, tail = words.partition(f"{option} ")
            rest = tail.split(" ", 1)[1:]
            for what, place in (("a file", "out/afile"), ("below a file", "out/afile/x")):
                if of_file and what == "a file":
                    what, place = "a folder", "out/afolder"
                self.out.restore(self.begun)
                (self.work / "out" / "afile").write_text("not a folder")
                (self.work / "out" / "afolder").mkdir()
                before = self.out.files()
                status = ended(self.started(self.as_process(name, " ".join([f"{head}{option} {place}", *rest]))))
                told_of = "" if "afile" in said_by(self.work) or "afolder" in said_by(self.work) else "does not name it"
                wrong = self.of_status(status, 2) or differences(self.out.files(), before) or told_of
                self.add(name, "outputs", f"{option} {what}", status, wrong)
        self.out.restore(self.begun)
        before = self.out.files()
        status = ended(self.started(self.as_process(name, before=lambda: read_only(self.work / "out"))))
        wanted = 2 if name not in READERS else COMMANDS[name].status
        wrong = self.of_status(status, wanted) or differences(self.out.files(), before)
        self.add(name, "outputs", "read-only", status, wrong)
        self.out.restore(self.begun)
        status = ended(self.started(self.as_process(name, before=small_files)))
        wanted = 2 if "File too large" in (said := (self.work / "stderr").read_text()) else COMMANDS[name].status
        wanted = {"doctor": 2, "export sqlite": 75}.get(name, wanted)  # said on stdout; in SQLite's word for any
        wrong = self.of_status(status, wanted) or (
            "" if wanted != 2 or "out/" in said or name == "doctor" else f"names no file: {said}"
        )
        self.add(name, "outputs", "files of 1000 bytes at most", status, wrong or self.damaged())
        self.out.restore(self.begun)
        if words.startswith("out/DEMO.zarr"):  # a plate in an archive, and somewhere else to write to
            shown = words.replace("--output out", "--output other").replace("--multiqc out", "--multiqc other")
            status = ended(self.started(self.as_process(name, shown, before=lambda: read_only(self.work / "out"))))
            wrong = self.of_status(status, COMMANDS[name].status) or differences(self.out.files(), before)
            self.add(name, "outputs", "plate read-only", status, wrong)

    def of_status(self, status: int, wanted: int) -> str:
        if "Traceback (most recent" in said_by(self.work):
            return "a traceback"
        if left := left_behind(self.out.files()):
            return f"left behind: {left[0]}"
        return "" if status == wanted else f"status {status} in place of {wanted}"


def closed(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)

    return close


def to_pipe(number: int, read: bool, full: bool = False, waits: bool = True) -> Callable[[], None]:
    """A stream into a pipe whose reader is gone or, `read`, is there; what is said on stdout it reads late, else nothing."""

    def redirect() -> None:
        reader, writer = os.pipe()
        if full:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
            os.write(writer, b" " * 4096)
        os.set_blocking(writer, waits)
        os.dup2(writer, number)
        os.close(writer)
        if not read:
            os.close(reader)
        elif number == 1:  # somebody hears it, late
            if os.fork() == 0:
                os.close(number)
                time.sleep(0.5)
                while os.read(reader, 1 << 16):
                    pass
                os._exit(0)
            os.close(reader)

    return redirect


def to_full_disk(number: int) -> Callable[[], None]:
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), number)


STREAMS: dict[str, Callable[[], None]] = {
    "stderr closed": closed(2),
    "stdout closed": closed(1),
    "all closed": closed(0, 1, 2),
    "stdout to nobody": to_pipe(1, read=False),
    "stderr to nobody": to_pipe(2, read=False),
    "stdout a full pipe, read late": to_pipe(1, read=True, full=True),
    "stdout a full pipe that does not wait": to_pipe(1, read=True, full=True, waits=False),
    "stderr a full pipe": to_pipe(2, read=True, full=True),
    "stderr a full pipe that does not wait": to_pipe(2, read=True, full=True, waits=False),
    "stdout on a full disk": to_full_disk(1),
    "stderr on a full disk": to_full_disk(2),
}


def noisy() -> None:
    """Have a library warn, and log, where images are looked for."""
    for module in (importlib.import_module("jumpgpu.extract"), importlib.import_module("jumpgpu.segment")):
        real = module.find_source

        def find(*arguments: object, real: Callable[..., object] = real) -> object:
            warnings.warn("odd colours", stacklevel=1)
            logging.getLogger("library").warning("odd %s", "shapes")
            return real(*arguments)

        module.find_source = find


def not_events(lines: list[str], failed: bool) -> str:
    """What is wrong with lines that should be events."""
    try:
        events = [json.loads(line) for line in lines]
    except ValueError:
        return f"not an event: {lines}"
    told_of = [event["message"] for event in events if event["event"] == "warning"]
    if not failed and not (any("odd colours" in m for m in told_of) and "library: odd shapes" in told_of):
        return "warnings of libraries are not told"
    return "no event of the error" if failed and not any(event["event"] == "error" for event in events) else ""


def read_only(folder: Path) -> None:
    """For this process and what it starts, mount a folder read-only over itself."""
    libc, place = ctypes.CDLL(None, use_errno=True), str(folder).encode()
    for step in (
        lambda: libc.unshare(0x20000),  # CLONE_NEWNS
        lambda: libc.mount(b"none", b"/", None, MOUNT_PRIVATE, None),
        lambda: libc.mount(place, place, None, MOUNT_BIND, None),
        lambda: libc.mount(b"none", place, None, MOUNT_READ_ONLY, None),
    ):
        if step():
            raise SystemExit(f"this machine mounts nothing: {os.strerror(ctypes.get_errno())}")


def small_files() -> None:
    """As `ulimit -f`; what is printed does not count."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def cpu_seconds(process: int) -> float:
    """A process's processor time so far."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def table_of(cases: list[Ending]) -> Iterator[str]:
    """Markdown: signals by command; streams and outputs in all."""
    yield "| command | signals | status 75 | had ended | slowest, s | of processor | streams | outputs | wrong |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in [*dict.fromkeys(case.command for case in cases), "all"]:
        here = [case for case in cases if name in (case.command, "all")]
        sent = [case for case in here if case.kind == "signals"]
        stopped = sum(case.status == 75 for case in sent)
        slowest = max((case.seconds for case in sent), default=0.0)
        cpu = max((case.cpu_seconds for case in sent), default=0.0)
        others = [sum(case.kind == kind for case in here) for kind in KINDS[1:]]
        figures = [len(sent), stopped, len(sent) - stopped, f"{slowest:.1f}", f"{cpu:.1f}", *others]
        yield f"| {name} | {' | '.join(map(str, figures))} | {sum(bool(case.wrong) for case in here)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--moments", type=int, default=3)
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    endings = Endings(folder)
    endings.file.unlink(missing_ok=True)
    endings.prepare()
    for name in options.only:
        endings.of(name, options.kinds, options.moments)
    print("\n".join(table_of(endings.cases)))
    return any(case.wrong for case in endings.cases)


if __name__ == "__main__":
    sys.exit(main())
