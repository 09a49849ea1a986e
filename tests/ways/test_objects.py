"""The object kernels give the same bits in all their ways."""

import numpy as np
import torch

from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from tests.helpers.scenes import drawn_pixels, ragged_labels
from tests.simulators.ways import Way


def nested() -> dict[str, np.ndarray]:
    """Two cells with nuclei and cytoplasm in the second of two fields."""
    out = {c: np.zeros((2, 11, 23), np.int32) for c in ("Cells", "Cytoplasm", "Nuclei")}
    for n, x in ((1, 0), (2, 12)):
        out["Cells"][1, 1:9, x : x + 11] = n
        out["Nuclei"][1, 3:7, x + 2 : x + 7] = n
        out["Cytoplasm"][1] += np.where((out["Cells"][1] == n), n, 0).astype(np.int32)
        out["Cytoplasm"][1, 4:6, x + 3 : x + 6] = 0
    return out


def test_make_scene_same_in_all_ways(way: Way) -> None:
    for labels in (ragged_labels(19, 25), nested()):
        pixels = torch.from_numpy(drawn_pixels(labels, 2))

        def work(device: Device, labels: dict[str, np.ndarray] = labels, pixels: torch.Tensor = pixels) -> object:
            batch = make_batch(
                ("A", "B"), device.tensor(pixels), {c: device.tensor(v) for c, v in labels.items()}, {}, device
            )
            return batch.objects, batch.values

        way.check(work)


def test_tall_cells_same_in_all_ways(way: Way) -> None:
    """A cell taller than the band of rows that is placed at a time."""
    labels = torch.zeros(1, 140, 5, dtype=torch.int32)
    labels[0, 2:139, 1:4] = 1
    labels[0, ::7, 3] = 0

    def work(device: Device) -> object:
        return make_batch(
            ("A",), device.zeros(1, 1, 140, 5, dtype=torch.float32), {"Cells": device.tensor(labels)}, {}, device
        ).objects

    way.check(work)
