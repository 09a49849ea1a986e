"""Illumination functions against CellProfiler 4.2.8's for the six real fields."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from jumpgpu.gpu.device import Device
from jumpgpu.images.illumination import correct, estimate_illumination, polynomial
from jumpgpu.images.illumination_files import load_illumination
from jumpgpu.images.indexes.flatfield import Flatfield
from jumpgpu.images.locate import find_plate
from jumpgpu.images.reader import read_fields
from jumpgpu.settings.config import IlluminationSettings
from jumpgpu.settings.names import CHANNELS


def test_estimate_over_six_fields(shared: Path, device: Device) -> None:
    """Float32 against float64 averaging: 1e-6 where the 16-bit median agrees, which it does for 99.9 % of the pixels.

    Where rounding moves a mean across a whole count, the median moves by one count: at most 1 / (least median) there.
    """
    plate = find_plate("BR00117010", shared / "data/fields")
    functions, n_fields, bad = estimate_illumination(plate, IlluminationSettings(), device=device)
    assert n_fields == 6
    assert not bad
    for channel, ours in zip(CHANNELS, functions.numpy(), strict=True):
        theirs = np.load(shared / f"data/cellprofiler/Illum{channel}.npz")["illum"]
        gap = np.abs(ours / theirs - 1)
        assert ours.dtype == np.float32
        assert np.median(gap) < 2e-7, channel
        assert np.quantile(gap, 0.999) < 2e-5, channel  # CellProfiler enlarges in float32
        assert gap.max() < 1.5e-3, channel  # one count of a least median of 700


@pytest.mark.parametrize("channel", ["DNA", "Mito"])
def test_flatfield_polynomial_rescaling(shared: Path, channel: str) -> None:
    """The reference's flat field is a clamped degree-4 polynomial: fitted where it is above 1, ours gives it back.

    1e-6: a float32 function, and a fit to float32 values.
    """
    theirs = np.load(shared / f"data/cellprofiler/flatfield/Illum{channel}.npz")["illum"]
    grid = (np.arange(1080) - 539.5) / 1080
    u, v = np.meshgrid(grid, grid)
    terms = [(d, j) for d in range(5) for j in range(d + 1)]
    some = np.flatnonzero(theirs > 1)[::37]
    basis = np.stack([(u ** (d - j) * v**j).ravel()[some] for d, j in terms], 1)
    fit, *_ = np.linalg.lstsq(basis, theirs.ravel()[some].astype(np.float64), rcond=None)
    coefficients = tuple(tuple(float(c) for (d, _), c in zip(terms, fit, strict=True) if d == degree) for degree in range(5))
    profile = Flatfield(coefficients, (1080, 1080), (539.5, 539.5), (1 / 1080, 1 / 1080))
    ours = polynomial(profile, (1080, 1080), 0.02)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_reference_flatfields_load(shared: Path) -> None:
    plate = find_plate("BR00117010", shared / "data/fields")
    loaded = load_illumination(shared / "data/cellprofiler/flatfield", plate, ("Mito", "DNA"))
    theirs = np.load(shared / "data/cellprofiler/flatfield/IllumMito.npz")["illum"]
    np.testing.assert_array_equal(loaded.functions[0].numpy(), theirs)


def test_corrected_pixels_are_cellprofilers(shared: Path, device: Device) -> None:
    """Least and greatest intensity of each object are pixels of CellProfiler's corrected image: equal bits in float32."""
    plate = find_plate("BR00117010", shared / "data/fields")
    functions = device.tensor(load_illumination(shared / "data/cellprofiler/flatfield", plate, CHANNELS).functions)
    table = pd.read_parquet(shared / "data/cellprofiler/Cells.parquet")
    checked = 0
    for batch in read_fields(plate, batch=2):
        pixels = correct(batch.pixels, functions, device=device).numpy()
        for (well, site), images in zip(batch.sites, pixels, strict=True):
            labels = tifffile.imread(shared / f"data/cellprofiler/{well}_s{site}_Cells.tiff")
            rows = table[table["Metadata_Well"] == well].sort_values("ObjectNumber")
            order = np.argsort(labels, axis=None, kind="stable")
            starts = np.searchsorted(labels.ravel()[order], rows["ObjectNumber"])
            for channel, image in zip(CHANNELS, images, strict=True):
                for name, extreme in (("Min", np.minimum), ("Max", np.maximum)):
                    theirs = rows[f"Intensity_{name}Intensity_{channel}"].to_numpy(np.float32)
                    ours = extreme.reduceat(image.ravel()[order], starts)
                    np.testing.assert_array_equal(ours, theirs, err_msg=f"{well} {channel} {name}")
                    checked += len(theirs)
    assert checked == 526 * 5 * 2
