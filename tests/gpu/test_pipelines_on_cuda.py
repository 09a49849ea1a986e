"""Imported pipelines on the stand-in for CUDA: every label image, object's number and image's number has the CPU's bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jumpgpu.cellprofiler.parse import read_pipeline
from jumpgpu.cellprofiler.translate import translate
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import correct
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings import steps as kinds
from jumpgpu.settings import table_steps
from jumpgpu.settings.config import load_config
from jumpgpu.steps.run import run_steps
from tests.conftest import CHECKOUT
from tests.simulators.standin_cuda import standin
from tests.simulators.ways import assert_equal_bits

PIPELINES = CHECKOUT / "tests" / "cellprofiler" / "pipelines"
SHARED = CHECKOUT.parent / "shared" / "data" / "pipelines"
PUBLIC = sorted(p for p in SHARED.glob("*.cp*") if p.suffix in (".cppipe", ".cpproj")) if SHARED.is_dir() else []


@pytest.fixture(scope="module")
def pixels(shared: Path) -> torch.Tensor:
    """Corrected pixels of one real field."""
    plate = find_plate("BR00117010", shared / "data" / "fields", load_config("cpjump1").plate)
    cpu = open_device("cpu")
    raw = next(read_fields(plate, batch=3, workers=0, device=cpu)).pixels[2:3]
    return correct(raw, torch.ones(raw.shape[1:]), device=cpu)


def numbers(device: Device, steps: list[kinds.Step], pixels: torch.Tensor) -> dict[str, Any]:
    """All that a pipeline gives. Its channels are those of the field in turn."""
    channels = dict.fromkeys(s.channel for s in steps if isinstance(s, kinds.Load))
    planes = {c: device.tensor(pixels[:, k % pixels.shape[1]].contiguous()) for k, c in enumerate(channels)}
    ones = device.tensor(torch.ones(pixels.shape[2:]))
    state = run_steps(steps, planes, dict.fromkeys(channels, ones), device)
    assert sum(s.n for s in state.objects.values()) > 0
    labels = {name: [t.cpu() for t in (s.labels, s.unedited, s.not_small)] for name, s in state.objects.items()}
    measured = {name: {c: v.cpu() for c, v in of.items()} for name, of in state.measured.items()}
    return {"labels": labels, "measured": measured, "image": {c: v.cpu() for c, v in state.image_measured.items()}}


def check(steps: list[kinds.Step], pixels: torch.Tensor, label: str) -> None:
    want = numbers(open_device("cpu"), steps, pixels)
    with standin():
        got = numbers(open_device("cuda"), steps, pixels)
    assert_equal_bits(got, want, label)


def test_jump_production_and_more(pixels: torch.Tensor) -> None:
    steps = list(translate([read_pipeline(PIPELINES / "jump_production_load_data.cppipe")]).steps)
    images = [s.image for s in steps if isinstance(s, kinds.Load) and not s.function]
    steps += [
        kinds.MeasureRadial((images[0],), ("Cells",), center="centers", of="Nuclei"),
        table_steps.MeasureImageQuality((images[0],), thresholds=("Otsu_2W", "Otsu_2S"), scales=(10,), intensity=True),
        table_steps.MeasureImageTexture((images[1],), (3,)),
        table_steps.MeasureImageCorrelation(tuple(images[:2])),
    ]
    check(steps, pixels[..., 300:720, 250:700].contiguous(), "jump_production")


@pytest.mark.slow
@pytest.mark.parametrize("path", PUBLIC, ids=lambda p: p.name)
def test_public_pipelines(path: Path, pixels: torch.Tensor) -> None:
    check(list(translate([read_pipeline(path)]).steps), pixels, path.name)
