"""Plates as a microscope's index lists them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...settings.config import PlateSettings
from ...settings.names import well_name
from ...storage.buckets import Place
from ..channels import contradicted, match_channels
from ..plate import Plate, Site, plain_name
from .harmony import Index, IndexImage, read_index
from .load_data import MAX_SITES


def from_indexes(
    barcode: str, paths: Sequence[Place], folder: Place, root: Place, settings: PlateSettings, read: Callable[[Place], Index]
) -> Plate:
    """A plate as the first of its indexes lists it; ValueError where another one names its channels otherwise."""
    index = read(paths[0])
    plate = from_index(barcode, paths[0], folder, root, settings, index)
    notes = []
    for path in paths[1:]:
        try:
            other = read(path).channels
        except ValueError as error:
            notes.append(f"{path.name} is not used beside {paths[0].name}, and cannot be read ({error})")
            continue
        for channel, name in index.channels.items():
            if channel in other and other[channel].lower() != name.lower():
                raise ValueError(
                    f"{barcode}: {paths[0]} says that channel {channel} is {name!r}, {path} that it is {other[channel]!r}; "
                    "move the wrong one away"
                )
        notes.append(f"{path.name} names the same channels as {paths[0].name}, which is read")
    return dataclasses.replace(plate, notes=(*plate.notes, *notes))


def from_index(
    barcode: str, path: Place, folder: Place, root: Place, settings: PlateSettings, index: Index | None = None
) -> Plate:
    """A plate as its Harmony index lists it. `index`: what is in it, where that is known."""
    index = index or read_index(path)
    numbers = {f"ch{i.channel}": i.channel for i in index.images}
    names = {key: index.channels.get(n, key) for key, n in sorted(numbers.items(), key=lambda item: item[1])}
    keys = match_channels(barcode, names, path.name, settings)
    wanted = {numbers[key]: c for c, key in enumerate(keys.values())}
    if twice := [n for n in wanted if n in index.renamed]:
        called = " and ".join(map(repr, index.renamed[twice[0]][:4]))
        raise ValueError(f"{barcode}: {path} calls channel {twice[0]} both {called}; export the plate again")
    pixel_um, size = index.geometry(wanted, f"{barcode}: {path.name}")
    greatest, named = index.greatest(wanted), dict(zip(wanted, settings.channels, strict=True))
    sites = group_images(barcode, [i for i in index.images if i.channel in wanted], wanted, folder, path, settings)
    notes = list(index.notes)
    if index.name and index.name != barcode:
        notes.append(f"{path.name} calls the plate {index.name!r}, not {barcode}")
    return Plate(
        barcode=barcode,
        folder=folder,
        roots=(root.resolve(),) if isinstance(root, Path) else (),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"{key} {names[key]}" for key in keys.values()),
        channel_source=path.name,
        sites=sites,
        pixel_um=pixel_um,
        size=size,
        warnings=contradicted({c: said for n, c in named.items() if (said := greatest.get(n))}, path.name, settings),
        flatfields={c: f for c, key in keys.items() if (f := index.flatfields.get(numbers[key]))},
        notes=tuple(notes),
    )


def group_images(
    barcode: str,
    images: list[IndexImage],
    wanted: Mapping[int, int],
    folder: Place,
    path: Place,
    settings: PlateSettings,
) -> tuple[Site, ...]:
    """Sites of an index or folder, one plane and one time each."""
    check_single({i.plane for i in images}, settings.plane, f"{barcode}: {path.name} has planes", "plate.plane")
    check_single({i.time for i in images}, None, f"{barcode}: {path.name} has time points", None)
    table: dict[tuple[int, int, int], list[str | None]] = {}
    places: dict[tuple[int, int, int], tuple[float | None, float | None]] = {}
    for image in images:
        if settings.plane is not None and image.plane != settings.plane:
            continue
        key = image.row, image.column, image.field
        files = table.setdefault(key, [None] * len(wanted))
        if not plain_name(image.url):
            raise ValueError(f"{barcode}: {path.name} names {image.url[:80]!r}, which is no file name; refused")
        if image.page:
            where = f"{barcode} {well_name(image.row, image.column)} site {image.field}"
            raise ValueError(
                f"{where}: {path.name} says that the image is page {image.page + 1} of {image.url[:80]!r} (BufferNo "
                f"{image.page}); files of one image each are read: export the plate as single images"
            )
        if files[wanted[image.channel]] is not None:
            well = well_name(image.row, image.column)
            raise ValueError(f"{barcode} {well} site {image.field}: {path.name} lists channel {image.channel} twice")
        files[wanted[image.channel]] = str(folder / image.url)
        places[key] = image.x_um, image.y_um
    if len(table) > MAX_SITES:
        raise ValueError(f"{barcode}: {path.name} has {len(table)} sites, more than {MAX_SITES}")
    if not table:
        raise ValueError(f"{barcode}: {path.name} lists no image of {', '.join(settings.channels)}")
    try:
        return tuple(
            Site(well_name(row, column), site, tuple(table[row, column, site]), *places[row, column, site])
            for row, column, site in sorted(table)
        )
    except ValueError as error:
        raise ValueError(f"{barcode}: {path}: {error}") from error


def check_single(result: set[int], chosen: int | None, what: str, key: str | None) -> None:
    if chosen is not None and chosen not in result:
        raise ValueError(f"{what} {sorted(result)[:10]}, not {key} = {chosen}")
    if chosen is None and len(result) > 1:
        advice = f"set {key} in the config to the one to read" if key else "give a folder with one"
        raise ValueError(f"{what} {sorted(result)[:10]}; {advice}")
