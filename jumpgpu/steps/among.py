"""MeasureObjectNeighbors of one object set among another, on the host: an object at a time, within its box."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..features.neighbors import MEASUREMENTS
from ..gpu.device import Device
from ..settings import steps as kinds
from .state import ObjectSet, State

Labels = NDArray[np.int32]
Values = NDArray[np.float64]


def neighbors_among(state: State, step: kinds.MeasureNeighbors, device: Device) -> None:
    own, others = state.objects[step.objects], state.objects[step.among]
    if own.labels.shape != others.labels.shape:
        raise ValueError(f"objects {step.objects} and {step.among} are of images of other sizes")
    scale = {"adjacent": "Adjacent", "expanded": "Expanded"}.get(step.method, str(step.distance))
    tables = [of_field(own, others, b, step) for b in range(len(own.counts))]
    table = torch.from_numpy(np.concatenate(tables))
    columns = {f"Neighbors_{m}_{step.among}_{scale}": table[:, i] for i, m in enumerate(MEASUREMENTS)}
    state.record(step.objects, {c: v.to(own.labels.device) for c, v in columns.items()})


def of_field(own: ObjectSet, others: ObjectSet, b: int, step: kinds.MeasureNeighbors) -> Values:
    """float64 [n, 7] in the order of MEASUREMENTS. Discarded objects count as neighbours, but have no number."""
    kept, every = (t[b].cpu().numpy() for t in (own.labels, own.not_small))
    kept_others, every_other = (t[b].cpu().numpy() for t in (others.labels, others.not_small))
    if not step.discarded:
        every_other = np.where(kept_others > 0, every_other, 0)
    n = own.counts[b]
    result = dict.fromkeys(MEASUREMENTS, np.zeros(n))
    if not n or not every_other.any():
        return np.stack(list(result.values()), 1)
    number, number_other = overlapping(every, kept), overlapping(every_other, kept_others)
    has, has_other = (
        np.bincount(k.ravel(), minlength=m + 1)[1:] > 0 for k, m in ((kept, n), (kept_others, others.counts[b]))
    )
    result |= closest(centres(every), centres(every_other), number)
    result |= numbered_closest(centres(every)[number - 1], centres(every_other)[number_other - 1], has, has_other)
    if step.method == "expanded":
        y, x = ndimage.distance_transform_edt(every == 0, return_distances=False, return_indices=True)
        every = every[y, x]
    contacts = touches(every, every_other, number, step.distance if step.method == "within" else 1)
    result |= {k: np.where(has, v, 0) for k, v in zip(MEASUREMENTS[:2], contacts, strict=True)}
    return np.stack([result[m] for m in MEASUREMENTS], 1)


def overlapping(every: Labels, kept: Labels) -> NDArray[np.int64]:
    """The number among `every` object of each that is kept, by most pixels; 0 for none."""
    table = np.zeros((int(every.max()) + 1, int(kept.max()) + 1), int)
    both = (every > 0) & (kept > 0)
    np.add.at(table, (every[both], kept[both]), 1)
    return np.asarray(table.argmax(0)[1:])


def centres(labels: Labels) -> Values:
    """Of numbers 1 to the highest, [n, 2]; NaN for one that no object has."""
    at = np.nonzero(labels)
    number = labels[at]
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(number, i)[1:] / np.bincount(number)[1:] for i in at], 1)


def closest(own: Values, others: Values, number: NDArray[np.int64]) -> dict[str, Values]:
    """Distances to the two nearest centres and the angle between them; of fewer, 0. Numbers without an object are NaN."""
    own = own[number - 1]
    far = np.sqrt(((own[:, None] - others[None]) ** 2).sum(2))
    nearest = np.argsort(far, 1, kind="stable")[:, :2]
    first = others[nearest[:, 0]] - own
    zero = np.zeros(len(own))
    result = {
        "FirstClosestDistance": np.sqrt((first**2).sum(1)),
        "SecondClosestDistance": zero,
        "AngleBetweenNeighbors": zero,
    }
    if len(others) > 1:
        second = others[nearest[:, 1]] - own
        with np.errstate(invalid="ignore", divide="ignore"):
            dot = (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))
            result["AngleBetweenNeighbors"] = np.arccos(dot) * 180.0 / np.pi
        result["SecondClosestDistance"] = np.sqrt((second**2).sum(1))
    return result


def numbered_closest(own: Values, others: Values, has: NDArray[np.bool_], has_other: NDArray[np.bool_]) -> dict[str, Values]:
    """The numbers of the two nearest among those that are kept; 0 for none."""
    far = np.sqrt(((own[:, None] - others[None]) ** 2).sum(2))
    far[:, ~has_other] = np.inf
    order = np.argsort(far, 1, kind="stable") + 1
    names = ("FirstClosestObjectNumber", "SecondClosestObjectNumber")
    return {m: np.where(has, order[:, i] if order.shape[1] > i else 0, 0.0) for i, m in enumerate(names)}


def touches(every: Labels, others: Labels, number: NDArray[np.int64], distance: int) -> tuple[Values, Values]:
    """How many others lie within the distance, and the share of the outline that they touch, in percent."""
    padded = np.pad(every, 1)
    h, w = every.shape
    edge = np.zeros(every.shape, bool)
    for y, x in ((0, 1), (1, -1), (1, 0), (1, 1), (0, -1), (-1, 1), (-1, 0), (-1, -1)):
        edge |= padded[1 + y : 1 + y + h, 1 + x : 1 + x + w] != every
    boxes = ndimage.find_objects(every)
    count, percent = np.zeros(len(number)), np.zeros(len(number))
    for i, k in enumerate(number):
        if not k:
            continue
        box = tuple(slice(max(s.start - distance, 0), s.stop + distance) for s in boxes[k - 1])
        inside, around = every[box] == k, others[box]
        near = np.rint(ndimage.distance_transform_edt(~inside) ** 2) <= distance * distance
        found = np.unique(around[near])
        count[i] = (found != 0).sum()
        outline = inside & edge[box]
        if around.any():
            reach = np.rint(ndimage.distance_transform_edt(around == 0) ** 2) <= distance * distance + distance
            percent[i] = (outline & reach).sum() * 100.0
        percent[i] /= outline.sum()
    return count, percent
