"""Modules that measure whole images, and FlagImage, as steps."""

import math
import re
from collections.abc import Callable, Sequence

from ..settings import object_steps, table_steps
from ..settings import steps as kinds
from .findings import Unsupported
from .parse import printable
from .rows import Settings, numbers
from .translator import Translator

METHODS = ("Otsu", "MoG", "Background", "RobustBackground", "RidlerCalvard", "Kapur", "MCT")
ALL_METHODS = (  # of "Use all thresholding methods?"
    *("Otsu_3FW", "Otsu_3BW", "Otsu_3FS", "Otsu_3BS", "Otsu_2W", "Otsu_2S", "MoG_5", "MoG_25", "MoG_75", "MoG_95"),
    *("MCT", "Background", "RobustBackground", "RidlerCalvard", "Kapur"),
)
INTENSITY = ("TotalArea", *kinds.IMAGE_INTENSITY[:7])
SOURCES = {
    "Whole-image measurement": "image",
    "Average measurement for all objects in each image": "average",
    "Measurements for all objects in each image": "all",
}
SITE = "Metadata_Site"  # the one of an image's metadata that is a number here too
OVERLAP = (
    *("Ffactor", "Precision", "Recall", "TruePosRate", "FalsePosRate", "TrueNegRate", "FalseNegRate", "RandIndex"),
    "AdjustedRandIndex",
)
WHOLE = ("Across entire image", "Images", "Both")


def images_of(t: Translator, names: Sequence[str], masked: bool = True) -> tuple[str, ...]:
    """Those of the images that there are; a finding for each other. `masked`: whether masked ones can be measured."""
    result = []
    for name in names:
        try:
            result.append(t.use(name))
        except Unsupported as error:
            t.say("image tables", str(error.cause or error) + f"; image {printable(name)} is not measured")
    if not masked and (wrong := [n for n in result if n in t.masked]):
        t.say("image tables", f"image {', '.join(map(printable, wrong))} is masked, and so is not measured here")
        result = [n for n in result if n not in wrong]
    return tuple(result)


def derived_of_masked(t: Translator) -> set[str]:
    """Object sets made from others of a masked image, of which it is not known which pixels count."""
    images, masked, result = t.masked, set(), set()
    for step in t.steps:
        if isinstance(step, kinds.Primary | kinds.Secondary):
            masked |= {step.objects} if step.image in images else set()
        elif isinstance(step, kinds.Filter):
            pairs = list(zip((step.objects, *step.others), (step.output, *step.other_outputs), strict=True))
            masked |= {output for name, output in pairs if name in masked}
            result |= {output for name, output in pairs if name in result}
        elif isinstance(step, kinds.Tertiary | kinds.Expand | kinds.Relate):
            sources = {getattr(step, k, "") for k in ("larger", "smaller", "objects", "child")}
            outputs = {getattr(step, k, "") for k in ("output", "saved")} | (
                {step.objects} if isinstance(step, kinds.Tertiary) else set()
            )
            result |= outputs if sources & (masked | result) else set()
    return result - {""}


def in_whole_images(where: str) -> bool:
    """Whether a module that may measure images, objects or both measures images."""
    return where in WHOLE


def colocalization(t: Translator, names: Sequence[str], percent: float, metrics: Sequence[str], mode: str) -> None:
    images = images_of(t, names)
    if len(images) > 1 and metrics:
        t.add(table_steps.MeasureImageCorrelation(images, percent, tuple(metrics), mode, module=t.by))
        t.measured |= {f"Correlation_{m}_{a}_{b}" for m in PAIRS for a in images for b in images if a != b}


PAIRS = ("Correlation", "Slope", "Overlap", "K", "Manders", "RWC", "Costes")


def granularity(t: Translator, names: Sequence[str], settings: tuple[float, float, int, int]) -> None:
    images = images_of(t, names, masked=False)
    if images:
        t.add(table_steps.MeasureImageGranularity(images, *settings, module=t.by))
        t.measured |= {f"Granularity_{k}_{i}" for k in range(1, settings[3] + 1) for i in images}


def texture(t: Translator, names: Sequence[str], scales: Sequence[int], levels: int) -> None:
    images = images_of(t, names)
    if images:
        t.add(table_steps.MeasureImageTexture(images, tuple(dict.fromkeys(scales)), levels, module=t.by))


