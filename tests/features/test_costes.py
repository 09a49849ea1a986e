"""Costes' thresholds against cp_measure, and the coefficients above them against NumPy."""

import math

import numpy as np
import pytest
import torch
from cp_measure.core.measurecolocalization import bisection_costes

from jumpgpu.features import correlation, costes
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import CorrelationSettings, FeatureSettings
from tests.helpers.scenes import drawn_labels, drawn_scene, row_masks

CHANNELS = ("B", "A")
PAIRS = [[1, 0]]


def correlated(fields: int = 2, height: int = 150, width: int = 140, seed: int = 5) -> np.ndarray:
    """float32 [B, 2, H, W]: a common signal over uncorrelated backgrounds, larger than one run."""
    rng = np.random.default_rng(seed)
    signal = rng.gamma(0.3, 0.1, (fields, 1, height, width)) * (rng.random((fields, 1, height, width)) < 0.2)
    noise = rng.gamma(4, 0.01, (fields, 2, height, width))
    return np.clip(np.round((signal * [[[[1.0]], [[0.6]]]] + noise) * 65535) / 65535, 0, 1).astype(np.float32)


@pytest.mark.parametrize("levels", [255, 65535])
def test_thresholds(levels: int, device: Device) -> None:
    pixels = correlated()
    result = costes.thresholds(torch.from_numpy(pixels), PAIRS, levels, device)
    assert len(result) == len(pixels)
    for plane, both in zip(pixels, result, strict=True):
        a, b = plane[1].ravel().astype(float), plane[0].ravel().astype(float)
        # The grid's steps are the same; the regression line has float64's accuracy on both sides.
        np.testing.assert_allclose(both, bisection_costes(None, None, a, b, levels), rtol=1e-9)


def test_columns(device: Device) -> None:
    batch = drawn_scene(device, drawn_labels(), CHANNELS)
    settings = FeatureSettings(correlation=CorrelationSettings(costes=True))
    limits = np.array(costes.thresholds(batch.pixels, PAIRS, 65535, device), np.float32)
    table = correlation.measure(batch, settings, device).numpy()
    names = [c for name in batch.objects.compartments for c in correlation.columns(name, CHANNELS, settings)]
    assert names[5:10] == [f"Cells_Correlation_{m}" for m in ("Costes_A_B", "K_B_A", "Manders_B_A", "RWC_B_A", "Costes_B_A")]
    for row, (field, _, name, mask) in enumerate(row_masks(batch)):
        b, a = batch.pixels[field].numpy()[:, mask].astype(float)
        both = (a > limits[field, 0]) & (b > limits[field, 1])
        for values, limit, column in ((a, limits[field, 0], "Costes_A_B"), (b, limits[field, 1], "Costes_B_A")):
            total = values[values >= limit].sum()
            wanted = values[both].sum() / total if total else math.nan
            result = table[row % batch.objects.n, names.index(f"{name}_Correlation_{column}")]
            assert result == pytest.approx(wanted, rel=1e-12, nan_ok=True), (row, column)


def test_images_without_a_threshold(device: Device) -> None:
    """Constant channels, and a field with one bright pixel: no line, no correlation, no number, and no endless search."""
    pixels = torch.zeros(2, 2, 6, 7)
    pixels[0] = 0.25
    pixels[1, 0, 2, 2] = 0.5
    labels = torch.ones(2, 6, 7, dtype=torch.int32)
    batch = make_batch(("A", "B"), pixels, {"Cells": labels}, {}, device)
    result = costes.coefficients(batch, [[0, 1]], 65535, device)
    assert result.flatten().tolist() == [0] * 4


@pytest.mark.parametrize("levels", [255, 4095, 65535])
def test_the_search_by_level_is_that_of_the_exact_sums(levels: int, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.from_numpy(correlated(3, seed=9))
    pixels[2, 1] *= 3e-4  # a flat line
    quick = costes.thresholds(pixels, PAIRS, levels, device)
    monkeypatch.setattr(costes, "levels_of", lambda *_: {})
    assert costes.thresholds(pixels, PAIRS, levels, device) == quick


def test_sums_by_level_are_of_the_pixels_below(device: Device) -> None:
    pixels = torch.from_numpy(correlated(1))
    sums = costes.Moments(pixels, PAIRS, device)
    grid = torch.arange(256, dtype=torch.float64) / 255
    line = (0.5, 0.01)
    limit = torch.stack([grid, line[0] * grid + line[1]]).float()
    by_level = costes.Below(sums, 0, line, 255)
    by_level.look([3, 40, 200])
    a, b = pixels[0, 1].flatten().double().numpy(), pixels[0, 0].flatten().double().numpy()
    for level in (0, 3, 9, 40, 200):  # some of which are not known
        below = (a < float(limit[0, level])) | (b < float(limit[1, level]))
        row = by_level(costes.Search(255, last=-1, mid=level))
        assert row is None or row[0] == below.sum()
        if row is not None and row[0] > 2:
            wanted = np.cov(a[below], b[below], bias=True) * below.sum()
            np.testing.assert_allclose(row[1:], [wanted[0, 0], wanted[1, 1], wanted[0, 1]], rtol=1e-6)
    assert by_level(costes.Search(255, last=-1, mid=200)) is not None


def test_limits_above_every_pixel_need_no_sums(device: Device) -> None:
    """Of two channels that go apart; and not where a pixel is 0 in both, which the regression leaves out."""
    pixels = torch.rand(2, 2, 20, 30, generator=torch.Generator().manual_seed(4)) * 0.5 + 0.1
    pixels[:, 1] = 0.7 - pixels[:, 0]
    pixels[1, :, 3, 4] = 0
    sums = costes.Moments(pixels, PAIRS, device)
    sums(None, [True] * 2)
    assert sums.all_below(0, (0.2, 0.65)) == sums([(0.2, 0.65)] * 2, [True] * 2)[0]
    assert sums.all_below(0, (0.2, 0.3)) is sums.all_below(1, (0.2, 0.65)) is None
