"""A CellProfiler pipeline's modules as steps of ours, one for one, with a finding for what cannot be done.

Nothing is replaced by something like it: an image or object set that cannot be made is not made, and what needs it is named.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ..settings import steps as kinds
from . import of_filters, of_image_tables, of_images, of_measures, of_objects
from .findings import LEVELS, Cause, Finding, Source, Translated, Unsupported
from .functions import outputs_of, pruned, split
from .parse import Module, Pipeline, printable
from .rows import Settings
from .settings import ONCE, READERS, read_settings
from .sources import GROUPS, source_of
from .translator import KNOWN, Translator

LOADING = {"LoadData", "LoadImages", "Images", "Metadata", "NamesAndTypes", "Groups"}
BY_CELLPROFILER = "run this pipeline in CellProfiler, and give the other one the folder of what it saves by --images"
OUTPUT = re.compile(
    r"(Save|Export|Display|Overlay|GrayToColor|CreateBatch|CreateWebPage|DefineGrid|LabelImages|InvertFor|Tile)"
)


def translate(pipelines: Iterable[Pipeline]) -> Translated:
    """Pipelines that belong together (illumination, analysis); ValueError for a module whose settings cannot be read."""
    pipelines = list(pipelines)
    result = [read(p) for p in pipelines]
    functions: list[kinds.Step] = []
    steps: list[kinds.Step] = []
    for t in result:
        of_plate, of_fields = split(t.steps, t.saved)
        if (written := saved_images(t, of_fields)) and t is not result[-1]:
            text = f"saves images {listed(written)}, which a later pipeline may load; none are saved here: {BY_CELLPROFILER}"
            t.findings.append(Finding("labels", t.file, "SaveImages", 0, text))
        if of_plate and (finer := [g for g in t.groups if GROUPS.get(g.lower().replace("_", "")) != "plate"]):
            text = f"functions are made for each group of {', '.join(map(printable, finer))}; here one is made for the plate"
            t.findings.append(Finding("values", t.file, "Groups", 0, text))
        functions += of_plate
        steps += pruned(of_fields)
    if not (steps or functions) and (written := saved_images(result[-1], result[-1].steps)):
        text = f"only makes images {listed(written)}, and none are saved here: {BY_CELLPROFILER}"
        result[-1].findings.append(Finding("labels", result[-1].file, "SaveImages", 0, text))
    source = sources(pipelines, result)
    findings = [f for t in result for f in t.said()]
    loads = [s for s in (*functions, *steps) if isinstance(s, kinds.Load)]
    output = {s.channel for s in functions if isinstance(s, kinds.KeepFunction)}
    needed = dict.fromkeys(s.channel for s in loads if s.function)
    if absent := [c for c in needed if c not in output]:
        text = (
            f"loads functions of {', '.join(absent)} from files: give their folder by --illumination, or the pipeline that "
        )
        text += "makes them as another one; else they are estimated as CPJUMP1's were"
        findings.append(Finding("note", result[-1].file, "Pipeline", 0, text))
    order = {level: i for i, level in enumerate(LEVELS)}
    return Translated(
        tuple(steps),
        tuple(sorted({s.channel for s in loads if not s.function}, key=lambda c: (KNOWN.index(c) if c in KNOWN else 99, c))),
        tuple(needed),
        sorted(dict.fromkeys(findings), key=lambda f: order[f.level]),
        tuple(n for t in result for n, why in t.objects.items() if why is None),
        tuple(n for t in result for n, why in t.objects.items() if why is not None),
        tuple(functions),
        source,
    )


def saved_images(t: Translator, of_fields: Sequence[kinds.Step]) -> list[str]:
    """Images of single fields that a pipeline makes and saves to files, those by modules that are not imported too."""
    made = {name for step in of_fields if not isinstance(step, kinds.Load) for name in outputs_of(step)}
    return sorted(name for name in t.saved if name in made or t.images.get(name) is not None)


def listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def sources(pipelines: Sequence[Pipeline], translated: Sequence[Translator]) -> Source:
    """Where the images of pipelines are: the first one's rules that tell of every image that is loaded."""
    tables: list[str] = []
    for pipeline, t in zip(pipelines, translated, strict=True):
        loaded = {s.image: s.channel for s in t.steps if isinstance(s, kinds.Load) and not s.function}
        try:
            source = source_of(pipeline)
        except ValueError as error:
            t.findings.append(
                Finding("note", pipeline.file, "NamesAndTypes", 0, f"{error}; say in [plate] how files are named")
            )
            continue
        tables += [source.table] * bool(source.table)
        if loaded and loaded.keys() <= source.assign.keys():
            return replace(source, assign={channel: source.assign[image] for image, channel in loaded.items()})
    return Source(table=next(iter(tables), ""))


def read(pipeline: Pipeline) -> Translator:
    """A pipeline's modules; twice where one is of all loaded images, which only the last module shows."""
    first = read_modules(Translator(pipeline.file), pipeline)
    if not first.wants_loaded:
        return first
    loads = tuple(step for step in first.steps if isinstance(step, kinds.Load) and step.image not in first.label_images)
    return read_modules(Translator(pipeline.file, loaded=loads), pipeline)


