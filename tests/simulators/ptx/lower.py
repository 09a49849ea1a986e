"""A parsed program as the machine takes it: numbered operations, operands as slots, constants gathered.

A slot is a register, or a constant (those come after the registers). What is not here is an error, not a guess: approximate
instructions, whose bits differ between GPUs, and arithmetic without a rounding mode, which ptxas may contract, are refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.simulators.ptx.parse import SIZES, Instruction, Program, constant

RECORD = np.dtype(
    [
        ("operation", "i4"),
        ("flow", "i4"),
        ("guard", "i4"),
        ("negated", "i4"),
        ("destination", "i4", 4),
        ("source", "i4", 6),
        ("space", "i4"),
        ("size", "i4"),
        ("count", "i4"),
        ("flags", "i4"),
        ("offset", "i8"),
        ("mask", "u8"),
    ]
)
PLAIN, BRANCH, BRANCH_TABLE, EXIT, BARRIER, WARP_WIDE = range(6)
SPACES = {"global": 0, "const": 0, "shared": 1, "local": 2, "generic": 3}
SHARED, LOCAL = 1 << 56, 1 << 57
FTZ, STRONG, SATURATE, NEGATE = 1, 2, 8, 16
SPECIAL = ("%tid.x", "%ntid.x", "%ctaid.x", "%nctaid.x", "%laneid", "%warpid")
ONES = (1 << 64) - 1
BITS = {"and", "or", "xor", "not", "shl", "brev", "popc", "clz", "bfi"}
COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


@dataclass
class Code:
    """Records for the machine, the values of the constant slots, jump tables, and the smallest access by space."""

    records: np.ndarray
    registers: int
    special: int
    constants: np.ndarray
    tables: np.ndarray
    granules: dict[str, int]
    parameters: dict[str, int] = field(default_factory=dict)  # slot of each kernel parameter


class Lowering:
    """One program, instruction by instruction."""

    def __init__(self, program: Program, operation: Callable[[str], int], addresses: dict[str, int]):
        self.program, self.operation, self.addresses = program, operation, addresses
        self.slots = {name: k for k, name in enumerate(program.registers)}
        self.special = len(self.slots)
        self.slots |= {name: self.special + k for k, name in enumerate(SPECIAL)}
        self.parameters = {name: len(self.slots) + k for k, (name, _) in enumerate(program.parameters)}
        self.registers = len(self.slots)  # parameters are the first constants
        self.constants: list[int] = [0] * len(self.parameters)
        self.known: dict[int, int] = {}
        self.tables: list[int] = []
        self.granules = {"shared": 8, "global": 8}
        self.now = Instruction("", False, [], [], "")

    def fail(self, why: str = "not known") -> NotImplementedError:
        return NotImplementedError(f"{self.program.name}: `{self.now.text}`: {why}")

    def value(self, bits: int) -> int:
        bits &= ONES
        if bits not in self.known:
            self.known[bits] = self.registers + len(self.constants)
            self.constants.append(bits)
        return self.known[bits]

    def slot(self, operand: str) -> int:
        """The slot of a register, special register, constant or variable's address."""
        if operand in self.slots:
            return self.slots[operand]
        if operand in self.program.variables:
            return self.value(self.address_of(operand))
        if match := re.fullmatch(r"%(n?tid|n?ctaid)\.[yz]", operand):
            return self.value(1 if match[1].startswith("n") else 0)
        if operand == "WARP_SZ":
            return self.value(32)
        if re.fullmatch(r"-?(0[xXdDfF][0-9a-fA-F]+|\d+)U?", operand):
            return self.value(constant(operand))
        raise self.fail(f"operand {operand}")

    def address_of(self, name: str) -> int:
        variable = self.program.variables[name]
        return self.addresses[name] if variable.space in ("global", "const") else variable.offset

    def mask(self, register: str) -> int:
        kind = self.program.registers.get(register, "b64")
        return 1 if kind == "pred" else (1 << 8 * SIZES[kind]) - 1

    def result(self, operand: str) -> int:
        return -1 if operand == "_" else self.slots[operand]

    def split(self, operand: str) -> list[str]:
        return [part.strip() for part in operand.strip("{}").split(",")]

    def plain(self, record: np.void, name: str, *sources: str) -> None:
        """An operation whose first operand is its only destination."""
        record["operation"] = self.number(name)
        to = self.now.operands[0]
        record["destination"][0] = self.result(to)
        record["mask"] = self.mask(to)
        for k, source in enumerate(sources):
            record["source"][k] = self.slot(source)

    def number(self, name: str) -> int:
        result = self.operation(name)
        if result < 0:
            raise self.fail(f"no operation {name}")
        return result

    def memory(self, record: np.void, operand: str, kind: str, space: str) -> None:
        """The address part of a load, store or atomic; `kind` is the type of an element."""
        match = re.fullmatch(r"\[([^+\]]+?)(?:\+(-?\w+))?\]", operand.replace(" ", ""))
        if match is None:
            raise self.fail("address")
        record["source"][0] = self.slot(match[1])
        record["offset"] = int(match[2] or "0", 0)
        record["space"] = SPACES[space]
        record["size"] = SIZES[kind]
        where = {"const": "global", "generic": "both"}.get(space, space)
        for name in self.granules:
            if where in (name, "both"):
                self.granules[name] = min(self.granules[name], SIZES[kind])

    def lower(self) -> Code:
        records = np.zeros(len(self.program.instructions) + 1, RECORD)
        records["guard"] = records["destination"] = records["source"] = -1
        records["mask"] = ONES
        records[-1]["flow"] = EXIT
        for record, instruction in zip(records, self.program.instructions, strict=False):
            self.now = instruction
            if self.now.guard:
                record["guard"], record["negated"] = self.slots[self.now.guard], self.now.negated
            self.instruction(record, self.now.opcode, self.now.operands)
        return Code(
            records,
            self.registers,
            self.special,
            np.array(self.constants, np.uint64),
            np.array(self.tables or [0], np.int32),
            self.granules,
            self.parameters,
        )

    def instruction(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        name, kind = opcode[0], opcode[-1]
        if "approx" in opcode or "full" in opcode:
            raise self.fail("an approximation: its bits differ between GPUs")
        if "ftz" in opcode:
            record["flags"] |= FTZ
        special = getattr(self, f"lower_{name}", None)
        if special:
            special(record, opcode, operands)
        elif name in BITS:
            kind = kind if kind == "pred" else f"b{kind[1:]}"
            self.plain(record, f"{name}.{kind}", *operands[1:])
        else:
            parts = [p for p in opcode[1:-1] if p not in ("ftz", "sat")]
            if name in ("mul", "mad") and kind[0] == "f":
                name = "fma" if name == "mad" else name
            if kind[0] == "f" and name in ("add", "sub", "mul", "fma") and parts != ["rn"]:
                raise self.fail("no rounding mode (or not .rn): ptxas may contract it")
            if name == "shr" and kind[0] == "b":
                kind = f"u{kind[1:]}"
            self.plain(record, ".".join([name, *parts, kind]), *operands[1:])

    # ---- what moves

    def lower_mov(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        if operands[0].startswith("{") or operands[1].startswith("{"):
            packed = operands[1].startswith("{")
            parts = self.split(operands[1 if packed else 0])
            record["count"], record["size"] = len(parts), SIZES[opcode[-1]] // len(parts)
            record["operation"] = self.number("pack" if packed else "unpack")
            for k, part in enumerate(parts):
                record["source" if packed else "destination"][k] = self.slot(part) if packed else self.result(part)
            if packed:
                record["destination"][0] = self.result(operands[0])
            else:
                record["source"][0] = self.slot(operands[1])
            return
        self.plain(record, "mov", operands[1])

    def lower_cvta(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        self.plain(record, "cvta", operands[1])
        window = {"shared": SHARED, "local": LOCAL}.get(next(p for p in opcode[1:] if p in SPACES), 0)
        record["offset"] = -window if "to" in opcode else window

    def lower_selp(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        self.plain(record, "selp", operands[1], operands[2], operands[3].lstrip("!"))
        record["flags"] |= NEGATE * operands[3].startswith("!")

    def lower_setp(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        kind = opcode[-1].replace("b", "u")
        compare = COMPARISONS.get(opcode[1], opcode[1])
        record["operation"] = self.number(f"setp.{compare}.{kind}")
        for k, to in enumerate(operands[0].split("|")):
            record["destination"][k] = self.result(to.strip())
        record["source"][:2] = self.slot(operands[1]), self.slot(operands[2])
        if len(operands) > 3:
            record["source"][2] = self.slot(operands[3].lstrip("!"))
            record["source"][3] = ("and", "or", "xor").index(next(p for p in opcode if p in ("and", "or", "xor")))
            record["flags"] |= NEGATE * operands[3].startswith("!")

    def lower_cvt(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        to, source = opcode[-2:]
        rounding = next((p for p in opcode if p in ("rni", "rzi", "rmi", "rpi")), None)
        if {"rz", "rm", "rp"} & set(opcode):
            raise self.fail("rounding mode")
        self.plain(record, ".".join(["cvt", *([rounding] if rounding else []), to, source]), operands[1])
        record["flags"] |= SATURATE * ("sat" in opcode)

    # ---- memory

    def lower_ld(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        kind = opcode[-1]
        if "param" in opcode:
            name, _, offset = operands[1].strip("[]").partition("+")
            if int(offset or 0):
                raise self.fail("a parameter with parts")
            record["operation"] = self.number("mov")
            record["destination"][0], record["mask"] = self.result(operands[0]), self.mask(operands[0])
            record["source"][0] = self.parameters[name]
            return
        space = next((p for p in opcode if p in SPACES), "generic")
        self.memory(record, operands[1], kind, space)
        record["operation"] = self.number("ld")
        to = self.split(operands[0])
        record["count"] = len(to)
        record["mask"] = self.mask(to[0])
        for k, register in enumerate(to):
            record["destination"][k] = self.result(register)
        record["flags"] |= SATURATE * (kind[0] == "s") | STRONG * bool({"volatile", "relaxed", "acquire"} & set(opcode))

    def lower_st(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        self.memory(record, operands[0], opcode[-1], next((p for p in opcode if p in SPACES), "generic"))
        record["operation"] = self.number("st")
        values = self.split(operands[1])
        record["count"] = len(values)
        for k, value in enumerate(values):
            record["source"][1 + k] = self.slot(value)
        record["flags"] |= STRONG * bool({"volatile", "relaxed", "release"} & set(opcode))

    def lower_atom(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        if opcode[0] == "red":
            operands = ["_", *operands]
        if opcode[-1][0] == "f":
            raise self.fail("a floating-point atomic: its result depends on the order")
        self.memory(record, operands[1], opcode[-1], next((p for p in opcode if p in SPACES), "generic"))
        what = next(p for p in opcode if p in ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc"))
        record["operation"] = self.number(f"atom.{what}.{opcode[-1]}")
        record["count"] = 1
        record["destination"][0] = self.result(operands[0])
        record["mask"] = self.mask(operands[0])
        for k, value in enumerate(operands[2:]):
            record["source"][1 + k] = self.slot(value)

    lower_red = lower_atom

    # ---- what waits, and what goes elsewhere

    def lower_membar(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["operation"] = self.number("nothing")

    lower_fence = lower_membar

    def lower_bra(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["flow"], record["offset"] = BRANCH, self.program.labels[operands[0]]

    def lower_brx(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["flow"], record["offset"] = BRANCH_TABLE, len(self.tables)
        record["source"][0] = self.slot(operands[0])
        self.tables += [self.program.labels[label] for label in self.program.tables[operands[1]]]

    def lower_ret(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["flow"] = EXIT

    lower_exit = lower_ret

    def lower_bar(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        if "warp" in opcode:
            record["flow"], record["operation"] = WARP_WIDE, self.number("bar.warp")
            record["source"][5] = self.slot(operands[0])
        elif "sync" in opcode and operands == ["0"]:
            record["flow"] = BARRIER
        else:
            raise self.fail("a barrier other than __syncthreads")

    lower_barrier = lower_bar

    def lower_shfl(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["flow"], record["operation"] = WARP_WIDE, self.number("shfl")
        record["count"] = ("up", "down", "bfly", "idx").index(opcode[2])
        for k, to in enumerate(operands[0].split("|")):
            record["destination"][k] = self.result(to.strip())
        for k in range(3):
            record["source"][k] = self.slot(operands[1 + k])
        record["source"][5] = self.slot(operands[4])

    def lower_vote(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["flow"], record["operation"] = WARP_WIDE, self.number("vote")
        record["count"] = ("ballot", "all", "any", "uni").index(opcode[2])
        record["destination"][0] = self.result(operands[0])
        record["source"][0] = self.slot(operands[1].lstrip("!"))
        record["source"][5] = self.slot(operands[2])
        record["flags"] |= NEGATE * operands[1].startswith("!")

    def lower_activemask(self, record: np.void, opcode: list[str], operands: list[str]) -> None:
        record["flow"], record["operation"] = WARP_WIDE, self.number("activemask")
        record["destination"][0] = self.result(operands[0])
