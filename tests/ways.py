"""Run the same work on every way there is to run a kernel, and ask for the same bits.

How to use it: write `tests/test_<subject>_ways.py` with one test a piece of work, taking the fixture `way`:

    from jumpgpu.device import Device, blocks

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
import hashlib
import os
import select
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from jumpgpu.device import (
    BLOCK,
    C_TYPES,
    NUMPY_TYPES,
    Argument,
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
COMMON = "-w -std=c++17 -ffp-contract=off -fPIC -fvisibility=hidden -pthread"
# Flags of a kernel file, and those of the runtime (pool.cpp or fibers.cpp), which as fibers must not be instrumented.
FLAVOURS = {
    "serial": (f"{COMMON} -O2", f"{COMMON} -O2"),
    "fibers": (f"{COMMON} -O1 -DJG_FIBERS", f"{COMMON} -O2 -DJG_FIBERS"),
    "tsan": (f"{COMMON} -O1 -g -fsanitize=thread", f"{COMMON} -O1 -g -fsanitize=thread"),
    "tsan-fibers": (f"{COMMON} -O1 -g -fsanitize=thread -DJG_FIBERS", f"{COMMON} -O2 -DJG_FIBERS"),
    "asan": (
        f"{COMMON} -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        f"{COMMON} -O1 -g -fsanitize=address",
    ),
}
ARCHITECTURE = "compute_80"

Work = Callable[[Device], Any]


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


@cache
def compiler() -> tuple[str, str]:
    """The C++ compiler and what it says of itself."""
    command = os.environ.get("CXX", "c++")
    return command, subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout


def cached(name: str, parts: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """A file in build/ways/ that is named by the digest of all it is made from; made only if it is not there."""
    stem, dot, suffix = name.rpartition(".")
    out = BUILD / f"{stem}-{digest(*parts)}{dot}{suffix}"
    if not out.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f"{out.name}.{os.getpid()}.part")
        make(part)
        part.replace(out)
    return out


def run_compiler(what: str, *arguments: str) -> None:
    done = subprocess.run([compiler()[0], *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} does not compile:\n{done.stderr[:4000]}")


def headers(folder: Path) -> str:
    return "\0".join(p.read_text() for p in sorted(folder.rglob("*")) if p.suffix in {".cuh", ".h"})


def build(path: Path, flavour: str) -> Path:
    """The library of one .cu file in one flavour."""
    flags, runtime_flags = FLAVOURS[flavour]
    folder = path.parent
    runtime = folder / "host" / ("fibers.cpp" if "-DJG_FIBERS" in flags else "pool.cpp")
    shared = (headers(folder), *compiler())

    def make_runtime(out: Path) -> None:
        run_compiler(runtime.name, *runtime_flags.split(), "-c", str(runtime), "-o", str(out))

    def make(out: Path) -> None:
        made = cached(f"{runtime.stem}-{flavour}.o", (runtime.read_text(), runtime_flags, *shared), make_runtime)
        run_compiler(
            f"{path.name} ({flavour})",
            *flags.split(),
            "-shared",
            "-I",
            str(folder),
            "-x",
            "c++",
            str(path),
            "-x",
            "none",
            str(made),
            "-o",
            str(out),
        )

    return cached(f"{path.stem}-{flavour}.so", (path.read_text(), runtime.read_text(), flags, runtime_flags, *shared), make)


def ptx(path: Path) -> str:
    """What NVRTC makes of one .cu file."""
    source = full_source(path)

    def make(out: Path) -> None:
        out.write_bytes(nvrtc.compile_source(source, path.name, ARCHITECTURE))

    return cached(f"{path.stem}.ptx", (source, ARCHITECTURE, nvrtc.version()), make).read_text()


class HostDevice(CpuDevice):
    """A host build of each kernel file by itself, in this process."""

    def __init__(self, flavour: str, block: int | None = None, seed: int = 0, workers: int = 1):
        self.name, self.flavour, self.block, self.seed, self.workers = "cpu", flavour, block, seed, workers
        self.torch = torch.device("cpu")
        self.description = f"{flavour}, block {block}, seed {seed}"
        self._bound = {}

    def _bind(self, kernel: str) -> Any:
        if kernel not in self._bound and kernel in kernel_sources():
            self.library = ctypes.CDLL(str(build(kernel_sources()[kernel][0], self.flavour)))
        return super()._bind(kernel)

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        super().launch(kernel, grid, block=self.block or block, **values)


class Driver:
    """A process that has a sanitizer in it from the start and launches kernels for us (host_driver.cpp)."""

    LIMIT_S = 120

    def __init__(self, sanitizer: str):
        source = Path(__file__).with_name("host_driver.cpp")
        flag = f"-fsanitize={sanitizer}"

        def make(out: Path) -> None:
            run_compiler(
                source.name, "-O1", "-g", "-std=c++17", flag, str(source), "-rdynamic", "-ldl", "-pthread", "-o", str(out)
            )

        program = cached(f"driver-{sanitizer}.exe", (source.read_text(), flag, *compiler()), make)
        options = {
            "TSAN_OPTIONS": "exitcode=0 atexit_sleep_ms=0 report_bugs=1",
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.memory = tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)  # noqa: SIM115
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env={**os.environ, **options}
        )
        weakref.finalize(self, self.process.kill)

    def ask(self, request: str) -> str:
        """The answer to one request; AssertionError with the sanitizer's report where there is one."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(request.encode() + b"\n")
        stdin.flush()
        answered, _, _ = select.select([stdout], [], [], self.LIMIT_S)
        answer = stdout.readline().decode().strip() if answered else f"nothing for {self.LIMIT_S} s"
        if answer != "0 ok":
            self.process.kill()
            self.process.wait()
            self.errors.seek(0)
            report = self.errors.read().decode(errors="replace")[:6000]
            raise AssertionError(f"{request.split()[1]}: {answer or 'the process ended'}\n{report}")
        return answer


