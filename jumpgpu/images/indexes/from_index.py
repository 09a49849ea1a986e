"""Plates as a microscope's index lists them."""

import dataclasses
from collections.abc import Sequence

from ...settings.config import PlateSettings
from ...storage.buckets import Place
from ..channels import contradicted, match_channels
from ..plate import Plate
from .group import group_images, plain_file
from .harmony import Index, read_index
from .index_image import IndexImage
from .listing import Folder, roots_of
from .xml_stream import MAX_BYTES


def from_indexes(
    barcode: str, known: Sequence[tuple[Folder, str]], folder: Place, root: Place, settings: PlateSettings
) -> Plate:
    """A plate as the first of its indexes lists it; ValueError where another one names its channels otherwise.

    known : the folder that each lies in, and its name
    """

    def read(place: Folder, name: str) -> Index:
        with place.open(name, MAX_BYTES) as file:
            return read_index(place.place / name, file)

    index, paths = read(*known[0]), [place.place / name for place, name in known]
    plate = from_index(barcode, paths[0], folder, root, settings, index)
    notes = []
    for (place, name), path in zip(known[1:], paths[1:], strict=True):
        try:
            other = read(place, name).channels
        except ValueError as error:
            notes.append(f"{path.name} is not used beside {paths[0].name}, and cannot be read ({error})")
            continue
        for channel, called in index.channels.items():
            if channel in other and other[channel].lower() != called.lower():
                raise ValueError(
                    f"{barcode}: {paths[0]} says that channel {channel} is {called!r}, {path} that it is "
                    f"{other[channel]!r}; move the wrong one away"
                )
        notes.append(f"{path.name} names the same channels as {paths[0].name}, which is read")
    return dataclasses.replace(plate, notes=(*plate.notes, *notes))


def from_index(barcode: str, path: Place, folder: Place, root: Place, settings: PlateSettings, index: Index) -> Plate:
    """A plate as its Harmony index lists it."""
    numbers = {f"ch{i.channel}": i.channel for i in index.images}
    names = {key: index.channels.get(n, key) for key, n in sorted(numbers.items(), key=lambda item: item[1])}
    keys = match_channels(barcode, names, path.name, settings)
    wanted = {numbers[key]: c for c, key in enumerate(keys.values())}
    if twice := [n for n in wanted if n in index.renamed]:
        called = " and ".join(map(repr, index.renamed[twice[0]][:4]))
        raise ValueError(f"{barcode}: {path} calls channel {twice[0]} both {called}; export the plate again")
    pixel_um, size = index.geometry(wanted, f"{barcode}: {path.name}")
    greatest, named = index.greatest(wanted), dict(zip(wanted, settings.channels, strict=True))
    images = [i for i in index.images if i.channel in wanted]

    def path_of(image: IndexImage) -> str:
        return str(folder / plain_file(image.url, barcode, path.name))

    grouped = group_images(barcode, images, wanted, path.name, settings, path_of)
    notes = [*index.notes, *grouped.notes]
    if index.name and index.name != barcode:
        notes.append(f"{path.name} calls the plate {index.name!r}, not {barcode}")
    return Plate(
        barcode=grouped.barcode(barcode),
        folder=folder,
        roots=roots_of(root),
        channels=settings.channels,
        scale=settings.scale,
        channel_labels=tuple(f"{key} {names[key]}" for key in keys.values()),
        channel_source=path.name,
        sites=grouped.sites,
        projection=settings.projection,
        planes=grouped.planes,
        pixel_um=pixel_um,
        size=size,
        mixed=index.mixed(wanted),
        warnings=contradicted({c: said for n, c in named.items() if (said := greatest.get(n))}, path.name, settings),
        flatfields={c: f for c, key in keys.items() if (f := index.flatfields.get(numbers[key]))},
        notes=tuple(notes),
    )
