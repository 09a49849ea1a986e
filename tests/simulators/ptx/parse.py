"""PTX text into a program: declarations, and a list of instructions with their operands still as text."""

import re
import struct
from dataclasses import dataclass, field

SIZES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4}
SIZES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8, "pred": 1}
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(([^)]*)\)([^{;]*)\{")
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr[^,]*?\s)?(\w+)")
VARIABLE = re.compile(
    r"\.(shared|local|global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?(?:\s*=\s*(\{[^}]*\}|[^;]+))?\s*;"
)
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+([^;]+);")
INSTRUCTION = re.compile(r"(?:@(!?)(%[\w$]+)\s+)?([\w.:]+)\s*(.*)", re.S)
OPERAND = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,]+)")


@dataclass
class Variable:
    """A variable of the shared, local, global or const space; `offset` is within its space."""

    space: str
    offset: int
    size: int
    initial: bytes = b""


@dataclass
class Instruction:
    """One instruction: guard register and sense, opcode split at its dots, operands, and the text for messages."""

    guard: str
    negated: bool
    opcode: list[str]
    operands: list[str]
    text: str


@dataclass
class Program:
    """A kernel: its parameters (name, type), registers (name -> type), variables, instructions and labels."""

    name: str
    parameters: list[tuple[str, str]] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=lambda: {"shared": 0, "local": 0, "global": 0, "const": 0})


def constant(text: str) -> int:
    """The bits of a PTX constant; -1 is all ones to any width."""
    text = text.strip()
    if text[:2] in ("0d", "0D", "0f", "0F"):
        return int(text[2:], 16)
    return int(text.rstrip("U"), 0)


def initial_bytes(text: str, element: str) -> bytes:
    size = SIZES[element]
    values = [constant(v) for v in text.strip("{} \n").split(",") if v.strip()]
    return b"".join(struct.pack("<Q", v & 0xFFFFFFFFFFFFFFFF)[:size] for v in values)


def declare(program: Program, text: str) -> str:
    """Takes the variables of a piece of text into the program; the text without them."""

    def take(match: re.Match[str]) -> str:
        space, align, element, name, count, initial = match.groups()
        size = SIZES[element] * (int(count or 0) if count is not None else 1)
        step = int(align or SIZES[element])
        offset = -(-program.sizes[space] // step) * step
        program.sizes[space] = offset + size
        data = initial_bytes(initial, element) if initial else b""
        program.variables[name] = Variable(space, offset, size, data.ljust(size, b"\0"))
        return ""

    return VARIABLE.sub(take, text)


def body_of(text: str, start: int) -> str:
    depth, i = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        i += 1
    return text[start : i - 1]


def parse(text: str, kernel: str) -> Program:
    """The kernel of this name in a PTX module. ValueError if there is none; NotImplementedError for .func calls."""
    text = COMMENT.sub("", text)
    entries = list(ENTRY.finditer(text))
    entry = next((e for e in entries if e[1] == kernel), None)
    if entry is None:
        raise ValueError(f"no kernel {kernel!r} in the module; there is {[e[1] for e in entries]}")
    program = Program(kernel, parameters=[(name, kind) for kind, name in PARAMETER.findall(entry[2])])
    outside = text[: entries[0].start()]
    for e in entries:  # module-scope variables may stand between kernels
        end = e.end() + len(body_of(text, e.end())) + 1
        following = text.find(".entry", end)
        outside += text[end : following if following >= 0 else len(text)]
    declare(program, outside)
    body = declare(program, body_of(text, entry.end()))

    def registers(match: re.Match[str]) -> str:
        for name in match[2].split(","):
            name = name.strip()
            if many := re.fullmatch(r"(%[\w$]+)<(\d+)>", name):
                program.registers |= {f"{many[1]}{k}": match[1] for k in range(int(many[2]))}
            else:
                program.registers[name] = match[1]
        return ""

    body = REGISTERS.sub(registers, body)
    body = re.sub(r"([\w$]+):\s*\.branchtargets\s+([^;]+);", lambda m: table(program, m[1], m[2]), body)
    body = re.sub(r"\.pragma[^;]*;|\.loc\s[^\n]*", "", body)
    for part in re.split(r";|([\w$]+:(?=\s))", body):
        statement = " ".join((part or "").split())
        if re.fullmatch(r"[\w$]+:", statement):
            program.labels[statement[:-1]] = len(program.instructions)
        elif statement := strip_scope(statement):
            match = INSTRUCTION.fullmatch(statement)
            assert match is not None, statement
            negated, guard, opcode, rest = match.groups()
            operands = [o.strip() for o in OPERAND.findall(rest) if o.strip()]
            if opcode.startswith("call"):
                raise NotImplementedError(f"{kernel}: {statement} (functions are inlined in these kernels)")
            program.instructions.append(Instruction(guard or "", negated == "!", opcode.split("."), operands, statement))
    return program


def table(program: Program, name: str, targets: str) -> str:
    program.tables[name] = [t.strip() for t in targets.split(",")]
    return ""


def strip_scope(statement: str) -> str:
    """A statement without the braces of a scope around it (those of a vector operand stay)."""
    statement = statement.strip()
    while statement.startswith("{") or (statement.endswith("}") and statement.count("}") > statement.count("{")):
        statement = statement[1:].strip() if statement.startswith("{") else statement[:-1].strip()
    while statement.startswith("}"):
        statement = statement[1:].strip()
    return statement
