"""Run the same work on every way there is to run a kernel, and ask for the same bits.

How to use it: write `tests/ways/test_<subject>.py` with one test a piece of work, taking the fixture `way`:

    from jumpgpu.gpu.device import Device, blocks

    def test_gather_values_same_in_all_ways(way):
        pixels = torch.from_numpy(np.random.default_rng(0).random((2, 3, 5, 7), np.float32))
        ...
        def work(device: Device) -> torch.Tensor:      # or a tuple, dict or dataclass of tensors
            values = device.empty(3, 40, dtype=torch.float32)
            device.launch("gather_values", blocks(40), pixels=device.tensor(pixels), ..., values=values)
            return values

        way.check(work)

`work` runs once on the serial build, which gives the expected bits, then as often as the way wants:

    fibers   block sizes 32, 64, 128, 256 with six schedules each, several blocks interleaved
    tsan     ThreadSanitizer: the fibers, each a thread to it, at two block sizes; and the serial build on three threads
    asan     AddressSanitizer and UndefinedBehaviorSanitizer on the serial build
    ptx      what NVRTC makes of it, interpreted at block sizes 32, 128, 256
    cuda     a GPU, with `-m gpu` only

One way alone: `pytest -k fibers`. Keep the work small (a few hundred to some thousand pixels, 2 fields, odd sizes): the
interpreter runs some 100,000 thread instructions a second. A way changes the `block` a launch asked for. Whole functions
(`segment`, `measure`) may be the work.

Each .cu file is built by itself, cached in build/ways/ by the digest of all that went in, so that a kernel that does not
compile stops no other test.
"""

import ctypes
import dataclasses
import os
import re
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.cuda import CudaDevice
from jumpgpu.gpu.device import BLOCK, Device
from jumpgpu.gpu.kernel_source import C_TYPES, Argument, check_names, check_scalar, check_tensor, full_source, kernel_sources
from jumpgpu.gpu.open import open_device
from tests.simulators.builds import build, digest, ptx
from tests.simulators.driver import Driver
from tests.simulators.ptx.launch import Kernel

FIBER_BLOCKS, FIBER_SEEDS, PTX_BLOCKS = (32, 64, 128, 256), range(6), (32, 128, 256)
BLOCKS_OF = {"production": (None,), "others": (32, 64, 128)}  # of the cuda way: each launch's own, then these
CUDA_BLOCKS = tuple(
    b for name in os.environ.get("JUMPGPU_WAYS_BLOCKS", "production,others").split(",") for b in BLOCKS_OF[name]
)
POISON = 0xA5

Work = Callable[[Device], Any]


def find(kernel: str, values: dict[str, Any]) -> tuple[Path, tuple[Argument, ...]]:
    """The file and the parameters of a kernel that is given these arguments."""
    if kernel not in kernel_sources():
        raise ValueError(f"unknown kernel {kernel!r}")
    path, arguments = kernel_sources()[kernel]
    check_names(kernel, arguments, values)
    return path, arguments


class HostDevice(CpuDevice):
    """A host build of each kernel file by itself, in this process."""

    def __init__(self, flavour: str, block: int | None = None, seed: int = 0, workers: int = 1):
        self.name, self.flavour, self.block, self.seed, self.workers = "cpu", flavour, block, seed, workers
        self.torch = torch.device("cpu")
        self.description = f"{flavour}, block {block}, seed {seed}"
        self._bound = threading.local()

    def _bind(self, kernel: str) -> Any:
        if kernel not in vars(self._bound) and kernel in kernel_sources():
            self.library = ctypes.CDLL(str(build(kernel_sources()[kernel][0], self.flavour)))
        return super()._bind(kernel)

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        super().launch(kernel, grid, block=self.block or block, **values)


