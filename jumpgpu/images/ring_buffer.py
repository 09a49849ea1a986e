"""Batches of raw fields under way: reused host buffers that threads fill, and what becomes of them on the device.

`HostRing` decodes on the threads, into buffers that are handed out themselves. `CudaRing` has the threads put what the files
hold into pinned buffers; that is copied and decoded on a stream of the ring's own, on which the caller's stream then waits.
What a GPU cannot decode, or not to the end, the host decodes, so a file is judged in the same words on either. Both keep a
buffer until nobody uses it: batches are begun, and finished, in the order of their numbers.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from ..gpu.cpu import keep_freed_memory
from ..gpu.device import Device
from .decode import Loaded, make_images, read_results
from .focus import top_of
from .lzw import BEYOND
from .plate import Site
from .site import DecodedSite, Problem, Wanted, decode_site, judge, take_images
from .tiff import capacity_of, load
from .tiff_tags import Grey

ALIGNED = 16  # bytes, where an image's begin


class Pool:
    """Decoder threads, or the caller's own where there are none."""

    def __init__(self, workers: int):
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="decode") if workers else None

    def submit(self, function: Any, *arguments: Any) -> "Future[Any]":
        if self.threads:
            return self.threads.submit(function, *arguments)
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def close(self) -> None:
        if self.threads:
            self.threads.shutdown(wait=True, cancel_futures=True)


@dataclass
class Pending:
    """A batch that was begun. `sent`: what of it is on the device, once it was sent there."""

    number: int
    members: Sequence[Site]
    futures: "list[Future[Any]]"
    sent: Any = None


class HostRing:
    """Batches decoded on the host, for the CPU."""

    def __init__(self, n: int, batch: int, wanted: Wanted, pool: Pool):
        self.wanted, self.pool = wanted, pool
        shape = batch, len(wanted.channels), *wanted.size
        self.buffers = [torch.empty(shape, dtype=torch.uint16) for _ in range(n)]

    def buffer(self, number: int) -> torch.Tensor:
        return self.buffers[number % len(self.buffers)]

    def begin(self, number: int, members: Sequence[Site]) -> Pending:
        """Have the threads decode a batch."""
        images = self.buffer(number).numpy()
        tasks = [self.pool.submit(decode_site, self.wanted, site, images[i]) for i, site in enumerate(members)]
        return Pending(number, members, tasks)

    def prepare(self, pending: Pending) -> None:
        """Do what can be done for a batch whose turn is the next."""

    def finish(self, pending: Pending) -> tuple[torch.Tensor, list[DecodedSite]]:
        """The pixels of the sites that can be used, and what every site came to."""
        result = [f.result() for f in pending.futures]
        usable = [i for i, f in enumerate(result) if not f.bad]
        buffer = self.buffer(pending.number)
        for row, i in enumerate(usable):
            if row != i:
                buffer[row].copy_(buffer[i])
        return buffer[: len(usable)], result


