"""The writer threads: finished tables go to the store while the next batch is computed, several wells at a time."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ..cli.progress import Progress
from ..gpu.machine import usable_cores
from ..images.reader import FieldBatch
from ..images.site import Problem
from ..settings.names import well_position
from ..store.layout import Quarantined, SiteTable
from ..store.writer import PlateWriter
from .provenance import as_opened

AHEAD = 2  # batches that may wait for the disk
IN_PER_ROW = 5  # wells without a usable image, in a row: the fault is not theirs
MAX_WRITERS = 8  # wells at a time; two at least, since one waits for the disk


class BackgroundWriter:
    """Feeds a `PlateWriter` from threads of its own: one keeps the books, and `writers` (half the cores where None) compress
    and write a well each. What goes wrong there is raised by the next `put`, or at the end.

    Use it in a `with`: a clean end waits until all is written, an exception drops what is still waiting. `name` gives
    the name under which the quarantine lists a file; `strict` raises ValueError where a site would be left out.
    """

    def __init__(
        self,
        store: PlateWriter,
        name: Callable[[str], str],
        progress: Progress,
        strict: bool = False,
        writers: int | None = None,
    ):
        n = writers or max(2, min(MAX_WRITERS, usable_cores() // 2))
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="store")
        self._free = threading.BoundedSemaphore(2 * n)  # wells that are written or wait for a writer: their tables are held
        self.store, self.name, self.progress, self.strict = store, name, progress, strict
        self._queue: queue.Queue[tuple[FieldBatch, Sequence[SiteTable]] | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._measured: set[str] = set()  # wells with a site that could be used
        self._reason = ""  # why the first site of those was left out
        self._empty: list[tuple[str, Callable[[], None]]] = []  # complete wells without, since the last with
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
        if not self._error and not self._stopped.is_set():
            self._let_go()

    def _write(self, batch: FieldBatch, tables: Sequence[SiteTable]) -> None:
        for problem in batch.flags:
            entry = self._entry(problem, used=True)
            self.store.flag(entry)
            self.progress.event("quarantine", **dataclasses.asdict(entry))
        for problem in batch.quarantined:
            self.progress.say(f"left out: {problem}", "quarantine", **dataclasses.asdict(self._entry(problem)))
        self._measured.update(well for well, _ in batch.sites)
        checks = dict(zip(batch.sites, batch.checks, strict=True)) if batch.checks else {}
        files = dict(zip(batch.sites, batch.files, strict=True)) if batch.files else {}
        measured = {(table.well, table.site): table for table in tables}
        for well, site in sorted({*measured, *batch.skipped}, key=lambda place: (well_position(place[0]), place[1])):
            if (table := measured.get((well, site))) is None:
                left_out = [self._entry(p) for p in batch.quarantined if (p.well, p.site) == (well, site)]
                self._reason = self._reason or next(
                    (f"{p.well} site {p.site} {p.channel}: {p.reason}" for p in left_out), ""
                )
                self._hand(well, self.store.take_left_out(left_out))
                continue
            for channel, reason in table.flags.items():
                entry = Quarantined(self.store.layout.plate, well, site, channel, "", reason, used=True)
                self.store.flag(entry)
                self.progress.event("quarantine", **dataclasses.asdict(entry))
            result = dict(zip(self.store.layout.channels, checks.get((well, site), ()), strict=False))
            inputs = as_opened(table.inputs, files.get((well, site), {}))
            self._hand(well, self.store.take(dataclasses.replace(table, checks=result, inputs=inputs)))
        self.progress.advance(len(batch.sites) + len(batch.skipped))

    def _hand(self, well: str, write: Callable[[], None] | None) -> None:
        """Have a writer write a well that is complete. One without a usable image waits till another well has some."""
        if write and well in self._measured:
            self._let_go()
            self._submit(well, write)
        elif write:
            self._empty.append((well, write))
            if len(self._empty) >= IN_PER_ROW:
                raise ConnectionError(
                    f"{self.store.layout.plate}: no site of {len(self._empty)} wells in a row can be used, "
                    f"{self._empty[0][0]} to {well}, so the wells are hardly at fault; nothing of them was stored; the "
                    f"first is {self._reason}; is the share mounted, is the copy complete? If "
                    "these wells are lost for good, name the others with --wells"
                )

    def _let_go(self) -> None:
        """Have the wells written that waited for another."""
        for well, write in self._empty:
            self._submit(well, write)
        self._empty.clear()
        self._reason = ""

    def _submit(self, well: str, write: Callable[[], None]) -> None:
        self._free.acquire()
        self._pool.submit(self._write_well, well, write)

    def _write_well(self, well: str, write: Callable[[], None]) -> None:
        try:
            if not self._error and not self._stopped.is_set():
                write()
                self.progress.event("well", well=well)
        except BaseException as error:  # noqa: BLE001 - as above
            self._error = self._error or error
        finally:
            self._free.release()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error:
            self._stopped.set()
        self._queue.put(None)
        self._thread.join()
        self._pool.shutdown()
        if self._error and error is None:
            raise self._error

    def _entry(self, problem: Problem, used: bool = False) -> Quarantined:
        file = self.name(problem.file) if problem.file else ""
        return Quarantined(problem.plate, problem.well, problem.site, problem.channel, file, problem.reason, used)
