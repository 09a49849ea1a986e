"""The kernels of basins.cu and watershed.cu give the same bits in all ways."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.watershed import watershed
from tests.simulators.ways import Way


@pytest.mark.parametrize("connectivity", [4, 8])
def test_watershed(way: Way, connectivity: int) -> None:
    rng = np.random.default_rng(3)
    shape = 2, 13, 37
    values = (rng.integers(0, 40, shape) / 64 - 0.25).astype(np.float32)
    mask = rng.random(shape) < 0.9
    seeds = np.where(rng.random(shape) < 0.02, rng.integers(1, 6, shape), 0).astype(np.int32)

    def work(device: Device) -> torch.Tensor:
        return watershed(*(torch.from_numpy(a) for a in (values, mask, seeds)), device, connectivity)

    way.check(work)
