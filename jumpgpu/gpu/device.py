"""The device: find, compile, load and launch the kernels of `kernels/`.

This is the one module that knows CuPy and the host library. A kernel is launched by name with named arguments; their
order and types are read from the kernel's own signature in its `.cu` file, so there is one place to change.
"""

import abc
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import dtype as DType

from .kernel_source import (
    C_TYPES,
    NUMPY_TYPES,
    Argument,
    check_launch,
    check_names,
    check_scalar,
    check_tensor,
    full_source,
    kernel_digest,
    kernel_sources,
    type_code,
)
from .list_capacity import Room

__all__ = ["BLOCK", "ITEMS", "CpuDevice", "CudaDevice", "Device", "blocks", "kernel_digest", "open_device"]

BLOCK = 128  # threads a block: the lanes of jg::block_sum
MOST_FIELDS = 32  # a batch
VALUES_A_BATCH = 6_000_000  # from which a larger batch gains nothing on a CPU: a field of 1080 x 1080 x 5
CPU_BYTES_A_VALUE = 40  # that a batch takes while it is computed, images given: estimates; what fails is halved
CUDA_BYTES_A_VALUE = 90  # the pixels of the batch before among them
ITEMS = 4096  # items a block in JG_FOR_ITEMS (jg::ITEMS)
FEW = 128  # items of a block of JG_FOR_FEW (one_item_per_thread.cuh)
# CuPy appends -ftz=true, so a float32 below 1.2e-38 counts as 0 there; no kernel leans on one.
CUDA_OPTIONS = ("-std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true")


