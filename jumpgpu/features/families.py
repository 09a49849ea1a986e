"""The feature families: which exist, what columns they give, and one call that measures them all.

A family is a module of this package with `columns(compartment, channels, settings)` and
`measure(batch, settings, device)`; nothing else about it is known here. Columns are put into the stored order of
`configs/columns.txt` by `names.stored_order`.
"""

import importlib
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch

from ..gpu.device import Device
from ..settings.config import FeatureSettings
from ..settings.names import COMPARTMENTS, stored_order
from .objects import ObjectBatch

FAMILIES = {  # every family and its module, in the order in which their columns come before they are put into stored order
    "shape": "area_shape",
    "correlation": "correlation",
    "granularity": "granularity",
    "intensity": "intensity",
    "location": "location",
    "number": "identity",
    "neighbors": "neighbors",
    "radial": "radial_distribution",
    "texture": "texture",
}
EMBEDDING = "embedding"  # the family of networks and its module: measured where there are models
MAX_LAYOUTS = 16  # kept between batches


@cache
def family(name: str) -> ModuleType:
    """A family's module; ValueError for a name that is none."""
    if name not in FAMILIES and name != EMBEDDING:
        raise ValueError(f"unknown feature family {name!r}; expected one of {(*FAMILIES, EMBEDDING)}")
    return importlib.import_module(f"{__package__}.{FAMILIES.get(name, name)}")


def chosen(settings: FeatureSettings) -> list[str]:
    """The families that the settings ask for, in registry order; ValueError for an unknown one."""
    for name in settings.families:
        family(name)
    if EMBEDDING in settings.families and not settings.embedding.models:
        raise ValueError("features.families has 'embedding', but no [[features.embedding.models]] names the network")
    return [f for f in FAMILIES if f in settings.families] + [EMBEDDING] * bool(settings.embedding.models)


def columns(
    compartments: Sequence[str] = COMPARTMENTS, channels: Sequence[str] = (), settings: FeatureSettings | None = None
) -> list[str]:
    """Every column of `measure_batch`, in stored order.

    Parameters
    ----------
    compartments : names of the label images, in any order
    channels : names, in any order
    settings : which families, and their settings; CPJUMP1's when absent
    """
    result = _as_measured(sorted(compartments), channels, settings or FeatureSettings())
    return [result[i] for i in stored_order(result)]


def measure_batch(batch: ObjectBatch, settings: FeatureSettings, device: Device) -> torch.Tensor:
    """All chosen families over one batch: float64 [N, F], F = `columns` of the batch, in stored order.

    One row per cell; one that lacks a compartment (an empty cytoplasm) has that compartment's numbers for an empty object.
    """
    widths, runs = _layout(batch.objects.compartments, batch.channels, settings)
    if not batch.objects.n or not runs:
        return device.empty(batch.objects.n, sum(widths), dtype=torch.float64)
    parts = []
    for name, wanted in zip(chosen(settings), widths, strict=True):
        part = family(name).measure(batch, settings, device)
        assert part.shape == (batch.objects.n, wanted), f"{name}: {tuple(part.shape)} for {wanted} columns"
        parts.append(part)
    return torch.cat([parts[i][:, first:end] for i, first, end in runs], dim=1)


Layout = tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]
_layouts: dict[tuple[tuple[str, ...], tuple[str, ...], str], Layout] = {}


def _layout(compartments: tuple[str, ...], channels: tuple[str, ...], settings: FeatureSettings) -> Layout:
    """How many columns each chosen family has, and which runs of them (number of the family, first, end) make up the
    stored order; the same every batch."""
    key = compartments, channels, repr(settings)  # settings made by hand may hold lists, which have no hash
    if key not in _layouts:
        if len(_layouts) == MAX_LAYOUTS:
            _layouts.clear()
        widths = [len(_family_columns(name, compartments, channels, settings)) for name in chosen(settings)]
        places = [(i, column) for i, width in enumerate(widths) for column in range(width)]
        runs: list[tuple[int, int, int]] = []
        for i, column in (places[k] for k in stored_order(_as_measured(compartments, channels, settings))):
            if runs and (runs[-1][0], runs[-1][2]) == (i, column):
                runs[-1] = i, runs[-1][1], column + 1
            else:
                runs.append((i, column, column + 1))
        _layouts[key] = tuple(widths), tuple(runs)
    return _layouts[key]


def _family_columns(name: str, compartments: Sequence[str], channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    """One family's columns over all compartments, in the order of its `measure`."""
    module = family(name)
    if name == "number":  # parents and children are the other compartments that there are
        return [c for compartment in compartments for c in module.columns(compartment, channels, settings, compartments)]
    return [c for compartment in compartments for c in module.columns(compartment, channels, settings)]


def _as_measured(compartments: Sequence[str], channels: Sequence[str], settings: FeatureSettings) -> list[str]:
    return [c for name in chosen(settings) for c in _family_columns(name, compartments, channels, settings)]
