"""Modules that make images, as steps."""

from typing import Any

from ..settings import steps as kinds
from .findings import Unsupported
from .parse import Module, printable
from .rows import Settings, numbers
from .thresholds import threshold_settings
from .translator import Translator

OPERATIONS = {
    "Add": "add",
    "Subtract": "subtract",
    "Absolute Difference": "difference",
    "Multiply": "multiply",
    "Divide": "divide",
    "Average": "average",
    "Minimum": "minimum",
    "Maximum": "maximum",
    "Invert": "invert",
    "None": "none",
}
SINGLE = {"invert", "none"}


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
    for name, output, function, how in s["images"]:
        try:
            image = t.use(name)
            if function in t.own_background:
                subtract_background(t, image, output, function, how, s)
                continue
            by = t.function(function, name)
            low, high = s["low"] in ("Yes", "True"), s["high"] in ("Yes", "True")
            t.make(output, kinds.Illuminate(image, by, output, how.lower(), low, high, module=t.by))
        except Unsupported as error:
            t.images[output] = t.cause(error)


def subtract_background(t: Translator, image: str, output: str, function: str, how: str, s: Settings) -> None:
    if how != "Subtract" or t.own_background[function] != image or "No" in (s["low"], s["high"]):
        raise Unsupported(f"{how.lower()}s a background otherwise than from its own image, clipped")
    t.make(output, kinds.Illuminate(image, function, output, "subtract", module=t.by))


def calculate(t: Translator, s: Settings) -> None:
    if s["kind"] == "Background" and s["each"] == "Each":
        size = filter_size(t.module, s)
        right = s["method"] == "Gaussian Filter" and s["rescale"] == "No" and size is not None and s["dilate"] == "No"
        if right and size is not None:
            image, block = t.use(s["image"]), int(numbers(s["block"], t.module)[0])
            t.own_background[s["output"]] = image
            t.make(s["output"], kinds.Background(image, s["output"], block, size, module=t.by))
            return
    raise Unsupported(f"calculates {s['kind']} from {s['each']} by {s['method']}")


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
    if yes["ignore_mask"]:
        raise Unsupported("ignores masks")
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
            module=t.by,
        ),
    )


def smooth(t: Translator, s: Settings) -> None:
    if s["method"] != "Gaussian Filter":
        raise Unsupported(f"smooths by {printable(s['method'])}")
    size = None if s["auto"] == "Yes" else numbers(s["size"], t.module)[0]
    t.make(s["output"], kinds.Smooth(t.use(s["image"]), s["output"], "gaussian", size, module=t.by))


def enhance(t: Translator, s: Settings) -> None:
    image, size = t.use(s["image"]), numbers(s["size"], t.module)[0]
    common: dict[str, Any] = {"image": image, "output": s["output"], "module": t.by}
    if s["operation"] == "Suppress" or s["feature"] == "Speckles":
        if size % 2 or size < 2 or size > 256:
            raise Unsupported(f"a size of {size:g}; here 2 to 256, even")
        feature = "suppress" if s["operation"] == "Suppress" else "speckles"
        t.make(s["output"], kinds.Enhance(feature=feature, size=size, **common))
    elif s["feature"] == "Neurites" and s["neurites"] == "Tubeness":
        sigma = numbers(s["smoothing"], t.module)[0]
        t.make(s["output"], kinds.Enhance(feature="tubeness", sigma=sigma, rescale=s["rescale"] == "Yes", **common))
    else:
        raise Unsupported(f"enhances {s['feature']} by {s['neurites']}")


def crop(t: Translator, s: Settings) -> None:
    if s["remove"] not in ("Edges", "Yes", "All"):
        raise Unsupported("keeps the rows and columns that are cut off")
    image = t.use(s["image"])
    if s["shape"] == "Previous cropping":
        t.make(s["output"], kinds.Crop(image, s["output"], like=t.use(s["cropping"]), module=t.by))
        return
    if s["shape"] != "Rectangle" or s["method"] != "Coordinates":
        raise Unsupported(f"crops by {s['shape']}, {s['method']}")
    left, right = bounds(s["left_right"], t.module)
    top, bottom = bounds(s["top_bottom"], t.module)
    if left is None or top is None:
        raise Unsupported("crops from no first column or row")
    t.make(
        s["output"],
        kinds.Crop(image, s["output"], left=left, right=right, top=top, bottom=bottom, module=t.by),
    )


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


def morph(t: Translator, s: Settings) -> None:
    if [step[0] for step in s["steps"]] != ["skel"]:
        raise Unsupported(f"Morph by {', '.join(step[0] for step in s['steps'])}")
    t.make(s["output"], kinds.Skeletonize(t.use(s["image"]), s["output"], "distance", module=t.by))


def objects_to_image(t: Translator, s: Settings) -> None:
    if not s["mode"].startswith("Binary"):
        raise Unsupported(f"an image of objects in {s['mode']}")
    t.make(s["output"], kinds.ObjectsImage(t.set_of(s["objects"]), s["output"], module=t.by))
