"""A CellProfiler pipeline's modules as steps of ours, one for one, with a finding for what cannot be done.

Nothing is replaced by something like it: an image or object set that cannot be made is not made, and what needs it is named.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..settings import steps as kinds
from ..settings.config import PrimarySettings, SecondarySettings, ThresholdSettings
from ..settings.names import BRIGHTFIELD, CHANNELS
from .parse import Module, Pipeline, printable
from .settings import ONCE, READERS, Settings, numbers, read_settings

LEVELS = ("labels", "values", "columns", "image tables", "output", "note")
LOADING = {"LoadData", "Images", "Metadata", "NamesAndTypes", "Groups"}
OUTPUT = re.compile(
    r"(Save|Export|Display|Overlay|GrayToColor|CreateBatch|CreateWebPage|DefineGrid|LabelImages|InvertFor|Tile)"
)
KNOWN = (*CHANNELS, *BRIGHTFIELD)
DECLUMP = {"Shape": "shape", "Intensity": "intensity", "None": "none"}
HOLES = {"Never": "never", "After declumping only": "after_declump", "After both thresholding and declumping": "both"}
SECONDARY = {
    "Watershed - Image": "watershed",
    "Watershed - Gradient": "watershed_gradient",
    "Propagation": "propagation",
    "Distance - N": "distance",
    "Distance - B": "distance_b",
}
THRESHOLDS = {
    "Minimum Cross-Entropy": "minimum_cross_entropy",
    "Otsu": "otsu2",
    "Robust Background": "robust_background",
    "Manual": "manual",
}
BASIC = {  # what CellProfiler takes where "Use advanced settings?" is No
    "declump": "Intensity",
    "lines": "Intensity",
    "low_resolution": "Yes",
    "fill_holes": "After both thresholding and declumping",
    "auto_suppression": "Yes",
    "limit": "Continue",
}
BASIC_THRESHOLD = {"strategy": "Global", "method": "Minimum Cross-Entropy", "log": "No", "smoothing": "1.3488"}
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
ZERNIKE = {"None": None, "Magnitudes only": False, "Magnitudes and phase": True}
NO_LIMIT = 99_999  # what "no upper limit" is stored as


@dataclass(frozen=True)
class Finding:
    """A line of what is not the same. `number` is the module's in `file`; 0 for the pipeline as a whole."""

    level: str
    file: str
    module: str
    number: int
    text: str


@dataclass
class Translated:
    """Steps, and findings in the order of LEVELS. `channels`: of the images that the steps load, `functions`: of functions.

    `stains` says how the pipeline calls what a channel shows. `missing`: object sets that cannot be made.
    """

    steps: tuple[kinds.Step, ...]
    channels: tuple[str, ...]
    functions: tuple[str, ...]
    findings: list[Finding]
    objects: tuple[str, ...]
    missing: tuple[str, ...]

    def of_level(self, *levels: str) -> list[Finding]:
        return [f for f in self.findings if f.level in levels]

    @property
    def verdict(self) -> dict[str, str]:
        """How labels, object columns and image tables come out beside CellProfiler's."""
        result = {f.level for f in self.findings}
        labels = "refused" if self.missing or not self.steps else "differ" if "labels" in result else "equal"
        columns = (
            "missing"
            if "columns" in result or labels == "refused"
            else "differ"
            if result & {"values", "labels"}
            else "equal"
        )
        return {"labels": labels, "columns": columns, "image_tables": "missing" if "image tables" in result else "equal"}


@dataclass(frozen=True)
class Cause:
    """Why something cannot be made: the module that cannot be honoured, and what of it."""

    module: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.module} (module {self.number}): {self.text}"


class Unsupported(ValueError):
    """A setting of a module that cannot be honoured; the text says which. `cause`: an earlier module's, on which it
    hangs."""

    def __init__(self, text: str, cause: Cause | None = None):
        super().__init__(text)
        self.cause = cause


def translate(pipelines: Iterable[Pipeline]) -> Translated:
    """Pipelines that belong together (illumination, analysis); ValueError for a module whose settings cannot be read."""
    result = [Translator(p.file).read(p) for p in pipelines]
    steps = [s for t in result for s in t.kept()]
    findings = [f for t in result for f in t.said()]
    loads = [s for s in steps if isinstance(s, kinds.Load)]
    order = {level: i for i, level in enumerate(LEVELS)}
    return Translated(
        tuple(steps),
        tuple(sorted({s.channel for s in loads if not s.function}, key=lambda c: (KNOWN.index(c) if c in KNOWN else 99, c))),
        tuple(dict.fromkeys(s.channel for s in loads if s.function)),
        sorted(dict.fromkeys(findings), key=lambda f: order[f.level]),
        tuple(n for t in result for n, why in t.objects.items() if why is None),
        tuple(n for t in result for n, why in t.objects.items() if why is not None),
    )


