"""The radial kernels give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.features import radial_distribution as radial
from jumpgpu.features.distance_map import CHUNK, depths
from jumpgpu.features.objects import ObjectBatch, make_batch
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


def test_large_objects_same_in_all_ways(way: Way, device: Device) -> None:
    """Objects with bays and holes, of several arcs a line; rings of more pixels than a warp takes at once; nine channels."""
    rng = np.random.default_rng(6)
    labels = np.zeros((1, 43, 61), np.int32)
    labels[0][ellipse(43, 61, 20, 22, 19, 22)] = 1
    labels[0][ellipse(43, 61, 14, 20, 5, 7)] = 0  # a hole
    labels[0][24:26, 0:20] = 0  # a bay
    labels[0][rng.random((43, 61)) < 0.01] = 0
    labels[0][:, 50:] = np.where(rng.random((43, 11)) < 0.9, 2, 0)  # touches three borders
    pixels = torch.from_numpy(drawn_pixels({"Cells": labels}, 9))
    batch = make_batch("ABCDEFGHI", pixels, {"Cells": torch.from_numpy(labels)}, {}, device)
    outlines(batch, device)

    def work(other: Device) -> tuple[torch.Tensor, ...]:
        moved = carried(batch, other)
        depth = depths(moved, other)
        table = radial.measure(moved, FeatureSettings(radial=RadialSettings(bins=4)), other)
        inside = torch.from_numpy(np.isin(np.arange(depth.n_map), places(batch)))
        return table, depth.radii, depth.centre, torch.where(inside, depth.squared.cpu(), 0)

    def places(batch: ObjectBatch) -> np.ndarray:
        """Entries of the map that lie in a box; those between are never written."""
        result, first = [], 0
        for y0, x0, y1, x1 in batch.objects.box.tolist():
            pitch = -(-(x1 - x0) // CHUNK) * CHUNK
            result += [first + y * pitch + x for y in range(y1 - y0) for x in range(x1 - x0)]
            first += (y1 - y0) * pitch
        return np.array(result)

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
