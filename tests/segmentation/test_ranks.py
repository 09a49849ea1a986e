"""The order of NumPy's older sort among equals, beside a twin in Python. CellProfiler's medians: tests/steps/modules."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.ranks import order_by_quicksort, ranked


def twin(values: list[int], depth: int | None = None) -> list[int]:
    """Introsort of places, part by part."""
    order = list(range(len(values)))
    parts = [(0, len(order) - 1, 2 * (len(order).bit_length() - 1) if depth is None else depth)]
    while parts:
        first, last, depth = parts.pop()
        if depth < 0:
            order[first : last + 1] = by_heap(values, order[first : last + 1])
            continue
        if last - first < 16:
            order[first : last + 1] = sorted(order[first : last + 1], key=lambda i: values[i])  # stable, as insertion is
            continue
        middle = first + (last - first) // 2
        for a, b in ((first, middle), (middle, last), (first, middle)):
            if values[order[b]] < values[order[a]]:
                order[a], order[b] = order[b], order[a]
        pivot, up, down = values[order[middle]], first, last - 1
        order[middle], order[down] = order[down], order[middle]
        while True:
            up = next(i for i in range(up + 1, last + 1) if values[order[i]] >= pivot)
            down = next(i for i in range(down - 1, first - 1, -1) if values[order[i]] <= pivot)
            if up >= down:
                break
            order[up], order[down] = order[down], order[up]
        order[up], order[last - 1] = order[last - 1], order[up]
        parts += [(first, up - 1, depth - 1), (up + 1, last, depth - 1)]
    return order


def by_heap(values: list[int], places: list[int]) -> list[int]:
    heap = [-1, *places]

    def sift(n: int, at: int, moved: int) -> None:
        while 2 * at <= n:
            child = 2 * at + (2 * at < n and values[heap[2 * at]] < values[heap[2 * at + 1]])
            if values[moved] >= values[heap[child]]:
                break
            heap[at], at = heap[child], child
        heap[at] = moved

    n = len(places)
    for at in range(n // 2, 0, -1):
        sift(n, at, heap[at])
    for end in range(n, 1, -1):
        moved, heap[end] = heap[end], heap[1]
        sift(end - 1, 1, moved)
    return heap[1:]


def hard(n: int) -> list[int]:
    """What the middle of three parts worst (Musser 1997), so that a heap takes over."""
    half = n // 2
    first = [v for i in range(1, half + 1) for v in (i if i % 2 else half + i - 1,)]
    return first + [2 * i for i in range(1, n - half + 1)]


@pytest.mark.parametrize(
    "values",
    [
        [3],
        list(range(17)),
        [5] * 40,
        np.random.default_rng(1).integers(0, 4, 3000).tolist(),
        np.random.default_rng(2).geometric(0.3, 70_000).tolist(),
        np.random.default_rng(3).permutation(999).tolist(),
        hard(2000),
    ],
    ids=["one", "few", "equal", "four", "counts", "different", "hard"],
)
def test_order(values: list[int], device: Device) -> None:
    ours = order_by_quicksort(torch.tensor([values, values[::-1]], dtype=torch.int32), device)
    assert ours[0].tolist() == twin(values)
    assert ours[1].tolist() == twin(values[::-1])


@pytest.mark.parametrize("seed", range(3))
def test_places_of_wanted_values(seed: int, device: Device) -> None:
    """Where only some values are wanted, those stand where the whole sort puts them; others need not."""
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.integers(0, 900, (2, 40_000)).astype(np.int32))
    wanted = torch.tensor(sorted({0, 899, *random.integers(0, 900, 9).tolist(), 5000}), dtype=torch.int32)
    some, whole = order_by_quicksort(values, device, wanted), order_by_quicksort(values, device)
    assert (some != whole).any()
    for k in range(2):
        assert sorted(some[k].tolist()) == list(range(40_000))
        taken = torch.isin(values[k][whole[k].long()], wanted)
        assert torch.equal(some[k][taken], whole[k][taken])


def test_the_hard_case_needs_a_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    heaps: list[int] = []
    monkeypatch.setitem(globals(), "by_heap", lambda values, places: heaps.append(len(places)) or places)
    twin(hard(2000))
    assert max(heaps) > 16


@pytest.mark.parametrize("kind", [np.float32, np.float64, bool])
def test_levels(kind: type, device: Device) -> None:
    values = np.random.default_rng(4).normal(0, 1, 20_000)
    values = values > 0 if kind is bool else values.astype(kind)
    level, levels = ranked(values, device)
    assert len(levels) == level.max() + 1 <= (2 if kind is bool else 255)
    assert levels.dtype == values.dtype
    assert (np.diff(levels.astype(float)) > 0).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(level[order].astype(int)) >= 0).all()  # levels follow values
    merged = levels[level] != values
    assert not merged.any() if kind is bool else 0 < merged.mean() < 1


def test_few_values_are_their_own_levels(device: Device) -> None:
    level, levels = ranked(np.array([0.5, 0.25, 0.5, 1.0], np.float32), device)
    assert level.tolist() == [1, 0, 1, 2]
    assert levels.tolist() == [0.25, 0.5, 1.0]
