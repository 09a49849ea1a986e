"""A stand-in for CUDA devices: CuPy's module and torch's streams, events and pinned memory, on the CPU, and strict.

    with standin() as gpu:
        device = open_device("cuda")          # the real CudaDevice, over a module that only looks like CuPy
        ...                                    # tensors "on cuda:0" are CPU tensors that say so

    standin(version=13, devices=2, memory=1 << 30, cuda_stream=False)  # CuPy 13, two GPUs, little memory, torch 2.9

Kernels run by the serial host build, at once. What would go wrong on a GPU is found by bookkeeping and is an AssertionError:

  arguments   the source has no include of its own left and compiles by NVRTC with CuPy's options; each argument is a NumPy
              scalar of exactly the declared type; a pointer points into a living CUDA tensor, never a host one; blocks fit
              the kernel's launch bounds
  order       a tensor is touched by a stream only if what wrote it (or, to write, what read it) is ordered before: same
              stream, an event waited for, or the host having waited (vector clocks)
  devices     what runs on one device's stream touches that device's tensors only; where none is named the first is meant
  memory      an allocation beyond what is free is torch's OutOfMemoryError
  operators   what torch does otherwise on CUDA is refused, or has CUDA's bits (cuda_operators.py)
  lifetime    a tensor that dies while another stream than its own may still use it, without record_stream; a pinned buffer
              changed before the copy out of it has ended; what a copy into one brings is there when somebody waited for it

Operators that mix CUDA and CPU tensors, .numpy() of a CUDA tensor and the like fail as torch's do.
"""

import contextlib
import ctypes
import itertools
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from jumpgpu.gpu.cuda import CUDA_OPTIONS
from jumpgpu.gpu.kernel_source import NUMPY_TYPES, kernel_sources, signatures
from tests.simulators import cuda_operators
from tests.simulators.builds import CUPY_OPTIONS, build, cached
from tests.simulators.ptx import nvrtc

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
        self.device = torch.device("cuda", GPU.index_of(device))
        self.copies: list[tuple[int, torch.Tensor, torch.Tensor]] = []  # step, pinned source, what it held

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


