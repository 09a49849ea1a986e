"""Objects at the end of what is defined: one that fills its field, one without intensity, one beside a bright one."""

import warnings

import numpy as np
import pandas as pd
import pytest
from cp_measure.core.measureobjectintensity import get_intensity

import jumpgpu
from jumpgpu.features import granularity
from jumpgpu.gpu.device import Device

EDGES = ("MeanIntensityEdge", "StdIntensityEdge", "MinIntensityEdge", "MaxIntensityEdge", "IntegratedIntensityEdge")
RADIAL = ("FracAtD", "MeanFrac", "RadialCV")


def fields() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [3, 2, 15, 19] and labels [3, 15, 19]: an object that fills its field, all but one pixel of it, two that do."""
    pixels = np.random.default_rng(0).random((3, 2, 15, 19)).astype(np.float32)
    labels = np.ones((3, 15, 19), np.int32)
    labels[1, 7, 9] = 0
    labels[2, :, 11:] = 2
    return pixels, labels


def test_edges_of_an_object_that_fills_its_field(device: Device) -> None:
    """CellProfiler 4.2.8 leaves a field without an edge pixel at 0; cp_measure, which goes object by object, says so too."""
    pixels, labels = fields()
    table = jumpgpu.measure(pixels, labels, channels=["A", "B"], families=["intensity"], device=device)
    for c, channel in enumerate("AB"):
        theirs = get_intensity(labels[0], pixels[0, c].astype(float))
        for name in EDGES:
            column = table[f"Objects_Intensity_{name}_{channel}"]
            assert column[0] == 0, name
            assert theirs[f"Intensity_{name}"][0] == 0, name
            assert (column[1:] > 0).all(), name
    rim = np.zeros((15, 19), bool)
    rim[[6, 8], [9, 9]] = rim[[7, 7], [8, 10]] = True
    assert table["Objects_Intensity_MeanIntensityEdge_A"][1] == pytest.approx(pixels[1, 0][rim].mean(), rel=1e-6)


def test_rings_of_an_object_that_fills_its_field(device: Device) -> None:
    """No pixel lies outside, so that none has a distance to the edge: nan, where CellProfiler has what SciPy makes of it."""
    pixels, labels = fields()
    table = jumpgpu.measure(pixels, labels, channels=["A", "B"], families=["radial"], device=device)
    columns = [c for c in table if any(name in c for name in RADIAL)]
    assert len(columns) == 3 * 2 * 4
    assert table.loc[0, columns].isna().all()
    assert table.loc[1:, columns].notna().all(axis=None)
    assert table.loc[1:, [c for c in columns if "FracAtD_A" in c]].sum(axis=1).tolist() == pytest.approx([1, 1, 1])


def test_one_compartment_may_fill_the_field(device: Device) -> None:
    pixels, labels = fields()
    nuclei = np.zeros_like(labels)
    nuclei[:, 4:9, 3:8] = 1
    nuclei[2, 4:9, 13:17] = 2
    both = {"Cells": labels, "Nuclei": nuclei}
    table = jumpgpu.measure(pixels, both, families=["radial", "intensity"], device=device)
    assert table.filter(like="Nuclei_").notna().all(axis=None)
    assert table.loc[0].filter(like="Cells_RadialDistribution").isna().all()
    assert (table.loc[0].filter(regex="Cells_Intensity_.*Edge") == 0).all()


def test_a_channel_without_intensity_has_no_centre_of_mass(device: Device) -> None:
    """X and Y were nan and Z was 0: CellProfiler divides all three by the integrated intensity."""
    pixels = np.zeros((2, 12, 14), np.float32)
    pixels[0] = 0.25
    labels = np.zeros((12, 14), int)
    labels[2:6, 3:9] = 1
    table = jumpgpu.measure(pixels, labels, channels=["A", "B"], families=["location"], device=device).loc[0]
    assert table.filter(like="CenterMassIntensity").filter(like="_B").isna().tolist() == [True] * 3
    assert table["Objects_Location_CenterMassIntensity_Z_A"] == 0
    assert table["Objects_Location_MaxIntensity_Z_B"] == 0
    assert table["Objects_Location_Center_Z"] == 0


def dark_beside_bright() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [2, 40, 44] and labels: object 1 is dark in channel B, between bright pixels; object 2 is not."""
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0.2, 0.4, (2, 40, 44)).astype(np.float32)
    labels = np.zeros((40, 44), int)
    labels[10:15, 8:13], labels[20:30, 20:32] = 1, 2
    pixels[1][labels == 1] = 0
    return pixels, labels


def test_a_dark_object_beside_bright_pixels_is_flagged(device: Device) -> None:
    pixels, labels = dark_beside_bright()
    with pytest.warns(UserWarning, match=r"^B: 1 cells with Granularity beyond 1000 %") as caught:
        table = jumpgpu.measure(pixels, labels, channels=["A", "B"], families=["granularity"], device=device)
    assert len(caught) == 1
    values = table.filter(like="_B")
    assert values.loc[0].abs().max() > 1e10  # as in CellProfiler, which divides by 2^-52
    assert values.loc[1].abs().max() <= 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jumpgpu.measure(pixels[:1], labels, channels=["A"], families=["granularity"], device=device)


def test_which_granularity_is_doubtful() -> None:
    names = ["Cells_Granularity_1_My_dye", "Cells_Granularity_2_My_dye", "Cells_AreaShape_Area", "Nuclei_Granularity_1_B"]
    table = pd.DataFrame(
        [[0, 1001, 5e4, 0], [-1001, 2000, 1, 0], [1000, -1000, 1, np.nan], [np.inf, 0, 1, 0]],
        columns=names,
        dtype=np.float32,
    )
    assert granularity.doubtful(table.to_numpy(), names) == {"My_dye": 3}
    assert granularity.doubtful(table.to_numpy()[2:3], names) == {}
    assert granularity.doubtful(table.to_numpy()[:0], names) == {}
    assert granularity.doubtful(table[["Cells_AreaShape_Area"]].to_numpy(), ["Cells_AreaShape_Area"]) == {}
