"""The kernel files: find them, read a kernel's signature, and convert what a caller hands in to what it declares."""

import ctypes
import hashlib
import math
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

DTYPES = {
    "int8_t": torch.int8,
    "uint8_t": torch.uint8,
    "int16_t": torch.int16,
    "uint16_t": torch.uint16,
    "int32_t": torch.int32,
    "uint32_t": torch.uint32,
    "int64_t": torch.int64,
    "uint64_t": torch.uint64,
    "int": torch.int32,
    "float": torch.float32,
    "double": torch.float64,
}
C_TYPES = {
    torch.int8: ctypes.c_int8,
    torch.uint8: ctypes.c_uint8,
    torch.int16: ctypes.c_int16,
    torch.uint16: ctypes.c_uint16,
    torch.int32: ctypes.c_int32,
    torch.uint32: ctypes.c_uint32,
    torch.int64: ctypes.c_int64,
    torch.uint64: ctypes.c_uint64,
    torch.float32: ctypes.c_float,
    torch.float64: ctypes.c_double,
}
NUMPY_TYPES: dict[torch.dtype, Any] = {
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.int16: np.int16,
    torch.uint16: np.uint16,
    torch.int32: np.int32,
    torch.uint32: np.uint32,
    torch.int64: np.int64,
    torch.uint64: np.uint64,
    torch.float32: np.float32,
    torch.float64: np.float64,
}
SIGNATURE = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)')
MAIN_HEADER = "jg/jg.cuh"
INCLUDE = re.compile(r'^#include "([\w/.]+\.cuh)"[^\n]*\n', re.MULTILINE)


@dataclass(frozen=True)
class Argument:
    """One parameter of a kernel: its name, element type, whether it is a pointer, and the integers that its type holds."""

    name: str
    dtype: torch.dtype
    pointer: bool

    @cached_property
    def low(self) -> float:
        return -math.inf if self.dtype.is_floating_point else torch.iinfo(self.dtype).min

    @cached_property
    def high(self) -> float:
        return math.inf if self.dtype.is_floating_point else torch.iinfo(self.dtype).max


def signatures(source: str) -> dict[str, tuple[Argument, ...]]:
    """Kernels of a `.cu` source and their parameters, in order."""
    result = {}
    for name, parameters in SIGNATURE.findall(re.sub(r"//[^\n]*", "", source)):
        arguments = []
        for parameter in parameters.split(","):
            words = parameter.replace("*", " * ").replace("__restrict__", " ").split()
            words = [w for w in words if w != "const"]
            arguments.append(Argument(words[-1], DTYPES[words[0]], "*" in words))
        result[name] = tuple(arguments)
    return result


def type_code(arguments: tuple[Argument, ...]) -> str:
    """A signature's types as the host library spells them (jg_types_* in kernels/host/launch.h)."""
    pointers = "".join("P" if a.pointer else "-" for a in arguments)
    return pointers + "".join(np.dtype(NUMPY_TYPES[a.dtype]).char.replace("l", "q").replace("L", "Q") for a in arguments)


def kernel_folder() -> Path:
    """The folder of the `.cu` files: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "kernels", package.parent / "kernels") if (p / MAIN_HEADER).is_file())


@cache
def kernel_sources() -> dict[str, tuple[Path, tuple[Argument, ...]]]:
    """Every kernel's file and parameters, by kernel name."""
    result: dict[str, tuple[Path, tuple[Argument, ...]]] = {}
    for path in sorted(kernel_folder().rglob("*.cu")):
        for name, arguments in signatures(path.read_text(encoding="utf-8")).items():
            if name in result:
                raise ValueError(f"kernel {name} stands in both {result[name][0].name} and {path.name}")
            result[name] = path, arguments
    return result


@cache
def measures(file: str, name: str) -> tuple[str, ...]:
    """The names of a kernel's outputs, in order: the enumerators of `struct NAME { enum Measure {...}; }` before COUNT."""
    text = re.sub(r"//[^\n]*", "", (kernel_folder() / file).read_text(encoding="utf-8"))
    result = re.search(rf"struct {name} {{ enum Measure {{([^}}]*)COUNT", text)
    if not result:
        raise ValueError(f"{file} has no enum Measure of struct {name}")
    return tuple(result[1].replace(",", " ").split())


def line_of(file: str, pattern: str) -> int | None:
    """The first line of a kernel file, from 1, that a pattern matches."""
    lines = (kernel_folder() / file).read_text(encoding="utf-8").splitlines()
    return next((i for i, line in enumerate(lines, 1) if re.search(pattern, line)), None)


