"""Modules that make object sets, as steps."""

import math
from importlib.util import find_spec

from ..settings import object_steps
from ..settings import steps as kinds
from ..settings.config import PrimarySettings, SecondarySettings, ThresholdSettings
from .findings import Unsupported
from .parse import printable
from .rows import Settings, numbers
from .thresholds import BASIC_THRESHOLD, measured_threshold, threshold_settings
from .translator import Translator, word

OVERLAPS = {
    "keep overlapping region": "cut",
    "keep": "any",
    "remove": "all",
    "remove depending on overlap": "share",
}
DECLUMP = {"Shape": "shape", "Intensity": "intensity", "None": "none"}
LINES = DECLUMP | {"Propagate": "propagate"}
CENTROSOME = "needs centrosome: pip install 'jumpgpu[cellprofiler]'"
HOLES = {"Never": "never", "After declumping only": "after_declump", "After both thresholding and declumping": "both"}
SECONDARY = {
    "Watershed - Image": "watershed",
    "Watershed - Gradient": "watershed_gradient",
    "Propagation": "propagation",
    "Distance - N": "distance",
    "Distance - B": "distance_b",
}
EXPAND = {
    "Expand objects by a specified number of pixels": "expand",
    "Expand objects until touching": "expand_infinite",
    "Shrink objects by a specified number of pixels": "shrink",
    "Shrink objects to a point": "shrink_infinite",
    "Add partial dividing lines between objects": "divide",
    "Remove spurs": "despur",
    "Skeletonize each object": "skeletonize",
}
DISTANCES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("None", "Neither", "Do not use"), ()),
    "Centroid": ("centroid",),
    "Minimum": ("minimum",),
    "Both": ("centroid", "minimum"),
}
LIMIT = {"Erase": True, "Continue": False, "None": False}  # CellProfiler 2's Truncate became None
EXTREMES = {f"{word}{each}": word.lower() for word in ("Minimal", "Maximal") for each in ("", " per object")}
BASIC = {  # what CellProfiler takes where "Use advanced settings?" is No
    "declump": "Intensity",
    "lines": "Intensity",
    "low_resolution": "Yes",
    "fill_holes": "After both thresholding and declumping",
    "auto_suppression": "Yes",
    "limit": "Continue",
}


def primary(t: Translator, s: Settings) -> None:
    if s["advanced"] != "Yes":
        s |= BASIC | {"threshold": s["threshold"] | BASIC_THRESHOLD}
    image = t.use(s["image"])
    minimum, maximum = numbers(s["diameter"], t.module, 2)
    result = PrimarySettings(
        background=None,
        threshold=threshold_settings(t, s["threshold"]),
        min_diameter=minimum,
        max_diameter=maximum,
        discard_size=s["discard_size"] == "Yes",
        discard_border=s["discard_border"] == "Yes",
        declump=word("declumping", s["declump"], DECLUMP),
        dividing_lines="none" if s["declump"] == "None" else word("dividing lines", s["lines"], LINES),
        smoothing=None if s["auto_smoothing"] == "Yes" else numbers(s["smoothing"], t.module)[0],
        suppression=None if s["auto_suppression"] == "Yes" else numbers(s["suppression"], t.module)[0],
        low_resolution_maxima=s["low_resolution"] == "Yes",
        fill_holes=word("filling holes", s["fill_holes"], HOLES),
        max_objects=int(numbers(s["limit_count"], t.module)[0]) if word("too many objects", s["limit"], LIMIT) else None,
    )
    by = measured_threshold(t, s["threshold"])
    t.add(kinds.Primary(image, s["objects"], result, by, module=t.by))
    t.output(s["objects"])


def secondary(t: Translator, s: Settings) -> None:
    seeds, image = t.set_of(s["seeds"]), t.use(s["image"])
    method = word("method", s["method"], SECONDARY)
    by_distance = method in ("distance", "distance_b")
    result = SecondarySettings(
        method=method,
        threshold=ThresholdSettings() if method == "distance" else threshold_settings(t, s["threshold"]),
        fill_holes=s["fill_holes"] == "Yes",
        discard_border=s["discard_border"] == "Yes",
        distance=int(numbers(s["distance"], t.module)[0]) if by_distance else 10,
        regularization=numbers(s["regularization"], t.module)[0] if method == "propagation" else 0.05,
    )
    new = s["new_primary"] if result.discard_border and s["discard_primary"] == "Yes" else ""
    by = "" if method == "distance" else measured_threshold(t, s["threshold"])
    t.add(kinds.Secondary(image, seeds, s["objects"], result, new, by, module=t.by))
    t.output(s["objects"])
    if new:
        t.output(new, thresholds=False)


