"""Run a kernel's PTX without a GPU and watch it.

memcheck, racecheck, initcheck and synccheck findings (memory.cpp and machine.cpp say exactly what is checked), and counts:
warp instructions, active lanes, memory requests, 32-byte sectors of global memory, bank cycles of shared memory, and the
largest number of lanes on one address of an atomic.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from tests.simulators.builds import cached, compiler, run_compiler
from tests.simulators.ptx.clock import Clock
from tests.simulators.ptx.lower import SPACES, Code, Lowering
from tests.simulators.ptx.parse import Program, parse

COUNTS = ("warps", "lanes", "requests", "sectors", "cycles", "depth")
FLAGS = "-std=c++17 -O2 -ffp-contract=off -fPIC"


class _Launch(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_void_p),
        ("length", ctypes.c_uint32),
        ("registers", ctypes.c_uint32),
        ("special", ctypes.c_uint32),
        ("constants", ctypes.c_uint32),
        ("constant_values", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("n_tables", ctypes.c_uint32),
        ("n_regions", ctypes.c_uint32),
        ("regions", ctypes.c_void_p),
        ("shared_size", ctypes.c_uint32),
        ("local_size", ctypes.c_uint32),
        ("shared_granule", ctypes.c_uint32),
        ("global_granule", ctypes.c_uint32),
        ("grid", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("resident", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("counts", ctypes.c_void_p),
        ("timing", ctypes.c_void_p),
        ("chosen", ctypes.c_void_p),
        ("n_chosen", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("times", ctypes.c_void_p),
        ("touched", ctypes.c_void_p),
        ("limit", ctypes.c_uint64),
    )


@cache
def machine() -> ctypes.CDLL:
    """The machine's library, compiled once."""
    folder = Path(__file__).parent
    header = (folder / "machine.h").read_text()
    objects = []
    for name in ("arithmetic", "conversions", "memory", "clock", "machine"):
        source = folder / f"{name}.cpp"

        def make(out: Path, source: Path = source) -> None:
            run_compiler(source.name, *FLAGS.split(), "-c", str(source), "-o", str(out))

        objects.append(cached(f"ptx-{name}.o", (source.read_text(), header, FLAGS, *compiler()), make))

    def link(out: Path) -> None:
        run_compiler("the PTX machine", "-shared", *map(str, objects), "-o", str(out))

    library = ctypes.CDLL(str(cached("ptx-machine.so", tuple(p.name for p in objects), link)))
    library.ptx_operation.argtypes = [ctypes.c_char_p]
    library.ptx_launch.restype = ctypes.c_char_p
    return library


@dataclass(frozen=True)
class Finding:
    """What a check found at one instruction, how often, and where first."""

    what: str
    instruction: str
    times: int
    block: int
    thread: int
    address: int

    def __str__(self) -> str:
        where = f"first in block {self.block}, thread {self.thread}, address {self.address:#x}"
        return f"{self.what} x{self.times}: {self.instruction} ({where})"


