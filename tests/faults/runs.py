"""Commands run by forks of a process that has imported what they import, in a copy of a small plate; what they leave."""

import contextlib
import hashlib
import importlib
import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.commands import COMMANDS, write_inputs

TMPFS = 0x01021994  # synced as whole as ext4 here, so that the runs may be in memory
LIMIT_S = 300  # of a run
UNTOLD = {".jumpgpu.lock"}  # files that say nothing
SAID = ("stdout", "stderr")
TIMES = re.compile(r"\d+(\.\d+)? m?s\b|\d+(\.\d+)?(?= fields)|\d+(\.\d+)? [GM]i?B")  # of what a command prints


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


class Runs:
    """Folders with the commands' inputs (`start`), with all that they make besides (`made`), and the one to `work` in."""

    def __init__(self, folder: Path):
        self.folder, self.work = folder, folder / "work"
        self.modules, self.ready = folder / "modules", folder / "ready"  # what commands import; once their inputs are made
        self.starts = {False: folder / "start", True: folder / "made"}
        self.out = Folder(self.work / "out")
        self.goes_on: dict[str, str] = {}  # what a state that a case left comes to, by its digest
        for command in COMMANDS.values():
            importlib.import_module(f"jumpgpu.{command.module}")
        from jumpgpu.storage import faults, file_system

        faults.PAUSES_S = (0.0, 0.0, 0.0)
        file_system.KNOWN.add(TMPFS)

    def prepare(self, names: Sequence[str] = tuple(COMMANDS)) -> None:
        """The inputs, what the commands make of them undisturbed one after another, and all that they import."""
        from jumpgpu.synthetic import main as draw

        start, made = self.starts[False], self.starts[True]
        if self.ready.exists():
            import_all(self.ready.read_text())
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
        for name in names:
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.copytree(made, self.work)
            status = ended(self.started(self.main(name), imports=True))
            assert status == COMMANDS[name].status, f"{name} ends with {status}: {said_by(self.work)}"
            import_all(self.modules.read_text())
            for file in SAID:
                (self.work / file).unlink()
            shutil.rmtree(made)
            shutil.copytree(self.work, made)
        self.ready.write_text("\n".join(name for name in list(sys.modules) if name != "__main__"))

    def begin(self, name: str) -> None:
        """The work folder as the command begins with it, and the command run once: what it keeps in memory is there."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.starts[COMMANDS[name].later], self.work)
        self.begun = self.out.files()
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            os.chdir(self.work)
            self.main(name)()

    @staticmethod
    def main(name: str, more: Sequence[str] = ()) -> Callable[[], int]:
        """A command as a function that returns its status."""
        command = COMMANDS[name]
        main = importlib.import_module(f"jumpgpu.{command.module}").main
        return lambda: main([*command.arguments.split(), *more])

    def started(self, work: Callable[[], int], finish: Callable[[], None] = lambda: None, imports: bool = False) -> int:
        """Begin some work in a process of its own, in the work folder; its id. What it says goes into files."""
        process = os.fork()
        if process:
            return process
        status = 99
        try:
            signal.alarm(LIMIT_S)
            if pools := sys.modules.get("dask.threaded"):  # threads did not come along
                pools.default_pool = None
                pools.pools.clear()
            os.chdir(self.work)
            for to, file in enumerate(SAID, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), to)
            status = work()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - told by the status
            import traceback

            traceback.print_exc()
            status = 98
        finally:
            finish()
            if imports:
                self.modules.write_text("\n".join(name for name in list(sys.modules) if name != "__main__"))
            with contextlib.suppress(Exception):
                sys.stderr.flush()
                sys.stdout.flush()
            os._exit(status)

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
        if left := left_behind(files):
            return f"left behind: {left[0]}"
        if damaged := self.damaged():
            return damaged
        digest = hashlib.sha256(repr([name, sorted(files.items())]).encode()).hexdigest()
        if digest not in self.goes_on:
            self.goes_on[digest] = self.end(name)
        return self.goes_on[digest]

    def damaged(self) -> str:
        """An output that is not as it was, nor as it will be."""
        after = told(self.out.files()).items()
        wrong = [k for k, v in after if v not in (self.good.get(k), self.begun.get(k)) and not own_metadata(k)]
        return f"damaged: {wrong[0]}" if wrong else ""

    def end(self, name: str) -> str:
        """What is wrong where the command is run once more on what a case left."""
        if name.startswith(("extract", "segment")) and (lost := lost_sites(self.work)):
            return f"lost: {lost}"
        before, status = said_by(self.work), ended(self.started(self.main(name)))
        if status != COMMANDS[name].status:
            return f"does not go on: {said_by(self.work)[-300:]}; before: {before[-300:]}"
        return differences(told(self.out.files()), self.good)


def ended(process: int) -> int:
    """A process's exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def import_all(modules: str) -> None:
    for module in modules.split():
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def told(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files that say something."""
    return {key: data for key, data in files.items() if not key.endswith("/") and Path(key).name not in UNTOLD}


def said_by(work: Path) -> str:
    """The end of what a command said."""
    return "".join((work / file).read_text()[-1500:] for file in SAID if (work / file).exists())


def own_metadata(key: str) -> bool:
    """Whether a file says which wells a plate has: with fewer it says other things, which the next run ends."""
    return key.endswith((".zarr/zarr.json", "/tables/zarr.json")) or ".zarr/tables/" in key


def differences(after: dict[str, bytes], good: dict[str, bytes]) -> str:
    absent, further = sorted(set(good) - set(after)), sorted(set(after) - set(good))
    other = sorted(k for k in set(after) & set(good) if after[k] != good[k])
    result = [f"absent: {k}" for k in absent] + [f"further: {k}" for k in further] + [f"other: {k}" for k in other]
    return "; ".join(result[:3])


def left_behind(files: dict[str, bytes]) -> list[str]:
    """Staging folders, and what is in them."""
    return [key for key in files if any(part.startswith(".") and part not in UNTOLD for part in key.split("/"))]


def lost_sites(work: Path) -> str:
    from jumpgpu import open_plate

    for path in (work / "out").rglob("DEMO.zarr"):
        plate = open_plate(path)
        if len(plate.quarantine):
            return str(plate.quarantine.iloc[0].to_dict())
        if problems := plate.verify():
            return problems[0]
    return ""
