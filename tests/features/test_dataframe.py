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
from jumpgpu.settings.config import FeatureSettings
from tests.helpers.scenes import CHANNELS, drawn_labels, drawn_pixels, drawn_scene


def test_the_docstrings_example() -> None:
    assert doctest.testmod(module).failed == 0


def test_equals_a_runs_own_measurement(device: Device) -> None:
    labels = drawn_labels()
    scene = drawn_scene(device, labels)
    found = jumpgpu.measure(drawn_pixels(labels), labels, channels=CHANNELS, device=device)
    assert list(found.columns[2:]) == features.columns(channels=CHANNELS)
    np.testing.assert_array_equal(found.iloc[:, 2:], features.measure_scene(scene, FeatureSettings(), device).numpy())
    assert found.Metadata_Field.tolist() == scene.objects.field.tolist()
    assert found.Metadata_ObjectNumber.tolist() == scene.objects.number.tolist()


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
    found = jumpgpu.measure(
        np.zeros((12, 30)), {"Cells": labels}, unfiltered={"Cells": every}, families=["neighbors"], device=device
    )
    assert found.Metadata_ObjectNumber.tolist() == [40, 50]
    assert found.Cells_Neighbors_FirstClosestObjectNumber_5.tolist() == [50, 40]
    assert found.Cells_Neighbors_FirstClosestDistance_5.tolist() == [3.5, 6.5]
    assert found.Cells_Neighbors_NumberOfNeighbors_Adjacent.tolist() == [1, 0]


def test_no_objects(device: Device) -> None:
    found = jumpgpu.measure(np.zeros((2, 3, 8, 9), np.uint16), np.zeros((2, 8, 9), int), device=device)
    assert len(found) == 0
    assert "Objects_Texture_Contrast_Channel3_5_00_256" in found


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
        ({"scale": -2.0}, ValueError, "scale must be above 0"),
    ],
)
def test_what_does_not_fit(change: dict, error: type, words: str, device: Device) -> None:
    good = {"pixels": np.zeros((8, 9)), "labels": np.ones((8, 9), int), "device": device}
    with pytest.raises(error, match=words):
        jumpgpu.measure(**{**good, **change})
