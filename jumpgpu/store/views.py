"""A stored plate looked at, in a notebook or anywhere: its card, a site's picture, a feature over the plate.

`StoredPlate` offers these as `_repr_html_`, `show` and `heatmap`; `jumpgpu.report` makes a page of the same.
"""

import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..settings.names import spelled_well, well_position
from ..storage.buckets import Place
from . import render as pictures
from .layout import OVERVIEW

if TYPE_CHECKING:
    import pandas

FORMATS = ((2, 3), (4, 6), (8, 12), (16, 24), (32, 48))  # rows and columns of plates
CHECKS = ("sharpness", "saturated")  # of raw images; "sharpness DNA" is one's mean over a well's sites
THUMBNAIL = 200  # pixels
NO_PICTURE = "extract with --save-overview stores one, or show(..., images=FOLDER) reads the plate's own images"
NO_OUTLINES = "no outlines: extract with --save-labels stores label images"


class Plate(Protocol):
    """What is needed of `jumpgpu.open_plate`'s."""

    barcode: str
    path: Place
    channels: tuple[str, ...]
    wells: list[str]
    manifest: dict[str, Any]
    settings: dict[str, Any]
    fingerprint: str
    images: str | Place | None

    def record(self, well: str) -> dict[str, Any]: ...
    def choose(self, columns: Iterable[str] | None) -> list[str]: ...
    def to_pandas(self, wells: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "pandas.DataFrame": ...
    def image_checks(self, wells: Iterable[str] | None = None) -> "pandas.DataFrame": ...
    def labels(self, well: str, site: int) -> dict[str, np.ndarray]: ...
    def overview(self, well: str, site: int) -> np.ndarray: ...


class Picture(Figure):
    """A figure that draws without a screen, is known to no global state, and shows itself in a notebook."""

    def __init__(self, width: float, height: float):
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def grid(wells: Sequence[str]) -> dict[str, int]:
    """Rows and columns of the smallest plate that has these wells."""
    positions = [well_position(w) for w in wells] or [(1, 1)]
    rows, columns = max(r for r, _ in positions), max(c for _, c in positions)
    rows, columns = next((f for f in FORMATS if f[0] >= rows and f[1] >= columns), FORMATS[-1])
    return {"rows": rows, "columns": columns}


def well_values(plate: Plate, feature: str, statistic: str = "mean") -> dict[str, float]:
    """Well -> the mean or median of a feature over its cells, nan left out; nan for a well without.

    `cells` counts them; `sharpness DNA` and `saturated DNA` are means over a well's raw images of a channel.
    """
    if statistic not in ("mean", "median"):
        raise ValueError(f"unknown statistic {statistic!r}; expected 'mean' or 'median'")
    if feature == "cells":
        return {well: float(plate.record(well)["cells"]) for well in plate.wells}
    kind, _, channel = feature.partition(" ")
    if kind in CHECKS and channel in plate.channels:
        checks = plate.image_checks()
        means = checks[checks.channel == channel].groupby("well")[kind].mean()
        return {well: float(means.get(well, np.nan)) for well in plate.wells}
    if len(several := plate.choose([feature])) > 1:
        raise ValueError(f"{feature!r} means {len(several)} columns; a heat map shows only one, such as {several[0]!r}")
    (feature,) = several
    result = {}
    for well in plate.wells:
        cells = plate.to_pandas([well], [feature])[feature].to_numpy(float)
        cells = cells[~np.isnan(cells)]
        result[well] = float(getattr(np, statistic)(cells)) if len(cells) else np.nan
    return result


def heatmap(plate: Plate, feature: str, statistic: str = "mean") -> Picture:
    """A feature over the plate's wells as they lie, rows lettered and columns numbered; grey is no value."""
    values, size = well_values(plate, feature, statistic), grid(plate.wells)
    table = np.full((size["rows"], size["columns"]), np.nan)
    for well, value in values.items():
        row, column = well_position(well)
        table[row - 1, column - 1] = value
    figure = Picture(max(4.0, 0.36 * size["columns"] + 1.6), max(2.4, 0.36 * size["rows"] + 0.9))
    axis = figure.add_subplot()
    axis.set_facecolor("#e3e7ec")
    image = axis.imshow(np.ma.masked_invalid(table), cmap="viridis")
    axis.set_xticks(range(size["columns"]), [str(c + 1) for c in range(size["columns"])], fontsize=8)
    axis.set_yticks(range(size["rows"]), [row_letters(r + 1) for r in range(size["rows"])], fontsize=8)
    axis.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axis.set_xticks(np.arange(1, size["columns"]) - 0.5, minor=True)
    axis.set_yticks(np.arange(1, size["rows"]) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1)
    axis.tick_params(which="minor", length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    whole = feature == "cells" or feature.split(" ")[0] in CHECKS
    axis.set_title(f"{plate.barcode}: {feature if whole else f'{statistic} {feature}'}", fontsize=10)
    figure.colorbar(image, ax=axis, shrink=0.8).ax.tick_params(labelsize=8)
    return figure


def row_letters(row: int) -> str:
    return chr(64 + row) if row <= 26 else "A" + chr(38 + row)


def show(
    plate: Plate,
    well: str,
    site: int,
    *,
    images: str | Place | None = None,
    channels: Sequence[str] | None = None,
    outlines: bool = True,
) -> Picture:
    """A site, its channels as colours added up, nuclei and cells outlined where labels are stored.

    Drawn from the raw images where they are at hand (`images`, or the folder that the plate was extracted from or opened
    with), else from the stored overview. ValueError where there is neither, or a channel is unknown.
    """
    if unknown := [c for c in channels or () if c not in plate.channels]:
        raise ValueError(f"{plate.barcode} has no channel {unknown[0]!r}; it has {', '.join(plate.channels)}")
    well = spelled_well(well)
    record = plate.record(well)
    if site not in (sites := [s["site"] for s in record["sites"]]):
        reasons = [q["reason"] for q in record["quarantine"] if q["site"] == site and not q["used"]]
        has = f"it was left out: {reasons[0]}" if reasons else f"the well has {', '.join(map(str, sites)) or 'none'}"
        raise ValueError(f"{plate.barcode} {well} has no site {site}; {has}")
    shown = [c for c in plate.channels if c in (channels or pictures.fluorescent(plate.channels))]
    lights = pictures.colours(plate.channels)
    folder = images or plate.images
    if folder:
        field, pixel = raw_field(plate, well, site, folder), 1
    else:
        try:
            field, pixel = plate.overview(well, site), OVERVIEW
        except ValueError:
            raise ValueError(f"{plate.barcode} {well} site {site} has no picture; {NO_PICTURE}") from None
    field = field[[plate.channels.index(c) for c in shown]]
    image = pictures.composite(field, shown)
    note = ""
    if outlines:
        try:
            labels = plate.labels(well, site)
        except ValueError:
            note = NO_OUTLINES
        else:
            if pixel > 1:  # an outline is a pixel wide
                image = pictures.enlarge(image, *(pixel // 2 * n for n in image.shape[:2]))
            image = outlined(image, labels)
    height, width = image.shape[:2]
    figure = Picture(6.0, 6.0 * height / width + 0.5)
    axis = figure.add_subplot()
    axis.imshow(image, extent=(0, pixel * field.shape[2], pixel * field.shape[1], 0), interpolation="nearest")
    cells = next(s["cells"] for s in record["sites"] if s["site"] == site)
    axis.set_title(f"{plate.barcode} {well} site {site}: {cells} cells", fontsize=10, loc="left")
    for i, channel in enumerate(shown):
        colour = np.array(lights[channel]) / max(lights[channel])
        place = 1 - 0.095 * (len(shown) - i - 1), 1.012
        axis.text(*place, channel, transform=axis.transAxes, color=0.85 * colour, fontsize=9, ha="right", fontweight="bold")
    axis.set_xlabel(note, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    length, text = pictures.scale_bar(pixel * field.shape[2], plate.manifest["pixel_size_um"])
    right, low = 0.97 * pixel * field.shape[2], 0.96 * pixel * field.shape[1]
    axis.plot([right - length, right], [low, low], color="white", linewidth=3, solid_capstyle="butt")
    axis.text(right - length / 2, low, text, color="white", fontsize=8, ha="center", va="bottom")
    return figure


def outlined(image: np.ndarray, labels: dict[str, np.ndarray]) -> np.ndarray:
    """uint8 [h, w, 3] with the outlines of label images [H, W] of another size."""
    return pictures.outline(image, {name: pictures.resampled(label, image.shape[:2]) for name, label in labels.items()})


def raw_field(plate: Plate, well: str, site: int, images: str | Place) -> np.ndarray:
    """uint16 [C, H, W]: a site's images as they are on disk. FileNotFoundError or ValueError says what is not there."""
    from ..images.locate import find_source
    from ..images.reader import read_fields
    from ..settings.config import PlateSettings, build

    kept = plate.settings.get("config", {}).get("plate", {})
    settings = build(PlateSettings, {**kept, "channels": list(plate.channels)}, f"{plate.barcode}: its settings")
    result = find_source(plate.barcode, images, settings)
    batch = next(read_fields(result, wells=[well], sites=[site], batch=1, workers=0))
    if batch.quarantined:
        raise ValueError(str(batch.quarantined[0]))
    return np.array(batch.pixels[0].numpy())


def card(plate: Plate) -> str:
    """What a notebook shows of a plate: its figures, its cell counts as they lie, and one site's picture."""
    records = {well: plate.record(well) for well in plate.wells}
    entries = [(well, q) for well, record in records.items() for q in record["quarantine"]]
    left_out = len({(well, q["site"]) for well, q in entries if not q["used"]})
    cells = {well: record["cells"] for well, record in records.items()}
    rows = {
        "wells": f"{len(records):,}",
        "sites": f"{sum(len(r['sites']) for r in records.values()):,}",
        "cells": f"{sum(cells.values()):,}",
        "features": f"{plate.manifest['features']:,}",
        "channels": ", ".join(plate.channels),
        "quarantine": f"{left_out} sites left out, {sum(q['used'] for _, q in entries)} images flagged",
        "settings": plate.fingerprint[:12],
        "path": str(plate.path),
    }
    body = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    urls = [(pictures.data_url(count_map(cells), "png"), "cells per well, as the wells lie"), *thumbnail(plate, records)]
    figures = "".join(
        f'<figure style="margin:0"><img src="{url}" alt="{words}" style="max-height:{THUMBNAIL}px;image-rendering:auto">'
        f'<figcaption style="font-size:smaller">{words}</figcaption></figure>'
        for url, words in urls
        if records
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start"><table><caption style="text-align:left">'
        f"<b>{html.escape(plate.barcode)}</b></caption>{body}</table>{figures}</div>"
    )


def count_map(cells: dict[str, int]) -> np.ndarray:
    """uint8 [H, W, 3]: the wells as they lie, the more cells the lighter; grey where there is no well."""
    from matplotlib import colormaps

    size = grid(list(cells))
    side = max(4, THUMBNAIL // size["columns"])
    image = np.full((size["rows"], size["columns"], 3), 227, np.uint8)
    maximum = max([*cells.values(), 1])
    for well, count in cells.items():
        row, column = well_position(well)
        image[row - 1, column - 1] = np.rint(255 * np.array(colormaps["viridis"](count / maximum)[:3]))
    image = image.repeat(side, 0).repeat(side, 1)
    image[::side] = image[:, ::side] = 255
    return image


def thumbnail(plate: Plate, records: dict[str, Any]) -> list[tuple[str, str]]:
    """The middle one of the wells with cells: its first site's stored overview, with outlines where labels are stored."""
    full = [(well, r["sites"][0]["site"]) for well, r in records.items() if r["cells"]]
    if not full:
        return []
    well, site = full[len(full) // 2]
    try:
        shown = pictures.fluorescent(plate.channels)
        image = pictures.composite(plate.overview(well, site)[[plate.channels.index(c) for c in shown]], shown)
    except ValueError:
        return []
    times = max(1, THUMBNAIL // max(image.shape[:2]))
    return [(pictures.data_url(pictures.enlarge(image, *(times * n for n in image.shape[:2]))), f"{well} site {site}")]
