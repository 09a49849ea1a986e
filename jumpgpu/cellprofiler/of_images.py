"""Modules that make images, as steps."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from ..settings import steps as kinds
from .findings import Cause, Unsupported
from .parse import Module, printable
from .rows import Settings, numbers
from .thresholds import threshold_settings
from .translator import Translator, word

OPERATIONS = {
    "Add": "add",
    "Subtract": "subtract",
    "Absolute Difference": "difference",
    "Multiply": "multiply",
    "Divide": "divide",
    "Average": "average",
    "Minimum": "minimum",
    "Maximum": "maximum",
    "Standard Deviation": "deviation",
    "Invert": "invert",
    "Log transform (base 2)": "log",
    "Log transform (legacy)": "log_legacy",
    "And": "and",
    "Or": "or",
    "Not": "not",
    "Equals": "equals",
    "None": "none",
}
SINGLE = {"invert", "log", "log_legacy", "not", "none"}
SMOOTHING = {
    "No smoothing": "none",
    "Convex Hull": "convex_hull",
    "Fit Polynomial": "polynomial",
    "Median Filter": "median",
    "Gaussian Filter": "gaussian",
    "Smooth to Average": "average",
    "Splines": "splines",
}
FEATURES = {"Speckles": "speckles", "Neurites": "neurites", "Dark holes": "dark_holes", "Texture": "texture", "DIC": "dic"}
SPLINES = ("spline_points", "spline_threshold", "spline_scale", "spline_iterations", "spline_convergence")
SMOOTH = {
    "Gaussian Filter": "gaussian",
    "Median Filter": "median",
    "Smooth Keeping Edges": "keeping_edges",
    "Fit Polynomial": "polynomial",
    "Circular Average Filter": "circular_average",
    "Smooth to Average": "average",
}


def bounds(text: str, module: Module | None) -> tuple[int | None, int | None]:
    """A pair `first,end` of coordinates; `end` may be the word for no limit."""
    parts = [p.strip() for p in text.strip().strip("()").split(",")]
    if len(parts) != 2:
        raise Unsupported(f"bounds {printable(text)}")
    result = [None if p in ("end", "begin") else p for p in parts]
    try:
        first, last = (None if p is None else int(float(p)) for p in result)
    except ValueError as error:
        raise Unsupported(f"bounds {printable(text)}") from error
    if (first is not None and first < 0) or (last is not None and last < 0):
        raise Unsupported(f"bounds {printable(text)}, counted from the end")
    return (0 if parts[0] == "begin" else first), last


def filter_size(module: Module | None, s: Settings) -> float | None:
    """A smoothing filter's size in pixels; None where it depends on the image."""
    if s["size_by"] == "Automatic":
        return None
    if s["size_by"] == "Object size":
        return numbers(s["object_width"], module)[0] * 2.35 / 3.5
    return numbers(s["filter_size"], module)[0]


def illuminate(t: Translator, s: Settings) -> None:
    if s["rescaled"]:
        t.say("note", "rescales corrected images, which CellProfiler 4 does not")
    low, high = s["low"] in ("Yes", "True"), s["high"] in ("Yes", "True")
    for name, output, function, how in s["images"]:
        try:
            image = t.use(name)
            by = t.function(function, name)
            t.make(output, kinds.Illuminate(image, by, output, how.lower(), low, high, module=t.by))
        except Unsupported as error:
            t.images[output] = t.cause(error)


def calculate(t: Translator, s: Settings) -> None:
    smoothing = word("smoothing", s["method"], SMOOTHING)
    if smoothing in ("convex_hull", "splines") and not find_spec("centrosome"):
        raise Unsupported(f"smoothing by {s['method']} needs centrosome: pip install 'jumpgpu[cellprofiler]'")
    background = s["kind"] == "Background"
    sized = smoothing in ("gaussian", "median")
    own_splines = smoothing == "splines" and s["auto_splines"] == "No"
    spline = {k: numbers(s[k], t.module)[0] for k in SPLINES} if own_splines else {}
    image, output = t.use(s["image"]), s["output"]
    step = kinds.Illumination(
        image,
        output,
        plate=s["each"] != "Each",
        background=background,
        block=int(numbers(s["block"], t.module)[0]) if background else 60,
        dilation=int(numbers(s["dilation_radius"], t.module)[0]) if s["dilate"] == "Yes" else 0,
        smoothing=smoothing,
        size=filter_size(t.module, s) if sized else None,
        rescale=word("rescaling", s["rescale"], {"No": "no", "Yes": "yes", "Median": "median"}),
        average=s["average"] if s["keep_average"] == "Yes" else "",
        dilated=s["dilated"] if s["keep_dilated"] == "Yes" else "",
        spline_points=int(spline.get("spline_points", 0)),
        spline_mode=s["spline_mode"] if own_splines else "auto",
        spline_threshold=spline.get("spline_threshold", 2.0),
        spline_scale=spline.get("spline_scale", 2.0),
        spline_iterations=int(spline.get("spline_iterations", 40)),
        spline_convergence=spline.get("spline_convergence", 0.001),
        module=t.by,
    )
    if (background and step.block < 1) or (step.size is not None and step.size <= 0) or not 0 <= step.dilation <= 100:
        raise Unsupported(f"blocks of {step.block}, a filter of {step.size}, dilation by {step.dilation}")
    t.make(output, step)
    for name in filter(None, (step.average, step.dilated)):
        t.images[name] = None
    if s["each"].startswith("All: Across"):
        t.unfinished |= {output, step.average, step.dilated} - {""}


