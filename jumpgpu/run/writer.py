"""The writer thread: finished tables go to the store while the next batch is computed."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from ..cli.progress import Progress
from ..images.reader import FieldBatch
from ..images.site import Problem
from ..store.layout import Quarantined, SiteTable
from ..store.writer import PlateWriter

AHEAD = 2  # batches that may wait for the disk


class Sink:
    """Feeds a `PlateWriter` from a thread of its own. What goes wrong there is raised by the next `put`, or at the end.

    Use it in a `with`: a clean end waits until all is written, an exception drops what is still waiting. `name` gives
    the name under which the quarantine lists a file; `strict` raises ValueError where a site would be left out.
    """

    def __init__(self, store: PlateWriter, name: Callable[[str], str], progress: Progress, strict: bool = False):
        self.store, self.name, self.progress, self.strict = store, name, progress, strict
        self._queue: queue.Queue[tuple[FieldBatch, Sequence[SiteTable]] | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    def put(self, batch: FieldBatch, tables: Sequence[SiteTable]) -> None:
        """Hand over a batch's tables, and its quarantine; waits while `AHEAD` batches do."""
        if self.strict and batch.quarantined:
            raise ValueError(f"{batch.quarantined[0]}; without --strict the site is left out and the run goes on")
        self._queue.put((batch, tables))
        if self._error:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error or self._stopped.is_set():
                continue  # keep emptying, so that `put` never waits for good
            try:
                self._write(*item)
            except BaseException as error:  # noqa: BLE001 - carried to the thread that can act on it
                self._error = error

    def _write(self, batch: FieldBatch, tables: Sequence[SiteTable]) -> None:
        for problem in batch.flags:
            entry = self._entry(problem, used=True)
            self.store.flag(entry)
            self.progress.event("quarantine", **dataclasses.asdict(entry))
        for problem in batch.quarantined:
            self.progress.say(f"left out: {problem}", "quarantine", **dataclasses.asdict(self._entry(problem)))
        for skipped in batch.skipped:
            entries = [self._entry(p) for p in batch.quarantined if (p.well, p.site) == skipped]
            self._wrote(skipped[0], self.store.leave_out(entries))
        checks = dict(zip(batch.sites, batch.checks, strict=True)) if batch.checks else {}
        for table in tables:
            for channel, reason in table.flags.items():
                entry = Quarantined(self.store.layout.plate, table.well, table.site, channel, "", reason, used=True)
                self.store.flag(entry)
                self.progress.event("quarantine", **dataclasses.asdict(entry))
            found = dict(zip(self.store.layout.channels, checks.get((table.well, table.site), ()), strict=False))
            self._wrote(table.well, self.store.append(dataclasses.replace(table, checks=found)))
        self.progress.advance(len(batch.sites) + len(batch.skipped))

    def _wrote(self, well: str, complete: bool) -> None:
        if complete:
            self.progress.event("well", well=well)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error:
            self._stopped.set()
        self._queue.put(None)
        self._thread.join()
        if self._error and error is None:
            raise self._error

    def _entry(self, problem: Problem, used: bool = False) -> Quarantined:
        file = self.name(problem.file) if problem.file else ""
        return Quarantined(problem.plate, problem.well, problem.site, problem.channel, file, problem.reason, used)
