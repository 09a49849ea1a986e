"""Neighbors against SciPy's dilations and centres and centrosome's outlines, discarded objects and edge cases among them."""

from typing import Any

import numpy as np
import pytest
import torch
from centrosome.outline import outline
from scipy.ndimage import binary_dilation, center_of_mass

from jumpgpu.features import neighbors
from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, NeighborsSettings
from tests.helpers.scenes import drawn_labels, drawn_pixels, ellipse


def disk(radius: float) -> np.ndarray:
    axis = np.arange(-int(radius), int(radius) + 1)
    return axis[:, None] ** 2 + axis**2 <= radius**2


def expected(labels: np.ndarray, n: int, distance: int) -> np.ndarray:
    """[n, 7] of one field, whose labels 1 .. n are kept."""
    out = np.zeros((n, len(neighbors.MEASUREMENTS)))
    present = [m for m in range(1, labels.max() + 1) if (labels == m).any()]
    centres = {m: np.array(center_of_mass(labels == m)) for m in present}
    edges = outline(labels)
    for number in range(1, n + 1):
        mask = labels == number
        if not mask.any():
            out[number - 1, [3, 5, 6]] = np.nan
            continue
        others = (labels > 0) & ~mask
        reached = np.unique(labels[binary_dilation(mask, disk(distance))])
        touching = (edges == number) & binary_dilation(others, disk(distance + 0.5))
        from_here = {m: np.linalg.norm(centres[m] - centres[number]) for m in present if m != number}
        near = sorted(from_here, key=from_here.__getitem__)[:2]
        near_kept = sorted((m for m in from_here if m <= n), key=from_here.__getitem__)[:2]
        result = [np.sum((reached > 0) & (reached != number)), 100 * touching.sum() / np.sum(edges == number)]
        for k in range(2):
            result += [near_kept[k] if k < len(near_kept) else 0, from_here[near[k]] if k < len(near) else 0]
        if len(near) == 2:
            a, b = (centres[m] - centres[number] for m in near)
            with np.errstate(invalid="ignore"):  # rounded above 1: nan, as in CellProfiler
                cosine = np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))
                result.append(np.degrees(np.arccos(cosine)))
        out[number - 1, : len(result)] = result
    return out


def with_discarded(labels: np.ndarray) -> np.ndarray:
    """Further objects above each field's count: where there is room, and one that a kept object took over."""
    out = labels.copy()
    for b in range(len(out)):
        for i, (y, x) in enumerate([(30, 0), (0, 70), (55, 62), (82, 40)]):
            blob = ellipse(*out.shape[1:], y, x, 7, 5) & (out[b] == 0)
            out[b][blob] = labels[b].max() + 1 + i
        y, x = np.argwhere(labels[b] == 1)[:3].T  # some of its outline
        out[b, y, x] = out[b].max() + 1
    return out


@pytest.mark.parametrize("discarded", [False, True])
def test_columns(discarded: bool, device: Device) -> None:
    labels = drawn_labels()
    labels["Cells"] = np.concatenate([labels["Cells"], labels["Cells"][:1] == 1, np.minimum(labels["Cells"][:1], 2)]).astype(
        np.int32
    )  # a field with one object, one with two
    for name in ("Cytoplasm", "Nuclei"):
        labels[name] = np.concatenate([labels[name], np.zeros_like(labels[name][:2])])
    unfiltered = {"Cells": with_discarded(labels["Cells"])} if discarded else {}
    distances = {"Cells": (5, 0), "Cytoplasm": (8,), "Nuclei": (1, 3)}
    settings = FeatureSettings(neighbors=NeighborsSettings(**{k.lower(): v for k, v in distances.items()}))
    tensors, pixels = ({k: torch.from_numpy(v) for k, v in d.items()} for d in (labels, {"": drawn_pixels(labels, 1)}))
    whole = {k: torch.from_numpy(v) for k, v in unfiltered.items()}
    batch = make_batch(("DNA",), pixels[""], tensors, whole, device)
    table, at = neighbors.measure(batch, settings, device).numpy(), 0
    counts = batch.objects.n_cells
    for name, of_name in distances.items():
        names = neighbors.columns(name, ("DNA",), settings)
        for distance in of_name:
            planes = unfiltered.get(name, labels[name])
            wanted = np.concatenate([expected(p, n, distance or 1) for p, n in zip(planes, counts, strict=True)])
            for i in range(len(neighbors.MEASUREMENTS)):
                # Centres are exact quotients; the angle's arc cosine costs digits near 0 and 180 degrees.
                tolerance = {"rtol": 1e-7, "atol": 2e-6} if i == 6 else {"rtol": 1e-12, "atol": 0}
                np.testing.assert_allclose(table[:, at], wanted[:, i], **tolerance, err_msg=names[i])
                at += 1
    assert at == table.shape[1]


