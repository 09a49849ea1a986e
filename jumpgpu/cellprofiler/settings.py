"""What the settings of CellProfiler's modules are called here, by module and revision of its settings.

A module writes its settings in one order a revision, and `read_settings` gives them names: `{"image": "CorrBlue", ...}`.
Every revision that CellProfiler 4.2.8 itself upgrades is read, and means what it makes of it.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from .parse import Module, printable

Values = list[str]
Settings = dict[str, Any]
# fmt: off
THRESHOLD = (
    "strategy", "global_method", "smoothing", "correction", "bounds", "manual", "measurement", "classes", "log", "middle",
    "window", "lower_outliers", "upper_outliers", "averaging", "variance", "deviations", "local_method",
)
PRIMARY = (
    "image", "objects", "diameter", "discard_size", "discard_border", "declump", "lines", "smoothing", "suppression",
    "low_resolution", "fill_holes", "auto_smoothing", "auto_suppression", "limit", "limit_count", "advanced",
)
SECONDARY = (
    "seeds", "objects", "method", "image", "distance", "regularization", "discard_border", "discard_primary",
    "new_primary", "fill_holes",
)
CALCULATE = (
    "image", "output", "kind", "dilate", "dilation_radius", "block", "rescale", "each", "method", "size_by",
    "object_width", "filter_size", "keep_average", "average", "keep_dilated", "dilated",
)
# fmt: on


class Row:
    """A module's values, taken from the front; ValueError where they run out or are not what they should be."""

    def __init__(self, module: Module, values: Values):
        self.module, self.values = module, values

    def take(self, n: int = 1) -> Values:
        if n > len(self.values):
            raise ValueError(f"{self.module}: has fewer settings than revision {self.module.revision} of it has")
        taken, self.values = self.values[:n], self.values[n:]
        return taken

    def count(self) -> int:
        """A hidden count of what follows."""
        text = self.take()[0]
        if not re.fullmatch(r"\d{1,5}", text, re.ASCII):
            raise ValueError(f"{self.module}: expected a count, got {printable(text)}")
        return int(text)

    def named(self, names: Sequence[str]) -> Settings:
        return dict(zip(names, self.take(len(names)), strict=True))


def read_settings(module: Module) -> Settings:
    """A module's settings by name; ValueError for a revision that is not read, or settings that are not the revision's."""
    revisions, reader = READERS[ONCE.get(module.name, module.name)]
    if module.revision not in revisions:
        raise ValueError(
            f"{module}: revision {module.revision} of its settings is not read, {revisions[0]} to {revisions[-1]} are; "
            "open the pipeline in CellProfiler 4 and export it again"
        )
    return reader(Row(module, module.values), module.revision)


def calculate(row: Row, _: int) -> Settings:
    return row.named(CALCULATE)


def apply(row: Row, revision: int) -> Settings:
    """`images`: (input, output, function, how); rescaling went away with revision 3, clipping came with 5."""
    trailing = {4: 1, 5: 2}.get(revision, 0)
    size = 5 if revision < 3 else 4
    n = (len(row.values) - trailing) // size
    images = [row.take(size) for _ in range(n)]
    low, high = row.take(2) if revision == 5 else ("Yes", "Yes")
    rescaled = [i[4] for i in images if revision < 3 and i[4] != "No rescaling"]
    return {"images": [i[:4] for i in images], "low": low, "high": high, "rescaled": rescaled}


def resize(row: Row, revision: int) -> Settings:
    """`images`: (input, output); `factors` of y and x."""
    first = row.take(2)
    how = row.take()[0]
    factors = row.take(3)[:2] if revision == 5 else row.take() * 2
    row.take(3 if revision == 5 else 2)
    interpolation = row.take()[0]
    row.take(0 if revision < 4 else 2)
    return {
        "by_factor": how.startswith("Resize by a fraction"),
        "factors": factors,
        "interpolation": interpolation,
        "images": [first, *(row.take(2) for _ in range(row.count() if revision > 2 else 0))],
    }


def primary(row: Row, revision: int) -> Settings:
    if revision < 12:  # CellProfiler 2: outlines, and thresholds by Laplacian of Gaussian
        row = Row(row.module, primary_of_two(row, revision))
    result = row.named(PRIMARY[:15])
    row.take(2 if revision == 14 else 0)  # maxima's display
    result["advanced"] = "Yes" if revision <= 12 else row.take()[0]
    return result | {"threshold": threshold(row)}


