"""Settings: a TOML file to frozen dataclasses. An unknown key or a value that cannot be meant is an error.

The defaults of every dataclass are CPJUMP1's, so `configs/cpjump1.toml` says what they are and an empty file means them.
"""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .limits import check
from .names import BRIGHTFIELD, CHANNELS
from .networks import EmbeddingSettings, NetworkMaskSettings

KNOWN = {c.lower(): c for c in (*CHANNELS, *BRIGHTFIELD)}


STEP_KINDS: dict[str, Any] = {}  # the dataclass of each kind of step, by its `do` (steps.py)


@dataclass(frozen=True)
class IlluminationSettings:
    """Estimating a plate's illumination functions (CellProfiler CorrectIlluminationCalculate, 'Regular', all images)."""

    resize: float = 0.2  # scale at which images are averaged
    filter_size: int = 20  # median filter's size, pixels of the resized image
    quantile: float = 0.02  # rescaling: the sorted positive pixels' value at this share of them becomes 1


@dataclass(frozen=True)
class BackgroundSettings:
    """The DNA background that is subtracted before nuclei are found ('Background', each image)."""

    block: int = 30  # pixels; the minimum of each block
    filter_size: int = 50  # pixels; Gaussian, sigma = filter_size / 2.35


@dataclass(frozen=True)
class ThresholdSettings:
    """A global threshold: method, smoothing before it, correction after it, and bounds."""

    method: str = "minimum_cross_entropy"  # otsu2, otsu3, minimum_cross_entropy, manual, robust_background
    window: int | None = None  # pixels of a block's side: an adaptive threshold, within 0.7 and 1.5 of the global one
    smoothing: float = 0.0  # CellProfiler's threshold smoothing scale
    correction: float = 1.0  # the threshold is multiplied by it
    lower: float = 0.0  # the threshold is at least this, intensity 0..1
    upper: float = 1.0  # and at most this
    log_transform: bool = False  # Otsu: threshold the logarithms
    middle_class: str = "foreground"  # otsu3: where the middle class belongs
    manual: float = 0.0  # the threshold of method 'manual'
    lower_outliers: float = 0.05  # robust_background: fraction of the darkest pixels dropped
    upper_outliers: float = 0.05  # robust_background: fraction of the brightest pixels dropped
    deviations: float = 2.0  # robust_background: the threshold is the average plus this many deviations
    averaging: str = "mean"  # robust_background: mean, median, mode
    variance: str = "sd"  # robust_background: sd, mad


@dataclass(frozen=True)
class PrimarySettings:
    """Nuclei (CellProfiler IdentifyPrimaryObjects)."""

    channel: str = "DNA"  # the channel in which nuclei are found
    background: BackgroundSettings | None = field(default_factory=BackgroundSettings)  # "none": not subtracted
    threshold: ThresholdSettings = field(
        default_factory=lambda: ThresholdSettings(smoothing=3.0, correction=1.25, lower=0.014, upper=1.0)
    )
    min_diameter: float = 10.0  # pixels, of a disk of the same area
    max_diameter: float = 75.0  # pixels
    discard_size: bool = True  # drop nuclei outside these diameters
    discard_border: bool = True  # drop nuclei that touch the image's border
    declump: str = "shape"  # how touching nuclei are separated: shape, intensity, none
    dividing_lines: str = "shape"  # where the line between them runs: shape, intensity, propagate, none
    smoothing: float | None = 7.0  # declumping filter's size, pixels; None: from min_diameter
    suppression: float | None = 8.0  # maxima closer than this count as one, pixels; None: from min_diameter
    low_resolution_maxima: bool = True  # look for maxima at a lower resolution, above a diameter of 10 pixels
    fill_holes: str = "never"  # never, after_declump, both
    max_objects: int | None = None  # a field with more nuclei keeps none


