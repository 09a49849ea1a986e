"""The watershed against scikit-image's, which breaks equal values by their age in the queue."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from skimage.segmentation import watershed as flood_by_age

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.watershed import watershed


@pytest.mark.parametrize("connectivity", [4, 8])
def test_distinct_values_give_equal_labels(device: Device, connectivity: int) -> None:
    """Where no two values are equal the two definitions are one."""
    rng = np.random.default_rng(11)
    shape = (2, 90, 130)
    values = np.stack([rng.permutation(90 * 130).reshape(90, 130) for _ in range(2)]).astype(np.float64)
    values[1] = ndimage.gaussian_filter(values[1], 3)
    mask = ndimage.gaussian_filter(rng.random(shape), (0, 3, 3)) > 0.47
    seeds = np.where(rng.random(shape) < 0.003, rng.integers(1, 99, shape), 0).astype(np.int32)
    got = watershed(*(torch.from_numpy(a) for a in (values, mask, seeds)), device, connectivity)
    footprint = ndimage.generate_binary_structure(2, connectivity // 4)
    want = np.stack([flood_by_age(v, s, footprint, mask=m) for v, m, s in zip(values, mask, seeds, strict=True)])
    np.testing.assert_array_equal(got.numpy(), want)


def test_real_field(device: Device, shared: Path) -> None:
    """Cells of a real field: 1 labelled pixel in 2.7 million differed over the six of them; one pixel of this one may."""
    images = shared / "data" / "fields" / "BR00117010__2020-11-08T18_18_00-Measurement1" / "Images"
    rna = tifffile.imread(images / "r01c21f05p01-ch3sk1fk1fl1.tiff").astype(np.float32) / np.float32(65535)
    flat = np.load(shared / "data" / "cellprofiler" / "flatfield" / "IllumRNA.npz")["illum"].astype(np.float32)
    values = 1 - rna / flat
    seeds = tifffile.imread(shared / "data" / "cellprofiler" / "A21_s5_Nuclei.tiff").astype(np.int32)
    mask = (values < 1 - 0.012) | (seeds > 0)
    got = watershed(*(torch.from_numpy(a[None]) for a in (values, mask, seeds)), device).numpy()[0]
    want = flood_by_age(values, seeds, np.ones((3, 3)), mask=mask)
    assert (want > 0).sum() > 300_000
    assert (got != want).sum() <= 1
