"""Kernels broken on purpose, one fault each, to show that the ways can fail: which way notices which.

    python -m tools.mutants [NAME ...]        # a table; JSON with --json FILE

A mutant is an edit of one kernel file or of jg.cuh. An edit that no longer applies is an error: find its like anew.
Every pair of mutant and way runs in a process of its own, since some crash and some never end.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jumpgpu.gpu import kernel_source as kernel_files
from jumpgpu.segmentation.label import BACKGROUND, FOREGROUND, find_components, number_points
from tests.simulators.ways import HostDevice, Way, Work, assert_equal_bits
from tests.ways.test_texture import work as texture_work

WAYS = ("serial", "fibers", "tsan", "asan", "ptx")
LIMIT_S = 90


def whole(device: Any) -> Any:
    return texture_work(device, levels=256, spread=0.06)


def tiled(device: Any) -> Any:
    return texture_work(device, levels=256, spread=0.8)


def components(device: Any) -> Any:
    mask = torch.rand(2, 70, 141, generator=torch.Generator().manual_seed(3)) < 0.55
    return find_components(device.tensor(mask.to(torch.uint8)), FOREGROUND | BACKGROUND, device).root


def points(device: Any) -> Any:
    drawn = torch.rand(2, 9, 300, generator=torch.Generator().manual_seed(4)) < 0.3
    return number_points(device.tensor(drawn.to(torch.uint8)), device)


@dataclass(frozen=True)
class Mutant:
    """One fault: what it is, the file, the edits (old text, new text), and the work that shows it."""

    name: str
    what: str
    file: str
    edits: tuple[tuple[str, str], ...]
    work: Work


def lost(before: str, after: str = "") -> tuple[tuple[str, str], ...]:
    """The barrier between two pieces of text is gone."""
    return ((f"{before}__syncthreads();{after}", f"{before}{after}"),)


MUTANTS = (
    Mutant(
        "first-barrier",
        "no barrier after the totals and the crop are cleared",
        "features/texture.cu",
        lost("= 0;\n    ", "\n    {"),
        whole,
    ),
    Mutant(
        "range-barrier",
        "no barrier before lo and hi are read",
        "features/texture.cu",
        lost("", "\n    const int hi ="),
        whole,
    ),
    Mutant(
        "clear-barrier",
        "no barrier between clearing and counting a matrix",
        "features/texture.cu",
        lost("JG_FOR(k, D * S * S) s.cell[k] = 0;\n            "),
        whole,
    ),
    Mutant(
        "count-barrier",
        "no barrier between counting and adding a matrix",
        "features/texture.cu",
        lost("step + plane % DIRECTIONS, 1);\n            "),
        whole,
    ),
    Mutant(
        "tile-barrier",
        "no barrier between a tile's sums and the next tile",
        "features/texture.cu",
        lost("logs, drop, mine);\n                    "),
        tiled,
    ),
    Mutant(
        "matrix-barrier",
        "no barrier between a matrix's sums and the next matrix",
        "features/texture.cu",
        lost("moment_out + plane);\n            ", "\n            continue;"),
        whole,
    ),
    Mutant(
        "not-cleared",
        "a matrix is not cleared",
        "features/texture.cu",
        (("JG_FOR(k, D * S * S) s.cell[k] = 0;", ""), ("JG_FOR(k, copies * D * S * S) s.cell[k] = 0;", "")),
        whole,
    ),
    Mutant(
        "many-threads",
        "a loop that assumes a thread for every bin",
        "features/texture.cu",
        (
            (
                "JG_FOR(k, S + 1) s.level[k] = 0;",
                "{ const int k = int(threadIdx.x); if (k < S + 1) s.level[k] = 0; }",
            ),
        ),
        tiled,
    ),
    Mutant(
        "past-the-end",
        "a result is written one place too far",
        "features/texture.cu",
        (("JG_ONCE highest[item] =", "JG_ONCE highest[item + 1] ="),),
        whole,
    ),
    Mutant(
        "divergent-barrier",
        "a barrier that one thread alone reaches",
        "features/texture.cuh",
        (("JG_ONCE {\n        for", "JG_ONCE {\n        __syncthreads();\n        for"),),
        tiled,
    ),
    Mutant(
        "plain-tally",
        "tallies that are not atomic",
        "jg/jg.cuh",
        (("atomicAdd(bin, 1u);", "*bin += 1u;"), ("host::add_block(bin, 1u);", "*bin += 1u;")),
        whole,
    ),
    Mutant(
        "plain-least",
        "a block's minimum that is not atomic",
        "jg/jg.cuh",
        (
            ("if (lane() == 0) atomicMin(dst, mine);", "if (lane() == 0 && mine < *dst) *dst = mine;"),
            ("if (lane() == 0) host::min_block(dst, mine);", "if (lane() == 0 && mine < *dst) *dst = mine;"),
        ),
        whole,
    ),
    Mutant(
        "short-tree",
        "a warp's sum that leaves half of it out",
        "jg/jg.cuh",
        (
            (
                "for (int o = WARP / 2; o; o /= 2) v += __shfl",
                "for (int o = WARP / 4; o; o /= 2) v += __shfl",
            ),
        ),
        whole,
    ),
    Mutant(
        "sum-barrier",
        "block_sum without the barrier before its parts are read",
        "jg/jg.cuh",
        lost("            if (l % 32 == 0) s.part[l / 32][k] = t;\n        }\n    }\n    "),
        tiled,
    ),
    Mutant(
        "count-scratch-barrier",
        "block_count without the barrier before its parts are read",
        "jg/jg.cuh",
        lost("        if (lane() == 0) s.part[warp_id()][k] = t;\n    }\n    "),
        points,
    ),
    Mutant(
        "plain-join",
        "a union between blocks that is not atomic",
        "segmentation/label.cu",
        (
            (
                "const int before = jg::atomic_min(parent + a, b);",
                "const int before = jg::atomic_read(parent + a); if (b < before) parent[a] = b;",
            ),
        ),
        components,
    ),
    Mutant(
        "no-retry",
        "a union that gives up when another thread came first",
        "segmentation/label.cu",
        (("        a = before;\n", "        return;\n"),),
        components,
    ),
    Mutant(
        "run-barrier",
        "no barrier between making runs and joining them",
        "segmentation/label.cu",
        lost("    JG_FOR(i, h * PITCH) s.parent[i] = i;\n    "),
        components,
    ),
    Mutant(
        "find-barrier",
        "no barrier between joining runs and finding their roots",
        "segmentation/label.cu",
        lost("    }\n    ", "\n    JG_FOR(i, 4 * h) {\n"),
        components,
    ),
)
QUICK = ("count-scratch-barrier", "no-retry")


def break_kernels(mutant: Mutant, folder: Path) -> None:
    """The kernels, copied to a folder, with the mutant's edits."""
    shutil.copytree(kernel_files.kernel_folder(), folder)
    path = folder / mutant.file
    text = path.read_text()
    for old, new in mutant.edits:
        if text.count(old) < 1:
            raise ValueError(f"mutant {mutant.name} no longer applies to {mutant.file}: {old!r}")
        text = text.replace(old, new, 1)
    path.write_text(text)