class DriverDevice(Device):
    """A host build under a sanitizer, launch by launch in a process of its own; a report is an error."""

    _drivers: ClassVar[dict[str, Driver]] = {}

    def __init__(self, flavour: str, block: int, seed: int = 0, workers: int = 1):
        self.name, self.flavour, self.block, self.seed, self.workers = "cpu", flavour, block, seed, workers
        self.torch = torch.device("cpu")
        self.description = f"{flavour}, block {block}, seed {seed}"

    def _driver(self) -> Driver:
        sanitizer = "thread" if self.flavour.startswith("tsan") else "address,undefined"
        if sanitizer not in self._drivers or self._drivers[sanitizer].process.poll() is not None:
            self._drivers[sanitizer] = Driver(sanitizer)
        return self._drivers[sanitizer]

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        path, arguments = find(kernel, values)
        storages: dict[int, tuple[int, np.ndarray]] = {}  # by address: a number and the bytes
        words = []
        for a in arguments:
            value = values[a.name]
            if not a.pointer:
                words.append(f"v{bytes(C_TYPES[a.dtype](value))[::-1].hex()}")
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


def find(kernel: str, values: dict[str, Any]) -> tuple[Path, tuple[Argument, ...]]:
    """The file and the parameters of a kernel that is given these arguments."""
    if kernel not in kernel_sources():
        raise ValueError(f"unknown kernel {kernel!r}")
    path, arguments = kernel_sources()[kernel]
    check_names(kernel, arguments, values)
    return path, arguments


class PtxDevice(Device):
    """The kernel's PTX in the interpreter; a finding of its checks is an error."""

    def __init__(self, block: int):
        self.name, self.block, self.torch, self.description = "cpu", block, torch.device("cpu"), f"ptx, block {block}"

    def launch(self, kernel: str, grid: int, *, block: int = BLOCK, **values: Any) -> None:
        path, arguments = find(kernel, values)
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
        elif self.name == "tsan":
            for block, seed in ((64, 1), (128, 5)):
                yield DriverDevice("tsan-fibers", block, seed)
            yield DriverDevice("tsan", 1, workers=3)
        elif self.name == "asan":
            yield DriverDevice("asan", 1)
        elif self.name == "ptx":
            for block in PTX_BLOCKS:
                yield PtxDevice(block)

    def check(self, work: Work) -> None:
        """Run the work in this way and on the serial build; AssertionError where bits differ or a check finds something."""
        want = work(HostDevice("serial"))
        for device in self.devices():
            assert_equal_bits(work(device), want, device.description)
