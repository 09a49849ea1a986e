"""The kinds of steps that measure whole images, or skip a site by what was measured: rows of CellProfiler's Image table."""

from dataclasses import dataclass

from .config import STEP_KINDS
from .steps import Step


@dataclass(frozen=True)
class MeasureImageQuality(Step):
    """MeasureImageQuality. Methods of `thresholds` bear what tells variants apart: Otsu_2W, Otsu_3FS, MoG_25, Kapur."""

    do = "measure_image_quality"
    images: tuple[str, ...]
    scaling: bool = False
    scales: tuple[int, ...] = ()  # blur, pixels; none: no blur is measured
    saturation: bool = False
    intensity: bool = False
    thresholds: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasureAreaOccupied(Step):
    """MeasureImageAreaOccupied, of object sets and of binary images."""

    do = "measure_area_occupied"
    objects: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasureImageTexture(Step):
    """MeasureTexture of whole images."""

    do = "measure_image_texture"
    images: tuple[str, ...]
    scales: tuple[int, ...]
    levels: int = 256


@dataclass(frozen=True)
class MeasureImageGranularity(Step):
    """MeasureGranularity of whole images."""

    do = "measure_image_granularity"
    images: tuple[str, ...]
    subsampling: float = 0.25
    background_subsampling: float = 0.25
    radius: int = 10
    spectrum: int = 16


@dataclass(frozen=True)
class MeasureImageCorrelation(Step):
    """MeasureColocalization of whole images."""

    do = "measure_image_colocalization"
    images: tuple[str, ...]
    threshold: float = 15.0
    metrics: tuple[str, ...] = ("correlation", "manders", "rwc", "overlap", "costes")
    costes_mode: str = "faster"  # faster, fast, accurate


@dataclass(frozen=True)
class Flag(Step):
    """FlagImage: `name` is 1 where a measurement is beyond its limits, of all of them or of any; and the site may end there.

    `sources` of each measurement are "image", "average" or "all", the latter two of `objects`.
    """

    do = "flag_image"
    name: str
    measurements: tuple[str, ...]
    sources: tuple[str, ...]
    objects: tuple[str, ...]
    lowest: tuple[float, ...]  # of each; -inf: none
    highest: tuple[float, ...]
    any: bool = True
    skip: bool = False


KINDS: dict[str, type[Step]] = {kind.do: kind for kind in (
    MeasureImageQuality, MeasureAreaOccupied, MeasureImageTexture, MeasureImageGranularity, MeasureImageCorrelation, Flag
)}  # fmt: skip
STEP_KINDS.update(KINDS)
