"""The kernels of outline, shape, zernike and intensity give the same bits in all their ways."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from jumpgpu.features import area_shape as shape
from jumpgpu.features import intensity
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.features.order_statistics import order_statistics
from jumpgpu.features.outline import areas, outlines, trace
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, ShapeSettings
from tests.helpers.scenes import drawn_pixels, ellipse
from tests.simulators.ways import HostDevice, Way

SETTINGS = FeatureSettings(shape=ShapeSettings(advanced=True, convex_area=True))


def small_scenes() -> Iterator[ObjectBatch]:
    """Two fields with touching, odd and empty objects; one object taller than a band, one wider than a word."""
    labels = {c: np.zeros((2, 9, 13), np.int32) for c in ("Cells", "Nuclei")}
    labels["Cells"][0][ellipse(9, 13, 4, 4, 5, 4, 0.4)] = 1
    labels["Cells"][0, 3:5, 3:5] = 0
    labels["Cells"][0, 0:6, 10:] = 2
    labels["Cells"][1, 8, 12] = 1
    labels["Nuclei"][0, 2:6, 2:7] = 1
    tall = np.zeros((1, 66, 67), np.int32)
    tall[0, 1:65, 2] = 1
    tall[0, 65, 1:66] = 2
    host = HostDevice("serial")
    for drawn in (labels, {"Cells": tall}):
        pixels = torch.from_numpy(drawn_pixels({c: v[:, :, :] for c, v in drawn.items()}, 2))
        yield make_batch(("A", "B"), pixels, {c: torch.from_numpy(v) for c, v in drawn.items()}, {}, host)


def prepared(batch: ObjectBatch, *kept: str) -> ObjectBatch:
    """The scene with only these of the things derived from it, made by the serial build."""
    host = HostDevice("serial")
    outlines(batch, host)
    areas(batch, host)
    order_statistics(batch, host)
    return dataclasses.replace(batch, derived={name: batch.derived[name] for name in kept})


def test_outlines_same_in_all_ways(way: Way) -> None:
    for batch in small_scenes():

        def work(device: Device, batch: ObjectBatch = batch) -> object:
            result = trace(prepared(batch), device)
            o = batch.objects
            edge = [
                result.edge[r // o.n, int(o.start[r]) : int(o.start[r]) + int(result.counts[r, 4])].clone()
                for r in range(o.rows)
            ]
            return result.counts, result.extent, result.moments, torch.cat(edge)

        way.check(work)


def test_shape_same_in_all_ways(way: Way) -> None:
    batch = next(small_scenes())
    way.check(lambda device: shape.measure(prepared(batch, "outlines"), SETTINGS, device))


def test_intensity_same_in_all_ways(way: Way) -> None:
    batch = next(small_scenes())
    way.check(lambda device: intensity.intensities(prepared(batch, "outlines", "areas", "order"), device))
    way.check(lambda device: intensity.count_brightest(prepared(batch, "order"), device))