def resize(t: Translator, s: Settings) -> None:
    """Several images alike; `like` another image."""
    order = word("interpolation", s["interpolation"], {"Nearest Neighbor": 0, "Bilinear": 1, "Bicubic": 3})
    size: dict[str, Any] = {}
    if s["by_factor"]:
        size["factor_y"], size["factor_x"] = (numbers(f, t.module)[0] for f in s["factors"])
    elif s["like"]:
        size["like"] = t.use(s["like"])
    else:
        size["height"], size["width"] = (int(numbers(v, t.module)[0]) for v in s["size"])
    for name, output in s["images"]:
        try:
            image = t.use(name)
            t.make(output, kinds.Resize(image, output, order=order, **size, module=t.by))
            t.unfinished |= {output} if name in t.unfinished else set()
        except Unsupported as error:
            t.images[output] = t.cause(error)


def image_math(t: Translator, s: Settings) -> None:
    operation = OPERATIONS.get(s["operation"])
    if operation is None:
        raise Unsupported(f"operation {printable(s['operation'])}")
    operands = s["operands"][:1] if operation in SINGLE else s["operands"]
    images, measurements, factors = [], [], []
    for kind, image, factor, measurement in operands:
        if kind == "Image":
            images.append(t.use(image))
            measurements.append("")
        else:
            if measurement not in t.measured:
                raise Unsupported(f"measurement {printable(measurement)} is not made")
            images.append("")
            measurements.append(measurement)
        factors.append(numbers(factor, t.module)[0])
    if not images[0]:
        raise Unsupported("begins with a measurement")
    exponent, factor, addend = (numbers(s[k], t.module)[0] for k in ("exponent", "factor", "addend"))
    yes = {k: s[k] in ("Yes", "True") for k in ("low", "high", "replace_nan", "ignore_mask")}
    t.make(
        s["output"],
        kinds.Math(
            s["output"],
            operation,
            tuple(images),
            tuple(factors),
            tuple(measurements) if any(measurements) else (),
            exponent,
            factor,
            addend,
            yes["low"],
            yes["high"],
            yes["replace_nan"],
            yes["ignore_mask"],
            module=t.by,
        ),
    )


def smooth(t: Translator, s: Settings) -> None:
    method = word("smoothing", s["method"], SMOOTH)
    if method in ("median", "circular_average") and not find_spec("centrosome"):
        raise Unsupported(f"smoothing by {s['method']} needs centrosome: pip install 'jumpgpu[cellprofiler]'")
    size = None if s["auto"] == "Yes" else numbers(s["size"], t.module)[0]
    if size is not None and not 0 < size <= 1000:
        raise Unsupported(f"a size of {size:g}; here above 0, to 1000")
    edges = numbers(s["sigma_range"], t.module)[0] if method == "keeping_edges" else 0.1
    clip = s["clip"] in ("Yes", "True")
    t.make(s["output"], kinds.Smooth(t.use(s["image"]), s["output"], method, size, edges, clip, module=t.by))


def enhance(t: Translator, s: Settings) -> None:
    size, feature = numbers(s["size"], t.module)[0], FEATURES.get(s["feature"], "")
    if s["operation"] == "Suppress":
        feature = "suppress"
    elif feature == "neurites":
        feature = word(
            "lines", s["neurites"], {"Tubeness": "tubeness", "Line structures": "gradient", "Gradient": "gradient"}
        )
    if not feature or (feature == "dic" and not find_spec("centrosome")):
        raise Unsupported(f"enhances {s['feature']}")
    if feature in ("speckles", "gradient", "suppress") and not 2 <= size <= 256:
        raise Unsupported(f"a size of {size:g}; here 2 to 256")
    if feature in ("gradient", "suppress") and size % 2:
        raise Unsupported(f"{s['operation']}, {s['feature']} of an odd size, {size:g}")
    result = kinds.Enhance(
        t.use(s["image"]),
        s["output"],
        feature,
        size,
        numbers(s["smoothing"], t.module)[0],
        feature in ("tubeness", "gradient") and s["rescale"] == "Yes",
        s["speckles"] == "Slow",
        tuple(int(v) for v in numbers(s["hole_size"], t.module, 2)),
        numbers(s["angle"], t.module)[0],
        numbers(s["decay"], t.module)[0],
        module=t.by,
    )
    t.make(s["output"], result)