def read_modules(t: Translator, pipeline: Pipeline) -> Translator:
    if pipeline.declared is not None:
        text = f"the file declares {pipeline.declared} modules and has {len(pipeline.modules)}; these are read"
        t.findings.append(Finding("note", t.file, "Pipeline", 0, text))
    t.flagged = dict.fromkeys(
        match[1]
        for module in pipeline.modules
        if module.name == "FlagImage" and module.enabled
        for value in module.values
        if (match := re.fullmatch(r"ImageQuality_[A-Za-z]+_(.+?)(_\d+|_\d[FB]?[WS])?", value))
    )
    if any(m.name == "LoadData" and m.enabled for m in pipeline.modules):
        t.made = {
            value for m in pipeline.modules for text, value in m.settings if re.match(r"(Name|Enter|Call|What) ", text)
        }
    for module in pipeline.modules:
        t.module = module
        name = ONCE.get(module.name, module.name)
        if not module.enabled:
            continue
        if name in HANDLERS:
            handle(t, HANDLERS[name], module)
        elif module.name in LOADING:
            load(t, module)
        else:
            unknown(t, module)
    return t


def handle(t: Translator, handler: Callable[[Translator, Settings], None], module: Module) -> None:
    """A module's handler; what it cannot honour makes its outputs unknown."""
    settings = read_settings(module)
    before = len(t.steps)
    try:
        handler(t, settings)
        for text, value in module.settings:  # pictures of outlines, of classes, of numbers of neighbours
            if re.match(r"(Name the .*|Enter the |Output )image", text) and value not in {"", "None", *t.images}:
                t.images[value] = Cause(module.name, module.number, f"its picture {printable(value)} is not made")
    except Unsupported as error:
        del t.steps[before:]
        cause = t.cause(error)
        if re.match(r"(Measure|Calculate|Classify|Relate)", module.name):
            t.unmeasured.setdefault(cause, []).append(module.number)
        elif module.name.startswith("Identify"):
            t.lose(settings["objects"], cause)
            if settings.get("discard_primary") == "Yes":
                t.lose(settings["new_primary"], cause)
        elif "sets" in settings:
            for _, name in settings["sets"]:
                t.lose(name, cause)
        elif HANDLERS[ONCE.get(module.name, module.name)] in MAKE_OBJECTS:
            t.lose(settings["output"], cause)
        elif "output" in settings:
            t.images[settings["output"]] = cause
        for _, name in settings.get("planes", ()):
            t.images[name] = cause
        if settings.get("save") == "Yes":
            t.lose(settings["saved"], cause)


def load(t: Translator, module: Module) -> None:
    if module.named("Process as 3D") == ["Yes"]:
        t.say("labels", "processes volumes; here a field is one plane")
    if module.named("Do you want to group your images?") == ["Yes"]:
        t.groups = [c for c in module.named("Metadata category") if c not in ("", "None")]
    if module.named("Group images by metadata?") == ["Yes"]:
        t.groups = [c.strip() for text in module.named("Select metadata tags") for c in text.split(",") if c.strip()]
    if module.named("Process just a range of rows") == ["Yes"]:
        t.say("note", "takes a range of rows; choose wells and sites by --wells and --sites")
    if module.name == "LoadImages":
        load_images(t, module)
    if module.name == "LoadData" and module.named("Rescale intensities") == ["No"]:
        t.say("labels", "intensities are not rescaled; here they are counts over the highest of their type")
    scales = set(module.named("Set intensity range from")) - {"Image metadata", "Image bit-depth", "Yes"}
    if module.name == "NamesAndTypes" and scales:
        t.say("labels", f"intensity range from {', '.join(map(printable, sorted(scales)))}")
    if module.name == "NamesAndTypes":
        named = [module.named(f"Name to assign these {kind}") for kind in ("images", "objects")]
        of_rules = len(named[1])  # before them stands what all images would be, were there no rules
        kinds_of = module.named("Select the image type")[-of_rules or None :]
        for kind, image, objects in zip(kinds_of, named[0][-of_rules or None :], named[1], strict=False):
            if kind == "Objects":
                t.load_objects(objects, "gapless")
            else:
                t.declared.append(image)


def load_images(t: Translator, module: Module) -> None:
    """CellProfiler 2's LoadImages: images of single files, by name; how its files are named says [plate]."""
    kinds_of = [*module.named("Load the input as images or objects"), *["Images"] * len(module.settings)]
    for name, kind in zip(module.named("Name this loaded image"), kinds_of, strict=False):
        t.declared += [name] * (kind == "Images")
    for kind in set(module.named("File type to be loaded")) - {"individual images"}:
        t.say("labels", f"loads {printable(kind)}; here a field is one plane of a file")
    if "No" in module.named("Rescale intensities"):
        t.say("labels", "intensities are not rescaled; here they are counts over the highest of their type")
    t.say("note", f"loads {listed(t.declared)}; its rules for file names are not read, say in [plate] how files are named")


