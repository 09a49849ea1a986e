"""Planes of fields to one image per channel: their maximum or mean, made on the device plane by plane as they are decoded.

A batch is read once for each plane, as batches of one plane are, and folded into its images; so memory does not grow with
the number of planes, and every plane is checked as any raw image is. Channels of as many planes are read together.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch

from ..gpu.device import ITEMS, Device
from ..storage.local import Status
from .plate import Plate, Site
from .site import Problem, Wanted


class Decoded(Protocol):
    """A batch of one plane, as `FieldBatch` has it."""

    @property
    def pixels(self) -> torch.Tensor: ...
    @property
    def sites(self) -> tuple[tuple[str, int], ...]: ...
    @property
    def quarantined(self) -> tuple[Problem, ...]: ...
    @property
    def flags(self) -> tuple[Problem, ...]: ...
    @property
    def checks(self) -> tuple[tuple[tuple[float, float], ...], ...]: ...
    @property
    def scales(self) -> tuple[tuple[float, ...], ...]: ...
    @property
    def files(self) -> tuple[dict[str, Status | None], ...]: ...


Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Stack:
    """Channels that have as many planes as each other.

    places : of each, its place on the C axis
    order : of each, its place among the plate's channels
    """

    wanted: Wanted
    places: tuple[int, ...]
    order: tuple[int, ...]
    n_planes: int

    def plane(self, site: Site, k: int) -> Site:
        """A site with the files of its k-th planes."""
        files = list(site.files)
        for c in self.order:
            files[c] = site.planes[c][k]
        return Site(site.well, site.site, tuple(files), site.x_um, site.y_um)


def stacks_of(wanted: Wanted) -> list[Stack]:
    """The plate's channels by their number of planes."""
    of: dict[int, list[int]] = collections.defaultdict(list)
    for place, c in enumerate(wanted.order):
        of[len(wanted.plate.planes[c])].append(place)
    return [
        Stack(
            replace(wanted, channels=tuple(wanted.channels[p] for p in places)),
            tuple(places),
            tuple(wanted.order[p] for p in places),
            n,
        )
        for n, places in sorted(of.items())
    ]


def planes_of(stack: Stack, groups: Sequence[Sequence[Site]]) -> list[list[Site]]:
    """The batches of planes that a stack's images are made of, in the order in which `project` takes them."""
    return [[stack.plane(site, k) for site in group] for group in groups for k in range(stack.n_planes)]


def project(
    plate: Plate,
    channels: Sequence[str],
    groups: Sequence[Sequence[Site]],
    stacks: Sequence[tuple[Stack, Iterator[Decoded]]],
    size: tuple[int, int],
    device: Device,
    held: int,
    make: Callable[..., Batch],
) -> Generator[Batch, None, None]:
    """Batches of projected fields.

    Parameters
    ----------
    groups : sites of each batch
    stacks : with the batches that `planes_of` lists, decoded
    held : batches handed out whose pixels are still in use
    make : what makes a batch of its parts (`FieldBatch`)
    """
    last = {site.well: i for i, members in enumerate(groups) for site in members}
    dtype = torch.uint16 if plate.projection == "max" else torch.int32
    shape = max(map(len, groups), default=0), len(channels), *size
    kept: list[torch.Tensor] = [] if device.asynchronous else [device.empty(*shape, dtype=dtype) for _ in range(held)]
    for number, members in enumerate(groups):
        images = (kept[number % held] if kept else device.empty(*shape, dtype=dtype))[: len(members)]
        images.view(torch.int16 if dtype == torch.uint16 else dtype).zero_()
        row_of = {(site.well, site.site): row for row, site in enumerate(members)}
        done = [_Projected(len(channels)) for _ in members]
        for stack, batches in stacks:
            for k in range(stack.n_planes):
                fields = next(batches)
                fold(fields, images, [row_of[site] for site in fields.sites], stack, plate.projection, device)
                take(fields, done, row_of, stack, k, plate)
        for row, site in enumerate(members):
            done[row].bad += unlike(site, done[row], plate, channels)
        usable = [row for row, output in enumerate(done) if not output.bad]
        factor = [len(plate.planes[plate.channels.index(c)]) if plate.projection == "mean" else 1 for c in channels]
        yield make(
            pixels=images if len(usable) == len(members) else device.take(images, usable),
            sites=tuple((members[row].well, members[row].site) for row in usable),
            quarantined=tuple(p for output in done for p in output.bad),
            flags=tuple(p for output in done if not output.bad for p in output.flags),
            finished=tuple(w for w in dict.fromkeys(s.well for s in members) if last[w] == number),
            checks=tuple(tuple(map(maximum, done[row].checks)) for row in usable),
            files=tuple(done[row].files for row in usable),
            scales=tuple(tuple(s[0] * n for s, n in zip(done[row].scales, factor, strict=True)) for row in usable),
        )


