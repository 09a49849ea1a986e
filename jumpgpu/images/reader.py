"""Image files to batches of raw fields: decoded on threads or on a GPU, read ahead within a bound, in plate order.

A site with an image that is missing, unreadable, truncated, of the wrong size or type is quarantined: it takes no row in
the batch, is named in it, and the run goes on. Odd but readable images (constant, zero-filled, saturated, the same as
another channel's) are measured and flagged (`site.py`). Batches may span wells, whose order they keep; `finished` says
which wells end in a batch.
"""

import collections
import contextlib
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..gpu.device import Device
from ..gpu.machine import usable_cores
from ..gpu.open import open_device
from ..storage.faults import check_there, may_pass
from ..storage.local import Local, Planes, Status
from .plate import Plate, Site
from .projection import planes_of, project, stacks_of
from .ring_buffer import CudaRing, HostRing, Pending, Pool
from .site import Problem, Wanted
from .tiff import MALFORMED, MAX_SIDE, file_limit, header_size, one_line

PROBES = 9  # sites whose images' headers vote on a plate's field size where its metadata has none


@dataclass(frozen=True)
class FieldBatch:
    """Raw fields of a batch.

    pixels : uint16 [B, C, H, W], camera counts, on the device asked for; of planes' mean, int32, their sums. On the CPU it
        is a reused buffer, valid for as many of the iterator's steps as `held` says; copy what must live longer.
    sites : (well, site) of each row of `pixels`
    quarantined : problems of the sites that have no row; `skipped` has their (well, site)
    flags : problems of sites that are measured all the same
    finished : wells whose last selected site is in this batch, quarantined or not
    checks : of each row of `pixels`, its images' (saturated, sharpness) in the order of the C axis (`check_image`); of
        planes, the greatest
    scales : of each row of `pixels`, what its images' counts, or sums, are divided by to be 0 to 1
    files : of each row of `pixels`, by channel, size and mark of the file that was read; None for what is no file
    """

    pixels: torch.Tensor
    sites: tuple[tuple[str, int], ...]
    quarantined: tuple[Problem, ...] = ()
    flags: tuple[Problem, ...] = ()
    finished: tuple[str, ...] = ()
    checks: tuple[tuple[tuple[float, float], ...], ...] = ()
    scales: tuple[tuple[float, ...], ...] = ()
    files: tuple[dict[str, Status | None], ...] = ()

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
    device: Device | None = None,
) -> Generator[FieldBatch, None, None]:
    """Batches of the plate's fields, in plate order.

    Parameters
    ----------
    wells, sites : what to read; all where None. ValueError for one the plate has not.
    channels : order of the C axis; the plate's where None.
    batch : fields per batch, quarantined ones included.
    workers : decoder threads; as many as there are processors where None, none of them (decode in the caller) for 0.
    ahead : batches decoded beyond the one handed out.
    held : batches handed out whose pixels are still in use: a batch is valid until `held` more were asked for.
        ahead + held buffers are kept, and decoding waits while all are in use.
    size : what `field_size` says, where the caller has asked it already.
    device : where `pixels` goes; a GPU decodes LZW itself, on a stream of the ring's own. The host's memory where None.

    Raises ValueError before anything is read where a name is unknown or no image of the plate can be read at all.
    Closing the iterator early ends its threads.
    """
    selected = plate.select(wells, sites)
    channels = plate.channels if channels is None else tuple(channels)
    if unknown := [c for c in channels if c not in plate.channels]:
        raise ValueError(f"{plate.barcode} has no channel {unknown[0]!r}; it has {', '.join(plate.channels)}")
    if batch < 1 or ahead < 0 or held < 1:
        raise ValueError(f"batch and held must be at least 1 and ahead at least 0, got {batch}, {held} and {ahead}")
    wanted = Wanted(plate, channels, size or field_size(plate))
    groups = [selected[i : i + batch] for i in range(0, len(selected), batch)]
    pool = Pool(usable_cores() if workers is None else workers)

    def decoded(groups: Sequence[Sequence[Site]], wanted: Wanted, held: int) -> Generator[FieldBatch, None, None]:
        given = min(ahead + held, len(groups)), min(batch, len(selected)), wanted, pool
        ring = CudaRing(*given, device) if device and device.asynchronous else HostRing(*given)
        return _stream(groups, ring, pool, ahead, wanted.channels)

    if plate.planes:
        stacks = [(stack, decoded(planes_of(stack, groups), stack.wanted, 1)) for stack in stacks_of(wanted)]
        batches = project(
            plate, channels, groups, stacks, wanted.size, device or open_device("cpu", 1), held, make=FieldBatch
        )
    else:
        batches = decoded(groups, wanted, held)
    coming = [f for site in selected for c in wanted.order for f in site.images_of(c) if f]
    return _fetched(batches, plate.images.ahead(coming, file_limit(wanted.size)), pool)