class DriverDevice(Device):
    """A host build under a sanitizer, launch by launch in a process of its own; a report is an error."""

    _drivers: ClassVar[dict[str, Driver]] = {}

    def __init__(self, flavour: str, block: int, seed: int = 0, workers: int = 1):
        self.name, self.flavour, self.block, self.seed, self.workers = "cpu", flavour, block, seed, workers
        self.torch = torch.device("cpu")
        self.description = f"{flavour}, block {block}, seed {seed}"

    def _driver(self) -> Driver:
        sanitizer = "thread" if self.flavour.startswith("tsan") else "address,undefined"
        if sanitizer in self._drivers and self._drivers[sanitizer].full:
            self._drivers.pop(sanitizer).close()
        if sanitizer not in self._drivers:
            self._drivers[sanitizer] = Driver(sanitizer)
        return self._drivers[sanitizer]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        path, arguments = find(kernel, values)
        storages: dict[int, tuple[int, np.ndarray]] = {}  # by address: a number and the bytes
        words = []
        for a in arguments:
            value = values[a.name]
            if not a.pointer:
                words.append(f"v{bytes(C_TYPES[a.dtype](check_scalar(kernel, a, value)))[::-1].hex()}")
                continue
            address = check_tensor(kernel, a, value, self.torch)
            storage = value.untyped_storage()
            base = storage.data_ptr()
            if base not in storages:
                bytes_ = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
                storages[base] = len(storages), bytes_
            words.append(f"p{storages[base][0]}+{address - base}")
        if not grid:
            return
        library = build(path, self.flavour)
        driver = self._driver()
        starts, total = {}, 0
        for base, (_, bytes_) in storages.items():
            starts[base] = total
            total += -(-bytes_.size // 64) * 64
        driver.memory.truncate(total)
        whole = np.memmap(driver.memory.name, np.uint8, "r+", shape=(total,)) if total else np.empty(0, np.uint8)
        for base, (_, bytes_) in storages.items():
            whole[starts[base] : starts[base] + bytes_.size] = bytes_
        sizes = " ".join(str(bytes_.size) for _, bytes_ in storages.values())
        numbers = f"{grid} {self.block} {self.workers} {self.seed}"
        driver.ask(f"{library} {kernel} {numbers} {driver.memory.name} {sizes} ; {' '.join(words)}")
        for base, (_, bytes_) in storages.items():
            bytes_[:] = whole[starts[base] : starts[base] + bytes_.size]


@cache
def ptx_kernel(path: Path, digest: str, name: str) -> Kernel:
    return Kernel(ptx(path), name)


class PtxDevice(Device):
    """The kernel's PTX in the machine of ptx/; a finding of its checks is an error."""

    def __init__(self, block: int, seed: int = 0):
        self.name, self.block, self.seed = "cpu", block, seed
        self.torch = torch.device("cpu")
        self.description = f"ptx, block {block}"
        self.empties: dict[int, int] = {}  # storages that `empty` made: address and bytes

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Filled with a pattern, by which a launch knows what nobody has written yet."""
        output = super().empty(*shape, dtype=dtype)
        storage = output.untyped_storage()
        if storage.nbytes():
            storage.fill_(POISON)
            self.empties[storage.data_ptr()] = storage.nbytes()
        return output

    def defined(self, value: torch.Tensor) -> np.ndarray | None:
        """A flag a byte for a tensor that `empty` made; None for others, all of which is defined."""
        storage = value.untyped_storage()
        if value.dtype.itemsize < 4 or self.empties.get(storage.data_ptr()) != storage.nbytes():
            return None
        elements = value.numpy().reshape(-1).view(f"u{value.dtype.itemsize}")
        pattern = int.from_bytes(bytes([POISON]) * value.dtype.itemsize, "little")
        return np.repeat((elements != pattern).astype(np.uint8), value.dtype.itemsize)

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        path, arguments = find(kernel, values)
        packed, arrays, defined = [], [], []
        for a in arguments:
            value = values[a.name]
            if a.pointer:
                packed.append(check_tensor(kernel, a, value, self.torch))
                arrays.append(value.numpy())
                defined.append(self.defined(value))
            else:
                packed.append(int.from_bytes(bytes(C_TYPES[a.dtype](check_scalar(kernel, a, value))), "little"))
        if grid:
            output = ptx_kernel(path, digest(full_source(path)), kernel)
            run = output.run(grid, self.block, packed, arrays, defined=defined, seed=self.seed)
            assert not run.findings, "\n".join([f"{kernel}, block {self.block}:", *map(str, run.findings[:12])])


def leaves(value: Any, name: str = "result") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a result, with its place in it."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], f"{name}[{key!r}]")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{name}[{i}]")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{name}.{field.name}")


def assert_equal_bits(got: Any, want: Any, label: str) -> None:
    """Equal shapes, dtypes and bits of every tensor; any NaN equals any NaN."""
    ours, theirs = dict(leaves(got)), dict(leaves(want))
    assert theirs, "the work returned no tensor"
    assert ours.keys() == theirs.keys(), label
    for name, b in theirs.items():
        a = ours[name].cpu()
        b = b.cpu()
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{label}: {name}"
        x, y = a.contiguous().numpy(), b.contiguous().numpy()
        bits = f"u{x.dtype.itemsize}"
        same = x.view(bits) == y.view(bits) if x.ndim else x.reshape(1).view(bits) == y.reshape(1).view(bits)
        if x.dtype.kind == "f":
            same |= np.isnan(x) & np.isnan(y)
        if not same.all():
            at = tuple(int(i) for i in np.argwhere(~same)[0]) if x.ndim else ()
            raise AssertionError(
                f"{label}: {name} differs in {(~same).sum()} of {same.size}; first at {at}: {x[at]!r}, serial has {y[at]!r}"
            )


@cache
def max_threads(kernel: str) -> int:
    """Of a block: what the kernel's __launch_bounds__ allow."""
    text = re.sub(r"//[^\n]*", "", kernel_sources()[kernel][0].read_text())
    result = re.search(rf"__launch_bounds__\((\d+)[^)]*\)\s*{kernel}\s*\(", text)
    return int(result[1]) if result else 1024


class GpuDevice(CudaDevice):
    """A GPU, with a block size of ours where the kernel allows it; each launch's own where that is None."""

    def __init__(self, block: int | None):
        super().__init__()
        self.block = block
        self.description += f", block {block or 'as in production'}"

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        super().launch(kernel, grid, block=min(self.block or block, max_threads(kernel)), **values)


class Way:
    """One way to run kernels, as the fixture `way` hands it to a test."""

    checked: ClassVar[dict[str, set[str]]] = {}  # kernels that passed, by way

    def __init__(self, name: str):
        self.name = name

    def devices(self) -> Iterator[Device]:
        if self.name == "fibers":
            for block in FIBER_BLOCKS:
                for seed in FIBER_SEEDS:
                    yield HostDevice("fibers", block, seed)
        elif self.name == "tsan":
            for block, seed in ((64, 1), (128, 5)):
                yield DriverDevice("tsan-fibers", block, seed)
            yield DriverDevice("tsan", 128, workers=3)
        elif self.name == "asan":
            yield DriverDevice("asan", 128)
        elif self.name == "ptx":
            for block in PTX_BLOCKS:
                yield PtxDevice(block)
        elif self.name == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError("the cuda way was asked for and no CUDA device is visible")
            for block in CUDA_BLOCKS:
                yield GpuDevice(block)

    def check(self, work: Work, want: Any = None) -> None:
        """Run the work in this way and on the serial build; AssertionError where bits differ or a check finds something.

        `want` is what to expect where the serial build is not to be asked.
        """
        if want is None:
            want = work(open_device("cpu") if self.name == "cuda" else HostDevice("serial"))
        launched: set[str] = set()
        for device in self.devices():
            launch = device.launch

            def note(kernel: str, *arguments: Any, launch: Any = launch, **values: Any) -> None:
                launched.add(kernel)
                launch(kernel, *arguments, **values)

            device.launch = note  # type: ignore[method-assign]
            assert_equal_bits(work(device), want, device.description)
        self.checked.setdefault(self.name, set()).update(launched)
