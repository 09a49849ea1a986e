"""The kernels of filters along axes and of sums over labels give the same bits in all their ways."""

import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.gaussian import gaussian_singles
from jumpgpu.segmentation.label_sums import label_sums, shared_pixels
from jumpgpu.steps.images import tubeness
from tests.simulators.ways import Way


@pytest.mark.parametrize("mirrored", [False, True])
def test_gaussian_same_in_all_ways(way: Way, mirrored: bool) -> None:
    images = torch.rand(2, 7, 41, generator=torch.Generator().manual_seed(1))
    way.check(lambda device: gaussian_singles(device.tensor(images), 1.4, device, mirrored=mirrored))


def test_tubeness_same_in_all_ways(way: Way) -> None:
    images = torch.rand(1, 9, 37, generator=torch.Generator().manual_seed(2))
    way.check(lambda device: tubeness(device.tensor(images), 1.0, device))


def test_label_sums_same_in_all_ways(way: Way) -> None:
    labels = torch.randint(0, 4, (2, 6, 40), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    labels[0, 2, 4:30] = 3

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        given = device.tensor(labels)
        return label_sums(given, 4, device), shared_pixels(given, device.tensor(labels.flip(2)), 4, 4, device)

    way.check(work)
