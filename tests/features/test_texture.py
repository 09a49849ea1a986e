"""Texture against mahotas, object by object, on drawn fields with every edge case."""

import warnings

import mahotas
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from jumpgpu.features import texture
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.settings.config import FeatureSettings, TextureSettings

CHANNELS = ("DNA", "RNA")


def draw(height=97, width=131):
    """Two fields of two channels, the first empty: labels and pixels with one-pixel, border, touching, constant, dim,
    every-level and saturated objects."""
    rng = np.random.default_rng(7)
    labels = np.zeros((2, height, width), np.int32)
    pixels = rng.normal(0.12, 0.03, (2, len(CHANNELS), height, width)).clip(0, 1)
    field, yx = labels[1], np.mgrid[:height, :width]
    for number, (y, x, radius) in enumerate(
        [(0, 40, 17), (30, 60, 16), (31, 90, 18), (70, 20, 15), (75, 100, 25), (60, 55, 14)], 1
    ):
        field[((yx[0] - y) ** 2 + (yx[1] - x) ** 2 < radius**2) & (field == 0)] = number
    field[90:97, 0:9] = 7
    field[50, 3] = 8
    pixels[1, :, field == 2] = 77 / 255  # constant
    pixels[1, :, field == 4] = 0.001  # too dim to count
    pixels[1, :, field == 5] = rng.random((int((field == 5).sum()), len(CHANNELS)))  # every level
    pixels[1, :, field == 6] = np.minimum(pixels[1, :, field == 6] * 8, 1)  # saturated patch
    return torch.from_numpy(pixels.astype(np.float32)), {"Cells": torch.from_numpy(labels)}


def haralick(pixels, labels, scale, levels=256):
    """mahotas on each object's crop, CellProfiler's way; [N, 4, 13], 0 where mahotas refuses."""
    eight = np.rint(np.clip(pixels * np.float32(255), 0, 255)).astype(np.uint8)
    if levels != 256:
        eight = (eight / 255 * (levels - 1)).astype(np.uint8)
    out = np.zeros((labels.max(), 4, 13))
    for number in range(1, labels.max() + 1):
        y, x = np.nonzero(labels == number)
        box = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
        crop = np.where(labels[box] == number, eight[box], 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mahotas takes roots of rounding errors below zero
            try:
                out[number - 1] = mahotas.features.haralick(crop, distance=scale, ignore_zeros=True)
            except ValueError:
                out[number - 1] = 0
    return np.nan_to_num(out, nan=0.0)


@pytest.mark.parametrize("levels", [256, 16])
def test_texture_equals_mahotas(device, levels):
    pixels, labels = draw()
    settings = FeatureSettings(texture=TextureSettings(scales=(1, 3, 10), levels=levels))
    batch = make_batch(CHANNELS, pixels, labels, {}, device)
    got = texture.measure(batch, settings, device).numpy()
    names = texture.columns("Cells", CHANNELS, settings)
    assert got.shape == (8, len(names))
    # float64 throughout, but mahotas sums thousands of rounded p log p where the kernel sums integers
    tolerance = {"InfoMeas1": 1e-10, "InfoMeas2": 1e-6}  # InfoMeas2 is the root of 1 - exp(-2 x): digits halve near 0
    wanted = {
        (channel, scale): haralick(pixels[1, c].numpy(), labels["Cells"][1].numpy(), scale, levels)
        for c, channel in enumerate(CHANNELS)
        for scale in settings.texture.scales
    }
    for i, name in enumerate(names):
        _, _, measurement, channel, scale, direction, _ = name.split("_")
        want = wanted[channel, int(scale)][:, int(direction), texture.MEASUREMENTS.index(measurement)]
        assert_allclose(got[:, i], want, rtol=1e-9, atol=tolerance.get(measurement, 1e-11), err_msg=name)


def test_texture_of_an_empty_object_is_nan(device):
    pixels, labels = draw()
    empty = {**labels, "Nuclei": torch.zeros_like(labels["Cells"])}
    settings = FeatureSettings(texture=TextureSettings(scales=(3,)))
    got = texture.measure(make_batch(CHANNELS, pixels, empty, {}, device), settings, device)
    half = got.shape[1] // 2
    assert not torch.isnan(got[:, :half]).any()
    assert torch.isnan(got[:, half:]).all()


def test_texture_of_an_object_beyond_the_fine_logarithms(device):
    rng = np.random.default_rng(3)
    pixels = torch.from_numpy(rng.random((1, 1, 400, 700)).astype(np.float32)) * 0.1
    labels = {"Cells": torch.ones(1, 400, 700, dtype=torch.int32)}
    settings = FeatureSettings(texture=TextureSettings(scales=(5,)))
    got = texture.measure(make_batch(("DNA",), pixels, labels, {}, device), settings, device).numpy().reshape(13, 4)
    want = haralick(pixels[0, 0].numpy(), labels["Cells"][0].numpy(), 5)[0].T
    assert_allclose(got[:11], want[:11], rtol=1e-9, atol=1e-11)
    assert_allclose(got[11:], want[11:], atol=1e-6)  # both vanish for noise


@pytest.mark.parametrize(("levels", "word"), [(1, "2 .. 256"), (257, "2 .. 256")])
def test_texture_refuses_impossible_grey_levels(device, levels, word):
    pixels, labels = draw()
    batch: ObjectBatch = make_batch(CHANNELS, pixels, labels, {}, device)
    with pytest.raises(ValueError, match=word):
        texture.measure(batch, FeatureSettings(texture=TextureSettings(levels=levels)), device)
