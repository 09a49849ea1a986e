"""The kinds of steps that make object sets of others or of an image, and that compare them. Sizes are pixels."""

from dataclasses import dataclass

from .config import STEP_KINDS
from .steps import Step


@dataclass(frozen=True)
class ResizeObjects(Step):
    """ResizeObjects by factors of rows and columns, or (where they are 0) to a height and width, or to that of an image."""

    do = "resize_objects"
    objects: str
    output: str
    factor_y: float = 0.0
    factor_x: float = 0.0
    height: int = 0
    width: int = 0
    like: str = ""


@dataclass(frozen=True)
class Regroup(Step):
    """SplitOrMergeObjects: "split" into pieces that touch, "merge" what lies within `distance`, or what has one "parent".

    Where an `image` guides the merging, two objects are merged if it is nowhere darker between them than `fraction` of the
    dimmer of their centres (`by` "centroids"), or of the nearest pixels of theirs ("closest"). Objects of one parent may be
    filled to a `hull`.
    """

    do = "regroup_objects"
    objects: str
    output: str
    method: str  # split, merge, parent
    distance: int = 0
    image: str = ""
    fraction: float = 0.9
    by: str = "closest"  # closest, centroids
    parent: str = ""
    hull: bool = False


@dataclass(frozen=True)
class Watershed(Step):
    """Watershed of a binary image's distance to its background, or from `markers` within a `mask`.

    Of distances: pixels are joined in blocks of `downsample`, and the basins are the maxima in squares of `footprint`.
    """

    do = "watershed"
    image: str
    output: str
    markers: str = ""
    mask: str = ""
    corners: bool = False  # of a pixel's neighbours, where there are markers
    footprint: int = 8
    downsample: int = 1


@dataclass(frozen=True)
class MeasureImageSkeleton(Step):
    """MeasureImageSkeleton: branches and end points of a skeleton image."""

    do = "measure_image_skeleton"
    image: str


@dataclass(frozen=True)
class MeasureOverlap(Step):
    """MeasureObjectOverlap of two object sets, or MeasureImageOverlap of two binary images: how far `test` is `truth`."""

    do = "measure_overlap"
    truth: str
    test: str
    of: str = "objects"  # objects, images


KINDS: dict[str, type[Step]] = {kind.do: kind for kind in (
    ResizeObjects, Regroup, Watershed, MeasureImageSkeleton, MeasureOverlap
)}  # fmt: skip
STEP_KINDS.update(KINDS)