@dataclass
class _Capacity:
    """A buffer that threads reserve memory of, `end` bytes until now."""

    memory: np.ndarray
    end: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, n: int) -> tuple[int, np.ndarray]:
        with self.lock:
            at = self.end
            self.end += -(-n // ALIGNED) * ALIGNED
        return at, self.memory[at : at + n]


@dataclass(frozen=True)
class _Sent:
    """What was launched for a batch, and what the threads found; `done` when `results`, on the host, are there."""

    bad: list[tuple[Problem, ...]]
    greys: list[list[Grey]]
    images: list[Loaded]
    shape: tuple[int, int, int, int]
    pixels: torch.Tensor
    results: torch.Tensor
    done: Any


class CudaRing:
    """Batches loaded on the host and decoded on a GPU."""

    def __init__(self, n: int, batch: int, wanted: Wanted, pool: Pool, device: Device):
        keep_freed_memory()  # of the files' bytes
        self.wanted, self.pool, self.device = wanted, pool, device
        self.image_bytes = 2 * wanted.size[0] * wanted.size[1]
        capacity = -(-capacity_of(wanted.size) // ALIGNED) * ALIGNED * len(wanted.channels) * batch + BEYOND
        self.buffers = [torch.empty(capacity, dtype=torch.uint8, pin_memory=True) for _ in range(n)]
        self.capacities = [_Capacity(b.numpy()) for b in self.buffers]
        self.copied: list[Any] = [None] * n
        self.stream = torch.cuda.Stream(device.torch)

    def begin(self, number: int, members: Sequence[Site]) -> Pending:
        """Have the threads load per batch, into a buffer whose last copy has ended."""
        slot = number % len(self.buffers)
        if self.copied[slot] is not None:
            self.copied[slot].synchronize()
        self.capacities[slot].end = 0
        reserve = self.capacities[slot].reserve
        tasks = [self.pool.submit(_load_site, self.wanted, site, i, reserve) for i, site in enumerate(members)]
        return Pending(number, members, tasks)

    def prepare(self, pending: Pending) -> None:
        """Send a batch whose turn is the next, if it is loaded: it is decoded while the one before is computed."""
        if not pending.sent and all(f.done() and f.exception() is None for f in pending.futures):
            pending.sent = self.send(pending)

    def send(self, pending: Pending) -> _Sent:
        """Copy what was loaded, and launch what makes pixels of it."""
        loaded = [f.result() for f in pending.futures]
        slot = pending.number % len(self.buffers)
        images = [image for _, images, _ in loaded for image in images]
        shape = len(pending.members), len(self.wanted.channels), *self.wanted.size
        with torch.cuda.stream(self.stream):
            data = self.buffers[slot][: self.capacities[slot].end + BEYOND].to(self.device.torch, non_blocking=True)
            pixels, result = make_images(data, images, shape, self.device)
            results = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
            results.copy_(result, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self.stream)
        self.copied[slot] = done
        bad, greys = [bad for bad, _, _ in loaded], [greys for _, _, greys in loaded]
        return _Sent(bad, greys, images, shape, pixels, results, done)

    def finish(self, pending: Pending) -> tuple[torch.Tensor, list[DecodedSite]]:
        """The pixels of the sites that can be used, and what every site came to. Waits until the batch is decoded."""
        sent: _Sent = pending.sent or self.send(pending)
        sent.done.synchronize()
        result, again = self._judge(pending, sent)
        self._decode_again(pending, sent, result, again)
        usable = [i for i, f in enumerate(result) if not f.bad]
        caller = torch.cuda.current_stream(self.device.torch)
        caller.wait_event(self.copied[pending.number % len(self.buffers)])
        sent.pixels.record_stream(caller)
        if len(usable) == len(result):
            return sent.pixels, result
        return self.device.take(sent.pixels, usable), result

    def _judge(self, pending: Pending, sent: _Sent) -> tuple[list[DecodedSite], list[int]]:
        """What every site came to, and the rows of those with an image that the device did not decode."""
        results = read_results(sent.results.numpy(), sent.images, sent.shape)
        channels = len(self.wanted.channels)
        again = sorted({i.image // channels for i in sent.images if i.image not in results.decoded})
        result = []
        for b, (site, bad) in enumerate(zip(pending.members, sent.bad, strict=True)):
            if bad or b in again:
                result.append(DecodedSite(bad))
                continue
            counts = [results.counts[b * channels + c] for c in range(channels)]
            same = partial(_same, results.same, b)
            result.append(judge(self.wanted, site, counts, sent.greys[b], same))
        return result, again

    def _decode_again(self, pending: Pending, sent: _Sent, result: list[DecodedSite], again: list[int]) -> None:
        """Have the host decode the sites that the device did not; it reads their files anew, or says what is wrong."""
        if not again:
            return
        slot = pending.number % len(self.buffers)
        fields = (
            self.buffers[slot][: len(pending.members) * self.image_bytes * sent.shape[1]].view(torch.uint16).view(sent.shape)
        )
        images = fields.numpy()
        tasks = {b: self.pool.submit(decode_site, self.wanted, pending.members[b], images[b]) for b in again}
        for b, task in tasks.items():
            result[b] = task.result()
        with torch.cuda.stream(self.stream):
            for b in again:
                sent.pixels[b].copy_(fields[b], non_blocking=True)
            self.copied[slot] = torch.cuda.Event()
            self.copied[slot].record(self.stream)


def _load_site(
    wanted: Wanted, site: Site, row: int, reserve: Callable[[int], tuple[int, np.ndarray]]
) -> tuple[tuple[Problem, ...], list[Loaded], list[Grey]]:
    """What is wrong with a site's images, those that could be loaded, and what their files say of their counts."""
    loaded: list[Loaded] = []
    greys: list[Grey] = []

    def take(c: int, file: str) -> None:
        at, strips, grey = load(file, wanted.plate.images, wanted.size, reserve)
        loaded.append(Loaded(row * len(wanted.channels) + c, at, strips, top_of(wanted.scale_of(grey))))
        greys.append(grey)

    return take_images(wanted, site, take), loaded, greys


def _same(pairs: frozenset[tuple[int, int, int]], field: int, d: int, c: int) -> bool:
    """Whether images d and c of a field are equal."""
    return (field, d, c) in pairs
