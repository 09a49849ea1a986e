"""What every column means: formula, unit, NaN rule, settings and source, by family and measure.

A family's `Family.name` matches what stands after the family word in a column; its groups name the parts. A measure is
(formula, unit, NaN rule); an empty unit or rule is the family's. `jumpgpu.columns --explain` prints it.
"""

import re
from dataclasses import dataclass

CHANNEL = r"(?P<channel>.+)"
EMPTY = "nan for an object without pixels"
FILLS = (  # why CellProfiler's number, made of SciPy's distance to a background that is not there, is not taken
    ", and for one that fills its field: no pixel lies outside, so that none has a distance to the edge"
)
Measure = tuple[str, str, str]


@dataclass(frozen=True)
class Family:
    """A family's columns: their pattern, measures, source, our module and kernels, settings, what the measures share."""

    name: str
    measures: dict[str, Measure]
    source: str
    module: str  # below jumpgpu/features
    kernels: tuple[str, ...]  # below kernels/, the one that finishes last
    settings: tuple[str, ...]  # keys of the configuration file
    unit: str = "none"
    nan: str = EMPTY
    tool: str = "CellProfiler 4.2.8, "

    def match(self, rest: str) -> re.Match[str] | None:
        words = "|".join(sorted(map(re.escape, self.measures), key=len, reverse=True))
        return re.fullmatch(self.name.replace("MEASURE", f"(?P<measure>{words})"), rest)

    def place(self, measure: str) -> str:
        """Where a measure is computed: the kernel file and line that writes it, or the module where no kernel does."""
        from ..gpu.kernel_source import line_of  # imports torch, which the names of columns do not need

        for pattern in (rf"out(\[| \+ )[\w:]*\b{measure}\b", rf"^(?!//).*\b{measure}\b") if measure else ():
            for kernel in self.kernels:
                if line := line_of(kernel, pattern):
                    return f"kernels/{kernel}:{line}"
        if not self.kernels:
            return f"jumpgpu/features/{self.module}.py"
        return f"kernels/{self.kernels[-1]}:{line_of(self.kernels[-1], r'^extern')}"


def plain(**measures: str | tuple[str, ...]) -> dict[str, Measure]:
    """Measures from a formula, or a formula with its unit and then its NaN rule."""
    rows = {name: (row,) if isinstance(row, str) else row for name, row in measures.items()}
    return {name: (row[0], row[1] if len(row) > 1 else "", row[2] if len(row) > 2 else "") for name, row in rows.items()}


PIXELS, SQUARE, DEGREES, INTENSITY = "pixels", "pixels squared", "degrees", "intensity, 0..1 of the camera's range"

