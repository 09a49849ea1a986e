"""The kernels on this machine's cores: the compiled host library, found, checked and launched."""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .device import BLOCK, MAX_FIELDS, Device
from .failures import Lasting
from .kernel_source import (
    C_TYPES,
    Argument,
    check_launch,
    check_names,
    check_scalar,
    check_tensor,
    kernel_sources,
    type_code,
)
from .machine import free_memory, usable_cores

VALUES_PER_BATCH = 6_000_000  # from which a larger batch gains nothing on a CPU: a field of 1080 x 1080 x 5
CPU_BYTES_PER_VALUE = 40  # that a batch takes while it is computed, images given: an estimate; what fails is halved


HUGE_PAGE = 1 << 21  # bytes
HUGE_BYTES = 1 << 30  # of the heap that ask for such pages
SCRATCH_SHARE = 8  # of the free memory that one launch may take for its blocks' scratch is this part


class StaleLibrary(Lasting):
    """The host library was built from other kernel sources than those that are there."""


class _Binding:
    """A kernel's argument slots, laid out once as cuLaunchKernel wants them: an array of pointers to values."""

    def __init__(self, kernel: str, arguments: tuple[Argument, ...]):
        self.kernel, self.arguments = kernel, arguments
        self.slots: list[Any] = [ctypes.c_void_p() if a.pointer else C_TYPES[a.dtype]() for a in arguments]
        self.pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(s) for s in self.slots])
        self.plan = [(a.name, a, s, a.pointer) for a, s in zip(arguments, self.slots, strict=True)]

    def fill(self, values: dict[str, Any], device: torch.device) -> None:
        """Check every value and put it into its slot."""
        if len(values) != len(self.slots):
            check_names(self.kernel, self.arguments, values)
        for name, argument, slot, pointer in self.plan:
            try:
                value = values[name]
            except KeyError:
                check_names(self.kernel, self.arguments, values)
                raise
            if pointer:
                slot.value = check_tensor(self.kernel, argument, value, device)
            elif type(value) is int and argument.low <= value <= argument.high:
                slot.value = value
            else:
                slot.value = check_scalar(self.kernel, argument, value)


