"""One plate's label images into its store, and pictures of their outlines: no features are measured."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from ..cli.options import Options
from ..cli.progress import Progress
from ..gpu.device import Device
from ..images.illumination import correct
from ..images.plate import Plate
from ..images.reader import FieldBatch
from ..segmentation.pipeline import Segmentation, segment
from ..settings.names import well_position
from ..settings.networks import EmbeddingSettings
from ..storage.atomic import write_whole
from ..store.layout import SiteTable
from ..store.outline_pictures import PictureStyle, draw
from ..store.reader import open_plate
from .batch import Begun, Raw, Run, Tables, begin, shrink
from .network_masks import OURS, segment_by_networks
from .plate import Outcome, chosen_wells, open_store, outcome, prepare, read, say_blurred, say_empty
from .provenance import inputs_of, judge
from .worker_threads import in_threads
from .writer import BackgroundWriter


def labels_alone(options: Options) -> Options:
    """Options with no feature to measure and labels to save."""
    features = dataclasses.replace(options.config.features, families=(), embedding=EmbeddingSettings())
    return dataclasses.replace(options, config=dataclasses.replace(options.config, features=features), save_labels=True)


def refuse_features(plate: Plate, options: Options) -> None:
    """ValueError where the output holds the plate's features, which label images alone would replace."""
    target = options.output / f"{plate.barcode}.zarr"
    if target.exists() and (n := len(open_plate(target).columns)):
        raise ValueError(
            f"{target} holds {n} features of the plate, and segment writes label images alone; give another --output, or "
            "add labels to the features with jumpgpu extract --save-labels"
        )


def judge_labels(plate: Plate, options: Options, device: Device) -> None:
    """ValueError or OSError where `segment_plate` would be refused."""
    options = labels_alone(options)
    refuse_features(plate, options)
    judge(plate, device, options, chosen_wells(plate, options))


def segment_plate(plate: Plate, options: Options, device: Device, outlines: PictureStyle | None) -> Outcome:
    """One plate's label images into its store."""
    if options.masks:
        raise ValueError("--masks gives label images; there is nothing to segment")
    if options.distributed:
        raise ValueError("segment works in one process; extract has --workers and --scheduler")
    if outlines:
        outlines.check(plate.barcode, plate.channels)
    started = time.monotonic()
    options = labels_alone(options)
    wells = chosen_wells(plate, options)
    refuse_features(plate, options)
    with Progress(plate.barcode, sum(map(len, wells.values())), options.quiet, options.log_json) as progress:
        run = prepare(plate, wells, options, device, progress)
        with open_store(run) as store, BackgroundWriter(store, plate.images.relative, progress, options.strict) as writer:
            there = set(wells) - set(store.missing_wells())

            def launch(raw: Raw, run: Run) -> Begun:
                return lambda: labels_of(raw, run)

            def labels_of(raw: Raw, run: Run) -> Tables:
                pixels = correct(raw.pixels, run.illumination, device=device, scales=raw.scales)
                if options.config.segmentation.method == OURS:
                    result = segment(pixels, plate.channels, options.config.segmentation, device)
                else:
                    names = [f"{plate.barcode} {well} site {site}" for well, site in raw.sites]
                    settings = options.config.segmentation
                    result = segment_by_networks(pixels, plate.channels, settings, device, names, progress.say)
                if outlines:
                    images = {name: image.cpu().numpy() for name, image in result.labels.items()}
                    labels = [{name: image[b] for name, image in images.items()} for b in range(len(pixels))]
                    write_outlines(raw.sites, pixels, labels, run, outlines)
                return partial(list, label_tables(raw.sites, pixels, result, run))

            def compute(fields: FieldBatch, run: Run) -> tuple[FieldBatch, list[SiteTable]]:
                return fields, begin(Raw(fields.sites, fields.pixels, fields.scales), run, launch)()()

            for part, chosen in run.parts(store.missing_wells()):
                work = partial(compute, run=part)
                with device.divided(run.threads), in_threads(read(part, chosen), work, run.threads) as batches:
                    for fields, tables in batches:
                        writer.put(fields, tables)
        if outlines:
            draw_stored(run, sorted(there, key=well_position), outlines)
        done = outcome(plate.barcode, options, wells, time.monotonic() - started)
        say_empty(done, plate, wells, options, progress)
        say_blurred(plate.barcode, options, progress)
    return done


def label_tables(sites: Sequence[tuple[str, int]], pixels: torch.Tensor, result: Segmentation, run: Run) -> list[SiteTable]:
    """A batch's label images, with a table of no features."""
    if not sites:
        return []
    images = {name: image.cpu().numpy() for name, image in result.labels.items()}
    overviews, counts = shrink(pixels).cpu().numpy().astype(np.uint16), result.counts.tolist()
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


def draw_stored(run: Run, wells: Sequence[str], style: PictureStyle) -> None:
    """The pictures of wells that were there already, from their stored label images and raw fields."""
    stored = open_plate(run.options.output / f"{run.plate.barcode}.zarr")
    sites = {(well, site["site"]) for well in wells for site in stored.record(well)["sites"]}
    batches = ((part, fields) for part, chosen in run.parts(list(wells)) for fields in read(part, chosen))
    for of, fields in batches:
        rows = [row for row, place in enumerate(fields.sites) if place in sites]
        pixels = run.device.take(fields.pixels, rows)
        scales, places = [fields.scales[row] for row in rows], [fields.sites[row] for row in rows]
        corrected = correct(pixels, of.illumination, device=run.device, scales=scales)
        write_outlines(places, corrected, [stored.labels(*place) for place in places], run, style)


def write_outlines(
    sites: Sequence[tuple[str, int]],
    pixels: torch.Tensor,
    labels: Sequence[Mapping[str, np.ndarray]],
    run: Run,
    style: PictureStyle,
) -> None:
    """A picture of each field, with the outlines of nuclei and cells."""
    folder, usual = run.options.output / f"{run.plate.barcode}_outlines", run.options.config.segmentation.cells.channel
    for b, (well, site) in enumerate(sites):
        picture = draw(pixels[b].cpu().numpy(), run.plate.channels, labels[b], style, run.plate.pixel_um, usual)
        write_whole(folder / f"{well}_s{site}.{style.format}", picture)
