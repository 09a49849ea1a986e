"""Raw images made on the device against the pixels they were made of, and their counts against NumPy's."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.images.decode import make_images, read_results
from jumpgpu.images.focus import count_image
from tests.helpers.raw_images import images, loaded


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (3, 3), (16, 40), (37, 29), (65, 131)])
@pytest.mark.parametrize("kinds", ["nnnnnnnn", "llllllll", "pqbnlqpb", "l-lnq-bp"])
def test_pixels_counts_and_copies(height: int, width: int, kinds: str) -> None:
    batch = images(height, width)
    data, given = loaded(batch, kinds)
    device = CpuDevice(2)
    pixels, results = make_images(torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)), given, batch.shape, device)
    result = read_results(results.numpy(), given, batch.shape)
    flat = batch.reshape(-1, height, width)
    numbers = {n for n, kind in enumerate(kinds) if kind != "-"}
    assert result.decoded == numbers
    for n in numbers:
        np.testing.assert_array_equal(pixels.numpy().reshape(-1, height, width)[n], flat[n])
        assert result.counts[n] == count_image(flat[n])
    equal = {
        (n // 4, m % 4, n % 4)
        for n in numbers
        for m in numbers
        if m < n and m // 4 == n // 4 and (flat[m] == flat[n]).all() and flat[n].min() < flat[n].max()
    }
    assert result.same == equal


def test_a_strip_that_does_not_decode_costs_its_image_alone() -> None:
    batch = images(16, 40)
    data, given = loaded(batch, "llllllll")
    spoilt = given[3].at + int(given[3].strips.places[1, 0])  # type: ignore[union-attr]
    changed = bytearray(data)
    changed[spoilt] ^= 0x80  # no clear at the beginning
    pixels, results = make_images(torch.from_numpy(np.frombuffer(changed, np.uint8)), given, batch.shape, CpuDevice(1))
    result = read_results(results.numpy(), given, batch.shape)
    assert result.decoded == set(range(8)) - {3}
    flat = batch.reshape(-1, 16, 40)
    for n in result.decoded:
        np.testing.assert_array_equal(pixels.numpy().reshape(-1, 16, 40)[n], flat[n])
        assert result.counts[n] == count_image(flat[n])


def test_no_image_at_all() -> None:
    _, results = make_images(torch.zeros(1, dtype=torch.uint8), [], (2, 3, 4, 5), CpuDevice(1))
    result = read_results(results.numpy(), [], (2, 3, 4, 5))
    assert not result.decoded
    assert not result.counts
