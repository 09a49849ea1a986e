"""Who does the wells of `dask_scheduler.py`: worker processes of this machine, or a Dask cluster that is there already.

Everything that is started here listens on the loopback alone; a scheduler elsewhere is talked to by TLS or not at all.
"""

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..cli.options import Options
from ..gpu.machine import usable_cores
from ..images.illumination import SOURCES
from ..settings.numbers import with_files
from . import dask_preload

if TYPE_CHECKING:
    from distributed import Client

TASKS = "jumpgpu.run.dask_tasks"  # what a worker imports
TRIES = 3  # of starting a worker
SILENT = 90.0  # seconds without a sign of a worker here, after which it is started anew
PATIENCE = 20.0  # seconds for a scheduler to answer


def elsewhere(options: Options) -> Options:
    """Options for a process with another working directory, that is to do its part itself and say nothing."""
    images, illumination = options.images_root, options.illumination
    return dataclasses.replace(
        options,
        output=options.output.absolute(),
        masks=options.masks and options.masks.absolute(),
        cache=options.cache and options.cache.absolute(),
        images=images and absolute(images),
        illumination=illumination if illumination in SOURCES else absolute(illumination),
        config=with_files(options.config, absolute),
        workers=None,
        scheduler=None,
        quiet=True,
    )