def primary_of_two(row: Row, revision: int) -> Values:
    """Revisions 10 and 11 in the order of 12."""
    first = row.take(22)
    if revision == 10:
        first[12] = {"No": "Never", "Yes": "After both thresholding and declumping"}.get(first[12], first[12])
    first[6] = "Intensity" if first[6] == "LoG" else first[6]
    first[20] = "None" if first[20] == "Truncate" else first[20]
    return first[:4] + first[5:11] + first[12:15] + first[20:] + row.values


def secondary(row: Row, revision: int) -> Settings:
    if revision == 9:  # with outlines
        first = row.take(13)
        row = Row(row.module, first[:6] + first[8:11] + row.values)
    return row.named(SECONDARY) | {"threshold": threshold(row)}


def threshold(row: Row) -> Settings:
    """The threshold's settings within another module: their own revision, then theirs in the order of revision 12."""
    return threshold_settings(row, row.count())


def threshold_settings(row: Row, revision: int) -> Settings:
    if revision < 4:
        row, revision = Row(row.module, threshold_of_two(row, revision)), 9
    if revision not in (9, 10, 11, 12):
        raise ValueError(
            f"{row.module}: revision {revision} of its threshold's settings is not read; 1 to 3 and 9 to 12 are"
        )
    names = [n for n in THRESHOLD if (n != "log" or revision == 12) and (n != "local_method" or revision > 9)]
    result = row.named(names)
    if revision == 9 and result["strategy"] in ("Manual", "Measurement"):
        result |= {"global_method": result["strategy"], "strategy": "Global"}
    if revision == 9 and result["strategy"] == "Adaptive" and result["global_method"] in ("MCT", "RobustBackground"):
        result["strategy"] = "Global"  # what CellProfiler makes of it
    adaptive = result["strategy"] == "Adaptive"
    result["method"] = result["local_method" if adaptive and revision > 9 else "global_method"]
    result["method"] = METHODS.get(result["method"], result["method"])
    if revision < 12:  # before 4.0 three classes of Otsu were of logarithms
        old_otsu3 = revision < 11 and result["method"] == "Otsu" and result["classes"] == "Three classes"
        result["log"] = "Yes" if old_otsu3 else "No"
    return result


def threshold_of_two(row: Row, revision: int) -> Values:
    """Revisions 1 to 3 of CellProfiler 2 in the order of revision 9."""
    if revision == 3:
        return row.values
    v = ["", *row.values]  # counted from 1, as the revision stood before them
    if revision == 1:
        v += ["Default", "0.05", "0.05", "Mean", "Standard deviation", "2"]
    if len(v) < 23:
        raise ValueError(f"{row.module}: has fewer settings than revision {revision} of its threshold has")
    if v[1] in ("Binary image", "Per object"):
        v[1] = "None"
    if v[1] == "Automatic":
        v[1:7] = ["Global", "MCT", "Manual", "1.3488", "1", "(0.0, 1.0)"]
    if v[2] in ("Kapur", "MoG", "RidlerCalvard"):
        v[2] = "None"
    if v[2] == "Background":
        v[2] = "RobustBackground"
        v[17:23] = ["Custom", "0.02", "0.02", "Mode", "Standard deviation", "0"]
        v[5] = str(2 * (numbers(v[5], row.module)[0] or 1.0))
    v[4] = {"No smoothing": "0", "Automatic": "1.3488"}.get(v[3], v[4])
    if v[17] == "Default":
        v[18:23] = ["0.05", "0.05", "Mean", "Standard deviation", "2"]
    return [*v[1:3], *v[4:7], *v[8:10], v[12], v[14], v[16], *v[18:]]


def threshold_module(row: Row, revision: int) -> Settings:
    """Threshold, once ApplyThreshold."""
    result = row.named(("image", "output"))
    if revision == 7:
        row.take(4)
        revision = row.count()
        return result | {"threshold": threshold_settings(row, revision)}
    if revision == 8:
        row.take(1)
    return result | {"threshold": threshold_settings(row, max(revision, 9))}


