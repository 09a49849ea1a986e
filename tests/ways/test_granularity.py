"""The kernels of granularity.cu and granularity_spectrum.cu (and basins.cu under them) give the same bits in all ways."""

import numpy as np
import pytest
import torch

from jumpgpu.features import granularity
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.segmentation.basins import find_basins
from jumpgpu.settings.config import FeatureSettings, GranularitySettings
from tests.simulators.ways import Way


def labels() -> dict[str, np.ndarray]:
    """Two fields of 11 x 17: two cells that touch, one cell with two pixels, one without cytoplasm."""
    cells = np.zeros((2, 11, 17), np.int32)
    cells[0, 1:9, :6] = 1
    cells[0, 1:9, 6:12] = 2
    cells[1, 10, 15:] = 1
    nuclei = np.where(np.roll(cells, 1, 1) == cells, cells, 0)
    cytoplasm = np.where(nuclei > 0, 0, cells)
    return {"Cells": cells, "Cytoplasm": cytoplasm, "Nuclei": nuclei}


def test_spectrum(way: Way) -> None:
    settings = FeatureSettings(granularity=GranularitySettings(radius=2))
    pixels = np.random.default_rng(2).integers(0, 60, (2, 1, 11, 17)).astype(np.float32) / np.float32(64)

    def work(device: Device) -> torch.Tensor:
        batch = make_batch(("DNA",), device.tensor(pixels), {c: device.tensor(v) for c, v in labels().items()}, {}, device)
        return granularity.measure(batch, settings, device)

    way.check(work)


def test_foreground_with_interpolated_sampling(way: Way) -> None:
    settings = GranularitySettings(subsampling=0.4, background_subsampling=0.6, radius=3)
    planes = np.random.default_rng(3).random((2, 31, 43), np.float32)

    def work(device: Device) -> torch.Tensor:
        grid = granularity.sampled(31, 43, settings, device)
        return granularity.foreground(device.tensor(planes), grid, settings, device)

    way.check(work)


@pytest.mark.parametrize("tiled", [False, True])
def test_levels(way: Way, tiled: bool) -> None:
    """A GPU's way (four tiles per plane) and a CPU's, each against a serial run of the other."""
    rng = np.random.default_rng(4)
    values = np.where(rng.random((2, 66, 50)) < 0.7, rng.integers(0, 40, (2, 66, 50)), 30).astype(np.float32)
    values[1, 10:40, :30] = np.sort(values[1, 10:40, :30], axis=1)
    key = np.full((2, 68, 52), 0xFFFFFFFF, np.uint32)
    key[:, 1:-1, 1:-1] = 0x7FFFFFFF - values.view(np.int32)

    def levels(device: Device, *, tiled: bool) -> dict[str, torch.Tensor]:
        basins = find_basins(device.tensor(key), 4, device)
        output = granularity.levels_of(basins, device, tiled=tiled)
        return {f"plane {p}": output[p, : int(n)] for p, n in enumerate(basins.row_end[:, -1])}

    way.check(lambda device: levels(device, tiled=tiled), levels(open_device("cpu"), tiled=not tiled))
