"""AnnData files (.h5ad), written so that no error is lost: HDF5 swallows some, or ends the process by them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from ..storage.faults import patiently

if TYPE_CHECKING:
    import anndata

OWN_BLOCK = 1 << 16  # bytes; HDF5's own blocks are smaller, those of arrays that are larger do not matter


class Watched:
    """A file that HDF5 reads or writes through Python. It hears of no write that fails: it can end the process by one.

    Once a write fails no other is tried, and HDF5 is given back what it wrote: its own blocks, not the values of arrays,
    which it never asks for. A read is tried again. `error` is the first error there was; a file written is then of no use.
    """

    called_from_c = True  # signals wait

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file.fileno(), path
        self.at, self.end = 0, os.fstat(self.file).st_size
        self.error: OSError | None = None
        self.kept: dict[int, bytes] = {}  # by offset, the later the later

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.end}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def flush(self) -> None:
        """Nothing waits."""

    def truncate(self, size: int) -> int:
        self.tried(lambda: os.ftruncate(self.file, size))
        self.end = size
        return size

    def write(self, data: memoryview) -> int:
        n, begin = len(data), self.at

        def put() -> None:
            done = 0
            while done < n:
                done += os.pwrite(self.file, data[done:], begin + done)

        if not self.tried(put) and n <= OWN_BLOCK:
            self.kept.pop(begin, None)
            self.kept[begin] = bytes(data)
        self.at += n
        self.end = max(self.end, self.at)
        return n

    def readinto(self, buffer: memoryview) -> int:
        n, begin = len(buffer), self.at
        try:
            data = patiently(lambda: os.pread(self.file, n, begin), self.path)
        except OSError as error:
            self.error = self.error or error.with_traceback(None)
            raise
        buffer[: len(data)] = data
        buffer[len(data) :] = bytes(n - len(data))
        for start, block in self.kept.items():
            first, last = max(start, begin), min(start + len(block), begin + n)
            if first < last:
                buffer[first - begin : last - begin] = block[first - start : last - start]
        self.at += n
        return n

    def read(self, n: int) -> bytes:
        """By this h5py knows a file."""
        data = bytearray(n)
        self.readinto(memoryview(data))
        return bytes(data)

    def tried(self, call: Callable[[], object]) -> bool:
        """Whether a call that changes the file, the first that fails being the last one made, was made."""
        if self.error is None:
            try:
                call()
            except OSError as error:
                self.error = named(error.with_traceback(None), self.path)  # a traceback would hold HDF5's memory
        return self.error is None


@contextlib.contextmanager
def hdf5_file(path: Path, mode: Literal["r", "w"]) -> Iterator[Any]:
    """An HDF5 file, to be read or new; OSError where anything of it could not be read or written, once the block ends."""
    import h5py

    with open(path, "rb" if mode == "r" else "x+b", buffering=0) as file:
        watched = Watched(file, path)
        try:
            with h5py.File(watched, mode) as group:
                yield group
        except Exception as error:
            if watched.error:
                raise watched.error from error
            raise
        if watched.error:
            raise watched.error


def write_h5ad(data: "anndata.AnnData", path: Path) -> None:
    """Write a new .h5ad file, and read it back; OSError where anything of it could not be written."""
    import anndata.io

    data.strings_to_categoricals()
    with hdf5_file(path, "w") as group:
        with plain_strings():
            anndata.io.write_elem(group, "/", data)
        if data.raw is None:
            del group["raw"]
    with hdf5_file(path, "r") as group:
        check(data, group)


def plain_strings() -> contextlib.AbstractContextManager[None]:
    """Text is written as anndata 0.10 and every later one reads it, by pandas 3 too, whose own kind of text is a group."""
    import anndata

    return anndata.settings.override(allow_write_nullable_strings=False)


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
