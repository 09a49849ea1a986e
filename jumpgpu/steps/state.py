"""What a batch of fields holds between steps: images, object sets and measurements, by the pipeline's own names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..features.objects import ObjectBatch
from ..image_features.intensity import Values


class Skipped(Exception):
    """A step that ends a field: FlagImage with "Skip image set if flagged?"; the text says why."""


@dataclass(frozen=True)
class Image:
    """An image of every field.

    pixels   float32, float64 or bool [B, H, W]; or [H, W], of a function that is the plate's
    valid    bool [B, H, W], what is not masked; None: everything
    crop     (top, bottom, left, right) of the rectangle that was cut out; None: whole
    scale    what its file's counts were divided by
    """

    pixels: torch.Tensor
    valid: torch.Tensor | None = None
    crop: tuple[int, int, int, int] | None = None
    scale: float = float("nan")


def thresholdable(image: Image, name: str, method: str, *, negative: bool = False) -> Image:
    """An image as thresholds and objects are sought in it by a threshold's method: 0 has no sign, since kernels order values
    by their bits. ValueError for values outside 0 and 1 (above 1 a manual threshold allows; `negative`: and below 0)."""
    if not image.pixels.is_floating_point():
        return image
    pixels = image.pixels + 0.0
    of = pixels if image.valid is None else pixels[image.valid]
    low, high = (float(v) for v in of.aminmax()) if of.numel() else (0.0, 0.0)
    manual = method == "manual"
    if not ((low >= 0 or (manual and negative)) and (high <= 1 or manual)):  # NaN too
        raise ValueError(
            f"image {name} has values from {low:.6g} to {high:.6g}, and a threshold by {method} is of values from 0 to 1; "
            "a module before it can set what lies outside to 0 or 1"
        )
    return replace(image, pixels=pixels)


@dataclass(frozen=True)
class ObjectSet:
    """One set of objects of every field.

    labels      int32 [B, H, W]   1..n of the field; 0 is background
    unedited    int32 [B, H, W]   every object that was found, under numbers of its own
    not_small   int32 [B, H, W]   those of them that count as neighbours (CellProfiler's small_removed_segmented)
    counts      objects of each field
    family      sets of one family share numbers: number n of one is the counterpart of number n of another
    whole       whether they are whole cells, in which those of the same number in other sets lie
    """

    labels: torch.Tensor
    unedited: torch.Tensor
    not_small: torch.Tensor
    counts: tuple[int, ...]
    family: int
    whole: bool = False

    @property
    def n(self) -> int:
        return sum(self.counts)


@dataclass
class State:
    """`measured`: object set -> column (without the set's name) -> float64 [n]; `image_measured`: name -> float64 [B]."""

    images: dict[str, Image] = field(default_factory=dict)
    objects: dict[str, ObjectSet] = field(default_factory=dict)
    measured: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    image_measured: dict[str, torch.Tensor] = field(default_factory=dict)
    batches: dict[tuple[tuple[str, ...], tuple[str, ...]], ObjectBatch] = field(default_factory=dict)  # by images and sets
    of_other_centres: set[tuple[str, str]] = field(default_factory=set)  # columns of rings around other objects' centres
    centres: dict[tuple[str, str, str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    costes: dict[tuple[str, ...], Any] = field(default_factory=dict)  # thresholds of images together, found once
    values: dict[str, tuple[torch.Tensor, Values]] = field(default_factory=dict)  # of whole images, with their pixels
    valid: dict[str, torch.Tensor | None] = field(default_factory=dict)  # of object sets: which pixels of their image count
    families: int = 0
    site: float = float("nan")  # the field's number
    skipped: str = ""  # why the rest of the steps were not done

    def add(
        self,
        name: str,
        labels: torch.Tensor,
        unedited: torch.Tensor,
        not_small: torch.Tensor,
        counts: torch.Tensor,
        family: int | None = None,
        *,
        whole: bool = False,
    ) -> ObjectSet:
        """A new object set; `family` None: its numbers are its own."""
        if family is None:
            self.families += 1
            family = self.families
        result = ObjectSet(labels, unedited, not_small, tuple(counts.tolist()), family, whole)
        self.objects[name] = result
        self.measured.setdefault(name, {})
        self.image_measured[f"Count_{name}"] = counts.double()
        return result

    def levels(self, images: Sequence[str]) -> int:
        """Steps of Costes' search: the most counts of the images' files, 255 where none is known, as in CellProfiler."""
        known = [self.images[i].scale for i in images if math.isfinite(self.images[i].scale)]
        return int(max(known, default=255))

    def record(self, objects: str, columns: dict[str, torch.Tensor]) -> None:
        self.measured[objects].update(columns)