def tertiary(t: Translator, s: Settings) -> None:
    larger, smaller = t.set_of(s["larger"]), t.set_of(s["smaller"])
    if s["shrink"] != "Yes":
        text = "where nothing is left of an object CellProfiler's AreaShape of the next moves up a row; here it stays"
        t.say("note", text)
    t.add(kinds.Tertiary(larger, smaller, s["objects"], s["shrink"] == "Yes", module=t.by))
    t.output(s["objects"], thresholds=False)


def filter_objects(t: Translator, s: Settings) -> None:
    names = [t.set_of(name) for name, _ in s["sets"]]
    outputs = [output for _, output in s["sets"]]
    common = {"others": tuple(names[1:]), "other_outputs": tuple(outputs[1:]), "removed": s["removed"]}
    if s["mode"] == "Image or mask border":
        t.add(kinds.Filter(names[0], outputs[0], border=True, module=t.by, **common))
    elif s["mode"] == "Measurements" and s["choice"] == "Limits":
        limits = s["limits"]
        low = tuple(-math.inf if v is None else numbers(v, t.module)[0] for _, v, _ in limits)
        high = tuple(math.inf if v is None else numbers(v, t.module)[0] for _, _, v in limits)
        for measurement, *_ in limits:
            if measurement not in t.columns_of(names[0]):
                raise Unsupported(f"filters by {printable(measurement)}, which is not measured")
        measurements = tuple(m for m, *_ in limits)
        t.add(kinds.Filter(names[0], outputs[0], False, measurements, low, high, module=t.by, **common))
    elif s["mode"] == "Measurements" and s["limits"]:
        keep, measurement = word("filters", s["choice"], EXTREMES), s["limits"][0][0]
        if measurement not in t.columns_of(names[0]):
            raise Unsupported(f"filters by {printable(measurement)}, which is not measured")
        enclosing = t.set_of(s["enclosing"]) if s["choice"].endswith("per object") else ""
        most = word("objects in several others", s["assignment"], {"Both parents": False, "Parent with most overlap": True})
        common |= {"keep": keep, "enclosing": enclosing, "most_overlap": bool(enclosing) and most}
        t.add(kinds.Filter(names[0], outputs[0], False, (measurement,), module=t.by, **common))
    else:
        raise Unsupported(f"filters by {s['mode']}, {s['choice']}")
    for output in filter(None, [*outputs, s["removed"]]):
        t.output(output, thresholds=False)


def expand(t: Translator, s: Settings) -> None:
    method = word("change", s["operation"], EXPAND)
    if method not in ("expand", "expand_infinite") and not find_spec("centrosome"):
        raise Unsupported(f"{s['operation']}, which needs centrosome: pip install 'jumpgpu[cellprofiler]'")
    pixels = int(numbers(s["pixels"], t.module)[0]) if method in ("expand", "shrink", "despur") else 1
    fill = method.startswith("shrink") and s["fill"] in ("Yes", "True")
    t.add(kinds.Expand(t.set_of(s["objects"]), s["output"], pixels, method, fill, module=t.by))
    t.output(s["output"], thresholds=False)


def mask_objects(t: Translator, s: Settings) -> None:
    objects, overlap = t.set_of(s["objects"]), word("objects that overlap", s["overlap"].lower(), OVERLAPS)
    by_objects = t.set_of(s["by_objects"]) if s["source"] == "Objects" else ""
    mask = "" if by_objects else t.use(s["mask"])
    share = numbers(s["share"], t.module)[0] if overlap == "share" else 0.5
    renumber = word("numbers", s["numbers"].lower(), {"renumber": True, "retain": False})
    invert = s["invert"] == "Yes"
    t.add(kinds.MaskObjects(objects, s["output"], by_objects, mask, invert, overlap, share, renumber, module=t.by))
    t.output(s["output"], thresholds=False)


def relate(t: Translator, s: Settings) -> None:
    parent, child = t.set_of(s["parent"]), t.set_of(s["child"])
    distances = word("distances of children", s["distances"], DISTANCES)
    steps = tuple(t.set_of(name) for name in s["step_parents"]) if distances and s["steps"] == "Yes" else ()
    saved = s["saved"] if s["save"] == "Yes" else ""
    if s["means"] == "Yes" and any(isinstance(step, kinds.MeasureShape) and child in step.objects for step in t.steps):
        t.say("note", "means of children's Orientation: of one that stands upright, or is round, rounding gives the sign")
    t.add(kinds.Relate(parent, child, s["means"] == "Yes", saved, distances, steps, module=t.by))
    if saved:
        t.output(saved, thresholds=False)