def tertiary(row: Row, revision: int) -> Settings:
    result = row.named(("larger", "smaller", "objects"))
    row.take({1: 2, 2: 2, 3: 0}[revision])  # outlines
    return result | {"shrink": "Yes" if revision == 1 else row.take()[0]}


def filter_objects(row: Row, revision: int) -> Settings:
    """`sets`: (objects, filtered objects), the first those that decide; `limits`: (measurement, lowest, highest), None
    for none."""
    output, objects = row.take(2)
    if revision > 7:
        output, objects = objects, output
    result: Settings = dict(zip(("mode", "choice", "enclosing"), row.take(3), strict=True))
    row.take({4: 5, 5: 4, 6: 5, 7: 5}.get(revision, 3))  # outlines, and where rules lie
    n_limits, additional = row.count(), row.count()
    row.take(0 if revision < 7 else 1)  # by which parent
    result["removed"] = ""
    if revision > 8:
        keep, removed = row.take(2)
        result["removed"] = removed if keep == "Yes" else ""
    limits = [row.take(5) for _ in range(n_limits)]
    result["limits"] = [
        (m, low if want == "Yes" else None, high if wish == "Yes" else None) for m, want, low, wish, high in limits
    ]
    others = [row.take(4 if revision < 8 else 2)[:2] for _ in range(additional)]
    return result | {"sets": [[objects, output], *others]}


def colocalization(row: Row, revision: int) -> Settings:
    """Once MeasureCorrelation. What an older file lacks has CellProfiler's default. `ordered`: whether CellProfiler
    keeps the order
    of the images; it reads those of revision 3 into a set."""
    if revision < 4:
        n_images, n_objects = row.count(), row.count()
        images = some(row.take(n_images))
        where = row.take()[0] if revision == 2 else ""
        percent = "15.0" if revision == 2 else row.take()[0]
        where = where or row.take()[0]
        objects = some(row.take(n_objects))
    else:
        images = words(row.take()[0])
        percent, where = row.take(2)
        objects = words(row.take()[0])
    row.values += ["Yes"] * (6 - len(row.values))
    wants = row.named(("all", "correlation", "manders", "rwc", "overlap", "costes"))
    mode = row.take()[0] if revision == 5 and row.values else "Faster"
    return {
        "images": images,
        "objects": objects,
        "percent": percent,
        "where": where,
        "costes_mode": mode,
        "ordered": revision > 3,
        **wants,
    }


def some(values: Values) -> Values:
    """Values without repeats and without "None", in their order."""
    return [v for v in dict.fromkeys(values) if v != "None"]


