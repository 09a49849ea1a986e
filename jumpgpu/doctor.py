"""What this machine has for jumpgpu, how fast it will be, and the one command that would make it faster, in ten lines."""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import __version__
from .cli.exit_status import BAD_USE, TRY_AGAIN, command, run_command
from .cli.parser import command_parser
from .storage.faults import REFUSED, may_pass
from .storage.staging import remove_folder, staging_folder

GOOD, POOR, BAD, FAILS = "ok", "note", "MISSING", "FAILS"  # the last: what may do later
PROBE = 1 << 26  # bytes written to tell the disk's speed
FIELD_MB = 12  # of a field of five channels as it is read, LZW
LITTLE_MEMORY = 4 << 30
DRAWN_SITES, DRAWN_SIZE, DRAWN_CELLS = 5, 540, 22  # what is measured to tell the speed: a field in quarters, and one more
CODECS = ("NONE", "LZW", "DEFLATE", "ZSTD", "PACKBITS")  # what images may be compressed by
EXTRAS = {  # package -> what it is for, and the extra that brings it
    "copairs": ("mean average precision", "map"),
    "harmonypy": ("the step Harmony", "harmony"),
    "distributed": ("--workers", "cluster"),
    "polars": ("to_polars", ""),
}

Finding = tuple[str, str, str]  # state, subject, what was found


def findings(folder: Path, ask_gallery: bool = False, speed: bool = True) -> Iterator[Finding]:
    """What was found, subject by subject; the network is used only where the gallery is to be asked."""
    yield GOOD, "jumpgpu", f"{__version__}, Python {platform.python_version()}, {sys.platform} {platform.machine()}"
    yield processors()
    yield memory()
    yield torch_and_cupy()
    yield gpu()
    yield codecs()
    yield extras()
    state, subject, text, maximum = disk(folder)
    yield state, subject, text
    if speed:
        yield expected(maximum)
        yield GOOD, "faster", faster()
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
    """Processors, and the kernels compiled for them."""
    from .gpu.machine import usable_cores
    from .gpu.open import open_device

    usable = f"{usable_cores()} usable of {os.cpu_count()}"
    try:
        return GOOD, "processors", f"{usable}; kernels: {open_device('cpu').description}"
    except (RuntimeError, ValueError, OSError) as error:
        compiler = shutil.which(os.environ.get("CXX", "c++"))
        return BAD, "processors", f"{usable}; {error} (C++ compiler: {compiler or 'none'})"


def memory() -> Finding:
    """Free memory, and a container's limit where there is one."""
    from .gpu.machine import free_memory

    free = free_memory()
    text = f"{free / 2**30:.1f} GiB free"
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        if limit.isdigit():
            text += f", limit {int(limit) / 2**30:.1f} GiB"
            free = min(free, int(limit))
    except OSError:
        pass
    if free < LITTLE_MEMORY:
        return POOR, "memory", f"{text}; give extract a smaller --batch if it runs out"
    return GOOD, "memory", text


def torch_and_cupy() -> Finding:
    """torch, the CUDA that it was built for, and CuPy, which launches kernels on a GPU."""
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
    text = f"{torch.__version__}, {built}"
    try:
        return GOOD, "torch", f"{text}; CuPy {importlib.import_module('cupy').__version__}"
    except ImportError as error:
        missing = torch.cuda.is_available()
        return (BAD if missing else GOOD), "torch", f"{text}; " + (f"{error}; {cuda_install()}" if missing else "no CuPy")


def cuda_install() -> str:
    """The command that installs CuPy for the CUDA that torch was built for."""
    import torch

    return f"pip install 'jumpgpu[cuda{(torch.version.cuda or '13').partition('.')[0]}]'"


def gpu() -> Finding:
    """GPUs as torch sees them."""
    import torch

    if not torch.cuda.is_available():
        reason = "nvidia-smi is there: see 'faster'" if shutil.which("nvidia-smi") else "no driver"
        return POOR, "GPU", f"none visible ({reason}); --device cpu runs the same kernels"
    result = []
    for index in range(torch.cuda.device_count()):
        one = torch.cuda.get_device_properties(index)
        free = torch.cuda.mem_get_info(index)[0] / 2**30
        result.append(f"{one.name}, sm_{one.major}{one.minor}, {one.total_memory / 2**30:.0f} GiB, {free:.0f} free")
    state, ran = kernels()
    return state, "GPU", "; ".join([*result, ran])


