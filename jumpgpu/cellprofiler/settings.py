"""What the settings of CellProfiler's modules are called here, by module and revision of its settings.

A module writes its settings in one order a revision, and `read_settings` gives them names: `{"image": "CorrBlue", ...}`. The
revisions are those of CellProfiler 3 and 4; an older one is refused, for its settings lie elsewhere and mean other things.
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
    revisions, reader = READERS[module.name]
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
    trailing = {2: 0, 3: 0, 4: 1, 5: 2}[revision]
    size = 5 if revision == 2 else 4
    n = (len(row.values) - trailing) // size
    images = [row.take(size) for _ in range(n)]
    low, high = row.take(2) if revision == 5 else ("Yes", "Yes")
    rescaled = [i[4] for i in images if revision == 2 and i[4] != "No rescaling"]
    return {"images": [i[:4] for i in images], "low": low, "high": high, "rescaled": rescaled}


def resize(row: Row, revision: int) -> Settings:
    """`images`: (input, output); `factors` of y and x."""
    first = row.take(2)
    how = row.take()[0]
    factors = row.take(3)[:2] if revision == 5 else row.take() * 2
    row.take(3 if revision == 5 else 2)
    interpolation = row.take()[0]
    row.take(0 if revision == 3 else 2)
    return {
        "by_factor": how.startswith("Resize by a fraction"),
        "factors": factors,
        "interpolation": interpolation,
        "images": [first, *(row.take(2) for _ in range(row.count()))],
    }


def primary(row: Row, revision: int) -> Settings:
    found = row.named(PRIMARY[:15])
    row.take(2 if revision == 14 else 0)  # maxima's display
    found["advanced"] = "Yes" if revision == 12 else row.take()[0]
    return found | {"threshold": threshold(row)}


def secondary(row: Row, _: int) -> Settings:
    return row.named(SECONDARY) | {"threshold": threshold(row)}


def threshold(row: Row) -> Settings:
    """The threshold's settings within another module: their own revision, then theirs in the order of revision 12."""
    revision = row.count()
    if revision not in (9, 10, 11, 12):
        raise ValueError(
            f"{row.module}: revision {revision} of its threshold's settings is not read, 9 to 12 are; open the pipeline in "
            "CellProfiler 4 and export it again"
        )
    names = [n for n in THRESHOLD if (n != "log" or revision == 12) and (n != "local_method" or revision > 9)]
    found = row.named(names)
    if revision == 9 and found["strategy"] in ("Manual", "Measurement"):
        found |= {"global_method": found["strategy"], "strategy": "Global"}
    adaptive = found["strategy"] == "Adaptive"
    found["method"] = found["local_method" if adaptive and revision > 9 else "global_method"]
    found["method"] = {"MCT": "Minimum Cross-Entropy", "Minimum cross entropy": "Minimum Cross-Entropy"}.get(
        found["method"], found["method"]
    )
    found["method"] = {"RobustBackground": "Robust Background"}.get(found["method"], found["method"])
    if revision < 12:  # before 4.0 three classes of Otsu were of logarithms
        old_otsu3 = revision < 11 and found["method"] == "Otsu" and found["classes"] == "Three classes"
        found["log"] = "Yes" if old_otsu3 else "No"
    return found


def tertiary(row: Row, revision: int) -> Settings:
    found = row.named(("larger", "smaller", "objects"))
    row.take({1: 2, 2: 2, 3: 0}[revision])  # outlines
    return found | {"shrink": "Yes" if revision == 1 else row.take()[0]}


def filter_objects(row: Row, revision: int) -> Settings:
    """`sets`: (objects, filtered objects), the first those that decide."""
    first, mode = row.take(2), row.take()[0]
    row.take(5)
    measurements, additional = row.count(), row.count()
    row.take(1 if revision == 8 else 3)
    row.take(5 * measurements)
    return {"mode": mode, "sets": [first, *(row.take(2) for _ in range(additional))]}


def colocalization(row: Row, revision: int) -> Settings:
    """`ordered`: whether CellProfiler keeps the order of the images; it reads revision 3's into a set."""
    if revision == 3:
        n_images, n_objects = row.count(), row.count()
        images = row.take(n_images)
        percent, where = row.take(2)
        objects = row.take(n_objects)
    else:
        images = words(row.take()[0])
        percent, where = row.take(2)
        objects = words(row.take()[0])
    wants = row.named(("all", "correlation", "manders", "rwc", "overlap", "costes"))
    mode = row.take()[0] if revision == 5 else "Faster"
    return {
        "images": images,
        "objects": objects,
        "percent": percent,
        "where": where,
        "costes_mode": mode,
        "ordered": revision > 3,
        **wants,
    }


