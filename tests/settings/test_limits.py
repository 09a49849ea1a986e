"""Every end of every documented range either runs on a small field in bounded time or is refused where settings are read."""

import dataclasses
import math
import signal
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import jumpgpu
from jumpgpu.features.families import measure_batch
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import smooth
from jumpgpu.segmentation.pipeline import segment
from jumpgpu.settings import limits
from jumpgpu.settings.config import Config, TextureSettings, build, load_config
from jumpgpu.settings.names import CHANNELS
from tests.helpers.numbers_drawn import corrected
from tests.helpers.plates import write_images

SIZE = 160, 160
SECONDS = 40
LARGE = {int: 2**31 - 1, float: 1e300}  # stands for no bound
Path = tuple[str, ...]

# What else must be set for a setting to matter, by its last name; several where it matters in several ways.
WITH: dict[str, list[dict[str, Any]]] = {
    "lower_outliers": [{"method": "robust_background", "upper_outliers": 0.0}],
    "upper_outliers": [{"method": "robust_background", "lower_outliers": 0.0}],
    "deviations": [{"method": "robust_background"}],
    "manual": [{"method": "manual"}],
    "window": [{"method": m} for m in ("minimum_cross_entropy", "otsu2", "otsu3", "robust_background")],
    "lower": [{"upper": 1.0}],
    "upper": [{"lower": 0.0}],
    "distance": [{"method": "distance"}],
    "regularization": [{"method": "propagation"}],
    "min_diameter": [
        {"max_diameter": 10_000.0},
        {"max_diameter": 10_000.0, "smoothing": "none", "suppression": "none", "declump": "intensity"},
        {"max_diameter": 10_000.0, "smoothing": "none", "suppression": "none", "low_resolution_maxima": False},
    ],
    "max_diameter": [{"min_diameter": 1e-9, "fill_holes": "both"}],
    "smoothing": [{}, {"declump": "intensity", "dividing_lines": "intensity"}],
    "suppression": [
        {"declump": declump, "low_resolution_maxima": low} for declump in ("shape", "intensity") for low in (True, False)
    ],
}


def numeric(kind: Any = Config, path: Path = ()) -> Iterator[tuple[Path, type, bool, limits.Range]]:
    """Every setting that is a number, or a list of them: its place, type, whether it is a list, and its range."""
    hints = typing.get_type_hints(kind)
    for name in (f.name for f in dataclasses.fields(kind)):
        origin, arguments = typing.get_origin(hints[name]), typing.get_args(hints[name])
        inner = [a for a in (hints[name], *arguments) if a in (int, float) or dataclasses.is_dataclass(a)]
        if origin is dict or not inner:
            continue
        if dataclasses.is_dataclass(inner[0]):
            yield from numeric(inner[0], (*path, name))
            continue
        limit = limits.LIMITS.get(kind.__name__, {}).get(name, limits.FINITE)
        assert isinstance(limit, limits.Range), f"{kind.__name__}.{name} has no range"
        yield (*path, name), inner[0], origin is tuple, limit


def ends(number: type, limit: limits.Range) -> list[Any]:
    low = limit.minimum if limit.minimum > -math.inf else -LARGE[number]
    high = limit.maximum if limit.maximum < math.inf else LARGE[number]
    if limit.above:
        low = low + (1 if number is int else 1e-9)
    return [number(low), number(high)]


def table(path: Path, value: Any, more: dict[str, Any]) -> dict[str, Any]:
    """The settings as a TOML file has them; what else is there stands beside the value where it has such a key."""
    if path[:2] == ("features", "embedding"):
        fixed = {"normalize": "fixed", "mean": [0.1], "std": [0.1]} if path[-1] in ("mean", "std") else {}
        model = {"name": "bank", "model": "random_convolutions", "channels": ["DNA"], "size": 32, **fixed}
        own, of_model = ({}, {path[-1]: value}) if path[2] == "models" else ({path[-1]: value}, {})
        return {"features": {"embedding": {**own, "models": [{**model, **of_model}]}}}
    if path[:2] == ("segmentation", "network"):
        return {"segmentation": {"method": "cellpose", "network": {"nuclei": "nuclei", path[-1]: value}}}
    names = {f.name for f in dataclasses.fields(owner(path))}
    output: dict[str, Any] = {path[-1]: value, **{k: v for k, v in more.items() if k in names}}
    for name in reversed(path[:-1]):
        output = {name: output}
    return output


