"""Which device: the one place where the hardware is looked for."""

import torch

from .cpu import CpuDevice
from .cuda import CudaDevice
from .device import Device


def open_device(name: str | Device = "auto", workers: int | None = None) -> Device:
    """The device called `name`: 'cpu', 'cuda', 'cuda:1', or 'auto', which takes CUDA if a GPU is visible. An open one stays.

    'cuda' without a GPU raises RuntimeError: nothing falls back silently. `Device.description` says what was opened.
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
            "device 'cuda' was asked for and no CUDA device is visible; "
            "device='cpu' runs the same kernels on this machine's cores"
        )
    return CudaDevice(int(index or 0))
