"""Equal bits of crops and their counts, however the kernels are executed."""

import numpy as np
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.networks.crops import CropBatch, CropRule, count, cut
from tests.helpers.scenes import drawn_labels, drawn_pixels
from tests.simulators.ways import Way

LABELS = drawn_labels(fields=3)["Cells"]
PIXELS = drawn_pixels({"Cells": LABELS}, 2)


def crops(device: Device) -> CropBatch:
    rows = [[0, 1, -3, -2], [0, 4, 48, 15], [2, 2, 77, 95]]
    field, number, y, x = (device.tensor(np.array(v, np.int32)) for v in zip(*rows, strict=True))
    return CropBatch(device.tensor(PIXELS), device.tensor(LABELS), field, number, torch.stack([y, x], 1))


def test_crops(way: Way) -> None:
    def work(device: Device) -> list[torch.Tensor]:
        batch, channel = crops(device), device.tensor(np.array([1, 0], np.int32))
        mean = device.tensor(np.full((3, 2), 0.03, np.float32))
        rules = [
            CropRule(9, 9, masked=True),
            CropRule(9, 9, padding="edge", half=True),
            CropRule(8.6, 5, padding="reflect"),
            CropRule(7, 9, "bilinear", masked=True, half=True),
        ]
        return [cut(batch, channel, mean, mean * 3, rule, device).clone() for rule in rules]

    way.check(work)


def test_counts(way: Way) -> None:
    def work(device: Device) -> list[torch.Tensor]:
        batch, channel = crops(device), device.tensor(np.array([1, 0], np.int32))
        return [count(batch, channel, (9, 7), masked, device) for masked in (False, True)]

    way.check(work)
