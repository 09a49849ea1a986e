"""The kinds of steps: what a CellProfiler module does, as a table `[[steps]]` of a settings file with the word `do`.

Images and object sets are called as the pipeline calls them; a step may use what an earlier one made. Sizes are pixels.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from .config import STEP_KINDS, PrimarySettings, SecondarySettings, ThresholdSettings


@dataclass(frozen=True)
class Step:
    """`module` is the module's place in the pipeline that it came from, for messages."""

    do: ClassVar[str] = ""
    module: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Load(Step):
    """An image of the plate, count / 65535; or, of a channel, its illumination function."""

    do = "load"
    image: str
    channel: str
    function: bool = False


@dataclass(frozen=True)
class Illuminate(Step):
    """CorrectIlluminationApply."""

    do = "correct_illumination"
    image: str
    function: str
    output: str
    method: str = "divide"  # divide, subtract
    clip_low: bool = True
    clip_high: bool = True


@dataclass(frozen=True)
class Background(Step):
    """CorrectIlluminationCalculate, Background of each image: block minima smoothed by a Gaussian of sigma = filter_size
    / 2.35."""

    do = "background"
    image: str
    output: str
    block: int
    filter_size: float


@dataclass(frozen=True)
class Math(Step):
    """ImageMath; an operand is an image, or an image measurement where `measurements` has its name."""

    do = "image_math"
    output: str
    operation: str  # add, subtract, difference, multiply, divide, average, minimum, maximum, invert, none
    images: tuple[str, ...]
    factors: tuple[float, ...]
    measurements: tuple[str, ...] = ()
    exponent: float = 1.0
    factor: float = 1.0
    addend: float = 0.0
    clip_low: bool = True
    clip_high: bool = True
    replace_nan: bool = True


@dataclass(frozen=True)
class Smooth(Step):
    """Smooth; size None is CellProfiler's automatic one."""

    do = "smooth"
    image: str
    output: str
    method: str  # gaussian, median, average
    size: float | None = None


@dataclass(frozen=True)
class Enhance(Step):
    """EnhanceOrSuppressFeatures: `size` of speckles; `sigma` of tubes, which may be stretched to 0..1."""

    do = "enhance"
    image: str
    output: str
    feature: str  # speckles, tubeness, suppress
    size: float = 10.0
    sigma: float = 2.0
    rescale: bool = False


@dataclass(frozen=True)
class Crop(Step):
    """Crop to a rectangle of columns left .. right and rows top .. bottom (half-open), or as an earlier image was."""

    do = "crop"
    image: str
    output: str
    like: str = ""  # an image that was cropped; "": by the rectangle
    left: int = 0
    right: int | None = None
    top: int = 0
    bottom: int | None = None


@dataclass(frozen=True)
class MaskImage(Step):
    """MaskImage, by an object set or a binary image; what is masked is 0 and is not looked at."""

    do = "mask_image"
    image: str
    output: str
    objects: str = ""
    mask: str = ""
    invert: bool = False


@dataclass(frozen=True)
class Threshold(Step):
    """Threshold to a binary image."""

    do = "threshold"
    image: str
    output: str
    threshold: ThresholdSettings


@dataclass(frozen=True)
class Skeletonize(Step):
    """MorphologicalSkeleton of a binary image (`method` lookup), or Morph's skel (`method` distance)."""

    do = "skeletonize"
    image: str
    output: str
    method: str = "lookup"


@dataclass(frozen=True)
class ObjectsImage(Step):
    """ConvertObjectsToImage, binary."""

    do = "objects_to_image"
    objects: str
    output: str


@dataclass(frozen=True)
class Primary(Step):
    """IdentifyPrimaryObjects. Of `settings`, channel and background are not used."""

    do = "identify_primary"
    image: str
    objects: str
    settings: PrimarySettings
    measured_threshold: str = ""  # an image measurement; times the correction, within the bounds


@dataclass(frozen=True)
class Secondary(Step):
    """IdentifySecondaryObjects. Of `settings`, channel is not used; `new_seeds`: seeds are discarded with their objects."""

    do = "identify_secondary"
    image: str
    seeds: str
    objects: str
    settings: SecondarySettings
    new_seeds: str = ""
    measured_threshold: str = ""


@dataclass(frozen=True)
class Tertiary(Step):
    """IdentifyTertiaryObjects."""

    do = "identify_tertiary"
    larger: str
    smaller: str
    objects: str
    shrink: bool = True


@dataclass(frozen=True)
class Filter(Step):
    """FilterObjects: those at the border, or outside limits of measurements; `others` follow by number."""

    do = "filter_objects"
    objects: str
    output: str
    border: bool = False
    measurements: tuple[str, ...] = ()
    lowest: tuple[float, ...] = ()  # of each; -inf: none
    highest: tuple[float, ...] = ()
    others: tuple[str, ...] = ()
    other_outputs: tuple[str, ...] = ()
    removed: str = ""


