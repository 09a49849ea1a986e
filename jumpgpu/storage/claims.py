"""Runs that keep out of each other's way: locks that end with the process, and claims on a plate's wells.

A bucket has no locks; two runs that make the same well there put the same bytes, so they need not keep apart.
"""

import contextlib
import errno
import glob
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .atomic import read_file
from .buckets import Place, RemotePath
from .faults import of_file
from .staging import TRIES, remove_folder, staging_folder

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # file systems without flock
WAIT_S = 600.0  # for who holds a lock that is waited for: it may be stopped, or on a machine that is gone


def lock(path: Path, wait: bool = False) -> FileLock | None:
    """Take the exclusive lock that a file stands for, which ends with the process; the file stays. BlockingIOError if
    another holds it, with `wait` for more than `WAIT_S`; None where the file system knows no locks.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "is not a regular file but should be a lock; remove it", str(path))
    taken = FileLock(path, WAIT_S, blocking=wait, thread_local=False, preserve_lock_file=True)
    try:
        taken.acquire()
    except Timeout as error:
        held = f"is locked by another process{f', for {WAIT_S:.0f} s and more: is it stopped?' if wait else ''}"
        raise BlockingIOError(errno.EAGAIN, held, str(path)) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return taken


def release(taken: FileLock) -> None:
    """Give a lock back, if the system lets us: if not, it ends with the process."""
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            taken.release(force=True)
            return


@contextlib.contextmanager
def gate(output: Place) -> Iterator[None]:
    """One process at a time passes: for the short moments in which runs look at each other's claims. A bucket has none."""
    taken = None if isinstance(output, RemotePath) else lock(output / ".jumpgpu.lock", wait=True)
    try:
        yield
    finally:
        if taken:
            release(taken)


class Claim:
    """A run's hold on some wells of a plate, and its staging folder beside the plate.

    The claim is a lock, so it ends with the process however that ends; the next run removes what a dead one left.
    """

    def __init__(self, output: Place, plate: str, wells: Iterable[str]):
        """Claim `wells`. The caller holds `gate(output)`. BlockingIOError names the live run that holds one of them."""
        wells = sorted(wells)
        self.others: list[str] = []  # live runs on other wells of the plate
        self.staging: Place = output
        self._lock: FileLock | None = None
        if isinstance(output, RemotePath):
            return
        for folder in output.glob(f".{glob.escape(plate)}.run-*"):
            other = self._holder(folder)
            if other is None:
                remove_folder(folder)
            elif shared := sorted(set(wells) & set(other["wells"])):
                raise BlockingIOError(
                    f"{plate}: process {other['process']} on {other['host']} is already at work on {len(shared)} of these "
                    f"wells ({', '.join(shared[:4])}{', ...' if len(shared) > 4 else ''}); wait for it, stop it, or choose "
                    "other wells"
                )
            else:
                self.others.append(f"process {other['process']} on {other['host']}")
        self.staging = staging_folder(output, f".{plate}.run-")
        record = {"process": os.getpid(), "host": socket.gethostname(), "wells": wells}
        try:
            self._lock = lock(self.staging / "lock")
            with of_file(self.staging / "claim.json"):
                (self.staging / "claim.json").write_text(json.dumps(record), encoding="utf-8")
        except BaseException:
            self.release()
            raise

    @staticmethod
    def _holder(folder: Path) -> dict[str, Any] | None:
        """What a live run wrote into its claim; None for a dead one. Without locks nobody can tell: no claim, not dead."""
        try:
            text = read_file(folder / "claim.json", 1 << 20)  # empty where its run was killed as it wrote it
            taken = lock(folder / "lock")
        except FileNotFoundError:
            return None
        except BlockingIOError:
            record: dict[str, Any] = json.loads(text)
            return record
        if taken:
            release(taken)
            return None
        return {"wells": [], "process": "(unknown)", "host": "a file system without locks"}

    def release(self) -> None:
        if isinstance(self.staging, Path):
            if self._lock:
                release(self._lock)
            remove_folder(self.staging)