class Device(abc.ABC):
    """Where kernels run. `launch` is the whole interface; tensors live on `self.torch`."""

    name: str
    torch: torch.device
    description: str
    asynchronous = False  # whether a launch returns before it has run
    room: Room | None = None  # for lists whose length only the device knows; None where asking it costs nothing

    @abc.abstractmethod
    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        """Run a kernel over `grid` blocks of `block` threads, its arguments by name; a grid of 0 does nothing.

        Tensors must be contiguous, of the dtype the kernel declares, on this device; numbers must fit their parameters:
        TypeError or ValueError otherwise, before anything runs. Asynchronous on CUDA, on torch's current stream: a tensor
        made on another stream needs `record_stream` there, as with any torch operation.
        """

    def empty(self, *shape: int, dtype: DType) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.torch)

    def zeros(self, *shape: int, dtype: DType) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.torch)

    def tensor(self, array: Any, dtype: DType | None = None) -> Tensor:
        """A NumPy array, list or tensor as a contiguous tensor on this device."""
        return torch.as_tensor(array, dtype=dtype).to(self.torch).contiguous()

    def fetch(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Begin to copy a tensor to the host; what is returned waits until it is there, and has it."""
        return tensor.numpy

    def synchronize(self) -> None:  # noqa: B027 (nothing to wait for where a launch has run when it returns)
        """Wait until everything launched has run."""

    def plan(self, fields: int, values: int, batch: int | None = None) -> tuple[int, int]:
        """Fields a batch, and batches at a time, for a run of `fields` with so many values (channels x pixels) each.

        Chosen from the memory that is free, on a device that knows it; `batch` is taken where it is given.
        """
        return batch or 1, 1

    @contextlib.contextmanager
    def divided(self, parts: int) -> Iterator[None]:
        """Within it, `parts` threads compute at the same time; a launch or operation of each uses a share of the device."""
        yield


class StaleLibrary(RuntimeError):
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

    def __init__(self, workers: int | None = None, library: Path | None = None):
        self.workers = workers or len(os.sched_getaffinity(0))
        self.torch = torch.device("cpu")
        keep_freed_memory()
        self.path = path = library or host_library()
        self.library = ctypes.CDLL(str(path))
        self.description = f"cpu ({self.workers} threads, {path.stem.removeprefix('kernels_')})"
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
        """One field a batch where fields are large, and a batch a core: what a field needs should stay in the cache."""
        batch = batch or max(1, min(MOST_FIELDS, VALUES_A_BATCH // values))
        room = max(1, int(free_memory() / 2) // (batch * values * CPU_BYTES_A_VALUE))
        return batch, max(1, min(self.workers, -(-fields // batch), room))

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


class CudaDevice(Device):
    """The kernels compiled by NVRTC for the visible GPU, launched through CuPy on torch's current stream.

    CuPy compiles and launches; memory, streams and events are torch's. A file is compiled when its first kernel is launched,
    and CuPy keeps the result in its own cache folder (CUPY_CACHE_DIR).
    """

    name = "cuda"
    asynchronous = True

    def __init__(self, index: int = 0):
        try:
            import cupy
        except ImportError as error:
            raise RuntimeError("device 'cuda' needs CuPy: pip install 'jumpgpu[cuda]'") from error
        if index >= torch.cuda.device_count():
            raise RuntimeError(f"device 'cuda:{index}' was asked for; there are {torch.cuda.device_count()} CUDA devices")
        self.torch = torch.device("cuda", index)
        self.room = Room()
        self._cupy = cupy
        self._kernels: dict[str, tuple[Any, tuple[Argument, ...]]] = {}
        self._modules: dict[Path, Any] = {}
        self._lock = threading.Lock()
        self.description = f"cuda:{index} ({torch.cuda.get_device_name(self.torch)})"

    def _kernel(self, kernel: str) -> tuple[Any, tuple[Argument, ...]]:
        with self._lock:
            if kernel not in self._kernels:
                if kernel not in kernel_sources():
                    raise ValueError(f"unknown kernel {kernel!r}")
                path, arguments = kernel_sources()[kernel]
                if path not in self._modules:
                    self._modules[path] = self._cupy.RawModule(code=full_source(path), options=CUDA_OPTIONS)
                self._kernels[kernel] = self._modules[path].get_function(kernel), arguments
            return self._kernels[kernel]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        check_launch(kernel, grid, block)
        with self._cupy.cuda.Device(self.torch.index):
            function, arguments = self._kernel(kernel)
            check_names(kernel, arguments, values)
            packed = tuple(
                NUMPY_TYPES[torch.uint64](check_tensor(kernel, a, values[a.name], self.torch))
                if a.pointer
                else NUMPY_TYPES[a.dtype](check_scalar(kernel, a, values[a.name]))
                for a in arguments
            )
            if grid:
                with self._stream():
                    function((grid,), (block,), packed)

    def _stream(self) -> Any:
        """Torch's current stream as CuPy's."""
        current = torch.cuda.current_stream(self.torch)
        stream = self._cupy.cuda.Stream
        if hasattr(stream, "from_external") and hasattr(current, "__cuda_stream__"):
            return stream.from_external(current)
        return self._cupy.cuda.ExternalStream(
            current.cuda_stream, self.torch.index
        )  # CuPy 13, where the other is not there yet

    def tensor(self, array: Any, dtype: DType | None = None) -> Tensor:
        """By way of pinned memory: a copy from any other would wait for all that was launched before."""
        found = torch.as_tensor(array, dtype=dtype)
        if found.device == self.torch:
            return found.contiguous()
        pinned = torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found)
        return pinned.to(self.torch, non_blocking=True)

    def fetch(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """By way of pinned memory, behind what was launched before on the current stream."""
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self.torch))

        def wait() -> np.ndarray:
            copied.synchronize()
            return pinned.numpy()

        return wait

    def plan(self, fields: int, values: int, batch: int | None = None) -> tuple[int, int]:
        """As many fields a batch as half of the free memory holds, up to `MOST_FIELDS`, and one batch at a time."""
        room = torch.cuda.mem_get_info(self.torch)[0] // 2 // (values * CUDA_BYTES_A_VALUE)
        return batch or max(1, min(MOST_FIELDS, fields, room)), 1

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
        mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads; the others' are unmapped whenever they are empty


def free_memory() -> int:
    """Bytes that this process may still take: the machine's, or its control group's where that is less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux knows what the page cache would give back
        text = Path("/proc/meminfo").read_text()
        free = 1024 * int(text.split("MemAvailable:")[1].split()[0])
    with contextlib.suppress(OSError, ValueError, IndexError):
        own = Path("/proc/self/cgroup").read_text().split("0::")[1].split()[0]  # version 2
        group = Path("/sys/fs/cgroup") / own.lstrip("/")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        free = min(free, max(0, int(limit) - int(used)))
    return free


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


def few_blocks(n: int) -> int:
    """Blocks of a JG_FOR_FEW kernel over n items."""
    return -(-n // FEW)


def blocks(n: int) -> int:
    """Blocks of a JG_FOR_ITEMS kernel over n items."""
    return -(-n // ITEMS)
