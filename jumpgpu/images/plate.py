"""A plate: its barcode, its channels, its wells and sites, and one image file per channel.

What finds and reads one is `locate.py`; nothing here opens a file.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..storage.buckets import Place, RemotePath
from ..storage.local import Files, Local
from .indexes.flatfield import Flatfield


@dataclass(frozen=True)
class Site:
    """One field of a well. `files` follows `Plate.channels`; None where the plate's metadata lists no such image."""

    well: str
    site: int
    files: tuple[str | None, ...]
    x_um: float | None = None  # stage position relative to the well's centre
    y_um: float | None = None
    planes: tuple[tuple[str | None, ...], ...] = ()  # of each channel, if they are projected; `files`: the first

    def images_of(self, c: int) -> tuple[str | None, ...]:
        """The files that a channel's image is made of: one, or its planes."""
        return self.planes[c] if self.planes else self.files[c : c + 1]


@dataclass(frozen=True)
class Plate:
    """A plate's images, by well (rows, then columns) and site."""

    barcode: str
    folder: Place  # where its images or its load_data.csv are
    roots: tuple[Path, ...]  # resolved; no image outside them is opened. None where `source` has its own
    channels: tuple[str, ...]  # order of the C axis
    channel_labels: tuple[str, ...]  # what the source calls each: 'ch5 HOECHST 33342'
    channel_source: str
    sites: tuple[Site, ...]
    pixel_um: float | None = None
    scale: float | None = None  # what counts are divided by, whatever the files say
    size: tuple[int, int] | None = None  # H, W as the metadata gives them; images decide where it is None
    mixed: bool = False  # the metadata gives images of several sizes; `size` is that of most
    flatfields: Mapping[str, Flatfield] = field(default_factory=dict)  # by channel; empty without an index
    notes: tuple[str, ...] = ()  # what a reader of the log should know
    warnings: tuple[str, ...] = ()  # what was assumed and nobody said: told even where the log is not wanted
    source: Files | None = None  # its image files, where they are none on this machine
    illumination: RemotePath | None = None  # where functions made for it lie
    projection: str = "none"  # what is made of the planes of `Site.planes`: max or mean
    planes: tuple[tuple[int, ...], ...] = ()  # of each channel, their numbers

    @property
    def images(self) -> Files:
        """Its image files: bytes, sizes and names of what `sites` list."""
        if self.source:
            return self.source
        assert isinstance(self.folder, Path), "a plate in a bucket has a source"
        return Local(self.folder, self.roots)

    def input_name(self, c: int, k: int) -> str:
        """What the k-th file of a channel is called among a site's inputs: `DNA`, or `DNA plane 3`."""
        several = bool(self.planes) and len(self.planes[c]) > 1
        return f"{self.channels[c]} plane {self.planes[c][k]}" if several else self.channels[c]

    @property
    def wells(self) -> tuple[str, ...]:
        """Wells that have a site, in plate order."""
        return tuple(dict.fromkeys(s.well for s in self.sites))

    @property
    def channel_line(self) -> str:
        """`DNA=ch5 HOECHST 33342, ER=..., from Index.idx.xml`: the line a command prints."""
        pairs = ", ".join(f"{c}={label}" for c, label in zip(self.channels, self.channel_labels, strict=True))
        return f"{pairs}; from {self.channel_source}"

    def select(self, wells: Collection[str] | None = None, sites: Collection[int] | None = None) -> tuple[Site, ...]:
        """The sites of these wells that have these numbers, all where None; ValueError for one the plate has not."""
        wells = None if wells is None else set(wells)
        if unknown := sorted(set(wells or ()) - set(self.wells)):
            have = self.wells
            raise ValueError(
                f"{self.barcode} has no images of well {unknown[0]}; it has {len(have)} wells, {have[0]} .. {have[-1]}"
            )
        numbers = {s.site for s in self.sites}
        if absent := sorted(set(sites or ()) - numbers):
            raise ValueError(
                f"{self.barcode} has no site {absent[0]}; its sites are {', '.join(map(str, sorted(numbers)[:20]))}"
            )
        return tuple(s for s in self.sites if (wells is None or s.well in wells) and (sites is None or s.site in sites))


def plain_name(name: str) -> bool:
    """Whether a name can only mean a file in its folder."""
    return bool(name) and name not in (".", "..") and len(name) < 256 and not re.search(r"[/\\:\x00-\x1f]", name)
