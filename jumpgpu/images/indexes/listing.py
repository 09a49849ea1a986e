"""What lies in a plate's folder, here or in a bucket: names of files and folders, and a file's bytes."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from ...storage.buckets import Place, RemotePath
from ...storage.local import open_regular
from ...storage.prefetch import RemoteFiles
from ..plate import plain_name


class Folder(Protocol):
    """A folder whose names and files are not trusted. `place` names it; names come sorted."""

    @property
    def place(self) -> Place: ...

    @property
    def root(self) -> Place:
        """Outside of which nothing is read."""

    def files(self) -> list[str]:
        """Names of its files."""

    def folders(self) -> list[str]:
        """Names of the folders in it."""

    def inner(self, name: str) -> "Folder":
        """A folder in it."""

    def above(self) -> "Folder":
        """The folder that it lies in, wherever that is."""

    def readable(self) -> bool:
        """Whether its files lie where files may be read."""

    def open(self, name: str, limit: int) -> contextlib.AbstractContextManager[BinaryIO]:
        """One of its files; ValueError for a larger one, for what is no file, and for one that leads outside."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine; no file outside of `root`, links followed, is read."""

    place: Path
    root: Path

    def files(self) -> list[str]:
        with os.scandir(self.place) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())

    def folders(self) -> list[str]:
        with os.scandir(self.place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def inner(self, name: str) -> "LocalFolder":
        return LocalFolder(self.place / name, self.root)

    def above(self) -> "LocalFolder":
        return LocalFolder(self.place.absolute().parent, self.root)

    def readable(self) -> bool:
        return self.place.resolve().is_relative_to(self.root.resolve())

    @contextlib.contextmanager
    def open(self, name: str, limit: int) -> Iterator[BinaryIO]:
        path = check_inside(self.place / name, self.root)
        with open_regular(str(path)) as file:
            if (size := os.fstat(file.fileno()).st_size) > limit:
                raise ValueError(f"{path}: {size} bytes, more than an index may have ({limit})")
            yield file


@dataclass(frozen=True)
class RemoteFolder:
    """A prefix of a bucket, as one listing has it."""

    place: RemotePath
    source: RemoteFiles

    @property
    def root(self) -> RemotePath:
        return self.source.roots[0]

    def files(self) -> list[str]:
        return sorted(name for name in self.source.listed(self.place).files if plain_name(name))

    def folders(self) -> list[str]:
        return sorted(name for name in self.source.listed(self.place).folders if plain_name(name))

    def inner(self, name: str) -> "RemoteFolder":
        return RemoteFolder(self.place / name, self.source)

    def above(self) -> "RemoteFolder":
        return RemoteFolder(self.place.parent, self.source)

    def readable(self) -> bool:
        return any(self.place == root or self.place.inside(root) for root in self.source.roots)

    @contextlib.contextmanager
    def open(self, name: str, limit: int) -> Iterator[BinaryIO]:
        place = self.place / name
        if (size := self.source.status(str(place))[0]) > limit:
            raise ValueError(f"{place}: {size} bytes, more than an index may have ({limit})")
        yield io.BytesIO(self.source.fetch(str(place), limit))


def check_inside(path: Path, root: Path) -> Path:
    """The path itself, if it is inside the root with symlinks followed; ValueError otherwise."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads outside the images root {root}; give --images the folder it leads to")
    return path


def roots_of(root: Place) -> tuple[Path, ...]:
    """`Plate.roots` of a root: none in a bucket, whose files know their own."""
    return (root.resolve(),) if isinstance(root, Path) else ()
