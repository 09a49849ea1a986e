"""Costes' kernels give the same bits in all their ways."""

import torch

from jumpgpu.features import costes
from jumpgpu.gpu.device import Device
from tests.helpers.scenes import carried, drawn_scene, ragged_labels
from tests.simulators.ways import Way


def test_costes_same_in_all_ways(way: Way, device: Device) -> None:
    batch = drawn_scene(device, ragged_labels(19, 25), ("A", "B"))

    def work(other: Device) -> torch.Tensor:
        return costes.coefficients(carried(batch, other), [[0, 1]], 15, other)

    way.check(work)
