"""IdentifyPrimaryObjects and IdentifySecondaryObjects as settings of ours, with a finding for what is not the same."""

from collections.abc import Callable

from ..settings.config import PrimarySettings, SecondarySettings, ThresholdSettings
from .of_objects import BASIC, DECLUMP, HOLES, SECONDARY
from .parse import Module, printable
from .rows import Settings, numbers
from .thresholds import BASIC_THRESHOLD, THRESHOLDS

Say = Callable[[str, Module | str, str], None]
METHODS = {theirs: ours for theirs, ours in SECONDARY.items() if ours in ("watershed", "propagation", "distance")}


def primary_settings(module: Module, s: Settings, say: Say) -> PrimarySettings:
    """Nuclei, without their channel and background."""
    if s["advanced"] != "Yes":
        s = s | BASIC | {"threshold": s["threshold"] | BASIC_THRESHOLD}
    if s["limit"] == "Erase":
        say("changes", module, "erases all objects where there are too many; here they are kept")
    minimum, maximum = numbers(s["diameter"], module, 2)
    return PrimarySettings(
        threshold=threshold_settings(module, s["threshold"], say),
        min_diameter=minimum,
        max_diameter=maximum,
        discard_size=s["discard_size"] == "Yes",
        discard_border=s["discard_border"] == "Yes",
        declump=word(module, "declumping", s["declump"], DECLUMP, "intensity", say),
        dividing_lines=word(module, "dividing lines", s["lines"], DECLUMP, "intensity", say),
        smoothing=None if s["auto_smoothing"] == "Yes" else numbers(s["smoothing"], module)[0],
        suppression=None if s["auto_suppression"] == "Yes" else numbers(s["suppression"], module)[0],
        low_resolution_maxima=s["low_resolution"] == "Yes",
        fill_holes=word(module, "filling holes", s["fill_holes"], HOLES, "never", say),
    )


def secondary_settings(module: Module, s: Settings, say: Say) -> SecondarySettings:
    """Cells, without their channel."""
    method = word(module, "method", s["method"], METHODS, "watershed", say)
    result = SecondarySettings(
        method=method,
        threshold=ThresholdSettings() if method == "distance" else threshold_settings(module, s["threshold"], say),
        fill_holes=s["fill_holes"] == "Yes",
        discard_border=s["discard_border"] == "Yes",
        distance=int(numbers(s["distance"], module)[0]) if method == "distance" else SecondarySettings.distance,
        regularization=numbers(s["regularization"], module)[0]
        if method == "propagation"
        else SecondarySettings.regularization,
    )
    if result.discard_border and s["discard_primary"] != "Yes":
        say("changes", module, "drops cells at the border and keeps their nuclei; here their nuclei go with them")
    return result


def threshold_settings(module: Module, t: Settings, say: Say) -> ThresholdSettings:
    """A global threshold; the settings that its method does not look at stay at their defaults."""
    if t["strategy"] != "Global":
        say("changes", module, f"threshold strategy {t['strategy']}; here it is global, by the same method")
    method = word(module, "threshold", t["method"], THRESHOLDS, "minimum_cross_entropy", say)
    lower, upper = numbers(t["bounds"], module, 2)
    result: Settings = {
        "smoothing": numbers(t["smoothing"], module)[0],
        "correction": numbers(t["correction"], module)[0],
        "lower": lower,
        "upper": upper,
    }
    if method == "manual":
        result = {"smoothing": result["smoothing"], "manual": numbers(t["manual"], module)[0]}
    if method == "otsu2" and t["classes"] == "Three classes":
        method = "otsu3"
        result["middle_class"] = t["middle"].lower()
    if method in ("otsu2", "otsu3", "minimum_cross_entropy"):
        result["log_transform"] = t["log"] in ("Yes", "True")
    if method == "robust_background":
        for name in ("lower_outliers", "upper_outliers", "deviations"):
            result[name] = numbers(t[name], module)[0]
        result["averaging"] = t["averaging"].lower()
        result["variance"] = "mad" if t["variance"].startswith("Median") else "sd"
    return ThresholdSettings(method=method, **result)


def word(module: Module, what: str, value: str, known: dict[str, str], instead: str, say: Say) -> str:
    """A word of CellProfiler's as ours; where there is none, another and a finding."""
    if value not in known:
        say("changes", module, f"{what} by {printable(value)}, which is not here; {instead!r} is taken")
    return known.get(value, instead)
