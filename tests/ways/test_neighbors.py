"""The neighbour kernels give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.features import neighbors
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, NeighborsSettings
from tests.helpers.scenes import carried
from tests.simulators.ways import Way


def test_neighbors_same_in_all_ways(way: Way, device: Device) -> None:
    cells = np.zeros((2, 15, 19), np.int32)
    cells[0, :6, :7], cells[0, 6:11, 2:9], cells[0, 3:5, 9:12], cells[0, 13, 17] = 1, 2, 3, 4
    cells[1, 4:9, 5:9] = 1
    every = cells.copy()
    every[0, 12:, :6], every[1, :, 10:] = 5, 2
    unfiltered = {"Cells": torch.from_numpy(every)}
    batch = make_batch(("A",), torch.zeros(2, 1, 15, 19), {"Cells": torch.from_numpy(cells)}, unfiltered, device)
    settings = FeatureSettings(neighbors=NeighborsSettings(cells=(3, 0)))

    def work(other: Device) -> torch.Tensor:
        return neighbors.measure(carried(batch, other), settings, other)

    way.check(work)