def test_names_and_wrong_distances() -> None:
    settings = FeatureSettings(neighbors=NeighborsSettings(nuclei=(1, -3)))
    assert neighbors.columns("Cells", (), settings)[::7] == [
        "Cells_Neighbors_NumberOfNeighbors_5",
        "Cells_Neighbors_NumberOfNeighbors_Adjacent",
    ]
    assert neighbors.columns("Blobs", (), settings) == []
    with pytest.raises(ValueError, match="distances of 0 or more"):
        neighbors.columns("Nuclei", (), settings)


def grid_of_objects(side: int, device: Device) -> ObjectBatch:
    """side^2 objects of one pixel, three apart."""
    labels = np.zeros((3 * side + 2, 3 * side + 5), np.int32)
    labels[1 : 3 * side : 3, 2 : 3 * side + 1 : 3] = np.arange(1, side * side + 1).reshape(side, side)
    pixels = device.tensor(np.zeros((1, 1, *labels.shape), np.float32))
    return make_batch(("A",), pixels, {"Cells": device.tensor(labels[None])}, {}, device)


SETTINGS = FeatureSettings(neighbors=NeighborsSettings(cells=(5, 0), nuclei=()))


def test_thousands_of_objects(device: Device) -> None:
    side = 120
    table = neighbors.measure(grid_of_objects(side, device), SETTINGS, device).numpy()
    counts = table[:, 0].reshape(side, side)
    assert (counts[1:-1, 1:-1] == 8).all()  # the eight around it are 3 or 4.2 pixels away
    assert counts[0, 0] == counts[-1, -1] == 3
    assert (counts[0, 1:-1] == 5).all()
    assert (table[:, 7] == 0).all()  # none is adjacent
    assert (table[:, [3, 5]] == 3).all()
    first = table[:, 2].reshape(side, side)
    number = np.arange(1, side * side + 1).reshape(side, side)
    np.testing.assert_array_equal(first[1:], number[:-1])  # of four at the same distance the lowest number, which is above


def test_memory_grows_with_the_objects_not_with_their_square(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """90,000 objects asked for 64.8 GB."""
    taken: list[int] = []
    for name in ("empty", "zeros"):
        make = getattr(device, name)

        def counted(*shape: int, make: Any = make, dtype: torch.dtype) -> torch.Tensor:
            output: torch.Tensor = make(*shape, dtype=dtype)
            taken.append(output.numel() * output.element_size())
            return output

        monkeypatch.setattr(device, name, counted)
    bytes_of = {}
    for side in (40, 80):
        batch = grid_of_objects(side, device)
        taken.clear()
        neighbors.measure(batch, SETTINGS, device)
        bytes_of[side] = sum(taken)
    assert bytes_of[80] < 4.2 * bytes_of[40]  # four times the objects, on four times the pixels
    assert bytes_of[80] < 1000 * 80 * 80


def test_a_distance_beyond_the_field_is_the_whole_field(device: Device) -> None:
    labels = drawn_labels(fields=1)
    tensors = {k: torch.from_numpy(v) for k, v in labels.items()}
    batch = make_batch(("A",), torch.from_numpy(drawn_pixels(labels, 1)), tensors, {}, device)
    present = [int((labels["Cells"] == n).sum()) > 0 for n in range(1, batch.objects.n + 1)]
    for far in (131, 184, 500):  # the diagonal, the sides together, and more
        settings = FeatureSettings(neighbors=NeighborsSettings(cells=(far,), nuclei=()))
        table = neighbors.measure(batch, settings, device).numpy()
        assert table[:, 0].tolist() == [(sum(present) - 1) * here for here in present]
        assert table[:, 1].tolist() == [100.0 * here for here in present]
