"""Settings of networks: which give columns of the Embedding family, on which crops, and which find masks."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath

NAME = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")
FUNCTION = re.compile(r".+\.py:[A-Za-z_]\w*")
RANDOM = "random_convolutions"  # a fixed bank, the baseline that needs no weights
FILES = (".pt", ".ts", ".pt2", ".onnx")  # networks that are a file: TorchScript (two), torch.export, ONNX
MAX_SIDE = 1024  # pixels of a window's side, and of a crop's


@dataclass(frozen=True)
class ModelSettings:
    """A network and the crops that it is given, `[[features.embedding.models]]`; name, model and channels must be said."""

    name: str = ""  # what columns call it: Cells_Embedding_<name>_0001
    model: str = ""  # timm:NAME, a file (.pt TorchScript, .pt2, .onnx), FILE.py:FUNCTION, or random_convolutions
    weights: str | None = None  # of timm and FILE.py: .safetensors, or .pth of tensors; timm: random, pretrained too
    channels: tuple[str, ...] = ()  # by name, in the order in which the network takes them
    per_channel: int | None = None  # every channel goes by itself, as this many equal channels, and has its own columns
    crop: float = 96.0  # side of the window around a cell
    unit: str = "pixels"  # of `crop`: pixels, or um by the plate's pixel size
    size: int | None = None  # pixels of the network's input along its side; none: the window's
    resize: str = "area"  # area: the mean of what a pixel covers; bilinear: between the four nearest pixels
    center: str = "Nuclei"  # of the window: the mean of the pixels of Nuclei or Cells
    mask: str = "none"  # pixels outside this compartment are 0: none, Nuclei, Cells, Cytoplasm
    padding: str = "zero"  # beyond the field: 0, the field mirrored (reflect), or its border's pixel (edge)
    normalize: str = "crop"  # less the mean, by the deviation, of each channel over the crop, field or plate; fixed; or none
    mean: tuple[float, ...] = ()  # of `fixed`, 0..1: one per channel, or one
    std: tuple[float, ...] = ()  # of `fixed`: likewise
    precision: str = "float32"  # of crops and network: float32, float16

    @property
    def groups(self) -> tuple[str, ...]:
        """What columns are named for after the model: channels that go by themselves, or nothing once."""
        return self.channels if self.per_channel else ("",)

    @property
    def in_file(self) -> bool:
        """Whether the network is a file, not a name."""
        return self.model.endswith(FILES) or FUNCTION.fullmatch(self.model) is not None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is read from."""
        named = [self.model.rpartition(":")[0] if ".py:" in self.model else self.model] if self.in_file else []
        return (*named, *([self.weights] if self.weights and "." in self.weights else []))

    def side(self, pixel_um: float | None) -> float:
        """The window's side in pixels of the field; ValueError where it needs a pixel size that is not known."""
        if self.unit == "pixels":
            return self.crop
        if not pixel_um:
            raise ValueError(
                f"features.embedding: model {self.name!r}: crop = {self.crop:g} um, and the plate does not say how large a "
                'pixel is; give crop in pixels (unit = "pixels")'
            )
        side = self.crop / pixel_um
        if not 1 <= side <= MAX_SIDE:
            raise ValueError(
                f"features.embedding: model {self.name!r}: crop = {self.crop:g} um is {side:.4g} pixels of {pixel_um:g} um; "
                f"1 to {MAX_SIDE} are accepted"
            )
        return side

    def placed(self, place: Callable[[str], str]) -> "ModelSettings":
        """With its files where `place` says."""
        weights = self.weights and (place(self.weights) if self.weights in self.files else self.weights)
        return replace(self, model=placed(self.model, place) if self.in_file else self.model, weights=weights)

    def mistake(self) -> str | None:
        """What no single setting's range says, in words: `key: expected ..., got ...`."""
        if not NAME.fullmatch(self.name):
            return f"name: expected letters and digits, parted by single _ or -, got {self.name!r}"
        known = self.model.startswith("timm:") or self.model == RANDOM or self.model.endswith(FILES)
        if not known and not FUNCTION.fullmatch(self.model):
            return (
                f"model: expected timm:NAME, a file ({', '.join(FILES)}), FILE.py:FUNCTION or {RANDOM}, got {self.model!r}"
            )
        if not self.channels:
            return "channels: expected names in the order in which the network takes them, got none"
        if self.model.startswith("timm:") and not self.weights:
            return 'weights: expected a file for timm, "random" or "pretrained" (downloaded), got none'
        if self.weights and not (self.model.startswith("timm:") or ".py:" in self.model):
            return f"weights: {self.model} has its own; leave them out"
        if self.weights in ("random", "pretrained") and not self.model.startswith("timm:"):
            return f"weights: {self.weights!r} is for timm:NAME; expected a .safetensors or .pth file"
        if (
            self.weights
            and self.weights not in ("random", "pretrained")
            and PurePath(self.weights).suffix
            not in (
                ".safetensors",
                ".pth",
            )
        ):
            return f"weights: expected a .safetensors file or a .pth of tensors alone, got {self.weights!r}"
        if self.size is None and self.unit == "um":
            return (
                "size: expected pixels of the network's input, since a crop in um has another number on each plate, got none"
            )
        if self.size is None and self.crop != math.floor(self.crop):
            return f"size: expected pixels of the network's input where crop is not a whole number ({self.crop:g}), got none"
        for key, values in (("mean", self.mean), ("std", self.std)):
            if self.normalize == "fixed" and len(values) not in (1, len(self.channels)):
                wanted = f"1 or {len(self.channels)} values, one per channel"
                return f"{key}: expected {wanted}, for normalize = fixed, got {len(values)}"
            if self.normalize != "fixed" and values:
                return f"{key}: only normalize = fixed takes it, and normalize is {self.normalize}"
        return None


