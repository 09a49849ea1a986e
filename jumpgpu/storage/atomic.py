"""Files that survive a crash: files and folders written whole and renamed into place.

Power-loss order: every byte of a folder and its directories are synced, then the rename, then the directory renamed
into. Whatever moment the machine stops at, a reader finds the folder as it was meant to be or not at all.

A bucket has no rename. There a folder's record, `zarr.json`, is put last and is what makes it be there.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .buckets import Place, RemotePath, in_parallel
from .faults import REFUSED, of_file
from .file_system import sync_file_system, syncs_whole
from .local import NotRegular, open_regular
from .staging import remove_folder, staging_folder

RECORD = "zarr.json"
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
FEW = 4  # files that are synced one by one, wherever they lie
BINARY = getattr(os, "O_BINARY", 0)  # Windows would write other bytes for a line's end
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotRegular)  # and no fault of the system


def check_key(key: str) -> str:
    """A path inside a store, if it stays there; ValueError for '..', absolute paths and odd characters."""
    if not KEY.fullmatch(key) or ".." in key:
        raise ValueError(f"{key!r} is not a key of a store; expected plain names joined by '/'")
    return key


def sync_file(descriptor: int) -> None:
    """Bring an open file's bytes to the disk, or an open folder's names. macOS's fsync stops at the drive's own memory."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:  # a network's file system knows none
            pass
    os.fsync(descriptor)


def open_folder(path: Path | str) -> int | None:
    """A descriptor of a folder; None on Windows, where none can be opened and the journal alone keeps names."""
    return None if sys.platform == "win32" else os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def path_inside(folder: Path, key: str) -> str:
    """A file's path below a folder; ValueError where a link leads out of it."""
    path = str(folder)
    for step in check_key(key).split("/"):
        path = f"{path}/{step}"
        if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(f"{folder}: {key} leads out of the plate")
    return path


def sync_directory(path: Path) -> None:
    descriptor = open_folder(path)
    if descriptor is not None:
        try:
            with of_file(path):
                sync_file(descriptor)
        finally:
            os.close(descriptor)


def write_new(path: Path | str, data: bytes, sync: bool = True) -> None:
    """Write a new file, and sync its bytes; FileExistsError if it is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        with of_file(path):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if sync:
                sync_file(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A name to write to, in a folder of its own beside `path`; it becomes `path` once it is written and synced, or goes.

    FileExistsError where `path` is there already and is not to be overwritten.
    """
    if path.exists() and not overwrite:
        raise FileExistsError(errno.EEXIST, "exists already; --overwrite replaces it", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    start = path.name.encode()[:100].decode(errors="ignore")
    folder = staging_folder(path.parent, f".{start}.")
    part = folder / path.name
    try:
        with of_file(path):
            yield part
            move_into_place(part, path)
    finally:
        remove_folder(folder)


@contextlib.contextmanager
def whole_folder(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A folder to fill beside `path`; it becomes `path`, synced, once the block ends, or goes. Errors as `whole_file`."""
    if path.exists() and not overwrite:
        raise FileExistsError(errno.EEXIST, "exists already; --overwrite replaces it", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_folder(path.parent, ".staging.")
    try:
        (staging / "new").mkdir()
        with of_file(path):
            yield staging / "new"
            for file in sorted((staging / "new").rglob("*")):
                if file.is_file():
                    with open(file, "r+b") as stream:
                        sync_file(stream.fileno())
        if path.exists():
            os.rename(path, staging / "old")
        os.rename(staging / "new", path)
        sync_directory(path.parent)
    finally:
        remove_folder(staging)


@contextlib.contextmanager
def placed_together(folder: Path) -> Iterator[Callable[[Path], Path]]:
    """Files that come into place at the end, in the order of asking, or, where something fails, not at all.

    What is yielded gives a name to write each to, below `folder`. Where the disk fails between one and the next coming into
    place, those that came are whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging, paths = staging_folder(folder, ".staging."), dict[Path, Path]()

    def place(path: Path) -> Path:
        part = staging / f"{len(paths)}{path.suffix}"
        paths[part] = path
        return part

    try:
        with of_file(folder):
            yield place
        for part, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with of_file(path):
                move_into_place(part, path)
    finally:
        remove_folder(staging)


def write_whole(path: Place, data: bytes | bytearray | str) -> None:
    """Give a file, in a folder or a bucket, new bytes (text as UTF-8): a reader finds the old ones or the new."""
    data = data.encode() if isinstance(data, str) else data
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with whole_file(path) as part:
        part.write_bytes(data)


def move_into_place(part: Path, path: Path) -> None:
    """Sync a finished file of the same file system, and give it its name."""
    descriptor = os.open(part, os.O_RDWR | BINARY)  # Windows syncs nothing that is open for reading alone
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)
    os.replace(part, path)
    sync_directory(path.parent)


def replace_file(path: Place, data: bytes, staging: Place) -> None:
    """Give a file new bytes in one step; `staging` is a folder on the same file system."""
    if isinstance(path, RemotePath) or isinstance(staging, RemotePath):
        assert isinstance(path, RemotePath), "a file on this machine is staged on it"
        path.write_bytes(data)
        return
    part = staging / f"{path.name}.part"
    part.unlink(missing_ok=True)
    write_new(part, data)
    os.replace(part, path)
    sync_directory(path.parent)


def read_file(path: Place, limit: int) -> bytes:
    """A file's bytes; FileNotFoundError, or ValueError where it has more than `limit`."""
    if isinstance(path, RemotePath):
        return path.read_bytes(limit)
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data


def read_files(folder: Place, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes, int]]:
    """(key, bytes, size found) of files below a folder, in order; no bytes where the size is another, -1 for an absent one.

    ValueError where a link leads out of the folder.
    """
    if isinstance(folder, RemotePath):
        for key in sizes:
            check_key(key)
        objects = in_parallel(lambda key: read_object(folder / key, sizes[key]), sizes)
        for key, data in zip(sizes, objects, strict=True):
            yield key, data if len(data) == sizes[key] else b"", len(data) or -1
        return
    for key, expected in sizes.items():
        path = path_inside(folder, key)
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(size) if size == expected else b""
        except NO_FILE:
            yield key, b"", -1
            continue
        yield key, data, size


