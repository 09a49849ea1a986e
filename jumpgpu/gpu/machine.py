"""What the machine gives this process: processors and memory, on Linux, macOS and Windows."""

import contextlib
import os
from pathlib import Path

import psutil


def usable_cores() -> int:
    """Processors that this process may use: its affinity where the system knows one (macOS does not)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def processes_for(threads: int) -> int | None:
    """How many processes are faster than so many threads of one, which wait for Python's lock in turn; None for a few.

    A field holds the lock for 6.6 % of its time (docs/design/many-cores.md).
    """
    return threads // 4 if threads >= 12 else None


def free_memory() -> int:
    """Bytes that this process may still take: the machine's, or its control group's where that is less."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError, IndexError):
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("0::")[1].split()[0]  # version 2
        group = Path("/sys/fs/cgroup") / own.lstrip("/")
        limit, used = ((group / name).read_text(encoding="utf-8") for name in ("memory.max", "memory.current"))
        free = min(free, max(0, int(limit) - int(used)))
    return free
