"""The kernels of basins.cu and watershed.cu give the same bits in all ways."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.watershed import watershed
from tests.simulators.ways import HostDevice, Way


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


def test_the_forest_of_many_blocks_as_fibers() -> None:
    """The ways that are no CPU's take it by themselves; on the host's builds it is asked for."""
    rng = np.random.default_rng(5)
    values = torch.from_numpy((rng.integers(0, 40, (2, 13, 37)) / 64).astype(np.float32))
    mask = torch.from_numpy(rng.random(values.shape) < 0.9)
    seeds = torch.from_numpy(np.where(rng.random(values.shape) < 0.02, rng.integers(1, 6, values.shape), 0).astype(np.int32))
    launched = set()

    def work(device: Device) -> torch.Tensor:
        launch = device.launch

        def noted(kernel: str, *arguments: Any, **more: Any) -> None:
            launched.add(kernel)
            launch(kernel, *arguments, **more)

        with mock.patch.object(device, "massively_parallel", True), mock.patch.object(device, "launch", noted):
            return watershed(values, mask, seeds, device, 8)

    want = watershed(values, mask, seeds, HostDevice("serial"), 8)  # by one block
    Way("fibers").check(work, want)
    assert {"basin_survey", "basin_hang"} <= launched
