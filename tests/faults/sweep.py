"""Every command with one call to the disk failing: each call site once with each errno, and calls chosen by lot.

    python -m tests.faults.sweep --output FOLDER [--only extract] [--errnos EIO] [--sites N] [--calls 500]

A process with `shim.c` preloaded imports the program once and forks for each case, in a copy of a small plate. A case is
sound where the status is 0 and every output is what an undisturbed run makes, or 75 and every output in place is whole:
absent, as it was, or as it will be. What is left then lets the same command end as the undisturbed one did.
"""

import argparse
import contextlib
import ctypes
import errno
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).with_name("shim.c")
ERRNOS = ("EIO", "ESTALE", "EMFILE", "ENOSPC", "ETIMEDOUT")
OFF, WATCH, BY_SITE, BY_NUMBER = range(4)
LIMIT_S = 300  # of a case
CONFIG = '[features]\nfamilies = ["number", "location"]\n'
EXTRACT = "--plate DEMO --images in/images --config in/small.toml --device cpu --threads 1 --quiet --illumination estimate"
# Command -> module, arguments, and whether it begins with what the first commands made, its own outputs among it.
COMMANDS: dict[str, tuple[str, str, bool]] = {
    "extract": ("extract", f"{EXTRACT} --save-labels --output out", False),
    "extract again": ("extract", f"{EXTRACT} --save-labels --output out --overwrite", True),
    "segment": ("segment", f"{EXTRACT} --outlines --output out/labels", False),
    "profile": ("profile", "--plate in/P1.parquet --plate in/P2.parquet --output out --anndata --overwrite", True),
    "profile cells": (
        "profile",
        "--plate DEMO --output out --platemap in/platemap.txt --standard-errors 5 --overwrite",
        True,
    ),
    "score": ("score", "replicating --plate in/P1.parquet --plate in/P2.parquet --output out --null-wells 2", True),
    "tables": ("tables", "--metadata in/metadata --output out/tables", True),
    "report": ("report", "out/DEMO.zarr", True),
    "export parquet": ("export", "out/DEMO.zarr --format parquet --overwrite", True),
    "export h5ad": ("export", "out/DEMO.zarr --format h5ad --overwrite", True),
    "export csv": ("export", "out/DEMO.zarr --format csv --overwrite", True),
    "export sqlite": ("export", "out/DEMO.zarr --format sqlite --overwrite", True),
    "verify": ("verify", "out/DEMO.zarr", True),
    "config": ("config", "in/small.toml", True),
    "import-cppipe": ("import_cppipe", "in/a.cppipe --output out/a.toml --overwrite", True),
}
PIPELINE = "cpjump1_illumination_load_data.cppipe"
UNTOLD = {".jumpgpu.lock"}  # files that say nothing


@dataclass(frozen=True)
class Case:
    """What failed, and what came of it: '' where that is sound."""

    command: str
    number: str
    what: str
    status: int
    wrong: str
    met: bool = True  # whether the call came to pass


def preload(folder: Path) -> dict[str, str]:
    """The environment of a process with the shim, which is compiled into `folder`."""
    library = folder / "shim.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in UNTOLD
    }