class _Projected:
    """What the planes of a site came to until now, by place on the C axis."""

    def __init__(self, n_channels: int):
        self.bad: list[Problem] = []
        self.flags: list[Problem] = []
        self.checks: list[list[tuple[float, float]]] = [[] for _ in range(n_channels)]
        self.scales: list[list[float]] = [[] for _ in range(n_channels)]
        self.files: dict[str, Status | None] = {}


def fold(fields: Decoded, images: torch.Tensor, rows: Sequence[int], stack: Stack, projection: str, device: Device) -> None:
    """Take one plane [R, C of the stack, H, W] of the images in `rows` into them."""
    if not rows:
        return
    n_pixels = images[0, 0].numel()
    places = [row * images.shape[1] + c for row in rows for c in stack.places]
    grid, numbers = len(places) * -(-n_pixels // ITEMS), device.tensor(places, torch.int32)
    if projection == "max":
        device.launch("project_max", grid, planes=fields.pixels, places=numbers, n_pixels=n_pixels, images=images)
    else:
        device.launch("project_sum", grid, planes=fields.pixels, places=numbers, n_pixels=n_pixels, sums=images)


def take(
    fields: Decoded, done: list[_Projected], row_of: dict[tuple[str, int], int], stack: Stack, k: int, plate: Plate
) -> None:
    """What was found of a plane: its problems, called by its number, and its figures."""
    for problems, name in ((fields.quarantined, "bad"), (fields.flags, "flags")):
        for problem in problems:
            if problem.channel not in stack.wanted.channels:
                continue
            plane = plate.planes[plate.channels.index(problem.channel)][k]
            said = f"plane {plane}: {problem.reason}" if stack.n_planes > 1 else problem.reason
            getattr(done[row_of[problem.well, problem.site]], name).append(dataclasses.replace(problem, reason=said))
    for site, checks, scales, files in zip(fields.sites, fields.checks, fields.scales, fields.files, strict=True):
        output = done[row_of[site]]
        output.files |= {plate.input_name(plate.channels.index(c), k): status for c, status in files.items()}
        for place, check, scale in zip(stack.places, checks, scales, strict=True):
            output.checks[place].append(check)
            output.scales[place].append(scale)


def unlike(site: Site, output: _Projected, plate: Plate, channels: Sequence[str]) -> list[Problem]:
    """A problem for each image whose planes' counts are divided by different numbers: they are on no common scale."""
    problems = []
    for channel, scales in zip(channels, output.scales, strict=True):
        if len(set(scales)) > 1:
            c = plate.channels.index(channel)
            reason = f"the planes of {channel} differ in full scale ({min(scales):g} to {max(scales):g}); set [plate] scale"
            problems.append(Problem(plate.barcode, site.well, site.site, channel, site.files[c] or "", reason))
    return problems


def maximum(checks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The most saturated share and the greatest sharpness of an image's planes."""
    sharp = [s for _, s in checks if not math.isnan(s)]
    return max(share for share, _ in checks), max(sharp, default=math.nan)
