"""Image files to batches of raw fields: decoded on threads, read ahead within a bound, in plate order.

A site with an image that is missing, unreadable, truncated, of the wrong size or type is quarantined: it takes no row in
the batch, is named in it, and the run goes on. Odd but readable images (constant, zero-filled, saturated, the same as
another channel's) are measured and flagged. Batches may span wells, whose order they keep; `finished` says which wells
end in a batch.
"""

import collections
import contextlib
import os
from collections.abc import Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .checks import check_image, oddities
from .device import StaleLibrary
from .image_files import MALFORMED, MAX_SIDE, decode, file_limit, header_size, one_line
from .plate import Plate, Site

PROBES = 9  # sites whose images' headers vote on a plate's field size where its metadata has none


@dataclass(frozen=True)
class Problem:
    """What is wrong with one image of a site, for the manifest and `quarantine.csv`."""

    plate: str
    well: str
    site: int
    channel: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plate} {self.well} site {self.site} {self.channel}: {self.reason} ({self.file or 'no file'})"


@dataclass(frozen=True)
class FieldBatch:
    """Raw fields of a batch.

    pixels : uint16 [B, C, H, W], camera counts, on the device asked for. On the CPU it is a reused buffer, valid for as
        many of the iterator's steps as `held` says; copy what must live longer.
    sites : (well, site) of each row of `pixels`
    quarantined : problems of the sites that have no row; `skipped` has their (well, site)
    flags : problems of sites that are measured all the same
    finished : wells whose last selected site is in this batch, quarantined or not
    checks : of each row of `pixels`, its images' (saturated, sharpness) in the order of the C axis (`check_image`)
    """

    pixels: torch.Tensor
    sites: tuple[tuple[str, int], ...]
    quarantined: tuple[Problem, ...] = ()
    flags: tuple[Problem, ...] = ()
    finished: tuple[str, ...] = ()
    checks: tuple[tuple[tuple[float, float], ...], ...] = ()

    @property
    def skipped(self) -> tuple[tuple[str, int], ...]:
        return tuple(dict.fromkeys((p.well, p.site) for p in self.quarantined))


def read_fields(
    plate: Plate,
    *,
    wells: Collection[str] | None = None,
    sites: Collection[int] | None = None,
    channels: Sequence[str] | None = None,
    batch: int = 8,
    workers: int | None = None,
    ahead: int = 2,
    held: int = 1,
    size: tuple[int, int] | None = None,
    device: torch.device | None = None,
) -> Generator[FieldBatch, None, None]:
    """Batches of the plate's fields, in plate order.

    Parameters
    ----------
    wells, sites : what to read; all where None. ValueError for one the plate has not.
    channels : order of the C axis; the plate's where None.
    batch : fields a batch, quarantined ones included.
    workers : decoder threads; as many as there are processors where None, none of them (decode in the caller) for 0.
    ahead : batches decoded beyond the one handed out.
    held : batches handed out whose pixels are still in use: a batch is valid until `held` more were asked for.
        ahead + held buffers are kept, and decoding waits while all are in use.
    size : what `field_size` says, where the caller has asked it already.
    device : where `pixels` goes; for CUDA the buffers are pinned and copied on a stream of their own.

    Raises ValueError before anything is read where a name is unknown or no image of the plate can be read at all.
    Closing the iterator early ends its threads.
    """
    selected = plate.select(wells, sites)
    channels = plate.channels if channels is None else tuple(channels)
    if unknown := [c for c in channels if c not in plate.channels]:
        raise ValueError(f"{plate.barcode} has no channel {unknown[0]!r}; it has {', '.join(plate.channels)}")
    if batch < 1 or ahead < 0 or held < 1:
        raise ValueError(f"batch and held must be at least 1 and ahead at least 0, got {batch}, {held} and {ahead}")
    order = [plate.channels.index(c) for c in channels]
    size = size or field_size(plate)
    groups = [selected[i : i + batch] for i in range(0, len(selected), batch)]
    shape = (min(batch, len(selected)), len(channels), *size)
    ring = _Ring(min(ahead + held, len(groups)), shape, device or torch.device("cpu"))
    batches = _stream(plate, groups, channels, order, ring, workers, ahead)
    coming = [f for site in selected for c in order if (f := site.files[c])]
    return _fetched(batches, plate.images.ahead(coming, file_limit(size)))


def _fetched(
    batches: Generator[FieldBatch, None, None], ahead: contextlib.AbstractContextManager[None]
) -> Generator[FieldBatch, None, None]:
    """The batches, while their files are fetched ahead of them from where that takes time."""
    with ahead, contextlib.closing(batches):
        yield from batches


