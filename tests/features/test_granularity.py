"""Granularity against its definition in SciPy's resampling and scikit-image's erosion and reconstruction."""

import numpy as np
import pytest

from jumpgpu.features import granularity
from jumpgpu.features.objects import ObjectBatch
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, GranularitySettings
from tests.helpers.reference.granularity import spectrum
from tests.helpers.scenes import drawn_labels, drawn_scene, ragged_labels


def expected(batch: ObjectBatch, settings: GranularitySettings) -> dict[str, np.ndarray]:
    objects, out = batch.objects, {}
    for compartment in objects.compartments:
        labels = batch.labels[compartment].numpy()
        for c, channel in enumerate(batch.channels):
            rows = []
            for b in range(batch.pixels.shape[0]):
                numbers = objects.number[objects.field == b].numpy()
                if numbers.size:
                    rows.append(spectrum(batch.pixels[b, c].numpy(), labels[b], numbers, settings))
            values = np.concatenate(rows)
            for k in range(settings.spectrum):
                out[f"{compartment}_Granularity_{k + 1}_{channel}"] = values[:, k]
    return out


@pytest.mark.parametrize("labels", [drawn_labels(), drawn_labels(90, 137, 2, seed=4), ragged_labels()])
@pytest.mark.parametrize(
    "settings",
    [
        GranularitySettings(),
        GranularitySettings(radius=3, spectrum=7),
        GranularitySettings(subsampling=0.4, background_subsampling=0.3, radius=2),
        GranularitySettings(subsampling=1.0, background_subsampling=1.0, radius=5, spectrum=3),
    ],
)
def test_spectrum(device: Device, labels: dict[str, np.ndarray], settings: GranularitySettings) -> None:
    batch = drawn_scene(device, labels, ("RNA", "DNA"))
    wanted = FeatureSettings(granularity=settings)
    names = [n for c in batch.objects.compartments for n in granularity.columns(c, batch.channels, wanted)]
    got = granularity.measure(batch, wanted, device).numpy()
    want = expected(batch, settings)
    assert sorted(names) == sorted(want)
    for i, name in enumerate(names):
        # both float64; percentages are differences of means, so the terms are up to 100
        np.testing.assert_allclose(got[:, i], want[name], rtol=1e-9, atol=1e-10, err_msg=name)


def test_settings_without_meaning_are_refused(device: Device) -> None:
    batch = drawn_scene(device)
    for wrong in (GranularitySettings(spectrum=17), GranularitySettings(subsampling=0.0), GranularitySettings(radius=0)):
        with pytest.raises(ValueError, match="granularity"):
            granularity.measure(batch, FeatureSettings(granularity=wrong), device)
