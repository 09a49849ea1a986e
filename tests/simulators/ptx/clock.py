"""What the machine's clock is told: the cycles of each instruction and of memory, for four GPUs at once (clock.cpp)."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.simulators.ptx.parse import Instruction, Program

DEVICES = 5
LEVELS = ("L1", "L2", "DRAM", "shared")
COST = np.dtype([("issue", "u4", DEVICES), ("latency", "u4", DEVICES), ("uses", "u4")])
BLOCK_TIME = np.dtype([("cycles", "u8", DEVICES), ("warps", "u8"), ("longest", "u8")])

Cycles = Callable[[Instruction], tuple[Sequence[float], Sequence[float]]]  # issue and latency, by device


class _Timing(ctypes.Structure):
    _fields_ = (
        ("costs", ctypes.c_void_p),
        ("latency", ctypes.c_uint32 * (len(LEVELS) * DEVICES)),
        ("barrier", ctypes.c_uint32 * DEVICES),
        ("l2_bytes", ctypes.c_uint64 * DEVICES),
        ("l1_sectors", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    )


@dataclass
class Clock:
    """A launch's clock.

    cycles : of an instruction, by device: those that it keeps its warp's scheduler, and those until its result is there;
        a memory access adds the latency of the level it goes to. One of 0 cycles is a move that is made away with.
    latency : cycles by level (LEVELS) and device
    barrier, l2_bytes : by device
    l1_sectors : a block's share of L1, in sectors of 32 bytes
    chosen : the blocks to run, in this order
    limit : warp instructions after which a launch is cut; what was running then has zeros in `times`
    """

    cycles: Cycles
    latency: Sequence[Sequence[float]]
    barrier: Sequence[float]
    l2_bytes: Sequence[float]
    l1_sectors: int
    chosen: Sequence[int]
    limit: int = 0

    def attach(self, given: Any, program: Program) -> None:
        """Fill in a launch's fields; what they point to lives as long as this clock."""
        self.costs = np.zeros(len(program.instructions) + 1, COST)
        for record, instruction in zip(self.costs, program.instructions, strict=False):
            issue, latency = self.cycles(instruction)
            combined = instruction.opcode[0] == "setp" and len(instruction.operands) > 3
            record["uses"] = 0b110111 if combined else 0b111111  # there the fourth is the number of an operation
            record["issue"], record["latency"] = np.rint(issue), np.rint(latency)
        self.timing = _Timing(self.costs.ctypes.data)
        self.timing.latency[:] = [round(v) for level in self.latency for v in level]
        self.timing.barrier[:] = [round(v) for v in self.barrier]
        self.timing.l2_bytes[:] = [int(v) for v in self.l2_bytes]
        self.timing.l1_sectors = self.l1_sectors
        self.blocks = np.array(self.chosen, np.uint32)
        self.times = np.zeros(len(self.blocks), BLOCK_TIME)
        self.touched = np.zeros((given.n_regions, 2), np.uint64)
        given.timing = ctypes.addressof(self.timing)
        given.chosen, given.n_chosen = self.blocks.ctypes.data, len(self.blocks)
        given.times, given.touched = self.times.ctypes.data, self.touched.ctypes.data
        given.resident, given.limit = 1, self.limit
