"""Every stored number over drawn fields, as digests by family, stage and preset: what `numbers.json` keeps.

The fields are drawn in whole numbers alone, so that they are the same on every machine; values are digested as they are
stored, float32, which is coarser than what machines differ in. A case is one way to run a family: with its defaults on a
field as large as real ones, with every optional column there, and with each of its settings at another value on a small
field. A new setting makes its cases by itself. `python -m tools.numbers` writes the file.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jumpgpu.features import image_quality as quality
from jumpgpu.features.embedding import Crops
from jumpgpu.features.families import FAMILIES, measure_batch
from jumpgpu.features.objects import ObjectBatch, make_batch, segment_batch
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images.focus import check_image, count_image
from jumpgpu.images.illumination import correct, polynomial, smooth
from jumpgpu.images.indexes.flatfield import Flatfield
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings import limits, table_steps
from jumpgpu.settings import steps as kinds
from jumpgpu.settings.config import (
    FeatureSettings,
    IlluminationSettings,
    PrimarySettings,
    SegmentationSettings,
    ThresholdSettings,
    config_folder,
    load_config,
)
from jumpgpu.settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS
from jumpgpu.settings.networks import ModelSettings
from jumpgpu.settings.numbers import PRESETS, VERSIONS
from jumpgpu.steps.run import run_steps

RECORD = Path(__file__).with_name("numbers.json")
LARGE, SMALL = (1080, 1080), (307, 401)  # a camera's field, and one of two dozen cells
METHODS = ("minimum_cross_entropy", "otsu2", "otsu3", "robust_background", "manual")
ROBUST = ("lower_outliers", "upper_outliers", "deviations", "averaging", "variance")
OF_METHOD = {  # settings of a threshold that only some methods look at
    "method": (),
    "manual": ("manual",),
    "middle_class": ("otsu3",),
    "log_transform": ("otsu2", "otsu3"),
    **dict.fromkeys(ROBUST, ("robust_background",)),
}
Digests = dict[str, str]  # case -> digest


def digest(*arrays: Any) -> str:
    """Of values as they are stored: float32 with one NaN and one zero; whole numbers as they are."""
    state = hashlib.sha256()
    for array in arrays:
        values = np.array(array)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore", under="ignore"):
                values = values.astype(np.float32) + np.float32(0)
            values[np.isnan(values)] = np.nan
        state.update(f"{values.shape}".encode() + values.tobytes())
    return state.hexdigest()[:16]


@cache
def draw(size: tuple[int, int], channels: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Raw counts, uint16 [C, H, W], and compartment -> int32 [H, W], of cells of every size from one pixel up.

    Cells touch each other and all borders; some are giants, some without nucleus or cytoplasm, some have a hole. A patch
    is saturated and one constant.
    """
    rng = np.random.RandomState(seed)
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.int64)
    labels = {name: np.zeros(size, np.int32) for name in COMPARTMENTS}
    cells, n, pitch = labels["Cells"], 0, 88 if height > 500 else 54
    ramp = (3 * x + 2 * y) * 60 // (height + width)
    images = np.stack([400 + 40 * c + ramp for c in range(channels)])
    cells[1, 9] = labels["Nuclei"][1, 9] = n = 1  # a cell of one pixel
    for top in range(0, height, pitch):
        for left in range(0, width, pitch):
            v, u = y - top - rng.randint(pitch), x - left - rng.randint(pitch)
            a, b, p, q = (rng.randint(*span) for span in ((22, 44), (18, 34), (1, 8), (0, 8)))
            kind = rng.randint(14)
            if kind == 0:
                a, b = 3 * a, 2 * b
            far = ((p * u + q * v) * b) ** 2 + ((p * v - q * u) * a) ** 2
            far = far * 1024 // (a * a * b * b * (p * p + q * q))  # 1024 at the cell's outline
            cell = (far <= 1024) & (cells == 0)
            nucleus = cell & (far <= (-1 if kind == 1 else 1024 if kind == 2 else 400))
            if not cell.any():
                continue
            n += 1
            cells[cell], labels["Nuclei"][nucleus], labels["Cytoplasm"][cell & ~nucleus] = n, n, n
            for image in images:
                image[cell] += (1024 - far[cell]) * rng.randint(1, 9)
                image[nucleus] += rng.randint(400, 5000)
                image[nucleus & (far < 12 * (kind == 3))] = 300  # a hole
    for image in images:
        noise = rng.randint(0, 256, (height + 4, width + 4))
        wide = sum(noise[dy : dy + height, dx : dx + width] for dy in range(5) for dx in range(5))
        image[:] = image * (2800 + wide + noise[2:-2, 2:-2]) // 6200
    images[:, 30:37, 40:52], images[:, 60:80, 90:120] = 70000, 900
    return np.clip(images, 0, 65535).astype(np.uint16), labels


