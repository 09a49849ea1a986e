"""What the compiler says of every kernel for each architecture: registers, spills, stack, shared memory; and occupancy.

NVRTC compiles as CuPy asks it to, and its log is ptxas's own. Occupancy is by NVIDIA's calculator, the header
cuda_occupancy.h of the wheel nvidia-cuda-runtime (extra `test`) or of a toolkit in /usr/local or CUDA_HOME.
"""

import ctypes
import importlib.util
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.gpu_model.devices import Gpu
from jumpgpu.gpu.kernel_source import full_source, kernel_folder
from tests.simulators.builds import CUPY_OPTIONS, cached, compiler, run_compiler
from tests.simulators.ptx import nvrtc

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100")


@dataclass(frozen=True)
class Resources:
    """A kernel's, for one architecture: registers a thread, bytes of stack and spills a thread, bytes of shared memory."""

    registers: int
    stack: int
    spills: int
    shared: int


ENTRY = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers([^\n]*)",
    re.S,
)


def read_log(log: str) -> dict[str, Resources]:
    """Resources by kernel from what `ptxas -v` writes; spills are the sum of both kinds."""
    result = {}
    for name, stack, stores, loads, registers, rest in ENTRY.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        result[name] = Resources(int(registers), int(stack), int(stores) + int(loads), int(shared[1]) if shared else 0)
    return result


@cache
def resources(path: Path, architecture: str) -> dict[str, Resources]:
    """Resources of every kernel of a .cu file."""
    source = full_source(path)

    def make(out: Path) -> None:
        out.write_text(nvrtc.compiler_log(source, path.name, architecture, options=CUPY_OPTIONS))

    parts = (source, architecture, *CUPY_OPTIONS, nvrtc.version())
    return read_log(cached(f"{path.stem}-{architecture}.log", parts, make).read_text())


def all_resources(architecture: str) -> dict[str, Resources]:
    """Every kernel's."""
    result: dict[str, Resources] = {}
    for path in sorted(kernel_folder().rglob("*.cu")):
        result |= resources(path, architecture)
    return result


def header_folder() -> Path:
    """Where cuda_occupancy.h is; FileNotFoundError where it is not."""
    spec = importlib.util.find_spec("nvidia")
    folders = [p for f in (spec.submodule_search_locations or () if spec else ()) for p in Path(f).glob("*/include")]
    folders += [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include", *Path("/usr/local").glob("cuda*/include")]
    for folder in folders:
        if (folder / "cuda_occupancy.h").is_file():
            return folder
    raise FileNotFoundError("no cuda_occupancy.h: pip install 'jumpgpu[test]' brings the wheel nvidia-cuda-runtime")


@cache
def calculator() -> ctypes.CDLL:
    source = Path(__file__).with_name("occupancy.cpp")
    folder = header_folder()

    def make(out: Path) -> None:
        run_compiler(source.name, "-w", "-O2", "-std=c++17", "-fPIC", "-shared", f"-I{folder}", str(source), "-o", str(out))

    header = (folder / "cuda_occupancy.h").read_text(errors="replace")
    return ctypes.CDLL(str(cached("occupancy.so", (source.read_text(), header, *compiler()), make)))


def blocks_per_sm(gpu: Gpu, needs: Resources, block: int) -> int:
    """Blocks of so many threads that run on an SM at once; ValueError where not one does."""
    given = (*gpu.capability, gpu.threads, gpu.shared, gpu.shared_block, gpu.sms, needs.registers, needs.shared, block)
    result = calculator().blocks_per_sm(*given)
    if result < 1:
        raise ValueError(f"a block of {block} threads with {needs} does not run on {gpu.name}")
    return int(result)