def kernels() -> tuple[str, str]:
    """Whether a kernel compiles, loads and runs, as `--device cuda` would have it."""
    from .gpu.open import open_device

    try:
        device = open_device("cuda")
    except RuntimeError as error:
        return BAD, f"no kernel runs: {error}"
    result = device.versions()
    return GOOD, f"a kernel ran (NVRTC {result['nvrtc']}, driver CUDA {result['driver']}, torch's CUDA {result['torch']})"


def codecs() -> Finding:
    """What TIFF compressions can be read."""
    import imagecodecs

    missing = [name for name in CODECS if not getattr(imagecodecs, name).available]
    result = f"imagecodecs {imagecodecs.__version__}: {', '.join(n for n in CODECS if n not in missing)}"
    if missing:
        return BAD if "LZW" in missing else POOR, "TIFF codecs", f"{result}; not {', '.join(missing)}"
    return GOOD, "TIFF codecs", result


def extras() -> Finding:
    """Optional packages: those that are there, what the others are for, and the command that brings those."""
    there, absent = [], []
    for package in EXTRAS:
        try:
            there.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    if not absent:
        return GOOD, "packages", ", ".join(there)
    names = ",".join(EXTRAS[package][1] for package in absent if EXTRAS[package][1])
    wanted = [f"'jumpgpu[{names}]'"] * bool(names) + [package for package in absent if not EXTRAS[package][1]]
    uses = ", ".join(f"{package} ({EXTRAS[package][0]})" for package in absent)
    return POOR, "packages", "; ".join([*there, f"no {uses}: pip install {' '.join(wanted)}"])


def disk(folder: Path) -> tuple[str, str, str, float]:
    """Free space, the speed of a synced write and of reading it back (which the system's cache may speed up), and the
    fields a second that reading allows."""
    try:
        part = staging_folder(folder, ".jumpgpu-")
        try:
            data = os.urandom(1 << 20) * (PROBE >> 20)
            start = time.perf_counter()
            with (part / "probe").open("w+b") as file:
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
        finally:
            remove_folder(part)
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return (
            FAILS if may_pass(error) and error.errno not in REFUSED else BAD,
            f"disk {folder}",
            error.strerror or str(error),
            0.0,
        )
    speed = f"{free:.0f} GiB free, {written:.0f} MB/s written and synced, {read:.0f} MB/s read"
    return (GOOD if free > 5 else POOR), f"disk {folder}", f"{speed} ({read / FIELD_MB:.0f} fields/s)", read / FIELD_MB


