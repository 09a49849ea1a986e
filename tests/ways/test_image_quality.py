"""Image quality's kernels give the same bits in every way there is to run them."""

import pytest
import torch

from jumpgpu.features import image_quality

SIZES = {
    "a spectrum of factors 4, 3 and 5": (1, 1, 36, 45),
    "of factors 2, 7 and 11": (1, 2, 33, 98),
    "none": (2, 1, 9, 37),
}


@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
def test_quality_in_all_ways(way, shape):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(*shape, generator=generator).square().clamp(max=0.9)
    pixels[0, 0, :6, :11] = 0  # cells of the grid that are black, and values that repeat

    def work(device):
        channels = ("DNA", "ER")[: shape[1]]
        return image_quality.measure_images(device.tensor(pixels), channels, device, scales=(5, 20))

    way.check(work)


def test_cells_wider_than_a_block_sums_at_a_time(way):
    pixels = torch.rand(1, 1, 3, 1500, generator=torch.Generator().manual_seed(4))

    def work(device):
        table = device.zeros(1, 4, dtype=torch.float64)
        image_quality.local_focus(device.tensor(pixels), 1100, 2, table, device)
        return table

    way.check(work)