class NewStream(Stream):
    """torch.cuda.Stream from 2.10 on."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream


class Event(Timeline):
    """torch.cuda.Event."""

    def __init__(self, enable_timing: bool = False, **_: Any):
        super().__init__()
        self.timing = enable_timing

    def record(self, stream: Stream | None = None) -> None:
        self.known = dict((stream or GPU.current()).known)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or GPU.current()).learn(self.known)

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
        self.index = home.device.index
        self.written: tuple[int, int] | None = None
        self.reads: dict[int, int] = {}
        self.recorded: set[int] = set()
        GPU.used[self.index] += size
        GPU.peak[self.index] = max(GPU.peak[self.index], GPU.used[self.index])
        weakref.finalize(self, Allocation.died, self.home, self.reads, self.recorded, (self.index, size, GPU.life))

    @staticmethod
    def died(homes: list[Stream], used: dict[int, int], recorded: set[int], memory: tuple[int, int, int]) -> None:
        index, size, life = memory
        if GPU.active and GPU.life == life:
            GPU.used[index] -= size
        if GPU.active:
            home = homes[0]
            home.learn(GPU.host.known)
            late = [s for s, n in used.items() if s != home.ptr and s not in recorded and home.known.get(s, 0) < n]
            if late:
                GPU.faults.append(f"a tensor died while stream {late[0]} may still use it; record_stream was not called")

    def touch(self, stream: Stream, write: bool, what: str) -> None:
        assert stream.device.index == self.index, (
            f"{what}: a stream of {stream.device} touches a tensor of cuda:{self.index}"
        )
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
    """A CPU tensor that says it is on a CUDA device."""

    allocation: Allocation | None = None
    index = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.index)

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
        self.active, self.life = False, 0
        self.nvrtc, self.driver = (12, 8), 12080  # CUDA versions: of the compiler, and of the newest that the driver runs
        self.allocations: weakref.WeakValueDictionary[int, Allocation] = weakref.WeakValueDictionary()

    def index_of(self, device: Any) -> int:
        """Of what torch takes for a device; the current one where it names none."""
        if isinstance(device, int):
            return device
        named = torch.device(device).index if device is not None else None
        return self.device if named is None else named

    @property
    def cupy_device(self) -> int | None:
        return getattr(self.own, "device", None)

    @cupy_device.setter
    def cupy_device(self, index: int | None) -> None:
        self.own.device = index

    def current(self, device: Any = None) -> Stream:
        return self.currents[self.index_of(device)]

    def reset(self, devices: int = 1, memory: int = 10 << 30, kind: type[Stream] = NewStream) -> None:
        self.life += 1
        self.host = Timeline()
        self.devices, self.memory, self.device = devices, memory, 0
        self.used, self.peak = [0] * devices, [0] * devices
        self.defaults = [kind(torch.device("cuda", i)) for i in range(devices)]
        self.currents = list(self.defaults)
        self.cupy_current: Stream | None = None
        self.own = threading.local()  # CuPy's current device is each thread's
        self.streams = {s.ptr: s for s in self.defaults}
        for allocation in list(self.allocations.values()):  # of tensors that the package keeps: nothing is under way on them
            allocation.home[:] = [self.defaults[0]]
            allocation.written = None
            allocation.reads.clear()
            allocation.recorded.clear()
        self.faults: list[str] = []
        self.pinned: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()  # by address
        self.pins = 0  # that were ever made
        self.copies: list[tuple[Stream, int, torch.Tensor, torch.Tensor]] = []
        self.arrivals: list[tuple[Stream, int, torch.Tensor, torch.Tensor]] = []  # stream, step, pinned target, what comes
        self.launches: list[str] = []
        self.compiled = 0  # modules

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
            elif not torch.equal(*(t.reshape(-1).view(torch.uint8) for t in (source, held))):  # NaN too
                raise AssertionError("a pinned buffer was changed before the copy out of it had ended")
        self.copies = left

    def synchronize(self, device: Any = None) -> None:
        for stream in list(self.streams.values()):
            if stream.device.index == self.index_of(device):
                self.waited(stream.known)

    def free(self, device: Any = None) -> tuple[int, int]:
        """What torch.cuda.mem_get_info says; 6 GiB are somebody else's."""
        return self.memory - self.used[self.index_of(device)], self.memory + (6 << 30)

    def allocation(self, tensor: torch.Tensor, index: int = 0) -> Allocation | None:
        storage = tensor.untyped_storage()
        base = storage.data_ptr()
        if not base:
            return None
        result = self.allocations.get(base)
        if result is None:
            if storage.nbytes() > self.memory - self.used[index]:
                wanted, free = storage.nbytes(), self.free(index)[0]
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {wanted} bytes, GPU {index} has {free}")
            result = self.allocations[base] = Allocation(base, storage.nbytes(), self.currents[index])
        return result

    def wrap(self, tensor: torch.Tensor, index: int = 0) -> "CudaTensor":
        output = tensor if isinstance(tensor, CudaTensor) else torch.Tensor._make_subclass(CudaTensor, tensor)
        if output.allocation is None:
            output.allocation = self.allocation(output, index)
            output.index = output.allocation.index if output.allocation else index  # of a view, its tensor's
        return output

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
        index = GPU.index_of(kwargs.pop("device")) if to_cuda else 0
        if kwargs.pop("pin_memory", False):
            output = func(*args, **kwargs)
            GPU.pinned[output.untyped_storage().data_ptr()] = output
            GPU.pins += 1
            return output
        if name in ("to", "cuda", "cpu"):
            return self.move(func, name, args, kwargs, to_cuda, index)
        if name == "copy_" and isinstance(args[1], CudaTensor) and not isinstance(args[0], CudaTensor):
            return self.fetch(args[0], args[1], bool(kwargs.get("non_blocking")))
        inputs = list(tensors_in([args, kwargs]))
        ours = [GPU.wrap(t, t.index) for t in inputs if isinstance(t, CudaTensor)]
        if ours and not to_cuda:
            index = ours[0].index
        if any(t.index != index for t in ours) and name not in MIXED:
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cuda:1")
        if ours and name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if ours and name not in MIXED and any(not isinstance(t, CudaTensor) and t.dim() for t in inputs):
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
        with torch._C.DisableTorchFunctionSubclass():
            if ours or to_cuda:
                cuda_operators.refuse(name, args, kwargs)
                result = cuda_operators.compute(name, func, args, kwargs)
            else:
                result = func(*args, **kwargs)
        if not ours and not to_cuda:
            return result
        self.account(name, ours, args, kwargs, result, index)
        return mapped(result, lambda t: GPU.wrap(t, index))

    def account(self, name: str, ours: list[Any], args: Any, kwargs: Any, result: Any, index: int = 0) -> None:
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
                t.allocation.touch(GPU.currents[index], False, name)
        for t in outs:
            if isinstance(t, CudaTensor) and t.allocation is not None:
                t.allocation.touch(GPU.currents[index], True, name)
        for t in fresh:
            wrapped = GPU.allocation(t, index)
            if wrapped is not None:
                wrapped.touch(GPU.currents[index], True, name)
                t._kept = wrapped  # type: ignore[attr-defined]  # until mapped() wraps it
        if name in HOST_READS:
            GPU.waited(GPU.currents[index].known)

    def fetch(self, target: torch.Tensor, source: CudaTensor, non_blocking: bool) -> torch.Tensor:
        """`copy_` of a CUDA tensor into one of the host's; what was not waited for holds anything until somebody has."""
        stream = GPU.currents[source.index]
        if source.allocation is not None:
            source.allocation.touch(stream, False, "copy_")
        with torch._C.DisableTorchFunctionSubclass():
            held = source.as_subclass(torch.Tensor).clone()
            if non_blocking and target.untyped_storage().data_ptr() in GPU.pinned:
                target.view(torch.uint8).fill_(0xA5)
                GPU.arrivals.append((stream, stream.known.get(stream.ptr, 0), target, held))
            else:
                GPU.waited(stream.known)
                target.copy_(held)
        return target

    def move(self, func: Any, name: str, args: Any, kwargs: Any, to_cuda: bool, index: int) -> Any:
        """Tensor.to, .cuda and .cpu."""
        tensor, rest = args[0], list(args[1:])
        ours = isinstance(tensor, CudaTensor)
        cpu = name == "cpu" or any(is_cpu(a) for a in rest) or is_cpu(kwargs.get("device"))
        named = [a for a in rest if is_cuda(a)]
        index = GPU.index_of(named[0]) if named else index if to_cuda or not ours else tensor.index
        to_cuda = to_cuda or name == "cuda" or bool(named)
        rest = [a for a in rest if not (is_cuda(a) or is_cpu(a))]
        kwargs.pop("device", None)
        non_blocking = kwargs.pop("non_blocking", False)
        with torch._C.DisableTorchFunctionSubclass():
            plain = tensor.as_subclass(torch.Tensor)
            moved = plain.to(*rest, **kwargs) if rest or kwargs else plain
        if not (cpu or to_cuda):
            cpu, to_cuda = not ours, ours
        if ours and to_cuda and moved is plain and index == tensor.index:
            return tensor
        came = GPU.currents[tensor.index] if ours else None
        if came and tensor.allocation is not None:
            tensor.allocation.touch(came, False, name)
        with torch._C.DisableTorchFunctionSubclass():
            moved = moved.clone()
        if cpu:
            GPU.waited(GPU.currents[tensor.index if ours else index].known)
            return moved
        stream = GPU.currents[index]
        if came and came is not stream:
            stream.learn(came.known)  # torch has a copy between devices wait on both
        output = GPU.wrap(moved, index)
        if output.allocation is not None:
            output.allocation.touch(stream, True, name)
            if not ours:
                if non_blocking and tensor.untyped_storage().data_ptr() in GPU.pinned:
                    GPU.copies.append((stream, stream.known[stream.ptr], plain, plain.clone()))
                else:
                    GPU.waited(stream.known)
        return output


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
        self.bounds = {name: int(maximum) for maximum, name in BOUNDS.findall(code)}

        def make(out: Any) -> None:
            out.write_bytes(nvrtc.compile_source(code, "module.cu", "sm_80", cubin=True, options=CUPY_OPTIONS))

        cached("standin.cubin", (code, *CUPY_OPTIONS, nvrtc.version()), make)

    def compile(self) -> None:
        assert GPU.cupy_device is not None, "the device is not current"
        GPU.compiled += 1

    def get_function(self, name: str) -> "RawKernel":
        assert GPU.cupy_device is not None, "the device is not current"
        return RawKernel(self, name)


