"""Modules that measure, as steps."""

import math

from ..settings import steps as kinds
from . import of_image_tables as tables
from .findings import Unsupported
from .parse import printable
from .rows import Settings, numbers
from .translator import Translator, word

OPERATIONS = {w: w.lower() for w in ("Multiply", "Divide", "Add", "Subtract", "None")}
ROUNDING = {
    "Not rounded": "no",
    "Rounded to a specified number of decimal places": "digits",
    "Rounded down to the next-lowest integer": "floor",
    "Rounded up to the next-highest integer": "ceiling",
}
CENTRES = {"These objects": "self", "Centers of other objects": "centers", "Edges of other objects": "edges"}
ZERNIKE = {"None": None, "Magnitudes only": False, "Magnitudes and phase": True}


def wanted(t: Translator, s: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return t.measured_images(s["images"]), t.measured_sets(s["objects"])


def in_objects(where: str) -> bool:
    """Whether a module that may measure images, objects or both measures objects."""
    return where not in ("Across entire image", "Images")


def colocalization(t: Translator, s: Settings) -> None:
    metrics = [m for m in ("correlation", "manders", "rwc", "overlap", "costes") if s["all"] == "Yes" or s[m] == "Yes"]
    mode = {"Faster": "faster", "Fast": "fast", "Accurate": "accurate"}.get(s["costes_mode"])
    if "costes" in metrics and mode is None:
        t.say("columns", f"Costes' thresholds by {printable(s['costes_mode'])}")
        metrics.remove("costes")
    if "costes" in metrics and not s["ordered"]:
        t.say(
            "note",
            "CellProfiler 4 takes this older module's images in an order that is another at each start, and Costes' "
            "thresholds depend on it; here they come in the file's order",
        )
    percent = numbers(s["percent"], t.module)[0]
    if tables.in_whole_images(s["where"]):
        tables.colocalization(t, s["images"], percent, metrics, mode or "faster")
    if not in_objects(s["where"]):
        return
    images, objects = wanted(t, s)
    if images and objects and len(images) > 1:
        t.add(kinds.MeasureCorrelation(images, objects, percent, tuple(metrics), mode or "faster", module=t.by))


def granularity(t: Translator, s: Settings) -> None:
    sub, background, radius, spectrum = (
        numbers(s[k], t.module)[0] for k in ("subsampling", "background_subsampling", "radius", "spectrum")
    )
    if not (0 < sub <= 1 and 0 < background <= 1 and 1 <= radius <= 128 and 1 <= spectrum <= 16):
        raise Unsupported(f"granularity of {sub:g}, {background:g}, radius {radius:g}, {spectrum:g} steps")
    tables.granularity(t, s["images"], (sub, background, int(radius), int(spectrum)))
    images, objects = wanted(t, s) if s["objects"] else ((), ())
    if images and objects:
        t.add(kinds.MeasureGranularity(images, objects, sub, background, int(radius), int(spectrum), module=t.by))


def intensity(t: Translator, s: Settings) -> None:
    images, objects = wanted(t, s)
    if images and objects:
        t.add(kinds.MeasureIntensity(images, objects, module=t.by))


def shape(t: Translator, s: Settings) -> None:
    if objects := t.measured_sets(s["objects"]):
        t.add(kinds.MeasureShape(objects, s["zernike"] == "Yes", s["advanced"] == "Yes", module=t.by))


def neighbors(t: Translator, s: Settings) -> None:
    among = t.set_of(s["neighbors"])
    method = {"Adjacent": "adjacent", "Expand until adjacent": "expanded"}.get(s["method"], "within")
    distance = int(numbers(s["distance"], t.module)[0]) if method == "within" else 1
    for name in t.measured_sets([s["objects"]]):
        discarded = s["discarded"] in ("Yes", "True")
        t.add(kinds.MeasureNeighbors(name, among, method, distance, discarded, module=t.by))


def distribution(t: Translator, s: Settings) -> None:
    images = t.measured_images(s["images"])
    phase = ZERNIKE.get(s["zernike"])
    if s["zernike"] not in ZERNIKE or (phase is not None and numbers(s["degree"], t.module) != [9]):
        t.say("columns", f"Zernike moments: {s['zernike']}, up to {s['degree']}")
        phase = None
    own = t.measured_sets([o for o, _, _ in s["objects"]])
    if images and own and phase is not None:
        t.add(kinds.MeasureZernike(images, own, phase, module=t.by))
    for name, centre, of in s["objects"]:
        if name not in own or not images:
            continue
        center = word("centres", centre, CENTRES)
        others = t.measured_sets([of]) if center != "self" else ("",)
        if not others:
            continue
        scaled_first = s["bins"][0][0] == "Yes"  # CellProfiler measures distances once for an object set
        for scaled, bins, _radius in s["bins"]:
            n = int(numbers(bins, t.module)[0])
            reach = 0 if scaled_first else int(numbers(s["bins"][0][2], t.module)[0])
            overflow = scaled != "Yes"
            if not 1 <= n <= 30:
                t.say("columns", f"{n} rings; here 1 to 30")
                continue
            if center == "self" and reach:
                t.say("columns", f"rings of {printable(name)} out to {reach} pixels from its own centre")
                continue
            t.add(kinds.MeasureRadial(images, (name,), n, center, others[0], reach, overflow, module=t.by))


def texture(t: Translator, s: Settings) -> None:
    scales = tuple(int(numbers(text, t.module)[0]) for text in s["scales"])
    levels = int(numbers(s["levels"], t.module)[0])
    if tables.in_whole_images(s["where"]):
        tables.texture(t, s["images"], scales, levels)
    if not in_objects(s["where"]):
        return
    images, objects = wanted(t, s)
    if images and objects:
        t.add(kinds.MeasureTexture(images, objects, tuple(dict.fromkeys(scales)), levels, module=t.by))


def skeleton(t: Translator, s: Settings) -> None:
    image = t.use(s["image"])
    for name in t.measured_sets([s["seeds"]]):
        size = int(numbers(s["hole_size"], t.module)[0])
        t.add(kinds.MeasureSkeleton(image, name, s["fill_holes"] == "Yes", size, module=t.by))


def calculate_math(t: Translator, s: Settings) -> None:
    operation = word("calculates", s["operation"], OPERATIONS)
    rounding = word("rounds", s["rounding"], ROUNDING)
    used = s["operands"][:1] if operation == "none" else s["operands"]
    names = []
    for kind, objects, measurement, *_ in used:
        names.append(t.set_of(objects) if kind == "Object" else "")
        if measurement not in (t.columns_of(objects) if kind == "Object" else t.measured | {tables.SITE}):
            raise Unsupported(f"calculates with {printable(measurement)}, which is not measured")
    value = {k: numbers(s[k], t.module)[0] for k in ("factor", "exponent", "addend", "lower", "upper", "digits")}
    t.add(
        kinds.CalculateMath(
            s["name"],
            operation,
            tuple(names),
            tuple(o[2] for o in used),
            tuple(numbers(o[3], t.module)[0] for o in used),
            tuple(numbers(o[4], t.module)[0] for o in used),
            s["log"] == "Yes",
            value["factor"],
            value["exponent"],
            value["addend"],
            value["lower"] if s["wants_lower"] == "Yes" else None,
            value["upper"] if s["wants_upper"] == "Yes" else None,
            rounding,
            int(value["digits"]),
            module=t.by,
        )
    )
    if not any(names):
        t.measured.add(f"Math_{s['name']}")


def classify(t: Translator, s: Settings) -> None:
    if not s["contrast"].startswith("Single"):
        raise Unsupported(f"classifies by {s['contrast']}")
    for g in s["groups"]:
        name, column = t.set_of(g["objects"]), g["measurement"]
        if column not in t.columns_of(name):
            raise Unsupported(f"classifies by {printable(column)}, which is not measured")
        if g["spacing"].startswith("Evenly"):
            low, high, n = (numbers(g[k], t.module)[0] for k in ("low", "high", "bins"))
            edges = [low + (high - low) * i / n for i in range(int(n) + 1)]
        else:
            parts = g["custom"].split(",")
            edges = [numbers(p, t.module)[0] for p in parts]
        edges = [*([-math.inf] if g["below"] == "Yes" else []), *edges, *([math.inf] if g["above"] == "Yes" else [])]
        if g["named"] == "Yes":
            names = [n.strip() for n in g["names"].split(",")]
        else:
            names = [f"{column}_Bin_{i}" for i in range(1, len(edges))]
        if len(names) != len(edges) - 1:
            raise Unsupported(f"{len(names)} names of {len(edges) - 1} bins")
        t.add(kinds.Classify(name, column, tuple(edges), tuple(names), module=t.by))