@dataclass(frozen=True)
class EmbeddingSettings:
    """Columns of networks, measured where there are models."""

    models: tuple[ModelSettings, ...] = ()  # tables [[features.embedding.models]], below
    batch: int = 64  # crops that a network is given at a time: what bounds memory
    plate_fields: int = 64  # fields, spread over the plate, whose mean and deviation stand for it (normalize = plate)


@dataclass(frozen=True)
class NetworkMaskSettings:
    """Networks that find masks, where `segmentation.method` is one of theirs.

    A network that finds only nuclei leaves cells to `[segmentation.cells]`, which grows them from these nuclei.
    """

    nuclei: str | None = None  # cellpose: a file or name; stardist: a folder or name; module: FILE.py:FUNCTION
    cells: str | None = None  # a second model, for cells, of the same method; none: grown from the nuclei
    diameter: float | None = None  # of nuclei in pixels, as cellpose takes it; none: the model's own
    cell_diameter: float | None = None  # of cells
    probability: float | None = None  # cellpose: cellprob_threshold; stardist: prob_thresh; none: the model's own

    def mistake(self, method: str) -> str | None:
        """What does not go with `segmentation.method`."""
        given = [
            name
            for name in ("nuclei", "cells", "diameter", "cell_diameter", "probability")
            if getattr(self, name) is not None
        ]
        taken = {"cellprofiler": (), "module": ("nuclei", "cells"), "stardist": ("nuclei", "cells", "probability")}
        if unused := [name for name in given if name not in taken.get(method, given)]:
            return f"network.{unused[0]}: method = {method} does not take it"
        if method != "cellprofiler" and self.nuclei is None:
            return f"network.nuclei: expected the network that finds nuclei, for method = {method}, got none"
        for name in ("nuclei", "cells"):
            value = getattr(self, name)
            if method == "module" and value is not None and not FUNCTION.fullmatch(value):
                return f"network.{name}: expected FILE.py:FUNCTION for method = module, got {value!r}"
        return None

    @property
    def files(self) -> tuple[str, ...]:
        """Files or names of the networks."""
        return tuple(v.rpartition(":")[0] if ".py:" in v else v for v in (self.nuclei, self.cells) if v is not None)

    def placed(self, place: Callable[[str], str]) -> "NetworkMaskSettings":
        """With its files where `place` says; a name that is no file stays."""
        moved = [placed(v, place) if v and ("/" in v or ".py:" in v) else v for v in (self.nuclei, self.cells)]
        return replace(self, nuclei=moved[0], cells=moved[1])


def placed(network: str, place: Callable[[str], str]) -> str:
    """A file, or the file of FILE.py:FUNCTION, where `place` says."""
    file, colon, name = network.rpartition(":") if ".py:" in network else (network, "", "")
    return f"{place(file)}{colon}{name}"


def _check(settings: EmbeddingSettings) -> str | None:
    """What is wrong with models together."""
    names = [m.name for m in settings.models]
    twice = sorted({n for n in names if names.count(n) > 1})
    return f"models: expected each name once, got {twice[0]!r} {names.count(twice[0])} times" if twice else None


def mistake(settings: object) -> str | None:
    """What is wrong with settings of networks beside the ranges of their values; None for others, and where nothing is."""
    if isinstance(settings, ModelSettings):
        return settings.mistake()
    return _check(settings) if isinstance(settings, EmbeddingSettings) else None
