"""Laws of the watershed on drawn inputs."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jumpgpu.gpu.device import Device
from jumpgpu.gpu.open import open_device
from jumpgpu.segmentation.watershed import watershed

DEVICE = open_device("cpu")


def run(values: np.ndarray, mask: np.ndarray, seeds: np.ndarray, connectivity: int, device: Device = DEVICE) -> np.ndarray:
    return watershed(
        *(torch.from_numpy(np.ascontiguousarray(a)) for a in (values, mask, seeds)), device, connectivity
    ).numpy()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 60), connectivity=st.sampled_from([4, 8]))
def test_laws(seed: int, levels: int, connectivity: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (3, int(rng.integers(1, 24)), int(rng.integers(1, 24)))
    values = rng.integers(0, levels, shape).astype(np.float32)
    mask = rng.random(shape) < 0.8
    seeds = np.where(rng.random(shape) < 0.05, rng.integers(1, 5, shape), 0).astype(np.int32)
    labels = run(values, mask, seeds, connectivity)
    # a batch is its fields one at a time
    np.testing.assert_array_equal(
        labels, np.concatenate([run(values[i : i + 1], mask[i : i + 1], seeds[i : i + 1], connectivity) for i in range(3)])
    )
    # seeds keep their labels, and nothing else is invented
    np.testing.assert_array_equal(labels[mask & (seeds > 0)], seeds[mask & (seeds > 0)])
    assert not labels[~mask].any()
    # only the order of the values counts
    np.testing.assert_array_equal(labels, run(values**3 * 7 - 5, mask, seeds, connectivity))
    # labels are names: flooding with others gives the same regions under the new names
    names = rng.permutation(np.arange(1, 9, dtype=np.int32))
    renamed = run(values, mask, np.where(seeds > 0, names[seeds - 1], 0).astype(np.int32), connectivity)
    np.testing.assert_array_equal(renamed, np.where(labels > 0, names[labels - 1], 0))
    # flooding on from the result changes nothing
    np.testing.assert_array_equal(labels, run(values, mask, labels, connectivity))