@dataclass(frozen=True)
class Expand(Step):
    """ExpandOrShrinkObjects: expand by a number of pixels."""

    do = "expand_objects"
    objects: str
    output: str
    pixels: int


@dataclass(frozen=True)
class Relate(Step):
    """RelateObjects; `saved`: children that have a parent, as a set of their own."""

    do = "relate_objects"
    parent: str
    child: str
    means: bool = False
    saved: str = ""


@dataclass(frozen=True)
class MeasureIntensity(Step):
    """MeasureObjectIntensity."""

    do = "measure_intensity"
    images: tuple[str, ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class MeasureShape(Step):
    """MeasureObjectSizeShape."""

    do = "measure_shape"
    objects: tuple[str, ...]
    zernike: bool = True
    advanced: bool = False


@dataclass(frozen=True)
class MeasureCorrelation(Step):
    """MeasureColocalization within objects. Of `metrics`, overlap gives Overlap and K."""

    do = "measure_colocalization"
    images: tuple[str, ...]
    objects: tuple[str, ...]
    threshold: float = 15.0
    metrics: tuple[str, ...] = ("correlation", "manders", "rwc", "overlap", "costes")
    costes_mode: str = "faster"  # faster, fast, accurate


@dataclass(frozen=True)
class MeasureGranularity(Step):
    """MeasureGranularity within objects."""

    do = "measure_granularity"
    images: tuple[str, ...]
    objects: tuple[str, ...]
    subsampling: float = 0.25
    background_subsampling: float = 0.25
    radius: int = 10
    spectrum: int = 16


@dataclass(frozen=True)
class MeasureTexture(Step):
    """MeasureTexture within objects."""

    do = "measure_texture"
    images: tuple[str, ...]
    objects: tuple[str, ...]
    scales: tuple[int, ...]
    levels: int = 256


@dataclass(frozen=True)
class MeasureNeighbors(Step):
    """MeasureObjectNeighbors of `objects` among `among`."""

    do = "measure_neighbors"
    objects: str
    among: str
    method: str = "adjacent"  # adjacent, expanded, within
    distance: int = 1
    discarded: bool = True  # objects that were discarded count as neighbours


@dataclass(frozen=True)
class MeasureRadial(Step):
    """MeasureObjectIntensityDistribution of one object set: `center` "self", "centers" or "edges" of the objects `of`.

    `max_radius` 0: rings are scaled to the object; else they reach so far, and an overflow ring takes the rest.
    `scaled_first`:
    CellProfiler measures distances once for an object set, so a second number of rings keeps the first one's scaling and
    only
    has an overflow besides; 0: as max_radius says.
    """

    do = "measure_radial"
    images: tuple[str, ...]
    objects: tuple[str, ...]
    bins: int = 4
    center: str = "self"
    of: str = ""
    max_radius: int = 0
    overflow: bool = False


@dataclass(frozen=True)
class MeasureZernike(Step):
    """MeasureObjectIntensityDistribution's Zernike moments, up to the ninth."""

    do = "measure_radial_zernike"
    images: tuple[str, ...]
    objects: tuple[str, ...]
    phase: bool = False


@dataclass(frozen=True)
class MeasureSkeleton(Step):
    """MeasureObjectSkeleton: branches of a skeleton image around seeds."""

    do = "measure_skeleton"
    image: str
    objects: str
    fill_holes: bool = True
    hole_size: int = 10


IMAGE_INTENSITY = (
    *("TotalIntensity", "MeanIntensity", "MedianIntensity", "StdIntensity", "MADIntensity", "MaxIntensity", "MinIntensity"),
    *("TotalArea", "PercentMaximal", "LowerQuartileIntensity", "UpperQuartileIntensity"),
)


@dataclass(frozen=True)
class MeasureImageIntensity(Step):
    """MeasureImageIntensity of a whole image, or of its pixels in each of `objects`."""

    do = "measure_image_intensity"
    image: str
    objects: tuple[str, ...] = ()
    percentiles: tuple[int, ...] = ()


@dataclass(frozen=True)
class CalculateMath(Step):
    """CalculateMath of two measurements of one object set: ((a fa)^ea op (b fb)^eb) with what comes after."""

    do = "calculate_math"
    name: str
    operation: str  # multiply, divide, add, subtract, none
    objects: tuple[str, ...]
    measurements: tuple[str, ...]
    factors: tuple[float, ...]
    exponents: tuple[float, ...]
    log: bool = False
    factor: float = 1.0
    exponent: float = 1.0
    addend: float = 0.0
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Classify(Step):
    """ClassifyObjects by one measurement: a column of 0 and 1 a bin."""

    do = "classify_objects"
    objects: str
    measurement: str
    edges: tuple[float, ...]
    names: tuple[str, ...]


KINDS: dict[str, type[Step]] = {kind.do: kind for kind in Step.__subclasses__()}
STEP_KINDS.update(KINDS)
