"""What a setting's value may be: ranges of numbers and known words, by dataclass and field.

`check` is run on what a TOML file says; the dataclasses of `config` themselves take what they are given.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from .networks import MAX_SIDE, mistake

MAX_PIXELS = 10_000  # no size in pixels is greater than a camera's side


@dataclass(frozen=True)
class Range:
    """Finite numbers from `minimum` (or, if `above`, beyond it) to `maximum`."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.minimum <= value <= self.maximum and not (self.above and value == self.minimum)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.minimum:g}" if self.minimum > -math.inf else ""
        high = f"at most {self.maximum:g}" if self.maximum < math.inf else ""
        return " and ".join(filter(None, ("a finite number", low, high)))


FINITE, POSITIVE, NOT_NEGATIVE, SHARE = Range(), Range(0, above=True), Range(0), Range(0, 1)
OUTLIERS = 0.99  # share of the pixels that may be left out
DECLUMP = ("shape", "intensity", "none")

LIMITS: dict[str, dict[str, Range | tuple[str, ...]]] = {
    "IlluminationSettings": {
        "resize": Range(0, 1, above=True),
        "filter_size": Range(1, MAX_PIXELS),
        "quantile": SHARE,
    },
    "BackgroundSettings": {"block": Range(1, MAX_PIXELS), "filter_size": Range(1, 2000)},
    "ThresholdSettings": {
        "method": ("minimum_cross_entropy", "otsu2", "otsu3", "robust_background", "manual"),
        "window": Range(2, MAX_PIXELS),
        "smoothing": Range(0, 86),  # a Gaussian that reaches 256 pixels to either side
        "correction": POSITIVE,
        "lower": SHARE,
        "upper": SHARE,
        "middle_class": ("foreground", "background"),
        "lower_outliers": Range(0, OUTLIERS),
        "upper_outliers": Range(0, OUTLIERS),
        "averaging": ("mean", "median", "mode"),
        "variance": ("sd", "mad"),
    },
    "PrimarySettings": {
        "min_diameter": Range(0, 750, above=True),  # smoothing and suppression may follow from it
        "max_diameter": Range(0, MAX_PIXELS, above=True),
        "declump": DECLUMP,
        "dividing_lines": (*DECLUMP, "propagate"),
        "smoothing": Range(0, 512),  # 0: no smoothing
        "suppression": Range(0, 500),
        "fill_holes": ("never", "after_declump", "both"),
        "max_objects": NOT_NEGATIVE,
    },
    "SecondarySettings": {
        "method": ("watershed", "propagation", "distance", "watershed_gradient", "distance_b"),
        "distance": Range(1, 1000),
        "regularization": NOT_NEGATIVE,
    },
    "Illumination": {
        "block": Range(1, MAX_PIXELS),
        "dilation": Range(0, 100),
        "smoothing": ("none", "median", "gaussian", "polynomial", "convex_hull", "splines", "average"),
        "size": Range(0, MAX_PIXELS, above=True),
        "rescale": ("no", "yes", "median"),
        "spline_mode": ("auto", "dark", "bright", "gray"),
        "spline_scale": POSITIVE,
    },
    "Resize": {"factor_y": NOT_NEGATIVE, "factor_x": NOT_NEGATIVE, "order": Range(0, 3)},
    "Smooth": {
        "method": ("gaussian", "median", "keeping_edges", "polynomial", "circular_average", "average"),
        "size": Range(0, 1000, above=True),
        "edge_range": POSITIVE,
    },
    "CorrelationSettings": {"threshold": Range(0, 100), "costes_mode": ("accurate", "fast", "faster")},
    "GranularitySettings": {
        "subsampling": Range(0, 1, above=True),
        "background_subsampling": Range(0, 1, above=True),
        "radius": Range(1, 128),
        "spectrum": Range(1, 16),
    },
    "RadialSettings": {"bins": Range(1, 31), "zernike": ("none", "magnitudes", "magnitudes_and_phase")},
    "TextureSettings": {"scales": Range(1, 200), "levels": Range(2, 256)},
    "NeighborsSettings": {name: Range(0, 500) for name in ("cells", "nuclei", "cytoplasm")},
    "SegmentationSettings": {"method": ("cellprofiler", "cellpose", "stardist", "module")},
    "NetworkMaskSettings": {
        "diameter": Range(1, MAX_PIXELS),
        "cell_diameter": Range(1, MAX_PIXELS),
    },
    "EmbeddingSettings": {"batch": Range(1, 4096), "plate_fields": Range(1, 100_000)},
    "ModelSettings": {
        "per_channel": Range(1, 16),
        "crop": Range(1, MAX_SIDE),
        "unit": ("pixels", "um"),
        "size": Range(1, MAX_SIDE),
        "resize": ("area", "bilinear"),
        "center": ("Nuclei", "Cells"),
        "mask": ("none", "Nuclei", "Cells", "Cytoplasm"),
        "padding": ("zero", "reflect", "edge"),
        "normalize": ("crop", "field", "plate", "fixed", "none"),
        "std": POSITIVE,
        "precision": ("float32", "float16"),
    },
    "PlateSettings": {
        "plane": NOT_NEGATIVE,
        "time": NOT_NEGATIVE,
        "projection": ("none", "max", "mean"),
        "scale": Range(1, 2**31 - 1),
    },
    "Config": {"batch": Range(1)},
}

