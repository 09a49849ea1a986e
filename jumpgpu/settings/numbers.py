"""Which numbers this version computes, and what two runs must agree in to share a plate.

Every feature family, every other stage that stores numbers, and every preset has a numbers version here. It is raised when
stored values change and never otherwise: not when a file moves, a kernel gets faster or jumpgpu is released. A plate keeps
the versions it was made with beside the settings that are not at their default (docs/design/numbers-version.md).
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from .config import Config, build, config_folder, load_config
from .networks import EmbeddingSettings, ModelSettings
from .toml import step_table

# How to raise one: CONTRIBUTING.md, "When stored values change".
VERSIONS = {
    "illumination": 2,  # estimated functions, and the division by them
    "image_checks": 2,  # saturation and sharpness of raw images
    "image_quality": 2,
    "image_tables": 1,  # of an imported pipeline's whole images
    "segmentation": 3,
    "shape": 2,
    "correlation": 1,
    "granularity": 1,
    "intensity": 2,
    "location": 2,
    "number": 1,
    "neighbors": 1,
    "radial": 2,
    "texture": 1,
    "embedding": 1,  # crops; what the network makes of them is the network's
}
PRESETS = {"cpjump1": 1, "jump-production": 2}  # cpjump1's settings are the defaults of every other
KERNELS_OF_1 = "93b0e7f74d2dc9dbc9706f0b398c3ccb5b9cfe92807b6ffe1b11a7a80f115cd9"  # of plates older than numbers versions
ABSENT = object()


def versions_of(config: Config, segmented: bool = True) -> dict[str, int]:
    """The numbers versions of a run: name of a preset, stage or family -> version.

    segmented : whether labels are found by segmentation, not given
    """
    stages = {"illumination", "image_checks", *config.features.families}
    stages |= {"segmentation"} if segmented else set()
    stages |= {"embedding"} if config.features.embedding.models else set()
    stages |= {"image_quality"} if config.features.image_quality else set()
    stages |= {"image_tables"} if config.steps else set()
    presets = {"cpjump1", *(name for name in PRESETS if is_preset(config, name))}
    versions = {name: PRESETS[name] for name in PRESETS if name in presets}
    return versions | {name: VERSIONS[name] for name in VERSIONS if name in stages}


def is_preset(config: Config, preset: str) -> bool:
    """Whether a config measures as a preset does."""
    known = load_config(config_folder() / f"{preset}.toml")
    return all(getattr(config, part) == getattr(known, part) for part in ("illumination", "segmentation", "features"))


def changed_settings(config: Config) -> dict[str, Any]:
    """The settings that are not at their default and can move a number, as JSON values."""

    def plain(config: Config) -> Config:
        """Without what moves no number: places of images and networks, batches, the order of families and models."""
        config = with_files(config, lambda file: PurePath(file).name)  # what is in it is known by its digest
        of = config.features.embedding
        models = tuple(sorted(of.models, key=lambda m: m.name))
        of = dataclasses.replace(of, models=models, batch=EmbeddingSettings().batch)
        families = tuple(sorted(config.features.families))
        features = dataclasses.replace(config.features, families=families, embedding=of)
        plate = dataclasses.replace(config.plate, images=None, remap={}, pattern=None)
        return dataclasses.replace(config, features=features, plate=plate, batch=None)

    result: dict[str, Any] = json.loads(json.dumps(changed(plain(config), plain(Config()))))
    return result


def changed(settings: Any, default: Any) -> dict[str, Any]:
    """In what two dataclasses of one kind differ, as nested dictionaries."""
    result: dict[str, Any] = {}
    for name in (f.name for f in dataclasses.fields(settings)):
        value, usual = getattr(settings, name), getattr(default, name)
        if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(usual):
            if inner := changed(value, usual):
                result[name] = inner
        elif name in ("steps", "functions") and value != usual:
            result[name] = [spelled(step_table(step)) for step in value]
        elif name == "models" and value != usual:
            result[name] = {model.name: changed(model, ModelSettings()) for model in value}
        elif value != usual:
            result[name] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return result


def with_files(config: Config, place: Callable[[str], str]) -> Config:
    """The settings with every file of a network somewhere else."""
    embedding = config.features.embedding
    embedding = dataclasses.replace(embedding, models=tuple(model.placed(place) for model in embedding.models))
    segmentation = dataclasses.replace(config.segmentation, network=config.segmentation.network.placed(place))
    features = dataclasses.replace(config.features, embedding=embedding)
    return dataclasses.replace(config, features=features, segmentation=segmentation)


def spelled(value: Any) -> Any:
    """A value with infinities as words, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: spelled(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A plate's stored settings as plates have them today.

    Plates older than numbers versions hold every setting, and the digest of the kernels: that of the last of them stands for
    version 1 of everything, another is kept, and agrees with nothing.
    """
    if "numbers" in settings or "config" not in settings or "libraries" not in settings:
        return dict(settings)
    kept = {k: v for k, v in settings.items() if k not in ("jumpgpu", "libraries", "kernels", "config")}
    try:
        config = build(Config, {**settings["config"], "batch": None}, "stored settings")
    except (ValueError, TypeError):  # settings that are no longer known, so they cannot be asked for again
        return kept | {"config": settings["config"], "numbers": {"kernels": settings["kernels"]}}
    numbers = dict.fromkeys(versions_of(config, settings.get("labels") != "given"), 1)
    if settings["kernels"] != KERNELS_OF_1:
        numbers = {"kernels": settings["kernels"]}
    return kept | {"config": changed_settings(config), "numbers": numbers}


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One line for each numbers version or setting in which a plate and a run differ; none where they agree."""
    default = {"config": json.loads(json.dumps(dataclasses.asdict(Config())))}
    stored, asked = comparable(stored), comparable(asked)
    kernels = stored.get("numbers", {}).get("kernels")
    if not kernels:
        return compare(stored, asked, default)
    unknown = f"numbers versions: the plate is older than they are, made with kernels {kernels[:12]} that are not known"
    return [unknown, *compare({**stored, "numbers": {}}, {**asked, "numbers": {}}, default)]


def compare(stored: Any, asked: Any, default: Any = ABSENT, path: str = "") -> list[str]:
    """`differences` of two trees below a path; `default` is what a setting is that is in neither."""
    trees = [{} if tree is ABSENT else tree for tree in (stored, asked)]
    if all(isinstance(tree, Mapping) for tree in trees):
        usual = default if isinstance(default, Mapping) else {}
        result = []
        for key in sorted(set(trees[0]) | set(trees[1])):
            left, right, middle = (tree.get(key, ABSENT) for tree in (*trees, usual))
            result += compare(left, right, middle, f"{path}.{key}" if path else key)
        return result
    if stored == asked:
        return []
    kind, _, name = path.partition(".")
    if kind == "numbers":
        return [f"numbers version of {name}: stored {spoken(stored)}, this jumpgpu has {spoken(asked)}"]
    return [f"{path}: stored {spoken(stored, default)}, asked {spoken(asked, default)}"]


def spoken(value: Any, default: Any = ABSENT) -> str:
    """A value in a line; of one that is absent the default, where there is one."""
    if value is not ABSENT:
        return str(value)
    return "absent" if default is ABSENT else str(default)
