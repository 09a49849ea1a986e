"""Label images alone, for looking at and for use elsewhere: no features are measured.

    python -m jumpgpu.segment --plate BR00117010 --images /data/images --outlines

`<output>/<plate>.zarr` holds nuclei, cells and cytoplasm of every site as OME-Zarr labels; `jumpgpu.extract --masks`
reads them.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import torch

from . import options as command
from .device import Device, open_device
from .endings import BAD_USE, DONE, QUARANTINED, STOPPED, TRY_AGAIN, explain, failed
from .extract import Outcome, chosen_wells, open_store, outcome, prepare, read
from .fields import FieldBatch
from .illumination import correct
from .lanes import in_lanes
from .layout import SiteTable
from .masks import outline
from .measuring import Run, shrink
from .options import Options
from .plate import Plate
from .progress import Progress, write_event
from .provenance import inputs_of
from .segmentation import Segmentation, segment
from .sink import Sink
from .sources import find_source

NUCLEUS, CELL = (255, 64, 255), (64, 255, 64)  # colours of outlines


def parser() -> argparse.ArgumentParser:
    """The command line: that of `extract`, less what only measuring needs."""
    return command.parser("segment")


def segment_plate(plate: Plate, options: Options, device: Device, outlines: bool) -> Outcome:
    """One plate's label images into its store."""
    if options.masks:
        raise ValueError("--masks gives label images; there is nothing to segment")
    if options.distributed:
        raise ValueError("segment works in one process; extract has --workers and --scheduler")
    started = time.monotonic()
    features = dataclasses.replace(options.config.features, families=())
    config = dataclasses.replace(options.config, features=features)
    options = dataclasses.replace(options, config=config, save_labels=True)
    wells = chosen_wells(plate, options)
    with Progress(plate.barcode, sum(map(len, wells.values())), options.quiet, options.log_json) as progress:
        run = prepare(plate, wells, options, device, progress)
        with open_store(run) as store, Sink(store, plate.images.relative, progress, options.strict) as sink:

            def compute(fields: FieldBatch) -> tuple[FieldBatch, list[SiteTable]]:
                pixels = correct(fields.pixels, run.illumination, device=device)
                found = segment(pixels, plate.channels, config.segmentation, device)
                if outlines:
                    write_outlines(fields.sites, pixels, found, run)
                return fields, label_tables(fields.sites, pixels, found, run)

            with device.divided(run.lanes), in_lanes(read(run, store.missing_wells()), compute, run.lanes) as batches:
                for fields, tables in batches:
                    sink.put(fields, tables)
    return outcome(plate.barcode, options, wells, time.monotonic() - started)


def label_tables(sites: Sequence[tuple[str, int]], pixels: torch.Tensor, found: Segmentation, run: Run) -> list[SiteTable]:
    """A batch's label images, with a table of no features."""
    if not sites:
        return []
    images = {name: image.cpu().numpy() for name, image in found.labels.items()}
    overviews, counts = shrink(pixels).cpu().numpy().astype(np.uint16), found.counts.tolist()
    return [
        SiteTable(
            well,
            site,
            numbers=np.arange(1, counts[b] + 1, dtype=np.int32),
            values=np.zeros((counts[b], 0), np.float32),
            inputs=inputs_of(run.plate, run.wells[well][site], run.options),
            labels={name: image[b] for name, image in images.items()},
            overview=overviews[b],
        )
        for b, (well, site) in enumerate(sites)
    ]


def write_outlines(sites: Sequence[tuple[str, int]], pixels: torch.Tensor, found: Segmentation, run: Run) -> None:
    """A picture of each field: the cells' channel with the outlines of nuclei and cells."""
    folder = run.options.output / f"{run.plate.barcode}_outlines"
    folder.mkdir(parents=True, exist_ok=True)
    channel = list(run.plate.channels).index(run.options.config.segmentation.cells.channel)
    for b, (well, site) in enumerate(sites):
        labels = {name: image[b].cpu().numpy() for name, image in found.labels.items()}
        picture = outline_picture(pixels[b, channel].cpu().numpy(), labels["Nuclei"], labels["Cells"])
        (folder / f"{well}_s{site}.png").write_bytes(imagecodecs.png_encode(picture))


def outline_picture(image: np.ndarray, nuclei: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the image from 0 to its 99.8 % quantile in grey, outlines in colour."""
    top = float(np.quantile(image, 0.998)) or 1.0
    grey = (np.clip(image / top, 0, 1) * 255).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[outline(cells) & (cells > 0)] = CELL
    picture[outline(nuclei) & (nuclei > 0)] = NUCLEUS
    return picture


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    log_json, left_out = False, 0
    try:
        given = vars(parser().parse_args(arguments))
        outlines = given.pop("outlines")
        barcodes, options, dry_run = command.settle(given)
        log_json = options.log_json
        plates = [find_source(b, options.images_root, options.config.plate, options.cache) for b in barcodes]
        for plate in plates:
            wells = chosen_wells(plate, options)
            if dry_run:
                target = Path(options.output) / f"{plate.barcode}.zarr"
                print(f"{plate.barcode}: labels of {sum(map(len, wells.values()))} sites of {len(wells)} wells to {target}")
        if dry_run:
            return DONE
        device = open_device(options.device, options.threads)
    except ConnectionError as error:
        return failed(error, TRY_AGAIN, log_json)
    except (ValueError, OSError, RuntimeError) as error:
        return failed(error, BAD_USE, log_json)
    try:
        for plate in plates:
            done = segment_plate(plate, options, device, outlines)
            print(done, flush=True)
            if log_json:
                write_event("summary", **dataclasses.asdict(done))
            left_out += done.left_out
    except STOPPED as error:
        return failed(*explain(error, options.output), log_json)
    return QUARANTINED if left_out else DONE


if __name__ == "__main__":
    sys.exit(main())
