"""Zernike magnitudes against centrosome on 10,000 drawn objects at positions up to 2160, as CellProfiler has them.

A vertex that lies on the smallest enclosing circle counts or not by the last bit of the radius. That bit follows from which
vertices the circle was made of, hence from how centrosome rounds angles and, of equal ones, which it takes.
"""

import warnings

import mpmath
import numpy as np
import pytest
import torch

from jumpgpu.features import area_shape
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # centrosome's own
    from centrosome import cpmorphology
    from centrosome.cpmorphology import minimum_enclosing_circle
    from centrosome.zernike import construct_zernike_polynomials, get_zernike_indexes

SIDE, FIELDS, OBJECTS = 2160, 13, 800
# (field, number) where centrosome counts another vertex, for one of two reasons, neither of which is the object's own: of
# vertices whose rounded angles are equal it takes the one that an unstable sort of all angles of the *field* puts first, and
# NumPy's arc cosine misses the nearest double for one value in eleven (AVX-512). With angles rounded to nearest, and the
# first of equal ones in the order of the hull, centrosome makes of the object what is made here.
DIFFER = {(0, 724), (3, 28), (5, 34), (7, 657), (12, 509)}


def shape(random: np.random.Generator) -> np.ndarray:
    """bool [h, w]: an ellipse, a star of few waves, a disk, or a rectangle with cut corners; 2 to 90 pixels across."""
    size = int(random.integers(2, 45))
    y, x = np.mgrid[-size - 2 : size + 3, -size - 2 : size + 3]
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    kind = random.integers(4)
    if kind == 0:
        a, b, turn = size, random.uniform(0.4, 1) * size, random.uniform(0, np.pi)
        mask = ((x * np.cos(turn) + y * np.sin(turn)) / a) ** 2 + ((y * np.cos(turn) - x * np.sin(turn)) / b) ** 2 <= 1
    elif kind == 1:
        waves = sum(random.uniform(0, 0.08) * np.cos(k * angle + random.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
        mask = radius <= size * (0.75 + waves)
    elif kind == 2:
        mask = radius <= size * random.uniform(0.5, 1)
    else:
        h, w = random.integers(1, size + 1, 2)
        mask = (np.abs(y) <= h) & (np.abs(x) <= w) & (np.abs(y) + np.abs(x) <= random.uniform(1, 2) * size)
    rows, columns = np.nonzero(mask)
    return mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def drawn(seed: int) -> np.ndarray:
    """int32 [SIDE, SIDE]: objects at random positions that do not touch."""
    random = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int32)
    n = 0
    while n < OBJECTS:
        mask = shape(random)
        h, w = mask.shape
        y, x = random.integers(0, SIDE - h + 1), random.integers(0, SIDE - w + 1)
        if not labels[max(y - 1, 0) : y + h + 1, max(x - 1, 0) : x + w + 1].any():
            n += 1
            labels[y : y + h, x : x + w][mask] = n
    return labels


def centrosomes(labels: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """float64 [n, 30]: what its `zernike` gives, without planes of numbers for every pixel of the field."""
    n = labels.max()
    centres, radii = minimum_enclosing_circle(labels, np.arange(1, n + 1))
    rows, columns = np.nonzero(labels)
    of = labels[rows, columns] - 1
    y, x = (rows - centres[of, 0]) / radii[of], (columns - centres[of, 1]) / radii[of]
    values = construct_zernike_polynomials(x, y, orders)
    sums = [[np.bincount(of, part[:, i], n) for part in (values.real, values.imag)] for i in range(len(orders))]
    return np.stack([np.hypot(re, im) / (np.pi * radii**2) for re, im in sums], axis=1)


def nearest_arccos(cosines: np.ndarray) -> np.ndarray:
    with mpmath.workdps(50):
        return np.array([float(mpmath.acos(mpmath.mpf(c))) for c in np.ravel(cosines).tolist()]).reshape(np.shape(cosines))


def first_minimum(values: np.ndarray, labels: np.ndarray, indexes: np.ndarray) -> list[tuple[int]]:
    """Of one label: where its least value stands first."""
    assert (labels == indexes[0]).all()
    return [(int(np.argmin(values)),)]


def test_ten_thousand_objects(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = get_zernike_indexes(10)
    columns = [list(area_shape.ZERNIKE).index((n, m)) for n, m in orders.tolist()]
    differ = set()
    for seed in range(FIELDS):
        labels = drawn(seed)
        batch = make_batch(("A",), torch.zeros(1, 1, SIDE, SIDE), {"Nuclei": torch.from_numpy(labels)[None]}, {}, device)
        ours = area_shape.measure(batch, FeatureSettings(), device).numpy()[:, -len(orders) :][:, columns]
        # sums of up to 6000 terms in another order; a vertex more or less moves them by more than 1e-4
        same = np.isclose(ours, centrosomes(labels, orders), rtol=1e-7, atol=1e-9).all(axis=1)
        for number in (np.flatnonzero(~same) + 1).tolist():
            differ.add((seed, number))
            alone = (labels == number).astype(int)
            with monkeypatch.context() as patch:
                patch.setattr(np, "arccos", nearest_arccos)
                patch.setattr(cpmorphology.scind, "minimum_position", first_minimum)
                theirs = centrosomes(alone, orders)[0]
            np.testing.assert_allclose(ours[number - 1], theirs, rtol=1e-7, atol=1e-9, err_msg=f"{seed}: {number}")
    assert differ == DIFFER or len(differ) <= 1e-3 * FIELDS * OBJECTS  # another NumPy rounds and sorts otherwise


@pytest.mark.parametrize("position", [(0, 0), (1024, 2071), (2100, 3)])
def test_a_square_of_disks_at_any_position(position: tuple[int, int], device: Device) -> None:
    """Many vertices on one circle: whatever the position, each object is what centrosome makes of it alone."""
    orders = get_zernike_indexes(10)
    columns = [list(area_shape.ZERNIKE).index((n, m)) for n, m in orders.tolist()]
    y, x = np.mgrid[:SIDE, :SIDE]
    for squared in (25, 50, 65, 85, 325, 425):  # sums of two squares in several ways
        labels = ((y - position[0] - 20) ** 2 + (x - position[1] - 20) ** 2 <= squared).astype(np.int32)
        batch = make_batch(("A",), torch.zeros(1, 1, SIDE, SIDE), {"Nuclei": torch.from_numpy(labels)[None]}, {}, device)
        ours = area_shape.measure(batch, FeatureSettings(), device).numpy()[:, -len(orders) :][:, columns]
        np.testing.assert_allclose(ours, centrosomes(labels, orders), rtol=1e-7, atol=1e-9, err_msg=str(squared))
