"""Which objects are kept and what number they get, against NumPy."""

import numpy as np
import pytest
import torch

from jumpgpu.gpu.device import Device
from jumpgpu.segmentation.label import Kept, keep_objects, number_objects

FOUND = np.array([0, 1, 37, 300])


def drawn(capacity: int = 301) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    tables = {name: random.integers(0, 3, (len(FOUND), capacity)).astype(np.int32) for name in ("border", "other", "filled")}
    tables["area"] = (random.integers(1, 60, (len(FOUND), capacity)) * (random.random((len(FOUND), capacity)) < 0.8)).astype(
        np.int32
    )
    return tables


@pytest.mark.parametrize("sizes", [None, (10.5, 40.0)])
@pytest.mark.parametrize("asked", [(), ("border",), ("other",), ("border", "other", "filled"), ("filled",)])
@pytest.mark.parametrize("absent", [False, True])
def test_numbers(sizes: tuple[float, float] | None, asked: tuple[str, ...], absent: bool, device: Device) -> None:
    tables = drawn()
    on_device = {name: torch.from_numpy(table) for name, table in tables.items()}
    kept = Kept(
        torch.from_numpy(FOUND),
        on_device["area"],
        *(on_device[n] if n in asked else None for n in ("border", "other")),
        sizes,
    )
    got = number_objects(kept, device, on_device["filled"] if "filled" in asked else None, absent=absent)
    alive = keep_objects(kept, device)
    for field, result in enumerate(FOUND):
        here = {name: table[field, : result + 1] for name, table in tables.items()}
        area = np.where(np.arange(result + 1) > 0, here["area"], 0)
        not_small = area > 0
        for name in {"border", "other"} & set(asked):
            not_small &= here[name] == 0
        if sizes:
            not_small &= area >= sizes[0]
        keep = not_small & (area <= sizes[1]) if sizes else not_small
        if "other" not in asked:  # the first verdict is asked for where there is one image
            np.testing.assert_array_equal(alive[field, : result + 1], np.where(keep, np.arange(result + 1), 0))
        if "filled" in asked:
            keep = keep & (here["filled"] > 0)
        exists = (area > 0) | (np.arange(result + 1) > 0 if absent else False)
        n = int(keep.sum())
        number = np.where(keep, keep.cumsum(), np.where(exists, n + (exists & ~keep).cumsum(), 0))
        wanted = number, np.where(keep, number, 0), np.where(not_small, number, 0)
        for table, want, name in zip(got[:3], wanted, ("number", "kept", "not_small"), strict=True):
            np.testing.assert_array_equal(table[field, : result + 1], want, err_msg=f"{name} of field {field}")
        assert got[3][field] == n


def test_an_area_at_the_bound_is_kept(device: Device) -> None:
    area = torch.tensor([[0, 2826, 2827, 2828, 2829]], dtype=torch.int32)
    bound = torch.pi * 60 * 60 / 4  # 2827.43
    for sizes, want in (((bound, 1e9), [0, 0, 0, 1, 2]), ((0.0, bound), [0, 1, 2, 0, 0])):
        kept = number_objects(Kept(torch.tensor([4]), area, sizes=sizes), device)[1]
        np.testing.assert_array_equal(kept[0], want)
