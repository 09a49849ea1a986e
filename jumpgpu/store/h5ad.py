"""AnnData files (.h5ad), written so that no error is lost: HDF5 swallows some, or ends the process by them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

if TYPE_CHECKING:
    import anndata


class Watched:
    """A file that HDF5 reads or writes through Python. It hears of no error; `error` is the first there was."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.file, name)

        def watched(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except OSError as error:
                self.error = self.error or error
                return len(arguments[0]) if arguments and hasattr(arguments[0], "__len__") else 0

        return watched


@contextlib.contextmanager
def hdf5_file(path: Path, mode: Literal["r", "w"]) -> Iterator[Any]:
    """An HDF5 file, to be read or new; OSError where anything of it could not be read or written, once the block ends."""
    import h5py

    with open(path, "rb" if mode == "r" else "x+b", buffering=0) as file:
        watched = Watched(file)
        try:
            with h5py.File(watched, mode) as group:
                yield group
        except Exception as error:
            if watched.error:
                raise named(watched.error, path) from error
            raise
        if watched.error:
            raise named(watched.error, path)


def write_h5ad(data: "anndata.AnnData", path: Path) -> None:
    """Write a new .h5ad file, and read it back; OSError where anything of it could not be written."""
    import anndata.io

    data.strings_to_categoricals()
    with hdf5_file(path, "w") as group:
        anndata.io.write_elem(group, "/", data)
        if data.raw is None:
            del group["raw"]
    with hdf5_file(path, "r") as group:
        check(data, group)


def named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))


def check(data: "anndata.AnnData", group: Any) -> None:
    """ValueError where a file's names, shape and values are not those of the data."""
    for name, index in (("obs", data.obs_names), ("var", data.var_names)):
        key = group[name].attrs["_index"]
        if not np.array_equal(group[name][key].asstr()[:], index.to_numpy(str).astype(object)):
            raise ValueError(f"{name} names were not written as they are")
    values, row = group["X"], 0
    blocks = [data.X] if isinstance(data.X, np.ndarray) else list(data.X.blocks)
    for block in blocks:
        part = np.asarray(block)
        if not np.array_equal(values[row : row + len(part)], part, equal_nan=True):
            raise ValueError(f"X was not written as it is (rows {row} to {row + len(part)})")
        row += len(part)
    if values.shape != data.shape:
        raise ValueError(f"X has shape {values.shape}, and {data.shape} was written")