def absolute(place: str) -> str:
    """A folder's name from anywhere; a URL is that already."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def check(options: Options) -> None:
    """ValueError for workers that cannot be had: Dask is absent, or an address off this machine without TLS."""
    try:
        from distributed.security import Security
    except ImportError as error:
        raise ValueError("--workers and --scheduler need Dask: pip install 'jumpgpu[cluster]'") from error
    if options.workers and options.scheduler:
        raise ValueError("--workers starts processes here and --scheduler uses others; give one of them")
    if options.workers and (gpus := visible_gpus(options.device)) is not None and options.workers > len(gpus):
        raise ValueError(f"--workers {options.workers}: there are {len(gpus)} GPUs, and a GPU serves one worker")
    if options.scheduler and not is_local(options.scheduler):
        settings: Any = Security()
        if not options.scheduler.startswith("tls://") or not (settings.tls_ca_file and settings.tls_client_cert):
            raise ValueError(
                f"--scheduler {options.scheduler} is not on this machine, and who can talk to a Dask scheduler can run "
                "anything on its workers: give a tls:// address, and certificates by DASK_DISTRIBUTED__COMM__TLS__CA_FILE "
                "and DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT (docs/clusters.md)"
            )


def is_local(address: str) -> bool:
    """Whether a Dask address (`tcp://127.0.0.1:8786`) means this machine's loopback."""
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def visible_gpus(device: str) -> list[str] | None:
    """The GPUs that workers share, as CUDA_VISIBLE_DEVICES names them; None where the device is the CPU."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return None
    if ":" in device:
        raise ValueError(f"--workers gives each worker a GPU of its own; --device {device} names one: use --device cuda")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]


@contextlib.contextmanager
def connect(options: Options) -> Iterator[tuple["Client", "LocalWorkers | None"]]:
    """A client of the scheduler that was named, or of one started here with its workers, which end with it."""
    from distributed import Client

    check(options)
    with contextlib.ExitStack() as stack:
        logger = logging.getLogger("distributed")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        workers = stack.enter_context(LocalWorkers(options)) if options.workers else None
        where = workers.scheduler if workers else options.scheduler
        if options.scheduler:
            check_versions(options.scheduler)
        try:
            client = Client(where, timeout=PATIENCE, set_as_default=False)
        except OSError as error:
            raise RuntimeError(f"no Dask scheduler answers at {where}: {error}") from error
        yield stack.enter_context(client), workers


def check_versions(address: str) -> None:
    """ValueError where a scheduler or a worker of it has another version of Dask than this process: odd things fail then."""
    import distributed
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> dict[str, Any]:
        arguments = Security().get_connection_args("client")
        async with rpc(address, connection_args=arguments) as scheduler:
            workers = await scheduler.broadcast(msg={"op": "versions"})
            answers = {"the scheduler": await scheduler.versions(), **{f"worker {w}": v for w, v in workers.items()}}
        return {who: answer["packages"]["distributed"] for who, answer in answers.items()}

    try:
        there = asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    except (OSError, TimeoutError) as error:
        raise RuntimeError(f"no Dask scheduler answers at {address}: {error or type(error).__name__}") from error
    here: str = distributed.__version__  # type: ignore[attr-defined]
    others = [f"{who} has {version}" for who, version in there.items() if version != here]
    if others:
        more = f" and {len(others) - 3} more" * (len(others) > 3)
        raise ValueError(
            f"--scheduler {address}: this process has Dask (distributed) {here}, {', '.join(others[:3])}{more}; install the "
            "same version everywhere"
        )


class LocalWorkers:
    """A scheduler on the loopback and worker processes of this machine; one that dies is started anew. Use it in a `with`.

    They are commands of their own, in sessions of their own: no code of the caller's is run again in them, and Ctrl-C
    goes to this process alone. A worker ends when its standard input does, which this process holds.
    """

    def __init__(self, options: Options):
        n = options.workers or 1
        self.threads = options.threads or max(1, usable_cores() // n)
        gpus = visible_gpus(options.device)
        self.environments = [{"CUDA_VISIBLE_DEVICES": gpus[i]} if gpus else {} for i in range(n)]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.failures = 0  # workers in a row that ended before they were of use
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        import dask
        from distributed import Scheduler, SpecCluster

        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jumpgpu-")))
            spec = {
                "cls": Scheduler,
                "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
            }
            with dask.config.set({"distributed.scheduler.worker-ttl": f"{SILENT:.0f}s"}):
                self.scheduler = stack.enter_context(SpecCluster(scheduler=spec, silence_logs=logging.CRITICAL))
            stack.callback(self._end)
            self.processes = [self._start(i) for i in range(len(self.environments))]
            self.seen = [time.monotonic()] * len(self.processes)  # when the scheduler knew each
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self, i: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler.scheduler_address]
        command += [
            "--no-nanny",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--host",
            "127.0.0.1",
            "--nthreads",
            str(self.threads),
        ]
        command += ["--name", str(i), "--memory-limit", "0", "--local-directory", str(self.folder)]
        command += ["--preload", dask_preload.__name__, "--preload", TASKS]
        package = Path(__file__).resolve().parents[2]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(self.threads), dask_preload.PARENT: "1"}
        own["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "false"  # it would look at the stacks a hundred times per second
        with open(self.folder / f"{i}.log", "wb") as log:
            return subprocess.Popen(
                command,
                env=os.environ | own | self.environments[i],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def keep(self) -> None:
        """Start those anew that ended, or are none of those that the scheduler knows; RuntimeError where they end before
        they are of any use."""
        present = {str(worker.name) for worker in list(self.scheduler.scheduler.workers.values())}
        self.failures = 0 if present else self.failures
        for i, process in enumerate(self.processes):
            self.seen[i] = time.monotonic() if str(i) in present else self.seen[i]
            if process.poll() is None and time.monotonic() - self.seen[i] > SILENT:
                process.kill()  # it was stopped, or hangs
                process.wait()
            if process.poll() is None:
                continue
            self.failures += 1
            if self.failures > TRIES * len(self.processes):
                lines = (self.folder / f"{i}.log").read_text(errors="replace").splitlines()
                raise RuntimeError(f"workers end as soon as they start; the last said: {' | '.join(lines[-3:])[-500:]}")
            close(process)
            self.processes[i] = self._start(i)
            self.seen[i] = time.monotonic()

    def end(self, process_id: int) -> None:
        """End one of them, to be started anew."""
        for process in self.processes:
            if process.pid == process_id:
                process.kill()

    def _end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            close(process)


def close(process: "subprocess.Popen[bytes]") -> None:
    process.wait()
    if process.stdin:
        process.stdin.close()
