"""The kinds of steps that filter images and reshape objects: CellProfiler's Advanced modules, Morph and the like. Pixels."""

from dataclasses import dataclass

from .config import STEP_KINDS
from .steps import Step


@dataclass(frozen=True)
class FilterImage(Step):
    """Opening, Closing, ErodeImage, DilateImage, GaussianFilter, MedianFilter, RemoveHoles.

    `size` is the structuring element's (`element` disk, diamond, square, star), sigma, the window or the diameter of holes.
    """

    do = "filter_image"
    makes = "image"
    image: str
    output: str
    method: str  # opening, closing, erosion, dilation, gaussian, median, remove_holes
    size: float
    element: str = "disk"


@dataclass(frozen=True)
class Rescale(Step):
    """RescaleIntensity. `low` and `high` are the range that becomes `out_low` to `out_high`; None: the image's own.

    `method`: "range"; "divide" by `divisor`, by the image's "minimum" or "maximum", or by a `measurement`; "match" the
    maximum of the image `like`.
    """

    do = "rescale"
    makes = "image"
    image: str
    output: str
    method: str = "range"  # range, minimum, maximum, divide, measurement, match
    low: float | None = None
    high: float | None = None
    out_low: float = 0.0
    out_high: float = 1.0
    divisor: float = 1.0
    measurements: tuple[str, ...] = ()
    like: str = ""


@dataclass(frozen=True)
class Morph(Step):
    """Morph: operations after one another, each so often; `rescale` is of a distance's image to 0 .. 1."""

    do = "morph"
    makes = "image"
    image: str
    output: str
    operations: tuple[str, ...]
    repeats: tuple[int, ...]
    rescale: tuple[bool, ...]


@dataclass(frozen=True)
class Edges(Step):
    """EnhanceEdges. `sigma` is of LoG and Canny; Canny's thresholds are `low` and `high` (None: by Otsu, times `factor`)."""

    do = "edges"
    makes = "image"
    image: str
    output: str
    method: str  # sobel, prewitt, roberts, log, canny, kirsch
    direction: str = "all"  # all, horizontal, vertical
    sigma: float = 2.0
    low: float | None = None
    high: float | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Reshape(Step):
    """ErodeObjects, DilateObjects, FillObjects, ShrinkToObjectCenters: each object by itself.

    `size` is the structuring element's, or the diameter of the holes that are filled. Erosion may keep the middle of an
    object that would go (`keep_middle`), and number what is left anew, by its pieces (`renumber`).
    """

    do = "reshape_objects"
    objects: str
    output: str
    method: str  # erosion, dilation, fill_holes, convex_hull, centers
    size: float = 1.0
    element: str = "disk"
    keep_middle: bool = True
    renumber: bool = False


@dataclass(frozen=True)
class ImageToObjects(Step):
    """ConvertImageToObjects of what is above a half: pieces that touch, corners too (`corners`), in the order of rows.

    `values` "pieces": of pixels of one count (of 65535), but for the count `background`; "numbers": the counts themselves.
    Objects that are loaded: "ranked", the file's counts in their order, the least being no object; "gapless", the counts
    themselves, or where few or far apart in their order, or where numbers are left out the pieces that touch.
    """

    do = "image_to_objects"
    image: str
    output: str
    corners: bool = True
    values: str = "binary"  # binary, pieces, numbers, ranked, gapless
    background: int = 0


KINDS: dict[str, type[Step]] = {kind.do: kind for kind in (
    FilterImage, Rescale, Morph, Edges, Reshape, ImageToObjects
)}  # fmt: skip
STEP_KINDS.update(KINDS)
