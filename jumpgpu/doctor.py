"""`python -m jumpgpu.doctor`: what this machine has for jumpgpu, and what to install."""

import argparse
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

GOOD, POOR, BAD = "ok", "note", "MISSING"
PROBE = 1 << 26  # bytes written to tell the disk's speed
EXTRAS = {  # package -> what it is for, and how to have it
    "copairs": ("mean average precision", "pip install 'jumpgpu[map]'"),
    "polars": ("StoredPlate.to_polars", "pip install polars"),
    "distributed": ("--workers and --scheduler", "pip install 'jumpgpu[cluster]'"),
    "harmonypy": ("the jump-production recipe's Harmony step", "pip install 'jumpgpu[harmony]'"),
}


def findings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(state, subject, what was found), best first to look at."""
    yield GOOD, "python", sys.version.split()[0]
    yield from host_library()
    yield from gpu()
    yield from codecs()
    for package, (use, install) in EXTRAS.items():
        try:
            yield GOOD, package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield POOR, package, f"not installed: needed for {use}; {install}"
    yield from disk(folder)


def host_library() -> Iterator[tuple[str, str, str]]:
    from . import device

    try:
        yield GOOD, "host library", f"{device.open_device('cpu').description}"
    except (RuntimeError, ValueError, OSError) as error:
        yield BAD, "host library", str(error)
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    yield GOOD, "C++ compiler", compiler or "none; the wheel needs none, a checkout does"


def gpu() -> Iterator[tuple[str, str, str]]:
    import torch

    if not torch.cuda.is_available():
        built = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else "torch is a CPU build"
        )
        yield POOR, "GPU", f"none visible ({built}); device='cpu' runs the same kernels"
        return
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield GOOD, f"GPU {index}", f"{found.name}, sm_{found.major}{found.minor}, {found.total_memory / 2**30:.0f} GiB"
    try:
        yield GOOD, "CuPy", importlib.import_module("cupy").__version__
    except ImportError as error:
        yield BAD, "CuPy", f"{error}; pip install 'jumpgpu[cuda]'"


def codecs() -> Iterator[tuple[str, str, str]]:
    import imagecodecs

    for name in ("LZW", "DEFLATE"):
        there = getattr(imagecodecs, name).available
        yield (
            (GOOD if there else BAD),
            f"TIFF {name}",
            "imagecodecs " + imagecodecs.__version__ if there else "not in imagecodecs",
        )


def disk(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Free space, and the speed of a synced write."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            file.write(b"\0" * PROBE)
            file.flush()
            os.fsync(file.fileno())
            speed = PROBE / (time.perf_counter() - start) / 1e6
        free = shutil.disk_usage(folder).free / 2**30
        yield (GOOD if free > 5 else POOR), f"disk {folder}", f"{free:.0f} GiB free, {speed:.0f} MB/s written and synced"
    except OSError as error:
        yield BAD, f"disk {folder}", str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when jumpgpu can run here, 2 when something that it needs is missing."""
    parser = argparse.ArgumentParser(prog="python -m jumpgpu.doctor", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("."), help="folder that plates would be written to [.]")
    options = parser.parse_args(arguments)
    missing = False
    for state, subject, found in findings(options.output):
        print(f"{state:8} {subject:14} {found}")
        missing |= state == BAD
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