def unknown(t: Translator, module: Module) -> None:
    """A module that is not imported: its images and objects are unknown."""
    if module.name == "SaveImages":
        t.saved |= set(module.named("Select the image to save"))
    if OUTPUT.match(module.name):
        t.say("output", "writes or shows things, which is left to this program's own output")
    makes_objects = False
    for text, value in module.settings:
        if re.match(r"(Name the .*image|Image name|Enter .*image name)", text) and value not in ("", "None"):
            t.images[value] = Cause(module.name, module.number, "is not among the modules that are imported")
        if re.match(r"Name the .*objects?$", text) and value not in ("", "None") and not OUTPUT.match(module.name):
            t.lose(value, Cause(module.name, module.number, "is not among the modules that are imported"))
            makes_objects = True
    if (
        not makes_objects
        and not re.match(r"(Measure|Calculate|Classify|Track)", module.name)
        and not OUTPUT.match(module.name)
    ):
        t.say("note", "is not among the modules that are imported; what needs its output is named above")
    if re.match(r"(Measure|Calculate|Classify|Track)", module.name):
        image_level = module.name.startswith(("MeasureImage", "MeasureObjectOverlap", "CalculateStatistics"))
        t.say("image tables" if image_level else "columns", "is not among the modules that are imported")


HANDLERS: dict[str, Callable[[Translator, Settings], None]] = {
    "CorrectIlluminationApply": of_images.illuminate,
    "CorrectIlluminationCalculate": of_images.calculate,
    "Resize": of_images.resize,
    "ColorToGray": of_images.color_to_gray,
    "ImageMath": of_images.image_math,
    "Smooth": of_images.smooth,
    "EnhanceOrSuppressFeatures": of_images.enhance,
    "Crop": of_images.crop,
    "MaskImage": of_images.mask_image,
    "Threshold": of_images.threshold,
    "MorphologicalSkeleton": of_images.skeletonize,
    "Morph": of_filters.morph,
    "Opening": of_filters.filtered("opening"),
    "Closing": of_filters.filtered("closing"),
    "ErodeImage": of_filters.filtered("erosion"),
    "DilateImage": of_filters.filtered("dilation"),
    "GaussianFilter": of_filters.filtered("gaussian"),
    "MedianFilter": of_filters.filtered("median"),
    "ReduceNoise": of_filters.reduce_noise,
    "RemoveHoles": of_filters.filtered("remove_holes"),
    "RescaleIntensity": of_filters.rescale,
    "EnhanceEdges": of_filters.edges,
    "ErodeObjects": of_filters.reshaped("erosion"),
    "DilateObjects": of_filters.reshaped("dilation"),
    "FillObjects": of_filters.reshaped("fill_holes"),
    "ShrinkToObjectCenters": of_filters.reshaped("centers"),
    "ConvertImageToObjects": of_filters.image_to_objects,
    "ConvertObjectsToImage": of_images.objects_to_image,
    "IdentifyPrimaryObjects": of_objects.primary,
    "IdentifySecondaryObjects": of_objects.secondary,
    "IdentifyTertiaryObjects": of_objects.tertiary,
    "FilterObjects": of_objects.filter_objects,
    "ExpandOrShrinkObjects": of_objects.expand,
    "MaskObjects": of_objects.mask_objects,
    "RelateObjects": of_objects.relate,
    "ResizeObjects": of_objects.resize_objects,
    "SplitOrMergeObjects": of_objects.regroup,
    "Watershed": of_objects.watershed,
    "MeasureColocalization": of_measures.colocalization,
    "MeasureGranularity": of_measures.granularity,
    "MeasureObjectIntensity": of_measures.intensity,
    "MeasureObjectSizeShape": of_measures.shape,
    "MeasureObjectNeighbors": of_measures.neighbors,
    "MeasureObjectIntensityDistribution": of_measures.distribution,
    "MeasureTexture": of_measures.texture,
    "MeasureObjectSkeleton": of_measures.skeleton,
    "MeasureImageIntensity": of_image_tables.intensity,
    "MeasureImageQuality": of_image_tables.quality,
    "MeasureImageAreaOccupied": of_image_tables.area,
    "MeasureImageSkeleton": of_image_tables.image_skeleton,
    "MeasureObjectOverlap": of_image_tables.overlap("objects"),
    "MeasureImageOverlap": of_image_tables.overlap("images"),
    "FlagImage": of_image_tables.flag,
    "CalculateMath": of_measures.calculate_math,
    "ClassifyObjects": of_measures.classify,
}
MAKE_OBJECTS = [
    HANDLERS[name]
    for name in (
        *("ExpandOrShrinkObjects", "MaskObjects", "ErodeObjects", "DilateObjects", "FillObjects"),
        *("ShrinkToObjectCenters", "ConvertImageToObjects", "ResizeObjects", "SplitOrMergeObjects", "Watershed"),
    )
]
assert set(HANDLERS) == set(READERS)
