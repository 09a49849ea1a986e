"""Pictures of the plate's page: a site's channels as they are, for the page to choose and stretch; outlines; thumbnails."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..settings.names import BRIGHTFIELD, check_file_name
from ..storage.atomic import read_file
from ..store import render
from ..store.layout import OVERVIEW
from ..store.reader import StoredPlate
from ..store.views import raw_field

PICTURE = 540  # pixels of a site's picture, at most
SITES = 800  # of a plate, up to which `auto` shows them all
SAMPLED = 48  # sites that say what is black and white
HEADROOM = 1.6  # how far above white the stored grey values reach, for the page to stretch
THUMBNAIL = 160


def choose_sites(plate: StoredPlate, which: str) -> dict[str, list[int]]:
    """Well -> sites shown: of each well the first, all, or none; `auto` is all where the plate has at most 800 sites."""
    if which not in ("auto", "first", "all", "none"):
        raise ValueError(f"pictures is {which!r}; expected 'auto', 'first', 'all' or 'none'")
    sites = {well: [s["site"] for s in plate.record(well)["sites"]] for well in plate.wells}
    if which == "none":
        return {}
    if which == "auto":
        which = "all" if sum(map(len, sites.values())) <= SITES else "first"
    return {well: numbers if which == "all" else numbers[:1] for well, numbers in sites.items() if numbers}


class Pictures:
    """A plate's fields at the size that the page shows: raw images where their folder is given, else stored overviews."""

    def __init__(self, plate: StoredPlate, images: str | None = None):
        self.plate, self.images = plate, images
        self.channels = list(plate.channels)

    def field(self, well: str, site: int) -> tuple[np.ndarray, int] | None:
        """float [C, H, W] and the side of its pixels in the image's own; None where the plate has no overviews."""
        if self.images:
            raw = raw_field(self.plate, well, site, self.images).astype(np.float32)
            step = -(-max(raw.shape[1:]) // PICTURE)
            height, width = (n // step * step for n in raw.shape[1:])
            blocks = raw[:, :height, :width].reshape(len(raw), height // step, step, width // step, step)
            return blocks.mean((2, 4)), step
        try:
            return self.plate.overview(well, site).astype(np.float32), OVERVIEW
        except ValueError:
            return None  # saved for all sites of a plate or for none

    def limits(self, sites: Sequence[tuple[str, int]]) -> np.ndarray | None:
        """What is black and white in each channel all over the plate, float [C, 2]: medians of sites' 1 % and 99.7 %."""
        chosen = [sites[i] for i in np.unique(np.linspace(0, len(sites) - 1, min(SAMPLED, len(sites))).astype(int))]
        fields = [f for well, site in chosen if (f := self.field(well, site)) is not None]
        if not fields:
            return None
        result: np.ndarray = np.median([render.limits_of(field) for field, _ in fields], axis=0)
        return result

    def by_well(self, which: str) -> dict[str, Any]:
        """What the page needs to draw sites: channels, colours, and well -> its sites' pictures."""
        chosen = choose_sites(self.plate, which)
        sites = [(well, site) for well, numbers in chosen.items() for site in numbers]
        limits = self.limits(sites) if sites else None
        if limits is None:
            return {"channels": [], "colours": [], "wells": {}}
        wells: dict[str, list[dict[str, Any]]] = {}
        for well, site in sites:
            field = self.field(well, site)
            if field is not None:
                wells.setdefault(well, []).append({"site": site, **self.drawn(well, site, *field, limits)})
        colours = render.colours(self.channels)
        return {
            "channels": self.channels,
            "colours": [colours[c] for c in self.channels],
            "shown": [c not in BRIGHTFIELD for c in self.channels],
            "headroom": HEADROOM,
            "pixel_um": self.plate.manifest["pixel_size_um"],
            "wells": wells,
        }

    def drawn(self, well: str, site: int, field: np.ndarray, step: int, limits: np.ndarray) -> dict[str, Any]:
        """A site's channels below each other as one grey picture, and its outlines, as the page composes them."""
        low, high = limits[:, 0, None, None], limits[:, 1, None, None]
        scaled = np.clip((field - low) / np.maximum((high - low) * HEADROOM, 1e-9), 0, 1)
        _, height, width = field.shape
        result = {
            "height": height,
            "width": width,
            "step": step,
            "grey": render.data_url(np.rint(scaled * 255).astype(np.uint8).reshape(-1, width), quality=82),
        }
        try:
            labels = self.plate.labels(well, site)
        except ValueError:
            return result
        times = max(1, PICTURE // max(height, width))
        return result | {"outlines": render.outlines_url(labels, (times * height, times * width))}

    def thumbnail(self, well: str, site: int, channel: str, limits: np.ndarray | None) -> str:
        """One channel of a site as a small grey picture; "" where there is none."""
        field = self.field(well, site)
        if field is None or limits is None:
            return ""
        c = self.channels.index(channel)
        low, high = limits[c]
        scaled = np.clip((field[0][c] - low) / max(high - low, 1e-9), 0, 1)
        step = max(1, scaled.shape[1] // THUMBNAIL)
        return render.data_url(np.rint(scaled[::step, ::step] * 255).astype(np.uint8))


def illumination_pictures(plate: StoredPlate) -> list[dict[str, str]]:
    """The plate's estimated illumination functions, if they lie where extract saves them."""
    return list(_functions(plate))


def _functions(plate: StoredPlate) -> Iterator[dict[str, str]]:
    for channel in plate.channels:
        name = check_file_name(f"{plate.barcode}_Illum{channel}.npy", "the function of a channel")
        path = plate.path.parent / "illum" / plate.barcode / name
        if path.is_file():
            function = np.load(io.BytesIO(read_file(path, 1 << 28)), allow_pickle=False)
            step = max(1, max(function.shape) // 180)
            small = np.asarray(function[::step, ::step], float)
            spread = max(float(small.max() - small.min()), 1e-9)
            shade = np.rint((small - small.min()) / spread * 255).astype(np.uint8)
            limits = f"{function.min():.3f} to {function.max():.3f}"
            yield {"channel": channel, "limits": limits, "url": render.data_url(shade, "png")}
