"""A CellProfiler pipeline's modules to a configuration of ours, with a line for everything that is not the same.

The modules are followed in their order: which image is whose corrected image, which objects are nuclei, cells and cytoplasm.
A finding has a kind: `changes`, numbers come out otherwise than the pipeline's; `missing`, numbers of the pipeline's are
not made; `more`, numbers are made that the pipeline has not; `note`, everything else that is worth a line.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..settings.config import BackgroundSettings, Config, IlluminationSettings, PlateSettings, SegmentationSettings
from .features import FEATURES, Measured
from .of_images import filter_size
from .parse import Module, Pipeline, printable, read_pipeline
from .rows import Settings, numbers
from .segmentation import primary_settings, secondary_settings
from .settings import read_settings
from .translate import LOADING, OUTPUT
from .translator import KNOWN, bare

KINDS = ("changes", "missing", "more", "note")
MEASURING = re.compile(r"(Measure|Calculate(Math|Statistics)|Classify|Track|Relate|Flag)")


@dataclass(frozen=True)
class Finding:
    """A line of what was not honoured as it stands. `number` is the module's in `file`; 0 for the pipeline as a whole."""

    kind: str
    file: str
    module: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.module} (module {self.number}): {self.text}" if self.number else f"{self.module}: {self.text}"


@dataclass(frozen=True)
class Image:
    """What an image is: `raw`, `corrected` (divided by its function), `minus_background`, `function`, `background`, `other`.

    `of` is the loaded image that it comes from; `settings` what a background or a function was made with.
    """

    kind: str
    of: str
    settings: Any = None
    by: str = ""


@dataclass
class Imported:
    """A pipeline as a configuration. `sections` are the tables of the configuration that the pipeline speaks of."""

    config: Config
    sections: tuple[str, ...]
    findings: list[Finding]

    def of_kind(self, *kinds: str) -> list[Finding]:
        return [f for f in self.findings if f.kind in kinds]


def import_cppipe(*paths: str | os.PathLike[str]) -> Imported:
    """CellProfiler pipelines that belong together (illumination, analysis), as one configuration with its findings.

    Parameters
    ----------
    paths : paths
        Pipeline files: .cppipe (text, formats 1 to 5) or .json (v6).

    Returns
    -------
    Imported
        `config`, the settings that `extract` takes; `findings`, one per difference from the pipelines.

    Raises
    ------
    OSError
        For a file that cannot be read.
    ValueError
        For what is no pipeline, a revision of a module that is not supported, or nothing to import.
    """
    return import_pipelines([read_pipeline(os.fspath(p)) for p in paths])


def import_pipelines(pipelines: Iterable[Pipeline]) -> Imported:
    """Pipelines that belong together (illumination, analysis) as one configuration.

    ValueError for a module whose settings cannot be read, or where there is nothing to import.
    """
    importer = Importer()
    for pipeline in pipelines:
        importer.read(pipeline)
    return importer.finish()


