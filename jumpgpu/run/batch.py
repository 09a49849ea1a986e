"""A batch of corrected fields to finished tables, begun and ended apart: what is asynchronous goes on between the two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..cli.options import Options
from ..cli.progress import Progress
from ..features import granularity
from ..features import image_quality as quality
from ..features.families import measure_scene
from ..features.objects import make_scene
from ..features.scenes import segment_scene
from ..gpu.cpu import StaleLibrary
from ..gpu.device import Device
from ..images.plate import Plate, Site
from ..settings.names import family_of
from ..store.layout import OVERVIEW, SiteTable
from .provenance import inputs_of

Labels = dict[str, torch.Tensor]  # compartment -> int32 [B, H, W]
Tables = Callable[[], list[SiteTable]]  # waits for the device, and has a table a field
SURE = {"Number", "Children", "Parent"}  # families whose numbers always exist


@dataclass(frozen=True)
class Run:
    """What every batch of a plate needs.

    wells         well -> its chosen sites
    illumination  float32 [C, H, W] on the device
    settings      what the stored numbers depend on
    columns       feature columns in stored order
    batch, lanes  fields a batch, and batches at a time
    """

    plate: Plate
    wells: Mapping[str, Mapping[int, Site]]
    options: Options
    device: Device
    illumination: torch.Tensor
    settings: dict[str, Any]
    columns: list[str]
    progress: Progress
    batch: int
    lanes: int


def begin(sites: Sequence[tuple[str, int]], pixels: torch.Tensor, given: Labels, run: Run) -> Tables:
    """Launch what corrected fields, float32 [B, C, H, W], need; what is returned ends it.

    Where memory or the device gives out, now or then, the batch is done again in halves, at once. Raises RuntimeError (by
    what is returned, too) that names the field with which it happens alone.
    """
    if not sites:
        return list
    try:
        end = launch(sites, pixels, given, run)
    except StaleLibrary:
        raise
    except (MemoryError, RuntimeError) as error:
        tables = by_halves(error, sites, pixels, given, run)
        return lambda: tables

    def ended() -> list[SiteTable]:
        try:
            return end()
        except (MemoryError, RuntimeError) as error:
            return by_halves(error, sites, pixels, given, run)

    return ended


def by_halves(
    error: BaseException, sites: Sequence[tuple[str, int]], pixels: torch.Tensor, given: Labels, run: Run
) -> list[SiteTable]:
    """The tables of a batch that failed."""
    where = f"{run.plate.barcode} {sites[0][0]} site {sites[0][1]}"
    if len(sites) == 1:
        raise RuntimeError(f"{where}: {error or type(error).__name__}") from error
    half = len(sites) // 2
    run.progress.say(f"{where} and {len(sites) - 1} more fields: {error}; trying again, {half} at a time", "retry")
    tables = []
    for part in (slice(half), slice(half, None)):
        tables += begin(sites[part], pixels[part], {c: image[part] for c, image in given.items()}, run)()
    return tables


def launch(sites: Sequence[tuple[str, int]], pixels: torch.Tensor, given: Labels, run: Run) -> Tables:
    """A batch in one piece. It waits for the device once, where objects are counted; what is returned waits for the rest."""
    options, fetch = run.options, run.device.fetch
    if given:
        scene = make_scene(run.plate.channels, pixels, given, {}, run.device)
    else:
        scene = segment_scene(pixels, run.plate.channels, options.config.segmentation, run.device)
    values = fetch(measure_scene(scene, options.config.features, run.device))
    images = {name: fetch(image) for name, image in scene.labels.items()} if options.save_labels else {}
    overviews = fetch(shrink(scene.pixels)) if options.save_overview or options.save_labels else None
    measures = None
    if options.config.features.image_quality:
        measures = fetch(quality.measure_images(scene.pixels, scene.channels, run.device))
    n_cells = scene.objects.n_cells

    def tables() -> list[SiteTable]:
        table = values()
        check_finite(table, run.columns)
        start = np.cumsum([0, *n_cells]).tolist()
        odd = [granularity.doubtful(table[start[b] : start[b + 1]], run.columns) for b in range(len(sites))]
        labels = {name: image() for name, image in images.items()}
        overview = overviews().astype(np.uint16) if overviews else None
        measured = measures() if measures else None
        return [
            SiteTable(
                well,
                site,
                numbers=np.arange(1, n_cells[b] + 1, dtype=np.int32),
                values=table[start[b] : start[b + 1]],
                inputs=inputs_of(run.plate, run.wells[well][site], options),
                labels={name: image[b] for name, image in labels.items()},
                overview=None if overview is None else overview[b],
                quality=None if measured is None else measured[b],
                flags={channel: f"{n} {granularity.BEYOND}" for channel, n in odd[b].items()},
            )
            for b, (well, site) in enumerate(sites)
        ]

    return tables


def check_finite(values: np.ndarray, names: Sequence[str]) -> None:
    """RuntimeError for a number that is NaN or infinite and cannot be: a device's or memory's fault."""
    sure = [i for i, name in enumerate(names) if family_of(name) in SURE or name.endswith("_AreaShape_Area")]
    bad = ~np.isfinite(values[:, sure]).all(axis=0)
    if bad.any():
        raise RuntimeError(f"{names[sure[int(bad.argmax())]]} is not finite, which it always is")


def shrink(pixels: torch.Tensor) -> torch.Tensor:
    """Corrected fields [B, C, H, W] to int32 [B, C, H // 8, W // 8]: exact means of 8 x 8 squares of 16-bit counts."""
    height, width = (n // OVERVIEW * OVERVIEW for n in pixels.shape[2:])
    counts = (pixels[..., :height, :width] * 65535).round().to(torch.int32)
    squares = counts.unflatten(3, (-1, OVERVIEW)).unflatten(2, (-1, OVERVIEW))
    return (squares.sum(dim=(3, 5), dtype=torch.int32) + OVERVIEW**2 // 2) // OVERVIEW**2
