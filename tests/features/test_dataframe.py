"""features.measure: images and masks of any origin to a table."""

import doctest

import numpy as np
import pandas as pd
import pytest
import torch

import jumpgpu
from jumpgpu.features import dataframe as module
from jumpgpu.features import families as features
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import FeatureSettings, TextureSettings
from tests.helpers.scenes import CHANNELS, drawn_labels, drawn_pixels, drawn_scene


def test_the_docstrings_example() -> None:
    assert doctest.testmod(module).failed == 0


def test_equals_a_runs_own_measurement(device: Device) -> None:
    labels = drawn_labels()
    batch = drawn_scene(device, labels)
    result = jumpgpu.measure(drawn_pixels(labels), labels, channels=CHANNELS, device=device)
    assert list(result.columns[2:]) == features.columns(channels=CHANNELS)
    np.testing.assert_array_equal(result.iloc[:, 2:], features.measure_batch(batch, FeatureSettings(), device).numpy())
    assert result.Metadata_Field.tolist() == batch.objects.field.tolist()
    assert result.Metadata_ObjectNumber.tolist() == batch.objects.number.tolist()


def test_any_numbers_any_names_one_image(device: Device) -> None:
    labels = drawn_labels(fields=1)["Cells"][0]
    image = (drawn_pixels(drawn_labels(fields=1), 1)[0, 0] * 255).astype(np.uint8)
    families = ("intensity", "number", "radial")
    plain = jumpgpu.measure(image, labels, families=families, device=device)
    odd = jumpgpu.measure(torch.from_numpy(image), np.where(labels, 7 * labels + 100, 0), families=families, device=device)
    assert odd.Metadata_ObjectNumber.tolist() == [7 * n + 100 for n in plain.Metadata_ObjectNumber]
    assert odd.Objects_Number_Object_Number.tolist() == odd.Metadata_ObjectNumber.tolist()
    rest = [c for c in plain.columns if "Number" not in c]
    pd.testing.assert_frame_equal(odd[rest], plain[rest])
    scaled = jumpgpu.measure(image.astype(float), labels, families=families, scale=255, device=device)
    pd.testing.assert_frame_equal(scaled, plain)


def test_neighbours_among_discarded_ones_keep_their_numbers(device: Device) -> None:
    labels = np.zeros((12, 30), np.int64)
    labels[2:6, 2:6], labels[2:6, 12:16] = 40, 50
    every = labels.copy()
    every[2:6, 6:9] = 9
    result = jumpgpu.measure(
        np.zeros((12, 30)), {"Cells": labels}, unfiltered={"Cells": every}, families=["neighbors"], device=device
    )
    assert result.Metadata_ObjectNumber.tolist() == [40, 50]
    assert result.Cells_Neighbors_FirstClosestObjectNumber_5.tolist() == [50, 40]
    assert result.Cells_Neighbors_FirstClosestDistance_5.tolist() == [3.5, 6.5]
    assert result.Cells_Neighbors_NumberOfNeighbors_Adjacent.tolist() == [1, 0]


