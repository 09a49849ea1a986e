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


def test_thresholds_by_level_same_in_all_ways(way: Way, device: Device) -> None:
    """Channels that go together, so that the search sums by level."""
    common = torch.rand(1, 1, 9, 13, generator=torch.Generator().manual_seed(3))
    pixels = torch.cat([common * 0.9, common * 0.5 + 0.02], 1).round(decimals=2)

    def work(other: Device) -> torch.Tensor:
        sums = costes.Moments(pixels, [[0, 1]], other)
        (line,) = [costes.regression(*row) for row in sums(None, [True])]
        grid = torch.arange(16, dtype=torch.float64) / 15
        limit = torch.stack([grid, line[0] * grid + line[1]]).float()
        return torch.tensor(sums.by_level(0, limit, known=False) + sums.by_level(0, limit[:, 3:9], known=True))

    way.check(work)
