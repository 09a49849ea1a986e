"""The first things asked of a GPU: what is there, whether a kernel runs on two streams, and whether every kernel loads.

    python -m benchmarks.gpu_first versions --json FILE
    python -m benchmarks.gpu_first functions --json FILE

`versions`   torch, CuPy, CUDA of the compiler, driver and torch; one kernel on two streams, whose numbers are the CPU's
`functions`  compiles and loads every kernel; registers and spills beside those that the model was made with, of the same
             architecture; more local memory than the model has is said.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, write_json
from jumpgpu.gpu.cuda import CudaDevice
from jumpgpu.gpu.kernel_source import kernel_sources
from jumpgpu.gpu.open import open_device

MODEL = RESULTS / "gpu_model.json"
ENTRIES = 10_000


def reader() -> CudaDevice:
    device = open_device("cuda")
    assert isinstance(device, CudaDevice)
    return device


def versions(device: CudaDevice) -> tuple[dict[str, Any], str]:
    """What is there, and what is wrong."""
    import cupy

    cpu = open_device("cpu")
    results = []
    for stream in (torch.cuda.Stream(device.torch), torch.cuda.Stream(device.torch)):
        stream.wait_stream(torch.cuda.current_stream(device.torch))
        with torch.cuda.stream(stream):
            logs = device.zeros(ENTRIES, dtype=torch.int64)
            device.launch("texture_logs", 3, entries=ENTRIES, logs=logs)
            results.append(device.fetch(logs))
    want = cpu.zeros(ENTRIES, dtype=torch.int64)
    cpu.launch("texture_logs", 3, entries=ENTRIES, logs=want)
    equal = all((fetched() == want.numpy()).all() for fetched in results)
    result = {
        "device": device.description,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cupy": cupy.__version__,
        "cuda": device.versions(),
        "memory_free_total": list(torch.cuda.mem_get_info(device.torch)),
        "two_streams_equal": equal,
    }
    return result, "" if equal else "a kernel on two streams has other numbers than on the CPU"


def functions(device: CudaDevice) -> tuple[dict[str, Any], str]:
    """Every kernel's resources beside the model's, and what is wrong."""
    seconds = device.compile()
    major, minor = torch.cuda.get_device_capability(device.torch)
    model = json.loads(MODEL.read_text())["resources"].get(f"sm_{major}{minor}", {}) if MODEL.exists() else {}
    rows, wrong = [], []
    for kernel in sorted(kernel_sources()):
        function = device.function(kernel)
        row = {"kernel": kernel, "registers": function.num_regs, "local_bytes": function.local_size_bytes}
        if kernel in model:
            row |= {"model_registers": model[kernel]["registers"], "model_stack": model[kernel]["stack"]}
            if row["local_bytes"] > model[kernel]["stack"] + model[kernel]["spills"]:
                wrong.append(f"{kernel} has {row['local_bytes']} bytes of local memory, the model {model[kernel]['stack']}")
        rows.append(row)
    result = {"architecture": f"sm_{major}{minor}", "compile_s": seconds, "kernels": rows, "more_local_memory": wrong}
    return result, ""  # a compiler of another version spills elsewhere: said, not a failure


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_first", description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=("versions", "functions"))
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    result, wrong = (versions if options.step == "versions" else functions)(reader())
    write_json(options.json, result)
    print(wrong or f"{options.step}: {len(result.get('kernels', ())) or result.get('device')}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
