"""Rings around other objects' centres beside a NumPy twin of CellProfiler 4.2.8's arithmetic."""

import numpy as np
import pytest
import torch
from centrosome.cpmorphology import centers_of_labels, distance_to_edge
from centrosome.propagate import propagate
from scipy import ndimage, sparse

from jumpgpu.features import radial_centres
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Touching cells, one of them hollow around its nucleus, one without a nucleus, and one nucleus outside every cell."""
    random = np.random.default_rng(3)
    cells = np.zeros((2, 53, 71), np.int32)
    cells[0, 4:24, 5:30], cells[0, 10:40, 30:52], cells[0, 44:52, 2:30], cells[0, 30:42, 5:20] = 1, 2, 3, 4
    cells[1, 0:20, 40:71] = 1
    nuclei = np.zeros_like(cells)
    nuclei[0, 8:14, 10:17], nuclei[0, 20:28, 38:44], nuclei[0, 33:37, 10:14], nuclei[0, 2:5, 60:66] = 1, 2, 3, 4
    nuclei[1, 5:9, 50:57] = 1
    cells[0][nuclei[0] == 2] = 0
    return cells, nuclei, random.random((2, 53, 71)).astype(np.float32)


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize(("rings", "reach"), [(4, 0), (16, 0), (5, 12), (3, 200)])
def test_rings_are_cellprofilers(device: Device, rings: int, reach: int, edges: bool) -> None:
    cells, nuclei, image = drawn()
    labels, others = torch.from_numpy(cells), torch.from_numpy(nuclei)
    centres = radial_centres.find_centres(labels, others, device, edges=edges)
    batch = make_batch(["DNA"], torch.from_numpy(image)[:, None], {"Cells": labels}, {}, device)
    result = radial_centres.measure(batch, centres, rings, reach, device).numpy()[:, 0]
    theirs = np.concatenate([twin(cells[k], nuclei[k], image[k], rings, reach, edges) for k in range(2)])
    # CellProfiler's float32 sums differ from ours by their order alone: 1e-5 of a share.
    np.testing.assert_allclose(result, theirs, rtol=1e-5, atol=1e-7)


def twin(labels: np.ndarray, others: np.ndarray, image: np.ndarray, rings: int, reach: int, edges: bool) -> np.ndarray:
    """[objects, 3, rings + 1] by the module's own steps."""
    n = labels.max()
    deep = distance_to_edge(labels)
    i, j = (centers_of_labels(others) + 0.5).astype(int)
    seeds = others
    if not edges:
        seeds = np.zeros(others.shape, int)
        seeds[i, j] = np.arange(1, len(i) + 1)
    of, way = propagate(np.zeros(others.shape), seeds, labels != 0, 1)
    of[labels == 0] = 0
    missing = (labels != 0) & (of == 0)
    for label in np.unique(labels[missing]):
        y, x = centers_of_labels(labels)[:, label - 1]
        best = np.argsort((y - i) ** 2 + (x - j) ** 2)[0] + 1
        mine = missing & (labels == label)
        of[mine] = best
        at = np.argwhere(mine)
        way[mine] = np.hypot(at[:, 0] - i[best - 1], at[:, 1] - j[best - 1])
    good = of > 0
    if edges:
        good &= others == 0
    near = np.zeros(labels.shape)
    near[good] = way[good] / reach if reach else way[good] / (way[good] + deep[good] + 0.001)
    ring = np.minimum((near * rings).astype(int), rings)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    dy, dx = y - np.where(good, i[of - 1], 0), x - np.where(good, j[of - 1], 0)
    wedge = (dy > 0) + 2 * (dx > 0) + 4 * (abs(dy) > abs(dx))
    place = labels[good] - 1, ring[good]
    total = sparse.coo_matrix((image[good], place), (n, rings + 1)).toarray()
    count = sparse.coo_matrix((np.ones(good.sum()), place), (n, rings + 1)).toarray()
    with np.errstate(invalid="ignore"):
        share = total / total.sum(1, keepdims=True)
        mean = share / (count / count.sum(1, keepdims=True) + np.finfo(float).eps)
    spread = np.zeros((n, rings + 1))
    for k in range(rings + 1):
        mine = good & (ring == k)
        to = labels[mine] - 1, wedge[mine]
        sums = sparse.coo_matrix((image[mine], to), (n, 8)).toarray()
        there = sparse.coo_matrix((np.ones(mine.sum()), to), (n, 8)).toarray()
        means = np.ma.masked_array(sums / np.maximum(there, 1), there == 0)
        spread[:, k] = np.where((there > 0).any(1), np.ma.filled(means.std(1) / means.mean(1), 0), 0)
    assert ndimage.find_objects(labels)
    return np.stack([share, mean, spread], 1)