SHAPE = plain(
    Area=("number of pixels", SQUARE, "0 for an object without pixels"),
    BoundingBoxArea=("height times width of the upright box around the object", SQUARE),
    BoundingBoxMaximum_X="first column past the object",
    BoundingBoxMaximum_Y="first row past the object",
    BoundingBoxMinimum_X="first column of the object",
    BoundingBoxMinimum_Y="first row of the object",
    Center_X="mean column of the object's pixels, from 0",
    Center_Y="mean row of the object's pixels, from 0",
    Compactness=("perimeter^2 / (4 pi area)", "none"),
    ConvexArea=("pixels whose centre lies in the hull of the pixels' edge midpoints", SQUARE),
    Eccentricity=("sqrt(1 - (minor axis / major axis)^2) of the ellipse with the object's second moments", "none"),
    EquivalentDiameter="diameter of the disk of the same area, sqrt(4 area / pi)",
    EulerNumber=("8-connected pieces less their holes", "count"),
    Extent=("area / bounding box area", "none"),
    FormFactor=("4 pi area / perimeter^2", "none"),
    MajorAxisLength="longer axis of the ellipse with the object's second moments",
    MaxFeretDiameter="largest distance between two vertices of the convex hull of pixel centres",
    MaximumRadius="largest distance from a pixel of the object to the nearest pixel outside it",
    MeanRadius="mean distance from the object's pixels to the nearest pixel outside it",
    MedianRadius="median distance from the object's pixels to the nearest pixel outside it",
    MinFeretDiameter="smallest distance between two parallel lines around the convex hull of pixel centres",
    MinorAxisLength="shorter axis of the ellipse with the object's second moments",
    Orientation=("angle of the major axis to the vertical, -90 to 90", DEGREES),
    Perimeter="length of the outline through pixel centres: 1, sqrt 2 or (1 + sqrt 2) / 2 by how each outline pixel joins",
    Solidity=("area / convex area", "none"),
    Zernike=(
        "magnitude of the Zernike moment (n, m) over the smallest enclosing circle: |sum V_nm| / (pi radius^2)",
        "none",
        "nan where the circle has no radius (one pixel) and for an object without pixels",
    ),
    SpatialMoment=("sum of row^i column^j from the corner of the bounding box", "pixels^(i + j)"),
    CentralMoment=("sum of (row - mean)^i (column - mean)^j", "pixels^(i + j)"),
    NormalizedMoment=("central moment / area^((i + j) / 2 + 1)", "none", "nan below order 2 and for an empty object"),
    HuMoment=("Hu's invariant of the normalised moments", "none"),
    InertiaTensor=("entry of the inertia tensor: second central moments / area", SQUARE),
    InertiaTensorEigenvalues=("larger (0) or smaller (1) eigenvalue of the inertia tensor", SQUARE),
)
COLOCALIZATION = plain(
    Correlation=(
        "sum (a - mean a)(b - mean b) / sqrt(sum (a - mean a)^2 sum (b - mean b)^2) over the object",
        "",
        "nan where a channel is constant in the object, and for an object without pixels",
    ),
    Overlap="sum a b / sqrt(sum a^2 sum b^2) over pixels where both channels reach their thresholds",
    K="sum a b / sum a^2 over pixels where both channels reach their thresholds; a is the channel named first",
    Manders=(
        "sum of a where both channels reach their thresholds / sum of a where a does; a is the channel named first",
        "",
        "nan where a is 0 throughout the object; 0 throughout a field in which no pixel reaches both thresholds",
    ),
    RWC=(
        "as Manders, with each a weighted by 1 - |rank a - rank b| / R; ranks are dense and taken over all pixels of the "
        "compartment in the field, and R is the larger of the two numbers of distinct values",
        "",
        "nan where a is 0 throughout the object; 0 throughout a field in which no pixel reaches both thresholds",
    ),
    Costes=(
        "sum of a where both channels are above Costes' thresholds of the image / sum of a at or above its own; a is the "
        "channel named first, while the thresholds are searched by the first of the pair in features.correlation.order",
        "",
        "nan where a is nowhere so in the object; 0 throughout a field in which no pixel is above both thresholds",
    ),
)
INTENSITIES = plain(
    IntegratedIntensity=("sum over the object's pixels", "", "0 for an object without pixels"),
    MeanIntensity="mean over the object's pixels",
    StdIntensity="sqrt(mean (v - mean)^2) over the object's pixels",
    MinIntensity="smallest value in the object",
    MaxIntensity="largest value in the object",
    IntegratedIntensityEdge=(
        "sum over the object's edge pixels: those beside a pixel of another label (of 4 neighbours)",
        "",
        "0 without edge pixels",
    ),
    MeanIntensityEdge=(
        "mean over edge pixels",
        "",
        "nan for an object without pixels; 0 for one that fills its field and has no edge",
    ),
    StdIntensityEdge=(
        "sqrt(mean (v - mean)^2) over edge pixels",
        "",
        "nan for an object without pixels; 0 for one that fills its field and has no edge",
    ),
    MinIntensityEdge=(
        "smallest value of the edge pixels",
        "",
        "nan for an object without pixels; 0 for one that fills its field and has no edge",
    ),
    MaxIntensityEdge=(
        "largest value of the edge pixels",
        "",
        "nan for an object without pixels; 0 for one that fills its field and has no edge",
    ),
    MassDisplacement=("distance of the centre of intensity from the object's centre", PIXELS, EMPTY + " or intensity"),
    LowerQuartileIntensity="value at position n / 4 of the n sorted pixels, from 0, interpolated",
    MedianIntensity="value at position n / 2 of the n sorted pixels, from 0, interpolated",
    MADIntensity="value at position n / 2 of the sorted |v - median|",
    UpperQuartileIntensity="value at position 3 n / 4 of the n sorted pixels, from 0, interpolated",
)
PLACES = plain(
    Center="mean position of the object's pixels, from 0; Z is 0",
    CenterMassIntensity=("mean position weighted by intensity, from 0; Z is 0", "", EMPTY + " or intensity, Z too"),
    MaxIntensity="position of the brightest pixel, of several the first in raster order; Z is 0",
)
NEIGHBORS = plain(
    NumberOfNeighbors=(
        "number of other objects with a pixel within distance d of one of the object's pixels",
        "count",
        "never; 0",
    ),
    PercentTouching=("share of the outline that lies within d + 1/2 of another object's pixel", "percent", "never; 0"),
    FirstClosestObjectNumber=(
        "number of the kept object with the nearest centre, never its own; 0 if none",
        "label",
        "never",
    ),
    FirstClosestDistance="distance of centres to the nearest object, a discarded one perhaps; 0 if none",
    SecondClosestObjectNumber=("number of the kept object with the second nearest centre; 0 if none", "label", "never"),
    SecondClosestDistance="distance of centres to the second nearest object, a discarded one perhaps; 0 if none",
    AngleBetweenNeighbors=(
        "angle at the object's centre between the nearest and the second nearest; 0 without two",
        DEGREES,
        EMPTY + ", and where rounding makes the cosine exceed 1",
    ),
)
RINGS = plain(
    FracAtD=(
        "share of the object's intensity in the ring",
        "",
        EMPTY + " or intensity" + FILLS,
    ),
    MeanFrac=("FracAtD / (the ring's share of the object's pixels + 2^-52)", "", EMPTY + " or intensity" + FILLS),
    RadialCV=(
        "standard deviation / mean of the mean intensities of the ring's wedges of 45 degrees that have pixels",
        "",
        "0 for a ring without pixels; nan" + FILLS.removeprefix(", and"),
    ),
    ZernikeMagnitude=(
        "|sum of v V_nm| / pixels over the object, V_nm the Zernike polynomial on its smallest enclosing circle",
        INTENSITY,
        "nan where the circle has no radius (one pixel) and for an object without pixels",
    ),
    ZernikePhase=(
        "atan2(real, imaginary) of sum of v V_nm, V_nm the Zernike polynomial on the smallest enclosing circle",
        "radians",
        "nan where the circle has no radius (one pixel) and for an object without pixels",
    ),
)
MATRIX = (
    ", where p(i, j) is the share of pixel pairs with grey levels i and j, at the name's scale and direction and counted "
    "both ways; pairs with level 0 are left out"
)
HARALICK = plain(
    AngularSecondMoment="sum p^2" + MATRIX,
    Contrast="sum (i - j)^2 p" + MATRIX,
    Correlation="sum (i - mean)(j - mean) p / variance (1 where the variance is 0)" + MATRIX,
    Variance="sum (i - mean)^2 p" + MATRIX,
    InverseDifferenceMoment="sum p / (1 + (i - j)^2)" + MATRIX,
    SumAverage="mean of i + j" + MATRIX,
    SumVariance="variance of i + j" + MATRIX,
    SumEntropy="entropy of i + j, in bits" + MATRIX,
    Entropy="- sum p log2 p" + MATRIX,
    DifferenceVariance="variance of the bins of the histogram of |i - j|" + MATRIX,
    DifferenceEntropy="entropy of |i - j|, in bits" + MATRIX,
    InfoMeas1="(entropy - HXY1) / entropy of the marginal with HXY1 = - sum p log2(p_i p_j)" + MATRIX,
    InfoMeas2="sqrt(1 - e^(-2 (HXY2 - entropy))) with HXY2 the entropy of the product of the marginals" + MATRIX,
)