def owner(path: Path) -> Any:
    settings: Any = Config()
    for name in path[:-1]:
        settings = getattr(settings, name)
    return settings


CASES = [
    (path, [value] if listed else value, more)
    for path, number, listed, limit in numeric()
    for value in ends(number, limit)
    for more in (WITH.get(path[-1], [{}]))
]


@pytest.fixture
def bounded() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(("path", "value", "more"), CASES, ids=lambda v: ".".join(v) if isinstance(v, tuple) else str(v))
def test_both_ends_of_every_range_run(path: Path, value: Any, more: dict[str, Any], device: Device) -> None:
    config = build(Config, table(path, value, more), "lab.toml")
    if path[0] == "illumination":
        mean = np.random.default_rng(0).random(SIZE)
        function = smooth(mean, config.illumination)
        assert function.shape == SIZE
        assert np.isfinite(function).all()
        return
    if path[:2] == ("segmentation", "network"):  # the network's own, which is not here
        assert getattr(config.segmentation.network, path[-1]) == value
        return
    pixels = corrected(SIZE, len(CHANNELS))
    if path[-1] == "window" and value > min(SIZE) // 2:  # what follows from the field's size is refused once that is known
        with pytest.raises(ValueError, match=r"threshold.window is 10000; of a field of 160 x 160 it may be 80 at most"):
            segment(pixels, CHANNELS, config.segmentation, device)
        return
    result = segment(pixels, CHANNELS, config.segmentation, device)
    assert (result.counts >= 0).all()
    if path[0] == "features":
        features = dataclasses.replace(config.features, families=(path[1],))
        batch = make_batch(CHANNELS, pixels, result.labels, result.unfiltered, device)
        if path[-1] == "size" and value == 1:  # crops may be a pixel; this network's kernels are larger
            with pytest.raises(ValueError, match=r"model 'bank' does not take crops \[2, 1, 1, 1\]"):
                measure_batch(batch, features, device)
            return
        assert len(measure_batch(batch, features, device)) == batch.objects.n


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("suppression", [8.0, 500.0])
@pytest.mark.parametrize("declump", ["shape", "intensity"])
def test_maxima_of_a_saturated_field(declump: str, suppression: float, device: Device) -> None:
    """All pixels are equal, so that each is compared with every other within the distance."""
    more = {"declump": declump, "dividing_lines": declump, "low_resolution_maxima": False, "background": "none"}
    config = build(Config, table(("segmentation", "nuclei", "suppression"), suppression, more), "lab.toml")
    pixels = torch.full((1, 2, *SIZE), 0.9)
    assert segment(pixels, ("DNA", "RNA"), config.segmentation, device).counts.tolist() == [0]  # it touches the border


@pytest.mark.parametrize(
    ("path", "number", "listed", "limit"), list(numeric()), ids=lambda v: ".".join(v) if isinstance(v, tuple) else ""
)
def test_what_lies_beyond_is_refused_where_settings_are_read(
    path: Path, number: type, listed: bool, limit: limits.Range
) -> None:
    low, high = ends(number, limit)
    step = 1 if number is int else max(1e-6, abs(high) * 1e-6)
    beyond = [high + step] * (limit.maximum < math.inf) + [limit.minimum if limit.above else low - step] * (
        limit.minimum > -math.inf
    )
    for value in [*beyond, *[float("nan"), float("inf")] * (number is float)]:
        with pytest.raises(ValueError, match=f"{path[-1]}: expected"):
            build(Config, table(path, [value] if listed else value, {}), "lab.toml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("features", "texture", "scales"), [3, 3]),
        (("features", "texture", "scales"), [3, 5, 3]),
        (("features", "neighbors", "cells"), [5, 0, 5]),
        (("features", "families"), ["shape", "shape"]),
        (("features", "correlation", "order"), ["DNA", "RNA", "DNA"]),
        (("plate", "channels"), ["DNA", "DNA"]),
    ],
)
def test_a_value_twice_is_refused(path: Path, value: list[Any]) -> None:
    with pytest.raises(ValueError, match=f"{path[-1]}: expected each once, got .* 2 times"):
        build(Config, table(path, value, {}), "lab.toml")


