"""The kernels that look for maxima at low resolution give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.declump_low import low_resolution_maxima
from jumpgpu.segmentation.label import FOREGROUND, find_components
from tests.simulators.ways import Way


def test_low_resolution_maxima(way: Way) -> None:
    rng = np.random.default_rng(6)
    values = torch.from_numpy(rng.random((2, 17, 23)))
    mask = torch.from_numpy((rng.random((2, 17, 23)) < 0.8).astype(np.uint8))
    offsets = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=torch.int32)

    def work(device: Device) -> torch.Tensor:
        inside = device.tensor(mask)
        components = find_components(inside, FOREGROUND, device)
        return low_resolution_maxima(device.tensor(values), inside, components, 0.6, device.tensor(offsets), device)

    way.check(work)
