"""What a PTX instruction becomes: machine instructions, and how many of them the FP64 unit runs, by the compiler itself.

    python -m benchmarks.gpu_model.sass        # writes sass.json beside this file; needs ptxas

Each opcode that a kernel uses is compiled 64 and 32 times over in a row, with operands that the compiler cannot know; a 32nd
of the difference, loads and stores apart, is its cost. The division of 64-bit integers is a function that is called: its
body is added, the branches that it does not take included, so it is counted high.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu_model.elf import code, opcodes
from jumpgpu.gpu.kernel_source import kernel_sources

TABLE = Path(__file__).with_name("sass.json")
ARCHITECTURES = ("sm_75", "sm_80", "sm_89", "sm_90")
FP64 = {0x28, 0x29, 0x2A, 0x2B, 0x110, 0x111, 0x112, 0x113}  # DMUL DADD DSETP DFMA, F2F F2I I2F FRND of 64 bits
APART = {0x181, 0x186, 0x118}  # LDG STG NOP
CALLED = ("div.s64", "div.u64", "rem.s64", "rem.u64")
MEMORY = {"ld", "st", "atom", "red", "bar", "bra", "ret", "exit", "shfl", "vote", "activemask", "membar", "fence", "brx"}
FREE = {"mov", "cvta"}
WIDTHS = {"pred": "u32", "b16": "u16", "u16": "u16", "s16": "u16", "b8": "u16", "u8": "u16", "s8": "u16"}
REGISTER = {"u32": "%r", "u64": "%q", "u16": "%h", "f32": "%f", "f64": "%d"}
COPIES = 32


def storage(kind: str) -> str:
    """The type by which an operand of this kind is loaded and stored."""
    return WIDTHS.get(kind) or (kind if kind[0] == "f" else f"u{kind[1:]}")


def form(opcode: str) -> tuple[str, list[str]]:
    """Type of an opcode's result and of its sources."""
    parts = opcode.split(".")
    name, kind = parts[0], parts[-1]
    if name == "setp":
        return "pred", [kind, kind]
    if name == "cvt":
        return parts[-2], [kind]
    if name == "selp":
        return kind, [kind, kind, "pred"]
    if name == "mul" and "wide" in parts:
        return f"{kind[0]}{2 * int(kind[1:])}", [kind, kind]
    if name in ("mad", "fma"):
        return kind, [kind] * 3
    if name in ("shl", "shr"):
        return kind, [kind, "u32"]
    if name == "bfi":
        return kind, [kind, kind, "u32", "u32"]
    if name in ("popc", "clz"):
        return "u32", [kind]
    if name in ("abs", "neg", "not", "sqrt", "rcp", "brev"):
        return kind, [kind]
    return kind, [kind, kind]


def one(opcode: str, copies: int) -> str:
    """A kernel that runs an opcode so many times over."""
    result, sources = form(opcode)
    lines = [".reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<9>; .reg .b64 %q<9>; .reg .f32 %f<9>; .reg .f64 %d<9>;"]
    lines.append(".reg .b64 %a; ld.param.u64 %a, [a];")
    for k in range(copies):
        names = []
        for j, kind in enumerate(sources):
            t = storage(kind)
            lines.append(f"ld.volatile.global.{t} {REGISTER[t]}{j}, [%a+{64 * k + 8 * j}];")
            names.append(f"%p{j}" if kind == "pred" else f"{REGISTER[t]}{j}")
            if kind == "pred":
                lines.append(f"setp.ne.u32 %p{j}, %r{j}, 0;")
        t = storage(result)
        out = f"{REGISTER[t]}8"
        lines.append(f"{opcode} {'%p8' if result == 'pred' else out}, {', '.join(names)};")
        if result == "pred":
            lines.append("selp.u32 %r8, 1, 0, %p8;")
        lines.append(f"st.volatile.global.{t} [%a+{64 * k + 48}], {out};")
    return "\n".join(lines)


def module(opcode_list: list[str], architecture: str) -> str:
    head = f".version 8.0\n.target {architecture}\n.address_size 64\n"
    entries = []
    for n, opcode in enumerate(opcode_list):
        for copies in (COPIES, 2 * COPIES):
            entries.append(f".visible .entry k{n}_{copies}(.param .u64 a) {{\n{one(opcode, copies)}\nret;\n}}")
    return head + "\n".join(entries)


def used() -> list[str]:
    """Every arithmetic opcode of every kernel."""
    from tests.simulators.builds import ptx
    from tests.simulators.ptx.parse import parse

    result = set()
    for name, (path, _) in kernel_sources().items():
        result |= {".".join(i.opcode) for i in parse(ptx(path), name).instructions}
    return sorted(o for o in result if o.split(".")[0] not in MEMORY | FREE)


def compiled(text: str, architecture: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "a.ptx", Path(folder) / "a.cubin"
        source.write_text(text)
        subprocess.run(["ptxas", f"-arch={architecture}", "-O3", source, "-o", cubin], check=True)
        return code(cubin.read_bytes())


def table(opcode_list: list[str]) -> dict[str, dict[str, list[float]]]:
    """By architecture and opcode: machine instructions, and those of the FP64 unit."""
    out: dict[str, dict[str, list[float]]] = {}
    for architecture in ARCHITECTURES:
        text = compiled(module(opcode_list, architecture), architecture)
        out[architecture] = {}
        for n, opcode in enumerate(opcode_list):
            words = [[w for w in opcodes(text[f"k{n}_{c}"]) if w not in APART] for c in (COPIES, 2 * COPIES)]
            cost = [(f(words[1]) - f(words[0])) / COPIES for f in (len, lambda some: sum(w in FP64 for w in some))]
            result, sources = form(opcode)
            cost[0] -= (result == "pred") + sources.count("pred")  # what keeps a predicate, and makes one
            if opcode in CALLED:
                cost[0] += len(words[0]) - COPIES * cost[0]
            out[architecture][opcode] = [max(0.0, round(c, 2)) for c in cost]
    return out


def main() -> int:
    if shutil.which("ptxas") is None:
        print("ptxas is not installed (CUDA toolkit, or the wheel nvidia-cuda-nvcc)", file=sys.stderr)
        return 2
    said = subprocess.run(["ptxas", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"V([\d.]+)", said)
    figures = {"ptxas": version[1] if version else "unknown", "costs": table(used())}
    TABLE.write_text(json.dumps(figures, indent=None, separators=(",", ":")).replace('},"sm', '},\n"sm') + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