@dataclass
class Importer:
    """What is known so far, module after module."""

    images: dict[str, Image] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)  # name -> compartment
    measured: Measured = field(default_factory=Measured)
    illumination: IlluminationSettings | None = None
    segmentation: SegmentationSettings | None = None
    findings: list[Finding] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # image -> the channel it is called here
    stains: dict[str, str] = field(default_factory=dict)  # what a loaded image is called, without Orig -> channel
    output: set[str] = field(default_factory=set)  # compartments
    scale: float | None = None  # what counts are divided by
    file: str = ""

    def read(self, pipeline: Pipeline) -> None:
        self.images, self.objects, self.file = {}, {}, pipeline.file  # names are a pipeline's own
        for module in pipeline.modules:
            if not module.enabled:
                self.say("note", module, "is disabled")
            elif module.name in HANDLERS:
                HANDLERS[module.name](self, module, read_settings(module))
            elif module.name in LOADING:
                self.load(module)
            else:
                self.unknown(module)

    def say(self, kind: str, module: Module | str, text: str) -> None:
        name, number = (module.name, module.number) if isinstance(module, Module) else (module, 0)
        finding = Finding(kind, self.file, name, number, text)
        if finding not in self.findings:
            self.findings.append(finding)

    def image(self, name: str) -> Image:
        """What an image of this name is; one that no module made was loaded."""
        return self.images.get(name) or Image("raw", name)

    def channel(self, name: str, module: Module) -> str:
        """The channel that an image's columns are named after here."""
        if name not in self.names:
            channel = re.sub(r"[^A-Za-z0-9]", "", bare(name))
            channel = next((c for c in KNOWN if c.lower() == channel.lower()), channel)
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,31}", channel) or not self.image(name).of.isprintable():
                raise ValueError(f"{module}: image {printable(name)} cannot name a channel; expected letters and digits")
            if channel != name:
                self.say("note", module, f"columns of image {printable(name)} are called {channel} here")
            loaded = bare(self.image(name).of).lower()
            if any((known == loaded) != (c == channel) for known, c in self.stains.items()):
                raise ValueError(f"{module}: image {printable(name)} is called as another channel is; rename it")
            self.names[name] = self.stains[loaded] = channel
            if channel not in self.channels:
                self.channels.append(channel)
        return self.names[name]

    def usable(self, name: str, module: Module, purpose: str) -> str:
        """The channel of an image that is segmented or measured; says what is otherwise than it is here."""
        image = self.image(name)
        if image.kind == "raw":
            self.say("changes", module, f"{purpose} {printable(name)}, not corrected; give --illumination none for that")
        elif image.kind != "corrected":
            output = f"made by {image.by}" if image.by else "which is not a corrected image"
            self.say("changes", module, f"{purpose} {printable(name)}, {output}; here it is the corrected {image.of}")
            name = next((n for n, i in self.images.items() if i.kind == "corrected" and i.of == image.of), image.of)
        return self.channel(name, module)

    def load(self, module: Module) -> None:
        if module.named("Process just a range of rows") == ["Yes"]:
            self.say("note", module, "takes a range of rows; choose wells and sites by --wells and --sites")
        if module.named("Process as 3D") == ["Yes"]:
            self.say("changes", module, "processes volumes; here a field is one plane")
        if module.name == "LoadData" and module.named("Rescale intensities") == ["No"]:
            self.say("changes", module, "intensities are not rescaled; here they are counts over full scale")
        if module.name == "NamesAndTypes":
            self.full_scale(module)
        if module.name == "NamesAndTypes" and "Objects" in module.named("Select the image type"):
            self.say("note", module, "loads objects; give label images by --masks")

    def full_scale(self, module: Module) -> None:
        """What images are divided by: as they say themselves, or one number, which becomes `plate.scale`."""
        told = list(zip(module.named("Set intensity range from"), module.named("Maximum intensity"), strict=False))
        ways = {way for way, _ in told} - {"Image metadata", "Yes"}
        maximum = {text for way, text in told if way == "Manual"}
        others = sum(way != "Manual" for way, _ in told[1:])  # the first is for all images, where there are no rules
        if (
            ways == {"Manual"}
            and not others
            and len(maximum) == 1
            and re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", text := maximum.pop())
        ):
            self.scale = float(text) or None
        elif ways == {"Image bit-depth"}:
            self.say(
                "note", module, "takes full scale from the bits of an image; here MaxSampleValue, where it has one, counts"
            )
        elif ways:
            listed = ", ".join(map(printable, sorted(ways)))
            self.say("changes", module, f"intensity range from {listed}; here full scale is what images say: [plate] scale")

    def unknown(self, module: Module) -> None:
        """A module that is not followed: its images come from the first of ours that it reads."""
        of = next((self.image(v).of for _, v in module.settings if v in self.images), "")
        of = of or next((v for t, v in module.settings if t.startswith("Select the i") and v != "None"), module.name)
        for text, value in module.settings:
            if text.startswith("Name the output image") and value:
                self.images[value] = Image("other", of, by=str(module))
        if OUTPUT.match(module.name):
            self.say("note", module, "writes or shows things, which is left to this program's own output")
        elif MEASURING.match(module.name):
            self.say("missing", module, "is not among the modules that are imported; its numbers are not made")
        else:
            self.say("note", module, "is not run; where its output is used, the line of that module says so")

    def calculate(self, module: Module, s: Settings) -> None:
        """A function over all images becomes [illumination], a background of each image the nuclei's background."""
        of = self.image(s["image"])
        if s["kind"] == "Background" and s["each"] == "Each":
            self.images[s["output"]] = Image("background", of.of, self.background(module, s), by=str(module))
            return
        self.images[s["output"]] = Image("function", of.of, by=str(module))
        size = whole_size(module, s)
        scale = of.settings if of.kind == "resized" else 1.0
        result = IlluminationSettings(resize=scale, filter_size=size or IlluminationSettings.filter_size)
        wrong = [
            text
            for text, bad in (
                (f"calculates {s['kind']}, from {s['each']}", s["kind"] != "Regular" or not s["each"].startswith("All")),
                (f"smooths by {s['method']}", s["method"] != "Median Filter"),
                (f"sizes its filter by {s['size_by']}", size is None),
                (f"rescales: {s['rescale']}", s["rescale"] != "Yes"),
                ("dilates", s["dilate"] == "Yes"),
                ("takes images that are not raw", of.kind not in ("raw", "resized")),
            )
            if bad
        ]
        if wrong:
            self.say("changes", module, f"{'; '.join(wrong)}; here functions are medians of size {result.filter_size}")
        if self.illumination not in (None, result):
            self.say("changes", module, "is set otherwise than that of other channels; here all have the first's settings")
        self.illumination = self.illumination or result

    def background(self, module: Module, s: Settings) -> BackgroundSettings:
        size = whole_size(module, s)
        if s["method"] != "Gaussian Filter" or s["rescale"] != "No" or size is None or s["dilate"] == "Yes":
            self.say(
                "changes",
                module,
                f"background by {s['method']}, size by {s['size_by']}, rescaled: {s['rescale']}; here it is Gaussian, of a "
                "given size, not rescaled",
            )
        return BackgroundSettings(int(numbers(s["block"], module)[0]), size or BackgroundSettings.filter_size)

    def apply(self, module: Module, s: Settings) -> None:
        if s["rescaled"]:
            self.say("changes", module, f"rescales corrected images: {printable(s['rescaled'][0])}")
        for name, output, function, how in s["images"]:
            image, by = self.image(name), self.image(function)
            if how == "Divide" and image.kind == "raw" and by.kind in ("raw", "function"):
                self.images[output] = Image("corrected", image.of)
                if by.kind == "raw":
                    self.say("note", module, "functions are loaded: give their folder by --illumination, or estimate them")
            elif how == "Subtract" and image.kind == "corrected" and by.kind == "background" and by.of == image.of:
                self.images[output] = Image("minus_background", image.of, by.settings, by=str(module))
            else:
                self.images[output] = Image("other", image.of, by=str(module))
                self.say("changes", module, f"{how} {printable(function)} from or into {printable(name)} is not done here")
        if "No" in (s["low"], s["high"]):
            self.say("changes", module, "does not clip to 0..1, as is done here")

    def resize(self, module: Module, s: Settings) -> None:
        factors = {numbers(f, module)[0] for f in s["factors"]} if s["by_factor"] else set()
        right = len(factors) == 1 and s["interpolation"] == "Bilinear"
        for name, output in s["images"]:
            image = self.image(name)
            factor = min(factors, default=1.0)
            if image.kind == "raw" and right and 0 < factor <= 1:
                self.images[output] = Image("resized", image.of, factor, by=str(module))
            elif image.kind == "function" and right:
                self.images[output] = image
                scale = self.illumination.resize if self.illumination else 1.0
                if abs(factor * scale - 1) > 1e-6:
                    self.say("changes", module, f"functions are resized by {factor:g} after {scale:g}; here to full size")
            else:
                self.images[output] = Image("other", image.of, by=str(module))
                self.say("note", module, "is not done; where its output is used, the line of that module says so")

    def image_math(self, module: Module, s: Settings) -> None:
        """The clipping of an image, which older pipelines left to this module."""
        _, name, factor, _ = s["operands"][0] if s["operands"] else ("", "", "1", "")
        image = self.image(name)
        wanted = zip((s["exponent"], s["factor"], s["addend"], factor), (1, 1, 0, 1), strict=True)
        same = s["operation"] == "None" and all(numbers(text, module) == [value] for text, value in wanted)
        if same and (s["low"], s["high"]) == ("Yes", "Yes") and image.kind == "corrected":
            self.images[s["output"]] = image
        else:
            self.images[s["output"]] = Image("other", image.of, by=str(module))
            self.say("note", module, "is not done; where its output is used, the line of that module says so")

    def primary(self, module: Module, s: Settings) -> None:
        if self.segmentation:
            self.say("missing", module, f"objects {printable(s['objects'])}: one set of nuclei is found, the first")
            return
        image = self.image(s["image"])
        result = primary_settings(module, s, self.say)
        if image.kind == "minus_background":
            corrected = next(n for n, i in self.images.items() if i.kind == "corrected" and i.of == image.of)
            result = replace(result, channel=self.channel(corrected, module), background=image.settings)
        else:
            result = replace(result, channel=self.usable(s["image"], module, "finds objects in"), background=None)
        self.segmentation = SegmentationSettings(nuclei=result)
        self.name(module, s["objects"], "Nuclei")

    def secondary(self, module: Module, s: Settings) -> None:
        if not self.segmentation or self.objects.get(s["seeds"]) != "Nuclei" or "Cells" in self.output:
            self.say("missing", module, f"objects {printable(s['objects'])}: one set of cells is grown, from the nuclei")
            return
        result = secondary_settings(module, s, self.say)
        result = replace(result, channel=self.usable(s["image"], module, "grows cells in"))
        self.segmentation = replace(self.segmentation, cells=result)
        self.name(module, s["objects"], "Cells")
        if s["discard_border"] == "Yes" and s["discard_primary"] == "Yes":
            self.objects[s["new_primary"]] = "Nuclei"

    def tertiary(self, module: Module, s: Settings) -> None:
        pair = self.objects.get(s["larger"]), self.objects.get(s["smaller"])
        if not self.segmentation or pair != ("Cells", "Nuclei"):
            self.say("missing", module, f"objects {printable(s['objects'])}: only cells without nuclei are made")
            return
        self.segmentation = replace(self.segmentation, shrink_nucleus=s["shrink"] == "Yes")
        self.name(module, s["objects"], "Cytoplasm")

    def filter(self, module: Module, s: Settings) -> None:
        """Nuclei off the border, and cells with them; all the names then mean what is left."""
        first = self.objects.get(s["sets"][0][0])
        if not self.segmentation or s["mode"] != "Image or mask border" or first != "Nuclei":
            listed = ", ".join(printable(name) for _, name in s["sets"])
            self.say("changes", module, f"filters {listed} by {s['mode']}; here only nuclei at the border can be dropped")
        else:
            self.segmentation = replace(self.segmentation, filter_border_nuclei=True)
        for name, output in s["sets"]:
            if name in self.objects:
                self.name(module, output, self.objects.pop(name))

    def name(self, module: Module, name: str, compartment: str) -> None:
        self.objects[name] = compartment
        self.output.add(compartment)

    def measure(self, module: Module, s: Settings) -> None:
        FEATURES[module.name](self, module, s)

    def finish(self) -> Imported:
        """The configuration, and what it has that the pipelines have not."""
        if not (self.segmentation or self.illumination):
            raise ValueError("no illumination function and no objects to find: nothing in this can be imported")
        config, sections = Config(), []
        if self.illumination:
            config, sections = replace(config, illumination=self.illumination), ["illumination"]
        if self.segmentation:
            channels = tuple(sorted(self.channels, key=lambda c: KNOWN.index(c) if c in KNOWN else len(KNOWN)))
            plate = PlateSettings(channels=channels, scale=self.scale)
            own = {loaded: c for loaded, c in self.stains.items() if c not in KNOWN or loaded != c.lower()}
            if own:
                plate = replace(plate, stains=plate.stains | own)
                listed = ", ".join(f"{printable(loaded)} is {c}" for loaded, c in own.items())
                self.say("note", "Pipeline", f"[plate.stains] says that {listed}; add what your files call these channels")
            for compartment in ("Cells", "Cytoplasm"):
                if compartment not in self.output:
                    self.say("more", "Pipeline", f"makes no {compartment}, which are made here")
            for name, compartment in self.objects.items():
                if name != compartment:
                    self.say("note", "Pipeline", f"columns of objects {printable(name)} are called {compartment} here")
            features = self.measured.settings(channels, self.output, self.say)
            config = replace(config, plate=plate, segmentation=self.segmentation, features=features)
            sections = ["plate", *sections, "segmentation", "features"]
        order = {kind: i for i, kind in enumerate(KINDS)}
        return Imported(config, tuple(sections), sorted(self.findings, key=lambda f: order[f.kind]))


def whole_size(module: Module, s: Settings) -> int | None:
    """A smoothing filter's size in whole pixels; None where it depends on the image, or is no whole number."""
    size = filter_size(module, s)
    return int(size) if size is not None and size == int(size) and size >= 1 else None


HANDLERS: dict[str, Callable[[Importer, Module, Settings], None]] = {
    "CorrectIlluminationCalculate": Importer.calculate,
    "CorrectIlluminationApply": Importer.apply,
    "Resize": Importer.resize,
    "ImageMath": Importer.image_math,
    "IdentifyPrimaryObjects": Importer.primary,
    "IdentifySecondaryObjects": Importer.secondary,
    "IdentifyTertiaryObjects": Importer.tertiary,
    "FilterObjects": Importer.filter,
    **dict.fromkeys(FEATURES, Importer.measure),
}
