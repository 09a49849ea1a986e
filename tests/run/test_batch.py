"""A batch on a GPU waits for the device once, as the stand-in for CUDA counts it; nothing here ran on a GPU."""

import pytest
import torch

from benchmarks.gpu_model.recording import Recording, recorded
from jumpgpu.features.families import measure_batch
from jumpgpu.features.objects import ObjectBatch, make_batch, segment_batch
from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.images.illumination import correct
from jumpgpu.settings.config import load_config
from tests.segmentation.test_pipeline_laws import drawn
from tests.simulators.standin_cuda import standin
from tests.simulators.ways import HostDevice, assert_equal_bits

CHANNELS = ("DNA", "RNA")
ONCE = {"fetch": 1}  # of the counts of objects; the table is fetched by who asks for the batch


def raw(seed: int = 8) -> torch.Tensor:
    return (drawn(seed, 2, 12, 91, 110) * 65535).to(torch.uint16)


def compute(
    raw_u16: torch.Tensor, preset: str, device: Device, masks: dict[str, torch.Tensor]
) -> tuple[ObjectBatch, torch.Tensor]:
    """A batch as extract.py computes it, up to the table on the device."""
    config = load_config(preset)
    functions = torch.ones(2, *raw_u16.shape[2:], device=device.torch)
    pixels = correct(raw_u16, functions, device=device)
    given = {name: device.tensor(image) for name, image in masks.items()}
    batch = (
        make_batch(CHANNELS, pixels, given, {}, device)
        if masks
        else segment_batch(pixels, CHANNELS, config.segmentation, device)
    )
    return batch, measure_batch(batch, config.features, device)


def on_standin(preset: str, device: Device, masks: dict[str, torch.Tensor]) -> tuple[Recording, ObjectBatch, torch.Tensor]:
    images = device.tensor(raw())
    with recorded(lambda kernel: False) as recording:
        batch, values = compute(images, preset, device, masks)
    return recording, batch, values


@pytest.mark.parametrize("preset", ["cpjump1", "jump-production"])
def test_one_wait_a_batch(preset: str) -> None:
    batch, want = compute(raw(), preset, HostDevice("serial"), {})
    assert batch.objects.n > 4
    with standin():
        device = open_device("cuda")
        on_standin(preset, device, {})  # learns how much room lists of such dense fields take
        recording, _, values = on_standin(preset, device, {})
        assert recording.waits == ONCE
        assert_equal_bits(values, want, "stand-in")
        masks = on_standin(preset, device, dict(batch.labels))[0]
        assert masks.waits == ONCE


def test_a_batch_whose_lists_were_too_short_is_done_again() -> None:
    _, want = compute(raw(), "cpjump1", HostDevice("serial"), {})
    with standin():
        device = open_device("cuda")
        assert device.capacity is not None
        device.capacity.share = 1e-6
        recording, _, values = on_standin("cpjump1", device, {})
        assert recording.waits["fetch"] == 2
        assert_equal_bits(values, want, "done again")
        recording, _, values = on_standin("cpjump1", device, {})  # it has learnt
        assert recording.waits == ONCE
        assert_equal_bits(values, want, "the next")


def test_the_recorder_sees_what_waits() -> None:
    """Each of these stops the host on a GPU until what was launched before has run."""
    with standin():
        device = open_device("cuda")
        x = device.zeros(3, 4, dtype=torch.float32)
        for name, work in (
            ("__int__", lambda: int(x.sum())),
            ("nonzero", lambda: torch.nonzero(x)),
            ("__getitem__", lambda: x[x > 0]),
            ("__getitem__ of the host's", lambda: x[:, [1, 2]]),
            ("__setitem__ of the host's", lambda: x.__setitem__((slice(None), [0]), 1.0)),
            ("tensor of the host's", lambda: torch.tensor([1, 2], device=device.torch)),
            ("to the device", lambda: torch.ones(3).to(device.torch)),
            ("to the host", lambda: x.cpu()),
        ):
            with recorded(lambda kernel: False) as recording:
                work()
            assert recording.waits == {name: 1}, name
        with recorded(lambda kernel: False) as recording:
            assert device.tensor([1, 2]).sum().shape == ()
            x[:, 1:3] = 2
        assert not recording.waits
