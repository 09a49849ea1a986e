"""The priority flood in the order (value, raster index), one pixel at a time."""

import heapq

import numpy as np


def flood(values: np.ndarray, mask: np.ndarray, seeds: np.ndarray, connectivity: int = 8) -> np.ndarray:
    """Labels of one field [H, W]: the lowest in the queue gives its label to unlabelled neighbours, which enter."""
    height, width = values.shape
    labels = np.where(mask, seeds, 0).astype(np.int32)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy or dx) and (connectivity == 8 or not (dy and dx))]
    queue = [(values[y, x], y * width + x) for y, x in np.argwhere(labels)]
    heapq.heapify(queue)
    while queue:
        _, p = heapq.heappop(queue)
        y, x = divmod(p, width)
        for dy, dx in steps:
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width and mask[v, u] and not labels[v, u]:
                labels[v, u] = labels[y, x]
                heapq.heappush(queue, (values[v, u], v * width + u))
    return labels
