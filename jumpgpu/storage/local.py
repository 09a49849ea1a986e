"""A plate's image files, wherever they are: one way to ask for a file's bytes, its size and its name.

`Local` serves files on this machine, inside the roots; `s3.py` those of a bucket, `ome_zarr.py` planes that are no
files of their own. What reads images asks `Plate.images`, and does not know which it is.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol, TypeGuard, runtime_checkable

import numpy as np

from .faults import of_file, patiently
from .pages import read_page, split_page

NONBLOCK = getattr(os, "O_NONBLOCK", 0)
READ = os.O_RDONLY | NONBLOCK | getattr(os, "O_BINARY", 0)


Status = tuple[int, str]  # bytes, and a mark that is another one when the content was changed
ABSENT: Status = (-1, "absent")


class Files(Protocol):
    """Image files, and pages of them, by the names that `Site.files` gives. May be asked from several threads at once.

    ConnectionError, where a place far away cannot be reached, is nobody's fault among the files: it ends a run.
    """

    def read(self, file: str, limit: int) -> bytes:
        """The file's bytes. FileNotFoundError; OSError or ValueError: no file, outside the roots, more than `limit`."""

    def read_with_status(self, file: str, limit: int) -> tuple[bytes, Status]:
        """The same, and the status of the very file that was read, whatever has its name by now."""

    def status(self, file: str) -> Status:
        """Its size in bytes and a mark that is another one when it was changed; (-1, 'absent') where there is none."""

    def relative(self, file: str) -> str:
        """Its name from the plate's folder on."""

    def ahead(self, files: Iterable[str], limit: int) -> contextlib.AbstractContextManager[None]:
        """While this is open, `files` are going to be read, about in this order: a place far away fetches them ahead."""


@runtime_checkable
class Planes(Files, Protocol):
    """Files that hold arrays: a name stands for one plane of one, and is read as pixels instead of bytes."""

    def plane_size(self, file: str) -> tuple[int, int]:
        """Height and width that a plane declares."""

    def read_plane(self, file: str, out: np.ndarray) -> None:
        """Fill `out`, uint16 [H, W]; an error as `Files.read`'s where the plane is anything else."""


def has_planes(files: Files) -> TypeGuard[Planes]:
    """Whether names stand for planes; asked for every image, which a protocol's own check is too slow for."""
    return hasattr(files, "read_plane")


@dataclass(frozen=True)
class Local:
    """Files on this machine.

    folder : the plate's
    roots : resolved; no file outside them is opened
    """

    folder: Path
    roots: tuple[Path, ...]

    def read(self, file: str, limit: int) -> bytes:
        return self.read_with_status(file, limit)[0]

    def read_with_status(self, file: str, limit: int) -> tuple[bytes, Status]:
        return patiently(lambda: read_inside(file, self.roots, limit), file)

    def status(self, file: str) -> Status:
        try:
            name = split_page(file)[0]
            return status_of(patiently(lambda: os.stat(name), name))
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return ABSENT

    def relative(self, file: str) -> str:
        home = f"{self.folder}/"
        if file.startswith(home) and "/." not in file and "//" not in file:  # as almost all are
            return file.removeprefix(home)
        return os.path.relpath(file, self.folder)

    def ahead(self, files: Iterable[str], limit: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def status_of(status: os.stat_result) -> Status:
    return status.st_size, str(status.st_mtime_ns)


def read_inside(file: str, roots: Sequence[Path], limit: int) -> tuple[bytes, Status]:
    """A regular file inside the roots, symlinks followed, of at most `limit` bytes; OSError or ValueError otherwise.

    Of a page (`pages.py`) a file of its own.
    """
    name, page = split_page(file)
    descriptor, status = open_inside(name, roots)
    try:
        if page:
            with open(descriptor, "rb", closefd=False) as handle:
                return read_page(handle, page, limit), status_of(status)
        if status.st_size > limit:
            raise ValueError(f"{status.st_size} bytes, more than {limit} for an image of this size")
        return read_whole(descriptor, status.st_size), status_of(status)
    finally:
        os.close(descriptor)


def open_inside(name: str, roots: Sequence[Path]) -> tuple[int, os.stat_result]:
    """Open a regular file that lies inside the roots; the caller closes it.

    Where it lies is asked of the system about the very file that is open: that is a call where resolving a name takes one
    per folder, and nobody can exchange a symlink in between.
    """
    try:
        descriptor = os.open(name, READ)
    except OSError:
        check_inside(os.path.realpath(name), roots)
        raise
    try:
        try:
            real = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:  # a system without
            real = os.path.realpath(name)
        if not real.startswith(prefixes(tuple(roots))):
            check_inside(os.path.realpath(name), roots)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(f"{name}: not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


@cache
def prefixes(roots: tuple[Path, ...]) -> tuple[str, ...]:
    """How names of files inside the roots begin."""
    return tuple(os.path.join(root, "") for root in roots)


def check_inside(real: str, roots: Sequence[Path]) -> None:
    """ValueError for a resolved name outside the roots."""
    if not any(Path(real).is_relative_to(root) for root in roots):
        raise ValueError(f"a symlink leads outside the images root {roots[0]}; give --images the folder it leads to")


def read_whole(descriptor: int, n: int) -> bytes:
    """An open file's first `n` bytes, or what there is of them."""
    data = os.read(descriptor, n)
    if len(data) < n:  # the system gives 2 GB at most at a time
        parts = [data]
        while part := os.read(descriptor, n - sum(map(len, parts))):
            parts.append(part)
        data = b"".join(parts)
    return data


def check_folder(path: Path) -> None:
    """NotADirectoryError where a folder is not and cannot be, since there is a file in its place or above it."""
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), Path())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a folder", str(there))


class NotRegular(ValueError):
    """A pipe or a device in the place of a file."""


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A regular file, opened for reading; ValueError for a pipe or a device, which could be waited for for ever."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK)) as handle, of_file(path):
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise NotRegular(f"{os.fspath(path)}: not a regular file")
        yield handle
