"""The order kernels give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.device import Device
from jumpgpu.objects import make_scene
from jumpgpu.order import order_statistics
from tests.ways import Way


def test_order_statistics_same_in_all_ways(way: Way) -> None:
    cells, nuclei = np.zeros((2, 2, 7, 9), np.int32)
    cells[0, :5, :4] = cells[1, 1:4, 2:] = 1
    cells[1, 5:, :] = 2
    nuclei[0, 1:3, 1:3] = nuclei[1, 2, 4:] = 1  # the second cell has none
    # Values that differ in their 12 lowest bits: two passes over few digits, which the interpreter gets through.
    pixels = (0.5 + np.random.default_rng(0).integers(0, 4096, (2, 1, 7, 9)) / 2**24).astype(np.float32)
    pixels[1, 0, 6] = 0.5

    def work(device: Device) -> object:
        labels = {"Cells": device.tensor(torch.from_numpy(cells)), "Nuclei": device.tensor(torch.from_numpy(nuclei))}
        return order_statistics(make_scene(("A",), device.tensor(torch.from_numpy(pixels)), labels, {}, device), device)

    way.check(work)