def granularity(row: Row, revision: int) -> Settings:
    """CellProfiler 4 measures every image in every object set alike, with the first image's settings where a file has
    several."""
    names = ("subsampling", "background_subsampling", "radius", "spectrum")
    if revision == 4:
        images, inside, objects = row.take(3)
        return {"images": words(images), "objects": words(objects) if inside == "Yes" else [], **row.named(names)}
    result: list[str] = []
    measured: list[str] = []
    chosen: list[Settings] = []
    for _ in range(row.count() if revision == 3 else len(row.values) // 5):
        n_objects = row.count() if revision == 3 else 0
        result += row.take()
        chosen.append(row.named(names))
        measured += row.take(n_objects)
    if not chosen:
        raise ValueError(f"{row.module}: measures no image")
    return {"images": some(result), "objects": some(measured), **chosen[0]}


def intensity(row: Row, revision: int) -> Settings:
    if revision == 2:
        if "Do not use" not in row.values:
            raise ValueError(f"{row.module}: no end of its list of images")
        end = row.values.index("Do not use")
        return {"images": some(row.values[:end]), "objects": some(row.values[end + 1 :])}
    if revision == 3:
        return {"images": some(row.take(row.count())), "objects": some(row.values)}
    images, objects = row.take(2)
    return {"images": words(images), "objects": words(objects)}


def shape(row: Row, revision: int) -> Settings:
    objects = some(row.take(len(row.values) - 1)) if revision == 1 else words(row.take()[0])
    return {"objects": objects, "zernike": row.take()[0], "advanced": row.take()[0] if revision == 3 else "No"}


def neighbors(row: Row, revision: int) -> Settings:
    first = row.take()
    result = {"objects": first[0], "neighbors": (first if revision == 1 else row.take())[0]}
    result |= row.named(("method", "distance"))
    return result | {"discarded": row.take()[0] if revision == 3 else "Yes"}


def distribution(row: Row, revision: int) -> Settings:
    """`objects`: (measured, centre, of which); `bins`: (scaled, number, maximum radius)."""
    first = row.take()[0]
    n_objects, n_bins = row.count(), row.count()
    row.take(0 if revision < 4 else 1)  # heatmaps
    result = row.named(("zernike", "degree")) if revision > 4 else {"zernike": "None", "degree": "9"}
    if revision < 6:
        if not first.isdigit():
            raise ValueError(f"{row.module}: expected a count of images, got {printable(first)}")
        images = some(row.take(int(first)))
    else:
        images = words(first)
    objects = [row.take(3) for _ in range(n_objects)]
    for o in objects:
        o[1] = "Centers of other objects" if o[1] == "Other objects" else o[1]
    if revision == 1:
        return result | {"images": images, "objects": objects, "bins": [["Yes", n, "100"] for n in row.take(n_bins)]}
    return result | {"images": images, "objects": objects, "bins": [row.take(3) for _ in range(n_bins)]}


def texture(row: Row, revision: int) -> Settings:
    """Angles, and Gabor's texture, are no more."""
    if revision < 6:
        n_images, n_objects, n_scales = row.count(), row.count(), row.count()
        images, objects = some(row.take(n_images)), some(row.take(n_objects))
        if revision in (3, 4):
            scales = row.take(2 * n_scales)[::2]
        else:
            scales = row.take(n_scales)
        where = row.values[-1] if revision > 3 and row.values else "Both"
        return {"images": images, "objects": objects, "scales": scales, "where": where, "levels": "256"}
    images, objects = (words(text) for text in row.take(2))
    levels = row.take()[0] if revision == 7 else "256"
    n_scales, where = row.count(), row.take()[0]
    return {"images": images, "objects": objects, "scales": row.take(n_scales), "where": where, "levels": levels}


def image_quality(row: Row, _: int) -> Settings:
    """`groups` of images: what each is asked for."""
    which = row.take()[0]
    counts = [(row.count(), row.count()) for _ in range(row.count())]  # of scales and thresholds
    groups = []
    for n_scales, n_thresholds in counts:
        group: Settings = {"images": words(row.take()[0])} | row.named(("scaling", "blur"))
        group["scales"] = row.take(n_scales)
        group |= row.named(("saturation", "intensity", "thresholds", "all_methods"))
        methods = [row.take(5) for _ in range(n_thresholds)]
        groups.append(group | {"methods": [[m[0], m[2]] for m in methods]})
    return {"all_images": which == "All loaded images", "groups": groups}


def image_math(row: Row, revision: int) -> Settings:
    """`operands`: ("Image" or "Measurement", image, factor, measurement)."""
    result = row.named(("operation", "exponent", "factor", "addend", "low", "high"))
    result["replace_nan"] = row.take()[0] if revision > 4 else "Yes"
    result["ignore_mask"] = row.take()[0] if revision > 2 else "No"
    result["output"] = row.take()[0]
    size = 4 if revision > 1 else 2
    operands = [row.take(size) for _ in range(len(row.values) // size)]
    if size == 2:
        operands = [["Image", *o, ""] for o in operands]
    if revision < 4 and result["operation"] == "Log transform (base 2)":
        result["operation"] = "log transform (legacy)"
    return result | {"operands": operands}


def enhance(row: Row, revision: int) -> Settings:
    names = (
        *("image", "output", "operation", "size", "feature", "hole_size", "smoothing", "angle", "decay"),
        *("neurites", "speckles", "rescale"),
    )
    later = ["Speckles", "1,10", "2.0", "0", ".95", "Gradient", "Slow / circular", "Yes"]
    there = {1: 4, 2: 6, 3: 9, 4: 10, 5: 11, 6: 11, 7: 12}[revision]
    result = row.named(names[:there]) | dict(zip(names[there:], later[there - 4 :], strict=True))
    if revision < 6:
        result["speckles"] = "Slow" if result["speckles"] == "Slow / circular" else "Fast"
    return result


def crop(row: Row, revision: int) -> Settings:
    first = row.take(10)
    row.take(1 if revision < 3 else 0)
    remove = row.take()[0]
    sources = row.take(len(row.values))[:3]
    names = ("image", "output", "shape", "method", "each", "left_right", "top_bottom", "centre", "x_radius", "y_radius")
    result = dict(zip(names, first, strict=True)) | {"remove": remove}
    result["shape"] = "Previous cropping" if result["shape"] == "Cropping" else result["shape"]
    result["each"] = "Every" if result["each"] == "Individually" else result["each"]
    return result | dict(zip(("mask_image", "cropping", "objects"), [*sources, "None", "None", "None"], strict=False))


def mask_image(row: Row, revision: int) -> Settings:
    if revision < 3:
        objects, image, output, invert = row.take(4)
        source = row.take(2) if revision == 2 else ["Image" if objects == "Image" else "Objects", "None"]
        return {
            "image": image,
            "output": output,
            "source": source[0],
            "objects": objects,
            "mask": source[1],
            "invert": invert,
        }
    return row.named(("image", "output", "source", "objects", "mask", "invert"))


def smooth(row: Row, revision: int) -> Settings:
    result = row.named(("image", "output", "method", "auto", "size", "sigma_range"))
    return result | {"clip": row.take()[0] if revision > 1 else "Yes"}


def expand(row: Row, revision: int) -> Settings:
    return row.named(("objects", "output", "operation", "pixels"))


def relate(row: Row, revision: int) -> Settings:
    if revision == 1:
        child, parent, distances, step, means = row.take(5)
        distances = "None" if distances == "Do not use" else distances
        steps = "No" if step.upper() == "DO NOT USE" else "Yes"
        result = {"parent": parent, "child": child, "distances": distances, "means": means, "steps": steps, "save": "No"}
        return result | {"saved": "None", "step_parents": some([step] if steps == "Yes" else [])}
    first, second = row.take(2)
    if revision == 2:
        first, second = second, first
    saved = row.take()[0] if revision == 4 else "None"
    result = {"parent": first, "child": second} | row.named(("distances", "means", "steps"))
    result["save"] = {2: "No", 3: "No", 4: "Yes"}.get(revision) or row.take()[0]
    result["saved"] = saved if revision == 4 else (row.take()[0] if revision == 5 else "None")
    return result | {"step_parents": some(row.values)}


def skeleton(row: Row, revision: int) -> Settings:
    result = row.named(("seeds", "image", "branch_image", "branch_name"))
    return result | (row.named(("fill_holes", "hole_size")) if revision > 1 else {"fill_holes": "Yes", "hole_size": "10"})


def morph(row: Row, revision: int) -> Settings:
    """`steps`: (operation, how often, number, rescale)."""
    result = row.named(("image", "output"))
    size = {1: 3, 2: 4, 3: 11, 4: 12, 5: 4, 6: 4}[revision]
    steps = [row.take(size) for _ in range(len(row.values) // size)]
    return result | {"steps": [s[:3] for s in steps]}


def two_images(row: Row, _: int) -> Settings:
    return row.named(("image", "output"))


def objects_to_image(row: Row, _: int) -> Settings:
    return row.named(("objects", "output", "mode"))


def calculate_math(row: Row, _: int) -> Settings:
    """`operands`: (what, objects, measurement, factor, exponent)."""
    result = row.named(("name", "operation"))
    result["operands"] = [row.take(5), row.take(5)]
    result |= row.named(("log", "factor", "exponent"))
    result["addend"] = row.take()[0] if row.values and len(row.values) != 4 else "0"
    result["rounding"], result["digits"] = row.take(2) if len(row.values) > 4 else ("Not rounded", "0")
    return result | row.named(("wants_lower", "lower", "wants_upper", "upper"))


def classify(row: Row, _: int) -> Settings:
    """`groups` of one measurement each: objects, measurement, bins and their names."""
    contrast, n = row.take()[0], row.count()
    names = ("objects", "measurement", "spacing", "bins", "low", "below", "high", "above", "custom", "named", "names")
    groups = []
    for _group in range(n):
        groups.append(row.named(names))
        row.take(2)  # an image of them
    return {"contrast": contrast, "groups": groups}


def image_intensity(row: Row, revision: int) -> Settings:
    """`runs`: (images, within objects, of which)."""
    if revision < 4:
        runs = [row.take(3) for _ in range(len(row.values) // 3)]
        return {
            "runs": [([image], inside == "Yes", some([objects])) for image, inside, objects in runs],
            "percentiles": "No",
        }
    images, inside, objects, percentiles, which = row.take(5)
    return {"runs": [(words(images), inside == "Yes", words(objects))], "percentiles": percentiles, "which": which}


def area_occupied(row: Row, revision: int) -> Settings:
    return {"values": row.values}


READERS: dict[str, tuple[Sequence[int], Callable[[Row, int], Settings]]] = {
    "CorrectIlluminationCalculate": (range(1, 3), calculate),
    "CorrectIlluminationApply": (range(1, 6), apply),
    "Resize": (range(2, 6), resize),
    "ImageMath": (range(1, 6), image_math),
    "EnhanceOrSuppressFeatures": (range(1, 8), enhance),
    "Crop": (range(2, 4), crop),
    "MaskImage": (range(1, 4), mask_image),
    "Smooth": (range(1, 3), smooth),
    "Threshold": (range(7, 13), threshold_module),
    "Morph": (range(1, 7), morph),
    "MorphologicalSkeleton": (range(1, 2), two_images),
    "ConvertObjectsToImage": (range(1, 2), objects_to_image),
    "IdentifyPrimaryObjects": (range(10, 16), primary),
    "IdentifySecondaryObjects": (range(9, 11), secondary),
    "IdentifyTertiaryObjects": (range(1, 4), tertiary),
    "FilterObjects": (range(4, 11), filter_objects),
    "ExpandOrShrinkObjects": (range(1, 3), expand),
    "RelateObjects": (range(1, 6), relate),
    "MeasureColocalization": (range(2, 6), colocalization),
    "MeasureGranularity": (range(1, 5), granularity),
    "MeasureObjectIntensity": (range(2, 5), intensity),
    "MeasureObjectSizeShape": (range(1, 4), shape),
    "MeasureObjectNeighbors": (range(1, 4), neighbors),
    "MeasureObjectIntensityDistribution": (range(1, 7), distribution),
    "MeasureObjectSkeleton": (range(1, 4), skeleton),
    "MeasureTexture": (range(1, 8), texture),
    "MeasureImageQuality": (range(4, 7), image_quality),
    "MeasureImageIntensity": (range(2, 5), image_intensity),
    "MeasureImageAreaOccupied": (range(4, 6), area_occupied),
    "CalculateMath": (range(1, 4), calculate_math),
    "ClassifyObjects": (range(2, 3), classify),
}
ONCE = {  # what a module was called before
    "MeasureCorrelation": "MeasureColocalization",
    "MeasureNeurons": "MeasureObjectSkeleton",
    "ApplyThreshold": "Threshold",
    "EnhanceOrSuppressSpeckles": "EnhanceOrSuppressFeatures",
    "ExpandOrShrink": "ExpandOrShrinkObjects",
    "Relate": "RelateObjects",
    "IdentifyTertiarySubregion": "IdentifyTertiaryObjects",
    "MeasureObjectAreaShape": "MeasureObjectSizeShape",
    "MeasureObjectRadialDistribution": "MeasureObjectIntensityDistribution",
}
METHODS = {
    "MCT": "Minimum Cross-Entropy",
    "Minimum cross entropy": "Minimum Cross-Entropy",
    "RobustBackground": "Robust Background",
}


def words(text: str) -> Values:
    """A list in one setting: `DNA, ER`."""
    return [w for w in (part.strip() for part in text.split(",")) if w and w != "None"]


def numbers(text: str, module: Module | None, n: int = 1) -> list[float]:
    """`n` finite numbers of a setting: `3`, `10,75`, `(0.0, 1.0)`; ValueError for anything else."""
    parts = text.strip().removeprefix("(").removesuffix(")").split(",")
    try:
        result = [float(part) for part in parts]
    except ValueError:
        result = []
    if len(result) != n or not all(map(math.isfinite, result)):
        raise ValueError(f"{module}: expected {n} number{'s' * (n > 1)}, got {printable(text)}")
    return result
