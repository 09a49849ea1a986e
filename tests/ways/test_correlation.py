"""The correlation kernels give the same bits in all their ways."""

import torch

from jumpgpu.features import correlation
from jumpgpu.features.order_statistics import order_statistics
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings
from tests.helpers.scenes import carried, drawn_scene, ragged_labels
from tests.simulators.ways import Way


def test_correlation_same_in_all_ways(way: Way, device: Device) -> None:
    batch = drawn_scene(device, ragged_labels(19, 25), ("A", "B"))
    order_statistics(batch, device)  # kept with the scene; it has a test of its own
    assert batch.objects.rows == 36

    def work(other: Device) -> torch.Tensor:
        return correlation.measure(carried(batch, other), FeatureSettings(), other)

    way.check(work)