def granularity(row: Row, revision: int) -> Settings:
    """`runs`: a run of one image and its settings (revision 3), or one of all."""
    names = ("subsampling", "background_subsampling", "radius", "spectrum")
    if revision == 4:
        images, inside, objects = row.take(3)
        return {"runs": [(words(images), words(objects) if inside == "Yes" else [], row.named(names))]}
    runs = []
    for _ in range(row.count()):
        n_objects = row.count()
        image, chosen = row.take()[0], row.named(names)
        runs.append(([image], row.take(n_objects), chosen))
    return {"runs": runs}


def intensity(row: Row, revision: int) -> Settings:
    if revision == 3:
        return {"images": row.take(row.count()), "objects": row.values}
    images, objects = row.take(2)
    return {"images": words(images), "objects": words(objects)}


def shape(row: Row, revision: int) -> Settings:
    objects = row.take(len(row.values) - 1) if revision == 1 else words(row.take()[0])
    return {"objects": objects, "zernike": row.take()[0], "advanced": row.take()[0] if revision == 3 else "No"}


def neighbors(row: Row, revision: int) -> Settings:
    first = row.take()
    found = {"objects": first[0], "neighbors": (first if revision == 1 else row.take())[0]}
    found |= row.named(("method", "distance"))
    return found | {"discarded": row.take()[0] if revision == 3 else "Yes"}


def distribution(row: Row, revision: int) -> Settings:
    """`objects`: (measured, centre, of which); `bins`: (scaled, number, maximum radius)."""
    first = row.take()[0]
    n_objects, n_bins, _ = row.count(), row.count(), row.count()
    found = row.named(("zernike", "degree"))
    if revision == 5:
        if not first.isdigit():
            raise ValueError(f"{row.module}: expected a count of images, got {printable(first)}")
        images = row.take(int(first))
    else:
        images = words(first)
    objects = [row.take(3) for _ in range(n_objects)]
    return found | {"images": images, "objects": objects, "bins": [row.take(3) for _ in range(n_bins)]}


def texture(row: Row, revision: int) -> Settings:
    if revision == 5:
        n_images, n_objects, n_scales = row.count(), row.count(), row.count()
        images, objects, scales = row.take(n_images), row.take(n_objects), row.take(n_scales)
        return {"images": images, "objects": objects, "scales": scales, "where": row.take()[0], "levels": "256"}
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
    """Of an operation on one image: whether it leaves the values as they are, but for clipping."""
    operation, *numbers_of, low, high = row.take(6)
    row.take(1 if revision < 5 else 2)
    output, _, image, factor = row.take(4)
    wanted = zip([*numbers_of, factor], (1, 1, 0, 1), strict=True)
    same = operation == "None" and all(numbers(text, row.module) == [value] for text, value in wanted)
    return {"image": image, "output": output, "same": same, "clipped": (low, high) == ("Yes", "Yes")}


READERS: dict[str, tuple[Sequence[int], Callable[[Row, int], Settings]]] = {
    "CorrectIlluminationCalculate": (range(1, 3), calculate),
    "CorrectIlluminationApply": (range(2, 6), apply),
    "Resize": (range(3, 6), resize),
    "ImageMath": (range(3, 6), image_math),
    "IdentifyPrimaryObjects": (range(12, 16), primary),
    "IdentifySecondaryObjects": (range(10, 11), secondary),
    "IdentifyTertiaryObjects": (range(1, 4), tertiary),
    "FilterObjects": (range(8, 11), filter_objects),
    "MeasureColocalization": (range(3, 6), colocalization),
    "MeasureGranularity": (range(3, 5), granularity),
    "MeasureObjectIntensity": (range(3, 5), intensity),
    "MeasureObjectSizeShape": (range(1, 4), shape),
    "MeasureObjectNeighbors": (range(1, 4), neighbors),
    "MeasureObjectIntensityDistribution": (range(5, 7), distribution),
    "MeasureTexture": (range(5, 8), texture),
    "MeasureImageQuality": (range(4, 7), image_quality),
}


def words(text: str) -> Values:
    """A list in one setting: `DNA, ER`."""
    return [w for w in (part.strip() for part in text.split(",")) if w and w != "None"]


def numbers(text: str, module: Module, n: int = 1) -> list[float]:
    """`n` finite numbers of a setting: `3`, `10,75`, `(0.0, 1.0)`; ValueError for anything else."""
    parts = text.strip().removeprefix("(").removesuffix(")").split(",")
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if len(found) != n or not all(map(math.isfinite, found)):
        raise ValueError(f"{module}: expected {n} number{'s' * (n > 1)}, got {printable(text)}")
    return found
