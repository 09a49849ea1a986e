"""The illumination kernels give the same bits in all ways."""

import numpy as np
import torch

from jumpgpu.gpu.device import Device, blocks
from jumpgpu.images.illumination import correct
from tests.images.test_illumination_numpy import batch

SCALES = [[65535, 4095, 1023], [70000, 3, 65535]]


def test_correct_same_in_all_ways(way) -> None:  # type: ignore[no-untyped-def]
    pixels, functions = batch(2, 3, 29, 31)

    def work(device: Device) -> torch.Tensor:
        return correct(device.tensor(pixels), device.tensor(functions), device=device, scales=SCALES)

    way.check(work)


def test_correct_of_images_smaller_than_a_block_same_in_all_ways(way) -> None:  # type: ignore[no-untyped-def]
    pixels, functions = batch(2, 3, 5, 7)

    def work(device: Device) -> torch.Tensor:
        return correct(device.tensor(pixels), device.tensor(functions), device=device, scales=SCALES)

    way.check(work)


def test_accumulate_fields_same_in_all_ways(way) -> None:  # type: ignore[no-untyped-def]
    pixels, _ = batch(3, 2, 33, 37)

    def work(device: Device) -> torch.Tensor:
        sums = device.zeros(2, 33, 37, dtype=torch.int64)
        n = sums.numel()
        device.launch("accumulate_fields", blocks(n), pixels=device.tensor(pixels), fields=3, n_values=n, sums=sums)
        return sums

    way.check(work)


def test_scene_has_every_branch() -> None:
    _, functions = batch(2, 3, 39, 41)
    assert np.isnan(functions).any()
    assert (functions == 0).any()
    assert (functions < 0).any()
