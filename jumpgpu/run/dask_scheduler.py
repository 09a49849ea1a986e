"""Wells over Dask workers: processes of this machine (`--workers N`) or of a cluster (`--scheduler ADDRESS`).

This side hands out work and counts; `dask_tasks.py` does it on the workers. A task is a few wells of one plate, named by
module, function, barcode and wells: no array and no code is sent, and what comes back is a small record. A worker has one
task at a time, so a worker that dies costs that task, and it is known which. Its wells are tried again one by one; a well
that fails three times is left empty and named in `quarantine.csv`.
"""

import collections
import contextlib
import dataclasses
import importlib
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cli.options import Options
from ..cli.progress import Progress
from ..store.writer import tidy
from .dask_workers import PATIENCE, TASKS, LocalWorkers, connect, elsewhere

if TYPE_CHECKING:
    from distributed import Client, Future

TRIES = 3  # of a well, before it is quarantined
IN_PER_ROW = 5  # wells given up with none made between: the fault is not theirs
BATCHES = 4  # of fields a task, if there are wells enough for all workers
TICK = 0.5  # seconds between looks at who is there
WORKERLESS = 600.0  # seconds without a worker, after which a run ends
BUSY = 60.0  # seconds that a well may stay claimed by a worker that was given up


@dataclasses.dataclass
class Job:
    """A plate on its way: new, preparing, open (its wells are handed out), finishing, done."""

    barcode: str
    sites: dict[str, int]  # of each well that is asked for, then of each that is missing
    options: Options
    state: str = "new"
    waiting: collections.deque[str] = dataclasses.field(default_factory=collections.deque)
    alone: set[str] = dataclasses.field(default_factory=set)  # wells to be tried one by one
    tries: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    lost: dict[str, str] = dataclasses.field(default_factory=dict)  # well -> why
    output: int = 0  # wells
    running: int = 0
    started: float = 0.0
    blocked: float = 0.0  # when a claim first stood in the way

    def take(self, workers: int, others: int) -> list[str]:
        """The next wells: some batches full, but at the end few enough that all workers have some."""
        if self.waiting[0] in self.alone:
            return [self.waiting.popleft()]
        a_well = max(1, self.sites[self.waiting[0]])
        maximum = max(1, BATCHES * (self.options.fields_a_batch or 8) // a_well)
        fair = math.ceil((len(self.waiting) + others) / (2 * workers))
        taken: list[str] = []
        while self.waiting and len(taken) < min(maximum, fair) and self.waiting[0] not in self.alone:
            taken.append(self.waiting.popleft())
        return taken

    def again(self, wells: Sequence[str], reason: str) -> list[str]:
        """Put wells of a failed task back, each to be tried alone, or give them up; those given up."""
        self.tries.update(wells)
        given_up = [w for w in wells if self.tries[w] >= TRIES]
        for well in given_up:
            self.lost[well] = f"the well failed {self.tries[well]} times, last: {reason}"
        back = [w for w in wells if w not in self.lost]
        self.alone.update(back)
        self.waiting.extendleft(reversed(back))
        return given_up


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker is at."""

    job: Job
    name: str  # of the function in `dask_tasks.py`
    wells: list[str]
    future: "Future[Any]"


def call(module: str, name: str, *arguments: Any) -> Any:
    """On a worker: a function by its name."""
    return getattr(importlib.import_module(module), name)(*arguments)


def spread(wells: Mapping[str, Mapping[str, Any]], options: Options) -> Iterator[dict[str, Any]]:
    """Measure plates (barcode -> well -> sites) with other processes; the fields of each plate's `Outcome` as it ends.

    Raises what `extract` raises, and RuntimeError where the scheduler is lost.
    """
    sites = {barcode: {well: len(members) for well, members in chosen.items()} for barcode, chosen in wells.items()}
    jobs = [Job(barcode, counts, elsewhere(options)) for barcode, counts in sites.items()]
    title = jobs[0].barcode if len(jobs) == 1 else f"{len(jobs)} plates"
    total = sum(n for counts in sites.values() for n in counts.values())
    try:
        with connect(options) as (client, workers), Progress(title, total, options.quiet, options.log_json) as progress:
            work = _Work(client, workers, jobs, progress)
            try:
                yield from work.run()
            finally:
                work.stop()
    finally:
        for job in jobs:
            if job.state not in ("new", "done"):
                with contextlib.suppress(OSError, ValueError):  # what ended the run is what counts
                    tidy(options.output, job.barcode)


class _Work:
    """The loop that hands out tasks: no worker is idle while a plate has wells, and none has two tasks."""

    def __init__(self, client: "Client", local: LocalWorkers | None, jobs: Sequence[Job], progress: Progress):
        self.client, self.local, self.jobs, self.progress = client, local, jobs, progress
        self.busy: dict[str, Task] = {}  # by worker
        self.seen = time.monotonic()  # when there was a worker
        self.told = False  # that there is none
        self.token = uuid.uuid4().hex  # so that a worker does not take an earlier run's view of a plate for this one's
        self.given_up = 0  # wells since one was made

    def run(self) -> Iterator[dict[str, Any]]:
        from distributed import wait

        while any(job.state != "done" for job in self.jobs):
            workers = self.client.nthreads()
            if self.local:
                self.local.keep()
            for worker in workers.keys() - self.busy.keys():
                if (task := self.next_task(worker, workers)) is not None:
                    self.busy[worker] = task
            if workers:
                self.seen = time.monotonic()
            elif (waited := time.monotonic() - self.seen) > WORKERLESS:
                raise RuntimeError(f"no worker at {self.address} for {waited / 60:.0f} minutes")
            elif waited > PATIENCE and not self.told:
                self.progress.say(f"waiting for a worker at {self.address}")
                self.told = True
            with contextlib.suppress(TimeoutError), self.client.as_current():
                if self.busy:
                    wait([t.future for t in self.busy.values()], timeout=TICK, return_when="FIRST_COMPLETED")
                else:
                    time.sleep(TICK)
            here = self.client.nthreads()
            for worker, task in list(self.busy.items()):
                if task.future.done() or worker not in here:
                    del self.busy[worker]
                    task.job.running -= 1
                    yield from self.settle(worker, task)

    def next_task(self, worker: str, workers: Mapping[str, int]) -> Task | None:
        """The next thing to do, of the earliest plate that has one."""
        for job in self.jobs:
            name, wells = "", []
            extra: list[Any] = []
            if job.state == "new":
                name, job.state, job.started = "make_ready", "preparing", time.monotonic()
            elif job.state == "open" and job.waiting:
                name = "make_wells"
                others = sum(len(j.waiting or j.sites) for j in self.jobs if j is not job and j.state in ("new", "open"))
                wells = job.take(len(workers), others)
                extra = [wells]
            elif job.state == "open" and not job.running:
                if job.lost and not job.output:
                    self.not_theirs(job)
                name, job.state, extra = "finish", "finishing", [job.lost]
            else:
                continue
            options = dataclasses.replace(job.options, threads=job.options.threads or workers[worker])
            key = f"{name}-{job.barcode}-{wells[0] if wells else ''}-{time.monotonic_ns()}"
            future = self.client.submit(
                call, TASKS, name, self.token, job.barcode, options, *extra, key=key, workers=[worker], pure=False, retries=0
            )
            job.running += 1
            return Task(job, name, wells, future)
        return None

    def settle(self, worker: str, task: Task) -> Iterator[dict[str, Any]]:
        """Take a task's result, or what became of it."""
        job = task.job
        try:
            result = self.result_of(task)
        except BlockingIOError:  # another run, or a worker that was given up and is still at it
            job.blocked = job.blocked or time.monotonic()
            if task.name != "make_wells" or time.monotonic() - job.blocked > BUSY:
                raise
            time.sleep(TICK)
            job.waiting.extend(task.wells)
            return
        if result is None:
            what = f"{task.name} {' '.join(task.wells)}".rstrip()
            self.progress.say(f"{job.barcode}: a worker was killed while it did {what}", "retry")
            if task.name == "make_wells":
                self.give_up(job, task.wells, "its worker was killed")
                return
            job.tries[task.name] += 1
            if job.tries[task.name] >= TRIES:
                raise RuntimeError(f"{job.barcode}: {job.tries[task.name]} workers were killed while they did {task.name}")
            job.state = "new" if task.name == "make_ready" else "open"
            return
        for text, event, values in result.get("lines", ()):
            told = {"plate": job.barcode, **values}
            if text:
                self.progress.say(text, event, **told)
            else:
                self.progress.event(event, **told)
        if task.name == "make_ready":
            job.state, job.sites = "open", result["missing"]
            job.waiting.extend(job.sites)
            self.progress.advance(result["there"], before=True)
        elif task.name == "make_wells":
            for well in result["done"]:
                self.progress.event("well", plate=job.barcode, well=well)
            self.progress.advance(sum(job.sites[w] for w in result["done"]))
            job.output += len(result["done"])
            self.given_up *= not result["done"]
            if result["failed"]:
                self.progress.say(f"{job.barcode}: {result['failed']}")
                self.give_up(job, [w for w in task.wells if w not in result["done"]], result["failed"])
                if self.local:
                    self.local.end(result["process"])
                else:
                    with contextlib.suppress(Exception):  # one without a nanny cannot
                        self.client.restart_workers([worker], timeout=PATIENCE)
        else:
            job.state = "done"
            yield result | {"seconds": time.monotonic() - job.started}

    def result_of(self, task: Task) -> Any:
        """A task's result; None where its worker died. Raises what the task raised."""
        from distributed import CancelledError, KilledWorker

        try:
            return task.future.result(timeout=PATIENCE) if task.future.done() else None
        except RuntimeError as error:
            if "deserialization of the task graph" not in str(error):
                raise
            raise ValueError(  # a scheduler looks into what it hands on
                f"the scheduler at {self.address} cannot read jumpgpu's tasks: start it where jumpgpu of this version is "
                "installed too, as the workers are"
            ) from error
        except (KilledWorker, CancelledError, TimeoutError):
            if self.client.status != "running":
                raise RuntimeError(f"the scheduler at {self.address} is gone") from None
            return None
        finally:
            task.future.cancel(force=True)

    def give_up(self, job: Job, wells: Sequence[str], reason: str) -> None:
        for well in job.again(wells, reason):
            self.progress.advance(job.sites[well])
            self.progress.say(f"left out: {job.barcode} {well}: {job.lost[well]}")
            self.given_up += 1
        if self.given_up >= IN_PER_ROW:
            self.not_theirs(job)

    def not_theirs(self, job: Job) -> None:
        """RuntimeError where wells fail one after another: none of them is quarantined."""
        well, reason = list(job.lost.items())[-1]
        raise RuntimeError(f"{job.barcode}: well after well fails, so the wells are not at fault; {well}: {reason}")

    @property
    def address(self) -> str:
        """The scheduler's, as long as it is known."""
        return getattr(self.client.scheduler, "address", "an unknown address")

    def stop(self) -> None:
        """Take back what is handed out."""
        with contextlib.suppress(Exception):
            self.client.cancel([t.future for t in self.busy.values()], force=True)
