"""Arrays of more than 2^31 elements: an index that is 32 bits wide somewhere would miss what lies beyond.

Nearly all of each array is zeros that NumPy maps without filling, so that a few hundred MB of memory do.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from jumpgpu.features.objects import find_objects
from jumpgpu.gpu.device import Device, blocks
from jumpgpu.segmentation.background import subtract_background
from jumpgpu.settings.config import BackgroundSettings

FAR = 2**31


@pytest.mark.slow
def test_sums_of_fields(device: Device) -> None:
    """accumulate_fields, uint16."""
    shape = (419, 5, 1001, 1031)
    pixels = np.zeros(shape, np.uint16)
    assert pixels.size > FAR
    rng = np.random.default_rng(0)
    pixels[0, :, 3], pixels[-1] = 7, rng.integers(0, 65536, shape[1:], dtype=np.uint16)
    sums = torch.zeros(shape[1:], dtype=torch.int64)
    n_values = sums.numel()
    given = torch.from_numpy(pixels)
    device.launch("accumulate_fields", blocks(n_values), pixels=given, fields=shape[0], n_values=n_values, sums=sums)
    np.testing.assert_array_equal(sums.numpy(), pixels[0].astype(np.int64) + pixels[-1])


@pytest.mark.slow
def test_the_last_channel_of_many(device: Device) -> None:
    """block_minimum and subtract_background, float32: the only channel with light lies beyond 2^31 elements."""
    shape = (2, 1037, 1001, 1037)
    pixels = np.zeros(shape, np.float32)
    assert pixels.size > FAR
    last = np.random.default_rng(1).random(shape[2:], np.float32)
    pixels[1, -1] = last
    far = subtract_background(torch.from_numpy(pixels), shape[1] - 1, BackgroundSettings(), device)
    near = subtract_background(torch.from_numpy(last[None, None]), 0, BackgroundSettings(), device)
    assert not far[0].any()
    assert_allclose(far[1], near[0], rtol=0, atol=0)  # equal bits, and test_background.py judges the near ones


@pytest.mark.slow
def test_objects_of_a_large_batch(device: Device) -> None:
    """count_objects and list_objects, int32 label images: objects in the first field and beyond 2^31 elements."""
    shape = (2050, 1024, 1024)
    labels = np.zeros(shape, np.int32)
    assert labels.size > FAR
    labels[0, 5:7, 9:12] = 1
    labels[-1, 1000:1024, 1020:1024], labels[-1, 0, 0] = 1, 2
    objects = find_objects({"Nuclei": torch.from_numpy(labels)}, device)
    assert objects.field.tolist() == [0, 2049, 2049]
    assert objects.number.tolist() == [1, 1, 2]
    assert objects.box.tolist() == [[5, 9, 7, 12], [1000, 1020, 1024, 1024], [0, 0, 1, 1]]
    y, x = np.concatenate([np.argwhere(labels[b] == n) for b, n in ((0, 1), (-1, 1), (-1, 2))]).T
    np.testing.assert_array_equal(objects.pixel.numpy(), y << 16 | x)