def read_ranges(folder: Place, key: str, size: int, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of a file below a folder, by first byte and number of bytes; ValueError where the file has another size.

    Of a bucket's object the parts are asked for together.
    """
    if isinstance(folder, RemotePath):
        result = (folder / check_key(key)).read_ranges(ranges)
    else:
        path = path_inside(folder, key)
        result, there = [], -1
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, NotRegular),
            open_regular(path) as file,
        ):
            there = os.fstat(file.fileno()).st_size
            for start, n in ranges if there == size else ():
                file.seek(start)
                result.append(file.read(n))
        if there != size:
            raise ValueError(f"{folder}: {key} is not as it was written ({there} bytes of {size})")
    return result


def read_object(path: RemotePath, limit: int) -> bytes:
    """An object's bytes; none where it is absent or has more."""
    try:
        return path.read_bytes(limit)
    except (FileNotFoundError, ValueError):
        return b""


def names_below(folder: Place) -> list[str]:
    """Keys of all files below a folder."""
    if isinstance(folder, RemotePath):
        return list(folder.listing(deep=True).files)
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]


def put_folder(files: Mapping[str, bytes], target: RemotePath, replace: bool) -> None:
    """`commit_folder` for a bucket: what the folder does not hold any more goes, its files come, its record last.

    FileExistsError where a folder of nothing but its record is there already.
    """
    there = names_below(target)
    if set(files) != {RECORD}:
        if replace and RECORD in there:
            target.remove([RECORD])
        target.remove(sorted(set(there) - set(files) - {RECORD}))
        list(in_parallel(lambda key: (target / check_key(key)).write_bytes(files[key]), [k for k in files if k != RECORD]))
    elif replace:  # a plate made anew: its wells' records go first, its own is there till the new one is
        nested = [name for name in there if name != RECORD]
        target.remove(sorted(nested, key=lambda name: (not name.endswith(f"/{RECORD}"), name)))
    (target / RECORD).write_bytes(files[RECORD], new=not replace and set(files) == {RECORD})


def write_folder(files: Mapping[str, bytes], fresh: Path) -> None:
    """Write `files` (key -> bytes) as a new folder; all of it is synced when this returns."""
    os.mkdir(fresh)
    home = open_folder(fresh)  # from here on it is told of what cannot be written
    try:
        together = home is not None and len(files) > FEW and syncs_whole(home)
        folders = {""}
        for key, data in files.items():
            steps = key.split("/")
            for n in range(1, len(steps)):
                if (folder := "/".join(steps[:n])) not in folders:
                    os.mkdir(f"{fresh}/{folder}")
                    folders.add(folder)
            write_new(f"{fresh}/{key}", data, sync=not together)
        if home is not None and together:
            with of_file(fresh):
                sync_file_system(home)
        else:
            for folder in sorted(folders, key=lambda f: -len(f)):
                sync_directory(fresh / folder)
    finally:
        if home is not None:
            os.close(home)


def commit_folder(files: Mapping[str, bytes], target: Place, staging: Place, replace: bool = False) -> None:
    """Write `files` (key -> bytes) as the folder `target` in one step, by way of a folder of that name under `staging`.

    A `target` that exists is an error, or with `replace` it is moved aside first, so that between the two there is none
    rather than a mixture. Raises FileExistsError, or OSError (disk full, read-only) with `target` as it was or absent,
    and nothing left in `staging`.
    """
    for key in files:
        check_key(key)
    if isinstance(target, RemotePath) or isinstance(staging, RemotePath):
        assert isinstance(target, RemotePath), "a folder on this machine is staged on it"
        put_folder(files, target, replace)
        return
    fresh, old = staging / target.name, staging / f"{target.name}.old"
    for leftover in (fresh, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    moving = False
    try:
        write_folder(files, fresh)
        if replace and target.exists():
            os.rename(target, old)
        moving = True
        os.rename(fresh, target)  # fails on a folder that has something in it
        moving = False
        sync_directory(target.parent)
    except OSError as error:
        remove_folder(fresh)
        if error.errno == errno.ENOTEMPTY or (moving and error.errno in REFUSED and target.exists()):  # sshfs: EPERM
            raise FileExistsError(errno.EEXIST, "exists already", str(target)) from error
        raise
    finally:
        remove_folder(old)
