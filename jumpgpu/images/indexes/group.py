"""Images, each of a field, channel, plane and time, to a plate's sites: a plane of each channel, or those projected."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ...settings.config import PlateSettings
from ...settings.names import well_name
from ...storage.pages import page_name
from ..channels import MAX_PLANES
from ..plate import Site, plain_name
from .index_image import IndexImage

MAX_SITES = 1 << 17  # of one plate: 1536 wells with 85 sites
Expected = Callable[[str, int, int], str | None]  # (a file of the site, channel, plane) -> what its file would be called


@dataclass(frozen=True)
class Grouped:
    """A plate's sites, and what was chosen of its planes and times.

    planes : of each channel, in the order of `plate.channels`
    time : the time point chosen, None where there is one
    """

    sites: tuple[Site, ...]
    planes: tuple[tuple[int, ...], ...]
    time: int | None
    notes: tuple[str, ...] = ()

    def barcode(self, barcode: str) -> str:
        """The plate's own name: each time point is a plate."""
        return barcode if self.time is None else f"{barcode}_t{self.time}"


def group_images(
    barcode: str,
    images: Sequence[IndexImage],
    wanted: Mapping[int, int],
    source: str,
    settings: PlateSettings,
    path_of: Callable[[IndexImage], str | None],
    expected: Expected | None = None,
) -> Grouped:
    """Sites of an index, table or folder.

    Parameters
    ----------
    wanted : channel number -> its place among the plate's channels
    source : what lists the images, for errors
    path_of : an image's file; None where the source leaves it empty
    expected : what an image that is not listed would be called, where names follow a rule

    Raises ValueError, by plate, well, site and channel, where images contradict each other or nothing says what to read.
    """
    names = settings.channels
    time = chosen_time({i.time for i in images}, settings, f"{barcode}: {source}")
    images = [i for i in images if time is None or i.time == time]
    if not images:
        raise ValueError(f"{barcode}: {source} lists no image of {', '.join(names)}")
    present: dict[int, set[int]] = {}
    for image in images:
        if image.url:
            present.setdefault(image.channel, set()).add(image.plane)
    planes = {n: chosen_planes(names[c], present.get(n, set()), settings, f"{barcode}: {source}") for n, c in wanted.items()}
    place = {n: {plane: k for k, plane in enumerate(planes[n])} for n in wanted}
    table: dict[tuple[int, int, int], list[list[str | None]]] = {}
    places: dict[tuple[int, int, int], tuple[float | None, float | None]] = {}
    for image in images:
        key = image.row, image.column, image.field
        if key not in table:
            if len(table) >= MAX_SITES:
                raise ValueError(f"{barcode}: {source} has more than {MAX_SITES} sites")
            table[key] = [[None] * len(planes[n]) for n in wanted]
        k = place[image.channel].get(image.plane)
        if k is None:
            continue
        files, where = table[key][wanted[image.channel]], f"{barcode} {name_of(image)} site {image.field}"
        path = path_of(image)
        if path is not None and image.page:
            path = page_name(path, image.page)
        if path is not None and files[k] is not None:
            plane = f", plane {image.plane}," if len(present[image.channel]) > 1 else ""
            raise ValueError(
                f"{where}: {source} lists channel {names[wanted[image.channel]]}{plane} twice ({image.url[:80]})"
            )
        files[k] = files[k] or path
        places.setdefault(key, (image.x_um, image.y_um))
    if expected:
        complete(table.values(), wanted, planes, expected)
    several = any(len(p) > 1 for p in planes.values())
    try:
        sites = tuple(site_of(key, table[key], places.get(key, (None, None)), several) for key in sorted(table))
    except ValueError as error:
        raise ValueError(f"{barcode}: {source}: {error}") from error
    notes: tuple[str, ...] = ()
    if several:
        listed = ", ".join(f"{names[c]} {spoken(planes[n])}" for n, c in wanted.items())
        notes = (f"{settings.projection} of planes: {listed}",)
    elif settings.projection != "none":
        notes = (f"plate.projection = {settings.projection!r} has nothing to do: there is one plane of every channel",)
    if time is not None:
        notes += (f"time point {time} of {source}, as plate {barcode}_t{time}",)
    return Grouped(sites, tuple(planes[n] for n in wanted) if several else (), time, notes)


def site_of(
    key: tuple[int, int, int], files: list[list[str | None]], place: tuple[float | None, float | None], several: bool
) -> Site:
    planes = tuple(map(tuple, files)) if several else ()
    return Site(well_name(*key[:2]), key[2], tuple(f[0] for f in files), *place, planes)


def name_of(image: IndexImage) -> str:
    try:
        return well_name(image.row, image.column)
    except ValueError:
        return f"row {image.row} column {image.column}"


def spoken(planes: Sequence[int]) -> str:
    """`1-5`, `1, 3`."""
    run = list(range(planes[0], planes[-1] + 1))
    return f"{run[0]}-{run[-1]}" if len(run) > 1 and run == list(planes) else ", ".join(map(str, planes))


def chosen_time(times: Collection[int], settings: PlateSettings, where: str) -> int | None:
    """The time point to read; None where there is one, which needs no choice."""
    said, chosen = sorted(times)[:10], settings.time
    if chosen is not None and chosen not in times:
        raise ValueError(f"{where} has time points {said}, not plate.time = {chosen}")
    if chosen is None and len(times) > 1:
        raise ValueError(
            f"{where} has time points {said}; set plate.time in the config to the one to read: each is a plate of its own"
        )
    return chosen if len(times) > 1 else None


def chosen_planes(channel: str, present: Collection[int], settings: PlateSettings, where: str) -> tuple[int, ...]:
    """The planes of a channel to read, in order; ValueError where there are several and nothing says which."""
    said = sorted(present)
    if not said:
        return (1,)  # no image of it at all: its sites are left out, by name
    asked = settings.planes.get(channel) or (() if settings.plane is None else (settings.plane,))
    key = "plate.planes" if channel in settings.planes else "plate.plane"
    if absent := [p for p in asked if p not in present]:
        raise ValueError(f"{where} has planes {said[:10]} of {channel}, not {key} = {absent[0]}")
    if not asked and len(said) > 1 and settings.projection == "none":
        raise ValueError(
            f"{where} has planes {said[:10]} of {channel}; set plate.plane in the config to the one to read, [plate.planes] "
            'to one of each channel, or plate.projection to "max" or "mean"'
        )
    planes = tuple(sorted(asked or said))
    if len(planes) > MAX_PLANES:
        raise ValueError(
            f"{where} has {len(planes)} planes of {channel}; at most {MAX_PLANES} are projected: [plate.planes]"
        )
    return planes


def complete(
    sites: Collection[list[list[str | None]]],
    wanted: Mapping[int, int],
    planes: Mapping[int, Sequence[int]],
    expected: Expected,
) -> None:
    """Give absent files the names they should have, so that what is missing can be named."""
    for files in sites:
        sample = next((f for of_channel in files for f in of_channel if f), None)
        for n, c in wanted.items():
            for k, plane in enumerate(planes[n]):
                if sample and files[c][k] is None:
                    files[c][k] = expected(sample, n, plane)


def plain_file(url: str, barcode: str, source: str) -> str:
    """A file name of an index; ValueError for one that means anything but a file in its folder."""
    if not plain_name(url):
        raise ValueError(f"{barcode}: {source} names {url[:80]!r}, which is not a file name; refused")
    return url
