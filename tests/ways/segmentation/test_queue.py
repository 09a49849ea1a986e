"""Floods from one queue, thinning in order, and rings around other centres give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.features import radial_centres, skeleton
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.gaussian import gaussian_taps, smooth
from jumpgpu.segmentation.planes import whole_planes
from jumpgpu.segmentation.queue import flood_in_queue, spread_in_queue
from jumpgpu.segmentation.ranks import order_by_quicksort
from jumpgpu.segmentation.threshold import find_threshold
from jumpgpu.settings.config import ThresholdSettings
from tests.simulators.ways import Way


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Heights of five levels [2, 13, 21], a mask with holes, and seeds: touching, outside the mask, none in a field."""
    rng = np.random.default_rng(4)
    heights = torch.from_numpy(rng.integers(0, 5, (2, 13, 21)) / 4.0)
    mask = torch.from_numpy(rng.random((2, 13, 21)) < 0.8)
    seeds = torch.zeros(2, 13, 21, dtype=torch.int32)
    seeds[0, 2:4, 3:6], seeds[0, 2:4, 6:8], seeds[0, 12, 20], seeds[0, 7, 10] = 1, 2, 3, 4
    mask[0, 12, 20] = False
    return heights, mask, seeds


def test_floods(way: Way) -> None:
    heights, mask, seeds = batch()

    def work(device: Device) -> object:
        given = [device.tensor(t) for t in (heights, mask, seeds)]
        four = flood_in_queue(*given, device, corners=False)
        singles = flood_in_queue(given[0].float() - 0.5, *given[1:], device)
        return flood_in_queue(*given, device), four, singles, spread_in_queue(*given[1:], device)

    way.check(work)


def test_sorting(way: Way) -> None:
    """Counts with equals, and such as a heap has to sort."""
    counts = torch.from_numpy(np.random.default_rng(5).geometric(0.4, (2, 75)).astype(np.int32))
    hard = torch.tensor([[*range(1, 160, 2), *range(2, 161, 2)]], dtype=torch.int32)
    wanted = torch.tensor([2, 5], dtype=torch.int32)
    way.check(
        lambda device: [
            order_by_quicksort(device.tensor(v), device, device.tensor(wanted) if w else None)
            for v in (counts, hard)
            for w in (False, True)
        ]
    )


def test_thinning(way: Way) -> None:
    _, mask, seeds = batch()

    def work(device: Device) -> object:
        given = device.tensor(mask)
        turns = skeleton.thin_by_table(given, device)
        return skeleton.thin(given, device), turns, skeleton.measure(turns, device.tensor(seeds), 3, device)

    way.check(work)


def test_rings_around_other_centres(way: Way) -> None:
    heights, _mask, seeds = batch()
    cells = torch.zeros(2, 13, 21, dtype=torch.int32)
    cells[0, 1:10, 1:12], cells[0, 2:13, 12:20], cells[1, 4:9, 3:9] = 1, 2, 1

    def work(device: Device) -> object:
        labels = device.tensor(cells)
        centres = radial_centres.find_centres(labels, device.tensor(seeds), device)
        output = make_batch(["DNA"], device.tensor(heights[:, None].float()), {"Cells": labels}, {}, device)
        return [radial_centres.measure(output, centres, 3, reach, device) for reach in (0, 4)]

    way.check(work)


def test_smoothing_rounded_to_float32(way: Way) -> None:
    heights, _, _ = batch()
    way.check(lambda device: smooth(device.tensor(heights), gaussian_taps(1.5), device, single=True))


def test_adaptive_thresholds(way: Way) -> None:
    image = torch.from_numpy(np.random.default_rng(8).random((2, 24, 37), np.float32))

    def work(device: Device) -> object:
        planes = whole_planes(device.tensor(image))
        return [find_threshold(planes, ThresholdSettings(m, window=9), device) for m in ("otsu2", "minimum_cross_entropy")]

    way.check(work)
