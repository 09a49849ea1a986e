"""What a worker process of this machine does first: end when the process that started it ends."""

import os
import sys
import threading

PARENT = "JUMPGPU_WORKER_OF_A_PARENT"  # set for workers that end with their standard input


def dask_setup(worker: object) -> None:
    """As a worker process starts that another keeps: end with that one, at once and whatever is running."""
    if PARENT in os.environ:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), name="parent", daemon=True).start()
