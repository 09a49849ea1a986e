"""Microseconds that a launch costs on the CPU: arguments checked and bound, blocks handed to the pool, nothing done."""

import statistics
import time
from typing import Any

import torch

from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.kernel_source import kernel_sources


def launch_us(device: CpuDevice, grid: int, repeats: int = 7, launches: int = 2000) -> tuple[float, float]:
    """Median and spread over repeats of the mean time of one launch of `gather_values` with nothing to do."""
    values: dict[str, Any] = {
        a.name: torch.zeros(128, dtype=a.dtype) if a.pointer else 1 for a in kernel_sources()["gather_values"][1]
    }
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(launches):
            device.launch("gather_values", grid, **values)
        times.append((time.perf_counter() - start) / launches * 1e6)
    return statistics.median(times), max(times) - min(times)


if __name__ == "__main__":
    for workers in (1, 2):
        for grid in (0, 1, 64):
            median, spread = launch_us(CpuDevice(workers), grid)
            print(f"{workers} workers, {grid:3d} blocks: {median:.1f} us a launch (spread {spread:.1f})")
