"""Libraries and PTX of single kernel files, made when first asked for and kept in build/ways/ by digest."""

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from jumpgpu.gpu.cuda import CUDA_OPTIONS
from jumpgpu.gpu.kernel_source import full_source
from tests.simulators.ptx import nvrtc

BUILD = Path(__file__).resolve().parents[2] / "build" / "ways"
COMMON = "-w -std=c++17 -ffp-contract=off -fPIC -fvisibility=hidden -pthread"
# Flags of a kernel file, and those of the runtime (pool.cpp or fibers.cpp), which as fibers must not be instrumented.
FLAVOURS = {
    "serial": (f"{COMMON} -O3 -fno-math-errno -fno-trapping-math", f"{COMMON} -O2"),
    "fibers": (f"{COMMON} -O1 -DJG_FIBERS", f"{COMMON} -O2 -DJG_FIBERS"),
    "tsan": (f"{COMMON} -O1 -g -fsanitize=thread", f"{COMMON} -O1 -g -fsanitize=thread"),
    "tsan-fibers": (f"{COMMON} -O1 -g -fsanitize=thread -DJG_FIBERS", f"{COMMON} -O2 -DJG_FIBERS"),
    "asan": (
        f"{COMMON} -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        f"{COMMON} -O1 -g -fsanitize=address",
    ),
}
ARCHITECTURE = "compute_80"
CUPY_OPTIONS = (*CUDA_OPTIONS, "-ftz=true")  # CuPy appends this to what it is given


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
        part = out.with_name(f"{out.name}.{os.getpid()}.{threading.get_ident()}.part")
        make(part)
        part.replace(out)
    return out


def run_compiler(what: str, *arguments: str) -> None:
    done = subprocess.run([compiler()[0], *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} does not compile:\n{done.stderr[:4000]}")


def ingredients(path: Path) -> tuple[str, ...]:
    """Everything that a library of one .cu file is made from, flags apart."""
    host = sorted((path.parents[1] / "host").iterdir())
    return full_source(path), *(p.read_text() for p in host), *compiler()


def build(path: Path, flavour: str) -> Path:
    """The library of one .cu file in one flavour."""
    flags, runtime_flags = FLAVOURS[flavour]
    folder = path.parents[1]
    runtime = folder / "host" / ("fibers.cpp" if "-DJG_FIBERS" in flags else "pool.cpp")
    given = ingredients(path)

    def make_runtime(out: Path) -> None:
        run_compiler(runtime.name, *runtime_flags.split(), "-c", str(runtime), "-o", str(out))

    def make(out: Path) -> None:
        output = cached(f"{runtime.stem}-{flavour}.o", (runtime_flags, *given[1:]), make_runtime)
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
            str(output),
            "-o",
            str(out),
        )

    return cached(f"{path.stem}-{flavour}.so", (flags, runtime_flags, *given), make)


def ptx(path: Path) -> str:
    """What NVRTC makes of one .cu file."""
    source = full_source(path)

    def make(out: Path) -> None:
        out.write_bytes(nvrtc.compile_source(source, path.name, ARCHITECTURE, options=CUPY_OPTIONS))

    return cached(f"{path.stem}.ptx", (source, ARCHITECTURE, *CUPY_OPTIONS, nvrtc.version()), make).read_text()
