"""Raw images made on the device and counted: the same bits in all ways."""

import numpy as np
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.images.decode import make_images
from tests.helpers.raw_images import images, loaded


def test_raw_place_counts_and_same_same_in_all_ways(way):
    batch = images(19, 11)
    data, result = loaded(batch, "nnnbnnq-", rows=19)
    packed = torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, results = make_images(device.tensor(packed), result, batch.shape, device)
        pixels[1, 3] = 0  # not loaded
        np.testing.assert_array_equal(pixels.cpu().numpy().reshape(-1, 19, 11)[:7], batch.reshape(-1, 19, 11)[:7])
        return pixels, results

    way.check(work)
