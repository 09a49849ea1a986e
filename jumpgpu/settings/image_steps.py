"""The kinds of steps that make images: what CellProfiler's image modules do. Sizes are pixels."""

from dataclasses import dataclass, field
from typing import ClassVar

from .config import ThresholdSettings


@dataclass(frozen=True)
class Step:
    """`module` is the module's place in the pipeline that it came from, for messages. `makes`: an image, and nothing else
    ("image"), or an image with measurements ("both")."""

    do: ClassVar[str] = ""
    makes: ClassVar[str] = ""
    module: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Load(Step):
    """An image of the plate, count / 65535; or, of a channel, its illumination function."""

    do = "load"
    makes = "image"
    image: str
    channel: str
    function: bool = False


@dataclass(frozen=True)
class Illuminate(Step):
    """CorrectIlluminationApply."""

    do = "correct_illumination"
    makes = "image"
    image: str
    function: str
    output: str
    method: str = "divide"  # divide, subtract
    clip_low: bool = True
    clip_high: bool = True


@dataclass(frozen=True)
class Illumination(Step):
    """CorrectIlluminationCalculate, of each image, or (`plate`) of all the plate's images together.

    `background`: of the minima of blocks. `size` is the smoothing filter's, None CellProfiler's automatic one; `dilation`
    the radius that objects are dilated by, 0 for none. `average` and `dilated` name the images before smoothing, where they
    are kept. `spline_*` hold where splines are not automatic (`spline_points` above 0).
    """

    do = "illumination"
    makes = "image"
    image: str
    output: str
    plate: bool = False
    background: bool = False
    block: int = 60
    dilation: int = 0
    smoothing: str = "none"  # none, median, gaussian, polynomial, convex_hull, splines, average
    size: float | None = None
    rescale: str = "no"  # no, yes, median
    average: str = ""
    dilated: str = ""
    spline_points: int = 0
    spline_mode: str = "auto"  # auto, dark, bright, gray
    spline_threshold: float = 2.0
    spline_scale: float = 2.0
    spline_iterations: int = 40
    spline_convergence: float = 0.001


@dataclass(frozen=True)
class KeepFunction(Step):
    """What illumination pipelines are for: the image that becomes a channel's function."""

    do = "keep_function"
    image: str
    channel: str


@dataclass(frozen=True)
class Resize(Step):
    """Resize by factors of rows and columns, or (where they are 0) to a height and width, or to that of the image `like`."""

    do = "resize"
    makes = "image"
    image: str
    output: str
    factor_y: float = 0.0
    factor_x: float = 0.0
    height: int = 0
    width: int = 0
    like: str = ""
    order: int = 1  # of the spline: 0 nearest neighbour, 1 bilinear, 3 bicubic


@dataclass(frozen=True)
class GrayOfColors(Step):
    """ColorToGray: the weighted mean of planes of a colour image."""

    do = "gray_of_colors"
    makes = "image"
    output: str
    images: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Math(Step):
    """ImageMath; an operand is an image, or an image measurement where `measurements` has its name."""

    do = "image_math"
    makes = "image"
    output: str
    operation: str  # add, subtract, difference, multiply, divide, average, minimum, maximum, deviation, invert, none, ...
    images: tuple[str, ...]
    factors: tuple[float, ...]
    measurements: tuple[str, ...] = ()
    exponent: float = 1.0
    factor: float = 1.0
    addend: float = 0.0
    clip_low: bool = True
    clip_high: bool = True
    replace_nan: bool = True
    ignore_mask: bool = False  # of the others; the first image's holds


@dataclass(frozen=True)
class Smooth(Step):
    """Smooth; size None is CellProfiler's automatic one."""

    do = "smooth"
    makes = "image"
    image: str
    output: str
    method: str  # gaussian, median, keeping_edges, polynomial, circular_average, average
    size: float | None = None
    edge_range: float = 0.1  # of keeping_edges: the difference in intensity that is an edge
    clip: bool = True  # a polynomial to 0..1


@dataclass(frozen=True)
class Enhance(Step):
    """EnhanceOrSuppressFeatures: `size` of speckles and of lines by their gradient; `sigma` of tubes, texture and DIC.

    Lines may be stretched to 0..1 (`rescale`); `holes`: the least and greatest diameter of dark holes; `angle` and `decay`
    of DIC.
    """

    do = "enhance"
    makes = "image"
    image: str
    output: str
    feature: str  # speckles, tubeness, gradient, dark_holes, texture, dic, suppress
    size: float = 10.0
    sigma: float = 2.0
    rescale: bool = False
    slow: bool = False  # speckles; the same but for an odd size
    holes: tuple[int, ...] = (1, 10)
    angle: float = 0.0
    decay: float = 0.95


@dataclass(frozen=True)
class Crop(Step):
    """Crop to a rectangle of columns left .. right and rows top .. bottom (half-open), or as an earlier image was.

    `ellipse` of centre x, y and radii x, y; `objects` or a binary image `mask` give other shapes. `keep`: the image keeps
    its size, and what is beyond is masked.
    """

    do = "crop"
    makes = "both"
    image: str
    output: str
    like: str = ""  # an image that was cropped; "": by the rectangle
    left: int = 0
    right: int | None = None
    top: int = 0
    bottom: int | None = None
    ellipse: tuple[float, ...] = ()
    objects: str = ""
    mask: str = ""
    keep: bool = False


@dataclass(frozen=True)
class MaskImage(Step):
    """MaskImage, by an object set or a binary image; what is masked is 0 and is not looked at."""

    do = "mask_image"
    makes = "image"
    image: str
    output: str
    objects: str = ""
    mask: str = ""
    invert: bool = False


@dataclass(frozen=True)
class Threshold(Step):
    """Threshold to a binary image."""

    do = "threshold"
    makes = "both"
    image: str
    output: str
    threshold: ThresholdSettings


@dataclass(frozen=True)
class Skeletonize(Step):
    """MorphologicalSkeleton of a binary image (`method` lookup), or Morph's skel (`method` distance)."""

    do = "skeletonize"
    makes = "image"
    image: str
    output: str
    method: str = "lookup"


@dataclass(frozen=True)
class ObjectsImage(Step):
    """ConvertObjectsToImage: where there are any ("binary"), their numbers, or these over the highest ("grayscale")."""

    do = "objects_to_image"
    makes = "image"
    objects: str
    output: str
    mode: str = "binary"  # binary, grayscale, numbers
