"""The order kernels give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.features.objects import make_batch, start_of
from jumpgpu.features.order_statistics import QUANTILES, Order, order_statistics, sort_by_library
from jumpgpu.gpu.device import Device
from tests.simulators.ways import Way


def test_order_statistics_same_in_all_ways(way: Way) -> None:
    cells, nuclei = np.zeros((2, 2, 7, 9), np.int32)
    cells[0, :5, :4] = cells[1, 1:4, 2:] = 1
    cells[1, 5:, :] = 2
    nuclei[0, 1:3, 1:3] = nuclei[1, 2, 4:] = 1  # the second cell has none
    # Values that differ in their 12 lowest bits: two passes over few digits, which the interpreter gets through.
    pixels = (0.5 + np.random.default_rng(0).integers(0, 4096, (2, 1, 7, 9)) / 2**24).astype(np.float32)
    pixels[1, 0, 6] = 0.5

    def work(device: Device) -> object:
        labels = {"Cells": device.tensor(torch.from_numpy(cells)), "Nuclei": device.tensor(torch.from_numpy(nuclei))}
        return order_statistics(make_batch(("A",), device.tensor(torch.from_numpy(pixels)), labels, {}, device), device)

    way.check(work)


def test_ranks_same_in_all_ways(way: Way) -> None:
    """What lies between the library's sorts; one compartment's mask sticks out, and values repeat."""
    cells, nuclei = np.zeros((2, 2, 5, 9), np.int32)
    cells[0, :3, :4] = cells[1, 1:4, 2:] = 1
    nuclei[0, 1:3, 3:6] = nuclei[1, 2, 4:] = 1
    cells[1, 4] = 2
    pixels = (np.random.default_rng(0).integers(-3, 9, (2, 2, 5, 9)) / 8).astype(np.float32)

    def work(device: Device) -> object:
        labels = {"Cells": device.tensor(torch.from_numpy(cells)), "Nuclei": device.tensor(torch.from_numpy(nuclei))}
        batch = make_batch(("A", "B"), device.tensor(torch.from_numpy(pixels)), labels, {}, device)
        o = batch.objects
        row_start, member = start_of(o.stop - o.start), device.empty(o.pixel.numel(), dtype=torch.int32)
        device.launch(
            "list_members",
            o.n,
            start=o.start,
            stop=o.stop,
            cell_start=o.cell_start,
            compartments=2,
            cells=o.n,
            member=member,
        )
        quantiles = device.zeros(o.rows, 2, QUANTILES, dtype=torch.float64)
        ranks = device.empty(2, o.n_row_pixels, dtype=torch.int32)
        order = Order(row_start, quantiles, ranks, device.zeros(2, 2, 2, dtype=torch.int32))
        sort_by_library(batch, member, order, device)
        return order

    way.check(work)
