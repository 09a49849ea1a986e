"""The kernels that grow cells from seeds, and the float64 thresholds, give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.expand import grow_by_distance, propagate
from jumpgpu.segmentation.planes import channel_planes, whole_planes
from jumpgpu.segmentation.threshold import above_threshold, find_threshold
from jumpgpu.settings.config import ThresholdSettings
from tests.simulators.ways import Way


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels float32 [2, 2, 13, 21], a mask with holes, and seeds: touching, outside the mask, none in a field."""
    rng = np.random.default_rng(4)
    pixels = torch.from_numpy(rng.random((2, 2, 13, 21), np.float32))
    mask = torch.from_numpy((rng.random((2, 13, 21)) < 0.8).astype(np.uint8))
    seeds = torch.zeros(2, 13, 21, dtype=torch.int32)
    seeds[0, 2:4, 3:6], seeds[0, 2:4, 6:8], seeds[0, 12, 20], seeds[0, 7, 10] = 1, 2, 3, 4
    mask[0, 12, 20] = 0
    return pixels, mask, seeds


def test_cells_by_distance(way: Way) -> None:
    _, _, seeds = batch()
    way.check(lambda device: grow_by_distance(device.tensor(seeds), 6, device))


def test_cells_by_propagation(way: Way) -> None:
    pixels, mask, seeds = batch()

    def work(device: Device) -> torch.Tensor:
        planes = channel_planes(device.tensor(pixels), 1)
        return propagate(planes, device.tensor(mask), device.tensor(seeds), 0.05, device)

    way.check(work)


def test_propagation_between_tiles(way: Way) -> None:
    """A way that crosses the tiles' borders more often than there are rounds, so that one block takes the rest."""
    mask = torch.zeros(2, 31, 34, dtype=torch.uint8)
    mask[:, 24:31, 25:31] = 1
    mask[:, 25:31:4, 25:30] = mask[:, 27:31:4, 26:31] = 0
    seeds = torch.zeros(2, 31, 34, dtype=torch.int32)
    seeds[0, 24, 25], seeds[1, 30, 30], seeds[1, 24, 26] = 5, 2, 2**31 - 1
    pixels = torch.from_numpy(np.random.default_rng(6).random((2, 1, 31, 34), np.float32))

    def work(device: Device) -> torch.Tensor:
        planes = channel_planes(device.tensor(pixels), 0)
        labels = propagate(planes, device.tensor(mask), device.tensor(seeds), 0.05, device, rounds=1)
        assert (labels[0] == 5 * mask[0]).all()
        return labels

    way.check(work)


def test_thresholds_of_float64(way: Way) -> None:
    pixels, _, _ = batch()

    def work(device: Device) -> object:
        planes = whole_planes(device.tensor(pixels[:, 0].double()))
        result = find_threshold(planes, ThresholdSettings(method="otsu2", log_transform=True), device)
        return result, above_threshold(planes, result[1], 0.0, device)

    way.check(work)