def crop(t: Translator, s: Settings) -> None:
    image, keep = t.use(s["image"]), s["remove"] == "No"
    if s["remove"] not in ("No", "Edges", "Yes", "All"):
        raise Unsupported(f"removes rows and columns: {printable(s['remove'])}")
    if s["shape"] == "Previous cropping":
        name = t.use(s["cropping"])
        before = next((step for step in t.steps if isinstance(step, kinds.Crop) and step.output == name), None)
        if before is not None:
            t.make(s["output"], replace(before, image=image, output=s["output"], keep=keep, module=t.by))
        else:
            t.make(s["output"], kinds.Crop(image, s["output"], like=name, keep=keep, module=t.by))
    elif s["shape"] in ("Objects", "Image"):
        if not keep:
            raise Unsupported(f"crops to {s['shape'].lower()} and removes rows and columns")
        objects = t.set_of(s["objects"]) if s["shape"] == "Objects" else ""
        mask = "" if objects else t.use(s["mask_image"])
        t.make(s["output"], kinds.Crop(image, s["output"], objects=objects, mask=mask, keep=True, module=t.by))
    elif s["method"] != "Coordinates" or s["shape"] not in ("Rectangle", "Ellipse"):
        raise Unsupported(f"crops by {s['shape']}, {s['method']}")
    elif s["shape"] == "Ellipse":
        ellipse = (*numbers(s["centre"], t.module, 2), *(numbers(s[k], t.module)[0] for k in ("x_radius", "y_radius")))
        t.make(s["output"], kinds.Crop(image, s["output"], ellipse=ellipse, keep=keep, module=t.by))
    else:
        left, right = bounds(s["left_right"], t.module)
        top, bottom = bounds(s["top_bottom"], t.module)
        if left is None or top is None:
            raise Unsupported("crops from no first column or row")
        step = kinds.Crop(image, s["output"], left=left, right=right, top=top, bottom=bottom, keep=keep, module=t.by)
        t.make(s["output"], step)


def mask_image(t: Translator, s: Settings) -> None:
    image, invert = t.use(s["image"]), s["invert"] == "Yes"
    if s["source"] == "Objects":
        step = kinds.MaskImage(image, s["output"], t.set_of(s["objects"]), "", invert, module=t.by)
    else:
        step = kinds.MaskImage(image, s["output"], "", t.use(s["mask"]), invert, module=t.by)
    t.make(s["output"], step)


def threshold(t: Translator, s: Settings) -> None:
    if s["threshold"]["method"] == "Measurement":
        raise Unsupported("an image by a measured threshold")
    result = threshold_settings(t, s["threshold"])
    t.make(s["output"], kinds.Threshold(t.use(s["image"]), s["output"], result, module=t.by))
    t.measured |= {f"Threshold_{k}Threshold_{s['output']}" for k in ("Orig", "Final")}


def skeletonize(t: Translator, s: Settings) -> None:
    t.make(s["output"], kinds.Skeletonize(t.use(s["image"]), s["output"], module=t.by))


def objects_to_image(t: Translator, s: Settings) -> None:
    mode = word(
        "an image of objects", s["mode"].split(" ")[0], {"Binary": "binary", "Grayscale": "grayscale", "uint16": "numbers"}
    )
    t.make(s["output"], kinds.ObjectsImage(t.set_of(s["objects"]), s["output"], mode, module=t.by))


COLOURS = ("Red", "Green", "Blue")


def color_to_gray(t: Translator, s: Settings) -> None:
    """A colour image's planes are grey images of the plate, each of a channel of its own."""
    image = s["image"]
    if s["kind"] == "HSV" and s["planes"]:
        raise Unsupported("splits colours into hue, saturation and value")
    if image in t.images and image not in t.colours:
        t.use(image)  # says why, where it is not made
        raise Unsupported(f"takes the colours of {printable(image)}, which other modules take for a grey image")
    t.images[image] = Cause("ColorToGray", t.module.number if t.module else 0, f"image {printable(image)} is in colours")
    channels = {i: f"{t.channel_of_stem(image)}{plane_name(s, i)}" for i, _ in (*s["planes"], *s["weights"])}
    names = dict(s["planes"]) or {i: f"{image}{plane_name(s, i)}" for i in channels}
    for i, name in names.items():
        t.colours.setdefault(image, {}).setdefault(i, name)
        if t.images.get(name) is None and name not in t.images:
            t.images[name] = None
            t.channels[name] = channels[i]
            t.add(kinds.Load(name, channels[i]))
    listed = ", ".join(f"{plane_name(s, i)} as {channels[i]}" for i in names)
    t.say("note", f"colour images are not read; give the planes of {printable(image)} as grey images of channels: {listed}")
    if s["weights"]:
        weights = tuple(numbers(w, t.module)[0] for _, w in s["weights"])
        if sum(weights) == 0:
            raise Unsupported("weights that sum to 0")
        images = tuple(names[i] for i, _ in s["weights"])
        t.make(s["output"], kinds.GrayOfColors(s["output"], images, weights, module=t.by))


def plane_name(s: Settings, i: int) -> str:
    return COLOURS[i] if i < 3 and s["kind"] != "Channels" else f"Plane{i + 1}"