def kernel_digest() -> str:
    """SHA-256 over every kernel source and header, for the store's record of what made its numbers."""
    folder, digest = kernel_folder(), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".cu", ".cuh", ".h", ".cpp"}):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def full_source(path: Path) -> str:
    """A kernel file with its own headers pasted in: CuPy keys its cache on the text, not on what the text includes."""
    seen: set[str] = set()
    folder = next(p for p in path.parents if (p / MAIN_HEADER).is_file())

    def paste(text: str) -> str:
        def header(match: re.Match[str]) -> str:
            if match[1] in seen:
                return ""
            seen.add(match[1])
            return paste((folder / match[1]).read_text(encoding="utf-8").replace("#pragma once", ""))

        return INCLUDE.sub(header, text)

    return paste(path.read_text(encoding="utf-8"))


def check_names(kernel: str, arguments: tuple[Argument, ...], values: dict[str, Any]) -> None:
    """TypeError that names what is missing and what is too much."""
    wanted = {a.name for a in arguments}
    missing, extra = sorted(wanted - set(values)), sorted(set(values) - wanted)
    if missing or extra:
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"not known: {', '.join(extra)}"] * bool(extra)
        raise TypeError(f"{kernel}: arguments do not match its signature; {'; '.join(parts)}")


def pack(kernel: str, values: dict[str, Any], device: torch.device) -> tuple[Any, ...]:
    """Values as NumPy scalars in a kernel's own order, addresses for tensors; TypeError or ValueError for a wrong one.

    What is right is told without a call of ours for each: a batch has 1,500 arguments, and Python's lock is held meanwhile.
    """
    if len(values) != len(plan(kernel)):
        check_names(kernel, kernel_sources()[kernel][1], values)
    packed = []
    try:
        for name, dtype, pointer, kind, low, high, argument in plan(kernel):
            value = values[name]
            if pointer:
                right = type(value) is torch.Tensor and value.dtype is dtype and value.device == device
                if not right or not value.is_contiguous():
                    check_tensor(kernel, argument, value, device)
                packed.append(kind(value.data_ptr()))
            elif type(value) is int and low <= value <= high:
                packed.append(kind(value))
            else:
                packed.append(kind(check_scalar(kernel, argument, value)))
    except KeyError:
        check_names(kernel, kernel_sources()[kernel][1], values)
        raise
    return tuple(packed)


@cache
def plan(kernel: str) -> list[tuple[str, torch.dtype, bool, Any, float, float, Argument]]:
    """What `pack` asks of each argument: name, type, whether it is a tensor, what it becomes, and the integers it holds."""
    arguments = kernel_sources()[kernel][1]
    result: list[tuple[str, torch.dtype, bool, Any, float, float, Argument]] = []
    for a in arguments:
        ends = (1, 0) if a.pointer or a.dtype.is_floating_point else (a.low, a.high)
        result.append((a.name, a.dtype, a.pointer, NUMPY_TYPES[torch.uint64 if a.pointer else a.dtype], *ends, a))
    return result


def check_launch(kernel: str, grid: int, block: int) -> None:
    """ValueError for a grid or a block that no device runs."""
    if not 0 <= grid < 2**31:
        raise ValueError(f"{kernel}: a grid has 0 to 2^31 - 1 blocks, got {grid}")
    if block % 32 or not 32 <= block <= 1024:
        raise ValueError(f"{kernel}: a block has 32 to 1024 threads in whole warps, got {block}")


def check_tensor(kernel: str, argument: Argument, value: Any, device: torch.device) -> int:
    """The address of a tensor that may be handed to a kernel; TypeError or ValueError where it may not."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{kernel}: {argument.name} must be a torch tensor, got {type(value).__name__}")
    if value.dtype != argument.dtype:
        raise TypeError(f"{kernel}: {argument.name} must be {argument.dtype}, got {value.dtype}")
    if value.device != device:
        raise ValueError(f"{kernel}: {argument.name} is on {value.device}, the launch on {device}")
    if not value.is_contiguous():
        raise ValueError(f"{kernel}: {argument.name} must be contiguous, has strides {value.stride()}")
    return value.data_ptr()


def check_scalar(kernel: str, argument: Argument, value: Any) -> int | float:
    """A number as its parameter takes it: TypeError for another kind of thing, ValueError where it does not fit.

    Python and NumPy numbers and booleans are taken; a float is no integer, even 2.0; a tensor of one element is not read,
    since reading it would wait for the device.
    """
    if argument.dtype.is_floating_point:
        if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
            raise TypeError(f"{kernel}: {argument.name} must be a number, got {type(value).__name__}")
        number = float(value)
        if math.isfinite(number) and abs(number) > torch.finfo(argument.dtype).max:
            raise ValueError(f"{kernel}: {argument.name} = {number} does not fit {argument.dtype}")
        return number
    if not isinstance(value, int | np.integer | np.bool_):
        raise TypeError(f"{kernel}: {argument.name} must be an integer, got {type(value).__name__}")
    if not argument.low <= int(value) <= argument.high:
        raise ValueError(f"{kernel}: {argument.name} = {value} does not fit {argument.dtype}")
    return int(value)
