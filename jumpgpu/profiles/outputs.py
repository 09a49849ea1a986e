"""Where a run's profiles go: a folder per plate, one run at a time in each, all tables in place at the end or none."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd

from ..settings.names import check_file_name
from ..storage.atomic import placed_together
from ..storage.claims import lock, release

LOCK = ".jumpgpu.lock"


class ProfileOutputs:
    """A run's tables under `folder`, by plate. Use it in a `with`: a clean end brings them into place, records last."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._taken: set[str] = set()
        self._locks = contextlib.ExitStack()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="profiles")
        self._written: Future[None] | None = None
        self._together = placed_together(folder)

    def __enter__(self) -> Self:
        self._place: Callable[[Path], Path] = self._together.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._locks:
            try:
                self._writer.shutdown()
                if self._written is not None and kind is None:
                    self._written.result()
            except BaseException as failed:
                self._together.__exit__(type(failed), failed, failed.__traceback__)
                raise
            self._together.__exit__(kind, error, trace)

    def take(self, plate: str) -> Path:
        """The folder of a plate, which no other run may write to till this one ends; '' is of all plates together.

        ValueError for a name that cannot name a folder, BlockingIOError while another run has it.
        """
        home = self.folder / check_file_name(plate, "the plate (Metadata_Plate)") if plate else self.folder
        if plate and plate not in self._taken:
            home.mkdir(parents=True, exist_ok=True)
            try:
                taken = lock(home / LOCK)
            except BlockingIOError as error:
                raise BlockingIOError(f"{plate}: another run of profile is at work in {home}; wait for it") from error
            if taken is not None:
                self._locks.callback(release, taken)
            self._taken.add(plate)
        return home

    def path(self, plate: str, name: str) -> Path:
        """Where to write a plate's file till the end."""
        return self._place(self.take(plate) / check_file_name(name, "the table"))

    def write(self, write: Callable[[pd.DataFrame, Path], None], table: pd.DataFrame, plate: str, name: str) -> None:
        """Write a plate's table while the run goes on; waits for the one before, and raises what went wrong with it.

        Packing a table is half as long as making it, and Python's lock is free meanwhile.
        """
        path = self.path(plate, name)
        if self._written is not None:
            self._written.result()
        self._written = self._writer.submit(write, table, path)