class RawKernel:
    """cupy.RawKernel."""

    def __init__(self, module: RawModule, name: str):
        self.name, self.arguments, self.maximum = name, module.signatures[name], module.bounds.get(name, 1024)
        text = re.sub(r"//[^\n]*", "", module.code)
        declared = re.search(rf"\b{name}\s*\(([^)]*)\)", text[text.index('extern "C"') :])
        assert declared is not None
        self.constant = ["const" in p for p in declared[1].split(",")]

    def __call__(self, grid: Any, block: Any, args: Any) -> None:
        stream = GPU.cupy_current
        assert stream is not None, "no stream is current to CuPy: it would take the null stream"
        assert GPU.cupy_device == stream.device.index, "the stream's device is not current"
        assert isinstance(grid, tuple), "a grid is a tuple"
        assert isinstance(block, tuple), "a block is a tuple"
        assert isinstance(args, tuple)
        assert len(grid) == len(block) == 1
        assert 0 < grid[0] < 2**31
        assert block[0] <= self.maximum, f"{self.name} is bound to {self.maximum} threads, got {block[0]}"
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
        assert 0 <= index < GPU.devices
        self.index = index
        self.before: list[int | None] = []

    def __enter__(self) -> "CupyDevice":
        self.before.append(GPU.cupy_device)
        GPU.cupy_device = self.index
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

        def foreign(given: Any) -> CupyStream:
            protocol, pointer = given.__cuda_stream__()
            assert protocol == 0, "the version of the protocol"
            return CupyStream(pointer)

        stream.from_external = staticmethod(foreign)  # type: ignore[attr-defined]

    def external(pointer: int, device_id: int = -1) -> CupyStream:
        assert version < 14, "cupy.cuda.ExternalStream warns that it is deprecated"
        return CupyStream(pointer)

    compiler = types.SimpleNamespace(getVersion=lambda: GPU.nvrtc)
    runtime = types.SimpleNamespace(driverGetVersion=lambda: GPU.driver)
    module.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        Device=CupyDevice, Stream=stream, ExternalStream=external, nvrtc=compiler, runtime=runtime
    )
    return module