def intensity(t: Translator, s: Settings) -> None:
    """Of older revisions CellProfiler 4 makes one list of images and one of objects; several objects come in no order."""
    runs = s["runs"]
    names = list(dict.fromkeys(n for images, _, _ in runs for n in images))
    objects: list[str] = []
    if any(inside for _, inside, _ in runs):
        for name in dict.fromkeys(o for _, _, of in runs for o in of):
            try:
                objects.append(t.set_of(name))
            except Unsupported as error:
                t.say("image tables", f"{error.cause or error}; images are not measured within {printable(name)}")
                return
        if not objects:
            return  # CellProfiler measures nothing
    percentiles = percentiles_of(s) if s["percentiles"] in ("Yes", "True") else ()
    for name in images_of(t, names):
        t.add(kinds.MeasureImageIntensity(name, tuple(objects), percentiles, module=t.by))
        measures = (*kinds.IMAGE_INTENSITY, *(f"Percentile_{p}" for p in percentiles))
        places = ["_".join([name, *objects[:k]]) for k in range(1, len(objects) + 1)] or [name]
        t.measured |= {f"Intensity_{m}_{place}" for m in measures for place in places}


def percentiles_of(s: Settings) -> tuple[int, ...]:
    parts = [p.strip() for p in s["which"].split(",")]
    return tuple(sorted({int(p) for p in parts if re.fullmatch(r"\d{1,3}", p, re.ASCII) and int(p) <= 100}))


def quality(t: Translator, s: Settings) -> None:
    if s["all_images"]:
        t.wants_loaded = True
        names = load_all(t)
        s["groups"] = [g | {"images": names} for g in s["groups"][:1]]
        if not names:
            t.say("image tables", "is of all loaded images, which no other module names; none is measured")
        elif not t.declared:
            t.say("note", "is of all loaded images; one that no other module uses is not loaded here, and so not measured")
            if unused := functions_beside(t.loaded):
                listed = ", ".join(map(printable, unused))
                t.say(
                    "image tables", f"is of all loaded images, and so of {listed}, if it is loaded; it is not measured here"
                )
    for group in s["groups"]:
        images = images_of(t, group["images"], masked=False)
        yes = {k: group[k] == "Yes" for k in ("scaling", "blur", "saturation", "intensity", "thresholds")}
        scales = tuple(int(numbers(text, t.module)[0]) for text in group["scales"]) if yes["blur"] else ()
        methods = methods_of(group) if yes["thresholds"] else ()
        if not images:
            continue
        wanted = yes["scaling"], tuple(dict.fromkeys(scales)), yes["saturation"], yes["intensity"], methods
        t.add(table_steps.MeasureImageQuality(images, *wanted, module=t.by))
        t.measured |= {f"ImageQuality_{name.format(i)}" for i in images for name in quality_names(*wanted)}


def functions_beside(loaded: Sequence[kinds.Load]) -> list[str]:
    """Functions that LoadData probably loads though no module uses them: of loaded images whose own is not used,
    where others' are, under like names (`IllumER` beside `IllumDNA` of OrigDNA)."""
    stems = {step.image.removeprefix("Orig") for step in loaded if not step.function}
    functions = {step.image for step in loaded if step.function}
    own = {f"Illum{stem}" for stem in stems}
    return sorted(own - functions) if own & functions else []


def load_all(t: Translator) -> list[str]:
    """The images that the pipeline loads: those that NamesAndTypes names; of LoadData those that a module uses or flags."""
    for step in t.loaded:
        if step.image not in t.images:
            t.images[step.image] = None
            if step.function:
                t.functions.add(step.image)
            else:
                t.channels.setdefault(step.image, step.channel)
            t.add(step)
    names = [step.image for step in t.loaded]
    return names + [t.use(n) for n in t.declared or t.flagged if n not in names]


def quality_names(
    scaling: bool, scales: Sequence[int], saturation: bool, intensity: bool, methods: Sequence[str]
) -> list[str]:
    """Names of MeasureImageQuality's measurements after its own, `{}` for the image's."""
    names = ["Scaling_{}"] * scaling
    if scales:
        names += ["FocusScore_{}", "PowerLogLogSlope_{}"]
        names += [f"{m}_{{}}_{s}" for m in ("LocalFocusScore", "Correlation") for s in scales]
    names += ["PercentMaximal_{}", "PercentMinimal_{}"] * saturation
    names += [f"{m}_{{}}" for m in INTENSITY] * intensity
    for method in methods:
        name, _, variant = method.partition("_")
        names.append(f"Threshold{name}_{{}}" + f"_{variant}" * bool(variant))
    return names


