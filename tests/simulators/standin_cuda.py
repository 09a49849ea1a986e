"""A stand-in for one CUDA device: CuPy's module and torch's streams, events and pinned memory, on the CPU, and strict.

    with standin() as gpu:
        device = open_device("cuda")          # the real CudaDevice, over a module that only looks like CuPy
        ...                                    # tensors "on cuda:0" are CPU tensors that say so

Kernels run by the serial host build, at once. What would go wrong on a GPU is found by bookkeeping and is an AssertionError:

  arguments   the source has no include of its own left and compiles by NVRTC with CuPy's options; each argument is a NumPy
              scalar of exactly the declared type; a pointer points into a living CUDA tensor, never a host one; blocks fit
              the kernel's launch bounds
  order       a tensor is touched by a stream only if what wrote it (or, to write, what read it) is ordered before: same
              stream, an event waited for, or the host having waited (vector clocks)
  lifetime    a tensor that dies while another stream than its own may still use it, without record_stream; a pinned buffer
              changed before the copy out of it has ended; what a copy into one brings is there when somebody waited for it

Operators that mix CUDA and CPU tensors, .numpy() of a CUDA tensor and the like fail as torch's do.
"""

import contextlib
import ctypes
import itertools
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from jumpgpu.gpu.cuda import CUDA_OPTIONS
from jumpgpu.gpu.kernel_source import NUMPY_TYPES, kernel_sources, signatures
from tests.simulators.builds import CUPY_OPTIONS, build, cached
from tests.simulators.ptx import nvrtc

CUDA = torch.device("cuda", 0)
HOST_READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "equal", "allclose", "is_nonzero"}
MIXED = {"copy_", "__getitem__", "__setitem__", "index_select", "to"}  # torch allows a CPU tensor beside a CUDA one here
BOUNDS = re.compile(r"__launch_bounds__\((\d+)[^)]*\)\s*(\w+)\s*\(")
EVERY_STREAM = itertools.count(1)


