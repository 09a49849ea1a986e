"""AnnData files while the disk fails: the error, and what HDF5 is told meanwhile."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from jumpgpu.storage import faults
from jumpgpu.store.h5ad import Watched, write_h5ad


def failing(call: Callable[..., Any], n: int, forever: bool) -> Callable[..., Any]:
    """A call that fails the n-th time, and ever after where asked."""
    seen = 0

    def calls(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == n or (forever and seen > n):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(*arguments)

    return calls


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("name", ["pwrite", "pread", "ftruncate"])
def test_a_disk_that_fails_is_an_error_that_names_the_file(
    name: str, forever: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "PAUSES_S", (0.0, 0.0, 0.0))
    obs = pd.DataFrame({"Metadata_Well": ["A01", "B02"] * 50}, index=[str(i) for i in range(100)])
    table = anndata.AnnData(np.random.default_rng(1).random((100, 300), np.float32), obs=obs, uns={"of": {"a": "b"}})
    honest, outcomes = getattr(os, name), set()
    for n in range(1, 200):
        path = tmp_path / f"{n}.h5ad"
        calls = failing(honest, n, forever)
        monkeypatch.setattr(os, name, calls)
        try:
            write_h5ad(table, path)
        except OSError as error:
            outcomes.add("error" if path.name in str(error) else str(error))
        else:
            monkeypatch.setattr(os, name, honest)
            np.testing.assert_array_equal(anndata.read_h5ad(path).X, table.X)
            outcomes.add("whole")
            if forever or name != "pread":  # so many calls there are not
                break
    assert n > 1
    assert outcomes == ({"whole"} if name == "pread" and not forever else {"error", "whole"})


def test_hdf5_is_given_back_what_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "x", "x+b", buffering=0) as file:
        watched = Watched(file, tmp_path / "x")
        watched.write(memoryview(b"0123456789"))
        monkeypatch.setattr(os, "pwrite", failing(os.pwrite, 1, forever=False))
        for at, data in ((8, b"abcd"), (0, b"AB"), (10, b"CD")):
            watched.seek(at)
            assert watched.write(memoryview(data)) == len(data)
        assert watched.error is not None
        assert "Input/output error" in str(watched.error)
        assert watched.seek(0, os.SEEK_END) == 12
        watched.seek(0)
        assert watched.read(14) == b"AB234567abCD\0\0"
    assert (tmp_path / "x").read_bytes() == b"0123456789", "once a write failed, none is tried"
