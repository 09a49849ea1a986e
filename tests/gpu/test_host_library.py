"""A host library that does not fit the kernel sources is refused before it is called."""

import ctypes
import dataclasses

import pytest
import torch

from jumpgpu.gpu.kernel_source import kernel_sources, type_code
from jumpgpu.gpu.open import open_device


def test_every_kernel_of_the_sources_is_in_the_library(device):
    for kernel, (path, arguments) in kernel_sources().items():
        types = getattr(device.library, f"jg_types_{kernel}")
        types.restype = ctypes.c_char_p
        assert types().decode() == type_code(arguments), f"{path.name}: {kernel}"


@pytest.mark.parametrize("change", ["type", "name"])
def test_a_library_of_other_sources_is_refused(monkeypatch, change):
    path, arguments = kernel_sources()["texture_logs"]
    if change == "type":
        sources = {"texture_logs": (path, (dataclasses.replace(arguments[0], dtype=torch.int32), *arguments[1:]))}
    else:
        sources = {"texture_logarithms": (path, arguments)}
    monkeypatch.setattr("jumpgpu.gpu.cpu.kernel_sources", lambda: sources)
    cpu = open_device("cpu")
    with pytest.raises(RuntimeError, match=r"built from other sources than .*texture\.cu"):
        cpu.launch(next(iter(sources)), 0, entries=4, logs=cpu.empty(4, dtype=torch.int64))