@dataclass
class Translator:
    """What is known so far, module after module. An image or object set that cannot be made stands with the reason."""

    file: str
    images: dict[str, Cause | None] = field(default_factory=dict)
    objects: dict[str, Cause | None] = field(default_factory=dict)
    lost: dict[Cause, list[str]] = field(default_factory=dict)  # object sets that hang on it
    unmeasured: dict[Cause, list[int]] = field(default_factory=dict)  # modules that measure what hangs on it
    steps: list[kinds.Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    channels: dict[str, str] = field(default_factory=dict)  # loaded image -> channel
    functions: set[str] = field(default_factory=set)  # images that are loaded functions
    own_background: dict[str, str] = field(default_factory=dict)  # background -> image
    measured: set[str] = field(default_factory=set)  # image measurements
    module: Module | None = None

    def read(self, pipeline: Pipeline) -> "Translator":
        if pipeline.declared is not None:
            text = f"the file declares {pipeline.declared} modules and has {len(pipeline.modules)}; these are read"
            self.findings.append(Finding("note", self.file, "Pipeline", 0, text))
        for module in pipeline.modules:
            self.module = module
            name = ONCE.get(module.name, module.name)
            if not module.enabled:
                continue
            if name in HANDLERS:
                self.handle(HANDLERS[name], module)
            elif module.name in LOADING:
                self.load(module)
            else:
                self.unknown(module)
        return self

    def handle(self, handler: Callable[["Translator", Settings], None], module: Module) -> None:
        """A module's handler; what it cannot honour makes its outputs unknown."""
        settings = read_settings(module)
        before = len(self.steps)
        try:
            handler(self, settings)
        except Unsupported as error:
            del self.steps[before:]
            cause = self.cause(error)
            if re.match(r"(Measure|Calculate|Classify|Relate)", module.name):
                self.unmeasured.setdefault(cause, []).append(module.number)
            elif module.name.startswith("Identify"):
                self.lose(settings["objects"], cause)
                if settings.get("discard_primary") == "Yes":
                    self.lose(settings["new_primary"], cause)
            elif "sets" in settings:
                for _, name in settings["sets"]:
                    self.lose(name, cause)
            elif ONCE.get(module.name, module.name) == "ExpandOrShrinkObjects":
                self.lose(settings["output"], cause)
            elif "output" in settings:
                self.images[settings["output"]] = cause
            if settings.get("save") == "Yes":
                self.lose(settings["saved"], cause)

    def cause(self, error: Unsupported) -> Cause:
        assert self.module is not None
        return error.cause or Cause(self.module.name, self.module.number, str(error))

    def lose(self, name: str, cause: Cause) -> None:
        """An object set that cannot be made; said once, however many sets hang on it."""
        self.objects[name] = cause
        self.lost.setdefault(cause, []).append(name)

    def said(self) -> list[Finding]:
        """Every finding, with one for each cause of what is not made or not measured."""
        result = list(self.findings)
        for cause in dict.fromkeys([*self.lost, *self.unmeasured]):
            names, modules = self.lost.get(cause, []), sorted(set(self.unmeasured.get(cause, [])) - {cause.number})
            text = cause.text
            if names:
                text += f"; so objects {', '.join(map(printable, dict.fromkeys(names)))} are not made"
            if modules:
                listed = f"module{'s' * (len(modules) > 1)} {', '.join(map(str, modules))}"
                text += f"; {listed} measure{'s' * (len(modules) == 1)} what is missing"
            result.append(Finding("labels" if names else "columns", self.file, cause.module, cause.number, text))
        return result

    def say(self, level: str, text: str) -> None:
        module = self.module
        assert module is not None
        self.findings.append(Finding(level, self.file, module.name, module.number, text))

    def add(self, step: kinds.Step) -> None:
        self.steps.append(step)

    @property
    def by(self) -> str:
        return str(self.module)

    # Images

    def use(self, name: str) -> str:
        """An image that a step reads: loads it, or says why it is not to be had."""
        if name in self.images:
            if (cause := self.images[name]) is not None:
                raise Unsupported(f"image {printable(name)} is not made", cause)
            return name
        self.images[name] = None
        self.add(kinds.Load(name, self.channel(name)))
        return name

    def channel(self, name: str) -> str:
        """The channel that a loaded image shows."""
        if name not in self.channels:
            channel = re.sub(r"[^A-Za-z0-9]", "", bare(name)) or "Image"
            channel = next((c for c in KNOWN if c.lower() == channel.lower()), channel)
            channel = channel if channel[0].isalpha() else f"C{channel}"
            if channel in self.channels.values():  # two images of one stem
                channel = re.sub(r"[^A-Za-z0-9]", "", name)
            if channel in self.channels.values() or not channel.isascii():
                raise ValueError(f"{self.by}: image {printable(name)} cannot name a channel; rename it")
            self.channels[name] = channel
        return self.channels[name]

    def function(self, name: str, image: str) -> str:
        """An illumination function that is loaded: of the channel in its own name."""
        if name in self.images:
            return self.use(name)
        stem = re.sub(r"^(Illum|illum)_?", "", name)
        own = next((c for c in self.channels.values() if c.lower() == re.sub(r"[^A-Za-z0-9]", "", bare(stem)).lower()), None)
        channel = own or (self.channels.get(image) if stem == name else self.channel_of_stem(stem))
        if channel is None:
            raise Unsupported(f"function {printable(name)} is of no image that is loaded")
        self.images[name] = None
        self.functions.add(name)
        self.add(kinds.Load(name, channel, function=True))
        return name

    def channel_of_stem(self, stem: str) -> str:
        channel = re.sub(r"[^A-Za-z0-9]", "", bare(stem))
        return next((c for c in KNOWN if c.lower() == channel.lower()), channel)

    def make(self, name: str, step: kinds.Step) -> None:
        self.images[name] = None
        self.add(step)

    # Objects

    def set_of(self, name: str) -> str:
        if name not in self.objects:
            raise Unsupported(f"objects {printable(name)} are loaded or made by a module that is not imported")
        if (cause := self.objects[name]) is not None:
            raise Unsupported(f"objects {printable(name)} are not made", cause)
        return name

    def measured_sets(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the object sets that there are; a finding for each other."""
        result = []
        for name in names:
            try:
                result.append(self.set_of(name))
            except Unsupported as error:
                assert self.module is not None
                self.unmeasured.setdefault(self.cause(error), []).append(self.module.number)
        return tuple(result)

    def measured_images(self, names: Sequence[str]) -> tuple[str, ...]:
        result = []
        for name in names:
            try:
                result.append(self.use(name))
            except Unsupported as error:
                assert self.module is not None
                self.unmeasured.setdefault(self.cause(error), []).append(self.module.number)
        return tuple(result)

    # Modules

    def load(self, module: Module) -> None:
        if module.named("Process as 3D") == ["Yes"]:
            self.say("labels", "processes volumes; here a field is one plane")
        if module.named("Process just a range of rows") == ["Yes"]:
            self.say("note", "takes a range of rows; choose wells and sites by --wells and --sites")
        if module.name == "LoadData" and module.named("Rescale intensities") == ["No"]:
            self.say("labels", "intensities are not rescaled; here they are counts over the highest of their type")
        scales = set(module.named("Set intensity range from")) - {"Image metadata", "Image bit-depth", "Yes"}
        if module.name == "NamesAndTypes" and scales:
            self.say("labels", f"intensity range from {', '.join(map(printable, sorted(scales)))}")
        if module.name == "NamesAndTypes":
            kinds_of = module.named("Select the image type")
            for kind, name in zip(kinds_of, module.named("Name to assign these objects"), strict=False):
                if kind == "Objects":
                    self.lose(name, Cause(module.name, module.number, "loads objects"))

    def unknown(self, module: Module) -> None:
        """A module that is not imported: its images and objects are unknown."""
        if OUTPUT.match(module.name):
            self.say("output", "writes or shows things, which is left to this program's own output")
        for text, value in module.settings:
            if text.startswith(("Name the output image", "Name the filtered image", "Name the resized image")) and value:
                self.images[value] = Cause(module.name, module.number, "is not among the modules that are imported")
            if (
                re.match(r"Name the (output|new|filtered|.*) objects", text)
                and value not in ("", "None")
                and not OUTPUT.match(module.name)
            ):
                self.lose(value, Cause(module.name, module.number, "is not among the modules that are imported"))
        if re.match(r"(Measure|Calculate|Classify|Track)", module.name):
            image_level = module.name.startswith("MeasureImage") or module.name == "CalculateStatistics"
            self.say("image tables" if image_level else "columns", "is not among the modules that are imported")

    def illuminate(self, s: Settings) -> None:
        if s["rescaled"]:
            self.say("note", "rescales corrected images, which CellProfiler 4 does not")
        for name, output, function, how in s["images"]:
            try:
                image = self.use(name)
                if function in self.own_background:
                    self.subtract_background(image, output, function, how, s)
                    continue
                by = self.function(function, name)
                low, high = s["low"] in ("Yes", "True"), s["high"] in ("Yes", "True")
                self.make(output, kinds.Illuminate(image, by, output, how.lower(), low, high, module=self.by))
            except Unsupported as error:
                self.images[output] = self.cause(error)

    def subtract_background(self, image: str, output: str, function: str, how: str, s: Settings) -> None:
        if how != "Subtract" or self.own_background[function] != image or "No" in (s["low"], s["high"]):
            raise Unsupported(f"{how.lower()}s a background otherwise than from its own image, clipped")
        self.make(output, kinds.Illuminate(image, function, output, "subtract", module=self.by))

    def calculate(self, s: Settings) -> None:
        if s["kind"] == "Background" and s["each"] == "Each":
            size = filter_size(self.module, s)
            right = s["method"] == "Gaussian Filter" and s["rescale"] == "No" and size is not None and s["dilate"] == "No"
            if right and size is not None:
                image, block = self.use(s["image"]), int(numbers(s["block"], self.module)[0])
                self.own_background[s["output"]] = image
                self.make(s["output"], kinds.Background(image, s["output"], block, size, module=self.by))
                return
        raise Unsupported(f"calculates {s['kind']} from {s['each']} by {s['method']}")

    def image_math(self, s: Settings) -> None:
        operation = OPERATIONS.get(s["operation"])
        if operation is None:
            raise Unsupported(f"operation {printable(s['operation'])}")
        operands = s["operands"][:1] if operation in SINGLE else s["operands"]
        images, measurements, factors = [], [], []
        for kind, image, factor, measurement in operands:
            if kind == "Image":
                images.append(self.use(image))
                measurements.append("")
            else:
                if measurement not in self.measured:
                    raise Unsupported(f"measurement {printable(measurement)} is not made")
                images.append("")
                measurements.append(measurement)
            factors.append(numbers(factor, self.module)[0])
        if not images[0]:
            raise Unsupported("begins with a measurement")
        exponent, factor, addend = (numbers(s[k], self.module)[0] for k in ("exponent", "factor", "addend"))
        yes = {k: s[k] in ("Yes", "True") for k in ("low", "high", "replace_nan", "ignore_mask")}
        if yes["ignore_mask"]:
            raise Unsupported("ignores masks")
        self.make(
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
                module=self.by,
            ),
        )

    def smooth(self, s: Settings) -> None:
        if s["method"] != "Gaussian Filter":
            raise Unsupported(f"smooths by {printable(s['method'])}")
        size = None if s["auto"] == "Yes" else numbers(s["size"], self.module)[0]
        self.make(s["output"], kinds.Smooth(self.use(s["image"]), s["output"], "gaussian", size, module=self.by))

    def enhance(self, s: Settings) -> None:
        image, size = self.use(s["image"]), numbers(s["size"], self.module)[0]
        common: dict[str, Any] = {"image": image, "output": s["output"], "module": self.by}
        if s["operation"] == "Suppress" or s["feature"] == "Speckles":
            if size % 2 or size < 2 or size > 256:
                raise Unsupported(f"a size of {size:g}; here 2 to 256, even")
            feature = "suppress" if s["operation"] == "Suppress" else "speckles"
            self.make(s["output"], kinds.Enhance(feature=feature, size=size, **common))
        elif s["feature"] == "Neurites" and s["neurites"] == "Tubeness":
            sigma = numbers(s["smoothing"], self.module)[0]
            self.make(s["output"], kinds.Enhance(feature="tubeness", sigma=sigma, rescale=s["rescale"] == "Yes", **common))
        else:
            raise Unsupported(f"enhances {s['feature']} by {s['neurites']}")

    def crop(self, s: Settings) -> None:
        if s["remove"] not in ("Edges", "Yes", "All"):
            raise Unsupported("keeps the rows and columns that are cut off")
        image = self.use(s["image"])
        if s["shape"] == "Previous cropping":
            self.make(s["output"], kinds.Crop(image, s["output"], like=self.use(s["cropping"]), module=self.by))
            return
        if s["shape"] != "Rectangle" or s["method"] != "Coordinates":
            raise Unsupported(f"crops by {s['shape']}, {s['method']}")
        left, right = bounds(s["left_right"], self.module)
        top, bottom = bounds(s["top_bottom"], self.module)
        if left is None or top is None:
            raise Unsupported("crops from no first column or row")
        self.make(
            s["output"],
            kinds.Crop(image, s["output"], left=left, right=right, top=top, bottom=bottom, module=self.by),
        )

    def mask_image(self, s: Settings) -> None:
        image, invert = self.use(s["image"]), s["invert"] == "Yes"
        if s["source"] == "Objects":
            step = kinds.MaskImage(image, s["output"], self.set_of(s["objects"]), "", invert, module=self.by)
        else:
            step = kinds.MaskImage(image, s["output"], "", self.use(s["mask"]), invert, module=self.by)
        self.make(s["output"], step)

    def threshold(self, s: Settings) -> None:
        if s["threshold"]["method"] == "Measurement":
            raise Unsupported("an image by a measured threshold")
        result = threshold_settings(self, s["threshold"])
        self.make(s["output"], kinds.Threshold(self.use(s["image"]), s["output"], result, module=self.by))
        self.measured |= {f"Threshold_{k}Threshold_{s['output']}" for k in ("Orig", "Final")}

    def skeletonize(self, s: Settings) -> None:
        self.make(s["output"], kinds.Skeletonize(self.use(s["image"]), s["output"], module=self.by))

    def morph(self, s: Settings) -> None:
        if [step[0] for step in s["steps"]] != ["skel"]:
            raise Unsupported(f"Morph by {', '.join(step[0] for step in s['steps'])}")
        self.make(s["output"], kinds.Skeletonize(self.use(s["image"]), s["output"], "distance", module=self.by))

    def objects_to_image(self, s: Settings) -> None:
        if not s["mode"].startswith("Binary"):
            raise Unsupported(f"an image of objects in {s['mode']}")
        self.make(s["output"], kinds.ObjectsImage(self.set_of(s["objects"]), s["output"], module=self.by))

    def primary(self, s: Settings) -> None:
        if s["advanced"] != "Yes":
            s |= BASIC | {"threshold": s["threshold"] | BASIC_THRESHOLD}
        image = self.use(s["image"])
        minimum, maximum = numbers(s["diameter"], self.module, 2)
        result = PrimarySettings(
            background=None,
            threshold=threshold_settings(self, s["threshold"]),
            min_diameter=minimum,
            max_diameter=maximum,
            discard_size=s["discard_size"] == "Yes",
            discard_border=s["discard_border"] == "Yes",
            declump=word("declumping", s["declump"], DECLUMP),
            dividing_lines="none" if s["declump"] == "None" else word("dividing lines", s["lines"], DECLUMP),
            smoothing=None if s["auto_smoothing"] == "Yes" else numbers(s["smoothing"], self.module)[0],
            suppression=None if s["auto_suppression"] == "Yes" else numbers(s["suppression"], self.module)[0],
            low_resolution_maxima=s["low_resolution"] == "Yes",
            fill_holes=word("filling holes", s["fill_holes"], HOLES),
            max_objects=int(numbers(s["limit_count"], self.module)[0]) if s["limit"] == "Erase" else None,
        )
        by = measured_threshold(self, s["threshold"])
        self.add(kinds.Primary(image, s["objects"], result, by, module=self.by))
        self.output(s["objects"])

    def output(self, name: str, thresholds: bool = True) -> None:
        self.objects[name] = None
        if thresholds:
            self.measured |= {f"Threshold_{k}Threshold_{name}" for k in ("Orig", "Final")}
        self.measured.add(f"Count_{name}")

    def secondary(self, s: Settings) -> None:
        seeds, image = self.set_of(s["seeds"]), self.use(s["image"])
        method = word("method", s["method"], SECONDARY)
        by_distance = method in ("distance", "distance_b")
        result = SecondarySettings(
            method=method,
            threshold=ThresholdSettings() if method == "distance" else threshold_settings(self, s["threshold"]),
            fill_holes=s["fill_holes"] == "Yes",
            discard_border=s["discard_border"] == "Yes",
            distance=int(numbers(s["distance"], self.module)[0]) if by_distance else 10,
            regularization=numbers(s["regularization"], self.module)[0] if method == "propagation" else 0.05,
        )
        if method == "propagation" and result.regularization <= 0:
            raise Unsupported("a regularization factor of 0")
        new = s["new_primary"] if result.discard_border and s["discard_primary"] == "Yes" else ""
        by = "" if method == "distance" else measured_threshold(self, s["threshold"])
        self.add(kinds.Secondary(image, seeds, s["objects"], result, new, by, module=self.by))
        self.output(s["objects"])
        if new:
            self.output(new, thresholds=False)

    def tertiary(self, s: Settings) -> None:
        larger, smaller = self.set_of(s["larger"]), self.set_of(s["smaller"])
        self.add(kinds.Tertiary(larger, smaller, s["objects"], s["shrink"] == "Yes", module=self.by))
        self.output(s["objects"], thresholds=False)

    def filter(self, s: Settings) -> None:
        names = [self.set_of(name) for name, _ in s["sets"]]
        outputs = [output for _, output in s["sets"]]
        common = {"others": tuple(names[1:]), "other_outputs": tuple(outputs[1:]), "removed": s["removed"]}
        if s["mode"] == "Image or mask border":
            self.add(kinds.Filter(names[0], outputs[0], border=True, module=self.by, **common))
        elif s["mode"] == "Measurements" and s["choice"] == "Limits":
            limits = s["limits"]
            low = tuple(-math.inf if v is None else numbers(v, self.module)[0] for _, v, _ in limits)
            high = tuple(math.inf if v is None else numbers(v, self.module)[0] for _, _, v in limits)
            for measurement, *_ in limits:
                if measurement not in self.columns_of(names[0]):
                    raise Unsupported(f"filters by {printable(measurement)}, which is not measured")
            measurements = tuple(m for m, *_ in limits)
            self.add(kinds.Filter(names[0], outputs[0], False, measurements, low, high, module=self.by, **common))
        else:
            raise Unsupported(f"filters by {s['mode']}, {s['choice']}")
        for output in filter(None, [*outputs, s["removed"]]):
            self.output(output, thresholds=False)

    def columns_of(self, name: str) -> "Columns":
        return Columns(name, tuple(self.steps))

    def expand(self, s: Settings) -> None:
        if s["operation"] != "Expand objects by a specified number of pixels":
            raise Unsupported(f"{s['operation']}")
        pixels = int(numbers(s["pixels"], self.module)[0])
        self.add(kinds.Expand(self.set_of(s["objects"]), s["output"], pixels, module=self.by))
        self.output(s["output"], thresholds=False)

    def relate(self, s: Settings) -> None:
        parent, child = self.set_of(s["parent"]), self.set_of(s["child"])
        if s["distances"] not in ("None", "Neither", "Do not use"):
            raise Unsupported(f"distances of children: {s['distances']}")
        saved = s["saved"] if s["save"] == "Yes" else ""
        self.add(kinds.Relate(parent, child, s["means"] == "Yes", saved, module=self.by))
        if saved:
            self.output(saved, thresholds=False)

    # Measurements

    def wanted(self, s: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.measured_images(s["images"]), self.measured_sets(s["objects"])

    def whole_images(self, where: str) -> bool:
        """Whether objects are measured; says where whole images are too."""
        if where not in ("Within objects", "Objects"):
            self.say("image tables", "measures whole images")
        return where not in ("Across entire image", "Images")

    def colocalization(self, s: Settings) -> None:
        if not self.whole_images(s["where"]):
            return
        metrics = [m for m in ("correlation", "manders", "rwc", "overlap", "costes") if s["all"] == "Yes" or s[m] == "Yes"]
        mode = {"Faster": "faster", "Fast": "fast", "Accurate": "accurate"}.get(s["costes_mode"])
        if "costes" in metrics and mode is None:
            self.say("columns", f"Costes' thresholds by {printable(s['costes_mode'])}")
            metrics.remove("costes")
        if "costes" in metrics and not s["ordered"]:
            self.say(
                "note",
                "CellProfiler 4 takes this older module's images in an order that is another at each start, and Costes' "
                "thresholds depend on it; here they come in the file's order",
            )
        images, objects = self.wanted(s)
        if images and objects and len(images) > 1:
            percent = numbers(s["percent"], self.module)[0]
            self.add(kinds.MeasureCorrelation(images, objects, percent, tuple(metrics), mode or "faster", module=self.by))

    def granularity(self, s: Settings) -> None:
        self.say("image tables", "measures whole images")
        images, objects = self.wanted(s)
        sub, background, radius, spectrum = (
            numbers(s[k], self.module)[0] for k in ("subsampling", "background_subsampling", "radius", "spectrum")
        )
        if not (0 < sub <= 1 and 0 < background <= 1 and 1 <= radius <= 128 and 1 <= spectrum <= 16):
            raise Unsupported(f"granularity of {sub:g}, {background:g}, radius {radius:g}, {spectrum:g} steps")
        if images and objects:
            self.add(kinds.MeasureGranularity(images, objects, sub, background, int(radius), int(spectrum), module=self.by))

    def intensity(self, s: Settings) -> None:
        images, objects = self.wanted(s)
        if images and objects:
            self.add(kinds.MeasureIntensity(images, objects, module=self.by))

    def shape(self, s: Settings) -> None:
        if objects := self.measured_sets(s["objects"]):
            self.add(kinds.MeasureShape(objects, s["zernike"] == "Yes", s["advanced"] == "Yes", module=self.by))

    def neighbors(self, s: Settings) -> None:
        if s["objects"] != s["neighbors"]:
            raise Unsupported(f"neighbours of {printable(s['objects'])} among {printable(s['neighbors'])}")
        method = {"Adjacent": "adjacent", "Expand until adjacent": "expanded"}.get(s["method"], "within")
        distance = int(numbers(s["distance"], self.module)[0]) if method == "within" else 1
        for name in self.measured_sets([s["objects"]]):
            discarded = s["discarded"] in ("Yes", "True")
            self.add(kinds.MeasureNeighbors(name, name, method, distance, discarded, module=self.by))

    def distribution(self, s: Settings) -> None:
        images = self.measured_images(s["images"])
        phase = ZERNIKE.get(s["zernike"])
        if s["zernike"] not in ZERNIKE or (phase is not None and numbers(s["degree"], self.module) != [9]):
            self.say("columns", f"Zernike moments: {s['zernike']}, up to {s['degree']}")
            phase = None
        own = self.measured_sets([o for o, _, _ in s["objects"]])
        if images and own and phase is not None:
            self.add(kinds.MeasureZernike(images, own, phase, module=self.by))
        for name, centre, of in s["objects"]:
            if name not in own or not images:
                continue
            center = {"These objects": "self", "Centers of other objects": "centers", "Edges of other objects": "edges"}[
                centre
            ]
            others = self.measured_sets([of]) if center != "self" else ("",)
            if not others:
                continue
            scaled_first = s["bins"][0][0] == "Yes"  # CellProfiler measures distances once for an object set
            for scaled, bins, _radius in s["bins"]:
                n = int(numbers(bins, self.module)[0])
                reach = 0 if scaled_first else int(numbers(s["bins"][0][2], self.module)[0])
                overflow = scaled != "Yes"
                if not 1 <= n <= 30:
                    self.say("columns", f"{n} rings; here 1 to 30")
                    continue
                if center == "self" and reach:
                    self.say("columns", f"rings of {printable(name)} out to {reach} pixels from its own centre")
                    continue
                self.add(kinds.MeasureRadial(images, (name,), n, center, others[0], reach, overflow, module=self.by))

    def texture(self, s: Settings) -> None:
        if not self.whole_images(s["where"]):
            return
        images, objects = self.wanted(s)
        scales = tuple(int(numbers(text, self.module)[0]) for text in s["scales"])
        if images and objects:
            levels = int(numbers(s["levels"], self.module)[0])
            self.add(kinds.MeasureTexture(images, objects, tuple(dict.fromkeys(scales)), levels, module=self.by))

    def skeleton(self, s: Settings) -> None:
        image = self.use(s["image"])
        for name in self.measured_sets([s["seeds"]]):
            size = int(numbers(s["hole_size"], self.module)[0])
            self.add(kinds.MeasureSkeleton(image, name, s["fill_holes"] == "Yes", size, module=self.by))

    def calculate_math(self, s: Settings) -> None:
        (_kind_a, _a, *_), (_kind_b, _b, *_) = s["operands"]
        operation = s["operation"].lower()
        used = s["operands"][:1] if operation == "none" else s["operands"]
        if any(o[0] != "Object" for o in used) or len({o[1] for o in used}) > 1:
            raise Unsupported(f"calculates {printable(s['name'])} of images, or of two kinds of objects")
        if s["rounding"] != "Not rounded" or operation not in ("multiply", "divide", "add", "subtract", "none"):
            raise Unsupported(f"calculates {printable(s['name'])}, {s['operation']}, {s['rounding']}")
        names = [self.set_of(o[1]) for o in used]
        for o in used:
            if o[2] not in self.columns_of(o[1]):
                raise Unsupported(f"calculates with {printable(o[2])}, which is not measured")
        value = {k: numbers(s[k], self.module)[0] for k in ("factor", "exponent", "addend", "lower", "upper")}
        self.add(
            kinds.CalculateMath(
                s["name"],
                operation,
                tuple(names),
                tuple(o[2] for o in used),
                tuple(numbers(o[3], self.module)[0] for o in used),
                tuple(numbers(o[4], self.module)[0] for o in used),
                s["log"] == "Yes",
                value["factor"],
                value["exponent"],
                value["addend"],
                value["lower"] if s["wants_lower"] == "Yes" else None,
                value["upper"] if s["wants_upper"] == "Yes" else None,
                module=self.by,
            )
        )

    def classify(self, s: Settings) -> None:
        if not s["contrast"].startswith("Single"):
            raise Unsupported(f"classifies by {s['contrast']}")
        for g in s["groups"]:
            name, column = self.set_of(g["objects"]), g["measurement"]
            if column not in self.columns_of(name):
                raise Unsupported(f"classifies by {printable(column)}, which is not measured")
            if g["spacing"].startswith("Evenly"):
                low, high, n = (numbers(g[k], self.module)[0] for k in ("low", "high", "bins"))
                edges = [low + (high - low) * i / n for i in range(int(n) + 1)]
            else:
                parts = g["custom"].split(",")
                edges = [numbers(p, self.module)[0] for p in parts]
            edges = [*([-math.inf] if g["below"] == "Yes" else []), *edges, *([math.inf] if g["above"] == "Yes" else [])]
            if g["named"] == "Yes":
                names = [n.strip() for n in g["names"].split(",")]
            else:
                names = [f"{column}_Bin_{i}" for i in range(1, len(edges))]
            if len(names) != len(edges) - 1:
                raise Unsupported(f"{len(names)} names of {len(edges) - 1} bins")
            self.add(kinds.Classify(name, column, tuple(edges), tuple(names), module=self.by))

    def image_intensity(self, s: Settings) -> None:
        self.say("image tables", "measures whole images")
        for images, inside, _ in s["runs"]:
            if inside:
                continue
            for name in images:
                try:
                    self.add(kinds.MeasureImageIntensity(self.use(name), module=self.by))
                    self.measured |= {f"Intensity_{m}_{name}" for m in kinds.IMAGE_INTENSITY}
                except Unsupported:
                    continue

    def image_only(self, s: Settings) -> None:
        self.say("image tables", "measures whole images")

    def kept(self) -> list[kinds.Step]:
        """The steps without images and image measurements that nothing needs."""
        needed: set[str] = set()
        result = []
        for step in reversed(self.steps):
            if isinstance(step, IMAGE_STEPS) and not step_outputs(step) & needed:
                continue
            needed |= step_inputs(step)
            result.append(step)
        return result[::-1]


IMAGE_STEPS = (
    *(kinds.Load, kinds.Illuminate, kinds.Background, kinds.Math, kinds.Smooth, kinds.Enhance, kinds.Crop, kinds.MaskImage),
    *(kinds.Threshold, kinds.Skeletonize, kinds.ObjectsImage, kinds.MeasureImageIntensity),
)


def step_outputs(step: kinds.Step) -> set[str]:
    if isinstance(step, kinds.MeasureImageIntensity):
        return {f"Intensity_{m}_{step.image}" for m in kinds.IMAGE_INTENSITY}
    if isinstance(step, kinds.Load):
        return {step.image}
    result = {step.output}  # type: ignore[attr-defined]
    if isinstance(step, kinds.Threshold):
        result |= {f"Threshold_{k}Threshold_{step.output}" for k in ("Orig", "Final")}
    return result


def step_inputs(step: kinds.Step) -> set[str]:
    """Images and image measurements that a step reads."""
    result: set[str] = set()
    if isinstance(step, kinds.Load):
        return result
    for name in ("image", "images", "function", "mask", "like", "measurements", "measured_threshold"):
        value = getattr(step, name, "")
        result |= {value} if isinstance(value, str) else set(value)
    return result - {""}


@dataclass(frozen=True)
class Columns:
    """Which columns per object set has, as far as steps say: by their beginnings."""

    name: str
    steps: tuple[kinds.Step, ...]

    def __contains__(self, column: str) -> bool:
        if column.startswith(("Location_Center_", "Number_", "Parent_", "Children_")):
            return True
        for step in self.steps:
            objects = getattr(step, "objects", ())
            if self.name not in ((objects,) if isinstance(objects, str) else objects):
                continue
            if column.startswith(PREFIXES.get(type(step), "\0")):
                images = getattr(step, "images", ())
                if not images or any(re.search(rf"_{re.escape(i)}(_|$)", column) for i in images):
                    return True
        return False


PREFIXES: dict[type[kinds.Step], tuple[str, ...]] = {
    kinds.MeasureShape: ("AreaShape_",),
    kinds.MeasureIntensity: ("Intensity_", "Location_"),
    kinds.MeasureTexture: ("Texture_",),
    kinds.MeasureGranularity: ("Granularity_",),
    kinds.MeasureCorrelation: ("Correlation_",),
    kinds.MeasureRadial: ("RadialDistribution_",),
    kinds.MeasureNeighbors: ("Neighbors_",),
    kinds.CalculateMath: ("Math_",),
}


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


def word(what: str, value: str, known: dict[str, str]) -> str:
    """A word of CellProfiler's as ours."""
    if value not in known:
        raise Unsupported(f"{what} by {printable(value)}")
    return known[value]


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


def bare(name: str) -> str:
    """An image's name without the word for how far it is processed: `OrigDNA` to `DNA`."""
    return re.sub(r"^(Orig_?(?=.)|(Corrected|Corr|Raw|Pre|Crop|Rescaled)_?(?=[A-Z0-9]))", "", name)


def filter_size(module: Module | None, s: Settings) -> float | None:
    """A smoothing filter's size in pixels; None where it depends on the image."""
    if s["size_by"] == "Automatic":
        return None
    if s["size_by"] == "Object size":
        return numbers(s["object_width"], module)[0] * 2.35 / 3.5
    return numbers(s["filter_size"], module)[0]


HANDLERS: dict[str, Callable[[Translator, Settings], None]] = {
    "CorrectIlluminationApply": Translator.illuminate,
    "CorrectIlluminationCalculate": Translator.calculate,
    "ImageMath": Translator.image_math,
    "Smooth": Translator.smooth,
    "EnhanceOrSuppressFeatures": Translator.enhance,
    "Crop": Translator.crop,
    "MaskImage": Translator.mask_image,
    "Threshold": Translator.threshold,
    "MorphologicalSkeleton": Translator.skeletonize,
    "Morph": Translator.morph,
    "ConvertObjectsToImage": Translator.objects_to_image,
    "IdentifyPrimaryObjects": Translator.primary,
    "IdentifySecondaryObjects": Translator.secondary,
    "IdentifyTertiaryObjects": Translator.tertiary,
    "FilterObjects": Translator.filter,
    "ExpandOrShrinkObjects": Translator.expand,
    "RelateObjects": Translator.relate,
    "MeasureColocalization": Translator.colocalization,
    "MeasureGranularity": Translator.granularity,
    "MeasureObjectIntensity": Translator.intensity,
    "MeasureObjectSizeShape": Translator.shape,
    "MeasureObjectNeighbors": Translator.neighbors,
    "MeasureObjectIntensityDistribution": Translator.distribution,
    "MeasureTexture": Translator.texture,
    "MeasureObjectSkeleton": Translator.skeleton,
    "MeasureImageIntensity": Translator.image_intensity,
    "MeasureImageQuality": Translator.image_only,
    "MeasureImageAreaOccupied": Translator.image_only,
    "CalculateMath": Translator.calculate_math,
    "ClassifyObjects": Translator.classify,
}
assert set(HANDLERS) <= set(READERS)
