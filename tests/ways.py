"""Run the same work on every way there is to run a kernel, and ask for the same bits.

How to use it: write `tests/test_<subject>_ways.py` with one test a piece of work, taking the fixture `way`:

    from jumpgpu.device import Device, blocks

    def test_gather_values_same_in_all_ways(way):
        pixels = torch.from_numpy(np.random.default_rng(0).random((2, 3, 5, 7), np.float32))
        ...
        def work(device: Device) -> torch.Tensor:          # or a tuple, dict or dataclass of tensors; or features.x.measure itself
            values = device.empty(3, 40, dtype=torch.float32)
            device.launch("gather_values", blocks(40), pixels=device.tensor(pixels), ..., values=values)
            return values

        way.check(work)

`work` runs once on the serial build, which gives the expected bits, then as often as the way wants: `fibers` (block sizes 32, 64,
128, 256 with six seeds each), `threads` (ThreadSanitizer), `sanitizers` (AddressSanitizer and UBSan on the serial build), `ptx`
(what NVRTC makes of it, interpreted at block sizes 32, 128, 256) and, with `-m gpu` only, `cuda`. One way alone: `pytest -k fibers`.
Keep the work small (a few hundred to some thousand pixels, 2 fields, odd sizes): the interpreter runs some 100,000 thread
instructions a second. A way changes the `block` a launch asked for. Whole functions (`segment`, `measure`) may be the work.

Each .cu file is built by itself, cached in build/ways/ by the digest of all that went in, so that a kernel that does not compile stops
no other test.
"""

import ctypes
import dataclasses
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jumpgpu.device import (
    NUMPY_TYPES,
    CpuDevice,
    Device,
    check_names,
    check_tensor,
    full_source,
    kernel_sources,
)
from tests.ptx import nvrtc
from tests.ptx.simulator import Sim

BUILD = Path(__file__).resolve().parents[1] / "build" / "ways"
FIBER_BLOCKS, FIBER_SEEDS, PTX_BLOCKS = (32, 64, 128, 256), range(6), (32, 128, 256)
COMMON = "-x c++ -w -ffp-contract=off -fPIC -shared -fvisibility=hidden -pthread"
FLAGS = {
    "serial": f"{COMMON} -std=c++17 -O2",
    "fibers": f"{COMMON} -std=c++17 -O1 -DJG_FIBERS",
}
ARCHITECTURE = "compute_80"

Work = Callable[[Device], Any]


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def headers(folder: Path) -> str:
    return "\0".join(p.read_text() for p in sorted(folder.rglob("*")) if p.suffix in {".cuh", ".h", ".cpp"})


def build(path: Path, flavour: str) -> Path:
    """The library of one .cu file in one flavour, from the cache or made now."""
    flags = FLAGS[flavour].split()
    out = BUILD / f"{path.stem}-{flavour}-{digest(path.read_text(), headers(path.parent), *flags)}.so"
    if not out.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [os.environ.get("CXX", "c++"), *flags, "-I", str(path.parent), str(path), "-o", str(part)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{path.name} does not compile as {flavour}:\n{done.stderr[:4000]}")
        part.replace(out)
    return out


def ptx(path: Path) -> str:
    """What NVRTC makes of one .cu file, from the cache or made now."""
    source = full_source(path)
    out = BUILD / f"{path.stem}-{digest(source, ARCHITECTURE, nvrtc.version())}.ptx"
    if not out.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(f".{os.getpid()}")
        part.write_bytes(nvrtc.compile_source(source, path.name, ARCHITECTURE))
        part.replace(out)
    return out.read_text()


class HostDevice(CpuDevice):
    """A host build of each kernel file by itself."""

    def __init__(self, flavour: str, block: int | None = None, seed: int = 0, workers: int = 1):
        self.name, self.flavour, self.block, self.seed, self.workers = "cpu", flavour, block, seed, workers
        self.torch = torch.device("cpu")
        self.description = f"{flavour}, block {block}, seed {seed}"
        self._bound = {}

    def _bind(self, kernel: str) -> Any:
        if kernel not in self._bound and kernel in kernel_sources():
            self.library = ctypes.CDLL(str(build(kernel_sources()[kernel][0], self.flavour)))
        return super()._bind(kernel)

    def launch(self, kernel: str, grid: int, *, block: int = 128, **values: Any) -> None:
        super().launch(kernel, grid, block=self.block or block, **values)


class PtxDevice(Device):
    """The kernel's PTX in the interpreter; a finding of its checks is an error."""

    def __init__(self, block: int):
        self.name, self.block, self.torch, self.description = "cpu", block, torch.device("cpu"), f"ptx, block {block}"

    def launch(self, kernel: str, grid: int, *, block: int = 128, **values: Any) -> None:
        if kernel not in kernel_sources():
            raise ValueError(f"unknown kernel {kernel!r}")
        path, arguments = kernel_sources()[kernel]
        check_names(kernel, arguments, values)
        packed, memory = [], {}
        for a in arguments:
            value = values[a.name]
            if a.pointer:
                packed.append(np.uint64(check_tensor(kernel, a, value, self.torch)))
                array = value.numpy()
                if array.size:
                    memory[value.data_ptr(), array.nbytes] = array
            else:
                packed.append(NUMPY_TYPES[a.dtype](value))
        if not grid:
            return
        sim = Sim(ptx(path), kernel, list(memory.values())).launch(grid, self.block, packed)
        assert not sim.found, f"{kernel}, block {self.block}:\n{sim.report()}"


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


class Way:
    """One way to run kernels, as the fixture `way` hands it to a test."""

    def __init__(self, name: str):
        self.name = name

    def devices(self) -> Iterator[Device]:
        if self.name == "fibers":
            for block in FIBER_BLOCKS:
                for seed in FIBER_SEEDS:
                    yield HostDevice("fibers", block, seed)
        elif self.name == "ptx":
            for block in PTX_BLOCKS:
                yield PtxDevice(block)

    def check(self, work: Work) -> None:
        """Run the work in this way and on the serial build; AssertionError where a bit differs or a check finds something."""
        want = work(HostDevice("serial"))
        for device in self.devices():
            assert_equal_bits(work(device), want, device.description)