CELLS = "grid cells of about the scale's size"
QUALITY = plain(
    FocusScore=("variance / mean of the image", INTENSITY, "never; 0 for a black image"),
    LocalFocusScore=(
        f"variance / median, over {CELLS}, of each cell's variance / mean",
        INTENSITY,
        "nan where the scale exceeds the image's smaller side; 0 where undefined",
    ),
    PowerLogLogSlope="slope of log power against log radius, radii 2 .. an eighth of the smaller side; 0 if constant",
    TotalArea=("number of pixels", SQUARE),
    TotalIntensity=("sum over the image", INTENSITY),
    MeanIntensity=("mean over the image", INTENSITY),
    MedianIntensity=("median of the image", INTENSITY),
    StdIntensity=("sqrt(mean (v - mean)^2)", INTENSITY),
    MADIntensity=("median of |v - median|", INTENSITY),
    MinIntensity=("smallest value of the image", INTENSITY),
    MaxIntensity=("largest value of the image", INTENSITY),
    PercentMaximal=("share of the pixels that have the largest value", "percent"),
    PercentMinimal=("share of the pixels that have the smallest value", "percent"),
    ThresholdOtsu=("threshold between two classes of the logarithms, weighted variance", INTENSITY),
)

FAMILIES: dict[str, Family] = {
    "AreaShape": Family(
        r"MEASURE(_(?P<i>\d+))?(_(?P<j>\d+))?",
        SHAPE,
        "MeasureObjectSizeShape",
        "area_shape",
        ("features/area_shape.cu", "features/moments.cu", "features/zernike.cu"),
        ("features.shape.zernike", "features.shape.advanced", "features.shape.convex_area"),
        PIXELS,
    ),
    "Correlation": Family(
        r"MEASURE_(?P<pair>.+)",
        COLOCALIZATION,
        "MeasureColocalization",
        "correlation",
        ("features/correlation.cu", "features/costes.cu"),
        ("features.correlation.threshold", "features.correlation.costes", "features.correlation.order"),
        nan="nan where no pixel reaches both thresholds; 0 throughout a field in which none does",
    ),
    "Granularity": Family(
        rf"(?P<measure>)(?P<scale>\d+)_{CHANNEL}",
        plain(
            **{
                "": "100 (m(k - 1) - m(k)) / m(0): what an opening by reconstruction of size k takes from the object's mean "
                "intensity beyond size k - 1, of the channel at half resolution with its background removed; m(0), of the "
                "channel itself, is at least 2^-52, so that an object without intensity beside bright pixels has 10^10 "
                "percent and more, as in CellProfiler: cells beyond 1000 percent are flagged in the plate's quarantine.csv"
            }
        ),
        "MeasureGranularity",
        "granularity",
        ("features/granularity.cu", "features/granularity_spectrum.cu"),
        (
            "features.granularity.subsampling",
            "features.granularity.background_subsampling",
            "features.granularity.radius",
            "features.granularity.spectrum",
        ),
        "percent",
    ),
    "Intensity": Family(
        rf"MEASURE_{CHANNEL}", INTENSITIES, "MeasureObjectIntensity", "intensity", ("features/intensity.cu",), (), INTENSITY
    ),
    "Location": Family(
        rf"MEASURE_(?P<axis>[XYZ])(_{CHANNEL})?",
        PLACES,
        "the Identify modules and MeasureObjectIntensity",
        "location",
        ("features/intensity.cu", "features/outline.cu"),
        (),
        PIXELS,
    ),
    "Number": Family(
        r"Object_MEASURE",
        plain(Number="the object's label in its field, 1..n; the three compartments of a cell share it"),
        "the Identify modules",
        "identity",
        (),
        (),
        "label",
        "never",
    ),
    "Children": Family(
        r"(?P<relative>.+)_MEASURE",
        plain(Count="objects of that compartment in this one: 1, or 0 where either has no pixels"),
        "the Identify modules",
        "identity",
        (),
        (),
        "count",
        "never",
    ),
    "Parent": Family(
        r"MEASURE(?P<relative>.+)",
        plain(**{"": "number of the object of that compartment that holds this one; 0 where either has no pixels"}),
        "the Identify modules",
        "identity",
        (),
        (),
        "label",
        "never",
    ),
    "Neighbors": Family(
        r"MEASURE_(?P<distance>\d+|Adjacent)",
        NEIGHBORS,
        "MeasureObjectNeighbors",
        "neighbors",
        ("features/neighbors.cu",),
        ("features.neighbors.cells", "features.neighbors.nuclei", "features.neighbors.cytoplasm"),
        PIXELS,
    ),
    "RadialDistribution": Family(
        rf"MEASURE_{CHANNEL}_((?P<ring>\d+)of(?P<rings>\d+)|(?P<i>\d+)_(?P<j>\d+))",
        RINGS,
        "MeasureObjectIntensityDistribution",
        "radial_distribution",
        ("features/radial_sums.cu",),
        ("features.radial.bins", "features.radial.zernike"),
    ),
    "Texture": Family(
        rf"MEASURE_{CHANNEL}_(?P<scale>\d+)_(?P<direction>0[0-3])_(?P<levels>\d+)",
        HARALICK,
        "MeasureTexture",
        "texture",
        ("features/texture.cu",),
        ("features.texture.scales", "features.texture.levels"),
        "none; grey levels, as many as the name says, are of the full intensity range",
        "nan for an object without pixels; 0 where a direction of the scale has no counted pair",
    ),
    "Embedding": Family(
        r"(?P<measure>)(?P<model>.+)_(?P<place>\d{4,})",
        plain(**{"": "value of the network's output for the crop around the cell; with per_channel, for one channel's"}),
        "the network named in the column",
        "embedding",
        (),
        ("features.embedding.models",),
        "none",
        "nan for a cell without pixels in the compartment that its crop is centred on or masked by",
        tool="",
    ),
    "ImageQuality": Family(  # of the whole corrected image
        rf"(?=(LocalFocus)?)(?=(Threshold)?)MEASURE_{CHANNEL}(?(1)_(?P<scale>\d+))(?(2)_2W)",
        QUALITY,
        "MeasureImageQuality, of illumination-corrected pixels",
        "image_quality",
        ("images/image_quality.cu", "images/power_spectrum.cu"),
        ("features.image_quality",),
        nan="never",
    ),
}
PARTS = {  # a name's further parts, in words
    "channel": "channel",
    "pair": "channels",
    "axis": "axis (X is the column, Y the row)",
    "scale": "scale",
    "direction": "direction of the second pixel (00 right, 01 down right, 02 down, 03 down left)",
    "levels": "grey levels",
    "ring": "ring (1 is the innermost)",
    "rings": "number of rings, equally wide in d / (d + e), d the distance from the centre inside the object, e to its edge",
    "distance": "distance d in pixels (Adjacent is 1)",
    "relative": "of compartment",
    "model": "network (and channel)",
    "place": "value",
    "i": "first index",
    "j": "second index",
}