class Timeline:
    """What is ordered before the next step of a stream, or of the host: the newest known step of each stream."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    def learn(self, other: dict[int, int]) -> None:
        for stream, step in other.items():
            self.known[stream] = max(step, self.known.get(stream, 0))


class Stream(Timeline):
    """torch.cuda.Stream, and as CuPy sees it."""

    def __init__(self, device: Any = None, priority: int = 0):
        super().__init__()
        self.cuda_stream = self.ptr = next(EVERY_STREAM) * 4096
        self.device = CUDA
        self.copies: list[tuple[int, torch.Tensor, torch.Tensor]] = []  # step, pinned source, what it held

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream

    def step(self) -> int:
        self.learn(GPU.host.known)
        self.known[self.ptr] = self.known.get(self.ptr, 0) + 1
        return self.known[self.ptr]

    def wait_event(self, event: "Event") -> None:
        self.learn(event.known)

    def wait_stream(self, stream: "Stream") -> None:
        self.learn(stream.known)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        GPU.waited(self.known)


class Event(Timeline):
    """torch.cuda.Event."""

    def __init__(self, enable_timing: bool = False, **_: Any):
        super().__init__()
        self.timing = enable_timing

    def record(self, stream: Stream | None = None) -> None:
        self.known = dict((stream or GPU.current).known)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or GPU.current).learn(self.known)

    def synchronize(self) -> None:
        GPU.waited(self.known)

    def elapsed_time(self, other: "Event") -> float:
        """Milliseconds, of which the stand-in knows nothing: 1 for any two events that have ended."""
        assert self.timing, "an event without enable_timing"
        assert other.timing, "an event without enable_timing"
        assert self.query(), "the event has not ended"
        assert other.query(), "the event has not ended"
        return 1.0

    def query(self) -> bool:
        return all(GPU.host.known.get(s, 0) >= step for s, step in self.known.items())


class Allocation:
    """The memory of a CUDA tensor and its views: who wrote it, who has read it since, and the stream it was made on."""

    def __init__(self, base: int, size: int, home: Stream):
        self.base, self.size, self.home = base, size, [home]
        self.written: tuple[int, int] | None = None
        self.reads: dict[int, int] = {}
        self.recorded: set[int] = set()
        weakref.finalize(self, Allocation.died, self.home, self.reads, self.recorded, lambda: None)

    @staticmethod
    def died(homes: list[Stream], used: dict[int, int], recorded: set[int], _: Callable[[], None]) -> None:
        if GPU.active:
            home = homes[0]
            home.learn(GPU.host.known)
            late = [s for s, n in used.items() if s != home.ptr and s not in recorded and home.known.get(s, 0) < n]
            if late:
                GPU.faults.append(f"a tensor died while stream {late[0]} may still use it; record_stream was not called")

    def touch(self, stream: Stream, write: bool, what: str) -> None:
        step = stream.step()
        before = ([self.written] if self.written else []) + (list(self.reads.items()) if write else [])
        for other, then in before:
            if other != stream.ptr and stream.known.get(other, 0) < then:
                raise AssertionError(f"{what}: touches what stream {other} has not finished with")
        if write:
            self.written = stream.ptr, step
            for other in [s for s, n in self.reads.items() if stream.known.get(s, 0) >= n]:
                del self.reads[other]
        self.reads[stream.ptr] = step


class CudaTensor(torch.Tensor):
    """A CPU tensor that says it is on cuda:0."""

    allocation: Allocation | None = None

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def record_stream(self, stream: Stream) -> None:
        if self.allocation is not None:
            self.allocation.recorded.add(stream.ptr)


class Gpu:
    """The state of the stand-in."""

    def __init__(self) -> None:
        self.active = False
        self.allocations: weakref.WeakValueDictionary[int, Allocation] = weakref.WeakValueDictionary()

    def reset(self) -> None:
        self.host = Timeline()
        self.default = Stream()
        self.current = self.default
        self.cupy_current: Stream | None = None
        self.cupy_device: int | None = None
        self.streams = {self.default.ptr: self.default}
        for allocation in list(self.allocations.values()):  # of tensors that the package keeps: nothing is under way on them
            allocation.home[:] = [self.default]
            allocation.written = None
            allocation.reads.clear()
            allocation.recorded.clear()
        self.faults: list[str] = []
        self.pinned: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()  # by address
        self.pins = 0  # that were ever made
        self.copies: list[tuple[Stream, int, torch.Tensor, torch.Tensor]] = []
        self.arrivals: list[tuple[Stream, int, torch.Tensor, torch.Tensor]] = []  # stream, step, pinned target, what comes
        self.launches: list[str] = []

    def waited(self, known: dict[int, int]) -> None:
        """The host has waited for these steps; copies out of pinned memory among them have read their source until now."""
        self.host.learn(known)
        left = []
        for stream, step, target, held in self.arrivals:
            if self.host.known.get(stream.ptr, 0) < step:
                left.append((stream, step, target, held))
            else:
                target.copy_(held)
        self.arrivals, left = left, []
        for stream, step, source, held in self.copies:
            if self.host.known.get(stream.ptr, 0) < step:
                left.append((stream, step, source, held))
            elif not torch.equal(source, held):
                raise AssertionError("a pinned buffer was changed before the copy out of it had ended")
        self.copies = left

    def synchronize(self, device: Any = None) -> None:
        for stream in list(self.streams.values()):
            self.waited(stream.known)

    def allocation(self, tensor: torch.Tensor) -> Allocation | None:
        storage = tensor.untyped_storage()
        base = storage.data_ptr()
        if not base:
            return None
        found = self.allocations.get(base)
        if found is None:
            found = self.allocations[base] = Allocation(base, storage.nbytes(), self.current)
        return found

    def wrap(self, tensor: torch.Tensor) -> "CudaTensor":
        made = tensor if isinstance(tensor, CudaTensor) else torch.Tensor._make_subclass(CudaTensor, tensor)
        if made.allocation is None:
            made.allocation = self.allocation(made)
        return made

    def holding(self, address: int) -> Allocation | None:
        return next((a for a in list(self.allocations.values()) if a.base <= address < a.base + max(a.size, 1)), None)


GPU = Gpu()


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def mapped(value: Any, f: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return f(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[mapped(v, f) for v in value])
    if isinstance(value, list | tuple):
        return type(value)(mapped(v, f) for v in value)
    return value


class Mode(TorchFunctionMode):
    """Every torch function while the stand-in is active."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__") or not GPU.active:
            return func(*args, **kwargs)
        to_cuda = is_cuda(kwargs.get("device"))
        if to_cuda:
            del kwargs["device"]
        if kwargs.pop("pin_memory", False):
            made = func(*args, **kwargs)
            GPU.pinned[made.untyped_storage().data_ptr()] = made
            GPU.pins += 1
            return made
        if name in ("to", "cuda", "cpu"):
            return self.move(func, name, args, kwargs, to_cuda)
        if name == "copy_" and isinstance(args[1], CudaTensor) and not isinstance(args[0], CudaTensor):
            return self.fetch(args[0], args[1], bool(kwargs.get("non_blocking")))
        inputs = list(tensors_in([args, kwargs]))
        ours = [GPU.wrap(t) for t in inputs if isinstance(t, CudaTensor)]
        if ours and name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if ours and name not in MIXED and any(not isinstance(t, CudaTensor) and t.dim() for t in inputs):
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if not ours and not to_cuda:
            return result
        self.account(name, ours, args, kwargs, result)
        return mapped(result, GPU.wrap)

    def account(self, name: str, ours: list[Any], args: Any, kwargs: Any, result: Any) -> None:
        """Enter what an operator read and wrote into the books."""
        in_place = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name.startswith("__i")
        outs = list(tensors_in(kwargs.get("out"))) + ([args[0]] if in_place and name != "__index__" else [])
        results = list(tensors_in(result))
        bases = {t.untyped_storage().data_ptr() for t in ours}
        fresh = [r for r in results if r.untyped_storage().data_ptr() not in bases]
        if not outs and results and not fresh:
            return  # views
        if not results and not outs and name not in HOST_READS:
            return  # sizes, strides and the like
        for t in ours:
            if t.allocation is not None and not any(t is o for o in outs):
                t.allocation.touch(GPU.current, False, name)
        for t in outs:
            if isinstance(t, CudaTensor) and t.allocation is not None:
                t.allocation.touch(GPU.current, True, name)
        for t in fresh:
            wrapped = GPU.allocation(t)
            if wrapped is not None:
                wrapped.touch(GPU.current, True, name)
                t._kept = wrapped  # type: ignore[attr-defined]  # until mapped() wraps it
        if name in HOST_READS:
            GPU.waited(GPU.current.known)

    def fetch(self, target: torch.Tensor, source: CudaTensor, non_blocking: bool) -> torch.Tensor:
        """`copy_` of a CUDA tensor into one of the host's; what was not waited for holds anything until somebody has."""
        if source.allocation is not None:
            source.allocation.touch(GPU.current, False, "copy_")
        with torch._C.DisableTorchFunctionSubclass():
            held = source.as_subclass(torch.Tensor).clone()
            if non_blocking and target.untyped_storage().data_ptr() in GPU.pinned:
                target.view(torch.uint8).fill_(0xA5)
                GPU.arrivals.append((GPU.current, GPU.current.known.get(GPU.current.ptr, 0), target, held))
            else:
                GPU.waited(GPU.current.known)
                target.copy_(held)
        return target

    def move(self, func: Any, name: str, args: Any, kwargs: Any, to_cuda: bool) -> Any:
        """Tensor.to, .cuda and .cpu."""
        tensor, rest = args[0], list(args[1:])
        cpu = name == "cpu" or any(is_cpu(a) for a in rest) or is_cpu(kwargs.get("device"))
        to_cuda = to_cuda or name == "cuda" or any(is_cuda(a) for a in rest)
        rest = [a for a in rest if not (is_cuda(a) or is_cpu(a))]
        kwargs.pop("device", None)
        non_blocking = kwargs.pop("non_blocking", False)
        with torch._C.DisableTorchFunctionSubclass():
            plain = tensor.as_subclass(torch.Tensor)
            moved = plain.to(*rest, **kwargs) if rest or kwargs else plain
        if not (cpu or to_cuda):
            cpu, to_cuda = not isinstance(tensor, CudaTensor), isinstance(tensor, CudaTensor)
        if isinstance(tensor, CudaTensor) and to_cuda and moved is plain:
            return tensor
        if isinstance(tensor, CudaTensor) and tensor.allocation is not None:
            tensor.allocation.touch(GPU.current, False, name)
        with torch._C.DisableTorchFunctionSubclass():
            moved = moved.clone()
        if cpu:
            GPU.waited(GPU.current.known)
            return moved
        made = GPU.wrap(moved)
        if made.allocation is not None:
            made.allocation.touch(GPU.current, True, name)
            if not isinstance(tensor, CudaTensor):
                if non_blocking and tensor.untyped_storage().data_ptr() in GPU.pinned:
                    GPU.copies.append((GPU.current, GPU.current.known[GPU.current.ptr], plain, plain.clone()))
                else:
                    GPU.waited(GPU.current.known)
        return made


