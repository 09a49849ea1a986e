"""Image quality's kernels give the same bits in every way there is to run them."""

import torch

from jumpgpu.features import image_quality as quality


def test_quality_in_all_ways(way):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(2, 1, 9, 37, generator=generator).clamp(max=0.9)

    def work(device):
        return quality.measure_images(device.tensor(pixels), ("DNA",), device, scales=(5,))

    way.check(work)
