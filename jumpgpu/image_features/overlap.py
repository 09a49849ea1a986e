"""How far two segmentations are the same (MeasureObjectOverlap, MeasureImageOverlap), and the nodes of a skeleton image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.integer[Any]]
AROUND = np.ones((3, 3), bool)


def ratio(numerator: float, denominator: float, otherwise: float = np.nan) -> float:
    return otherwise if denominator == 0 else float(numerator) / float(denominator)


def shared(a: Labels, b: Labels) -> NDArray[np.float64]:
    """Pixels of each pair of labels, the background's too: [A + 1, B + 1]."""
    size = int(a.max(initial=0)) + 1, int(b.max(initial=0)) + 1
    flat = a.ravel().astype(np.int64) * size[1] + b.ravel()
    return np.bincount(flat, minlength=size[0] * size[1]).reshape(size).astype(float)


def pairs(n: NDArray[np.float64]) -> float:
    return float((n * (n - 1) / 2).sum())


def of_objects(truth: Labels, test: Labels) -> dict[str, float]:
    """Overlap of two label images. Each test object is the true one that it has most pixels of; of several that are one
    true object that with most pixels of it is, and the others' pixels there count for nothing."""
    table = shared(test, truth)
    same, areas = table[1:, 1:].copy(), table.sum(0)[1:]
    missed = areas[None] - same
    of = np.where(same.max(1, initial=0) > 0, same.argmax(1) if same.size else 0, -1)
    for true in range(same.shape[1]):
        rivals = np.flatnonzero(of == true)
        if len(rivals) > 1:
            same[rivals[rivals != same[:, true].argmax()], true] = 0
    has, rows = of >= 0, np.arange(len(of))
    right = float(same[rows[has], of[has]].sum())
    wrong = float(same[has].sum()) - right
    lost = float(missed[rows[has], of[has]].sum() + table.sum(1)[1:][~has].sum())
    rest = max(0.0, truth.size - right - lost - wrong)
    recall, precision = ratio(right, float(areas.sum())), ratio(right, right + wrong)
    rand, adjusted = omega(table)
    return {
        "Ffactor": ratio(2 * precision * recall, precision + recall),
        "Precision": precision,
        "Recall": recall,
        "TruePosRate": ratio(right, lost + right),
        "FalsePosRate": ratio(wrong, wrong + rest),
        "TrueNegRate": ratio(rest, wrong + rest),
        "FalseNegRate": ratio(lost, lost + right),
        "RandIndex": rand,
        "AdjustedRandIndex": adjusted,
    }


def omega(table: NDArray[np.float64]) -> tuple[float, float]:
    """The share of pixel pairs that are together, or apart, in both; and that beyond chance (Collins 1988)."""
    total, both = pairs(np.array([table.sum()])), pairs(table)
    a, b = pairs(table.sum(1)), pairs(table.sum(0))
    neither = total - a - b + both
    rand = (both + neither) / total
    chance = (a * b + (total - a) * (total - b)) / total**2
    return rand, ratio(rand - chance, 1 - chance)


def of_images(truth: NDArray[np.bool_], test: NDArray[np.bool_], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Overlap of two binary images where `mask` says that pixels count."""
    right, wrong, lost, rest = (int(np.sum(p & mask)) for p in (test & truth, test & ~truth, ~test & truth, ~test & ~truth))
    precision, recall = ratio(right, right + wrong, 1.0), ratio(right, right + lost, 1.0)
    labels = [ndimage.label(p & mask, AROUND)[0][mask] for p in (truth, test)]
    table = shared(*labels)
    total, both = pairs(np.array([table.sum()])), pairs(table)
    a, b = pairs(table.sum(1)), pairs(table.sum(0))
    return {
        "Ffactor": ratio(2 * precision * recall, precision + recall, 0.0),
        "Precision": precision,
        "Recall": recall,
        "TruePosRate": recall,
        "FalsePosRate": ratio(wrong, wrong + rest, 0.0),
        "TrueNegRate": ratio(rest, wrong + rest, 1.0),
        "FalseNegRate": ratio(lost, right + lost, 0.0),
        "RandIndex": ratio(total - a - b + 2 * both, total),
        "AdjustedRandIndex": ratio(both * total - a * b, (a + b) * total / 2 - a * b),
    }


def nodes(lines: NDArray[np.bool_]) -> dict[str, float]:
    """Pixels of a skeleton with more than two others around them, and with one. As CellProfiler rounds a mean of nine."""
    around = 9 * ndimage.uniform_filter(np.pad(lines, 1).astype(float)) - 1
    n = np.where(lines, around[1:-1, 1:-1], 0).astype(np.uint16)
    return {"Branches": float((n > 2).sum()), "Endpoints": float((n == 1).sum())}
