"""The device: find, compile, load and launch the kernels of `kernels/`.

This is the one module that knows CuPy and the host library. A kernel is launched by name with named arguments; their
order and types are read from the kernel's own signature in its `.cu` file, so there is one place to change.
"""

import ctypes
import hashlib
import os
import re
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

BLOCK = 128  # threads a block: the lanes of jg::block_sum
ITEMS = 4096  # items a block in JG_FOR_ITEMS (jg::ITEMS)

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
NUMPY_TYPES = {
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
INCLUDE = re.compile(r'^#include "([\w/.]+\.cuh)"[^\n]*\n', re.MULTILINE)
CUDA_OPTIONS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")


@dataclass(frozen=True)
class Argument:
    """One parameter of a kernel: its name, element type, and whether it is a pointer."""

    name: str
    dtype: torch.dtype
    pointer: bool


def signatures(source: str) -> dict[str, tuple[Argument, ...]]:
    """Kernels of a `.cu` source and their parameters, in order."""
    found = {}
    for name, parameters in SIGNATURE.findall(re.sub(r"//[^\n]*", "", source)):
        arguments = []
        for parameter in parameters.split(","):
            words = parameter.replace("*", " * ").replace("__restrict__", " ").split()
            words = [w for w in words if w != "const"]
            arguments.append(Argument(words[-1], DTYPES[words[0]], "*" in words))
        found[name] = tuple(arguments)
    return found


def type_code(arguments: tuple[Argument, ...]) -> str:
    """A signature's types as the host library spells them (jg_types_* in kernels/host/launch.h)."""
    pointers = "".join("P" if a.pointer else "-" for a in arguments)
    return pointers + "".join(np.dtype(NUMPY_TYPES[a.dtype]).char.replace("l", "q").replace("L", "Q") for a in arguments)


def kernel_folder() -> Path:
    """The folder of the `.cu` files: inside the package when installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return next(p for p in (here / "kernels", here.parent / "kernels") if (p / "jg.cuh").is_file())


@cache
def kernel_sources() -> dict[str, tuple[Path, tuple[Argument, ...]]]:
    """Every kernel's file and parameters, by kernel name."""
    found: dict[str, tuple[Path, tuple[Argument, ...]]] = {}
    for path in sorted(kernel_folder().glob("*.cu")):
        for name, arguments in signatures(path.read_text()).items():
            if name in found:
                raise ValueError(f"kernel {name} stands in both {found[name][0].name} and {path.name}")
            found[name] = path, arguments
    return found


def kernel_digest() -> str:
    """SHA-256 over every kernel source and header, for the store's record of what made its numbers."""
    folder, digest = kernel_folder(), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".cu", ".cuh", ".h", ".cpp"}):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def full_source(path: Path) -> str:
    """A kernel file with its own headers pasted in: CuPy keys its cache on the text, not on what the text includes."""
    seen: set[str] = set()

    def paste(text: str) -> str:
        def header(match: re.Match[str]) -> str:
            if match[1] in seen:
                return ""
            seen.add(match[1])
            return paste((path.parent / match[1]).read_text().replace("#pragma once", ""))

        return INCLUDE.sub(header, text)

    return paste(path.read_text())


def check_tensor(kernel: str, argument: Argument, value: Any, device: torch.device) -> int:
    """The address of a tensor that may be handed to a kernel; TypeError or ValueError where it may not."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{kernel}: {argument.name} must be a torch tensor, got {type(value).__name__}")
    if value.dtype != argument.dtype:
        raise TypeError(f"{kernel}: {argument.name} must be {argument.dtype}, got {value.dtype}")
    if value.device.type != device.type:
        raise ValueError(f"{kernel}: {argument.name} is on {value.device}, the launch on {device}")
    if not value.is_contiguous():
        raise ValueError(f"{kernel}: {argument.name} must be contiguous, has strides {value.stride()}")
    return value.data_ptr()


def check_names(kernel: str, arguments: tuple[Argument, ...], values: dict[str, Any]) -> None:
    if missing := {a.name for a in arguments} ^ set(values):
        raise TypeError(f"{kernel}: arguments do not match its signature: {sorted(missing)}")


class Device:
    """Where kernels run. `launch` is the whole interface; tensors live on `self.torch`."""

    name: str
    torch: torch.device
    description: str

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        """Run a kernel over `grid` blocks of `block` threads, its arguments by name; a grid of 0 does nothing.

        Tensors must be contiguous, of the dtype the kernel declares, on this device: TypeError or ValueError otherwise,
        before anything runs. Scalars are converted to the declared type. Asynchronous on CUDA, on torch's current stream.
        """
        raise NotImplementedError

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.torch)

    def zeros(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.torch)

    def tensor(self, array: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A NumPy array, list or tensor as a contiguous tensor on this device."""
        return torch.as_tensor(array, dtype=dtype).to(self.torch).contiguous()

    def synchronize(self) -> None:
        """Wait until everything launched has run."""


class _Binding:
    """A kernel's argument slots, laid out once as cuLaunchKernel wants them: an array of pointers to values."""

    def __init__(self, arguments: tuple[Argument, ...]):
        self.slots = [ctypes.c_void_p() if a.pointer else C_TYPES[a.dtype]() for a in arguments]
        self.pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(s) for s in self.slots])
        self.lock = threading.Lock()