def expected(maximum: float) -> Finding:
    """Fields a second, from small drawn fields that are measured now on the device that `--device auto` takes.

    Their pixels are counted as parts of a field of 1080 x 1080. What no processor does (the disk) sets `maximum`.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            seconds = measure_seconds(Path(folder))
    except (OSError, ValueError, RuntimeError) as error:
        return BAD, "speed", f"a drawn plate could not be measured: {error}"
    rate = (DRAWN_SITES - 1) * (DRAWN_SIZE / 1080) ** 2 / seconds
    bound = rate if not maximum else min(rate, maximum)
    limit = ", as fast as the disk reads" if bound < rate else ""
    minutes = 384 * 9 / bound / 60
    about = f"{DRAWN_SITES} drawn fields of {DRAWN_SIZE} x {DRAWN_SIZE}{limit}"
    plate = f"a plate of 3456 fields of 1080 x 1080 in {minutes:.0f} min"
    return GOOD, "speed", f"about {bound:.2g} fields/s, five channels, all columns (estimated from {about}): {plate}"


def measure_seconds(folder: Path) -> float:
    """Seconds of extraction of the drawn sites but one: the difference of a run over all and one over the first.

    A run over the first comes before both and loads what stays loaded. Without a GPU it is processor time, shared by the
    usable cores: what else runs now does not count. RuntimeError where the difference says nothing.
    """
    import torch

    from .cli.options import Options
    from .gpu.machine import usable_cores
    from .images.locate import find_source
    from .run.plates import extract_plates
    from .settings.config import load_config

    config = load_config("cpjump1")
    size = ["--wells", "1", "--sites", str(DRAWN_SITES), "--size", str(DRAWN_SIZE), "--cells", str(DRAWN_CELLS)]
    draw = [sys.executable, "-m", __package__, "synthetic", "--output", str(folder / "images"), "--plate", "SPEED", *size]
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    drawn = subprocess.run(draw, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True)
    if drawn.returncode:
        raise RuntimeError(drawn.stderr.strip()[-200:])
    plate = find_source("SPEED", folder / "images", config.plate)
    gpu = torch.cuda.is_available()
    clock, shared_by = (time.perf_counter, 1) if gpu else (time.process_time, usable_cores())
    took = {}
    for name, sites in (("first", (1,)), ("one", (1,)), ("all", None)):
        options = Options(output=folder / name, config=config, illumination="none", quiet=True, sites=sites)
        start = clock()
        list(extract_plates([plate], options))
        took[name] = clock() - start
    if took["all"] < 1.1 * took["one"]:
        raise RuntimeError(f"{DRAWN_SITES} fields took no longer than one")
    return (took["all"] - took["one"]) / shared_by


def faster() -> str:
    """The one command that would make most of a difference."""
    import torch

    from .gpu.cpu import library_folder
    from .gpu.machine import processes_for, usable_cores

    if shutil.which("nvidia-smi") and not torch.version.cuda:
        return "torch is a build without CUDA beside a GPU: pip install --force-reinstall torch 'jumpgpu[cuda13]'"
    if torch.cuda.is_available():
        if importlib.util.find_spec("cupy") is None:
            return f"{cuda_install()} lets the GPU do the work"
        return "nothing to install; several plates at once: jumpgpu extract --workers N, a GPU each"
    level = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}.get(torch.backends.cpu.get_cpu_capability())
    if level and not (library_folder() / f"kernels_{level}.so").is_file():
        return f"the kernels were not compiled for this processor's {level}: make lib LEVELS={level}, or install the wheel"
    if usable_cores() < (os.cpu_count() or 1):
        every = f"taskset -c 0-{(os.cpu_count() or 1) - 1}"
        return f"this process may use {usable_cores()} of {os.cpu_count()} processors: {every} jumpgpu ... asks for all"
    if processes := processes_for(usable_cores()):
        need = "" if importlib.util.find_spec("distributed") else "pip install 'jumpgpu[cluster]', then "
        return f"threads of one process wait for each other: {need}jumpgpu extract --workers {processes}"
    return f"nothing on this machine; on one with an NVIDIA GPU: {cuda_install()}"


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "doctor",
        "Say in ten lines what this machine has for jumpgpu (processors, memory, torch, GPU, TIFF codecs, optional "
        "packages, the disk's speed), how many fields per second it will do, and the one command that would make it faster.",
        "jumpgpu doctor --output /data/out",
        status="0 jumpgpu can run here, 2 something that it needs is missing, 75 worth trying again (the disk fails)",
    )
    output.add_argument("--output", type=Path, default=Path("."), metavar="DIR", help="where plates would go (default: .)")
    output.add_argument("--gallery", action="store_true", help="ask over the network whether the gallery can be read")
    output.add_argument(
        "--no-speed", action="store_true", help="do not measure drawn fields (some seconds) to tell the speed"
    )
    output.add_argument("--json", action="store_true", help="print a JSON list of state, subject and what was found")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """0 when jumpgpu can run here, 2 when something that it needs is missing, 75 when the disk fails."""
    options = parser().parse_args(arguments)
    result = []
    for state, subject, text in findings(options.output, options.gallery, not options.no_speed):
        result.append({"state": state, "subject": subject, "found": text})
        if not options.json:
            print(f"{state:8} {subject:14} {text}", flush=True)
    if options.json:
        print(json.dumps(result, indent=1))
    states = {f["state"] for f in result}
    return BAD_USE if BAD in states else TRY_AGAIN if FAILS in states else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
