"""A hundred modules of images, objects and arithmetic in one pipeline, beside what CellProfiler 4.2.8.1 made of it."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import read
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.settings import steps as kinds
from jumpgpu.steps.run import run_steps
from jumpgpu.steps.state import State

from .modules.make import HERE, checksum, images

ROUNDED = {"DIC"}  # Fourier transforms of another SciPy


@cache
def expected() -> dict[str, Any]:
    return dict(json.loads((HERE / "expected.json").read_text()))


@pytest.fixture(scope="module")
def made() -> State:
    pytest.importorskip("centrosome")
    translator = read(read_pipeline(HERE / "modules.cppipe"))
    assert not [f for f in translator.said() if f.level != "note"]
    steps = translator.steps
    pixels = {
        step.channel: torch.from_numpy(images()[step.image].astype(np.float32) / np.float32(65535))[None]
        for step in steps
        if isinstance(step, kinds.Load)
    }
    return run_steps(steps, pixels, {}, open_device("cpu"))


@pytest.mark.parametrize("name", expected()["images"])
def test_images(name: str, made: State) -> None:
    crc, total = expected()["images"][name]
    pixels = made.images[name].pixels[0].numpy()
    if name in ROUNDED:
        assert float(np.nansum(pixels, dtype=float)) == pytest.approx(total, rel=1e-7)
    else:
        assert checksum(pixels) == crc
    valid = made.images[name].valid
    mask = np.ones(pixels.shape) if valid is None else valid[0].numpy()
    assert checksum(mask) == expected()["masks"].get(name, checksum(np.ones(pixels.shape)))


@pytest.mark.parametrize("name", expected()["labels"])
def test_objects(name: str, made: State) -> None:
    output = made.objects[name]
    labels, unedited, not_small = (t[0].numpy() for t in (output.labels, output.unedited, output.not_small))
    assert labels.max() > 1
    assert [checksum(labels), checksum(unedited), checksum(not_small)] == expected()["labels"][name]


def test_columns(made: State) -> None:
    n = 0
    for name, columns in expected()["columns"].items():
        of = made.image_measured if name == "Image" else made.measured[name]
        for column, values in columns.items():
            ours = of[column].numpy()
            if (name, column[:16]) == ("O2b", "Location_Center_"):  # CellProfiler leaves out the object that is gone
                assert np.isnan(ours[0]) or column.endswith("Z")
                ours = ours[1:]
            np.testing.assert_allclose(ours, values, rtol=1e-6, atol=1e-9, err_msg=f"{name} {column}")
            n += 1
    assert n > 150


def test_every_step_of_filters_is_in_it(made: State, device: Device) -> None:
    from jumpgpu.settings import filter_steps

    there = {type(step) for step in read(read_pipeline(HERE / "modules.cppipe")).steps}
    assert set(filter_steps.KINDS.values()) <= there
