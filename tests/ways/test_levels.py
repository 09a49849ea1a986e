"""Every instruction-set level of the host library gives the same bits."""

import pytest
import torch

from jumpgpu.features.families import measure_batch
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu import cpu
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings
from tests.simulators.ways import assert_equal_bits


def measure(device: Device) -> torch.Tensor:
    """Every family on a few cells."""
    pixels = torch.rand(2, 4, 45, 59, generator=torch.Generator().manual_seed(2))
    cells = torch.zeros(2, 45, 59, dtype=torch.int32)
    cells[0, 0:19, 2:22], cells[0, 19:40, 15:59], cells[1, 3, 3], cells[1, 14:34, 18:47] = 1, 2, 1, 2
    nuclei = cells.clone()
    nuclei[0, 0:4], nuclei[0, 30:], nuclei[1, 20:] = 0, 0, 0
    labels = {"Cells": cells, "Nuclei": nuclei, "Cytoplasm": torch.where(nuclei > 0, 0, cells)}
    batch = make_batch(
        ("DNA", "RNA", "ER", "AGP"), device.tensor(pixels), {k: device.tensor(v) for k, v in labels.items()}, {}, device
    )
    return measure_batch(batch, FeatureSettings(), device)


def test_all_levels_give_equal_bits():
    best = cpu.host_level()
    built = sorted(p.stem.removeprefix("kernels_") for p in cpu.library_folder().glob("kernels_*.so"))
    usable = [level for level in built if level <= best]
    if len(usable) < 2:
        pytest.skip(f"one level that this processor runs is built ({', '.join(usable)})")
    results = {level: measure(CpuDevice(library=cpu.library_folder() / f"kernels_{level}.so")) for level in usable}
    for level in usable:
        assert_equal_bits(results[level], results[best], f"{level} against {best}")
