"""Kernels on a machine where the whole program does not run: launches are recorded here and done again there.

    python -m tools.replay record launches.npz           what a drawn field's run launches: arguments before, digests after
    python -P tools/replay.py run launches.npz LIBRARY   the same launches by another library; needs NumPy alone

On one thread: a list whose order does not matter (list_contacts) is filled as threads arrive. The second prints one digest
over everything that every launch left in memory, and names the kernels that differ.
"""

import contextlib
import ctypes
import hashlib
import json
import sys
import sysconfig
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

LAUNCHES = 4  # of a kernel that are kept
FIELD = ["--wells", "1", "--sites", "1", "--size", "200", "--cells", "9"]
CONFIG = "[features]\nimage_quality = true\n"


def record(path: Path) -> None:
    """Draw a field, run every family on it, and keep the launches. The only part that imports jumpgpu."""
    import torch

    from jumpgpu import synthetic
    from jumpgpu.extract import main
    from jumpgpu.gpu.cpu import CpuDevice
    from jumpgpu.gpu.kernel_source import C_TYPES, kernel_sources

    plan: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    seen: Counter[str] = Counter()
    lock, honest = threading.Lock(), CpuDevice.launch

    def launch(self: CpuDevice, kernel: str, grid: int, *, block: int = 256, **values: Any) -> None:
        with lock:
            seen[kernel] += 1
            if seen[kernel] > LAUNCHES or not grid:
                honest(self, kernel, grid, block=block, **values)
                return
            arguments: list[Any] = []
            memory: dict[int, tuple[str, np.ndarray]] = {}  # storages, each once: arguments may share one
            for argument in kernel_sources()[kernel][1]:
                value = values[argument.name]
                if not argument.pointer:
                    arguments.append([C_TYPES[argument.dtype].__name__, value])
                elif value is None:
                    arguments.append(["null", 0])
                else:
                    storage = value.untyped_storage()
                    if storage.data_ptr() not in memory:
                        data = torch.tensor([], dtype=torch.uint8).set_(storage).numpy()
                        name = f"a{len(arrays)}"
                        memory[storage.data_ptr()] = name, data
                        arrays[name] = data.copy()
                    arguments.append([memory[storage.data_ptr()][0], value.data_ptr() - storage.data_ptr()])
            honest(self, kernel, grid, block=block, **values)
            plan.append({"kernel": kernel, "grid": grid, "block": block, "arguments": arguments})
            plan[-1]["digest"] = digest([data for _, data in memory.values()])

    CpuDevice.launch = launch  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        images, config = f"{folder}/images", Path(folder) / "all.toml"
        config.write_text(CONFIG)
        synthetic.main(["--output", images, "--plate", "DEMO", *FIELD])
        known = ["--plate", "DEMO", "--images", images, "--device", "cpu", "--threads", "1"]
        assert main([*known, "--config", str(config), "--output", f"{folder}/a"]) == 0
        assert main([*known, "--config", "jump-production", "--output", f"{folder}/b"]) == 0
    CpuDevice.launch = honest  # type: ignore[method-assign]
    np.savez_compressed(path, plan=np.frombuffer(json.dumps(plan).encode(), np.uint8), **arrays)
    print(f"{path}: {len(plan)} launches of {len(seen)} kernels, digest {whole([p['digest'] for p in plan])}")


def digest(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def whole(digests: list[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def run(path: Path, library: Path) -> int:
    """Do the launches with a library; 1 where a digest differs from the recorded one."""
    loaded = ctypes.CDLL(str(library.resolve()))
    with np.load(path, allow_pickle=False) as stored:
        plan = json.loads(stored["plan"].tobytes())
        result, wrong = [], Counter()
        for step in plan:
            memory: dict[str, np.ndarray] = {}
            slots: list[Any] = []
            for kind, value in step["arguments"]:
                if kind.startswith("c_"):
                    slots.append(getattr(ctypes, kind)(value))
                elif kind == "null":
                    slots.append(ctypes.c_void_p(None))
                else:
                    if kind not in memory:
                        memory[kind] = aligned(stored[kind])
                    slots.append(ctypes.c_void_p(memory[kind].ctypes.data + value))
            pointers = (ctypes.c_void_p * len(slots))(*[ctypes.addressof(slot) for slot in slots])
            entry = getattr(loaded, f"jg_launch_{step['kernel']}")
            entry.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint64]
            entry.restype = ctypes.c_char_p
            if said := entry(step["grid"], step["block"], pointers, 1, 0):
                raise RuntimeError(f"{step['kernel']}: {said.decode()}")
            result.append(digest(list(memory.values())))
            wrong[step["kernel"]] += result[-1] != step["digest"]
    bad = sorted(kernel for kernel, n in wrong.items() if n)
    machine = f"{sysconfig.get_platform()}, Python {sys.version.split()[0]}, NumPy {np.__version__}"
    print(
        f"{machine}, {library.name}: "
        f"{len(plan)} launches of {len(wrong)} kernels, digest {whole(result)}, "
        + (f"other bits from {', '.join(bad)}" if bad else "the recorded bits")
    )
    return bool(bad)


def aligned(data: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64 bytes, as torch's tensors do."""
    capacity = np.empty(data.nbytes + 64, np.uint8)
    start = -capacity.ctypes.data % 64
    capacity[start : start + data.nbytes] = data
    return capacity[start : start + data.nbytes]


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "record":
        record(Path(sys.argv[2]))
    elif len(sys.argv) == 4 and sys.argv[1] == "run":
        sys.exit(run(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        sys.exit(__doc__)
