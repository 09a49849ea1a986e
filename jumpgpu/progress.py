"""What a command says while it runs: lines and a bar on stderr, the bar only where there is a terminal."""

import sys
import time
from types import TracebackType
from typing import Any, Self


class Progress:
    """Lines on stderr and, on a terminal, a bar of `total` fields with rate and time left. Use it in a `with`."""

    def __init__(self, title: str, total: int, quiet: bool = False):
        self.title, self.total, self.quiet = title, total, quiet
        self.done = self.found = 0
        self.started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.quiet or not self.total or not sys.stderr.isatty():
            return self
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("fields  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=2,
            transient=True,
        )
        self._task = self._bar.add_task(self.title, total=self.total, rate="")
        self._bar.start()
        return self

    def advance(self, fields: int, before: bool = False) -> None:
        """Count fields as finished; `before` this run, they do not count for the rate."""
        self.done += fields
        self.found += fields * before
        if self._bar:
            rate = (self.done - self.found) / max(time.monotonic() - self.started, 1e-9)
            self._bar.update(self._task, completed=self.done, rate=f"{rate:.1f}/s")

    def say(self, text: str) -> None:
        """A line on stderr, above the bar."""
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