def is_cuda(value: Any) -> bool:
    return (isinstance(value, torch.device) and value.type == "cuda") or (
        isinstance(value, str) and value.startswith("cuda")
    )


def is_cpu(value: Any) -> bool:
    return (
        (isinstance(value, torch.device) and value.type == "cpu") or value == "cpu"
        if not isinstance(value, torch.Tensor)
        else False
    )


# ---- CuPy


class RawModule:
    """cupy.RawModule of a source: compiled by NVRTC for a check, run by the serial host build."""

    def __init__(self, code: str | None = None, *, options: tuple[str, ...] = (), **other: Any):
        assert isinstance(code, str), "RawModule takes the source as text"
        assert not other, f"not expected: {other}"
        assert isinstance(options, tuple)
        assert options == CUDA_OPTIONS
        assert '#include "' not in code, "CuPy keys its cache on this text, so what it includes must stand in it"
        self.code, self.signatures = code, signatures(code)
        self.bounds = {name: int(most) for most, name in BOUNDS.findall(code)}

        def make(out: Any) -> None:
            out.write_bytes(nvrtc.compile_source(code, "module.cu", "sm_80", cubin=True, options=CUPY_OPTIONS))

        cached("standin.cubin", (code, *CUPY_OPTIONS, nvrtc.version()), make)

    def get_function(self, name: str) -> "RawKernel":
        assert GPU.cupy_device == 0, "the device is not current"
        return RawKernel(self, name)


