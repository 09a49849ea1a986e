"""Texture's kernels give the same bits in every way there is to run them, whole matrices and row tiles alike."""

import torch

from jumpgpu.config import FeatureSettings, TextureSettings
from jumpgpu.features import texture
from jumpgpu.objects import make_scene


def work(device, *, levels, spread):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(2, 1, 15, 19, generator=generator) * spread + 0.2
    labels = torch.zeros(2, 15, 19, dtype=torch.int32)
    labels[0, 0:9, 2:12] = 1
    labels[0, 9:14, 5:19] = 2
    labels[1, 3, 3] = 1
    labels[1, 4:14, 8:17] = 2
    pixels[1, 0, 4:14, 8:17] = 0.5
    scene = make_scene(("DNA",), device.tensor(pixels), {"Cells": device.tensor(labels)}, {}, device)
    return texture.measure(scene, FeatureSettings(texture=TextureSettings(scales=(1, 3), levels=levels)), device)


def test_texture_with_whole_matrices(way):
    way.check(lambda device: work(device, levels=256, spread=0.06))


def test_texture_with_one_direction_at_a_time(way):
    way.check(lambda device: work(device, levels=256, spread=0.2))


def test_texture_with_row_tiles(way):
    way.check(lambda device: work(device, levels=256, spread=0.8))
