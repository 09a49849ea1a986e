"""What is known of a pipeline, module after module: its images, object sets, steps, and what is to be said."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..settings import filter_steps
from ..settings import steps as kinds
from ..settings.names import BRIGHTFIELD, CHANNELS, LABEL_IMAGE
from .findings import Cause, Finding, Unsupported
from .functions import inputs_of
from .parse import Module, printable

Word = TypeVar("Word")
KNOWN = (*CHANNELS, *BRIGHTFIELD)


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
    colours: dict[str, dict[int, str]] = field(default_factory=dict)  # colour image -> its planes' images
    saved: set[str] = field(default_factory=set)  # images that SaveImages writes
    functions: set[str] = field(default_factory=set)  # images that are loaded functions
    masked: set[str] = field(default_factory=set)  # images of which not all pixels count
    unfinished: set[str] = field(default_factory=set)  # functions that only the last image finishes
    measured: set[str] = field(default_factory=set)  # image measurements
    loaded: tuple[kinds.Load, ...] = ()  # what an earlier reading of the pipeline loads
    declared: list[str] = field(default_factory=list)  # images that NamesAndTypes names
    groups: list[str] = field(default_factory=list)  # metadata whose values make groups of images
    flagged: dict[str, None] = field(default_factory=dict)  # images whose quality flags a site
    label_images: set[str] = field(default_factory=set)
    made: set[str] | None = None  # where LoadData may load objects: what modules make, each of them imported or not
    wants_loaded: bool = False  # a module is of all loaded images
    module: Module | None = None

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

    def load_objects(self, name: str, values: str) -> None:
        """Objects of a file: a label image is a channel of the plate."""
        image = name + LABEL_IMAGE
        self.label_images.add(image)
        self.add(kinds.Load(image, self.channel(image)))
        self.add(filter_steps.ImageToObjects(image, name, values=values, module=self.by))
        self.output(name, thresholds=False)
        self.say("note", f"objects {printable(name)} are loaded from label images, channel {self.channel(image)}")

    def function(self, name: str, image: str) -> str:
        """An illumination function that is loaded: of the channel in its own name."""
        if name in self.unfinished:
            raise Unsupported(f"function {printable(name)} is finished with the last image only (All: Across cycles)")
        if name in self.images:
            return self.use(name)
        stem = re.sub(r"^(Illum|illum)_?", "", name)
        own = next((c for c in self.channels.values() if c.lower() == re.sub(r"[^A-Za-z0-9]", "", bare(stem)).lower()), None)
        channel = own or (self.channels.get(image) if stem == name else self.channel_of_stem(stem))
        if channel is None:
            raise Unsupported(f"function {printable(name)} is of no image that is loaded")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", channel):
            raise ValueError(f"{self.by}: function {printable(name)} cannot name a channel; rename it")
        self.images[name] = None
        self.functions.add(name)
        self.add(kinds.Load(name, channel, function=True))
        return name

    def channel_of_stem(self, stem: str) -> str:
        channel = re.sub(r"[^A-Za-z0-9]", "", bare(stem))
        return next((c for c in KNOWN if c.lower() == channel.lower()), channel)

    def make(self, name: str, step: kinds.Step) -> None:
        crop = isinstance(step, kinds.Crop) and (step.keep or step.ellipse)
        of = {getattr(step, "images", (None,))[0]} if getattr(step, "ignore_mask", False) else inputs_of(step)
        if crop or isinstance(step, kinds.MaskImage) or of & self.masked:
            self.masked.add(name)
        self.images[name] = None
        self.add(step)

    def set_of(self, name: str) -> str:
        if name not in self.objects and self.made is not None and name not in self.made:
            self.load_objects(name, "ranked")
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

    def output(self, name: str, thresholds: bool = True) -> None:
        self.objects[name] = None
        if thresholds:
            self.measured |= {f"Threshold_{k}Threshold_{name}" for k in ("Orig", "Final")}
        self.measured.add(f"Count_{name}")

    def columns_of(self, name: str) -> "Columns":
        return Columns(name, tuple(self.steps))


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


def word(what: str, value: str, known: dict[str, Word]) -> Word:
    """A word of CellProfiler's as ours."""
    if value not in known:
        raise Unsupported(f"{what} by {printable(value)}")
    return known[value]


def bare(name: str) -> str:
    """An image's name without the word for how far it is processed: `OrigDNA` to `DNA`."""
    return re.sub(r"^(Orig_?(?=.)|(Corrected|Corr|Raw|Pre|Crop|Rescaled)_?(?=[A-Z0-9]))", "", name)
