"""What this machine has for jumpgpu, and what to install: GPU, host library, codecs, disk, memory, optional packages."""

import argparse
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import __version__
from .cli.parser import command_parser

GOOD, POOR, BAD = "ok", "note", "MISSING"
PROBE = 1 << 26  # bytes written to tell the disk's speed
FIELD_MB = 12  # of a field of five channels as it is read, LZW
LITTLE_MEMORY = 4 << 30
CODECS = ("NONE", "LZW", "DEFLATE", "ZSTD", "PACKBITS")  # what images may be compressed by
EXTRAS = {  # package -> what it is for, and how to have it
    "copairs": ("mean average precision", "pip install 'jumpgpu[map]'"),
    "harmonypy": ("the jump-production recipe's Harmony step", "pip install 'jumpgpu[harmony]'"),
    "polars": ("StoredPlate.to_polars", "pip install polars"),
    "distributed": ("--workers and --scheduler", "pip install 'jumpgpu[cluster]'"),
}

Finding = tuple[str, str, str]  # state, subject, what was found


def findings(folder: Path, ask_gallery: bool = False) -> Iterator[Finding]:
    """What was found, subject by subject; the network is used only where the gallery is to be asked."""
    yield GOOD, "jumpgpu", f"{__version__}, Python {sys.version.split()[0]}, {sys.platform}"
    yield processors()
    yield memory()
    yield from host_library()
    yield from gpu()
    yield codecs()
    yield from extras()
    yield from disk(folder)
    if ask_gallery:
        yield gallery()


def gallery() -> Finding:
    """Whether the Cell Painting Gallery can be listed from here, and how long a request takes."""
    from .images.gallery import GALLERY, PROJECTS, reach

    start = time.perf_counter()
    try:
        there = list(reach())
    except (OSError, ValueError, RuntimeError) as error:
        return POOR, "gallery", f"{error}; --images FOLDER reads images on this machine"
    took = time.perf_counter() - start
    if missing := [project for project in PROJECTS if project not in there]:
        return POOR, "gallery", f"{GALLERY} answers in {took:.1f} s, and has no {missing[0]}"
    return GOOD, "gallery", f"{GALLERY} answers in {took:.1f} s: {', '.join(there)}"


def processors() -> Finding:
    from .gpu.machine import usable_cores

    return GOOD, "processors", f"{usable_cores()} usable of {os.cpu_count()}"


def memory() -> Finding:
    """Free memory, and a container's limit where there is one."""
    from .gpu.machine import free_memory

    free = free_memory()
    text = f"{free / 2**30:.1f} GiB free"
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit.isdigit():
            text += f", limit {int(limit) / 2**30:.1f} GiB"
            free = min(free, int(limit))
    except OSError:
        pass
    if free < LITTLE_MEMORY:
        return POOR, "memory", f"{text}; give extract a smaller --batch if it runs out"
    return GOOD, "memory", text


def host_library() -> Iterator[Finding]:
    from .gpu import open as devices

    try:
        yield GOOD, "host library", f"{devices.open_device('cpu').description}"
    except (RuntimeError, ValueError, OSError) as error:
        yield BAD, "host library", str(error)
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    yield GOOD, "C++ compiler", compiler or "none; the wheel needs none, a checkout does"


def gpu() -> Iterator[Finding]:
    """GPUs as torch sees them, the CUDA that torch was built for, and CuPy."""
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    yield GOOD, "torch", f"{torch.__version__}, {built}"
    try:
        cupy = f"CuPy {importlib.import_module('cupy').__version__}"
    except ImportError as error:
        cupy = f"{error}; pip install 'jumpgpu[cuda]'"
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi")
        reason = "nvidia-smi is there, so torch may be the CPU build or too new for the driver" if driver else "no driver"
        yield POOR, "GPU", f"none visible ({reason}); --device cpu runs the same kernels"
        return
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        free = torch.cuda.mem_get_info(index)[0] / 2**30
        size = f"{found.total_memory / 2**30:.0f} GiB, {free:.0f} free"
        yield GOOD, f"GPU {index}", f"{found.name}, sm_{found.major}{found.minor}, {size}"
    yield (GOOD if cupy.startswith("CuPy") else BAD), "CuPy", cupy


def codecs() -> Finding:
    """What TIFF compressions can be read."""
    import imagecodecs

    missing = [name for name in CODECS if not getattr(imagecodecs, name).available]
    found = f"imagecodecs {imagecodecs.__version__}: {', '.join(n for n in CODECS if n not in missing)}"
    if missing:
        return BAD if "LZW" in missing else POOR, "TIFF codecs", f"{found}; not {', '.join(missing)}"
    return GOOD, "TIFF codecs", found


def extras() -> Iterator[Finding]:
    for package, (use, install) in EXTRAS.items():
        try:
            yield GOOD, package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield POOR, package, f"not installed: needed for {use}; {install}"


def disk(folder: Path) -> Iterator[Finding]:
    """Free space, and the speed of a synced write and of reading it back (which the system's cache may speed up)."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            data = os.urandom(1 << 20) * (PROBE >> 20)
            start = time.perf_counter()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            written = PROBE / (time.perf_counter() - start) / 1e6
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            file.seek(0)
            while file.read(1 << 20):
                pass
            read = PROBE / (time.perf_counter() - start) / 1e6
        free = shutil.disk_usage(folder).free / 2**30
        speed = f"{free:.0f} GiB free, {written:.0f} MB/s written and synced, {read:.0f} MB/s read"
        yield (GOOD if free > 5 else POOR), f"disk {folder}", f"{speed} ({read / FIELD_MB:.0f} fields/s)"
    except OSError as error:
        yield BAD, f"disk {folder}", str(error)


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "doctor",
        "Say what this machine has for jumpgpu: processors, memory, the compiled kernels, GPU and CUDA, TIFF codecs, "
        "optional packages, and the disk's speed; and what to install where something is missing.",
        "jumpgpu doctor --output /data/out",
        status="0 jumpgpu can run here, 2 something that it needs is missing",
    )
    made.add_argument("--output", type=Path, default=Path("."), metavar="DIR", help="where plates would go (default: .)")
    made.add_argument("--gallery", action="store_true", help="ask over the network whether the gallery can be read")
    made.add_argument("--json", action="store_true", help="print a JSON list of state, subject and what was found")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when jumpgpu can run here, 2 when something that it needs is missing."""
    options = parser().parse_args(arguments)
    found = []
    for state, subject, text in findings(options.output, options.gallery):
        found.append({"state": state, "subject": subject, "found": text})
        if not options.json:
            print(f"{state:8} {subject:14} {text}", flush=True)
    if options.json:
        print(json.dumps(found, indent=1))
    return 2 if any(f["state"] == BAD for f in found) else 0


if __name__ == "__main__":
    sys.exit(main())
