"""RadialDistribution against SciPy's distances, centrosome's propagation and the module's arithmetic in NumPy."""

import numpy as np
import pytest
import torch
from centrosome.cpmorphology import minimum_enclosing_circle
from centrosome.propagate import propagate
from centrosome.zernike import construct_zernike_polynomials, get_zernike_indexes
from scipy.ndimage import distance_transform_edt

from jumpgpu.features import radial_distribution as radial
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, RadialSettings
from tests.helpers.scenes import drawn_labels, drawn_pixels, ellipse, ragged_labels, row_masks

CHANNELS = ("ER", "DNA")


def winding_labels() -> dict[str, np.ndarray]:
    """A spiral, a comb, a ladder, an object in two pieces and one in a corner: long ways, and pixels that no way reaches."""
    labels = np.zeros((2, 60, 71), np.int32)
    y, x = np.mgrid[:60, :71]
    angle, radius = np.arctan2(y - 27, x - 27), np.hypot(y - 27, x - 27)
    labels[0][((radius - angle * 1.6) % 10 < 5) & (radius < 26)] = 1
    labels[0][:, 56:] = np.where((x % 4 < 2) | (y > 50), 2, 0)[:, 56:]
    labels[1][ellipse(60, 71, 12, 14, 13, 9) | ellipse(60, 71, 45, 30, 9, 8)] = 1
    labels[1][50:, 55:] = 2
    labels[1][30:32, 60] = 3
    labels[1][0:29:2, 35:70] = labels[1][1:29:4, 69] = labels[1][3:29:4, 35] = 4  # a way of more than 500 pixels
    return {"Blobs": labels}


def rings(mask: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Ring and wedge of each pixel, -1 where the centre is out of reach."""
    edge = np.where(mask, distance_transform_edt(mask), 0)
    centre = np.unravel_index(np.argmax(edge), mask.shape)  # the first in raster order
    seeds = np.zeros(mask.shape, int)
    seeds[centre] = 1
    reached, inner = propagate(np.zeros(mask.shape), seeds, mask, 1)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    ring = (inner / (inner + edge + 0.001) * bins).astype(int)
    dy, dx = y - centre[0], x - centre[1]
    wedge = (dy > 0) + 2 * (dx > 0) + 4 * (abs(dy) > abs(dx))
    return np.where(mask & (reached > 0), ring, -1), wedge


def expected(batch: ObjectBatch, bins: int) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for row, (field, _, name, mask) in enumerate(row_masks(batch)):
        if mask.any():
            ring, wedge = rings(mask, bins)
        for c, channel in enumerate(batch.channels):
            plane = batch.pixels[field, c].numpy()
            result = np.full((3, bins), np.nan)
            result[2] = 0
            if mask.any():
                whole = np.zeros(bins, np.float32)
                parts, counts = np.zeros((bins, 8), np.float32), np.zeros((bins, 8))
                for y, x in np.argwhere(ring >= 0):  # float32, one after the other, as scipy.sparse adds
                    whole[ring[y, x]] += plane[y, x]
                    parts[ring[y, x], wedge[y, x]] += plane[y, x]
                    counts[ring[y, x], wedge[y, x]] += 1
                total = np.float32(0)
                for value in whole:
                    total += value
                with np.errstate(invalid="ignore"):
                    result[0] = whole / total
                    result[1] = result[0] / (counts.sum(1) / counts.sum() + np.finfo(float).eps)
                    means = np.ma.masked_array(parts / counts, counts == 0)
                    result[2] = np.ma.filled(np.std(means, 1) / np.mean(means, 1), 0)
            for measure, values in zip(radial.MEASUREMENTS, result, strict=True):
                for bin_, value in enumerate(values):
                    column = f"{name}_RadialDistribution_{measure}_{channel}_{bin_ + 1}of{bins}"
                    out.setdefault(column, np.full(batch.objects.n, -1.0))[row % batch.objects.n] = value
    return out


@pytest.mark.parametrize(("kind", "bins"), [("nested", 4), ("ragged", 3), ("winding", 4), ("dark", 1)])
def test_columns(kind: str, bins: int, device: Device) -> None:
    labels = {"ragged": ragged_labels, "winding": winding_labels}.get(kind, drawn_labels)()
    pixels = drawn_pixels(labels, len(CHANNELS))
    if kind == "dark":
        pixels[:, 0] = 0
    tensors = {c: device.tensor(v) for c, v in labels.items()}
    batch = make_batch(CHANNELS, device.tensor(pixels), tensors, {}, device)
    settings = FeatureSettings(radial=RadialSettings(bins=bins))
    table = radial.measure(batch, settings, device).numpy()
    names = [c for name in batch.objects.compartments for c in radial.columns(name, CHANNELS, settings)]
    wanted = expected(batch, bins)
    assert sorted(names) == sorted(wanted)
    for column, values in zip(names, table.T, strict=True):
        # The same float32 sums; the rest is a few operations in float64.
        np.testing.assert_allclose(values, wanted[column], rtol=1e-12, atol=1e-14, err_msg=column)


def test_wrong_number_of_rings(device: Device) -> None:
    labels = {"Cells": torch.zeros(1, 3, 4, dtype=torch.int32)}
    batch = make_batch(("A",), torch.zeros(1, 1, 3, 4), labels, {}, device)
    with pytest.raises(ValueError, match="bins is 40"):
        radial.measure(batch, FeatureSettings(radial=RadialSettings(bins=40)), device)
    assert radial.measure(batch, FeatureSettings(), device).shape == (0, 12)


def test_zernike(device: Device) -> None:
    labels = drawn_labels()
    tensors = {"Cells": torch.from_numpy(labels["Cells"])}
    batch = make_batch(CHANNELS, torch.from_numpy(drawn_pixels(labels, len(CHANNELS))), tensors, {}, device)
    settings = FeatureSettings(radial=RadialSettings(zernike="magnitudes_and_phase"))
    table = radial.measure(batch, settings, device).numpy()
    names = radial.columns("Cells", CHANNELS, settings)
    assert len(names) == table.shape[1] == 2 * (12 + 60)
    orders = get_zernike_indexes(10)
    for row, (field, _, _, mask) in enumerate(row_masks(batch)):
        (centre,), (radius,) = minimum_enclosing_circle(mask.astype(int), np.array([1]))
        if not radius:
            assert np.isnan(table[row, 24:]).all()
            continue
        y, x = ((np.argwhere(mask) - centre) / radius).T
        polynomials = construct_zernike_polynomials(x, y, orders)
        for c, channel in enumerate(CHANNELS):
            values = batch.pixels[field, c].numpy()[mask].astype(float)
            for k, (n, m) in enumerate(orders):
                moment = np.sum(values * polynomials[:, k])
                result = [
                    table[row, names.index(f"Cells_RadialDistribution_Zernike{w}_{channel}_{n}_{m}")]
                    for w in ("Magnitude", "Phase")
                ]
                # The circle's centre and radius round differently by some 1e-15; the moments are at most the sum of values.
                assert result[0] == pytest.approx(abs(moment) / values.size, rel=1e-9, abs=1e-11)
                if abs(moment) > 1e-6:
                    assert np.exp(1j * result[1]) == pytest.approx(1j * np.conj(moment) / abs(moment), abs=1e-6)


def test_wrong_zernike() -> None:
    with pytest.raises(ValueError, match="zernike is 'phase'"):
        radial.columns("Cells", CHANNELS, FeatureSettings(radial=RadialSettings(zernike="phase")))
