"""A constant that Python and a kernel share has one value: where one of them names the other, they are compared."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import jumpgpu
from jumpgpu.gpu.kernel_source import full_source, kernel_folder

PACKAGE = Path(jumpgpu.__file__).parent
MODULES = {p.name: ".".join(("jumpgpu", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in PACKAGE.glob("*/*.py")}
KERNELS = {p.name: p.read_text() for p in kernel_folder().rglob("*.cu*")}
WHOLE = {p.name: full_source(p) for p in kernel_folder().rglob("*.cu*")}  # with what they include
# In a kernel: `constexpr int TILE = 64;  // of a tile (label.py: TILE)`. In Python: `RUNS = 128  # of codes (lzw.cu)`.
IN_KERNEL = re.compile(r"^constexpr int (.*);.*?//.*?\b(\w+\.py)((?:: ?[A-Z_]+(?:, [A-Z_]+)*)?)\)?\.?$", re.M)
IN_PYTHON = re.compile(r"^([A-Z_]+(?:, [A-Z_]+)*) = ([^#\n]*?) *#.*?\b(\w+\.cuh?)((?:: ?[A-Z_]+(?:, [A-Z_]+)*)?)", re.M)


def constants(text: str) -> dict[str, int]:
    """The whole-number constants of a kernel file, those that are sums or products of others among them."""
    known: dict[str, int] = {}
    for declared in re.findall(r"^constexpr int ([^;]*);", text, re.M):
        for name, value in re.findall(r"(\w+) = ([^,]+)", declared):
            expression = re.sub(r"[A-Z_]{2,}", lambda m: str(known.get(m[0], m[0])), value)
            if re.fullmatch(r"[\d\s()+*<-]+", expression):
                known[name] = int(eval(expression))
    return known


def pairs() -> list[tuple[str, str, str, str]]:
    """(module, its constant, kernel file, its constant) of everything that one side says it shares with the other."""
    result = set()
    for kernel, text in KERNELS.items():
        for declared, module, named in IN_KERNEL.findall(text):
            if module not in MODULES:
                continue
            here = re.findall(r"([A-Z_]+) = ", declared)
            there = re.findall(r"[A-Z_]+", named) or here
            python = vars(import_module(MODULES[module]))
            result |= {(module, name, kernel, name) for name in there if name in here and name in python}
    for file, module in MODULES.items():
        for names, _, kernel, named in IN_PYTHON.findall(
            (PACKAGE / Path(*module.split(".")[1:])).with_suffix(".py").read_text()
        ):
            ours = names.split(", ")
            theirs = re.findall(r"[A-Z_]+", named) or ours
            result |= {
                (file, a, kernel, b) for a, b in zip(ours, theirs, strict=False) if b in constants(WHOLE.get(kernel, ""))
            }
    return sorted(result)


@pytest.mark.parametrize(("module", "ours", "kernel", "theirs"), pairs())
def test_both_sides_have_one_value(module: str, ours: str, kernel: str, theirs: str) -> None:
    value = getattr(import_module(MODULES[module]), ours)
    assert constants(WHOLE[kernel])[theirs] == value, f"{module}: {ours} = {value}, and {kernel} has another {theirs}"


def test_the_pairs_are_found() -> None:
    assert len(pairs()) >= 25
