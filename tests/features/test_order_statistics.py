"""Quantiles of objects and dense ranks against NumPy's sort and SciPy's rankdata."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from jumpgpu.features.objects import ObjectBatch, make_batch
from jumpgpu.features.order_statistics import Order, order_statistics, sort_by_library
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.device import Device
from tests.helpers.scenes import drawn_labels, drawn_pixels, drawn_scene, ragged_labels, row_masks


def drawn(kind: str, device: Device) -> ObjectBatch:
    labels = ragged_labels() if kind == "ragged" else drawn_labels()
    if kind == "one":
        labels = {"Blobs": labels["Cells"]}
    if kind == "four":
        labels |= {"Zones": labels["Cells"] * (labels["Nuclei"] == 0)}
    pixels = drawn_pixels(labels, 3)
    if kind == "signs":  # values below 0 and both zeros
        pixels = np.round(pixels * 50 - 20).astype(np.float32) / 7
        pixels[:, :, ::3] *= 0
    if kind == "wide":  # every bit of the values differs
        pixels = np.exp2(pixels * 250 - 125).astype(np.float32) * np.where(pixels > 0.1, 1, -1).astype(np.float32)
    if kind == "constant":
        pixels[:] = 0.25
    channels = ("A", "B", "C")
    return make_batch(channels, device.tensor(pixels), {c: device.tensor(v) for c, v in labels.items()}, {}, device)


def quantiles(values: np.ndarray) -> list[float]:
    """Least, lower quartile, median, upper quartile, MAD and most of float32 [n]; zeros where n is 0."""

    def at(ascending: np.ndarray, fraction: float) -> float:
        place = len(ascending) * fraction
        i = int(place)
        if i >= len(ascending) - 1:
            return float(ascending[i])
        return float(ascending[i] * (1 - (place - i)) + ascending[i + 1] * (place - i))

    if not values.size:
        return [0.0] * 6
    v = np.sort(values.astype(np.float64))
    median = at(v, 0.5)
    return [v[0], at(v, 0.25), median, at(v, 0.75), at(np.sort(np.abs(v - median)), 0.5), v[-1]]


KINDS = ("nested", "ragged", "one", "four", "signs", "wide", "constant")


@pytest.mark.parametrize("kind", KINDS)
def test_order(kind: str, device: Device) -> None:
    batch = drawn(kind, device)
    order, o = order_statistics(batch, device), batch.objects
    for row, (field, number, name, mask) in enumerate(row_masks(batch)):
        at = slice(int(order.row_start[row]), int(order.row_start[row + 1]))
        listed = o.pixel.numpy()[o.start[row] : o.stop[row]]
        k, labels = o.compartments.index(name), batch.labels[name][field].numpy()
        for c in range(3):
            plane = batch.pixels[field, c].numpy()
            np.testing.assert_array_equal(
                order.quantiles[row, c].numpy(), quantiles(plane[mask]), err_msg=f"{name} {number}"
            )
            ranks = np.zeros(labels.shape, int)
            ranks[labels > 0] = rankdata(plane[labels > 0], "dense") - 1
            np.testing.assert_array_equal(order.ranks[c, at].numpy(), ranks[listed >> 16, listed & 0xFFFF])
            assert order.levels[field, c, k] == ranks.max() + 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_sort_gives_the_same(kind: str, device: Device) -> None:
    """What CUDA uses instead of the kernel: two ways to one result that does not depend on the order of ties."""
    batch = drawn(kind, device)
    order, o = order_statistics(batch, device), batch.objects
    member = torch.empty_like(o.pixel)
    device.launch(
        "list_members",
        o.n,
        start=o.start,
        stop=o.stop,
        cell_start=o.cell_start,
        compartments=len(o.compartments),
        cells=o.n,
        member=member,
    )
    other = Order(order.row_start, *(torch.zeros_like(t) for t in (order.quantiles, order.ranks, order.levels)))
    sort_by_library(batch, member, other, device)
    np.testing.assert_array_equal(other.quantiles.numpy(), order.quantiles.numpy())
    assert torch.equal(other.ranks, order.ranks)
    assert torch.equal(other.levels, order.levels)


def test_without_objects(device: Device) -> None:
    labels = {"Cells": np.zeros((2, 5, 7), np.int32)}
    order = order_statistics(drawn_scene(device, labels), device)
    assert (order.quantiles.numel(), order.ranks.numel(), int(order.levels.sum())) == (0, 0, 0)


def test_made_once_and_alike_on_any_number_of_threads() -> None:
    one, three = CpuDevice(1), CpuDevice(3)
    batch = drawn("nested", one)
    assert order_statistics(batch, one) is order_statistics(batch, one)
    first, second = order_statistics(batch, one), order_statistics(drawn("nested", three), three)
    assert torch.equal(first.ranks, second.ranks)
    assert torch.equal(first.quantiles, second.quantiles)
