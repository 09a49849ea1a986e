"""Intensity and Location against cp_measure (CellProfiler's quantile convention), and what it leaves open, against NumPy."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from jumpgpu.features import intensity, location
from jumpgpu.features.objects import ObjectBatch, gathered
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings
from tests.helpers.scenes import CHANNELS, drawn_labels, drawn_scene, ragged_labels, row_masks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cp_measure.core.measureobjectintensity import get_intensity

SETTINGS = FeatureSettings()
SCENES = {"cells": drawn_labels, "ragged": ragged_labels}


@pytest.fixture(scope="module", params=SCENES)
def batch(request: pytest.FixtureRequest, device: Device) -> ObjectBatch:
    return drawn_scene(device, SCENES[request.param]())


def by_row(module, batch: ObjectBatch, device: Device) -> list[dict[str, float]]:
    """Measures of every row by name without the compartment."""
    o = batch.objects
    table = module.measure(batch, SETTINGS, device).numpy()
    names = [c for k in o.compartments for c in module.columns(k, batch.channels, SETTINGS)]
    return [
        {c.split("_", 1)[1]: table[n, i] for i, c in enumerate(names) if c.startswith(k + "_")}
        for k in o.compartments
        for n in range(o.n)
    ]


def test_every_measure(batch: ObjectBatch, device: Device) -> None:
    pixels = batch.pixels.numpy()
    intensities, locations = by_row(intensity, batch, device), by_row(location, batch, device)
    peer, compared = {}, 0
    for compartment, planes in batch.labels.items():
        for field, plane in enumerate(planes.numpy()):
            relabelled = np.searchsorted(np.unique(np.append(plane, 0)), plane)  # cp_measure takes labels without gaps
            for c in range(len(CHANNELS) if plane.any() else 0):
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    # as doubles: it adds float32 values as float32, which CellProfiler does not
                    result = get_intensity(relabelled, pixels[field, c].astype(float), legacy=True)
                peer[compartment, field, c] = relabelled, result
    for row, (field, number, compartment, mask) in enumerate(row_masks(batch)):
        if not mask.any():
            continue
        for c, channel in enumerate(CHANNELS):
            mine = {**intensities[row], **locations[row]}
            relabelled, theirs = peer[compartment, field, c]
            at = relabelled[mask][0] - 1
            for name, values in theirs.items():
                ours = mine[f"{name}_{channel}"]
                message = f"{compartment} {number} of field {field}: {name}_{channel}"
                # Both add float32 values as doubles, in another order; a spread of 0 may come out as 1e-17.
                np.testing.assert_allclose(ours, values[at], rtol=1e-11, atol=1e-12, err_msg=message)
                compared += 1
    assert compared > 1000


def test_centers_are_means_of_positions(batch: ObjectBatch, device: Device) -> None:
    for (_, _, compartment, mask), mine in zip(row_masks(batch), by_row(location, batch, device), strict=True):
        y, x = np.nonzero(mask)
        wanted = [x.mean(), y.mean()] if len(x) else [np.nan, np.nan]
        np.testing.assert_allclose([mine["Location_Center_X"], mine["Location_Center_Y"]], wanted, rtol=1e-14)
        assert ("Location_Center_Z" in mine) == (compartment != "Cytoplasm")
        if compartment != "Cytoplasm" and len(x):
            assert mine["Location_Center_Z"] == 0


def test_how_many_pixels_are_brightest(device: Device) -> None:
    batch = drawn_scene(device)
    pixels = (batch.pixels * 40).round() / 40  # so that many are equal
    batch = gathered(replace(batch, pixels=pixels, values=pixels, derived={}), device)
    counts, several = intensity.count_brightest(batch, device), 0
    for row, (field, _, _, mask) in enumerate(row_masks(batch)):
        for c in range(len(CHANNELS)):
            values = pixels[field, c].numpy()[mask]
            assert counts[row, c] == ((values == values.max()).sum() if len(values) else 0)
            several += int(counts[row, c] > 1)
    assert several


def test_the_first_of_equal_maxima_wins(device: Device) -> None:
    batch = drawn_scene(device)
    result = by_row(location, batch, device)
    tied = 0
    for (field, _, _, mask), mine in zip(row_masks(batch), result, strict=True):
        for c, channel in enumerate(CHANNELS):
            if not mask.any():
                continue
            plane = np.where(mask, batch.pixels[field, c].numpy(), -1)
            y, x = np.nonzero(plane == plane.max())
            tied += len(y) > 1
            assert (mine[f"Location_MaxIntensity_X_{channel}"], mine[f"Location_MaxIntensity_Y_{channel}"]) == (x[0], y[0])
    assert tied >= 5


def test_empty_object_and_constant_patch(device: Device) -> None:
    labels = {"Cells": np.zeros((1, 9, 12), np.int32), "Cytoplasm": np.zeros((1, 9, 12), np.int32)}
    labels["Cells"][0, 2:7, 3:9] = 1
    batch = drawn_scene(device, labels, ("DNA",))
    batch.pixels.fill_(0.3)
    batch.values.fill_(0.3)
    cell, empty = by_row(intensity, batch, device)
    value = float(np.float32(0.3))
    assert (
        cell["Intensity_StdIntensity_DNA"]
        == cell["Intensity_StdIntensityEdge_DNA"]
        == cell["Intensity_MADIntensity_DNA"]
        == 0
    )
    assert cell["Intensity_LowerQuartileIntensity_DNA"] == cell["Intensity_MaxIntensityEdge_DNA"] == value
    np.testing.assert_allclose(cell["Intensity_MassDisplacement_DNA"], 0, atol=1e-14)
    for name, got in empty.items():
        assert got == 0 if "Integrated" in name else np.isnan(got), name


def test_a_channel_of_zeros_has_no_centre_of_mass(device: Device) -> None:
    labels = {"Cells": np.ones((1, 4, 5), np.int32)}
    batch = drawn_scene(device, labels, ("DNA",))
    batch.pixels[:] = 0
    batch.values[:] = 0
    (mine,) = by_row(location, batch, device)
    assert np.isnan(mine["Location_CenterMassIntensity_X_DNA"])
    assert (mine["Location_MaxIntensity_X_DNA"], mine["Location_MaxIntensity_Y_DNA"]) == (0, 0)