def _fetched(
    batches: Generator[FieldBatch, None, None], ahead: contextlib.AbstractContextManager[None], pool: Pool
) -> Generator[FieldBatch, None, None]:
    """The batches, while their files are fetched ahead of them from where that takes time."""
    with ahead, contextlib.closing(pool), contextlib.closing(batches):
        yield from batches


def _stream(
    batches: Sequence[Sequence[Site]], ring: HostRing | CudaRing, pool: Pool, ahead: int, channels: Sequence[str]
) -> Generator[FieldBatch, None, None]:
    last = {site.well: i for i, members in enumerate(batches) for site in members}
    waiting: collections.deque[Pending] = collections.deque()
    todo = iter(enumerate(batches))
    try:
        while True:
            while len(waiting) <= ahead and (item := next(todo, None)):
                waiting.append(ring.begin(*item))
            if not waiting:
                return
            for pending in list(waiting)[:2]:
                ring.prepare(pending)
            now = waiting.popleft()
            pixels, result = ring.finish(now)
            yield FieldBatch(
                pixels=pixels,
                sites=tuple((s.well, s.site) for s, f in zip(now.members, result, strict=True) if not f.bad),
                quarantined=tuple(p for f in result for p in f.bad),
                flags=tuple(p for f in result for p in f.flags),
                finished=tuple(w for w in dict.fromkeys(s.well for s in now.members) if last[w] == now.number),
                checks=tuple(f.checks for f in result if not f.bad),
                scales=tuple(f.scales for f in result if not f.bad),
                files=tuple(dict(zip(channels, f.files, strict=True)) for f in result if not f.bad),
            )
    finally:
        pool.close()


def at_size(plate: Plate, sizes: Mapping[str, tuple[int, int]], size: tuple[int, int]) -> Plate:
    """A plate's wells of one size, of those that `well_sizes` gives."""
    sites = tuple(site for site in plate.sites if sizes[site.well] == size)
    return replace(plate, sites=sites, size=size, mixed=False)


def well_sizes(plate: Plate) -> dict[str, tuple[int, int]]:
    """Height and width of each well's fields, where wells differ in them; nothing where all are of `field_size`.

    Metadata that gives one size is believed. Elsewhere an image of each well is asked (of a few, in a bucket), and all
    images of a well whose first one differs from the plate's: most of them decide, as over the plate.
    """
    if plate.size and not plate.mixed:
        return {}
    usual = field_size(plate)
    by_well: dict[str, list[Site]] = {}
    for site in plate.sites:
        by_well.setdefault(site.well, []).append(site)
    wells = list(by_well)
    few = [wells[i * len(wells) // min(PROBES, len(wells))] for i in range(min(PROBES, len(wells)))]
    here = plate.source is None or isinstance(plate.source, Planes)
    sizes = dict.fromkeys(wells, usual)
    for asked in [wells] if here or plate.mixed else [few, wells]:
        for well in asked:
            if _size_of(by_well[well], plate, True) not in (usual, None):
                sizes[well] = _size_of(by_well[well], plate, False) or usual
        if set(sizes.values()) == {usual}:
            return {}
    return sizes


def _size_of(sites: Sequence[Site], plate: Plate, first: bool) -> tuple[int, int] | None:
    """The size of a well's first image that can be read, or of most of its images; None without one, or without most."""
    votes: collections.Counter[tuple[int, int]] = collections.Counter()
    for file in (file for site in sites for file in site.files if file):
        try:
            votes[header_size(file, plate.images)] += 1
        except ConnectionError:
            raise
        except MALFORMED as error:
            if may_pass(error):
                raise
            continue
        if first:
            break
    (size, n), second = (*votes.most_common(2), ((0, 0), 0), ((0, 0), 0))[:2]
    return size if n > second[1] else None


def field_size(plate: Plate) -> tuple[int, int]:
    """Height and width of the plate's fields: its metadata's, else what most images of a few sites spread over it have.

    Asks the whole plate, never a selection of wells, so that every run agrees. ValueError where no image can be read.
    """
    if plate.size:
        if max(plate.size) > MAX_SIDE or min(plate.size) < 1:
            raise ValueError(
                f"{plate.barcode}: {plate.channel_source} says fields are {plate.size}, at most {MAX_SIDE} per side"
            )
        return plate.size
    sites = plate.sites
    spread = [sites[i * len(sites) // min(PROBES, len(sites))] for i in range(min(PROBES, len(sites)))]
    votes: collections.Counter[tuple[int, int]] = collections.Counter()
    first = gone = ""
    for group in (spread, sites):
        for site in group:
            for file in site.files:
                try:
                    votes[header_size(file or "", plate.images)] += 1
                except ConnectionError:
                    raise
                except MALFORMED as error:
                    if may_pass(error):
                        raise
                    first = first or f"{file}: {one_line(error)}"
                    gone = gone or (file or "") * isinstance(error, FileNotFoundError)
            if votes and group is sites:
                break
        if votes:
            return votes.most_common(1)[0][0]
    if gone and isinstance(plate.images, Local):
        check_there(gone)  # a share that is not mounted
    raise ValueError(f"{plate.barcode}: no image can be read; the first is {first}")
