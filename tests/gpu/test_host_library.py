"""A host library that does not fit the kernel sources is refused before it is called."""

import dataclasses

import pytest
import torch

from jumpgpu.gpu import device as devices


def test_every_kernel_of_the_sources_is_in_the_library(device):
    for kernel, (path, arguments) in devices.kernel_sources().items():
        types = getattr(device.library, f"jg_types_{kernel}")
        types.restype = devices.ctypes.c_char_p
        assert types().decode() == devices.type_code(arguments), f"{path.name}: {kernel}"


@pytest.mark.parametrize("change", ["type", "name"])
def test_a_library_of_other_sources_is_refused(monkeypatch, change):
    path, arguments = devices.kernel_sources()["texture_logs"]
    if change == "type":
        sources = {"texture_logs": (path, (dataclasses.replace(arguments[0], dtype=torch.int32), *arguments[1:]))}
    else:
        sources = {"texture_logarithms": (path, arguments)}
    monkeypatch.setattr(devices, "kernel_sources", lambda: sources)
    cpu = devices.open_device("cpu")
    with pytest.raises(RuntimeError, match=r"built from other sources than .*texture\.cu"):
        cpu.launch(next(iter(sources)), 0, entries=4, logs=cpu.empty(4, dtype=torch.int64))
