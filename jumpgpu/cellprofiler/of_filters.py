"""Modules that filter images and reshape objects, as steps."""

from collections.abc import Callable
from importlib.util import find_spec

from ..settings import filter_steps as kinds
from ..settings.image_steps import Skeletonize
from .findings import Unsupported
from .of_objects import CENTROSOME
from .parse import printable
from .rows import Settings, numbers
from .translator import Translator, word

MORPH = (
    *("branchpoints", "bridge", "clean", "convex hull", "diag", "distance", "endpoints", "fill", "hbreak", "majority"),
    *("remove", "shrink", "skel", "skelpe", "spur", "thicken", "thin", "vbreak"),  # openlines fails in CellProfiler 4.2.8
)
TIMES = {"Once": 1, "Forever": 10_000}
EDGES = {w: w.lower() for w in ("Sobel", "Prewitt", "Roberts", "LoG", "Canny", "Kirsch")}
RESCALE = {
    "Stretch each image to use the full intensity range": "stretch",
    "Choose specific values to be reset to the full intensity range": "range",
    "Choose specific values to be reset to a custom range": "custom",
    "Divide by the image's minimum": "minimum",
    "Divide by the image's maximum": "maximum",
    "Divide each image by the same value": "divide",
    "Divide each image by a previously calculated value": "measurement",
    "Match the image's maximum to another image's maximum": "match",
}


def element(t: Translator, text: str) -> tuple[str, int]:
    """A structuring element's shape and size, `disk,5`."""
    shape, _, size = text.partition(",")
    result = word("a structuring element", shape.strip().lower(), {s: s for s in ("disk", "diamond", "square", "star")})
    n = int(numbers(size, t.module)[0])
    if not 0 <= n <= 200 or (result == "square" and n % 2 == 0):
        raise Unsupported(f"a structuring element {printable(text)}")
    return result, n


def filtered(method: str) -> Callable[[Translator, Settings], None]:
    """A module of one image and a structuring element, or one number."""

    def handler(t: Translator, s: Settings) -> None:
        if "element" in s:
            shape, size = element(t, s["element"])
            t.make(s["output"], kinds.FilterImage(t.use(s["image"]), s["output"], method, size, shape, module=t.by))
            return
        n = numbers(s["size"], t.module)[0]
        if not 0 < n <= 1000:
            raise Unsupported(f"a size of {n:g}; here above 0, to 1000")
        t.make(s["output"], kinds.FilterImage(t.use(s["image"]), s["output"], method, n, module=t.by))

    return handler


def reduce_noise(t: Translator, s: Settings) -> None:
    raise Unsupported("non-local means, which scikit-image has computed otherwise since 0.19")


def rescale(t: Translator, s: Settings) -> None:
    image, method = t.use(s["image"]), word("rescaling", s["method"], RESCALE)
    low: float | None = None
    high: float | None = None
    out: tuple[float, ...] = (0.0, 1.0)
    measurements: tuple[str, ...] = ()
    like, divisor = "", 1.0
    if method in ("range", "custom"):
        low, high = limits(t, s)
        if method == "custom":
            out = tuple(numbers(s["out_range"], t.module, 2))
    elif method == "measurement":
        if s["measurement"] not in t.measured:
            raise Unsupported(f"divides by {printable(s['measurement'])}, which is not measured")
        measurements = (s["measurement"],)
    elif method == "divide":
        divisor = numbers(s["divisor"], t.module)[0]
        if divisor == 0:
            raise Unsupported("divides by 0")
    elif method == "match":
        like = t.use(s["like"])
    kind = "range" if method in ("stretch", "range", "custom") else method
    result = kinds.Rescale(image, s["output"], kind, low, high, out[0], out[1], divisor, measurements, like, module=t.by)
    t.make(s["output"], result)


def limits(t: Translator, s: Settings) -> tuple[float | None, float | None]:
    """The range that is stretched; None for an image's own least or greatest value."""
    if s["low_by"] == "Minimum of all images" or s["high_by"] == "Maximum of all images":
        raise Unsupported("the range of all images together")
    own = [s[k] != "Custom" for k in ("low_by", "high_by")]
    if not any(own):
        low, high = numbers(s["range"], t.module, 2)
        return low, high
    low_high = [None if mine else numbers(s[k], t.module)[0] for k, mine in zip(("low", "high"), own, strict=True)]
    return low_high[0], low_high[1]


