"""The correlation kernels give the same bits in all their ways."""

import torch

from jumpgpu.config import FeatureSettings
from jumpgpu.device import Device
from jumpgpu.features import correlation
from jumpgpu.order import order_statistics
from tests.scenes import carried, drawn_scene, ragged_labels
from tests.ways import Way


def test_correlation_same_in_all_ways(way: Way, device: Device) -> None:
    scene = drawn_scene(device, ragged_labels(19, 25), ("A", "B"))
    order_statistics(scene, device)  # kept with the scene; it has a test of its own
    assert scene.objects.rows == 36

    def work(other: Device) -> torch.Tensor:
        return correlation.measure(carried(scene, other), FeatureSettings(), other)

    way.check(work)
