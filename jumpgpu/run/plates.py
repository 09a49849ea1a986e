"""Plates to their stores: one after another in this process, or their wells over worker processes."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ..cli.options import Options, options_from
from ..cli.progress import Progress
from ..gpu.open import open_device
from ..images.locate import find_source
from ..images.plate import Plate
from ..store.reader import StoredPlate, open_plate
from . import dask_scheduler
from .plate import Outcome, chosen_wells, extract_plate, say_empty


def extract(plate: str, images: str | os.PathLike[str] | None = None, **options: Any) -> StoredPlate:
    """Measure a plate's images into `<output>/<plate>.zarr` and open that.

    Parameters
    ----------
    plate : barcode
    images : folder that holds the plate's folder, that folder, a load_data.csv, or an s3:// URL; where None, the configured
        root, and without one the Cell Painting Gallery
    options : fields of `Options`: wells, sites, output, config (a TOML file, preset name or `Config`), masks, ...

    Raises ValueError, TypeError and FileNotFoundError for bad use, BlockingIOError while another run has one of the
    wells, OSError where the disk fails. What was finished stays.
    """
    chosen = options_from({"images": images, **options})
    found = find_source(plate, chosen.images_root, chosen.config.plate, chosen.cache)
    list(extract_plates([found], chosen))
    return open_plate(chosen.output / f"{plate}.zarr", chosen.images_root)


def extract_plates(plates: Sequence[Plate], options: Options) -> Iterator[Outcome]:
    """Plates one after another in this process, or their wells over worker processes."""
    if options.distributed:
        wells = {plate.barcode: chosen_wells(plate, options) for plate in plates}
        by_barcode = {plate.barcode: plate for plate in plates}
        for figures in dask_scheduler.spread(wells, options):
            done = Outcome(**figures)
            progress = Progress(done.plate, 0, options.quiet, options.log_json)
            say_empty(done, by_barcode[done.plate], wells[done.plate], options, progress)
            yield done
        return
    device = open_device(options.device, options.threads)
    for plate in plates:
        yield extract_plate(plate, options, device)
