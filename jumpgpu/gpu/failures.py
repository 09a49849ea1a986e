"""What an error of a device means: whether less work at a time would pass, or nothing will in this process."""

import enum

# What torch, CuPy and the drivers say. An error of the first kind leaves the device as it was.
OUT_OF_MEMORY = (
    "out of memory",
    "out_of_memory",
    "memoryallocation",
    "alloc_failed",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
)
# After one of these every later call of the process fails alike.
LOST = (
    "illegal memory access",
    "illegal_address",
    "device-side assert",
    "assert triggered",
    "misaligned address",
    "misaligned_address",
    "illegal instruction",
    "illegal_instruction",
    "invalid program counter",
    "invalid_pc",
    "hardware stack error",
    "address space",
    "unspecified launch failure",
    "launch_failed",
    "launch timed out",
    "launch_timeout",
    "uncorrectable",
    "nvlink",
    "context is destroyed",
    "context_is_destroyed",
    "unknown error",
    "fallen off the bus",
)


class Failure(enum.Enum):
    """MEMORY: less at a time may pass. LOST: nothing passes in this process any more. OTHER: it would fail again."""

    MEMORY = enum.auto()
    LOST = enum.auto()
    OTHER = enum.auto()


class Lasting(RuntimeError):
    """What the same command would meet again, whenever it is given."""


class DeviceLost(RuntimeError):
    """The device failed in a way after which the process cannot use it."""


class NotFinite(RuntimeError):
    """A number that always exists is NaN or infinite: a fault of the device or of its memory."""


def failure_of(error: BaseException) -> Failure:
    """What an error that a launch or an operator raised means."""
    kind, text = type(error).__name__.lower(), str(error).lower()
    if isinstance(error, MemoryError) or kind == "outofmemoryerror":
        return Failure.MEMORY
    if isinstance(error, DeviceLost) or any(words in text for words in LOST):
        return Failure.LOST
    return Failure.MEMORY if any(words in text for words in OUT_OF_MEMORY) else Failure.OTHER
