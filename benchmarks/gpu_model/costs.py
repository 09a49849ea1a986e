"""Cycles of a PTX instruction on each GPU: what it becomes (sass.json) against how fast that is issued and answered."""

import json
from dataclasses import dataclass
from functools import cache

from benchmarks.gpu_model.devices import GPUS
from benchmarks.gpu_model.sass import FREE, MEMORY, TABLE
from tests.simulators.ptx.parse import Instruction, Program

EXCHANGE = 23  # cycles of a shuffle or vote
BRANCH = 5
INTEGER = 4


@dataclass(frozen=True)
class Cost:
    """Machine instructions of one PTX instruction, by GPU, and how many of them are of the FP64 unit or are integer ones."""

    slots: tuple[float, ...]
    fp64: tuple[float, ...]
    integer: tuple[float, ...]


@cache
def table() -> dict[str, dict[str, list[float]]]:
    return json.loads(TABLE.read_text())["costs"]


def uniform(slots: float, integer: float = 0.0) -> Cost:
    n = len(GPUS)
    return Cost((slots,) * n, (0.0,) * n, (integer,) * n)


def is_constant(operand: str) -> bool:
    return operand.lstrip("-")[:1].isdigit()


def costs(program: Program) -> list[Cost]:
    """The cost of each instruction of a kernel.

    Folded away: moves, parameters, a 64-bit sum of an address whose term is a product or a shift (IMAD.WIDE, LEA), fields of
    known place and width (PRMT), and half of what a division by a constant would be (a product).
    """
    output = {}
    for i in program.instructions:
        if i.operands and i.opcode[0] not in ("st", "red", "bra", "bar"):
            output[i.operands[0]] = i.opcode[0]
    return [cost_of(i, output) for i in program.instructions]


def cost_of(i: Instruction, output: dict[str, str]) -> Cost:
    name, operands = i.opcode[0], i.operands
    if name in FREE or (name == "ld" and "param" in i.opcode):
        return uniform(0)
    if name in MEMORY:
        return uniform(1)
    if name == "add" and i.opcode[-1] in ("s64", "u64") and any(output.get(o) in ("mul", "shl") for o in operands[1:]):
        return uniform(0)
    if name == "bfi" and all(is_constant(o) for o in operands[3:]):
        return uniform(1, 1)
    if name in ("div", "rem") and i.opcode[-1][0] in "su" and is_constant(operands[2]):
        return uniform(4, 4)
    opcode = ".".join(i.opcode)
    rows = [table()[g.architecture].get(opcode, [1.0, 0.0]) for g in GPUS]
    slots = tuple(r[0] for r in rows)
    fp64 = tuple(r[1] for r in rows)
    floating = i.opcode[-1] in ("f32", "f64") and name not in ("selp", "setp", "min", "max", "abs", "neg")
    return Cost(slots, fp64, tuple(0.0 if floating else s - d for s, d in rows))


def cycles(i: Instruction, cost: Cost) -> tuple[list[float], list[float]]:
    """Of an instruction, by GPU: cycles that its warp cannot issue another, and cycles until its result is there."""
    name = i.opcode[0]
    latency = []
    for gpu, slots, fp64 in zip(GPUS, cost.slots, cost.fp64, strict=True):
        if name in ("shfl", "vote", "activemask"):
            latency.append(float(EXCHANGE))
        elif name in ("bra", "brx"):
            latency.append(float(BRANCH))
        elif name in MEMORY or not slots:
            latency.append(0.0)
        else:
            others = slots - fp64
            latency.append(fp64 * gpu.fp64_latency + (INTEGER + 2 * (others - 1) if others >= 1 else 0))
    return [max(1.0, s) if s else 0.0 for s in cost.slots], latency
