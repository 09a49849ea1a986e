"""Laws of the granular spectrum on drawn scenes."""

import dataclasses

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jumpgpu.features import granularity
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings
from tests.helpers.scenes import drawn_labels, drawn_pixels, one_field

SETTINGS = FeatureSettings()


def measured(device: Device, labels: dict[str, np.ndarray], pixels: np.ndarray, channels: tuple[str, ...]) -> torch.Tensor:
    batch = make_batch(channels, device.tensor(pixels), {c: device.tensor(v) for c, v in labels.items()}, {}, device)
    return granularity.measure(batch, SETTINGS, device)


def test_batch_equals_its_fields(device: Device) -> None:
    labels = drawn_labels()
    pixels = drawn_pixels(labels, 2)
    whole = measured(device, labels, pixels, ("DNA", "RNA"))
    parts = [measured(device, one_field(labels, b), pixels[b : b + 1], ("DNA", "RNA")) for b in range(len(pixels))]
    np.testing.assert_array_equal(whole.numpy(), torch.cat(parts).numpy())


def test_removing_a_neighbour_changes_no_other_cell(device: Device) -> None:
    labels = one_field(drawn_labels(), 0)
    pixels = drawn_pixels(labels, 1)
    count = int(labels["Cells"].max())
    fewer = {c: np.where(v == count, 0, v) for c, v in labels.items()}
    before, after = (measured(device, which, pixels, ("DNA",)) for which in (labels, fewer))
    np.testing.assert_array_equal(before[: count - 1].numpy(), after.numpy())


def test_gain_of_two_leaves_the_spectrum(device: Device) -> None:
    """A power of two scales every value and every mean exactly."""
    labels = drawn_labels()
    pixels = drawn_pixels(labels, 1)
    before, after = (measured(device, labels, p, ("DNA",)) for p in (pixels, pixels * np.float32(0.5)))
    np.testing.assert_array_equal(before.numpy(), after.numpy())


def test_channels_are_measured_alone(device: Device) -> None:
    labels = drawn_labels()
    pixels = drawn_pixels(labels, 3)
    names = ("RNA", "DNA", "ER")
    together = measured(device, labels, pixels, names).view(-1, 3, granularity.SCALES, 3)
    for place, name in enumerate(sorted(names)):
        c = names.index(name)
        alone = measured(device, labels, pixels[:, c : c + 1].copy(), (name,)).view(-1, 3, granularity.SCALES)
        np.testing.assert_array_equal(together[..., place].numpy(), alone.numpy())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), subsampling=st.sampled_from([0.1, 0.25, 0.37, 0.5, 0.8, 1.0]))
def test_room_for_weights_is_enough(device: Device, seed: int, subsampling: float) -> None:
    """However compartments overlap: label images of their own, of boxes that go through each other, down to a pixel."""
    rng = np.random.default_rng(seed)
    labels = {c: np.zeros((1, 61, 83), np.int32) for c in ("Nuclei", "Cells", "Cytoplasm")}
    for image in labels.values():
        for n in range(1, rng.integers(2, 30)):
            y, x, h, w = rng.integers([0, 0, 1, 1], [61, 83, 40, 40])
            image[0, y : y + h, x : x + w] = n
    present = np.unique(np.stack(list(labels.values())))
    labels = {c: np.searchsorted(present, image).astype(np.int32) for c, image in labels.items()}
    batch = make_batch(
        ("DNA",),
        device.zeros(1, 1, 61, 83, dtype=torch.float32),
        {c: device.tensor(v) for c, v in labels.items()},
        {},
        device,
    )
    chosen = dataclasses.replace(SETTINGS.granularity, subsampling=subsampling)
    weights = granularity.part_weights(batch, granularity.find_parts(batch.objects, device), chosen, device)
    top, left, bottom, right = weights.box.long().unbind(2)
    assert int(((bottom - top) * (right - left)).sum()) <= weights.weights.numel()


def test_constant_image(device: Device) -> None:
    """No structure: the background takes all of it at the first scale, and nothing is left for the others."""
    labels = drawn_labels()
    pixels = np.full((3, 1, *labels["Cells"].shape[1:]), 0.25, np.float32)
    table = measured(device, labels, pixels, ("DNA",)).view(-1, 3, granularity.SCALES).numpy()
    filled = ~np.isnan(table[..., 0])
    np.testing.assert_allclose(table[..., 0][filled], 100.0, rtol=1e-12)
    assert (table[..., 1:][filled] == 0).all()
