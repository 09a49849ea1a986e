"""A site's images: each is taken from its file, and what is wrong with it is said.

A site with an image that is missing, unreadable, truncated, of the wrong size or type is quarantined. Odd but readable
images (constant, zero-filled, saturated, the same as another channel's) are flagged.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from ..gpu.cpu import StaleLibrary
from ..settings.names import LABEL_IMAGE
from ..storage.faults import check_there, may_pass
from ..storage.local import Planes, Status
from .focus import Counts, check_image, copy_of, count_image, oddities, top_of
from .plate import Plate, Site
from .tiff import MALFORMED, decode, one_line
from .tiff_tags import FULL_SCALE, Grey


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
class Wanted:
    """What is read of every site of a plate.

    channels : names of the C axis
    size : height and width of every image
    """

    plate: Plate
    channels: tuple[str, ...]
    size: tuple[int, int]

    @property
    def order(self) -> list[int]:
        """The place of each channel among a site's files."""
        return [self.plate.channels.index(c) for c in self.channels]

    def scale_of(self, grey: Grey) -> float:
        """What an image's counts are divided by: what the settings say, what its file says, or 65535."""
        return self.plate.scale or grey.scale or FULL_SCALE

    def problem(self, site: Site, c: int, reason: str) -> Problem:
        file = site.files[self.order[c]] or ""
        reason = without_folders(
            reason, (home := os.path.dirname(file), os.path.realpath(home), self.plate.folder, *self.plate.roots)
        )
        return Problem(self.plate.barcode, site.well, site.site, self.channels[c], file, reason)


def without_folders(text: str, folders: Iterable[Any]) -> str:
    """A reason without the names of folders on this machine, which whoever is given the plate need not know."""
    for folder in sorted({str(f) for f in folders if len(str(f)) > 1}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "").replace(folder, PurePath(folder).name)
    return text


@dataclass(frozen=True)
class DecodedSite:
    """What a site's images came to: problems that quarantine it, or its flags, and of each image (saturated, sharpness),
    what its counts are divided by, and the status of the file it was read from.
    """

    bad: tuple[Problem, ...] = ()
    flags: tuple[Problem, ...] = ()
    checks: tuple[tuple[float, float], ...] = ()
    scales: tuple[float, ...] = ()
    files: tuple[Status | None, ...] = ()


def take_images(wanted: Wanted, site: Site, take: Callable[[int, str], None]) -> tuple[Problem, ...]:
    """`take(c, file)` of each image; what is wrong with those that are missing or that it cannot take."""
    bad: list[Problem] = []
    for c, (channel, place) in enumerate(zip(wanted.channels, wanted.order, strict=True)):
        file = site.files[place]
        if file is None:
            bad.append(wanted.problem(site, c, f"no {channel} image is listed in {wanted.plate.channel_source}"))
            continue
        try:
            take(c, file)
        except FileNotFoundError:
            if not isinstance(wanted.plate.images, Planes) and "://" not in file:
                check_there(file)
            bad.append(wanted.problem(site, c, f"no {channel} image: the file is missing"))
        except (ConnectionError, StaleLibrary):
            raise  # the place is out of reach, or the library of another build: no fault of this image
        except MALFORMED as error:
            if may_pass(error):
                raise
            bad.append(wanted.problem(site, c, f"unreadable {channel} image: {one_line(error)}"))
    return tuple(bad)


def decode_site(wanted: Wanted, site: Site, images: np.ndarray) -> DecodedSite:
    """Decode a site's images into `images`, uint16 [C, H, W]."""
    counts: list[Counts] = []
    greys: list[Grey] = []

    def take(c: int, file: str) -> None:
        greys.append(decode(file, wanted.plate.images, images[c]))
        counts.append(count_image(images[c], top_of(wanted.scale_of(greys[-1]))))  # while it is in the cache

    if bad := take_images(wanted, site, take):
        return DecodedSite(bad)
    return judge(wanted, site, counts, greys, lambda d, c: np.array_equal(images[d], images[c]))


def judge(
    wanted: Wanted, site: Site, counts: Sequence[Counts], greys: Sequence[Grey], equal: Callable[[int, int], bool]
) -> DecodedSite:
    """What the counts of a site's images, all of them readable, come to; `equal` as `copy_of` asks it."""
    flags = []
    for c, channel in enumerate(wanted.channels):
        odd = [] if channel.endswith(LABEL_IMAGE) else oddities(counts[c])  # a label image is mostly 0, and of any count
        flags += [wanted.problem(site, c, reason) for reason in (*odd, *greys[c].remarks)]
        if (same := copy_of(counts, c, equal)) is not None:
            flags.append(wanted.problem(site, c, f"the {channel} image is the {wanted.channels[same]} image again"))
    files = tuple(grey.status for grey in greys)
    return DecodedSite((), tuple(flags), tuple(map(check_image, counts)), tuple(map(wanted.scale_of, greys)), files)