@contextlib.contextmanager
def standin(version: int = 14, *, devices: int = 1, memory: int = 10 << 30, cuda_stream: bool = True) -> Iterator[Gpu]:
    """CUDA devices to torch and to `import cupy`, until the end of the block; faults found late are raised there.

    version      CuPy's
    memory       bytes that are free on each device
    cuda_stream  whether torch's streams tell CuPy what they are, as from 2.10 on
    """
    kind = NewStream if cuda_stream else Stream

    def stream(*args: Any, **kwargs: Any) -> Stream:
        output = kind(*args, **kwargs)
        GPU.streams[output.ptr] = output
        return output

    @contextlib.contextmanager
    def use(s: Stream | None) -> Iterator[None]:
        index = s.device.index if s else GPU.device
        before = GPU.currents[index], GPU.device
        GPU.currents[index], GPU.device = s or GPU.currents[index], index
        try:
            yield
        finally:
            GPU.currents[index], GPU.device = before

    patches: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: devices,
        "get_device_name": lambda device=None: "stand-in",
        "mem_get_info": GPU.free,
        "empty_cache": lambda: None,
        "current_stream": GPU.current,
        "default_stream": lambda device=None: GPU.defaults[GPU.index_of(device)],
        "Stream": stream,
        "Event": Event,
        "stream": use,
        "synchronize": GPU.synchronize,
    }
    before = {name: getattr(torch.cuda, name) for name in patches}
    module = sys.modules.get("cupy")
    GPU.reset(devices, memory, kind)
    GPU.active = True
    try:
        for name, patch in patches.items():
            setattr(torch.cuda, name, patch)
        sys.modules["cupy"] = cupy_module(version)
        with Mode():
            yield GPU
        for index in range(devices):
            GPU.synchronize(index)
        assert not GPU.faults, GPU.faults
    finally:
        GPU.active = False
        for name, old in before.items():
            setattr(torch.cuda, name, old)
        sys.modules.pop("cupy", None)
        if module is not None:
            sys.modules["cupy"] = module
