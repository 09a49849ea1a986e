"""CalculateMath: arithmetic with two measurements, of images or objects, in CellProfiler's order."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ..gpu.device import Device
from ..settings import steps as kinds
from .state import State

Values = NDArray[np.float64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
SITE = "Metadata_Site"  # the one of an image's metadata that is a number here


def calculate_math(state: State, step: kinds.CalculateMath, device: Device) -> None:
    """`Math_<name>` of each object set among the operands, or of the image where there is none."""
    fields = len(next(iter(state.image_measured.values()), torch.zeros(1)))
    sets = [name for name in dict.fromkeys(step.objects) if name]
    column = f"Math_{step.name}"
    parts: list[list[Values]] = [[] for _ in sets or [""]]
    with np.errstate(all="ignore"):
        for field in range(fields):
            of_field = calculated(step, operands(state, step, field), partial(parents, state, step, field))
            for part, values in zip(parts, of_field, strict=True):
                part.append(np.atleast_1d(values))
    results = [torch.from_numpy(np.concatenate(part).astype(float)) for part in parts]
    if not sets:
        state.image_measured[column] = results[0]
    for name, result in zip(sets, results if sets else [], strict=True):
        state.record(name, {column: result})


def rows(state: State, name: str, field: int) -> slice:
    """Where a field's objects are among all of a set."""
    counts = state.objects[name].counts
    return slice(sum(counts[:field]), sum(counts[: field + 1]))


def operands(state: State, step: kinds.CalculateMath, field: int) -> list[Values]:
    """Each operand's values, of its objects or the field's one, times its factor and to its exponent."""
    result = []
    for name, column, factor, exponent in zip(step.objects, step.measurements, step.factors, step.exponents, strict=True):
        if name:
            values = state.measured[name][column][rows(state, name, field)].cpu().numpy().astype(float)
        else:
            values = np.asarray(state.site if column == SITE else float(state.image_measured[column][field]))
        result.append((values * factor) ** exponent)
    return result


def parents(state: State, step: kinds.CalculateMath, field: int) -> Pairs | None:
    """Pairs of the first operand's objects and the second's that are parent and child, counted from 0."""
    first, second = step.objects
    for parent, child in ((first, second), (second, first)):
        if (column := f"Parent_{parent}") in state.measured[child]:
            of = state.measured[child][column][rows(state, child, field)].cpu().numpy().astype(int)
            above, below = of[of > 0] - 1, np.flatnonzero(of > 0)
            return (above, below) if parent == first else (below, above)
    return None


def calculated(step: kinds.CalculateMath, values: list[Values], related: Callable[[], Pairs | None]) -> list[Values]:
    """The result for each of the operands' object sets."""
    sets = [name for name in dict.fromkeys(step.objects) if name]
    if len(values) == 1 or "" in step.objects or len(values[0]) == len(values[1]):
        return [computed(step, values[0], values[-1])] * max(1, len(sets))
    first, second = values
    pairs = related()
    if pairs is None:  # no relation is known: object by object, as far as there are both
        n = min(len(first), len(second))
        with_first = np.append(second[:n], np.full(len(first) - n, np.nan))
        with_second = np.append(first[:n], np.full(len(second) - n, np.nan))
        return [computed(step, first, with_first), computed(step, with_second, second)]
    i, j = pairs
    with_first = np.bincount(i, second[j], len(first)) / np.bincount(i, minlength=len(first))
    with_second = np.bincount(j, first[i], len(second)) / np.bincount(j, minlength=len(second))
    return [computed(step, first, with_first), computed(step, with_second, second)]


def computed(step: kinds.CalculateMath, a: Values, b: Values) -> Values:
    """Operation, logarithm, factor, exponent, addend, rounding, bounds; of a single operand no factor and exponent."""
    if step.operation == "divide":
        a = np.where(b == 0, np.nan, a / b)
    elif step.operation != "none":
        a = {"multiply": np.multiply, "add": np.add, "subtract": np.subtract}[step.operation](a, b)
    if step.log:
        a = np.log10(a)
    if step.operation != "none":
        a = np.power(a * step.factor, step.exponent)
    a = a + step.addend
    if step.rounding == "digits":
        a = np.around(a, step.digits)
    elif step.rounding != "no":
        a = np.floor(a) if step.rounding == "floor" else np.ceil(a)
    a = a if step.lower is None else np.where(a < step.lower, step.lower, a)
    return a if step.upper is None else np.where(a > step.upper, step.upper, a)