@cache
def fall_off(size: tuple[int, int], channels: int) -> np.ndarray:
    """Illumination functions, float32 [C, H, W]: multiples of 1 / 4096, which are exact."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.int64)
    far = (2 * y - size[0]) ** 2 + (2 * x - size[1]) ** 2
    steps = [4096 + far * (600 + 200 * c) // (size[0] ** 2 + size[1] ** 2) for c in range(channels)]
    return np.stack(steps).astype(np.float32) / np.float32(4096)


@cache
def device() -> Device:
    return open_device("cpu")


@cache
def corrected(size: tuple[int, int], channels: int) -> torch.Tensor:
    """float32 [1, C, H, W]: the drawn field over its illumination functions."""
    raw, functions = draw(size, channels, 1)[0], fall_off(size, channels)
    return correct(device().tensor(raw[None]), device().tensor(functions), device=device())


def batch(size: tuple[int, int]) -> ObjectBatch:
    """The drawn field with the drawn labels, so that segmentation has no part in it; the small one with all channels."""
    names = CHANNELS if size == LARGE else (*CHANNELS, *BRIGHTFIELD)
    labels = draw(size, len(names), 1)[1]
    result = {name: device().tensor(image[None]) for name, image in labels.items()}
    beyond = draw(size, len(names), 2)[1]["Nuclei"]  # objects that were found and not kept
    free = (beyond > 0) & (labels["Cells"] == 0)
    unfiltered = {
        name: device().tensor(np.where(free, beyond + labels["Cells"].max(), image)[None]) for name, image in labels.items()
    }
    return make_batch(names, corrected(size, len(names)), result, unfiltered, device())


def others(kind: str, name: str, value: Any) -> list[Any]:
    """What a setting's value is changed to, once each; ValueError for a setting that no rule knows."""
    limit = limits.LIMITS.get(kind, {}).get(name)
    if isinstance(value, bool):
        return [not value]
    if isinstance(limit, tuple):
        return [word for word in limit if word != value]
    if name == "channel":
        return ["ER" if value == "DNA" else "DNA"]
    if value is None and name in ("window", "max_objects"):
        return [40 if name == "window" else 3]
    if name == "order":
        return [("RNA", "DNA")]
    if isinstance(value, tuple):
        return [tuple(2 * v for v in value if v) or (4, 0), (*value[:1], 7)]
    if isinstance(value, int | float):
        tried = [2 * value, value / 2, value + 1, value - 0.5]
        tried = [int(v) for v in tried] if isinstance(value, int) else tried
        return [next(v for v in tried if v != value and (limit is None or v in limit))]
    raise ValueError(f"{kind}.{name} is {value!r}: say in {Path(__file__).name} what else it may be")


def varied(settings: Any) -> Iterator[tuple[str, Any]]:
    """A dataclass of settings with each of them, its tables' too, at another value: (what changed, settings)."""
    for name in (f.name for f in dataclasses.fields(settings)):
        value = getattr(settings, name)
        if name == "families" or value is None:
            continue
        if dataclasses.is_dataclass(value):
            changes = list(varied(value))
        else:
            changes = [(f"={spell(v)}", v) for v in others(type(settings).__name__, name, value)]
        for what, changed in changes:
            yield (
                f"{name}{what}" if what.startswith("=") else f"{name}.{what}",
                dataclasses.replace(settings, **{name: changed}),
            )


