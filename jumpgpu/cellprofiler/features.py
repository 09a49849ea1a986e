"""The Measure modules as [features], with a finding for columns that are missing, or that are made besides."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ..settings.config import (
    CorrelationSettings,
    FeatureSettings,
    GranularitySettings,
    NeighborsSettings,
    RadialSettings,
    ShapeSettings,
    TextureSettings,
)
from ..settings.names import COMPARTMENTS
from .parse import Module, printable
from .rows import Settings, numbers

QUALITY_SCALES = {5.0, 10.0, 20.0, 50.0}
ZERNIKE = {"None": "none", "Magnitudes only": "magnitudes", "Magnitudes and phase": "magnitudes_and_phase"}
Say = Callable[[str, Module | str, str], None]


@dataclass
class Measured:
    """Families with their settings, and of what each was asked: compartments and channels."""

    chosen: dict[str, Any] = field(default_factory=dict)
    of: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # family -> (compartment, channel or '')
    listed: tuple[str, ...] = ()  # channels in the order in which their pairs are measured
    neighbors: dict[str, set[int]] = field(default_factory=dict)
    image_quality: bool = False

    def settings(self, channels: Sequence[str], compartments: Collection[str], say: Say) -> FeatureSettings:
        """All of it as one table; says of which compartments and channels a family is measured besides."""
        families = {"number", "location", *self.of}
        for family, pairs in self.of.items():
            per_channel = any(channel for _, channel in pairs)
            every = {(c, ch) for c in COMPARTMENTS for ch in (channels if per_channel else ("",))}
            if family != "neighbors" and (besides := every - pairs):
                listed = ", ".join(" of ".join(filter(None, (ch, c))) for c, ch in sorted(besides)[:4])
                say("more", "Pipeline", f"{family} is measured besides of {listed}{', ...' if len(besides) > 4 else ''}")
        tables = {name: table for name, table in self.chosen.items() if name != "intensity"}
        distances = {c.lower(): tuple(sorted(d, key=lambda n: (n == 0, n))) for c, d in self.neighbors.items()}
        default = FeatureSettings()
        result = replace(default, families=tuple(f for f in default.families if f in families), **tables)
        none = NeighborsSettings((), (), ())
        return replace(result, neighbors=replace(none, **distances), image_quality=self.image_quality)

    def take(self, family: str, table: Any, pairs: Iterable[tuple[str, str]], module: Module, say: Say) -> None:
        """A family with its settings; a second module that is set otherwise is not honoured."""
        pairs = set(pairs)
        if not pairs:
            return
        if self.chosen.setdefault(family, table) != table:
            say("missing", module, f"{family} a second time with other settings; the first module's hold")
        else:
            self.of.setdefault(family, set()).update(pairs)


def pairs_of(importer: Any, module: Module, images: Sequence[str], objects: Sequence[str]) -> list[tuple[str, str]]:
    """(compartment, channel) of what a module measures; a finding for images and objects that are not here."""
    channels = []
    for name in images:
        image = importer.image(name)
        if image.kind in ("corrected", "raw"):
            channels.append(importer.usable(name, module, "measures"))
        else:
            output = f", made by {image.by}" if image.by else ""
            importer.say("missing", module, f"measures image {printable(name)}{output}, which is not made here")
    return [(c, channel) for c in compartments_of(importer, module, objects) for channel in channels]


def compartments_of(importer: Any, module: Module, objects: Sequence[str]) -> list[str]:
    for name in objects:
        if name not in importer.objects:
            importer.say("missing", module, f"measures objects {printable(name)}, which are not made here")
    return [importer.objects[name] for name in objects if name in importer.objects]


def whole_images(importer: Any, module: Module, where: str) -> bool:
    """Whether objects are measured; whole images never are."""
    if where not in ("Within objects", "Objects"):
        importer.say("missing", module, "measures whole images, which is not done here")
    return where not in ("Across entire image", "Images")


def colocalization(importer: Any, module: Module, s: Settings) -> None:
    if not whole_images(importer, module, s["where"]):
        return
    costes = s["costes"] == "Yes"  # "Run all metrics?" shows or hides the single ones, which count either way
    if costes and s["costes_mode"] != "Faster":
        importer.say("changes", module, f"Costes' thresholds by {s['costes_mode']}; here as by Faster")
    if unasked := [n for n in ("correlation", "manders", "rwc", "overlap") if s[n] != "Yes"]:
        importer.say("more", module, f"does not ask for {', '.join(unasked)}, which are measured here")
    pairs = pairs_of(importer, module, s["images"], s["objects"])
    listed = [channel for _, channel in pairs]
    if not s["ordered"]:
        listed.sort()
        importer.say(
            "note", module, "of revision 3: CellProfiler 4 orders its images by chance; here pairs follow the names"
        )
    order = pair_order(importer, module, listed)
    table = CorrelationSettings(numbers(s["percent"], module)[0], costes, order)
    importer.measured.take("correlation", table, pairs, module, importer.say)


def pair_order(importer: Any, module: Module, listed: Sequence[str]) -> tuple[str, ...]:
    """The channels in the order in which this module and those before list them; none where that is the order of names.

    It decides how a pair is named and by which of its channels Costes' thresholds are searched.
    """
    chosen, before = importer.measured.chosen, tuple(importer.measured.listed)
    after: dict[str, set[str]] = {}  # channel -> those listed before it
    for channels in (before, tuple(dict.fromkeys(listed))):
        for i, channel in enumerate(channels):
            after.setdefault(channel, set()).update(channels[:i][-1:])
    try:
        merged = tuple(TopologicalSorter(after).static_order())
    except CycleError:
        importer.say("changes", module, f"lists {', '.join(listed)} in another order than a module before, whose pairs hold")
        merged = (*before, *sorted(set(listed) - set(before)))
    importer.measured.listed = merged
    order = () if list(merged) == sorted(merged) else merged
    if "correlation" in chosen:
        chosen["correlation"] = replace(chosen["correlation"], order=order)
    return order


def granularity(importer: Any, module: Module, s: Settings) -> None:
    importer.say("note", module, "measures whole images too, as it always does; here objects alone are measured")
    values = (numbers(s[k], module)[0] for k in ("subsampling", "background_subsampling", "radius", "spectrum"))
    sub, background, radius, spectrum = values
    table = GranularitySettings(sub, background, int(radius), int(spectrum))
    pairs = pairs_of(importer, module, s["images"], s["objects"])
    importer.measured.take("granularity", table, pairs, module, importer.say)


def intensity(importer: Any, module: Module, s: Settings) -> None:
    importer.measured.take("intensity", None, pairs_of(importer, module, s["images"], s["objects"]), module, importer.say)


def shape(importer: Any, module: Module, s: Settings) -> None:
    table = ShapeSettings(zernike=s["zernike"] == "Yes", advanced=s["advanced"] == "Yes")
    pairs = [(c, "") for c in compartments_of(importer, module, s["objects"])]
    importer.say("note", module, "ConvexArea, which CellProfiler has since 4.2.8, is made by convex_area = true")
    importer.measured.take("shape", table, pairs, module, importer.say)


def neighbors(importer: Any, module: Module, s: Settings) -> None:
    if s["objects"] != s["neighbors"] or s["method"] == "Expand until adjacent":
        how = f"of {printable(s['objects'])} among {printable(s['neighbors'])}, {s['method']}"
        importer.say("missing", module, f"{how}: here neighbours are of the same kind, adjacent or within a distance")
        return
    if s["discarded"] != "Yes":
        importer.say("changes", module, "leaves out objects discarded at the border; here they count as neighbours")
    distance = 0 if s["method"] == "Adjacent" else int(numbers(s["distance"], module)[0])
    for compartment in compartments_of(importer, module, [s["objects"]]):
        importer.measured.neighbors.setdefault(compartment, set()).add(distance)
        importer.measured.of.setdefault("neighbors", set()).add((compartment, ""))


def distribution(importer: Any, module: Module, s: Settings) -> None:
    own = [o for o, centre, _ in s["objects"] if centre == "These objects"]
    for o, centre, _ in s["objects"]:
        if centre != "These objects":
            importer.say("missing", module, f"{printable(o)} from {centre.lower()}; here from their own centre")
    for scaled, n_bins, _ in s["bins"]:
        if scaled != "Yes":
            importer.say("missing", module, f"{printable(n_bins)} bins that are not scaled; here bins are scaled")
            continue
        zernike = ZERNIKE.get(s["zernike"], "none")
        if zernike != "none" and numbers(s["degree"], module) != [9]:
            importer.say("changes", module, f"Zernike moments up to {printable(s['degree'])}; here up to 9")
        table = RadialSettings(int(numbers(n_bins, module)[0]), zernike)
        importer.measured.take("radial", table, pairs_of(importer, module, s["images"], own), module, importer.say)


def texture(importer: Any, module: Module, s: Settings) -> None:
    if not whole_images(importer, module, s["where"]):
        return
    scales = tuple(int(numbers(text, module)[0]) for text in s["scales"])
    table = TextureSettings(scales, int(numbers(s["levels"], module)[0]))
    pairs = pairs_of(importer, module, s["images"], s["objects"])
    importer.measured.take("texture", table, pairs, module, importer.say)


def image_quality(importer: Any, module: Module, s: Settings) -> None:
    importer.measured.image_quality = True
    for group in s["groups"]:
        if s["all_images"] or any(importer.image(name).kind == "raw" for name in group["images"]):
            importer.say("changes", module, "is of loaded images; here it is of corrected images")
        if group["scaling"] == "Yes":
            importer.say("missing", module, "the image's rescaling value, which is 65535")
        scales = {numbers(text, module)[0] for text in group["scales"]} if group["blur"] == "Yes" else set()
        if beyond := scales - QUALITY_SCALES:
            listed = ", ".join(f"{b:g}" for b in sorted(beyond))
            importer.say("missing", module, f"blur at {listed}; here at 5, 10, 20 and 50")
        others = group["all_methods"] == "Yes" or any(m != ["Otsu", "Two classes"] for m in group["methods"])
        if group["thresholds"] == "Yes" and others:
            importer.say("missing", module, "thresholds other than Otsu's with two classes")


FEATURES: dict[str, Callable[[Any, Module, Settings], None]] = {
    "MeasureColocalization": colocalization,
    "MeasureGranularity": granularity,
    "MeasureObjectIntensity": intensity,
    "MeasureObjectSizeShape": shape,
    "MeasureObjectNeighbors": neighbors,
    "MeasureObjectIntensityDistribution": distribution,
    "MeasureTexture": texture,
    "MeasureImageQuality": image_quality,
}
