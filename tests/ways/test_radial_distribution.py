"""The radial kernels give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.features import radial_distribution as radial
from jumpgpu.features.distance_map import depths
from jumpgpu.features.objects import make_batch
from jumpgpu.features.outline import outlines
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, RadialSettings
from tests.helpers.scenes import carried, drawn_pixels, ellipse
from tests.simulators.ways import Way


def test_radial_same_in_all_ways(way: Way, device: Device) -> None:
    labels = np.zeros((2, 13, 17), np.int32)
    labels[0][ellipse(13, 17, 5, 6, 6, 5)] = 1
    labels[0][4:6, 5:12] = 0  # a slit: ways that turn round
    labels[0][9:, 14:] = 2
    labels[1, 2:12, 1:3] = labels[1, 10:12, 1:9] = labels[1, 3, 3:9] = 1
    labels[1, 7, 6] = 1  # out of reach
    labels[1, 0, 16] = 2
    pixels = torch.from_numpy(drawn_pixels({"Cells": labels}, 2))
    batch = make_batch(("A", "B"), pixels, {"Cells": torch.from_numpy(labels)}, {}, device)
    outlines(batch, device)  # kept with the scene; it has tests of its own

    def work(other: Device) -> torch.Tensor:
        return radial.measure(carried(batch, other), FeatureSettings(radial=RadialSettings(bins=3)), other)

    way.check(work)


def test_long_way_same_in_all_ways(way: Way, device: Device) -> None:
    """A way of more than 239 pixels, which does not fit 16 bits."""
    labels = np.zeros((1, 15, 45), np.int32)
    labels[0, ::2, 1:44] = 1
    labels[0, 1::4, 43] = labels[0, 3::4, 1] = 1
    labels[0, 0:3, 1:4] = 1
    pixels = torch.from_numpy(drawn_pixels({"Cells": labels}, 1))
    batch = make_batch(("A",), pixels, {"Cells": torch.from_numpy(labels)}, {}, device)
    outlines(batch, device)
    depths(batch, device)

    def work(other: Device) -> torch.Tensor:
        return radial.measure(carried(batch, other), FeatureSettings(radial=RadialSettings(bins=1)), other)

    way.check(work)


def test_radial_zernike_same_in_all_ways(way: Way, device: Device) -> None:
    labels = np.zeros((2, 9, 13), np.int32)
    labels[0][ellipse(9, 13, 4, 5, 4, 3)] = 1
    labels[1, 2:4, 3:11], labels[1, 8, 12] = 1, 2
    pixels = torch.from_numpy(drawn_pixels({"Cells": labels}, 1))
    batch = make_batch(("A",), pixels, {"Cells": torch.from_numpy(labels)}, {}, device)
    outlines(batch, device)  # kept with the scene; it has tests of its own

    def work(other: Device) -> torch.Tensor:
        return radial.zernike(carried(batch, other), other)

    way.check(work)