@dataclass(frozen=True)
class SecondarySettings:
    """Cells (CellProfiler IdentifySecondaryObjects)."""

    channel: str = "RNA"  # the channel in which cells are found
    method: str = "watershed"  # watershed, watershed_gradient, propagation, distance, distance_b
    threshold: ThresholdSettings = field(default_factory=lambda: ThresholdSettings(lower=0.005, upper=0.014))
    distance: int = 10  # method 'distance': pixels per cell reaches beyond its nucleus
    regularization: float = 0.05  # method 'propagation': weight of distance against brightness
    fill_holes: bool = True  # of cells
    discard_border: bool = False  # drop cells that touch the image's border, with their nuclei


@dataclass(frozen=True)
class SegmentationSettings:
    method: str = "cellprofiler"  # cellprofiler: the two tables below; cellpose, stardist, module: networks find the masks
    nuclei: PrimarySettings = field(default_factory=PrimarySettings)
    cells: SecondarySettings = field(default_factory=SecondarySettings)
    filter_border_nuclei: bool = False  # JUMP production: drop cells whose nucleus touches the border, after both steps
    shrink_nucleus: bool = True  # cytoplasm = cell minus the nucleus shrunk by one outline pixel
    network: NetworkMaskSettings = field(default_factory=NetworkMaskSettings)


@dataclass(frozen=True)
class CorrelationSettings:
    threshold: float = 15.0  # percent of the object's maximum
    costes: bool = False  # Correlation_Costes too
    order: tuple[str, ...] = ()  # of the channels of a pair, in its name and for Costes; the others follow by name
    costes_mode: str = "faster"  # how its thresholds are searched: faster, fast, accurate


@dataclass(frozen=True)
class GranularitySettings:
    subsampling: float = 0.5  # scale at which the image is measured
    background_subsampling: float = 0.5  # scale, of that, at which its background is estimated
    radius: int = 10  # background removal's opening, pixels of the background image
    spectrum: int = 16  # steps, a column each


@dataclass(frozen=True)
class RadialSettings:
    bins: int = 4  # rings
    zernike: str = "none"  # moments of intensity: none, magnitudes, magnitudes_and_phase


@dataclass(frozen=True)
class TextureSettings:
    scales: tuple[int, ...] = (3, 5, 10)  # pixels between the two of a pair
    levels: int = 256  # grey levels


@dataclass(frozen=True)
class ShapeSettings:
    zernike: bool = True  # Zernike magnitudes of the shape
    advanced: bool = False  # central, normalised, Hu moments, inertia
    convex_area: bool = False  # AreaShape_ConvexArea too


@dataclass(frozen=True)
class NeighborsSettings:
    """Distances by compartment, in pixels; 0 means adjacent."""

    cells: tuple[int, ...] = (5, 0)  # a set of columns each
    nuclei: tuple[int, ...] = (1,)  # a set of columns each
    cytoplasm: tuple[int, ...] = ()  # a set of columns each