def morph(t: Translator, s: Settings) -> None:
    """The skeleton of an image without a mask has a kernel of its own."""
    if any(step[0] == "skel" for step in s["steps"]):
        t.say("note", "CellProfiler 4 has no skel any more; it is done as CellProfiler 3 does it")
    if [step[0] for step in s["steps"]] == ["skel"] and s["image"] not in t.masked:
        t.make(s["output"], Skeletonize(t.use(s["image"]), s["output"], "distance", module=t.by))
        return
    operations, repeats = [], []
    for operation, times, number, *_ in s["steps"]:
        operations.append(word("Morph", operation, {o: o for o in MORPH}))
        repeats.append(TIMES[times] if times in TIMES else int(numbers(number, t.module)[0]))
    if not find_spec("centrosome"):
        raise Unsupported(CENTROSOME)
    rescaled = tuple(step[3] in ("Yes", "True") for step in s["steps"])
    image = t.use(s["image"])
    t.make(s["output"], kinds.Morph(image, s["output"], tuple(operations), tuple(repeats), rescaled, module=t.by))


def edges(t: Translator, s: Settings) -> None:
    if not find_spec("centrosome"):
        raise Unsupported(CENTROSOME)
    method = word("edges", s["method"], EDGES)
    direction = word("edges", s["direction"], {"All": "all", "Horizontal": "horizontal", "Vertical": "vertical"})
    auto = {k: s[k] in ("Yes", "True") for k in ("auto_threshold", "auto_sigma", "auto_low")}
    sigma = {"log": 2.0}.get(method, 1.0) if auto["auto_sigma"] else numbers(s["sigma"], t.module)[0]
    low, high = (
        None if auto[a] else numbers(s[k], t.module)[0] for a, k in (("auto_low", "low"), ("auto_threshold", "threshold"))
    )
    factor = numbers(s["factor"], t.module)[0]
    image = t.use(s["image"])
    t.make(s["output"], kinds.Edges(image, s["output"], method, direction, sigma, low, high, factor, module=t.by))


def reshaped(method: str) -> Callable[[Translator, Settings], None]:
    """A module of one object set."""

    def handler(t: Translator, s: Settings) -> None:
        name, output = t.set_of(s["objects"]), s["output"]
        if method == "fill_holes":
            how = (
                "convex_hull" if s["mode"] == "Convex hull" else word("filling objects", s["mode"], {"Holes": "fill_holes"})
            )
            step = kinds.Reshape(name, output, how, numbers(s["size"], t.module)[0], module=t.by)
        elif method == "centers":
            step = kinds.Reshape(name, output, method, module=t.by)
        else:
            shape, size = element(t, s["element"])
            middle, renumber = (s.get(k) in ("Yes", "True") for k in ("keep_middle", "renumber"))
            step = kinds.Reshape(name, output, method, size, shape, middle, renumber, module=t.by)
            if method == "erosion" and not (middle or renumber):
                t.say(
                    "note", "where an object is gone CellProfiler's centres of those after it move up; here they stay theirs"
                )
        t.add(step)
        t.output(output, thresholds=False)

    return handler


def image_to_objects(t: Translator, s: Settings) -> None:
    background, connectivity = (int(numbers(s[k], t.module)[0]) for k in ("background", "connectivity"))
    values = "binary" if s["binary"] in ("Yes", "True") else "numbers" if s["preserve"] in ("Yes", "True") else "pieces"
    if background and values == "binary":
        raise Unsupported("a background other than 0 of a binary image")
    if values == "numbers":
        t.say("note", "of numbers that no pixel has CellProfiler's rows move up; here they stay theirs")
    image = t.use(s["image"])
    t.add(kinds.ImageToObjects(image, s["output"], connectivity != 1, values, background, module=t.by))
    t.output(s["output"], thresholds=False)
