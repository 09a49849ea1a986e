"""Which device: the one place where the hardware is looked for."""

import numpy as np
import torch

from .cpu import CpuDevice
from .cuda import CudaDevice
from .device import Device

CHECKED = 64  # numbers that the kernel makes that is tried first


def open_device(name: str | Device = "auto", workers: int | None = None) -> Device:
    """The device called `name`: 'cpu', 'cuda', 'cuda:1', or 'auto', which takes CUDA if a GPU is visible. An open one stays.

    'cuda' without a GPU, or with one that cannot run a kernel, raises RuntimeError: nothing falls back silently.
    `Device.description` says what was opened.
    """
    if isinstance(name, Device):
        return name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return CpuDevice(workers)
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(f"unknown device {name!r}; expected 'cpu', 'cuda', 'cuda:N' or 'auto'")
    if not torch.cuda.is_available():
        raise RuntimeError(
            "device 'cuda' was asked for, but no CUDA device is visible; "
            "device='cpu' runs the same kernels on this machine's cores"
        )
    device = CudaDevice(int(index or 0))
    device.check_versions()
    check_launch(device)
    return device


def check_launch(device: Device) -> None:
    """Launch one kernel, and see that its numbers are the CPU's; RuntimeError where the device cannot, or has others."""
    try:
        got = _logs(device)
    except Exception as error:  # CuPy, torch and the driver have classes of their own
        raise RuntimeError(
            f"{device.description} cannot run a kernel: {error}; `jumpgpu doctor` says what is installed"
        ) from error
    if not (got == _logs(CpuDevice(1))).all():
        raise RuntimeError(f"{device.description} gives other numbers than the CPU: {got.tolist()}")


def _logs(device: Device) -> np.ndarray:
    logs = device.zeros(CHECKED, dtype=torch.int64)
    device.launch("texture_logs", 1, entries=CHECKED, logs=logs)
    return device.fetch(logs)().copy()
