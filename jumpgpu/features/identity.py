"""Identities: an object's number, its parents' numbers and its count of children (CellProfiler's Identify modules).

The three compartments of a cell share its number, so a parent's number is the object's own, and a count of children is
1. Where an object has no pixels (a nucleus that fills its cell leaves no cytoplasm) it is nobody's child: its parents
are 0 and it is not counted.
"""

from collections.abc import Sequence

import torch

from ..gpu.device import Device
from ..settings.config import FeatureSettings
from ..settings.names import COMPARTMENTS, feature_name
from .objects import ObjectBatch

CHILDREN = {"Nuclei": ("Cells", "Cytoplasm"), "Cells": ("Cytoplasm",)}  # parent compartment -> its children
PARENTS = {"Cells": ("Nuclei",), "Cytoplasm": ("Cells", "Nuclei")}


def columns(
    compartment: str, channels: Sequence[str], settings: FeatureSettings, compartments: Sequence[str] = COMPARTMENTS
) -> list[str]:
    """Column names of `measure` for one compartment; relatives that are not among `compartments` have no column."""
    return [
        feature_name(compartment, "Number", "Object", "Number"),
        *(feature_name(compartment, "Children", c, "Count") for c in _relatives(CHILDREN, compartment, compartments)),
        *(feature_name(compartment, "Parent", p) for p in _relatives(PARENTS, compartment, compartments)),
    ]


def measure(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """float64 [N, F]: object numbers 1..n of the field, 0 for a missing parent."""
    objects = batch.objects
    number = objects.number.to(torch.float64)
    has_pixels = (objects.stop > objects.start).reshape(len(objects.compartments), objects.n)
    present = dict(zip(objects.compartments, has_pixels.to(torch.float64), strict=True))
    result = []
    for compartment in objects.compartments:
        result.append(number)
        for child in _relatives(CHILDREN, compartment, objects.compartments):
            result.append(present[child] * present[compartment])
        for parent in _relatives(PARENTS, compartment, objects.compartments):
            result.append(number * present[parent] * present[compartment])
    return torch.stack(result, dim=1)


def _relatives(table: dict[str, tuple[str, ...]], compartment: str, compartments: Sequence[str]) -> list[str]:
    return [c for c in table.get(compartment, ()) if c in compartments]