LONGEST = {"NeighborsSettings": 8}  # dataclass: values of a list at most

REPEATED = {
    "ModelSettings": ("mean", "std"),
    "EmbeddingSettings": ("models",),
    "Math": ("images", "factors", "measurements"),
    "CalculateMath": ("objects", "measurements", "factors", "exponents"),
    "Filter": ("measurements", "lowest", "highest"),
    "Classify": ("edges", "names"),
    "Flag": ("measurements", "sources", "objects", "lowest", "highest"),
}  # dataclass: lists whose values may be alike

UNBOUNDED = ("lowest", "highest", "edges")  # of steps: infinite is no limit
ORDERED = {  # dataclass: fields of which the first may not exceed the second
    "ThresholdSettings": ("lower", "upper"),
    "PrimarySettings": ("min_diameter", "max_diameter"),
}


def check_all(settings: Any, where: str) -> None:
    """`check` of a dataclass and of its tables, for settings that no file said."""
    for name in (f.name for f in dataclasses.fields(settings)):
        value = getattr(settings, name)
        for part in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(part):
                check_all(part, f"{where}: {name}")
    check(settings, where)


def check(settings: Any, where: str) -> None:
    """ValueError that names file, key, value and what is expected, for a dataclass's own values (not its tables')."""
    kind = type(settings).__name__
    limits = LIMITS.get(kind, {})
    for name in (f.name for f in dataclasses.fields(settings)):
        given = getattr(settings, name)
        single = isinstance(given, tuple) and name not in REPEATED.get(kind, ())
        if single and (twice := [v for v in given if given.count(v) > 1]):
            raise ValueError(f"{where}: {name}: expected each once, got {twice[0]!r} {given.count(twice[0])} times")
        if isinstance(given, tuple) and len(given) > (longest := LONGEST.get(kind, len(given))):
            raise ValueError(f"{where}: {name}: expected at most {longest} values, got {len(given)}")
        for value in given if isinstance(given, tuple) else (given,):
            limit = limits.get(name, FINITE if isinstance(value, float) else None)
            if limit is None or value is None or value in limit or (name in UNBOUNDED and value in (-math.inf, math.inf)):
                continue
            expected = limit if isinstance(limit, Range) else f"one of {', '.join(limit)}"
            raise ValueError(f"{where}: {name}: expected {expected}, got {value!r}")
    if wrong := settings.network.mistake(settings.method) if kind == "SegmentationSettings" else mistake(settings):
        raise ValueError(f"{where}: {wrong}")
    if kind == "ThresholdSettings" and settings.lower_outliers + settings.upper_outliers > OUTLIERS:
        both = settings.lower_outliers + settings.upper_outliers
        raise ValueError(f"{where}: upper_outliers: expected at most {OUTLIERS} with lower_outliers, got {both:g} together")
    if kind in ORDERED:
        low, high = ORDERED[kind]
        minimum, maximum = getattr(settings, low), getattr(settings, high)
        if minimum > maximum:
            raise ValueError(f"{where}: {low}: expected at most {high}, which is {maximum!r}, got {minimum!r}")