class CpuDevice(Device):
    """The kernels compiled for this machine's cores: a block is one loop, blocks over a kept thread pool."""

    name = "cpu"

    def __init__(self, workers: int | None = None, library: Path | None = None):
        self.workers = workers or len(os.sched_getaffinity(0))
        self.torch = torch.device("cpu")
        keep_freed_memory()
        path = library or host_library()
        self.library = ctypes.CDLL(str(path))
        self.description = f"cpu ({self.workers} threads, {path.stem.removeprefix('kernels_')})"
        self.seed = 0  # the schedule of the fibers build; the serial build ignores it
        self._bound: dict[str, tuple[Any, tuple[Argument, ...], _Binding]] = {}

    def _bind(self, kernel: str) -> tuple[Any, tuple[Argument, ...], _Binding]:
        if kernel not in self._bound:
            if kernel not in kernel_sources():
                raise ValueError(f"unknown kernel {kernel!r}")
            arguments = kernel_sources()[kernel][1]
            types = getattr(self.library, f"jg_types_{kernel}", None)
            if types is not None:
                types.restype = ctypes.c_char_p
            if types is None or types().decode() != type_code(arguments):
                raise RuntimeError(
                    f"{self.library._name} was built from other sources than {kernel_sources()[kernel][0]}; "
                    "build it again with `pip install -e .` or `make lib`"
                )
            entry = getattr(self.library, f"jg_launch_{kernel}")
            entry.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint64]
            entry.restype = ctypes.c_char_p
            self._bound[kernel] = entry, arguments, _Binding(arguments)
        return self._bound[kernel]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        entry, arguments, binding = self._bind(kernel)
        if len(values) != len(arguments):
            check_names(kernel, arguments, values)
        with binding.lock:
            for argument, slot in zip(arguments, binding.slots, strict=True):
                try:
                    value = values[argument.name]
                except KeyError:
                    check_names(kernel, arguments, values)
                    raise
                slot.value = check_tensor(kernel, argument, value, self.torch) if argument.pointer else value
            if grid and (wrong := entry(grid, block, binding.pointers, self.workers, self.seed)):
                raise RuntimeError(f"{kernel}: {wrong.decode()}")


class CudaDevice(Device):
    """The kernels compiled by NVRTC for the visible GPU, launched through CuPy on torch's current stream."""

    name = "cuda"

    def __init__(self, index: int = 0):
        import cupy

        self.torch = torch.device("cuda", index)
        self._cupy = cupy
        self._functions: dict[str, tuple[Any, tuple[Argument, ...]]] = {}
        self._modules: dict[Path, Any] = {}
        self.description = f"cuda ({torch.cuda.get_device_name(self.torch)})"

    def _function(self, kernel: str) -> tuple[Any, tuple[Argument, ...]]:
        if kernel not in self._functions:
            if kernel not in kernel_sources():
                raise ValueError(f"unknown kernel {kernel!r}")
            path, arguments = kernel_sources()[kernel]
            if path not in self._modules:
                self._modules[path] = self._cupy.RawModule(code=full_source(path), options=CUDA_OPTIONS)
            self._functions[kernel] = self._modules[path].get_function(kernel), arguments
        return self._functions[kernel]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        with self._cupy.cuda.Device(self.torch.index):
            function, arguments = self._function(kernel)
            check_names(kernel, arguments, values)
            packed = tuple(
                np.uintp(check_tensor(kernel, a, values[a.name], self.torch))
                if a.pointer
                else NUMPY_TYPES[a.dtype](values[a.name])
                for a in arguments
            )
            if grid:
                stream = self._cupy.cuda.ExternalStream(torch.cuda.current_stream(self.torch).cuda_stream)
                function((grid,), (block,), packed, stream=stream)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch)


@cache
def keep_freed_memory() -> None:
    """Have the C library keep large freed blocks for the next tensor of the size, where it is glibc.

    It would map each anew, and the page faults of a fresh float32 batch cost 0.02 to 0.04 s a field, several times the
    division that fills it. The process keeps its peak size until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for any block
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end stays


def host_level() -> str:
    """The best instruction-set level that is built and that this processor has (JUMPGPU_LEVEL overrides)."""
    built = sorted(p.stem.removeprefix("kernels_") for p in library_folder().glob("kernels_*.so"))
    if not built:
        raise RuntimeError(
            f"no host library in {library_folder()}: install the wheel, or build it with `pip install -e .` or `make lib` "
            "(needs a C++17 compiler and CMake)"
        )
    if asked := os.environ.get("JUMPGPU_LEVEL"):
        if asked not in built:
            raise ValueError(f"JUMPGPU_LEVEL={asked!r} is not built; there is {', '.join(built)}")
        return asked
    best = {"AVX512": 4, "AVX2": 3}.get(torch.backends.cpu.get_cpu_capability(), 2)
    usable = [level for level in built if level == "plain" or int(level[-1]) <= best]
    if not usable:
        raise RuntimeError(f"this processor runs none of the built levels ({', '.join(built)})")
    return max(usable, key=lambda level: -1 if level == "plain" else int(level[-1]))


def library_folder() -> Path:
    return Path(__file__).resolve().parent / "lib"


def host_library() -> Path:
    return library_folder() / f"kernels_{host_level()}.so"


def open_device(name: str = "auto", workers: int | None = None) -> Device:
    """The device called `name`: 'cpu', 'cuda', 'cuda:1', or 'auto', which takes CUDA if a GPU is visible.

    'cuda' without a GPU raises RuntimeError: nothing falls back silently. `Device.description` says what was opened.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return CpuDevice(workers)
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(f"unknown device {name!r}; expected 'cpu', 'cuda', 'cuda:N' or 'auto'")
    if not torch.cuda.is_available():
        raise RuntimeError(
            "device 'cuda' was asked for and no CUDA device is visible; "
            "device='cpu' runs the same kernels on this machine's cores"
        )
    return CudaDevice(int(index or 0))


def blocks(n: int) -> int:
    """Blocks of a JG_FOR_ITEMS kernel over n items."""
    return -(-n // ITEMS)
