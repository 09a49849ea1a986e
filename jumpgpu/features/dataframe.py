"""Features of images and label images from anywhere, as a pandas table: for notebooks, and for masks of any origin."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..gpu.device import Device
from ..gpu.open import open_device
from ..images.masks import binary
from ..settings.config import FeatureSettings
from ..settings.limits import check_all
from . import granularity
from .families import FAMILIES, columns, measure_batch
from .objects import make_batch

if TYPE_CHECKING:
    import pandas

FULL_RANGE = {"uint8": 255.0, "uint16": 65535.0}  # what intensity 1 is when nobody says
HIGHEST_LABEL = 2**53
NUMBERS = ("_Number_Object_Number", "_Parent_", "ClosestObjectNumber_")  # columns that hold labels


def measure(
    pixels: Any,
    labels: Any,
    *,
    channels: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    settings: FeatureSettings | None = None,
    scale: float | None = None,
    unfiltered: Mapping[str, Any] | None = None,
    device: str | Device = "auto",
) -> "pandas.DataFrame":
    """Measure objects that somebody has outlined, in images that somebody has corrected.

    Parameters
    ----------
    pixels : uint8, uint16 or floating [H, W], [C, H, W] or [B, C, H, W], NumPy or torch
        Intensities, illumination-corrected where that matters; nothing is corrected here.
    labels : integer [H, W] or [B, H, W], or a dict of them by compartment
        0 is background. Objects with one number in several compartments are one row: a cell, its nucleus, its cytoplasm.
        Numbers need not be 1..n. An image without a name is the compartment `Objects`; `Cells`, `Cytoplasm` and `Nuclei` are
        known to be parent and child, and to have neighbours.
    channels : names, as many as the C axis is long
        `Channel1`, `Channel2`, ... when absent.
    families : of `features.FAMILIES`
        All when absent.
    settings : as in a configuration's `[features]`; CPJUMP1's when absent
    scale : the value that is intensity 1
        255 for uint8 and 65535 for uint16 when absent; floats are taken as they are and must be within 0..1. No pixel may be
        negative, above it, infinite or NaN.
    unfiltered : compartment -> labels
        The objects before some were discarded, those kept under their own numbers: neighbours also look at them.
    device : 'auto', 'cpu', 'cuda', or an open device

    Returns
    -------
    pandas.DataFrame
        One row per object: Metadata_Field (position in the batch), Metadata_ObjectNumber (its label), then the columns of
        `features.columns`, float64. `jumpgpu columns --explain NAME` says what one means.

    Raises
    ------
    TypeError, ValueError
        For shapes, dtypes, channels, settings or values that do not fit together, before anything is measured.

    Warns
    -----
    UserWarning
        For a binary mask in place of labels (one or two labels in many separate parts), and for objects whose granularity is
        beyond 1000 %.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.zeros((5, 6), np.uint8)
    >>> image[1:3, 2:5] = 51
    >>> table = measure(image, image > 0, channels=["GFP"], families=["intensity"], device="cpu")
    >>> table["Objects_Intensity_IntegratedIntensity_GFP"].round(3).tolist()
    [1.2]
    """
    import pandas

    if settings is not None and not isinstance(settings, FeatureSettings):
        raise TypeError(f"settings are a FeatureSettings, got {type(settings).__name__}")
    chosen = settings or FeatureSettings()
    if families is not None or settings is None:
        chosen = replace(
            chosen, families=tuple(FAMILIES) if families is None else listed(families, "families", tuple(FAMILIES))
        )
    check_all(chosen, "settings")
    stack = intensities(pixels, scale)
    fields, n_channels, height, width = stack.shape
    names = tuple(f"Channel{i + 1}" for i in range(n_channels)) if channels is None else listed(channels, "channels")
    if len(names) != n_channels:
        raise ValueError(f"{len(names)} channel names for {n_channels} channels: pixels are {list(np.shape(pixels))}")
    planes = {c: label_planes(p, c, (fields, height, width)) for c, p in by_name(labels).items()}
    if unfiltered is not None and not isinstance(unfiltered, Mapping):
        raise TypeError("unfiltered labels are a dict of label images by compartment")
    every = {c: label_planes(p, c, (fields, height, width)) for c, p in (unfiltered or {}).items()}
    if unknown := sorted(set(every) - set(planes)):
        raise ValueError(f"unfiltered labels of {unknown[0]!r}, which has no labels; there are {', '.join(planes)}")
    reader = open_device(device)
    numbers = renumber(planes, every)
    tensors, whole = ({c: reader.tensor(p.astype(np.int32)) for c, p in of.items()} for of in (planes, every))
    batch = make_batch(names, reader.tensor(stack), tensors, whole, reader)
    values = measure_batch(batch, chosen, reader).cpu().numpy()
    wanted = columns(batch.objects.compartments, names, chosen)
    for channel, n in granularity.doubtful(values, wanted).items():
        warnings.warn(f"{channel}: {n} {granularity.BEYOND}", stacklevel=2)
    field, number = (t.cpu().numpy() for t in (batch.objects.field, batch.objects.number))
    own = np.concatenate([np.zeros(0, np.int64), *numbers])
    first = np.cumsum([0, *map(len, numbers)])[field]  # of each row's field in `own`
    for i, column in enumerate(wanted):
        if any(word in column for word in NUMBERS):
            at = values[:, i].astype(np.int64)
            values[:, i] = np.where(at > 0, own[np.minimum(first + np.maximum(at, 1) - 1, len(own) - 1)], 0)
    table = pandas.DataFrame(values, columns=wanted)
    identity = pandas.DataFrame({"Metadata_Field": field, "Metadata_ObjectNumber": own[first + number - 1]})
    return pandas.concat([identity, table], axis=1)


def by_name(labels: Any) -> dict[str, Any]:
    result = dict(labels) if isinstance(labels, Mapping) else {"Objects": labels}
    if not result:
        raise ValueError("no label images: expected an array, or a dict of at least one by compartment")
    for name in result:
        if not isinstance(name, str) or not name or "_" in name:  # a column's parts are joined by underscores
            raise ValueError(f"labels of {name!r}: a compartment's name is text without an underscore, such as 'Cells'")
    return result


def listed(values: Any, what: str, known: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names as a tuple; TypeError for a single word, which is a sequence of letters, and for what is no text."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{what} is a list of names, got {values!r}; write [{values!r}]")
    if isinstance(values, (set, frozenset, Mapping)) and known is None:
        raise TypeError(f"{what} are in the order of the pixels, which a {type(values).__name__} has not; give a list")
    result = tuple(values)
    if wrong := [v for v in result if not isinstance(v, str) or not v]:
        raise TypeError(f"{what}: expected names, got {wrong[0]!r}")
    if known and (unknown := [v for v in result if v not in known]):
        raise ValueError(f"unknown feature family {unknown[0]!r}; expected one of {tuple(known)}")
    if twice := [v for v in result if result.count(v) > 1]:
        raise ValueError(f"{what}: {twice[0]!r} is there {result.count(twice[0])} times")
    return result


def array(values: Any, what: str) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{what} are a masked array, whose mask would be ignored: fill it, or set labels to 0 where it is masked"
        )
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def intensities(pixels: Any, scale: float | None) -> np.ndarray:
    """float32 [B, C, H, W] with 1 at `scale`."""
    result = array(pixels, "pixels")
    if not 2 <= result.ndim <= 4:
        raise ValueError(f"pixels must be [H, W], [C, H, W] or [B, C, H, W], got {list(result.shape)}")
    if not result.size:
        raise ValueError(f"pixels must have a field, a channel, a row and a column at least, got {list(result.shape)}")
    kind = result.dtype.name
    if result.dtype.kind != "f" and kind not in FULL_RANGE:
        raise TypeError(f"pixels must be uint8, uint16 or floating, got {kind}")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float, np.integer, np.floating))):
        raise TypeError(f"scale is the number that is intensity 1, got {scale!r}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be finite and above 0, got {scale}")
    divisor = float(scale) if scale is not None else FULL_RANGE.get(kind, 1.0)
    if not np.isfinite(result).all():
        wrong = np.argwhere(~np.isfinite(result))[0].tolist()
        raise ValueError(
            f"pixels must be finite, found {result[tuple(wrong)]} at {wrong}; give such pixels a value of their own"
        )
    low, high = float(result.min()), float(result.max())
    if low < 0 or high > divisor:
        what = "floating pixels" if scale is None else "pixels"
        wanted = "0..1" if scale is None else f"0..{scale:g}, which `scale` says is intensity 1"
        hint = "; say by `scale` which value is 1" if scale is None else ""
        raise ValueError(f"{what} must be within {wanted}, found {low:g} to {high:g}{hint}")
    return (result.reshape((1,) * (4 - result.ndim) + result.shape) / divisor).astype(np.float32)


def label_planes(labels: Any, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """int64 [B, H, W]."""
    result = array(labels, f"labels of {name}")
    if result.dtype.kind not in "iub":
        raise TypeError(f"labels of {name} must be integers, got {result.dtype.name}")
    result = result.reshape((1,) * max(3 - result.ndim, 0) + result.shape)
    if result.shape != shape:
        raise ValueError(f"labels of {name} are {list(np.shape(labels))}; the pixels make it [B, H, W] = {list(shape)}")
    if result.min() < 0:
        raise ValueError(f"labels of {name} must be 0 or more, found {result.min()}")
    if result.max() > HIGHEST_LABEL:  # of a table of float64
        raise ValueError(f"labels of {name} must be at most {HIGHEST_LABEL}, found {result.max()}; number the objects anew")
    planes = result.astype(np.int64)
    for field, plane in enumerate(planes):
        if remark := binary(plane):
            warnings.warn(f"labels of {name}, field {field}: {remark}", stacklevel=3)
    return planes


def renumber(planes: dict[str, np.ndarray], every: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Number objects 1..n field by field, in place, those that were discarded above; returns each field's own numbers."""
    numbers = []
    for b in range(len(next(iter(planes.values())))):
        present = [np.unique(p[b]) for p in planes.values()]
        kept = np.unique(np.concatenate(present))
        kept = kept[kept > 0]
        others = np.concatenate([np.zeros(0, np.int64), *(np.unique(p[b]) for p in every.values())])
        others = np.setdiff1d(others[others > 0], kept)
        order = np.concatenate([[0], kept, others])
        by_value = np.argsort(order)
        for plane in (*planes.values(), *every.values()):
            plane[b] = by_value[np.searchsorted(order[by_value], plane[b])]
        numbers.append(kept)
    return numbers
