"""Bytes and names brought to the disk: of a file, of a folder, or all of a file system at once (Linux's syncfs).

A well's 27 files and 17 folders, each synced by itself, waited 150 ms for the disk, and wait 20 by one syncfs. macOS's
fsync stops at the drive's own memory, and F_FULLFSYNC does not. Windows keeps a folder's names by its journal alone: no
folder can be opened there, and nothing is left to sync.
"""

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

KNOWN = {0xEF53, 0x58465342, 0x9123683E}  # ext4, XFS, btrfs: of these syncfs does all that fsync does
TELLS = (5, 8)  # the Linux from which it reports what could not be written


def sync_file(descriptor: int) -> None:
    """Bring an open file's bytes to the disk, or an open folder's names."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:  # a network's file system knows none
            pass
    os.fsync(descriptor)


def open_folder(path: Path | str) -> int | None:
    """A descriptor of a folder; None where folders cannot be opened (Windows)."""
    return None if sys.platform == "win32" else os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_directory(path: Path) -> None:
    descriptor = open_folder(path)
    if descriptor is not None:
        try:
            sync_file(descriptor)
        finally:
            os.close(descriptor)


def syncs_whole(descriptor: int) -> bool:
    """Whether `sync_file_system` does what syncing each file and folder does, where this open file or folder lies.

    A file system that leaves its data to a server (FUSE, a cluster's) may not.
    """
    if sys.platform != "linux":
        return False
    here, kind = os.uname(), ctypes.create_string_buffer(512)  # struct statfs, whose first word is the file system's kind
    release = tuple(int(n) for n in re.findall(r"\d+", here.release)[:2])
    if release < TELLS or not hasattr(c_library(), "syncfs"):
        return False
    return c_library().fstatfs(descriptor, kind) == 0 and ctypes.c_long.from_buffer(kind).value in KNOWN


def sync_file_system(descriptor: int) -> None:
    """Sync all of the file system that an open file or folder is on.

    OSError where something could not be written since the descriptor was opened.
    """
    if c_library().syncfs(descriptor):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def c_library() -> Any:
    return ctypes.CDLL(None, use_errno=True)