def spell(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def richest(settings: Any) -> Any:
    """Settings with every optional column: all that is off is on, and words are the last of their kind."""
    changes = {}
    for name in (f.name for f in dataclasses.fields(settings)):
        value, limit = getattr(settings, name), limits.LIMITS.get(type(settings).__name__, {}).get(name)
        if isinstance(value, bool):
            changes[name] = True
        elif isinstance(value, str) and isinstance(limit, tuple):
            changes[name] = limit[-1]
        elif dataclasses.is_dataclass(value):
            changes[name] = richest(value)
    return dataclasses.replace(settings, **changes)


def family_cases(name: str) -> Digests:
    """A family with its defaults and with every column on the large field, and each of its settings varied on the small."""
    default = FeatureSettings(families=(name,))

    def measured(size: tuple[int, int], settings: FeatureSettings) -> str:
        return digest(measure_batch(batch(size), settings, device()).cpu().numpy())

    result = {"large": measured(LARGE, default), "small": measured(SMALL, default)}
    if hasattr(default, name):
        if (rich := dataclasses.replace(default, **{name: richest(getattr(default, name))})) != default:
            result |= {"large, every column": measured(LARGE, rich)}
        for what, changed in varied(getattr(default, name)):
            result[what] = measured(SMALL, dataclasses.replace(default, **{name: changed}))
    return result


def segmentation_cases() -> Digests:
    """Labels, and those before any was discarded, of the defaults and of each setting changed, by each threshold method."""

    def labels(settings: SegmentationSettings, size: tuple[int, int] = SMALL) -> str:
        result = segment(corrected(size, len(CHANNELS)), CHANNELS, settings, device())
        images = [result.labels[c] for c in COMPARTMENTS] + [result.unfiltered[c] for c in ("Cells", "Nuclei")]
        return digest(*(image.cpu().numpy() for image in (*images, *result.thresholds.values())))

    default = SegmentationSettings()
    result = {"large": labels(default, LARGE)}
    by_us = [(what, s) for what, s in varied(default) if ".threshold." not in what and s.method == default.method]
    result |= {what: labels(settings) for what, settings in by_us}
    nuclei = default.nuclei
    result["nuclei.background=none"] = labels(
        dataclasses.replace(default, nuclei=dataclasses.replace(nuclei, background=None))
    )
    free = dataclasses.replace(nuclei, smoothing=None, suppression=None)
    result["nuclei.smoothing and suppression by diameter"] = labels(dataclasses.replace(default, nuclei=free))
    for step in ("nuclei", "cells"):
        for method in METHODS:
            base = dataclasses.replace(getattr(default, step).threshold, method=method, manual=0.06, lower=0.001, upper=0.9)
            result[f"{step}.{method}"] = labels(with_threshold(default, step, base))
            for what, threshold in varied(base):
                if method in OF_METHOD.get(what.partition("=")[0], METHODS):
                    result[f"{step}.{method}.{what}"] = labels(with_threshold(default, step, threshold))
    for method in limits.LIMITS["SecondarySettings"]["method"]:
        base = dataclasses.replace(default.cells, method=str(method))
        for what, cells in varied(base):
            if not what.startswith(("method", "threshold")):
                result[f"cells.{method}.{what}"] = labels(dataclasses.replace(default, cells=cells))
    return result


def with_threshold(settings: SegmentationSettings, step: str, threshold: ThresholdSettings) -> SegmentationSettings:
    return dataclasses.replace(settings, **{step: dataclasses.replace(getattr(settings, step), threshold=threshold)})


def illumination_cases() -> Digests:
    """Functions of a plate's mean image and of Harmony's polynomial, and the fields divided by them."""
    raw = draw(LARGE, len(CHANNELS), 1)[0]
    sums = sum(draw(SMALL, len(CHANNELS), seed)[0][0].astype(np.int64) for seed in (1, 2, 3))
    mean, settings = sums / (65535.0 * 3), IlluminationSettings()
    profile = Flatfield(
        ((1.0,), (0.125, -0.0625), (-0.5, 0.25, -0.375)), (502, 406), (250.0, 202.0), (0.001953125, 0.001953125)
    )
    result = {"large": digest(corrected(LARGE, len(CHANNELS)).cpu().numpy()), "estimate": digest(smooth(mean, settings))}
    result["estimate, large"] = digest(smooth(raw[0] / 65535.0, settings))
    whole = device().tensor(raw[None] // 16), device().tensor(fall_off(LARGE, len(CHANNELS)))
    scaled = correct(*whole, device=device(), scales=[[4095.0] * len(CHANNELS)])  # as a file may say of 12 bits
    result["12 bits"] = digest(scaled.cpu().numpy())
    result["flatfield"] = digest(polynomial(profile, SMALL, settings.quantile))
    return result | {f"estimate, {what}": digest(smooth(mean, changed)) for what, changed in varied(settings)}


def image_cases(measure: Callable[[tuple[int, int]], Any]) -> Digests:
    return {"large": digest(measure(LARGE)), "small": digest(measure(SMALL))}


def embedding_cases() -> Digests:
    """Crops as every setting of a model makes them: what a network makes of them is the network's."""
    small = batch(SMALL)
    base = ModelSettings(name="n", model="random_convolutions", channels=("RNA", "DNA"), crop=40.0, size=32)
    fixed = {"normalize": "fixed", "mean": (0.01, 0.02), "std": (0.03,)}
    cases = [{}, {"precision": "float16"}, {"size": None}, {"crop": 33.3}, fixed]
    for name in ("resize", "center", "mask", "padding", "normalize"):
        words = limits.LIMITS["ModelSettings"][name]
        assert isinstance(words, tuple)
        cases += [{name: word} for word in words if word not in (getattr(base, name), "fixed", "plate")]
    result = {}
    for change in cases:
        crops = Crops(small, dataclasses.replace(base, **change), device())  # type: ignore[arg-type]
        result[",".join(f"{k}={spell(v)}" for k, v in change.items()) or "small"] = digest(
            crops.part(0, small.objects.n).cpu().numpy()
        )
    return result


def image_checks(size: tuple[int, int]) -> list[tuple[float, float]]:
    return [check_image(count_image(image)) for image in draw(size, len(CHANNELS), 1)[0]]


def image_quality(size: tuple[int, int]) -> np.ndarray:
    return quality.measure_images(corrected(size, len(CHANNELS)), CHANNELS, device()).numpy()


def image_tables(size: tuple[int, int]) -> np.ndarray:
    """What steps measure of whole images; not how thresholds part them, which NumPy's logarithms of the machine say."""
    names, pixels = CHANNELS[:3], corrected(size, len(CHANNELS))
    methods = ("Otsu_2W", "Otsu_3FS", "MoG_25", "Background", "RobustBackground", "RidlerCalvard", "MCT")
    steps = [
        *(kinds.Load(name, name) for name in names),
        kinds.MaskImage("DNA", "Masked", mask="ER"),
        kinds.Primary("DNA", "Nuclei", PrimarySettings(background=None)),
        *(kinds.MeasureImageIntensity(name, percentiles=(10,)) for name in (*names, "Masked")),
        kinds.MeasureImageIntensity("RNA", ("Nuclei",)),
        table_steps.MeasureImageQuality(names, True, (5, 20), True, True, methods),
        table_steps.MeasureImageTexture(names, (3,)),
        table_steps.MeasureImageGranularity(names, spectrum=5),
        table_steps.MeasureImageCorrelation((*names, "Masked")),
        table_steps.MeasureAreaOccupied(("Nuclei",)),
    ]
    planes = {name: pixels[:, i] for i, name in enumerate(CHANNELS)}
    measured = run_steps(steps, planes, {}, device()).image_measured
    parted = ("Threshold_SumOfEntropies", "Threshold_WeightedVariance")
    return np.array([v.tolist() for name, v in measured.items() if not name.startswith(parted)])


def preset_cases(name: str) -> Digests:
    """A preset from corrected fields to the table, as a run does it."""
    config = load_config(config_folder() / f"{name}.toml")
    result = {}
    for case, size in (("large", LARGE), ("small", SMALL)):
        measured = segment_batch(corrected(size, len(CHANNELS)), CHANNELS, config.segmentation, device())
        result[case] = digest(measure_batch(measured, config.features, device()).cpu().numpy())
    return result


CASES: dict[str, Callable[[], Digests]] = {
    "illumination": illumination_cases,
    "image_checks": lambda: image_cases(image_checks),
    "image_quality": lambda: image_cases(image_quality),
    "image_tables": lambda: image_cases(image_tables),
    "segmentation": segmentation_cases,
    **{name: lambda name=name: family_cases(name) for name in FAMILIES},  # type: ignore[misc]
    "embedding": embedding_cases,
    **{name: lambda name=name: preset_cases(name) for name in PRESETS},  # type: ignore[misc]
}


def version_of(name: str) -> int:
    return PRESETS[name] if name in PRESETS else VERSIONS[name]


def complaints(name: str, result: Digests, record: dict[str, Any]) -> list[str]:
    """What is wrong with a version, a line each, given the digests of today and those of the record."""
    kept = record.get(name, {"version": 0, "cases": {}})
    if version_of(name) < kept["version"]:
        return [f"{name}: its numbers version is {version_of(name)}, and {kept['version']} was there before"]
    if version_of(name) > kept["version"]:
        return []
    moved = [case for case, value in kept["cases"].items() if result.get(case, value) != value]
    listed = ", ".join(moved[:6]) + (f", ... ({len(moved)})" if len(moved) > 6 else "")
    return (
        [f"{name}: values moved ({listed}) and its numbers version did not: raise it, if they are meant to move"]
        if moved
        else []
    )
