"""What a launch does, from its PTX run on the launch's own arguments: some of its blocks, evenly taken, in the interpreter.

A kernel of one block a plane is run whole; of thousands of blocks some dozens are. Means over the blocks that ran, times the
grid, stand for the launch; the critical path is that of the slowest block that ran. Nothing that the launch wrote is kept.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from benchmarks.gpu_model.costs import Cost, costs, cycles
from benchmarks.gpu_model.devices import BARRIER, GPUS
from jumpgpu.gpu.kernel_source import Argument, kernel_sources
from tests.simulators.builds import ptx
from tests.simulators.ptx.clock import Clock
from tests.simulators.ptx.launch import COUNTS, Kernel, Run

BUDGET = 3_000_000  # warp instructions a launch, after which no more blocks are begun
LIMIT = 60_000_000  # after which a block is cut
MAX_BLOCKS = 48
L1_SECTORS = 512  # of a block: 16 KB
GOLDEN = 0.6180339887498949


@dataclass
class Array:
    """Memory that a launch is given: where, how much, and whether the kernel may write it."""

    address: int
    size: int
    written: bool


@dataclass
class Counted:
    """One launch. Totals over its grid, estimated from `blocks_run` of its blocks; by GPU where a list.

    warps, lanes : warp instructions as PTX counts them, and the lanes that were active in them
    slots, fp64, integer : machine instructions of a warp; those of the FP64 unit; integer ones
    requests, sectors : of global memory; shared_requests, shared_cycles : of shared memory; atomics : the most lanes on one
        address, summed over requests
    read, written : bytes of distinct sectors of each block, summed; least_bytes : those of distinct sectors of each array
    path, longest : cycles of a mean block's critical path, and of the slowest
    cut : a block was cut at LIMIT instructions
    """

    kernel: str
    grid: int
    block: int
    blocks_run: int
    cut: bool
    warps: float
    lanes: float
    slots: list[float]
    fp64: list[float]
    integer: list[float]
    requests: float
    sectors: float
    shared_requests: float
    shared_cycles: float
    atomics: float
    read: float
    written: float
    min_bytes: float
    path: list[float]
    longest: list[float]
    longest_warp: float


@cache
def program(name: str) -> tuple[Kernel, list[Cost]]:
    output = Kernel(ptx(kernel_sources()[name][0]), name)
    return output, costs(output.program)


def spread_out(n: int) -> list[int]:
    """MAX_BLOCKS of 0 .. n-1, or all, so ordered that the first few of them lie evenly: steps of the golden ratio."""
    if n <= MAX_BLOCKS:
        return sorted(range(n), key=lambda k: (0.5 + k * GOLDEN) % 1)
    return list(dict.fromkeys(int(n * ((0.5 + k * GOLDEN) % 1)) for k in range(2 * MAX_BLOCKS)))[:MAX_BLOCKS]


def copied(arrays: Sequence[Array]) -> tuple[list[np.ndarray], list[tuple[int, int, int]]]:
    """Views of what is read, copies of what is written, and where each array went: (address, size, new address)."""
    views, moved = [], []
    for a in arrays:
        here = np.ctypeslib.as_array((ctypes.c_uint8 * a.size).from_address(a.address))
        if a.written:
            capacity = np.empty(a.size + 64, np.uint8)
            start = -capacity.ctypes.data % 64
            capacity[start : start + a.size] = here
            here = capacity[start : start + a.size]
        views.append(here)
        moved.append((a.address, a.size, here.ctypes.data))
    return views, moved


def count_launch(name: str, grid: int, block: int, values: Sequence[int], arrays: Sequence[Array]) -> Counted:
    """Count a launch before it runs. `values` are the bits of its arguments, pointers among them."""
    kernel, table = program(name)
    views, moved = copied(arrays)
    arguments: tuple[Argument, ...] = kernel_sources()[name][1]
    bits = []
    for argument, value in zip(arguments, values, strict=True):
        at = next((m for m in moved if argument.pointer and m[0] <= value < m[0] + max(m[1], 1)), None)
        bits.append(value - at[0] + at[2] if at else value)
    by_text = {id(i): cycles(i, c) for i, c in zip(kernel.program.instructions, table, strict=True)}
    clock = Clock(
        cycles=lambda i: by_text[id(i)],
        latency=[[g.latency[level] for g in GPUS] for level in range(4)],
        barrier=[BARRIER] * len(GPUS),
        l2_bytes=[g.l2_bytes for g in GPUS],
        l1_sectors=L1_SECTORS,
        chosen=(),
        limit=LIMIT,
    )
    order, done, spent, cut = spread_out(grid), 0, 0, False
    counts = np.zeros((len(table), len(COUNTS)))
    times, touched = [], np.zeros((0, 2))
    step = 1 if grid <= MAX_BLOCKS else 8
    clock.chosen = (0,)  # the first block is often the longest, as objects are in order of size
    first = kernel.run(grid, block, bits, views, clock=clock).times if grid > MAX_BLOCKS else None
    while done < len(order) and spent < BUDGET:
        clock.chosen = order[done : done + step]
        run: Run = kernel.run(grid, block, bits, views, clock=clock)
        assert run.times is not None
        assert run.touched is not None
        late = [f for f in run.findings if not f.what.startswith("synccheck: no end")]
        assert not late, f"{name}: {late[0]}"
        cut |= bool(run.findings)
        counts += run.counts
        spent += int(run.counts[:, 0].sum())
        touched = run.touched.astype(float) if not len(touched) else touched + run.touched
        times.append(run.times)
        done += len(clock.chosen)
        step *= 2
    counted = summary(name, grid, block, done, cut, counts, np.concatenate(times), touched, run.regions, kernel, table)
    if first is not None:
        counted.longest = [max(v, float(w)) for v, w in zip(counted.longest, first["cycles"][0], strict=True)]
        counted.longest_warp = max(counted.longest_warp, float(first["longest"][0]))
    return counted


def summary(
    name: str,
    grid: int,
    block: int,
    done: int,
    cut: bool,
    counts: np.ndarray,
    times: np.ndarray,
    touched: np.ndarray,
    regions: Sequence[tuple[int, int]],
    kernel: Kernel,
    table: Sequence[Cost],
) -> Counted:
    scale = grid / done
    warps = counts[:, COUNTS.index("warps")]
    column: dict[str, Any] = {what: counts[:, k] for k, what in enumerate(COUNTS)}
    shared = np.array(["shared" in i.opcode for i in kernel.program.instructions])
    per_gpu = [
        [float(warps @ [getattr(c, what)[g] for c in table]) * scale for g in range(len(GPUS))]
        for what in ("slots", "fp64", "integer")
    ]
    read, written = touched[:, 0] * 32 * scale, touched[:, 1] * 32 * scale
    sizes = np.array([r[1] for r in regions], float)
    minimum = float(np.minimum(read, sizes).sum() + np.minimum(written, sizes).sum())
    atomic = column["depth"] * (column["requests"] > 0)
    finished = times[times["warps"] > 0] if (times["warps"] > 0).any() else times
    return Counted(
        kernel=name,
        grid=grid,
        block=block,
        blocks_run=done,
        cut=cut,
        warps=float(warps.sum()) * scale,
        lanes=float(column["lanes"].sum()) * scale,
        slots=per_gpu[0],
        fp64=per_gpu[1],
        integer=per_gpu[2],
        requests=float(column["requests"][~shared].sum()) * scale,
        sectors=float(column["sectors"].sum()) * scale,
        shared_requests=float(column["requests"][shared].sum()) * scale,
        shared_cycles=float(np.maximum(column["cycles"], column["depth"])[shared].sum()) * scale,
        atomics=float(atomic[~shared].sum()) * scale,
        read=float(read.sum()),
        written=float(written.sum()),
        min_bytes=minimum,
        path=[float(v) for v in finished["cycles"].mean(axis=0)],
        longest=[float(v) for v in times["cycles"].max(axis=0)],
        longest_warp=float(times["longest"].max()),
    )
