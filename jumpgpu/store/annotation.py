"""What a column's name says, as the `var` of an AnnData object: the fields that scverse's Cell Painting drafts ask for.

`compartment`, `family`, `channel`, `channel_2` and `n_channels` are those of cell-painting-io's `annotate_features`, with
CellProfiler's spelling kept; `unit` and `feature_type` are those of the OPS feature definitions. `schema_variables` adds the
columns of mantispy's schema, whose `channel` has both channels of a pair.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..features.glossary import FAMILIES, INTENSITY, SQUARE
from ..settings.names import split_name

FIELDS = ("compartment", "family", "channel", "channel_2", "n_channels", "scale", "unit", "feature_type")
SCALES = {  # the scale word of a column, by family
    "Texture": r"_(\d+)_\d\d_\d+$",
    "Granularity": r"^(\d+)_",
    "RadialDistribution": r"_(\d+of\d+)$",
    "Neighbors": r"_(\d+|Adjacent)$",
    "ImageQuality": r"^LocalFocusScore_.+_(\d+)$",
}
TYPES = {  # OPS's words, as far as it has one
    "AreaShape": "shape",
    "Children": "categorical",
    "Correlation": "correlation",
    "Embedding": "embedding",
    "Granularity": "granularity",
    "ImageQuality": "intensity",
    "Intensity": "intensity",
    "Location": "shape",
    "Neighbors": "shape",
    "Number": "categorical",
    "Parent": "categorical",
    "RadialDistribution": "intensity",
    "Texture": "texture",
}
UNITS = {SQUARE: "pixels^2", INTENSITY: "intensity", "none": ""}
SCHEMA = "2.0"  # mantispy's, of objects whose rows are cells, wells or more
PARSED = ("feature", "angle", "gray_levels", "radial_bin", "params", "is_feature", "feature_kind")
# Where an object is and whose it is: no measurement of it.
PLACES = r"(Location|Number|Parent|Children)_|AreaShape_(Center|BoundingBoxM(in|ax)imum)_|Neighbors_\w+ObjectNumber_"


CELLS_SCHEMA = "1"  # of a table of cells as AnnData


def provenance(made_with: Mapping[str, Any], settings: Mapping[str, Any], channels: Sequence[str]) -> dict[str, Any]:
    """What is in X and how it was made, under the keys of `uns` that cp-anndata-validator 0.2 looks for.

    Only what the plate records: licence and experiment are the laboratory's to add.
    """
    program = {"tool": "jumpgpu", "version": str(made_with.get("jumpgpu", ""))}
    given = settings.get("labels", "segmented")
    method = settings.get("config", {}).get("segmentation", {}).get("method", "cellprofiler")
    return {
        "schema_id": "jumpgpu.cells",
        "schema_version": CELLS_SCHEMA,
        "processing_stage": "raw",
        "feature_extraction_provenance": program,
        "segmentation_provenance": program | {"method": method if given == "segmented" else f"label images {given}"},
        "image_provenance": {
            "channels": np.array(channels, dtype=object),
            "illumination_correction": str(made_with.get("illumination", "")),
            "illumination_functions": str(settings.get("illumination", "")),
        },
    }


def variables(columns: Sequence[str], channels: Sequence[str]) -> dict[str, list[str] | np.ndarray]:
    """What names say, a field a list: compartment, family, channel, channel_2, n_channels, scale, unit, feature_type.

    `channel_2` is the second of a pair; what a name does not say is "".
    """
    known = tuple(channels)
    names = [split_name(column) for column in columns]
    rows = [(compartment, family, *said(family, rest, known)) for compartment, family, rest in names]
    fields = list(zip(*rows, strict=True)) or [()] * 8
    result: dict[str, list[str] | np.ndarray] = {name: list(field) for name, field in zip(FIELDS, fields, strict=True)}
    return result | {"n_channels": np.array(result["n_channels"], np.int8)}


def schema_variables(columns: Sequence[str], channels: Sequence[str]) -> dict[str, list[str] | np.ndarray]:
    """`variables`, and what mantispy's schema 2.0 asks of `var`: object, feature_group and `PARSED`.

    `channel` has all channels of a name, `DNA|ER`. `is_feature` is false where a column says where or which an object is.
    """
    known = tuple(channels)
    names = [split_name(column) for column in columns]
    rows = [parsed(family, rest, known) for _, family, rest in names]
    fields = list(zip(*rows, strict=True)) or [()] * (len(PARSED) + 1)
    more: dict[str, list[str] | np.ndarray] = {name: list(field) for name, field in zip(PARSED, fields[1:], strict=True)}
    more["angle"], more["gray_levels"] = np.array(more["angle"], float), np.array(more["gray_levels"], float)
    more["is_feature"] = np.array(more["is_feature"], bool)
    whose: dict[str, list[str] | np.ndarray] = {"object": [n[0] for n in names], "feature_group": [n[1] for n in names]}
    return variables(columns, channels) | {"channel": list(fields[0])} | whose | more


@lru_cache(maxsize=1 << 14)
def parsed(family: str, rest: str, channels: tuple[str, ...]) -> tuple[str, str, float, float, str, str, bool, str]:
    """The channels of a name, `DNA|ER`, then `PARSED`."""
    if family == "Embedding":
        return "", rest, np.nan, np.nan, "", "", True, "embedding"
    named = channels_of(rest, channels)
    if re.match(PLACES, f"{family}_{rest}_"):
        return "|".join(named), "", np.nan, np.nan, "", "", False, ""
    words = [word for word in re.sub(channel_pattern(channels), "", rest).split("_") if word]
    rings = [word for word in words if re.fullmatch(r"\d+of\d+", word)]
    numbers = [word for word in words if re.fullmatch(r"-?\d+(\.\d+)?", word)]
    feature = "_".join(word for word in words if word not in (*rings, *numbers)) or family
    angle, levels = map(float, numbers[1:3]) if family == "Texture" and len(numbers) == 3 else (np.nan, np.nan)
    return "|".join(named), feature, angle, levels, "".join(rings[:1]), "_".join(numbers), True, "measurement"


@lru_cache(maxsize=1 << 14)  # the object sets share their names
def said(family: str, rest: str, channels: tuple[str, ...]) -> tuple[str, str, int, str, str, str]:
    """Channel, channel_2, n_channels, scale, unit and feature type of a column."""
    named = [] if family == "Embedding" else channels_of(rest, channels)
    first, second = (*named, "", "")[:2]
    return first, second, len(named), scale_in(family, rest), unit_of(family, rest), TYPES.get(family, "")


def channels_of(rest: str, channels: Sequence[str]) -> list[str]:
    """The channels that stand in a name after its family, in their order; of two names that fit, the longer."""
    return re.findall(channel_pattern(tuple(channels)), rest) if channels else []


@lru_cache(maxsize=64)
def channel_pattern(channels: tuple[str, ...]) -> str:
    """A channel's name as a word of a column's name; nothing where there are no channels."""
    words = "|".join(sorted(map(re.escape, channels), key=len, reverse=True))
    return rf"(?:(?<=_)|^)(?:{words})(?=_|$)" if words else r"(?!)"


def scale_of(column: str) -> str:
    """The scale word of a column: a texture's pixels, a spectrum's step, a ring, a neighbour distance; '' for none."""
    return scale_in(*split_name(column)[1:])


def scale_in(family: str, rest: str) -> str:
    match = re.search(SCALES.get(family, r"(?!)"), rest)
    return match[1] if match else ""


def unit_of(family: str, rest: str) -> str:
    """The unit of a column, as the glossary has it; '' for a number without one, and for a column it does not know."""
    known = FAMILIES.get(family)
    match = known.match(rest) if known else None
    if known is None or match is None:
        return ""
    result = match.groupdict()
    unit = known.measures[result.get("measure") or ""][1] or known.unit
    if unit == "pixels^(i + j)":
        order = int(result["i"]) + int(result["j"])
        return f"pixels^{order}" if order else ""
    return UNITS.get(unit, "" if unit.startswith("none") else unit)
