"""Folders that files are written in before they come into place: they go, however a run ends that is not killed.

Ctrl-C or SIGTERM may come at any moment, between two lines too: it is held back while such a folder is made, and what is
left of them at a command's end is removed then.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

TRIES = 3  # of removing a folder
RETRY_S = 0.01
_left: dict[Path, int] = {}  # folders that are there -> the process that made them
_came: list[int] = []  # signals that are held back
_raised: list[int] = []  # that have stopped something
_held = 0  # blocks that hold them
_over = False  # whether the command has ended, but for what Python does then


def heed() -> None:
    """Have Ctrl-C, unless it is ignored, and SIGTERM stop a command by KeyboardInterrupt, where nothing holds them back."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = again


def again(lost: "sys.UnraisableHookArgs") -> None:
    """Have a KeyboardInterrupt come once more that Python lost: it fell where something was being thrown away."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(RETRY_S, signal.raise_signal, [signal.SIGTERM]).start()
    else:
        sys.__unraisablehook__(lost)


def stop(number: int, frame: FrameType | None) -> None:
    """What a signal does. Code that C calls, where an exception could end the process by a fault of its memory, has a `self`
    whose class says `called_from_c`: it comes later."""
    if _over:
        return
    while frame is not None and not getattr(type(frame.f_locals.get("self")), "called_from_c", False):
        frame = frame.f_back
    if _held:
        _came.append(number)
    elif frame is not None:
        threading.Timer(RETRY_S, signal.raise_signal, [number]).start()
    else:
        _came.clear()
        _raised.append(number)
        raise KeyboardInterrupt


def heed_no_more() -> None:
    """Have a process end as it has said: what comes now, or once more, changes nothing.

    Python itself would end by SIGINT, whatever the status, where an interrupt fell in text given to `exec` (every dataclass
    and named tuple is made by it), until the next such text; and by whatever comes once it has put back the handlers, as
    the last thing it does, where it does not ignore them.
    """
    global _over
    _over = True
    exec("")
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is stop:
            signal.signal(number, signal.SIG_IGN)


def stopped() -> bool:
    """Whether a signal has stopped something: what a library makes of KeyboardInterrupt may be an error of its own."""
    return bool(_raised)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have what `heed` heeds come once the block has ended. The main thread hears it: in another nothing is done."""
    global _held
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _came and not _held and not _over:
            _raised.append(_came[0])
            _came.clear()
            raise KeyboardInterrupt


def staging_folder(parent: Path, prefix: str) -> Path:
    """A new folder, which is there until `remove_folder`, or the end of the command."""
    with held_back():
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        _left[folder] = os.getpid()
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder that nobody needs, if it can be: what stays is no error, and the next run removes it."""
    for _ in range(TRIES):
        with contextlib.suppress(OSError):  # rmtree does not ignore all
            shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            _left.pop(folder, None)
            return


def remove_left() -> None:
    """Remove what this process has made by `staging_folder` and not removed."""
    with held_back():
        for folder, process in list(_left.items()):
            if process == os.getpid():
                remove_folder(folder)
