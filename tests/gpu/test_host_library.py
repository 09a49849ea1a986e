"""A host library that does not fit the kernel sources is refused before it is called."""

import ctypes
import dataclasses
import subprocess
import sys
from pathlib import Path

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


HEAP = """
import re
from pathlib import Path

import psutil
import torch

from jumpgpu.gpu.open import open_device

before = psutil.Process().memory_info().rss
open_device("cpu", 1)
print((psutil.Process().memory_info().rss - before) >> 20)
tensor = torch.ones(16 << 20)  # 64 MiB
flags = ""
for line in Path("/proc/self/smaps").read_text().splitlines():
    if place := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
        within = int(place[1], 16) <= tensor.data_ptr() + (32 << 20) < int(place[2], 16)
    elif within and line.startswith("VmFlags:"):
        flags = line
print("hg" in flags.split())
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no huge pages to ask for"
)
def test_tensors_lie_where_huge_pages_were_asked_for_and_the_asking_takes_no_memory():
    """In a process of its own: the heap of this one may be full of other things."""
    grown, asked = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True).stdout.split()
    assert asked == "True"
    assert int(grown) < 64, "MiB, with the kernels' library; 1024 are asked for"