def test_no_objects(device: Device) -> None:
    result = jumpgpu.measure(np.zeros((2, 3, 8, 9), np.uint16), np.zeros((2, 8, 9), int), device=device)
    assert len(result) == 0
    assert "Objects_Texture_Contrast_Channel3_5_00_256" in result


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pixels": np.ones((8, 9), np.int32)}, TypeError, "uint8, uint16 or floating, got int32"),
        ({"pixels": np.full((8, 9), 3.0)}, ValueError, "found 3 to 3; say by `scale`"),
        ({"pixels": np.ones(8)}, ValueError, r"got \[8\]"),
        ({"channels": ["A", "B"]}, ValueError, "2 channel names for 1 channels"),
        ({"labels": np.ones((8, 9))}, TypeError, "labels of Objects must be integers, got float64"),
        ({"labels": {"Nuclei": np.ones((8, 8), int)}}, ValueError, r"labels of Nuclei are \[8, 8\]"),
        ({"labels": np.full((8, 9), -1)}, ValueError, "0 or more, found -1"),
        ({"labels": {}}, ValueError, "no label images"),
        ({"families": ["colour"]}, ValueError, "unknown feature family 'colour'"),
        ({"unfiltered": {"Cells": np.ones((8, 9), int)}}, ValueError, "unfiltered labels of 'Cells'"),
        ({"scale": -2.0}, ValueError, "scale must be finite and above 0, got -2.0"),
        ({"scale": 0}, ValueError, "scale must be finite and above 0, got 0"),
        ({"scale": 0.0, "pixels": np.zeros((8, 9), np.uint8)}, ValueError, "above 0, got 0.0"),
        ({"scale": np.nan}, ValueError, "scale must be finite"),
        ({"scale": np.inf}, ValueError, "scale must be finite"),
        ({"scale": "255"}, TypeError, "scale is the number that is intensity 1, got '255'"),
        ({"scale": True}, TypeError, "scale is the number"),
        ({"pixels": np.zeros((0, 8, 9))}, ValueError, r"a field, a channel, a row and a column at least, got \[0, 8, 9\]"),
        ({"pixels": np.zeros((0, 2, 8, 9))}, ValueError, r"at least, got \[0, 2, 8, 9\]"),
        ({"pixels": np.zeros((8, 0))}, ValueError, r"at least, got \[8, 0\]"),
        ({"pixels": np.zeros((8, 9), bool)}, TypeError, "uint8, uint16 or floating, got bool"),
        ({"pixels": np.zeros((8, 9), complex)}, TypeError, "uint8, uint16 or floating, got complex128"),
        ({"pixels": np.ma.zeros((8, 9))}, TypeError, "pixels are a masked array"),
        ({"labels": np.ma.ones((8, 9), int)}, TypeError, "labels of Objects are a masked array"),
        ({"unfiltered": {"Objects": np.ma.ones((8, 9), int)}}, TypeError, "are a masked array"),
        ({"unfiltered": np.ones((8, 9), int)}, TypeError, "unfiltered labels are a dict"),
        ({"labels": np.full((8, 9), 2**63, np.uint64)}, ValueError, "at most 9007199254740992, found 9223372036854775808"),
        ({"labels": np.full((8, 9), 2**53 + 1)}, ValueError, "found 9007199254740993; number the objects anew"),
        ({"labels": {"My_Cells": np.ones((8, 9), int)}}, ValueError, "labels of 'My_Cells': a compartment's name is text"),
        ({"labels": {3: np.ones((8, 9), int)}}, ValueError, "labels of 3: a compartment's name is text"),
        ({"channels": "D"}, TypeError, r"channels is a list of names, got 'D'; write \['D'\]"),
        ({"channels": {"A"}}, TypeError, "channels are in the order of the pixels, which a set has not; give a list"),
        ({"channels": [5]}, TypeError, "channels: expected names, got 5"),
        ({"channels": [""]}, TypeError, "channels: expected names, got ''"),
        ({"channels": []}, ValueError, "0 channel names for 1 channels"),
        ({"channels": ["A", "A"], "pixels": np.zeros((2, 8, 9))}, ValueError, "channels: 'A' is there 2 times"),
        ({"families": "shape"}, TypeError, r"families is a list of names, got 'shape'; write \['shape'\]"),
        ({"families": ["shape", "shape"]}, ValueError, "families: 'shape' is there 2 times"),
        ({"settings": {"families": ("shape",)}}, TypeError, "settings are a FeatureSettings, got dict"),
        (
            {"settings": FeatureSettings(texture=TextureSettings(scales=(3, 3)))},
            ValueError,
            "scales: expected each once, got 3 2",
        ),
        (
            {"settings": FeatureSettings(texture=TextureSettings(levels=1))},
            ValueError,
            "settings: texture: levels: expected",
        ),
    ],
)
def test_what_does_not_fit(change: dict, error: type, words: str, device: Device) -> None:
    good = {"pixels": np.zeros((8, 9)), "labels": np.ones((8, 9), int), "device": device}
    with pytest.raises(error, match=words):
        jumpgpu.measure(**{**good, **change})


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [None, 1.0, 255])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_pixels_that_are_no_numbers(wrong: float, scale: float | None, make, device: Device) -> None:
    """With a scale they were let through, and texture wrote where no memory is."""
    pixels = np.zeros((2, 8, 9), np.float32)
    pixels[1, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"pixels must be finite, found -?(nan|inf) at \[1, 2, 3\]"):
        jumpgpu.measure(make(pixels), np.ones((8, 9), int), scale=scale, device=device)


@pytest.mark.parametrize(
    ("pixels", "scale", "result"),
    [
        (np.full((8, 9), 300.0), 255, "300 to 300"),
        (np.full((8, 9), -1.0), 255, "-1 to -1"),
        (np.full((8, 9), 5000, np.uint16), 4095, "5000 to 5000"),
        (np.full((8, 9), 1e300), 1e-300, r"1e\+300"),
    ],
)
def test_pixels_beyond_the_scale(pixels: np.ndarray, scale: float, result: str, device: Device) -> None:
    with pytest.raises(ValueError, match=rf"pixels must be within 0\.\.{scale:g}, which `scale` says.*found {result}"):
        jumpgpu.measure(pixels, np.ones((8, 9), int), scale=scale, device=device)


def test_large_numbers_are_kept(device: Device) -> None:
    labels = np.zeros((8, 9), np.uint64)
    labels[1:4, 1:4], labels[5:7, 5:8] = 2**53, 7
    result = jumpgpu.measure(np.zeros((8, 9)), {"Cells": labels}, families=["number", "neighbors"], device=device)
    assert result.Metadata_ObjectNumber.tolist() == [7, 2**53]
    assert result.Cells_Neighbors_FirstClosestObjectNumber_5.tolist() == [2**53, 7]


def test_a_binary_mask_is_remarked_on(device: Device) -> None:
    mask = np.zeros((12, 30), bool)
    mask[2:6, 2:6] = mask[2:6, 10:14] = True
    with pytest.warns(UserWarning, match="labels of Objects, field 0: label 1 in 2 separate parts, as in a binary mask"):
        jumpgpu.measure(np.zeros((12, 30)), mask, families=["intensity"], device=device)