class Kernel:
    """One kernel of a PTX module, ready to run on arrays."""

    def __init__(self, ptx: str, name: str):
        self.program: Program = parse(ptx, name)
        self.constants = {
            k: np.frombuffer(v.initial.ljust(-(-v.size // 8) * 8, b"\0"), np.uint8).copy()
            for k, v in self.program.variables.items()
            if v.space in ("global", "const")
        }
        addresses = {k: a.ctypes.data for k, a in self.constants.items()}
        self.code: Code = Lowering(self.program, lambda n: machine().ptx_operation(n.encode()), addresses).lower()

    def run(
        self,
        grid: int,
        threads: int,
        arguments: Sequence[int],
        arrays: Sequence[np.ndarray],
        *,
        defined: Sequence[np.ndarray | None] | None = None,
        resident: int = 4,
        seed: int = 0,
        clock: "Clock | None" = None,
    ) -> "Run":
        """Launch over `grid` blocks, `resident` of them interleaved at a time.

        `arguments` are the bits of each parameter; `arrays` all memory that the kernel may touch (those that overlap are
        one); `defined`, an array of flags a byte for each, or None where all of it is. With a `clock` the launch is clocked
        and only its bounds are checked: blocks run one after the other, the chosen ones alone.
        """
        code = self.code
        values = code.constants.copy()
        values[: len(arguments)] = np.array([a & (1 << 64) - 1 for a in arguments], np.uint64)
        spans = merged([(a.ctypes.data, a.nbytes, d) for a, d in zip(arrays, defined or [None] * len(arrays), strict=True)])
        spans += [(a.ctypes.data, a.nbytes, None, 0) for a in self.constants.values()]
        spans.sort(key=lambda s: s[0])
        keep = [s[2] for s in spans]
        regions = np.array([(b, n, d.ctypes.data if d is not None else 0, w) for b, n, d, w in spans], np.uint64).reshape(
            -1, 4
        )
        counts = np.zeros((len(code.records), len(COUNTS)), np.uint64)
        sizes = self.program.sizes
        given = _Launch(
            code.records.ctypes.data,
            len(code.records),
            code.registers,
            code.special,
            len(values),
            values.ctypes.data,
            code.tables.ctypes.data,
            len(code.tables),
            len(regions),
            regions.ctypes.data,
            -(-sizes["shared"] // 8) * 8,
            -(-sizes["local"] // 8) * 8,
            code.granules["shared"],
            code.granules["global"],
            grid,
            threads,
            resident,
            seed,
            counts.ctypes.data,
        )
        if clock is not None:
            clock.attach(given, self.program)
        report = machine().ptx_launch(ctypes.byref(given)).decode()
        del keep
        findings = []
        for line in report.splitlines():
            what, at, times, block, thread, address = line.split("|")
            text = self.program.instructions[int(at)].text if int(at) < len(self.program.instructions) else "the end"
            findings.append(Finding(what, text, int(times), int(block), int(thread), int(address)))
        times, touched = (clock.times, clock.touched) if clock is not None else (None, None)
        return Run(self, findings, counts[:-1], times, touched, [(int(r[0]), int(r[1])) for r in regions])


def merged(
    spans: list[tuple[int, int, np.ndarray | None]],
) -> list[tuple[int, int, np.ndarray | None, int]]:
    """Spans (base, size, defined) as writable regions; those that overlap become one."""
    out: list[tuple[int, int, np.ndarray | None, int]] = []
    for base, size, defined in sorted((s for s in spans if s[1]), key=lambda s: (s[0], -s[1])):
        if out and base < out[-1][0] + out[-1][1]:
            first, length, flags, _ = out[-1]
            out[-1] = first, max(length, base + size - first), flags if base + size <= first + length else None, 1
        else:
            out.append((base, size, defined, 1))
    return out


@dataclass
class Run:
    """What a launch did: the findings of its checks and the counts of each instruction [n, 6] (COUNTS).

    With a clock also `times`, a record a chosen block (clock.BLOCK_TIME), and `touched` [regions, 2], the sectors read and
    written of each of `regions` (address, bytes), each once a block.
    """

    kernel: Kernel
    findings: list[Finding]
    counts: np.ndarray
    times: np.ndarray | None = None
    touched: np.ndarray | None = None
    regions: list[tuple[int, int]] = field(default_factory=list)

    def total(self, what: str, opcode: str = "", space: str = "") -> int:
        """The sum of one count over the instructions of an opcode ('ld', 'bar', ...) and a memory space, or over all."""
        column = self.counts[:, COUNTS.index(what)]
        chosen = [
            (not opcode or i.opcode[0] == opcode)
            and (not space or next((p for p in i.opcode if p in SPACES), "generic") == space)
            for i in self.kernel.program.instructions
        ]
        return int(column[chosen].sum())
