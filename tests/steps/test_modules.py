"""A hundred modules of images, objects and arithmetic in one pipeline, beside what CellProfiler 4.2.8.1 made of it."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import read
from jumpgpu.gpu.open import open_device
from jumpgpu.settings import filter_steps, object_steps
from jumpgpu.settings import steps as kinds
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import State

from .modules.make import HERE, checksum, images

COLOURS = ("ColorRed", "ColorGreen", "ColorBlue", "ColorPlane1", "ColorPlane2", "ColorPlane3")
PLANES = dict(zip(COLOURS, (*images(), *images()), strict=True))
ROUNDED = {"DIC"}  # Fourier transforms of another SciPy


@cache
def expected(which: str) -> dict[str, Any]:
    return dict(json.loads((HERE / f"{which}.json").read_text()))


@cache
def made(which: str) -> State:
    """Our state after a pipeline here."""
    translator = read(read_pipeline(HERE / f"{which}.cppipe"))
    assert not [f for f in translator.said() if f.level != "note"]
    steps = translator.steps
    pixels = {
        step.channel: torch.from_numpy(
            images()[PLANES.get(step.channel, step.image)].astype(np.float32) / np.float32(65535)
        )[None]
        for step in steps
        if isinstance(step, kinds.Load)
    }
    return run_steps(steps, pixels, {}, open_device("cpu"))


@pytest.fixture(autouse=True)
def libraries() -> None:
    pytest.importorskip("centrosome")
    pytest.importorskip("mahotas")


def of_both(what: str) -> list[tuple[str, str]]:
    return [(which, name) for which in ("modules", "more") for name in expected(which)[what]]


@pytest.mark.parametrize(("which", "name"), of_both("images"))
def test_images(which: str, name: str) -> None:
    crc, total = expected(which)["images"][name]
    pixels = made(which).images[name].pixels[0].numpy()
    if name in ROUNDED:
        assert float(np.nansum(pixels, dtype=float)) == pytest.approx(total, rel=1e-7)
    else:
        assert checksum(pixels) == crc
    valid = made(which).images[name].valid
    mask = np.ones(pixels.shape) if valid is None else valid[0].numpy()
    assert checksum(mask) == expected(which)["masks"].get(name, checksum(np.ones(pixels.shape)))


@pytest.mark.parametrize(("which", "name"), of_both("labels"))
def test_objects(which: str, name: str) -> None:
    output = made(which).objects[name]
    labels, unedited, not_small = (t[0].numpy() for t in (output.labels, output.unedited, output.not_small))
    assert labels.max() > (1 if which == "modules" else 0)
    assert [checksum(labels), checksum(unedited), checksum(not_small)] == expected(which)["labels"][name]


@pytest.mark.parametrize(("which", "minimum"), [("modules", 150), ("more", 300)])
def test_columns(which: str, minimum: int) -> None:
    n = 0
    for name, columns in expected(which)["columns"].items():
        of = made(which).image_measured if name == "Image" else made(which).measured[name]
        for column, values in columns.items():
            ours = of[column].numpy()
            if (name, column[:16]) == ("O2b", "Location_Center_"):  # CellProfiler leaves out the object that is gone
                assert np.isnan(ours[0]) or column.endswith("Z")
                ours = ours[1:]
            np.testing.assert_allclose(ours, values, rtol=1e-6, atol=1e-9, err_msg=f"{name} {column}")
            n += 1
    assert n > minimum


def test_every_step_of_filters_and_objects_is_in_it() -> None:
    there = {type(step) for which in ("modules", "more") for step in read(read_pipeline(HERE / f"{which}.cppipe")).steps}
    assert {*filter_steps.KINDS.values(), *object_steps.KINDS.values()} <= there
