"""The kernels on a CUDA GPU: compiled by NVRTC, launched through CuPy on torch's streams."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import dtype as DType

from .cpu import CpuDevice
from .device import BLOCK, MAX_FIELDS, Device
from .kernel_source import (
    Argument,
    check_launch,
    full_source,
    kernel_sources,
    pack,
)
from .list_capacity import Capacity
from .machine import usable_cores

MAX_COMPILERS = 16  # files at once; one takes a second at most
SAY_EVERY_S = 2.0
CUDA_BYTES_PER_VALUE = 102  # that a batch takes while it is computed, with the pixels of the batch before and of the batch
# after, and its labels: an estimate
SCRATCH_SHARE = 8  # of the free memory that one launch may take for its blocks' scratch is this part
# CuPy appends -ftz=true, so a float32 below 1.2e-38 counts as 0 there; no kernel leans on one.
CUDA_OPTIONS = ("-std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true")


class _TorchStream:
    """A stream of torch's as CuPy 14 wants to be handed one; torch's own say this from 2.10 on."""

    def __init__(self, pointer: int):
        self.pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


class CudaDevice(Device):
    """The kernels compiled by NVRTC for the visible GPU, launched through CuPy on torch's current stream.

    CuPy compiles and launches; memory, streams and events are torch's. A file is compiled when its first kernel is launched,
    and CuPy keeps the result in its own cache folder (CUPY_CACHE_DIR).
    """

    name = "cuda"
    asynchronous = True
    library_sort = True

    def __init__(self, index: int = 0):
        try:
            import cupy
        except ImportError as error:
            raise RuntimeError("device 'cuda' needs CuPy: pip install 'jumpgpu[cuda]'") from error
        if index >= torch.cuda.device_count():
            raise RuntimeError(f"device 'cuda:{index}' was asked for; there are {torch.cuda.device_count()} CUDA devices")
        self.torch = torch.device("cuda", index)
        self.capacity = Capacity()
        self.scratch_bytes = torch.cuda.mem_get_info(self.torch)[0] // SCRATCH_SHARE
        self._cupy = cupy
        self._kernels: dict[str, tuple[Any, tuple[Argument, ...]]] = {}
        self._modules: dict[Path, Any] = {}
        self._lock = threading.Lock()
        self.description = f"cuda:{index} ({torch.cuda.get_device_name(self.torch)})"

    def versions(self) -> dict[str, str]:
        """CUDA versions: of the compiler that CuPy found (NVRTC), of the newest that the driver runs, of torch's build."""
        nvrtc = self._cupy.cuda.nvrtc.getVersion()
        driver = self._cupy.cuda.runtime.driverGetVersion()
        return {
            "nvrtc": f"{nvrtc[0]}.{nvrtc[1]}",
            "driver": f"{driver // 1000}.{driver % 1000 // 10}",
            "torch": torch.version.cuda or "none",
        }

    def check_versions(self) -> None:
        """RuntimeError where the compiler is of a later major version than the driver, which may not load what it writes."""
        result = self.versions()
        compiler, driver = (int(result[name].split(".")[0]) for name in ("nvrtc", "driver"))
        if compiler > driver:
            raise RuntimeError(
                f"device 'cuda': CuPy has NVRTC {result['nvrtc']}, the driver runs CUDA {result['driver']} at most: "
                f"install jumpgpu[cuda{driver}] in place of the newer CuPy and nvidia-cuda-nvrtc, or a newer driver"
            )

    def compile(self, say: Callable[[str], None] = lambda text: None) -> float:
        """Compile all kernel files that are not compiled yet, several at once; seconds taken.

        CuPy keeps what it made in its cache folder, so that this takes a user's first run some seconds on 16 cores and later
        ones none. `say` is told how far it is, every `SAY_EVERY_S`.
        """
        files = sorted({path for path, _ in kernel_sources().values()})
        start = said = time.monotonic()

        def load(path: Path) -> None:
            with self._cupy.cuda.Device(self.torch.index):
                module = self._cupy.RawModule(code=full_source(path), options=CUDA_OPTIONS)
                module.compile()
            with self._lock:
                self._modules.setdefault(path, module)

        with ThreadPoolExecutor(min(usable_cores(), MAX_COMPILERS), thread_name_prefix="compile") as pool:
            waiting = [pool.submit(load, path) for path in files if path not in self._modules]
            try:
                for n, done in enumerate(as_completed(waiting), 1):
                    done.result()
                    now = time.monotonic()
                    if now - said > SAY_EVERY_S:
                        said = now
                        say(f"compiling the kernels for this GPU, once: {n} of {len(waiting)} files")
            finally:  # somebody who interrupts does not wait for all the files
                pool.shutdown(wait=True, cancel_futures=True)
        return time.monotonic() - start

    def _kernel(self, kernel: str) -> tuple[Any, tuple[Argument, ...]]:
        if known := self._kernels.get(kernel):
            return known
        with self._lock:
            if kernel not in self._kernels:
                if kernel not in kernel_sources():
                    raise ValueError(f"unknown kernel {kernel!r}")
                path, arguments = kernel_sources()[kernel]
                if path not in self._modules:
                    self._modules[path] = self._cupy.RawModule(code=full_source(path), options=CUDA_OPTIONS)
                self._kernels[kernel] = self._modules[path].get_function(kernel), arguments
            return self._kernels[kernel]

    def function(self, kernel: str) -> Any:
        """CuPy's function of a kernel, which knows its registers and local memory."""
        with self._cupy.cuda.Device(self.torch.index):
            return self._kernel(kernel)[0]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        check_launch(kernel, grid, block)
        with self._cupy.cuda.Device(self.torch.index):
            function, packed = self._kernel(kernel)[0], pack(kernel, values, self.torch)
            if grid:
                with self._stream():
                    function((grid,), (block,), packed)

    @cached_property
    def core(self) -> Device:
        return CpuDevice(1)

    def _stream(self) -> Any:
        """Torch's current stream as CuPy's."""
        pointer = torch.cuda.current_stream(self.torch).cuda_stream
        if hasattr(self._cupy.cuda.Stream, "from_external"):
            return self._cupy.cuda.Stream.from_external(_TorchStream(pointer))
        return self._cupy.cuda.ExternalStream(pointer, self.torch.index)  # CuPy 13

    def tensor(self, array: Any, dtype: DType | None = None) -> Tensor:
        """By way of pinned memory: a copy from any other would wait for all that was launched before."""
        result = torch.as_tensor(array, dtype=dtype)
        if result.device == self.torch:
            return result.contiguous()
        pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True).copy_(result)
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
        """As many fields per batch as half of the memory free beside scratch holds, up to `MAX_FIELDS`; one batch."""
        free = torch.cuda.mem_get_info(self.torch)[0] - self.scratch_bytes
        capacity = free // 2 // (values * CUDA_BYTES_PER_VALUE)
        return batch or max(1, min(MAX_FIELDS, fields, capacity, self.max_fields(values))), 1

    def give_back(self, values: int) -> None:
        super().give_back(values)
        torch.cuda.synchronize(self.torch)  # what the failed batch had launched still runs in its memory
        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch)
