"""Every kernel under the oldest and newest compilers, and what the package asks of CuPy under its oldest and newest release.

`make compilers` brings them into build/nvrtc and build/cupy (no GPU is needed); what is absent there is skipped by name.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

OF_12 = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")  # Blackwell from 12.8 on
TARGETS = {"12.0": ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90"), "12.8": OF_12, "12.9": OF_12}
NVRTC = sorted((CHECKOUT / "build" / "nvrtc").glob("*/nvidia/*/lib/libnvrtc.so*"))
CUPY = sorted((CHECKOUT / "build" / "cupy").glob("*/cupy"))

COMPILE = """
import ctypes, os, sys
from concurrent.futures import ThreadPoolExecutor
from jumpgpu.gpu.kernel_source import full_source, kernel_sources
from tests.simulators.builds import CUPY_OPTIONS
from tests.simulators.ptx import nvrtc

library = ctypes.CDLL(sys.argv[1])
nvrtc.library = lambda: library
print(nvrtc.version())
files = sorted({path for path, _ in kernel_sources().values()})
jobs = [(path, target) for path in files for target in sys.argv[2:]]
with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    more = {"cubin": True, "options": CUPY_OPTIONS}
    for made in pool.map(lambda j: nvrtc.compile_source(full_source(j[0]), j[0].name, j[1], **more), jobs):
        assert made[:4] == b"\\x7fELF"
print(len(jobs))
"""

ASK = """
import inspect, cupy
from jumpgpu.gpu.cuda import CUDA_OPTIONS, _TorchStream
print(cupy.__version__)
module = cupy.RawModule(code="", options=CUDA_OPTIONS)
for name in ("get_function", "compile"):
    assert callable(getattr(module, name)), name
assert {"num_regs", "local_size_bytes"} <= set(dir(cupy.RawKernel))
assert hasattr(cupy.cuda.Device, "__enter__")
assert callable(cupy.cuda.nvrtc.getVersion)
assert callable(cupy.cuda.runtime.driverGetVersion)
if hasattr(cupy.cuda.Stream, "from_external"):
    assert _TorchStream(5).__cuda_stream__() == (0, 5)
else:
    import warnings
    warnings.simplefilter("error")
    cupy.cuda.ExternalStream(0, 0)
assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
"""


def run(source: str, *arguments: str, path: str = "") -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, str(CHECKOUT)]))}
    command = [sys.executable, "-c", source, *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("library", NVRTC or [None], ids=lambda p: p.parents[3].name if p else "none")
def test_every_kernel_compiles_by(library: Path | None):
    """With CuPy's own options, for the targets that the version knows."""
    if library is None:
        pytest.skip("no other NVRTC: make compilers")
    version = library.parents[3].name
    targets = TARGETS[".".join(version.split(".")[:2])]
    said, jobs = run(COMPILE, str(library), *targets)
    assert version.startswith(said)
    assert int(jobs) >= 40 * len(targets)


@pytest.mark.parametrize("folder", CUPY or [None], ids=lambda p: p.parent.name if p else "none")
def test_cupy_has_what_is_asked_of_it(folder: Path | None):
    if folder is None:
        pytest.skip("no CuPy: make compilers")
    assert run(ASK, path=str(folder.parent))[0] == folder.parent.name
