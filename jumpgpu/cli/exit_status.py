"""How a run ends: its exit status, and its last words on stderr."""

import errno
import sys
from typing import Any

from .progress import write_event

DONE, BAD_USE, QUARANTINED, TRY_AGAIN = 0, 2, 3, 75
GO_ON = "finished wells are kept, and the same command goes on from there"
STOPPED = (OSError, ValueError, MemoryError, RuntimeError, KeyboardInterrupt)  # what ends a run in words


def explain(error: BaseException, output: Any) -> tuple[str, int]:
    """Why a run that had begun to write below `output` was stopped, and its exit status."""
    if isinstance(error, FileNotFoundError | ValueError):
        return str(error), BAD_USE
    if isinstance(error, BlockingIOError):
        return str(error), TRY_AGAIN
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {GO_ON}", TRY_AGAIN
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        place = f"{error.strerror or error}: {error.filename or output}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{place}; give an --output that can be written", BAD_USE
        return f"{place}; {GO_ON}", TRY_AGAIN
    return f"{str(error) or 'out of memory'}; {GO_ON}", TRY_AGAIN


def failed(reason: BaseException | str, status: int, log_json: bool = False) -> int:
    """Say why, and give the exit status."""
    if log_json:
        write_event("error", message=str(reason), status=status)
    else:
        print(f"error: {reason}", file=sys.stderr)
    return status
