"""The correlation kernels give the same bits in all their ways."""

import torch

from jumpgpu.config import FeatureSettings
from jumpgpu.device import Device
from jumpgpu.features import correlation
from jumpgpu.order import Order, order_statistics
from tests.scenes import drawn_scene, ragged_labels
from tests.ways import Way


def test_correlation_same_in_all_ways(way: Way, device: Device) -> None:
    labels = ragged_labels(23, 31)
    order = order_statistics(drawn_scene(device, labels, ("A", "B", "C")), device)

    def work(other: Device) -> torch.Tensor:
        scene = drawn_scene(other, labels, ("A", "B", "C"))
        # The order statistics have a test of their own (tests/test_order_ways.py).
        scene.derived["order"] = Order(*(other.tensor(t) for t in vars(order).values()))
        return correlation.measure(scene, FeatureSettings(), other)

    way.check(work)