def methods_of(group: Settings) -> tuple[str, ...]:
    if group["all_methods"] == "Yes":
        return ALL_METHODS
    result = []
    for method, fraction, classes, measure, middle in group["variants"]:
        name = method.split(" ")[0]
        if name not in METHODS:
            raise Unsupported(f"threshold by {printable(method)}")
        if name == "Otsu":
            two = classes == "Two classes"
            name += f"_{'2' if two else '3'}{'' if two else middle[:1]}{'W' if measure.startswith('Weighted') else 'S'}"
        elif name == "MoG":
            name += f"_{int(float(fraction) * 100)}"
        result.append(name)
    return tuple(dict.fromkeys(result))


def area(t: Translator, s: Settings) -> None:
    images = images_of(t, s["images"], masked=False)
    objects = []
    for name in s["objects"]:
        try:
            objects.append(t.set_of(name))
        except Unsupported as error:
            t.say("image tables", f"{error.cause or error}; its area is not measured")
    if wrong := sorted(derived_of_masked(t) & set(objects)):
        t.say(
            "image tables", f"objects {', '.join(map(printable, wrong))} come of a masked image; their area is not measured"
        )
        objects = [name for name in objects if name not in wrong]
    if images or objects:
        t.add(table_steps.MeasureAreaOccupied(tuple(objects), images, module=t.by))
        t.measured |= {
            f"AreaOccupied_{m}_{n}" for m in ("AreaOccupied", "Perimeter", "TotalArea") for n in (*objects, *images)
        }


def image_skeleton(t: Translator, s: Settings) -> None:
    for name in images_of(t, [s["image"]]):
        t.add(object_steps.MeasureImageSkeleton(name, module=t.by))
        t.measured |= {f"Skeleton_{m}_{name}" for m in ("Branches", "Endpoints")}


def overlap(of: str) -> Callable[[Translator, Settings], None]:
    """MeasureObjectOverlap or MeasureImageOverlap."""

    def handler(t: Translator, s: Settings) -> None:
        if s["distance"] in ("Yes", "True"):
            t.say("image tables", "the earth mover's distance is not measured")
        try:
            truth, test = ((t.set_of if of == "objects" else t.use)(s[k]) for k in ("truth", "test"))
        except Unsupported as error:
            t.say("image tables", f"{error.cause or error}; the overlap is not measured")
            return
        t.add(object_steps.MeasureOverlap(truth, test, of, module=t.by))
        place = f"{truth}_{test}" if of == "objects" else test
        t.measured |= {f"Overlap_{m}_{place}" for m in OVERLAP}

    return handler


def flag(t: Translator, s: Settings) -> None:
    for f in s["flags"]:
        name, skip = f"{f['category']}_{f['name']}", f["skip"] in ("Yes", "True")
        try:
            step = flag_step(t, name, f, skip)
        except Unsupported as error:
            text = f"flag {printable(name)}: {error}"
            t.say("labels" if skip else "image tables", text + "; here no site is skipped by it" * skip)
            continue
        if skip and s["ignore_last"] in ("Yes", "True"):
            t.say(
                "note",
                f"flag {printable(name)} spares a group's last image in CellProfiler; here every flagged site is skipped",
            )
        t.add(step)
        t.measured.add(name)


def flag_step(t: Translator, name: str, f: Settings, skip: bool) -> table_steps.Flag:
    rows = []
    for m in f["measurements"]:
        if m["source"] not in SOURCES:
            raise Unsupported(f"by {printable(m['source'])}, whose file is not read")
        source, objects = SOURCES[m["source"]], ""
        if source == "image" and m["measurement"] not in t.measured | {SITE}:
            raise Unsupported(f"by {printable(m['measurement'])}, which is not measured")
        if source != "image":
            objects = t.set_of(m["objects"])
            if m["measurement"] not in t.columns_of(objects):
                raise Unsupported(f"by {printable(m['measurement'])} of {printable(objects)}, which is not measured")
        low = numbers(m["minimum"], t.module)[0] if m["wants_minimum"] == "Yes" else -math.inf
        high = numbers(m["maximum"], t.module)[0] if m["wants_maximum"] == "Yes" else math.inf
        rows.append((m["measurement"], source, objects, low, high))
    measurements, sources, sets, lowest, highest = zip(*rows, strict=True)
    return table_steps.Flag(name, measurements, sources, sets, lowest, highest, "any" in f["linked"], skip, module=t.by)