class CpuDevice(Device):
    """The kernels compiled for this machine's cores: a block is one loop, blocks over a kept thread pool.

    Threads may launch at the same time; `workers` is the number of cores that each launch uses.
    """

    name = "cpu"
    massively_parallel = False

    def __init__(self, workers: int | None = None, library: Path | None = None):
        self.workers = workers or usable_cores()
        self.torch = torch.device("cpu")
        keep_freed_memory()
        self.path = path = library or host_library()
        self.library = ctypes.CDLL(str(path))
        self.description = f"cpu ({self.workers} threads, {path.stem.removeprefix('kernels_')})"
        self.scratch_bytes = free_memory() // SCRATCH_SHARE
        self.seed = 0  # the schedule of the fibers build; the serial build ignores it
        self._bound = threading.local()  # kernel -> entry and argument slots, a thread's own

    def _bind(self, kernel: str) -> tuple[Any, _Binding]:
        bound: dict[str, tuple[Any, _Binding]] = vars(self._bound)
        if kernel not in bound:
            if kernel not in kernel_sources():
                raise ValueError(f"unknown kernel {kernel!r}")
            arguments = kernel_sources()[kernel][1]
            types = getattr(self.library, f"jg_types_{kernel}", None)
            if types is not None:
                types.restype = ctypes.c_char_p
            if types is None or types().decode() != type_code(arguments):
                raise StaleLibrary(
                    f"{self.library._name} was built from other sources than {kernel_sources()[kernel][0]}; "
                    "build it again with `pip install -e .` or `make lib`"
                )
            entry = getattr(self.library, f"jg_launch_{kernel}")
            entry.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint64]
            entry.restype = ctypes.c_char_p
            bound[kernel] = entry, _Binding(kernel, arguments)
        return bound[kernel]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        entry, binding = self._bind(kernel)
        check_launch(kernel, grid, block)
        binding.fill(values, self.torch)
        if grid and (wrong := entry(grid, block, binding.pointers, self.workers, self.seed)):
            raise RuntimeError(f"{kernel}: {wrong.decode()}")

    def plan(self, fields: int, values: int, batch: int | None = None) -> tuple[int, int]:
        """One field per batch where fields are large, and a batch a core: what a field needs should stay in the cache."""
        batch = batch or max(1, min(MAX_FIELDS, VALUES_PER_BATCH // values))
        capacity = max(1, int(free_memory() / 2) // (batch * values * CPU_BYTES_PER_VALUE))
        return batch, max(1, min(self.workers, -(-fields // batch), capacity))

    def scratch_blocks(self, tasks: int, bytes_per_block: int, *, per_core: int, maximum: int) -> int:
        return self._limited(min(tasks, per_core * self.workers), bytes_per_block)

    def rows_per_block(self, height: int, rows: int) -> int:
        return -(-height // self.workers)

    @contextlib.contextmanager
    def divided(self, parts: int) -> Iterator[None]:
        whole, torch_threads = self.workers, torch.get_num_threads()
        self.workers = max(1, whole // parts)
        torch.set_num_threads(self.workers)
        try:
            yield
        finally:
            self.workers = whole
            torch.set_num_threads(torch_threads)


@cache
def keep_freed_memory() -> None:
    """Have the C library keep large freed blocks for the next tensor of the size, where it is glibc.

    It would map each anew, and the page faults of a fresh float32 batch cost 0.02 to 0.04 s per field, several times the
    division that fills it. The process keeps its peak size until it ends.
    """
    if sys.platform != "linux":
        return
    c = ctypes.CDLL(None)
    if hasattr(c, "mallopt"):
        c.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for any block
        c.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end stays
        c.mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads; the others' are unmapped whenever they are empty
        use_huge_pages(c)


def use_huge_pages(c: ctypes.CDLL) -> None:
    """Have the heap's next `HUGE_BYTES` made of pages of 2 MiB, where the system gives them to who asks (madvise).

    What kernels gather from lies all over tens of megabytes, more pages of 4 KiB than a core remembers the places of. The
    heap is extended now, untouched: addresses, not memory.
    """
    size = min(HUGE_BYTES, free_memory() // 4)
    c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    c.free.restype, c.free.argtypes = None, [ctypes.c_void_p]
    c.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if start := c.malloc(size):
        first, end = -(-start // HUGE_PAGE) * HUGE_PAGE, (start + size) // HUGE_PAGE * HUGE_PAGE
        if end > first:
            c.madvise(first, end - first, 14)  # MADV_HUGEPAGE; refused where there are none, which changes nothing
        c.free(start)


@cache
def _lzw_entry() -> Any:
    return CpuDevice(1)._bind("lzw_strips")[0]


def decode_lzw(data: bytes, strips: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Decode strips of TIFF's LZW on the calling thread (lzw.cu); may be called from several at once.

    Parameters
    ----------
    data : the file's bytes
    strips : int64 [S, 4]
        Of each: where its codes begin in `data`, how many bytes they are, where its bytes begin in `out`, how many they are.
    out : uint8 [...], contiguous

    Returns
    -------
    bool [S]
        Whether the strip gave exactly its bytes; the others are left in any state. ValueError for one that lies outside.
    """
    strips = np.ascontiguousarray(strips, np.int64)
    if (strips < 0).any() or (strips[:, 0::2] + strips[:, 1::2] > [len(data), out.size]).any() or out.size > 2**31 - 1:
        raise ValueError("a strip lies outside the file or the image")
    if out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable:
        raise TypeError("out must be contiguous uint8 that can be written")
    status = np.ones(len(strips), np.int32)
    arrays = np.frombuffer(data, np.uint8), strips, out, status
    slots = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    pointers = (ctypes.c_void_p * 4)(*[ctypes.addressof(s) for s in slots])
    if len(strips):
        _lzw_entry()(len(strips), BLOCK, pointers, 1, 0)
    return np.equal(status, 0)


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
    return Path(__file__).resolve().parents[1] / "lib"


def host_library() -> Path:
    return library_folder() / f"kernels_{host_level()}.so"
