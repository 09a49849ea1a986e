"""Nuclei against known answers: an image outlined by hand, and drawn fields from sparse to crowded.

Floors of F1 at an IoU of 0.5, and at most so many nuclei missed, split and merged. They stand just beyond what was measured:
docs/segmentation.md and `python -m benchmarks.segmentation --truth` say more.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.segmentation import LEVELS, ObjectBatch, drawn_by_hand, drawn_by_us, nuclei_of, score
from jumpgpu.gpu.device import Device


def check(batch: ObjectBatch, device: Device, floor: float, faults: tuple[int, int, int]) -> None:
    result = score(nuclei_of(batch, device), batch.truth)
    assert result.f1[LEVELS.index(0.5)] >= floor, result
    assert all(np.array([result.missed, result.split, result.merged]) <= faults), result


def test_nuclei_outlined_by_hand(shared: Path, device: Device) -> None:
    check(drawn_by_hand(shared), device, 0.74, (3, 2, 12))


@pytest.mark.parametrize(
    ("density", "floor", "faults"),
    [(20, 0.99, (0, 0, 0)), (100, 0.99, (0, 0, 0)), (300, 0.99, (0, 1, 0)), (800, 0.98, (1, 5, 6))],
)
def test_drawn_nuclei(device: Device, density: int, floor: float, faults: tuple[int, int, int]) -> None:
    check(drawn_by_us(density), device, floor, faults)


def test_faults_are_counted() -> None:
    """Four true nuclei: one found as it is, two as one, one in two, and one missed."""
    truth, segmented = np.zeros((2, 12, 60), np.int64)
    for n in range(5):
        truth[2:10, 12 * n : 12 * n + 10] = n + 1
    segmented[2:10, 0:10] = 1
    segmented[2:10, 12:34] = 2
    segmented[2:10, 36:41], segmented[2:10, 41:46] = 3, 4
    result = score(segmented, truth)
    assert (result.truth, result.n_segmented) == (5, 4)
    assert (result.missed, result.split, result.merged) == (1, 1, 1)
    assert result.f1[LEVELS.index(0.6)] == pytest.approx(2 / 9)  # one of four matches one of five