def _stream(
    plate: Plate,
    batches: Sequence[Sequence[Site]],
    channels: tuple[str, ...],
    order: list[int],
    ring: "_Ring",
    workers: int | None,
    ahead: int,
) -> Generator[FieldBatch, None, None]:
    last = {site.well: i for i, members in enumerate(batches) for site in members}
    pool = _Pool(len(os.sched_getaffinity(0)) if workers is None else workers)
    waiting: collections.deque[_Pending] = collections.deque()
    todo = iter(enumerate(batches))
    try:
        while True:
            while len(waiting) <= ahead and (item := next(todo, None)):
                number, members = item
                buffer = ring.take(number)
                images = buffer.numpy()
                futures = [
                    pool.submit(_decode_site, plate, site, channels, order, images[i]) for i, site in enumerate(members)
                ]
                waiting.append(_Pending(number, tuple(members), buffer, futures))
            if not waiting:
                return
            now = waiting.popleft()
            found = [f.result() for f in now.futures]
            usable = [i for i, (bad, *_) in enumerate(found) if not bad]
            for row, i in enumerate(usable):
                if row != i:
                    now.buffer[row].copy_(now.buffer[i])
            yield FieldBatch(
                pixels=ring.hand_out(now.number, now.buffer[: len(usable)]),
                sites=tuple((now.members[i].well, now.members[i].site) for i in usable),
                quarantined=tuple(p for bad, *_ in found for p in bad),
                flags=tuple(p for bad, flags, _ in found if not bad for p in flags),
                finished=tuple(w for w in dict.fromkeys(s.well for s in now.members) if last[w] == now.number),
                checks=tuple(tuple(checks) for bad, _, checks in found if not bad),
            )
    finally:
        pool.close()


@dataclass(frozen=True)
class _Pending:
    number: int
    members: tuple[Site, ...]
    buffer: torch.Tensor
    futures: "list[Future[tuple[list[Problem], list[Problem], list[tuple[float, float]]]]]"


class _Pool:
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


class _Ring:
    """Reused host buffers. On CUDA they are pinned; a batch is copied on a stream of the ring's own, on which the caller's
    stream then waits, and a buffer is filled again only when its copy has ended."""

    def __init__(self, n: int, shape: tuple[int, ...], device: torch.device):
        self.device = device
        self.cuda = device.type == "cuda"
        self.buffers = [torch.empty(shape, dtype=torch.uint16, pin_memory=self.cuda) for _ in range(n)]
        self.copied: list[Any] = [None] * n
        self.stream = torch.cuda.Stream(device) if self.cuda else None

    def take(self, number: int) -> torch.Tensor:
        """The buffer of a batch, free to be written."""
        slot = number % len(self.buffers)
        if self.copied[slot] is not None:
            self.copied[slot].synchronize()
        return self.buffers[slot]

    def hand_out(self, number: int, filled: torch.Tensor) -> torch.Tensor:
        """The filled rows on the device."""
        if not self.cuda:
            return filled
        caller = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            pixels = filled.to(self.device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self.stream)
        caller.wait_event(event)
        pixels.record_stream(caller)
        self.copied[number % len(self.buffers)] = event
        return pixels


def _decode_site(
    plate: Plate, site: Site, channels: tuple[str, ...], order: list[int], images: np.ndarray
) -> tuple[list[Problem], list[Problem], list[tuple[float, float]]]:
    """Decode a site's images into `images` [C, H, W]; its problems that quarantine it, its flags, its images' checks."""
    bad: list[Problem] = []
    odd: list[Problem] = []
    checks: list[tuple[float, float]] = []
    ranges: list[tuple[int, int]] = []
    for c, channel in enumerate(channels):
        file = site.files[order[c]]

        def problem(reason: str, file: str | None = file, channel: str = channel) -> Problem:
            return Problem(plate.barcode, site.well, site.site, channel, file or "", reason)

        if file is None:
            bad.append(problem(f"no {channel} image is listed in {plate.channel_source}"))
            continue
        try:
            decode(file, plate.images, images[c])
        except FileNotFoundError:
            bad.append(problem(f"no {channel} image: the file is missing"))
            continue
        except (ConnectionError, StaleLibrary):
            raise  # the place is out of reach, or the library of another build: no fault of this image
        except (*MALFORMED, MemoryError) as error:
            bad.append(problem(f"unreadable {channel} image: {one_line(error)}"))
            continue
        low, high = int(images[c].min()), int(images[c].max())
        checks.append(check_image(images[c], high))
        odd.extend(problem(reason) for reason in oddities(images[c], low, high, checks[-1][0]))
        same = [d for d, before in enumerate(ranges) if before == (low, high) and np.array_equal(images[d], images[c])]
        if same and low != high:
            odd.append(problem(f"the {channel} image is the {channels[same[0]]} image again"))
        ranges.append((low, high))
    return bad, odd, checks


def field_size(plate: Plate) -> tuple[int, int]:
    """Height and width of the plate's fields: its metadata's, else what most images of a few sites spread over it have.

    Asks the whole plate, never a selection of wells, so that every run agrees. ValueError where no image can be read.
    """
    if plate.size:
        if max(plate.size) > MAX_SIDE or min(plate.size) < 1:
            raise ValueError(
                f"{plate.barcode}: {plate.channel_source} says fields are {plate.size}, at most {MAX_SIDE} a side"
            )
        return plate.size
    sites = plate.sites
    spread = [sites[i * len(sites) // min(PROBES, len(sites))] for i in range(min(PROBES, len(sites)))]
    votes: collections.Counter[tuple[int, int]] = collections.Counter()
    first = ""
    for group in (spread, sites):
        for site in group:
            for file in site.files:
                try:
                    votes[header_size(file or "", plate.images)] += 1
                except ConnectionError:
                    raise
                except MALFORMED as error:
                    first = first or f"{file}: {one_line(error)}"
            if votes and group is sites:
                break
        if votes:
            return votes.most_common(1)[0][0]
    raise ValueError(f"{plate.barcode}: no image can be read; the first is {first}")
