"""Laws of every feature family: a batch is its fields, a neighbour does not matter, numbers only permute rows.

Equal bits throughout: a cell's numbers depend on that cell's pixels alone, in an order that only it decides.
"""

from dataclasses import replace

import mahotas
import numpy as np
import pytest
import torch

from jumpgpu.features import families as features
from jumpgpu.features.objects import make_batch
from jumpgpu.gpu.cpu import CpuDevice
from jumpgpu.gpu.device import Device
from jumpgpu.settings.config import CorrelationSettings, FeatureSettings, RadialSettings
from jumpgpu.settings.names import BRIGHTFIELD
from tests.helpers.scenes import CHANNELS, drawn_labels, drawn_pixels, one_field, ragged_labels

SCENES = {"cells": drawn_labels, "ragged": ragged_labels}
FULL = FeatureSettings(  # with what is off by default and has channels
    correlation=CorrelationSettings(costes=True), radial=RadialSettings(zernike="magnitudes_and_phase")
)
# What depends on the other cells of the field by its meaning.
OF_THE_FIELD = ("_Neighbors_", "_Correlation_RWC_", "_Number_Object_Number", "_Parent_")


def table(
    family: str,
    labels: dict[str, np.ndarray],
    pixels: np.ndarray,
    device: Device,
    channels: tuple[str, ...] = CHANNELS,
    extra: bool = False,
) -> tuple[np.ndarray, list[str]]:
    settings = FULL if extra else FeatureSettings()
    settings = replace(settings, families=(family,))
    batch = make_batch(channels, device.tensor(pixels), {c: device.tensor(v) for c, v in labels.items()}, {}, device)
    result = features.measure_batch(batch, settings, device)
    return result.cpu().numpy(), features.columns(batch.objects.compartments, channels, settings)


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray, columns: list[str]) -> None:
    same = (ours.view(np.int64) == theirs.view(np.int64)) | (np.isnan(ours) & np.isnan(theirs))
    bad = np.nonzero(~same.all(axis=0))[0]
    assert not len(bad), f"{len(bad)} columns differ, first {columns[bad[0]]}: {ours[:, bad[0]]} and {theirs[:, bad[0]]}"


@pytest.mark.parametrize("batch", SCENES)
@pytest.mark.parametrize("family", features.FAMILIES)
def test_a_batch_is_its_fields(family: str, batch: str, device: Device) -> None:
    labels = SCENES[batch]()
    pixels = drawn_pixels(labels)
    whole, columns = table(family, labels, pixels, device)
    single = [table(family, one_field(labels, b), pixels[b : b + 1], device)[0] for b in range(len(pixels))]
    assert len(whole) >= 12
    assert_same_bits(whole, np.concatenate(single), columns)


@pytest.mark.parametrize("batch", SCENES)
@pytest.mark.parametrize("family", features.FAMILIES)
def test_removing_a_cell_changes_no_other(family: str, batch: str, device: Device) -> None:
    labels = one_field(SCENES[batch](), 0)
    pixels = drawn_pixels(labels)
    number = 2  # beside a cell that it touches, or over others
    fewer = {c: (np.where(v == number, 0, v) - (v > number)).astype(np.int32) for c, v in labels.items()}
    whole, columns = table(family, labels, pixels, device)
    rest, _ = table(family, fewer, pixels, device)
    own = [i for i, c in enumerate(columns) if not any(word in c for word in OF_THE_FIELD)]
    assert_same_bits(np.delete(whole, number - 1, 0)[:, own], rest[:, own], [columns[i] for i in own])


@pytest.mark.parametrize("family", [f for f in features.FAMILIES if f not in ("number", "neighbors")])
def test_renumbering_permutes_rows(family: str, device: Device) -> None:
    labels = one_field(drawn_labels(), 0)
    pixels = drawn_pixels(labels)
    n = int(labels["Cells"].max())
    new = np.append(0, np.random.default_rng(5).permutation(n) + 1).astype(np.int32)
    whole, columns = table(family, labels, pixels, device)
    other, _ = table(family, {c: new[v] for c, v in labels.items()}, pixels, device)
    assert_same_bits(whole, other[new[1:] - 1], columns)


def test_directed_shapes_turn_with_the_image(device: Device) -> None:
    """A flip from left to right mirrors X, turns Orientation, and leaves areas, axes, radii and perimeters."""
    labels = one_field(drawn_labels(), 0)
    pixels = drawn_pixels(labels)
    whole, columns = table("shape", labels, pixels, device)
    flipped, _ = table("shape", {c: v[..., ::-1].copy() for c, v in labels.items()}, pixels[..., ::-1].copy(), device)
    width = labels["Cells"].shape[2]
    for i, column in enumerate(columns):
        name, ours, theirs = column.split("_", 2)[2], whole[:, i], flipped[:, i]
        if "Zernike" in name:  # whether a pixel on the circle counts is decided by the last bit, which a flip may change
            continue
        if name == "Orientation":
            apart = ours + theirs
            theirs, ours = apart - 180 * np.rint(apart / 180), np.where(np.isnan(ours), np.nan, 0)
            round_ones = np.abs(np.abs(whole[:, i]) - 45) < 1e-9  # equal moments: no direction to turn
            ours[round_ones] = theirs[round_ones]
        elif name == "Center_X":
            theirs = width - 1 - theirs
        elif name in ("BoundingBoxMinimum_X", "BoundingBoxMaximum_X"):
            theirs = (
                width - flipped[:, columns.index(column.replace("Min", "M_").replace("Max", "Min").replace("M_", "Max"))]
            )
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-7, err_msg=column)


