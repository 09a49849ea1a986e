"""The workers' tasks with wells that do harm: JUMPGPU_POISON says which, `A02 kills A03 kills-once A04 raises`."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jumpgpu.cli.options import Options
from jumpgpu.run import dask_tasks as tasks
from jumpgpu.run.dask_tasks import finish, make_ready

__all__ = ["finish", "make_ready", "make_wells"]


def make_wells(token: str, barcode: str, options: Options, wells: Sequence[str]) -> dict[str, Any]:
    words = os.environ["JUMPGPU_POISON"].split()
    harm = dict(zip(words[::2], words[1::2], strict=True))
    with open(options.output / "asked.txt", "a") as file:
        file.write(f"{' '.join(wells)}\n")
    for well in wells:
        once = Path(options.output / f"killed_{well}")
        if harm.get(well) == "kills" or (harm.get(well) == "kills-once" and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    honest = tasks.fill

    def fill(store: Any, run: Any) -> None:
        if raising := [w for w in wells if harm.get(w) == "raises"]:
            raise IndexError(f"no such thing in {raising[0]}")
        honest(store, run)

    tasks.fill = fill
    try:
        return tasks.make_wells(token, barcode, options, wells)
    finally:
        tasks.fill = honest
