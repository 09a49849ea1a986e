"""Plates known by their Phenix file names alone, with the channel numbers of the config."""

import re
from collections.abc import Iterable
from pathlib import Path

from ...settings.config import PlateSettings
from ...storage.buckets import Place
from ..plate import Plate, Site
from .from_index import group_images
from .harmony import IndexImage

PHENIX = re.compile(r"r(\d{2})c(\d{2})f(\d{2,4})p(\d{2,4})-ch(\d{1,2})sk(\d{1,6})fk(\d{1,4})fl(\d{1,4})\.tiff?")
MAX_FILES = 2_000_000  # names looked at in an Images folder


def from_names(barcode: str, folder: Place, root: Place, settings: PlateSettings, names: Iterable[str]) -> Plate:
    """A plate from the folder's Phenix file names; the config says which channel number is which."""
    if absent := [c for c in settings.channels if c not in settings.numbers]:
        block = "\n  ".join(f"{c} = ..." for c in absent)
        raise ValueError(
            f"{barcode}: plate.numbers has no Phenix channel number for {', '.join(absent)}; say in the config\n"
            f"  [plate.numbers]\n  {block}"
        )
    wanted = {settings.numbers[c]: i for i, c in enumerate(settings.channels)}
    if len(wanted) != len(settings.channels):
        raise ValueError(f"{barcode}: plate.numbers gives two of {', '.join(settings.channels)} the same number")
    images, present = [], set()
    for n, name in enumerate(names):
        if n >= MAX_FILES:
            raise ValueError(f"{folder}: more than {MAX_FILES} files")
        if match := PHENIX.fullmatch(name):
            row, column, site, plane, channel, time = (int(match[k]) for k in (1, 2, 3, 4, 5, 6))
            present.add(channel)
            if channel in wanted:
                images.append(IndexImage(row, column, site, plane, time, channel, name))
    if not present:
        raise FileNotFoundError(
            f"{barcode}: {folder} has no Index.idx.xml, load_data.csv or file named like r01c01f01p01-ch1sk1fk1fl1.tiff"
        )
    if absent := [c for c in settings.channels if settings.numbers[c] not in present]:
        numbers = ", ".join(f"ch{n}" for n in sorted(present))
        said = ", ".join(f"{c} is ch{settings.numbers[c]}" for c in absent)
        block = "\n  ".join(f"{c} = ..." for c in absent)
        raise ValueError(
            f"{barcode}: {', '.join(f'no {c} channel' for c in absent)}: {folder} has {numbers}, and plate.numbers says "
            f"that {said}; leave what is not there out of plate.channels, or say in the config\n  [plate.numbers]\n  {block}"
        )
    sites = group_images(barcode, images, wanted, folder, folder, settings)
    return Plate(
        barcode=barcode,
        folder=folder,
        roots=(root.resolve(),) if isinstance(root, Path) else (),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"ch{settings.numbers[c]}" for c in settings.channels),
        channel_source="the config's plate.numbers (no Index.idx.xml, no load_data.csv)",
        sites=tuple(complete(site, list(wanted)) for site in sites),
        warnings=(
            f"no index and no load_data.csv say which channel is which: [plate.numbers] of the config is taken, "
            f"{', '.join(f'{c} = {settings.numbers[c]}' for c in settings.channels)}",
        ),
    )


def complete(site: Site, numbers: list[int]) -> Site:
    """A site with the names its absent files should have, so that what is missing can be named."""
    sample = next(f for f in site.files if f)
    files = tuple(
        f or re.sub(r"-ch\d+(sk\d+fk\d+fl\d+\.tiff?)$", rf"-ch{n}\1", sample)
        for f, n in zip(site.files, numbers, strict=True)
    )
    return Site(site.well, site.site, files, site.x_um, site.y_um)
