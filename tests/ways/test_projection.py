"""Planes folded into images, and sums corrected: the same bits in all ways."""

import numpy as np
import torch

from jumpgpu.gpu.device import ITEMS, Device
from jumpgpu.images.illumination import correct

PIXELS = 31 * 33


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Planes [3, n], and images [5, n] with which they tie, rise and fall."""
    rng = np.random.default_rng(8)
    planes = rng.integers(0, 65536, (3, PIXELS), dtype=np.uint16)
    images = rng.integers(0, 65536, (5, PIXELS), dtype=np.uint16)
    images[4, ::3] = planes[0, ::3]
    return planes, images


def test_project_max_and_sum_same_in_all_ways(way) -> None:  # type: ignore[no-untyped-def]
    planes, images = drawn()

    def work(device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        largest, sums = device.tensor(images.copy()), device.tensor(images.astype(np.int32))
        places = device.tensor([4, 0, 2], torch.int32)
        grid, raw = 3 * -(-PIXELS // ITEMS), device.tensor(planes)
        device.launch("project_max", grid, planes=raw, places=places, n_pixels=PIXELS, images=largest)
        device.launch("project_sum", grid, planes=raw, places=places, n_pixels=PIXELS, sums=sums)
        return largest, sums

    way.check(work)


def test_correct_sums_same_in_all_ways(way) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(9)
    sums = rng.integers(0, 256 * 65535 + 1, (2, 3, 13, 17), dtype=np.int32)
    functions = rng.uniform(0.5, 4, (3, 13, 17)).astype(np.float32)
    scales = [[256 * 65535.0, 3 * 4095.0, 7.0], [65535.0, 1.0, 10 * 65535.0]]

    def work(device: Device) -> torch.Tensor:
        return correct(device.tensor(sums), device.tensor(functions), device=device, scales=scales)

    way.check(work)