class RawKernel:
    """cupy.RawKernel."""

    def __init__(self, module: RawModule, name: str):
        self.name, self.arguments, self.most = name, module.signatures[name], module.bounds.get(name, 1024)
        text = re.sub(r"//[^\n]*", "", module.code)
        declared = re.search(rf"\b{name}\s*\(([^)]*)\)", text[text.index('extern "C"') :])
        assert declared is not None
        self.constant = ["const" in p for p in declared[1].split(",")]

    def __call__(self, grid: Any, block: Any, args: Any) -> None:
        assert GPU.cupy_device == 0, "the device is not current"
        stream = GPU.cupy_current
        assert stream is not None, "no stream is current to CuPy: it would take the null stream"
        assert isinstance(grid, tuple), "a grid is a tuple"
        assert isinstance(block, tuple), "a block is a tuple"
        assert isinstance(args, tuple)
        assert len(grid) == len(block) == 1
        assert 0 < grid[0] < 2**31
        assert block[0] <= self.most, f"{self.name} is bound to {self.most} threads, got {block[0]}"
        assert len(args) == len(self.arguments)
        pointers = []
        for argument, constant, value in zip(self.arguments, self.constant, args, strict=True):
            wanted = np.uint64 if argument.pointer else NUMPY_TYPES[argument.dtype]
            assert type(value) is wanted, f"{self.name}: {argument.name} must be {wanted}, got {type(value)}"
            if argument.pointer and int(value):
                held = GPU.holding(int(value))
                assert held is not None, f"{self.name}: {argument.name} does not point into a living CUDA tensor"
                pointers.append((held, not constant))
        for held, write in sorted(pointers, key=lambda p: p[1]):
            held.touch(stream, write, self.name)
        GPU.launches.append(self.name)
        values = [np.array([v]) for v in args]
        packed = (ctypes.c_void_p * len(values))(*[v.ctypes.data for v in values])
        library = ctypes.CDLL(str(build(kernel_sources()[self.name][0], "serial")))
        entry = getattr(library, f"jg_launch_{self.name}")
        entry.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint64]
        entry(grid[0], block[0], packed, 1, 0)