@dataclass(frozen=True)
class FeatureSettings:
    families: tuple[str, ...] = (  # what is measured, in any order; the stored order is fixed
        "shape",
        "correlation",
        "granularity",
        "intensity",
        "location",
        "number",
        "neighbors",
        "radial",
        "texture",
    )
    correlation: CorrelationSettings = field(default_factory=CorrelationSettings)
    granularity: GranularitySettings = field(default_factory=GranularitySettings)
    radial: RadialSettings = field(default_factory=RadialSettings)
    texture: TextureSettings = field(default_factory=TextureSettings)
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    neighbors: NeighborsSettings = field(default_factory=NeighborsSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    image_quality: bool = False  # measure whole images too: blur, saturation, threshold


class PhenixNumbers(dict[str, int]):
    """`plate.numbers` where nobody gives any; not taken for another microscope's, as the same ones of a file are."""


@dataclass(frozen=True)
class PlateSettings:
    """How a plate's files name their channels and where plates are found."""

    images: str | None = None  # root folder or URL when --images is not given
    channels: tuple[str, ...] = CHANNELS  # measured channels; brightfield planes are added here
    numbers: dict[str, int] = field(  # Phenix channel numbers, where nothing else says; a file adds to these
        default_factory=lambda: PhenixNumbers(
            {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5, "HighZBF": 6, "LowZBF": 7, "Brightfield": 8}
        )
    )
    scale: float | None = None  # the count that is intensity 1; otherwise what each image says, else 65535
    pattern: str | None = None  # regular expression of file names, with groups well (or row, column), site, channel, ...
    assign: dict[str, str] = field(default_factory=dict)  # channel -> regular expression that matches its files' paths
    plane: int | None = None  # the plane to read where there are several
    planes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # channel -> its planes to read
    projection: str = "none"  # of a field's planes: max, mean; none reads one plane
    time: int | None = None  # the time point to read where there are several
    c_axis: dict[str, int] = field(default_factory=dict)  # OME-Zarr: channel -> place on the C axis, from 0; else by label
    remap: dict[str, str] = field(default_factory=dict)  # load_data.csv: path or URL prefix -> folder here
    stains: dict[str, str] = field(  # a channel's name or words in it, in any case -> channel; a file adds to these
        default_factory=lambda: {
            "hoechst 33342": "DNA",
            "hoechst": "DNA",
            "dapi": "DNA",
            "nuclei": "DNA",
            "alexa 647": "Mito",
            "mitotracker": "Mito",
            "mitochondria": "Mito",
            "alexa 568": "AGP",
            "phalloidin": "AGP",
            "wga": "AGP",
            "wheat germ agglutinin": "AGP",
            "488 long": "RNA",
            "488 650": "RNA",
            "alexa 488 long": "RNA",
            "alexa 488 em 650": "RNA",
            "syto 14": "RNA",
            "alexa 488": "ER",
            "concanavalin": "ER",
            "cona": "ER",
            "con a": "ER",
            "endoplasmic reticulum": "ER",
            "brightfield": "Brightfield",
            "brightfield high": "HighZBF",
            "brightfield_h": "HighZBF",
            "brightfield low": "LowZBF",
            "brightfield_l": "LowZBF",
        }
    )


@dataclass(frozen=True)
class Config:
    plate: PlateSettings = field(default_factory=PlateSettings)
    illumination: IlluminationSettings = field(default_factory=IlluminationSettings)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    steps: tuple[Any, ...] = ()  # an imported pipeline, step by step, in place of [segmentation] and [features]
    functions: tuple[Any, ...] = ()  # steps that make illumination functions of a plate, in place of [illumination]
    batch: int | None = None  # fields per batch; chosen from the free memory where None


def load_config(path: str | Path) -> Config:
    """A TOML file, or the name of a preset in `configs/` (`cpjump1`, `jump-production`); ValueError for what is wrong."""
    path = file_or_preset(path, config_folder(), "preset")
    check_regular(path)
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        if path.suffix.lower() in (".cppipe", ".cpproj", ".cpproject"):
            raise ValueError(
                f"{path}: a CellProfiler pipeline, not a settings file: give it by --pipeline, or make a "
                f"settings file of it by `jumpgpu import-cppipe {path.name} --output lab.toml`"
            ) from None
        raise ValueError(f"{path}: {error}") from error
    return build(Config, table, str(path))


def file_or_preset(path: str | Path, folder: Path, what: str) -> Path:
    """A file, or the preset of this name in a folder: a bare name means the preset, whatever the working folder holds."""
    given = Path(path)
    preset = folder / f"{given}.toml"
    if given.name == str(path) and preset.is_file():
        return preset
    if given.suffix or given.exists() or given.name != str(path):
        return given
    known = sorted(p.stem for p in folder.glob("*.toml"))
    near = get_close_matches(given.name, known, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"unknown {what} {str(path)!r}; {meant}expected one of {', '.join(known)}, or a path to a .toml file")


def check_regular(path: Path) -> None:
    """ValueError for a pipe or a device, for which one could wait for ever. A file may be absent."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")


def config_folder() -> Path:
    """The presets' folder: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "configs", package.parent / "configs") if p.is_dir())


def build(kind: Any, table: dict[str, Any], where: str) -> Any:
    """A dataclass from a TOML table, its absent keys at their defaults; ValueError names file, key and what is expected."""
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(table) - set(hints)):
        near = get_close_matches(unknown[0].lower(), hints, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; {meant}known here: {', '.join(hints)}")
    if kind is Config:
        table = table | {key: read_steps(table[key], where, key) for key in ("steps", "functions") if key in table}
    if kind is PlateSettings and isinstance(planes := table.get("planes"), dict):  # one plane needs no list
        table = table | {"planes": {c: p if isinstance(p, list) else [p] for c, p in planes.items()}}
    values = {key: convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    if kind is PlateSettings:  # what a lab adds leaves the rest
        values |= {
            key: extended(key, values[key], where)
            for key in ("numbers", "stains", "c_axis", "planes", "assign")
            if key in values
        }
        if "channels" in values:
            values["channels"] = tuple(KNOWN.get(c.strip().lower(), c) for c in values["channels"])
        check_channel_keys(values, where)
    try:
        output = kind(**values)
    except TypeError as error:  # a step without one of its keys
        raise ValueError(f"{where}: {str(error).rpartition('__() ')[2]}") from error
    check(output, where)
    return output


def check_channel_keys(values: dict[str, Any], where: str) -> None:
    """ValueError for a number, plane or place that the file gives to a channel that nothing knows."""
    stains = values.get("stains", PlateSettings().stains)
    known = {*KNOWN.values(), *stains.values(), *values.get("channels", ()), *values.get("assign", ())}
    for key in ("numbers", "c_axis", "planes"):
        if unknown := [c for c in values.get(key, ()) if c not in known]:
            near = get_close_matches(unknown[0], known, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"{where}: {key}: unknown channel {unknown[0]!r}; {meant}known are {', '.join(KNOWN.values())} and those of "
                "[plate.stains]"
            )


def extended(key: str, given: dict[str, Any], where: str) -> dict[str, Any]:
    """`plate.numbers`, `stains`, `c_axis`, `planes` or `assign` of a file, added to the defaults; keys match in any case.

    A number that the file gives to a channel is taken from the one that has it by default.
    """
    output: dict[str, Any] = {}
    for name, value in given.items():
        known = " ".join(name.lower().split()) if key == "stains" else KNOWN.get(name.strip().lower(), name)
        value = KNOWN.get(value.strip().lower(), value) if key == "stains" else value
        if output.setdefault(known, value) != value:
            raise ValueError(f"{where}: {key} gives two values for {name!r}: {output[known]} and {value}")
    defaults: dict[str, Any] = getattr(PlateSettings(), key)
    kept = {k: v for k, v in defaults.items() if k not in output and not (key == "numbers" and v in output.values())}
    return kept | output


def read_steps(steps: Any, where: str, key: str = "steps") -> list[Any]:
    """The steps that tables [[steps]] mean; ValueError names the step and key that is wrong."""
    if not isinstance(steps, list):
        raise ValueError(f"{where}: {key}: expected tables [[{key}]], got {steps!r}")
    result = []
    for i, table in enumerate(steps, 1):
        if not isinstance(table, dict) or table.get("do") not in STEP_KINDS:
            raise ValueError(f"{where}: step {i}: expected a table with do = one of {', '.join(STEP_KINDS)}")
        given = {key: value for key, value in table.items() if key != "do"}
        result.append(build(STEP_KINDS[table["do"]], given, f"{where}: step {i} ({table['do']})"))
    return result


def convert(hint: Any, value: Any, where: str) -> Any:
    """A TOML value as the type a field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value in ("none", None) and type(None) in arguments:
            return None
        return convert(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected a table, got {value!r}")
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        tables = dataclasses.is_dataclass(arguments[0])
        return tuple(convert(arguments[0], v, f"{where} {i}" if tables else where) for i, v in enumerate(value, 1))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected a table, got {value!r}")
        return {k: convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
