"""Crops against a NumPy loop over pixels, bit for bit, and against torch's own crop, interpolate and half."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from jumpgpu.gpu.device import Device
from jumpgpu.networks.crops import PADDINGS, CropBatch, CropRule, count, count_fields, cut, moments, origins, weights
from tests.helpers.scenes import drawn_labels, drawn_pixels

LABELS = drawn_labels()["Cells"]
PIXELS = drawn_pixels({"Cells": LABELS}, 3)
CHANNEL = [2, 0]


def crop_batch(device: Device, side: float) -> CropBatch:
    """Every cell of the drawn fields, about the middle of its box: on borders and in corners too."""
    field, number, center = [], [], []
    for b in range(len(LABELS)):
        for n in range(1, LABELS[b].max() + 1):
            y, x = np.nonzero(LABELS[b] == n)
            field.append(b)
            number.append(n)
            center.append((y.mean(), x.mean()))
    corner = origins(device.tensor(np.array(center)), side)
    numbers = (device.tensor(np.array(v, np.int32)) for v in (field, number))
    return CropBatch(device.tensor(PIXELS), device.tensor(LABELS), *numbers, corner)


def looped(batch: CropBatch, mean: np.ndarray, deviation: np.ndarray, rule: CropRule) -> np.ndarray:
    """The crops as crops.cu says, a pixel at a time."""
    first, weight = weights(rule.side, rule.size, rule.resize)
    height, width = LABELS.shape[1:]
    window = np.zeros((rule.window + 2, rule.window + 2), np.float32)
    result = np.zeros((batch.field.numel(), len(CHANNEL), rule.size, rule.size), np.float32)

    def place(i: int, n: int) -> int:
        if rule.padding == "edge":
            return min(max(i, 0), n - 1)
        while not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i

    for c, (at, number, (oy, ox)) in enumerate(zip(batch.field, batch.number, batch.origin.tolist(), strict=True)):
        for k, channel in enumerate(CHANNEL):
            plane = PIXELS[int(at), channel]
            window[:] = 0
            for i in range(window.shape[0]):
                for j in range(window.shape[1]):
                    y, x = oy + i, ox + j
                    inside = 0 <= y < height and 0 <= x < width
                    if not inside and (rule.padding == "zero" or rule.masked):
                        continue
                    y, x = place(y, height), place(x, width)
                    if not rule.masked or LABELS[int(at), y, x] == int(number):
                        window[i, j] = (plane[y, x] - mean[c, k]) / deviation[c, k]
            for i in range(rule.size):
                for j in range(rule.size):
                    total = np.float32(0)
                    for b, wx in enumerate(weight[j]):
                        column = np.float32(0)
                        for a, wy in enumerate(weight[i]):
                            column += wy * window[first[i] + a, first[j] + b]
                        total += wx * column
                    result[c, k, i, j] = total
    return result


def statistics(batch: CropBatch) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    shape = batch.field.numel(), len(CHANNEL)
    return random.uniform(0, 0.2, shape).astype(np.float32), random.uniform(0.05, 0.3, shape).astype(np.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("side", "size", "resize"),
    [(15, 15, "area"), (16.0, 8, "area"), (13.7, 9, "area"), (7.3, 11, "area"), (16, 8, "bilinear"), (9, 20, "bilinear")],
)
def test_crops_are_a_loop_over_pixels(
    device: Device, side: float, size: int, resize: str, padding: str, masked: bool
) -> None:
    rule = CropRule(side, size, resize, padding, masked)
    batch = crop_batch(device, side)
    mean, deviation = statistics(batch)
    channel = device.tensor(np.array(CHANNEL, np.int32))
    result = cut(batch, channel, device.tensor(mean), device.tensor(deviation), rule, device)
    np.testing.assert_array_equal(result.numpy(), looped(batch, mean, deviation, rule))


def test_a_field_smaller_than_half_a_window_is_mirrored_more_than_once(device: Device) -> None:
    plane = torch.arange(6, dtype=torch.float32).reshape(1, 1, 2, 3) / 8
    one = torch.zeros(1, dtype=torch.int32)
    batch = CropBatch(plane, plane[0].to(torch.int32), one, one, torch.tensor([[-4, -5]], dtype=torch.int32))
    unit = torch.ones(1, 1)
    crop = cut(batch, one, unit * 0, unit, CropRule(9, 9, padding="reflect"), device)[0, 0].numpy()
    np.testing.assert_array_equal(crop, np.pad(plane[0, 0].numpy(), ((4, 3), (5, 1)), "reflect")[:9, :9])


def test_bilinear_is_torch_interpolate(device: Device) -> None:
    for side, size in ((16, 24), (31, 12), (21, 20)):
        batch = crop_batch(device, side)
        unit = torch.ones(batch.field.numel(), 1)
        one = torch.zeros(1, dtype=torch.int32)
        plain = cut(batch, one, unit * 0, unit, CropRule(side, side), device)
        expected = functional.interpolate(plain, size=(size, size), mode="bilinear", align_corners=False)
        result = cut(batch, one, unit * 0, unit, CropRule(side, size, "bilinear"), device)
        # Two roundings of weights and sums of values up to 1 lie between the two orders of summation.
        np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_area_is_torch_average_pooling_at_whole_factors(device: Device, factor: int) -> None:
    side = 6 * factor
    batch = crop_batch(device, side)
    unit = torch.ones(batch.field.numel(), 1)
    one = torch.zeros(1, dtype=torch.int32)
    plain = cut(batch, one, unit * 0, unit, CropRule(side, side), device)
    result = cut(batch, one, unit * 0, unit, CropRule(side, 6, "area"), device)
    np.testing.assert_allclose(result.numpy(), functional.avg_pool2d(plain, factor).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("side", "size"), [(10.4, 7), (9.0, 4), (3.3, 17), (96.0, 64), (1024.0, 224)])
def test_area_weights_share_out_the_window(side: float, size: int) -> None:
    first, weight = weights(side, size, "area")
    np.testing.assert_allclose(weight.sum(1), 1, rtol=0, atol=1e-6)
    total = np.zeros(int(np.ceil(side)) + 2)
    for i in range(size):
        np.add.at(total, first[i] + np.arange(weight.shape[1]), weight[i] * side / size)
    covered = np.clip(side - np.arange(len(total)), 0, 1)  # of each pixel, by the window
    np.testing.assert_allclose(total, covered, rtol=0, atol=2e-6)


def test_float16_is_torch_rounding(device: Device) -> None:
    """Every kind of float16: normal, subnormal, ties, the largest, beyond it, and zeros of either sign."""
    halves = torch.arange(0, 0x7C00, 37, dtype=torch.int16).view(torch.float16).float()
    between = torch.cat(
        [halves, (halves[1:] + halves[:-1]) / 2, halves * 1.0003, torch.tensor([65519.9, 65520.0, 1e6, 1e-9])]
    )
    values = torch.cat([between, -between])
    side = int(np.ceil(np.sqrt(len(values))))
    plane = torch.zeros(side * side)
    plane[: len(values)] = values
    pixels = plane.reshape(1, 1, side, side)
    one = torch.zeros(1, dtype=torch.int32)
    batch = CropBatch(pixels, pixels[0].to(torch.int32), one, one, torch.zeros(1, 2, dtype=torch.int32))
    unit = torch.ones(1, 1)
    crop = cut(batch, one, unit * 0, unit, CropRule(side, side, half=True), device)
    assert crop.dtype == torch.float16
    np.testing.assert_array_equal(crop.view(torch.int16).numpy(), pixels.half().view(torch.int16).numpy())


@pytest.mark.parametrize("masked", [False, True])
def test_counts_and_moments(device: Device, masked: bool) -> None:
    batch, channel = crop_batch(device, 17), device.tensor(np.array(CHANNEL, np.int32))
    counts = count(batch, channel, (17, 17), masked, device)
    mean, deviation = moments(counts)
    for c, (b, number, (oy, ox)) in enumerate(zip(batch.field, batch.number, batch.origin.tolist(), strict=True)):
        box = slice(max(oy, 0), oy + 17), slice(max(ox, 0), ox + 17)
        keep = LABELS[int(b)][box] == int(number) if masked else np.ones_like(LABELS[int(b)][box], bool)
        for k, channel_place in enumerate(CHANNEL):
            values = np.floor(PIXELS[int(b), channel_place][box][keep] * np.float32(65535) + np.float32(0.5)).astype(
                np.int64
            )
            assert counts[c, k].tolist() == [values.size, values.sum(), (values**2).sum()]
            spread = values.std() / 65535
            # float64 throughout, one rounding to float32 at the end; the variance is of integers
            np.testing.assert_allclose(mean[c, k], values.mean() / 65535, rtol=1e-7)
            np.testing.assert_allclose(deviation[c, k], spread if spread > 0 else 1, rtol=1e-6)


def test_counts_of_whole_fields(device: Device) -> None:
    counts = count_fields(device.tensor(PIXELS), device.tensor(np.array(CHANNEL, np.int32)), device)
    values = np.floor(PIXELS[:, CHANNEL] * np.float32(65535) + np.float32(0.5)).astype(np.int64)
    expected = np.stack([np.full((3, 2), values[0, 0].size), values.sum((2, 3)), (values**2).sum((2, 3))], -1)
    np.testing.assert_array_equal(counts.numpy(), expected)


def test_a_constant_crop_has_deviation_one_and_none_has_nan() -> None:
    mean, deviation = moments(torch.tensor([[[4, 400, 40000], [0, 0, 0]]]))
    assert deviation[0, 0] == 1
    np.testing.assert_allclose(mean[0, 0], 100 / 65535, rtol=1e-7)
    assert torch.isnan(mean[0, 1])


def test_origins_round_to_the_nearest_pixel() -> None:
    centers = torch.tensor([[50.0, 50.5], [50.49, 3.2], [torch.nan, torch.nan]], dtype=torch.float64)
    # An even window cannot be centred on a pixel: 50 - 48 + 1/2 is a tie, and goes up.
    assert origins(centers, 96).tolist() == [[3, 3], [3, -44], [-47, -47]]
    assert origins(centers[:1], 5).tolist() == [[48, 49]]