class CupyDevice:
    """cupy.cuda.Device."""

    def __init__(self, index: int):
        assert index == 0
        self.before: list[int | None] = []

    def __enter__(self) -> "CupyDevice":
        self.before.append(GPU.cupy_device)
        GPU.cupy_device = 0
        return self

    def __exit__(self, *_: Any) -> None:
        GPU.cupy_device = self.before.pop()


class CupyStream:
    """cupy.cuda.Stream made of another library's stream."""

    def __init__(self, pointer: int):
        assert pointer in GPU.streams, "not a stream of torch's"
        self.stream = GPU.streams[pointer]

    def __enter__(self) -> "CupyStream":
        self.before, GPU.cupy_current = GPU.cupy_current, self.stream
        return self

    def __exit__(self, *_: Any) -> None:
        GPU.cupy_current = self.before


def cupy_module(version: int) -> types.ModuleType:
    """What the package uses of CuPy 13 or 14."""
    module = types.ModuleType("cupy")
    module.__version__ = f"{version}.0.0"  # type: ignore[attr-defined]
    module.RawModule = RawModule  # type: ignore[attr-defined]
    stream = type("Stream", (), {})
    if version >= 14:
        stream.from_external = staticmethod(lambda s: CupyStream(s.__cuda_stream__()[1]))  # type: ignore[attr-defined]

    def external(pointer: int, device_id: int = -1) -> CupyStream:
        assert version < 14, "cupy.cuda.ExternalStream warns that it is deprecated"
        return CupyStream(pointer)

    module.cuda = types.SimpleNamespace(Device=CupyDevice, Stream=stream, ExternalStream=external)  # type: ignore[attr-defined]
    return module


@contextlib.contextmanager
def standin(version: int = 14) -> Iterator[Gpu]:
    """One CUDA device to torch and to `import cupy`, until the end of the block; faults found late are raised there."""

    def stream(*args: Any, **kwargs: Any) -> Stream:
        made = Stream(*args, **kwargs)
        GPU.streams[made.ptr] = made
        return made

    @contextlib.contextmanager
    def use(s: Stream | None) -> Iterator[None]:
        before, GPU.current = GPU.current, s or GPU.current
        try:
            yield
        finally:
            GPU.current = before

    patches: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "stand-in",
        "mem_get_info": lambda device=None: (10 << 30, 16 << 30),
        "current_stream": lambda device=None: GPU.current,
        "default_stream": lambda device=None: GPU.default,
        "Stream": stream,
        "Event": Event,
        "stream": use,
        "synchronize": GPU.synchronize,
    }
    before = {name: getattr(torch.cuda, name) for name in patches}
    module = sys.modules.get("cupy")
    GPU.reset()
    GPU.active = True
    try:
        for name, patch in patches.items():
            setattr(torch.cuda, name, patch)
        sys.modules["cupy"] = cupy_module(version)
        with Mode():
            yield GPU
        GPU.synchronize()
        assert not GPU.faults, GPU.faults
    finally:
        GPU.active = False
        for name, old in before.items():
            setattr(torch.cuda, name, old)
        sys.modules.pop("cupy", None)
        if module is not None:
            sys.modules["cupy"] = module