def notice(mutant: Mutant, way: str, want: Any, folder: Path) -> str:
    """What a way says of a mutant, in a word or two; "" if nothing."""
    kernel_files.kernel_folder = lambda: folder
    kernel_files.kernel_sources.cache_clear()
    try:
        if way == "serial":
            assert_equal_bits(mutant.work(HostDevice("serial")), want, "serial")
        else:
            Way(way).check(mutant.work, want)
    except (AssertionError, RuntimeError) as error:
        return word_for(str(error))
    return ""


def word_for(message: str) -> str:
    """The kind of a fault that a message tells of."""
    kinds = (
        ("no end after|nothing for", "hang"),
        ("the process ended", "crash"),
        ("data race|racecheck", "race"),
        ("initcheck", "uninitialised"),
        ("memcheck|AddressSanitizer", "out of bounds"),
        ("runtime error", "undefined"),
        ("synccheck|barrier|missing from a warp", "barrier"),
        ("differs", "wrong result"),
        ("ThreadSanitizer", "reported"),
    )
    return next((word for pattern, word in kinds if re.search(pattern, message)), message[:40])


def in_a_process(task: Callable[[], str]) -> str:
    """What the task answers, run in a fork; "crash" or "hang" where it does not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        os.write(writer, task().encode() or b"-")
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + LIMIT_S
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            return "hang"
        time.sleep(0.01)
    with os.fdopen(reader) as answer:
        said = answer.read()
    return "" if said == "-" else said or "crash"


def survey(names: list[str], ways: tuple[str, ...] = WAYS) -> dict[str, dict[str, str]]:
    """What each way says of each mutant."""
    result: dict[str, dict[str, str]] = {}
    wanted: dict[Work, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for mutant in MUTANTS:
            if names and mutant.name not in names:
                continue
            if mutant.work not in wanted:
                wanted[mutant.work] = mutant.work(HostDevice("serial"))
            folder = Path(scratch) / mutant.name
            break_kernels(mutant, folder)
            want = wanted[mutant.work]
            result[mutant.name] = {
                way: in_a_process(lambda w=way, m=mutant, f=folder, x=want: notice(m, w, x, f)) for way in ways
            }
            said = "  ".join(f"{way}: {word or '-'}" for way, word in result[mutant.name].items())
            print(f"{mutant.name:24s}{said}", file=sys.stderr, flush=True)
    return result


def table(result: dict[str, dict[str, str]]) -> str:
    """The survey as a Markdown table."""
    ways = list(next(iter(result.values())))
    what = {m.name: m.what for m in MUTANTS}
    lines = ["| fault | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    lines += [f"| {what[name]} | " + " | ".join(words[w] or "-" for w in ways) + " |" for name, words in result.items()]
    caught = [str(sum(bool(words[w]) for words in result.values())) for w in ways]
    return "\n".join([*lines, f"| caught, of {len(result)} | " + " | ".join(caught) + " |"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fork has none of torch's threads
    result = survey(options.names, tuple(options.ways))
    if options.json:
        options.json.write_text(json.dumps(result))
    print(table(result))
