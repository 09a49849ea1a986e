"""The kinds of steps: what a CellProfiler module does, as a table `[[steps]]` of a settings file with the word `do`.

Images and object sets are called as the pipeline calls them; a step may use what an earlier one made. Sizes are pixels.
"""

from dataclasses import dataclass

from .config import STEP_KINDS, PrimarySettings, SecondarySettings
from .image_steps import Crop as Crop
from .image_steps import Enhance as Enhance
from .image_steps import GrayOfColors as GrayOfColors
from .image_steps import Illuminate as Illuminate
from .image_steps import Illumination as Illumination
from .image_steps import KeepFunction as KeepFunction
from .image_steps import Load as Load
from .image_steps import MaskImage as MaskImage
from .image_steps import Math as Math
from .image_steps import ObjectsImage as ObjectsImage
from .image_steps import Resize as Resize
from .image_steps import Skeletonize as Skeletonize
from .image_steps import Smooth as Smooth
from .image_steps import Step as Step
from .image_steps import Threshold as Threshold


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
    """FilterObjects: those at the border, or outside limits of measurements; `others` follow by number.

    `keep` "minimal" or "maximal": only the object of that value of the one measurement, or (`enclosing`) one such object in
    each of other objects. Where it lies in several, it is both's, or (`most_overlap`) that of which it has most pixels.
    """

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
    keep: str = "limits"  # limits, minimal, maximal
    enclosing: str = ""
    most_overlap: bool = False


@dataclass(frozen=True)
class Expand(Step):
    """ExpandOrShrinkObjects, by a number of pixels, or until objects touch or are a point ("..._infinite")."""

    do = "expand_objects"
    objects: str
    output: str
    pixels: int = 1
    method: str = "expand"  # expand, expand_infinite, shrink, shrink_infinite, divide, despur, skeletonize
    fill_holes: bool = False  # before they shrink


@dataclass(frozen=True)
class MaskObjects(Step):
    """MaskObjects, by another object set or a binary image.

    `overlap`: "cut" keeps what overlaps the mask; "any" keeps objects that overlap it, "all" those that lie within it,
    "share" those of which at least `share` does. `renumber`: what is left has numbers of its own.
    """

    do = "mask_objects"
    objects: str
    output: str
    by_objects: str = ""
    mask: str = ""
    invert: bool = False
    overlap: str = "cut"
    share: float = 0.5
    renumber: bool = True


@dataclass(frozen=True)
class Relate(Step):
    """RelateObjects; `saved`: children that have a parent, as a set of their own. `distances` from each child's centre, to
    the "centroid" of its parent, the "minimum" to its edge; of the parents' own parents too (`step_parents`)."""

    do = "relate_objects"
    parent: str
    child: str
    means: bool = False
    saved: str = ""
    distances: tuple[str, ...] = ()
    step_parents: tuple[str, ...] = ()


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
    """CalculateMath of two measurements: ((a fa)^ea op (b fb)^eb) with what comes after. An operand without `objects` is an
    image's; of two kinds of objects that are not as many, each has the mean of its parents' or children's."""

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
    rounding: str = "no"  # no, digits, floor, ceiling
    digits: int = 0


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
