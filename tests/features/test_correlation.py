"""Correlation of channels against NumPy and SciPy on drawn scenes, its edge cases among them."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from jumpgpu.features import correlation
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import CorrelationSettings, FeatureSettings
from tests.helpers.scenes import drawn_labels, drawn_pixels, ragged_labels, row_masks

CHANNELS = ("DNA", "ER", "AGP")
# Both sides add in float64, in another order; the terms are at most 1, and there are hundreds.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-12}


def expected(batch: ObjectBatch, share: float) -> dict[str, np.ndarray]:
    """Column -> [N], object by object in plain NumPy."""
    pixels, out = batch.pixels.numpy(), {}
    for row, (field, _, name, mask) in enumerate(row_masks(batch)):
        cell, labelled = row % batch.objects.n, batch.labels[name][field].numpy() > 0
        for x, y in combinations(sorted(batch.channels), 2):
            planes = [pixels[field, batch.channels.index(c)] for c in (x, y)]
            ranks = [rankdata(p[labelled].astype(float), "dense") - 1 for p in planes]
            maximum = max(r.max() for r in ranks) + 1
            weights = np.zeros(mask.shape)
            weights[labelled] = 1 - np.abs(ranks[0] - ranks[1]) / maximum
            a, b = (p[mask] for p in planes)
            wide_a, wide_b = a.astype(float), b.astype(float)
            minimum = [np.float32(share / 100) * p.max() if p.size else np.float32(0) for p in (a, b)]
            both = (a >= minimum[0]) & (b >= minimum[1])
            with np.errstate(invalid="ignore", divide="ignore"):
                da, db = (v - v.sum() / np.float64(v.size) for v in (wide_a, wide_b))
                totals = [p[p >= t].sum(dtype=float) for p, t in ((a, minimum[0]), (b, minimum[1]))]
                ab, aa, bb = (p[both].sum(dtype=float) for p in (a * b, a * a, b * b))
                w = weights[mask]
                row_values = {
                    ("Correlation", x, y): np.sum(da * db) / np.sqrt(np.sum(da**2) * np.sum(db**2)) if a.size else np.nan,
                    ("Overlap", x, y): ab / np.sqrt(aa * bb),
                    ("K", x, y): ab / aa,
                    ("K", y, x): ab / bb,
                    ("Manders", x, y): wide_a[both].sum() / totals[0],
                    ("Manders", y, x): wide_b[both].sum() / totals[1],
                    ("RWC", x, y): (wide_a * w)[both].sum() / totals[0],
                    ("RWC", y, x): (wide_b * w)[both].sum() / totals[1],
                }
            for (measure, first, second), value in row_values.items():
                column = f"{name}_Correlation_{measure}_{first}_{second}"
                out.setdefault(column, np.full(batch.objects.n, -1.0))[cell] = value
    return out


def drawn(kind: str, device: Device) -> ObjectBatch:
    labels = ragged_labels() if kind == "ragged" else drawn_labels()
    pixels = drawn_pixels(labels, len(CHANNELS))
    if kind == "dark":  # zeros: thresholds of 0, sums of 0
        pixels[0, 0] = 0
        pixels[2, 1] *= labels["Cells"][2] % 3 == 0
    tensors = {c: device.tensor(v) for c, v in labels.items()}
    return make_batch(CHANNELS, device.tensor(pixels), tensors, {}, device)


@pytest.mark.parametrize("kind", ["nested", "ragged", "dark"])
@pytest.mark.parametrize("share", [15.0, 60.0])
def test_columns(kind: str, share: float, device: Device) -> None:
    batch = drawn(kind, device)
    settings = FeatureSettings(correlation=CorrelationSettings(threshold=share))
    table = correlation.measure(batch, settings, device).numpy()
    names = [c for name in batch.objects.compartments for c in correlation.columns(name, CHANNELS, settings)]
    wanted = expected(batch, share)
    assert sorted(names) == sorted(wanted)
    for column, values in zip(names, table.T, strict=True):
        np.testing.assert_allclose(values, wanted[column], **TOLERANCE, err_msg=column)


def test_zero_where_no_pixel_of_the_field_counts(device: Device) -> None:
    """CellProfiler looks for a counted pixel in the whole image before it divides."""
    labels = torch.ones(1, 2, 4, dtype=torch.int32)
    pixels = torch.tensor([[[[1, 1, 0, 0]] * 2, [[0, 0, 1, 1]] * 2]], dtype=torch.float32)
    batch = make_batch(("A", "B"), pixels, {"Cells": labels}, {}, device)
    correlated, *rest = correlation.measure(batch, FeatureSettings(), device)[0].tolist()
    assert correlated == pytest.approx(-1, abs=1e-12)
    assert rest == [0] * 7