def test_a_gain_scales_intensities(device: Device) -> None:
    """Half the light, exactly: sums, spreads and quartiles halve, places stay, bit for bit."""
    labels = drawn_labels()
    pixels = drawn_pixels(labels)
    whole, columns = table("intensity", labels, pixels, device)
    half, _ = table("intensity", labels, pixels / 2, device)
    factor = np.array([1 if "MassDisplacement" in c else 0.5 for c in columns])
    assert_same_bits(whole * factor, half, columns)
    places, columns = table("location", labels, pixels, device)
    assert_same_bits(places, table("location", labels, pixels / 2, device)[0], columns)


def test_channels_may_come_in_any_order(device: Device) -> None:
    labels = drawn_labels()
    pixels = drawn_pixels(labels)
    order = [3, 0, 4, 1, 2]
    settings = FeatureSettings(families=("intensity", "location"))
    result = []
    for channels, planes in ((CHANNELS, pixels), ([CHANNELS[i] for i in order], pixels[:, order])):
        batch = make_batch(
            channels, device.tensor(planes.copy()), {c: device.tensor(v) for c, v in labels.items()}, {}, device
        )
        result.append(features.measure_batch(batch, settings, device))
    assert torch.equal(torch.nan_to_num(result[0], nan=-1), torch.nan_to_num(result[1], nan=-1))


@pytest.mark.parametrize("family", features.FAMILIES)
def test_threads_do_not_matter(family: str) -> None:
    labels = drawn_labels()
    pixels = drawn_pixels(labels)
    (one, columns), (three, _) = (table(family, labels, pixels, CpuDevice(workers)) for workers in (1, 3))
    assert_same_bits(one, three, columns)


@pytest.mark.parametrize("chosen", [CHANNELS, ("Brightfield", "AGP"), ("LowZBF",)], ids="+".join)
@pytest.mark.parametrize("family", features.FAMILIES)
def test_further_channels_change_no_column(family: str, chosen: tuple[str, ...], device: Device) -> None:
    """Of eight channels, each column is what it is without the others: fluorescence and brightfield, RWC and Costes too."""
    labels = one_field(drawn_labels(), 0)
    every = CHANNELS + BRIGHTFIELD
    pixels = eight_channels(labels)
    whole, columns = table(family, labels, pixels, device, every, extra=True)
    part, fewer = table(family, labels, pixels[:, [every.index(c) for c in chosen]].copy(), device, chosen, extra=True)
    assert_same_bits(part, whole[:, [columns.index(c) for c in fewer]], fewer)
    if family == "correlation":
        assert any("RWC" in c for c in fewer) == (len(chosen) > 1)


def test_brightfield_planes_are_measured_as_any_other(device: Device) -> None:
    """Mean and texture of each brightfield plane by NumPy and mahotas, object by object."""
    labels = one_field(drawn_labels(), 0)
    pixels = eight_channels(labels)
    every = CHANNELS + BRIGHTFIELD
    (means, mean_names), (textures, names) = (table(f, labels, pixels, device, every) for f in ("intensity", "texture"))
    checked = 0
    for channel in BRIGHTFIELD:
        plane, cells = pixels[0, every.index(channel)], labels["Cells"][0]
        for n in range(1, int(cells.max()) + 1):
            own = cells == n
            mean = means[n - 1, mean_names.index(f"Cells_Intensity_MeanIntensity_{channel}")]
            np.testing.assert_allclose(mean, plane[own].mean(dtype=np.float64), rtol=1e-12)
            y, x = np.nonzero(own)
            if min(np.ptp(y), np.ptp(x)) < 6:
                continue
            box = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
            grey = np.where(own[box], np.rint(plane[box] * np.float32(255)), 0).astype(np.uint8)
            expected = mahotas.features.haralick(grey, distance=3, ignore_zeros=True)[:, [1, 3]]
            ours = [
                [textures[n - 1, names.index(f"Cells_Texture_{m}_{channel}_3_0{d}_256")] for m in ("Contrast", "Variance")]
                for d in range(4)
            ]
            np.testing.assert_allclose(ours, expected, rtol=1e-9, err_msg=f"{channel} {n}")
            checked += 1
    assert checked >= 15


def eight_channels(labels: dict[str, np.ndarray]) -> np.ndarray:
    """float32 [B, 8, H, W]: `drawn_pixels` and three brightfield planes: bright everywhere, cells by a rim and a shadow."""
    first = labels["Cells"]
    rng = np.random.default_rng(11)
    rim = (first > 0).astype(float)
    planes = []
    for slope in (1.0, -1.0, 0.2):  # above, below and in focus
        relief = np.roll(rim, 1, axis=2) - np.roll(rim, -1, axis=2)
        planes.append(np.clip(0.45 + 0.12 * slope * relief + rng.normal(scale=0.02, size=first.shape), 0, 1))
    return np.concatenate([drawn_pixels(labels), np.stack(planes, 1).astype(np.float32)], axis=1)
