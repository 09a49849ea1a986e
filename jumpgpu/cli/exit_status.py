"""How a command ends: its exit status, and its last words on stderr."""

import errno
import functools
import logging
import os
import select
import stat
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ..gpu.failures import Failure, Lasting, failure_of
from ..storage.faults import REFUSED, UNSUPPORTED, may_pass
from ..storage.staging import heed, heed_no_more, remove_left, stopped
from .progress import write_event

DONE, BAD_USE, QUARANTINED, TRY_AGAIN = 0, 2, 3, 75
UNHEARD_S = 10.0  # that standard error, a full pipe, is waited for
AT_ONCE = 1000  # characters: a pipe that has room takes 4096 bytes whole
GO_ON = "finished wells are kept; the same command resumes the run"
STOPPED = (OSError, ValueError, MemoryError, RuntimeError, KeyboardInterrupt)  # what ends a run in words
Main = Callable[..., int]


def explain(error: BaseException, output: Any = None, go_on: str = GO_ON, otherwise: int = TRY_AGAIN) -> tuple[str, int]:
    """Why a command was stopped, and its exit status: TRY_AGAIN for what may pass, BAD_USE for what will not.

    output : where it writes; None where an error names its file itself
    go_on : what a user should know who tries again
    otherwise : the status of a RuntimeError
    """
    hint = f"; {go_on}" if go_on else ""
    if isinstance(error, KeyboardInterrupt) or stopped():
        return f"interrupted{hint}", TRY_AGAIN
    if isinstance(error, BlockingIOError):
        return str(error), TRY_AGAIN
    if isinstance(error, FileNotFoundError | ValueError | Lasting | NotImplementedError):
        return str(error), BAD_USE
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        place = error.filename or output
        if isinstance(error, FileExistsError) and error.strerror == os.strerror(errno.EEXIST):
            return f"{place} exists and is not a folder", BAD_USE
        text = f"{error.strerror or error}: {place}" if place else str(error)
        if error.errno in UNSUPPORTED:
            return f"{text}; the file system does not do this", BAD_USE
        if error.errno in REFUSED:
            return text + "; give an --output that can be written" * (output is not None), BAD_USE
        return (f"{text}{hint}", TRY_AGAIN) if may_pass(error) else (text, BAD_USE)
    if isinstance(error, RuntimeError) and otherwise == BAD_USE and failure_of(error) is Failure.OTHER:
        return str(error) or type(error).__name__, BAD_USE
    return f"{str(error) or 'out of memory'}{hint}", TRY_AGAIN


def failed(reason: BaseException | str, status: int, log_json: bool = False) -> int:
    """Say why, and give the exit status."""
    if log_json:
        write_event("error", message=str(reason), status=status)
    else:
        print(f"error: {reason}", file=sys.stderr)
    return status


def command(run: Main) -> Main:
    """A command's `main` whose errors become a line on stderr and an exit status."""

    @functools.wraps(run)
    def main(arguments: Sequence[str] | None = None) -> int:
        try:
            return run(arguments)
        except BrokenPipeError:
            raise
        except STOPPED as error:
            return failed(*explain(error, go_on="", otherwise=BAD_USE))

    return main


def run_command(main: Main, arguments: Sequence[str] | None = None) -> int:
    """A command as a process: stopped it is interrupted, and nobody need listen to what it says."""
    try:
        fill_descriptors()
        heed()
        sys.stdout = Patient(sys.stdout or open(os.devnull, "w"), only=BrokenPipeError)  # noqa: SIM115
        sys.stderr = Patient(sys.stderr or open(os.devnull, "w"), only=OSError, wait_s=UNHEARD_S)  # noqa: SIM115
        status = main(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        heed_no_more()
        return failed("interrupted", TRY_AGAIN)
    except OSError as error:  # of standard output
        return failed(*explain(error, "standard output", go_on=""))
    except Exception:  # DuckDB's own, which is of no kind that a command knows
        if not stopped():
            raise
        heed_no_more()
        return failed("interrupted", TRY_AGAIN)
    finally:
        heed_no_more()
        remove_left()
    return status


def fill_descriptors() -> None:
    """Open what is closed of standard input, output and error: else the next file has their number, and their words."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class Patient:
    """A stream to which writing fails in silence where an error is of the kind `only`: nobody listens any more.

    A pipe that is full is waited for, whether it waits by itself or not: for ever, or `wait_s` seconds, after which words
    get lost until there is room for them again.
    """

    def __init__(self, stream: Any, only: type[OSError], wait_s: float | None = None):
        self._stream, self._only, self._wait_s = stream, only, wait_s
        self._heard, self._pipe = True, is_pipe(stream)

    def write(self, text: str) -> int:
        try:
            for start in range(0, len(text), AT_ONCE) if self._pipe else ():
                if self._has_room():
                    self._stream.write(text[start : start + AT_ONCE])
                    self._stream.flush()
            if not self._pipe:
                self._stream.write(text)
        except self._only:
            self._give_up()
        return len(text)

    def _has_room(self) -> bool:
        """Wait until a pipe takes what is written at once."""
        wait = None if self._wait_s is None else 1000 * self._wait_s * self._heard
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLOUT)
        self._heard = bool(poll.poll(wait))
        return self._heard

    def flush(self) -> None:
        try:
            self._stream.flush()
        except self._only:
            self._give_up()

    def _give_up(self) -> None:
        """Let what follows go nowhere, also what Python writes when it ends."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._pipe = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_pipe(stream: Any) -> bool:
    """Whether a stream may be full, and can be waited for."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return hasattr(select, "poll") and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def events_only() -> None:
    """From here on have warnings and logs of libraries told as events: every line on stderr is JSON."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        write_event("warning", message=f"{category.__name__}: {message} ({os.path.basename(filename)})")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            write_event("warning", message=f"{record.name}: {record.getMessage()}")

    warnings.showwarning = show  # type: ignore[assignment]
    logging.lastResort = Handler(logging.WARNING)  # what is asked where nobody has set up logging
