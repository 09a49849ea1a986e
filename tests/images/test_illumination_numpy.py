"""Correction and accumulation against NumPy's own float32 and integer arithmetic: equal bits."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device, blocks
from jumpgpu.images.illumination import correct


def batch(b: int, c: int, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw counts with both ends and saturated patches; functions with values that exercise every branch."""
    rng = np.random.default_rng([b, c, h, w])
    pixels = rng.integers(0, 65536, (b, c, h, w), dtype=np.uint16)
    pixels[:, :, :2] = 65535
    pixels[:, :, 2:3] = 0
    functions = rng.uniform(1, 4, (c, h, w)).astype(np.float32)
    functions[0, 0, :6] = [0, -2, np.nan, np.inf, 1e-6, 1]
    functions[0, 2, :2] = [0, -1]
    return pixels, functions


@pytest.mark.parametrize("shape", [(1, 1, 3, 7), (2, 5, 33, 41), (3, 2, 64, 64), (1, 5, 108, 128)])
def test_correct_equals_numpy_bit_for_bit(device: Device, shape: tuple[int, int, int, int]) -> None:
    pixels, functions = batch(*shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = pixels.astype(np.float32) / np.float32(65535) / functions
    expected = np.clip(np.nan_to_num(value, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    result = correct(device.tensor(pixels), device.tensor(functions), device=device)
    np.testing.assert_array_equal(result.numpy().view(np.int32), expected.view(np.int32) & 0x7FFFFFFF)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3, 7), (3, 4, 5, 7), (2, 5, 33, 41), (3, 2, 64, 64), (2, 5, 108, 128), (2, 3, 3, 2048)]
)
def test_each_image_has_its_own_scale(device: Device, shape: tuple[int, int, int, int]) -> None:
    """CellProfiler divides each image, as float32, by the whole number that its file says."""
    pixels, functions = batch(*shape)
    scales = np.random.default_rng(shape).choice([65535, 4095, 1023, 70000, 255], shape[:2])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = pixels.astype(np.float32) / scales.astype(np.float32)[:, :, None, None] / functions
    expected = np.clip(np.nan_to_num(value, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    result = correct(device.tensor(pixels), device.tensor(functions), device=device, scales=scales.tolist())
    np.testing.assert_array_equal(result.numpy().view(np.int32), expected.view(np.int32) & 0x7FFFFFFF)
    with pytest.raises(ValueError, match="scales of"):
        correct(device.tensor(pixels), device.tensor(functions), device=device, scales=[[1.0] * shape[1]] * (shape[0] + 1))


def test_correct_writes_where_it_is_told(device: Device) -> None:
    pixels, functions = batch(2, 3, 9, 11)
    out = torch.empty(2, 3, 9, 11)
    assert correct(device.tensor(pixels), device.tensor(functions), device=device, out=out) is out
    assert torch.equal(out, correct(device.tensor(pixels), device.tensor(functions), device=device))


def test_a_batch_equals_its_fields(device: Device) -> None:
    pixels, functions = batch(4, 3, 37, 29)
    whole = correct(device.tensor(pixels), device.tensor(functions), device=device)
    for b in range(4):
        assert torch.equal(
            whole[b : b + 1], correct(device.tensor(pixels[b : b + 1]), device.tensor(functions), device=device)
        )
    assert correct(device.tensor(pixels[:0]), device.tensor(functions), device=device).shape == (0, 3, 37, 29)


def test_wrong_shapes_and_types(device: Device) -> None:
    pixels, functions = batch(1, 2, 4, 6)
    with pytest.raises(ValueError, match=r"\[B, C, H, W\] and \[C, H, W\]"):
        correct(device.tensor(pixels), device.tensor(functions[:1]), device=device)
    with pytest.raises(TypeError, match="float32"):
        correct(device.tensor(pixels), device.tensor(functions.astype(np.float64)), device=device)
    with pytest.raises(ValueError, match="out must be"):
        correct(device.tensor(pixels), device.tensor(functions), device=device, out=torch.empty(1, 2, 4, 5))


def test_sums_are_exact_integers(device: Device) -> None:
    pixels, _ = batch(3, 2, 70, 61)
    sums = torch.full((2, 70, 61), 2**40, dtype=torch.int64)
    n = sums.numel()
    device.launch("accumulate_fields", blocks(n), pixels=device.tensor(pixels), fields=3, n_values=n, sums=sums)
    np.testing.assert_array_equal(sums.numpy(), 2**40 + pixels.astype(np.int64).sum(0))