class Sweep:
    """The cases of some commands, run one after another by forks of this process, which has the shim preloaded."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder / "work"
        self.log, self.met = folder / "calls.log", folder / "met"
        self.shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.shim.faults_set.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
        for module, _, _ in COMMANDS.values():
            importlib.import_module(f"jumpgpu.{module}")
        self.cases: list[Case] = []

    def prepare(self) -> None:
        """The inputs, and what the commands make of them undisturbed."""
        from jumpgpu.synthetic import main as draw

        start = self.folder / "start"
        (start / "in" / "metadata" / "external").mkdir(parents=True)
        (start / "out").mkdir()
        shape = ["--wells", "2", "--sites", "1", "--size", "160", "--cells", "5"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert draw(["--output", str(start / "in" / "images"), "--plate", "DEMO", *shape]) == 0
        (start / "in" / "small.toml").write_text(CONFIG)
        write_tables(start / "in")
        self.starts = {False: start, True: self.folder / "made"}
        shutil.copytree(start, self.starts[True], symlinks=True)
        for name, (_, _, later) in COMMANDS.items():
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.copytree(self.starts[True], self.work)
            status = self.run(name, OFF)
            assert status == 0, f"{name} ends with {status}: {(self.work / 'stderr').read_text()[-2000:]}"
            if later or name in ("extract", "segment"):
                (self.work / "stderr").unlink()
                shutil.rmtree(self.starts[True])
                shutil.copytree(self.work, self.starts[True])

    def run(self, name: str, mode: int, wanted: int = 0, number: int = 0) -> int:
        """A command in the work folder, with a fault; its status, or minus the signal that ended it."""
        module, arguments, _ = COMMANDS[name]
        process = os.fork()
        if not process:
            status = 99
            try:
                signal.alarm(LIMIT_S)
                os.chdir(self.work)
                errors = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                os.dup2(errors, 2)
                os.dup2(errors, 1)
                roots = f"{self.work}/in:{self.work}/out".encode()
                self.shim.faults_set(mode, wanted, number, roots, str(self.log).encode() if mode != OFF else b"")
                status = importlib.import_module(f"jumpgpu.{module}").main(arguments.split())
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            except BaseException:  # noqa: BLE001 - told by the status
                import traceback

                traceback.print_exc()
                status = 98
            finally:
                sys.stderr.flush()
                sys.stdout.flush()
                if self.shim.faults_failed():
                    self.met.touch()
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def fresh(self, name: str) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        shutil.copytree(self.starts[COMMANDS[name][2]], self.work)

    def sweep(self, name: str, numbers: list[str], n_sites: int | None, n_calls: int, seed: int = 0) -> None:
        """Each site of a command (or `n_sites` of them by lot) with each errno, and `n_calls` further calls."""
        draw = random.Random(f"{seed} {name}")
        self.fresh(name)
        assert self.run(name, WATCH) == 0
        good = contents(self.work / "out")
        calls = [line.split(" ", 2) for line in self.log.read_text().splitlines()]
        sites = {int(site, 16): f"{call} {path.replace(str(self.work), '')}" for site, call, path in reversed(calls)}
        chosen = sorted(sites) if n_sites is None else sorted(draw.sample(sorted(sites), min(n_sites, len(sites))))
        print(f"{name}: {len(sites)} call sites, {len(calls)} calls", flush=True)
        for site in chosen:
            for number in numbers:
                self.case(name, BY_SITE, site, number, sites[site], good)
        for n in sorted(draw.sample(range(1, len(calls) + 1), min(n_calls, len(calls)))):
            self.case(name, BY_NUMBER, n, draw.choice(numbers), f"call {n}: {' '.join(calls[n - 1][1:])}", good)

    def case(self, name: str, mode: int, wanted: int, number: str, what: str, good: dict[str, bytes]) -> None:
        self.fresh(name)
        before = contents(self.work / "out")
        self.met.unlink(missing_ok=True)
        status = self.run(name, mode, wanted, getattr(errno, number))
        met = self.met.exists() or status < 0
        wrong = self.judge(name, status, before, good)
        self.cases.append(Case(name, number, what, status, wrong, met))
        if wrong:
            said = (self.work / "stderr").read_text()[-1500:] if (self.work / "stderr").exists() else ""
            print(f"  {number} {what}: status {status}: {wrong}\n{said}", flush=True)

    def judge(self, name: str, status: int, before: dict[str, bytes], good: dict[str, bytes]) -> str:
        """What is wrong with what a case left, in words."""
        if status not in (0, 75):
            return "undocumented status"
        after = contents(self.work / "out")
        if status == 0:
            return differences(after, good)
        if left := [key for key in after if any(part.startswith(".") for part in key.split("/"))]:
            return f"left behind: {left[0]}"
        if damaged := [k for k, v in after.items() if v not in (good.get(k), before.get(k)) and not own_metadata(k)]:
            return f"damaged: {damaged[0]}"
        if name.startswith(("extract", "segment")) and (lost := lost_sites(self.work)):
            return f"lost: {lost}"
        if self.run(name, OFF) != 0:
            return f"does not go on: {(self.work / 'stderr').read_text()[-300:]}"
        return differences(contents(self.work / "out"), good)


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


def write_tables(folder: Path) -> None:
    """Two plates' tables of wells, a plate map, treatments and a small pipeline."""
    import numpy as np
    import pandas as pd

    wells = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 5)]
    for n, plate in enumerate(("P1", "P2")):
        values = np.random.default_rng(n).normal(size=(16, 4))
        table = pd.DataFrame({"Metadata_Plate": plate, "Metadata_Well": wells})
        table["Metadata_broad_sample"] = ["", "", *(f"S{i // 2}" for i in range(14))]
        table["Metadata_control_type"] = ["negcon"] * 4 + [""] * 12
        for i, column in enumerate(("Cells_AreaShape_Area", "Nuclei_AreaShape_Area", "Cells_Texture_A", "Nuclei_Texture_B")):
            table[column] = values[:, i]
        table.to_parquet(folder / f"{plate}.parquet")
    (folder / "platemap.txt").write_text("well_position\tbroad_sample\tcontrol_type\nA01\t\tnegcon\nA02\t\tnegcon\n")
    (folder / "metadata" / "external" / "x_compound_metadata.tsv").write_text(
        "broad_sample\tpert_iname\ttarget_list\nS1\ta\tT1|T2\nS2\tb\tT1\n"
    )
    (folder / "a.cppipe").write_bytes((Path(__file__).parents[1] / "cellprofiler/pipelines" / PIPELINE).read_bytes())


def table_of(cases: list[Case]) -> str:
    """Markdown: cases by command and what became of them."""
    lines = ["| command | faults | met | status 0 | status 75 | wrong |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(case.command for case in cases):
        here = [case for case in cases if case.command == name]
        met = [case.status for case in here if case.met]
        figures = (len(here), len(met), met.count(0), met.count(75), sum(bool(case.wrong) for case in here))
        lines.append(f"| {name} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(COMMANDS))
    parser.add_argument("--errnos", nargs="+", default=list(ERRNOS))
    parser.add_argument("--sites", type=int)
    parser.add_argument("--calls", type=int, default=0)
    options = parser.parse_args()
    options.output = options.output.resolve()
    if "LD_PRELOAD" not in os.environ:
        shutil.rmtree(options.output, ignore_errors=True)
        options.output.mkdir(parents=True)
        os.execve(sys.executable, [sys.executable, "-m", "tests.faults.sweep", *sys.argv[1:]], preload(options.output))
    start = time.monotonic()
    sweep = Sweep(options.output)
    sweep.prepare()
    for name in options.only:
        sweep.sweep(name, options.errnos, options.sites, options.calls)
        (options.output / "cases.json").write_text(json.dumps([vars(c) for c in sweep.cases], indent=1))
    print(table_of(sweep.cases))
    wrong = [case for case in sweep.cases if case.wrong]
    print(f"{len(sweep.cases)} faults, {len(wrong)} wrong, {time.monotonic() - start:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
