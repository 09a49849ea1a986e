"""A threshold's settings, within a module or by themselves."""

from ..settings.config import ThresholdSettings
from .findings import Unsupported
from .parse import printable
from .rows import Settings, numbers
from .translator import Translator, word

THRESHOLDS = {
    "Minimum Cross-Entropy": "minimum_cross_entropy",
    "Otsu": "otsu2",
    "Robust Background": "robust_background",
    "Manual": "manual",
}
BASIC_THRESHOLD = {"strategy": "Global", "method": "Minimum Cross-Entropy", "log": "No", "smoothing": "1.3488"}


def threshold_settings(translator: Translator, t: Settings) -> ThresholdSettings:
    """The settings that the method does not look at stay at their defaults."""
    module = translator.module
    assert module is not None
    if t["strategy"] not in ("Global", "Adaptive"):
        raise Unsupported(f"threshold strategy {printable(t['strategy'])}")
    if t["method"] == "Measurement":
        lower, upper = numbers(t["bounds"], module, 2)
        smoothing, correction = (numbers(t[k], module)[0] for k in ("smoothing", "correction"))
        return ThresholdSettings("manual", None, smoothing, correction, lower, upper)
    method = word("threshold", t["method"], THRESHOLDS)
    if method == "otsu2" and t["classes"] == "Three classes":
        method = "otsu3"
    result: Settings = {"smoothing": numbers(t["smoothing"], module)[0]}
    if method == "manual":
        return ThresholdSettings(method=method, **result, manual=numbers(t["manual"], module)[0])
    result["lower"], result["upper"] = numbers(t["bounds"], module, 2)
    result["correction"] = numbers(t["correction"], module)[0]
    if method == "otsu3":
        result["middle_class"] = t["middle"].lower()
    if method != "robust_background":
        result["log_transform"] = t["log"] in ("Yes", "True")
    else:
        for name in ("lower_outliers", "upper_outliers", "deviations"):
            result[name] = numbers(t[name], module)[0]
        result["averaging"] = t["averaging"].lower()
        result["variance"] = "mad" if t["variance"].startswith("Median") else "sd"
    if t["strategy"] == "Adaptive":
        result["window"] = int(numbers(t["window"], module)[0])
    return ThresholdSettings(method=method, **result)


def measured_threshold(translator: Translator, t: Settings) -> str:
    """The image measurement that is the threshold, or nothing."""
    if t["method"] != "Measurement":
        return ""
    name: str = t["measurement"]
    if name not in translator.measured:
        raise Unsupported(f"threshold by measurement {printable(name)}, which is not made")
    return name
