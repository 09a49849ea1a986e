"""The kernels of objects.cu give the same bits in all ways."""

import numpy as np
import torch

from jumpgpu.device import Device, blocks
from tests.ways import Way


def test_gather_values(way: Way) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.random((2, 3, 37, 53), np.float32)
    n = 4099
    field, y, x = (rng.integers(0, high, n, dtype=np.int32) for high in (2, 37, 53))

    def work(device: Device) -> torch.Tensor:
        values = device.empty(3, n, dtype=torch.float32)
        device.launch(
            "gather_values",
            blocks(n),
            pixels=device.tensor(pixels),
            pixel=device.tensor(y << 16 | x),
            pixel_field=device.tensor(field),
            n_pixels=n,
            channels=3,
            height=37,
            width=53,
            values=values,
        )
        return values

    way.check(work)
