"""The kernels of outline, shape, zernike and intensity give the same bits in all their ways."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from jumpgpu.features import area_shape as shape
from jumpgpu.features import intensity
from jumpgpu.features.objects import Scene, make_scene
from jumpgpu.features.order_statistics import order_statistics
from jumpgpu.features.outline import areas, outlines, trace
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, ShapeSettings
from tests.helpers.scenes import drawn_pixels, ellipse
from tests.simulators.ways import HostDevice, Way

SETTINGS = FeatureSettings(shape=ShapeSettings(advanced=True, convex_area=True))


def small_scenes() -> Iterator[Scene]:
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
        yield make_scene(("A", "B"), pixels, {c: torch.from_numpy(v) for c, v in drawn.items()}, {}, host)


def prepared(scene: Scene, *kept: str) -> Scene:
    """The scene with only these of the things derived from it, made by the serial build."""
    host = HostDevice("serial")
    outlines(scene, host)
    areas(scene, host)
    order_statistics(scene, host)
    return dataclasses.replace(scene, derived={name: scene.derived[name] for name in kept})


def test_outlines_same_in_all_ways(way: Way) -> None:
    for scene in small_scenes():

        def work(device: Device, scene: Scene = scene) -> object:
            found = trace(prepared(scene), device)
            o = scene.objects
            edge = [
                found.edge[r // o.n, int(o.start[r]) : int(o.start[r]) + int(found.counts[r, 4])].clone()
                for r in range(o.rows)
            ]
            return found.counts, found.extent, found.moments, torch.cat(edge)

        way.check(work)


def test_shape_same_in_all_ways(way: Way) -> None:
    scene = next(small_scenes())
    way.check(lambda device: shape.measure(prepared(scene, "outlines"), SETTINGS, device))


def test_intensity_same_in_all_ways(way: Way) -> None:
    scene = next(small_scenes())
    way.check(lambda device: intensity.intensities(prepared(scene, "outlines", "areas", "order"), device))