def test_more_distances_than_are_measured_at_once() -> None:
    assert build(Config, table(("features", "neighbors", "cells"), list(range(8)), {}), "lab.toml")
    with pytest.raises(ValueError, match="cells: expected at most 8 values, got 9"):
        build(Config, table(("features", "neighbors", "cells"), list(range(9)), {}), "lab.toml")


def test_outliers_leave_pixels() -> None:
    path = ("segmentation", "nuclei", "threshold", "upper_outliers")
    with pytest.raises(ValueError, match=r"upper_outliers: expected at most 0\.99 with lower_outliers, got 1\.4 together"):
        build(Config, table(path, 0.9, {"lower_outliers": 0.5}), "lab.toml")


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 5)])
def test_robust_background_of_few_pixels(shape: tuple[int, int], device: Device) -> None:
    more = {"method": "robust_background", "lower_outliers": 0.5}
    config = build(Config, table(("segmentation", "nuclei", "threshold", "upper_outliers"), 0.49, more), "lab.toml")
    pixels = torch.full((1, 2, *shape), 0.25)
    assert segment(pixels, ("DNA", "RNA"), config.segmentation, device).counts.numel() == 1


def test_settings_of_a_program_are_checked_too(tmp_path, monkeypatch) -> None:
    """A Config that no file was read for: refused before the store is made."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    features = dataclasses.replace(Config().features, texture=TextureSettings(scales=(3, 3)))
    config = dataclasses.replace(Config(), features=features)
    with pytest.raises(ValueError, match="config: features: texture: scales: expected each once, got 3 2 times"):
        jumpgpu.extract("DEMO", images="images", masks="masks", illumination="none", config=config, output="out")
    assert not (tmp_path / "out").exists()


def test_a_field_too_wide_for_its_blocks_is_refused_before_the_store(tmp_path, monkeypatch) -> None:
    """How many blocks a row has follows from the images; it is known before anything is written."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    monkeypatch.setattr("jumpgpu.segmentation.background.MAX", 20)  # of a field 64 pixels wide
    (tmp_path / "lab.toml").write_text("[segmentation.nuclei.background]\nblock = 2\n")
    with pytest.raises(
        ValueError, match=r"background.block is 2: a field 64 pixels wide has 32 such blocks in a row, of 20 at"
    ):
        jumpgpu.extract("DEMO", images="images", illumination="none", config="lab.toml", output="out", device="cpu")
    assert not (tmp_path / "out" / "DEMO.zarr").exists()


@pytest.mark.parametrize("step", ["nuclei", "cells"])
def test_a_window_too_large_for_the_field_is_refused_before_the_store(step: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    (tmp_path / "lab.toml").write_text(f"[segmentation.{step}.threshold]\nwindow = 40\n")
    with pytest.raises(ValueError, match=r"threshold.window is 40; of a field of \d+ x \d+ it may be"):
        jumpgpu.extract("DEMO", images="images", illumination="none", config="lab.toml", output="out", device="cpu")
    assert not (tmp_path / "out" / "DEMO.zarr").exists()


def test_a_batch_larger_than_the_plate(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    given = {"images": "images", "masks": "masks", "illumination": "none", "device": "cpu", "config": "cpjump1"}
    plate = jumpgpu.extract("DEMO", output="out", batch=2**31 - 1, **given)
    assert plate.wells == jumpgpu.extract("DEMO", output="other", **given).wells


@pytest.mark.parametrize("preset", ["cpjump1", "jump-production"])
def test_presets_are_within_their_ranges(preset: str) -> None:
    limits.check_all(load_config(preset), preset)
