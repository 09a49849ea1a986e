"""Faults of the system, which may pass, told from what is wrong with a file itself.

A full table of descriptors, a stale handle, a bad read: the next try may do. Such a fault is tried again, with growing
pauses, and then ends the run (`Unreachable`, exit status 75): it is nobody's fault among the files, so nothing is stored
for it. A file that is not there, or is no file, will be so tomorrow.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
PAUSES_S = (0.05, 0.2, 0.8)  # between tries
LASTING = {  # errors that say something of a name, a file, or of what was asked
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EFBIG,
    errno.ENXIO,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EXDEV,
}
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EILSEQ, errno.ENODEV}  # by the place, whoever asks, and whenever
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}  # till somebody gives leave


class Unreachable(ConnectionError):
    """A file that the system does not give, whatever is in it."""


def may_pass(error: BaseException) -> bool:
    """Whether an error is the system's: the same command may do later."""
    if isinstance(error, MemoryError):
        return True
    return (isinstance(error, OSError) and error.errno not in LASTING | {None}) or isinstance(error, ConnectionError)


@contextlib.contextmanager
def of_file(file: str | os.PathLike[str]) -> Iterator[None]:
    """What is done to one file: an error that names none (reading, writing and syncing do not) names it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(file)
        raise


def patiently(call: Callable[[], T], file: str | os.PathLike[str]) -> T:
    """What a call that reads a file returns; Unreachable where the system fails, which it may do a few times.

    Raises what the call raises where that is the file's own fault.
    """
    for pause in (*PAUSES_S, None):
        try:
            return call()
        except OSError as error:
            if isinstance(error, ConnectionError) or not may_pass(error):
                raise
            if pause is None or error.errno in REFUSED:
                raise unreachable(file, error) from error
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def unreachable(file: str | os.PathLike[str], error: OSError) -> Unreachable:
    """An error that ends the run, in words."""
    return Unreachable(
        f"{os.fspath(file)}: {error.strerror or error}; the system cannot read the file, whatever its content"
    )


def check_there(file: str) -> None:
    """Unreachable where a file that is said to be absent is there, or its whole folder is gone: an unmounted share."""
    folder = os.path.dirname(file) or "."
    try:
        with os.scandir(folder) as entries:
            there = next(entries, None) is not None
    except OSError:
        there = False
    if not there:
        raise Unreachable(f"{folder} does not exist or is empty: is the share that held {os.path.basename(file)} mounted?")
    if os.path.lexists(file) and os.path.exists(file):
        raise Unreachable(f"{file}: exists and cannot be opened; the system cannot read the file, whatever its content")