def resize_objects(t: Translator, s: Settings) -> None:
    name, output = t.set_of(s["objects"]), s["output"]
    if s["method"] == "Factor":
        y, x = (numbers(f, t.module)[0] for f in s["factors"])
        if not (0 < y <= 100 and 0 < x <= 100):
            raise Unsupported(f"factors {y:g} and {x:g}; here above 0, to 100")
        step = object_steps.ResizeObjects(name, output, y, x, module=t.by)
    elif s["method"] == "Dimensions":
        height, width = (int(numbers(v, t.module)[0]) for v in s["size"])
        step = object_steps.ResizeObjects(name, output, height=height, width=width, module=t.by)
    elif s["method"] == "Match Image":
        step = object_steps.ResizeObjects(name, output, like=t.use(s["like"]), module=t.by)
    else:
        raise Unsupported(f"resizes by {printable(s['method'])}")
    if s["method"] != "Factor" or min(y, x) < 1:
        t.say("note", "an object too small to be left has no row in CellProfiler; here its values are missing")
    t.add(step)
    t.output(output, thresholds=False)


def regroup(t: Translator, s: Settings) -> None:
    """Split, or merge (once Unify) by distance or by parent."""
    name, output = t.set_of(s["objects"]), s["output"]
    if s["method"] == "Split":
        step = object_steps.Regroup(name, output, "split", module=t.by)
    elif s["method"] not in ("Merge", "Unify"):
        raise Unsupported(f"changes objects by {printable(s['method'])}")
    elif s["of"] == "Per-parent":
        hull = s["hull"] == "Convex hull"
        if hull and not find_spec("centrosome"):
            raise Unsupported(CENTROSOME)
        if not any(is_parent(step, s["parent"], name) for step in t.steps):
            raise Unsupported(f"merges by {printable(s['parent'])}, which is no parent of {printable(name)}")
        step = object_steps.Regroup(name, output, "parent", parent=t.set_of(s["parent"]), hull=hull, module=t.by)
    else:
        by = word("merges", s["by"], {"Closest point": "closest", "Centroids": "centroids"})
        guide = t.use(s["image"]) if s["guided"] in ("Yes", "True") else ""
        if guide and by == "centroids" and not find_spec("centrosome"):
            raise Unsupported(CENTROSOME)
        distance, fraction = int(numbers(s["distance"], t.module)[0]), numbers(s["fraction"], t.module)[0]
        step = object_steps.Regroup(name, output, "merge", distance, guide, fraction, by, module=t.by)
    t.add(step)
    t.output(output, thresholds=False)


def is_parent(step: kinds.Step, parent: str, child: str) -> bool:
    """Whether a step relates the two: RelateObjects, or one that makes the children of their parents."""
    parents = {getattr(step, k, "") for k in ("parent", "seeds", "larger", "smaller")}
    made = {getattr(step, k, "") for k in ("child", "output", "new_seeds", "saved")}
    if isinstance(step, kinds.Secondary | kinds.Tertiary):
        made.add(step.objects)
    elif isinstance(objects := getattr(step, "objects", ()), str):
        parents.add(objects)
    return parent in parents and child in made


def watershed(t: Translator, s: Settings) -> None:
    if s["advanced"] in ("Yes", "True"):
        raise Unsupported("watershed with advanced settings")
    image, output = t.use(s["image"]), s["output"]
    if s["generate"] == "Distance":
        if not find_spec("mahotas"):
            raise Unsupported("watershed from distances needs mahotas: pip install 'jumpgpu[cellprofiler]'")
        footprint, downsample = (int(numbers(s[k], t.module)[0]) for k in ("footprint", "downsample"))
        if not (1 <= footprint <= 1000 and 1 <= downsample <= 100):
            raise Unsupported(f"a footprint of {footprint}, downsampling by {downsample}")
        step = object_steps.Watershed(image, output, footprint=footprint, downsample=downsample, module=t.by)
    elif s["generate"] == "Markers":
        markers, mask = t.use(s["markers"]), t.use(s["mask"]) if s["mask"] not in ("", "None", "Leave blank") else ""
        corners = numbers(s["connectivity"], t.module)[0] != 1
        if numbers(s["compactness"], t.module) != [0]:
            raise Unsupported("compact basins")
        if s["lines"] in ("Yes", "True"):
            raise Unsupported("lines between basins, which scikit-image has drawn otherwise since 0.19")
        step = object_steps.Watershed(image, output, markers, mask, corners, module=t.by)
    else:
        raise Unsupported(f"watershed from {printable(s['generate'])}")
    t.add(step)
    t.output(output, thresholds=False)
