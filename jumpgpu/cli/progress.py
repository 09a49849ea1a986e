"""What a command says while it runs: lines on stderr with rate and time left, a bar where there is a terminal, or JSON.

With `log_json` every line on stderr is a JSON object, for programs. Its keys, which stay: `event`, `time` (UTC, ISO 8601),
`plate`, and those of the event:

    start        total, unit: what is to be done
    note         message
    warning      message: what a run assumes, or what may have gone wrong; told in spite of `quiet`
    batch        done, total, unit, per_second, seconds_left (null where it is not known)
    well         well: written, and whole
    quarantine   well, site, channel, file, reason, used (true: measured all the same)
    retry        message: something failed and is tried again
    summary      wells, cells, left_out, flagged, seconds: a plate is done
    error        message, status: the exit status that follows; without `plate`
"""

import datetime
import json
import sys
import time
from types import TracebackType
from typing import Any, Self

EVERY_S = 30.0  # between lines where there is no terminal


class Progress:
    """Lines on stderr and, on a terminal, a bar of `total` units with rate and time left. Use it in a `with`.

    quiet : nothing but warnings is said; log_json : events in place of lines, whatever `quiet` is
    """

    def __init__(self, title: str, total: int, quiet: bool = False, log_json: bool = False, unit: str = "fields"):
        self.title, self.total, self.quiet, self.log_json, self.unit = title, total, quiet, log_json, unit
        self.done = self.result = 0
        self.started = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.log_json:
            self.event("start", total=self.total, unit=self.unit)
        elif not self.quiet and self.total and sys.stderr.isatty():
            self._start_bar()
        return self

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self.unit + "  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=2,
            transient=True,
        )
        self._task = self._bar.add_task(self.title, total=self.total, rate="")
        self._bar.start()

    def advance(self, n: int, before: bool = False) -> None:
        """Count units as finished; `before` this run, they do not count for the rate."""
        self.done += n
        self.result += n * before
        rate, left = self.rate_and_time_left()
        now = time.monotonic()
        if self.log_json:
            left_s = None if left is None else round(left, 1)
            counts = {"done": self.done, "total": self.total, "unit": self.unit}
            self.event("batch", **counts, per_second=round(rate, 3), seconds_left=left_s)
        elif self._bar:
            self._bar.update(self._task, completed=self.done, rate=f"{rate:.1f}/s")
        elif not before and now - self._said >= EVERY_S and self.done < self.total:
            self._said = now
            ending = "" if left is None else f", {duration(left)} left"
            self.say(f"{self.title}: {self.done} of {self.total} {self.unit}, {rate:.2g} {self.unit}/s{ending}")

    def rate_and_time_left(self) -> tuple[float, float | None]:
        """Units a second in this run, and seconds that the rest will take at that rate (None before the first)."""
        rate = (self.done - self.result) / max(time.monotonic() - self.started, 1e-9)
        return rate, (self.total - self.done) / rate if rate else None

    def say(self, text: str, event: str = "note", **values: Any) -> None:
        """A line on stderr, above the bar; in JSON an event with the line as its `message`."""
        if self.log_json:
            self.event(event, message=text, **values)
        elif self.quiet and event != "warning":
            return
        elif self._bar:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def event(self, name: str, **values: Any) -> None:
        """An event of the list above; nothing where events are not wanted."""
        if self.log_json:
            write_event(name, **{"plate": self.title, **values})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()


def write_event(name: str, **values: Any) -> None:
    """One JSON object on a line of stderr."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    sys.stderr.write(json.dumps({"event": name, "time": now, **values}) + "\n")  # at once: events come of several threads
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """`1 h 5 min`, `12 min`, `40 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
