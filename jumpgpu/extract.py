"""From a plate's images to its store: the whole program, top to bottom.

    python -m jumpgpu.extract --plate BR00117010 --images /data/images
    jumpgpu.extract("BR00117010", images="/data/images", wells=["D14"])

A run that was stopped is run again: wells that are there are left alone. The exit status is 0 when all is done, 2 for bad
use, 3 when sites were left out (`quarantine.csv` names them), 75 when trying again may help: the disk is full, another run
is at work, the device failed, somebody interrupted.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import time
import types
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from . import cluster, quality, workers
from .device import Device, open_device
from .endings import BAD_USE, DONE, QUARANTINED, STOPPED, TRY_AGAIN, explain, failed
from .features import columns
from .fields import FieldBatch, read_fields
from .illumination import correct, open_illumination
from .lanes import held_by, in_lanes, trailing
from .layout import Layout
from .masks import check_masks, read_masks
from .measuring import Labels, Run, Tables, begin
from .names import COMPARTMENTS
from .opened import StoredPlate, open_plate
from .options import Options, options_from, parse
from .plate import Plate, Site
from .progress import Progress, write_event
from .provenance import check_inputs, inputs_of, name_of, settings_of
from .segmentation import check as check_segmentation
from .sink import Sink
from .sources import find_source
from .store import PlateWriter

ESTIMATE_BATCH = 4  # fields, summed together


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


def extract_plates(plates: Sequence[Plate], options: Options) -> Iterator["Outcome"]:
    """Plates one after another in this process, or their wells over worker processes."""
    if options.distributed:
        wells = {plate.barcode: chosen_wells(plate, options) for plate in plates}
        yield from (Outcome(**done) for done in cluster.spread(wells, options))
        return
    device = open_device(options.device, options.threads)
    for plate in plates:
        yield extract_plate(plate, options, device)


def extract_plate(plate: Plate, options: Options, device: Device) -> "Outcome":
    """One plate: the program in one reading."""
    started = time.monotonic()
    wells = chosen_wells(plate, options)
    with Progress(plate.barcode, sum(map(len, wells.values())), options.quiet, options.log_json) as progress:
        run = prepare(plate, wells, options, device, progress)
        with open_store(run) as store:
            fill(store, run)
    return outcome(plate.barcode, options, wells, time.monotonic() - started)


def fill(store: PlateWriter, run: "Run") -> None:
    """Make the wells that the store lacks."""
    name = partial(name_of, plate=run.plate, options=run.options)
    with (
        Sink(store, name, run.progress, run.options.strict) as sink,
        run.device.divided(run.lanes),
        in_lanes(read(run, store.missing_wells()), lambda fields: compute(fields, run), run.lanes) as batches,
    ):
        # On CUDA a batch's table is waited for once the next batch is launched, so that the device is never without work.
        for fields, tables in trailing(batches, run.device.asynchronous):
            sink.put(fields, tables())


def compute(fields: FieldBatch, run: Run) -> tuple[FieldBatch, Tables]:
    """A batch of raw fields to its tables: on the CPU made here, on CUDA when they are asked for."""
    fields, given = take_masks(fields, run)
    pixels = correct(fields.pixels, run.illumination, device=run.device)  # float32 [B, C, H, W], 0..1
    tables = begin(fields.sites, pixels, given, run)
    return fields, tables if run.device.asynchronous else partial(list, tables())


def chosen_wells(plate: Plate, options: Options) -> dict[str, dict[int, Site]]:
    """Well -> site number -> site, of what was chosen; ValueError for what the plate has not."""
    if not options.masks:
        check_segmentation(plate.channels, options.config.segmentation)
    wells: dict[str, dict[int, Site]] = {}
    for site in plate.select(options.wells, options.sites):
        wells.setdefault(site.well, {})[site.site] = site
    if options.masks:
        check_masks(options.masks, plate.barcode, [(w, n) for w in wells for n in wells[w]], options.mask_pattern)
    return wells


def prepare(
    plate: Plate, wells: Mapping[str, Mapping[int, Site]], options: Options, device: Device, progress: Progress
) -> Run:
    """Find the illumination functions, and say what was chosen."""
    names = columns(COMPARTMENTS, plate.channels, options.config.features)
    progress.say(f"{plate.barcode}: channels {plate.channel_line}")
    illumination = open_illumination(
        plate,
        options.illumination,
        device=device,
        settings=options.config.illumination,
        folder=options.output / "illum" / plate.barcode,
        batch=options.fields_a_batch or ESTIMATE_BATCH,
        workers=options.threads,
    )
    labels = f"label images of {options.masks}" if options.masks else "segmentation"
    progress.say(f"{plate.barcode}: illumination {illumination.source}; {labels}; {device.description}")
    for note in (*plate.notes, *illumination.notes):
        progress.say(f"{plate.barcode}: {note}")
    settings = settings_of(plate, device, illumination.functions, options)
    functions = device.tensor(illumination.functions)
    batch, lanes = device.plan(sum(map(len, wells.values())), functions.numel(), options.fields_a_batch)
    return Run(plate, wells, options, device, functions, settings, names, progress, batch, lanes)


@contextlib.contextmanager
def open_store(run: Run, last: bool = True) -> Iterator[PlateWriter]:
    """The plate's store; wells that are there already are left alone if they were made from the same files.

    `last`: bring the plate's own metadata and `quarantine.csv` up to date at the end.
    """
    plate = run.plate
    measures = quality.columns(plate.channels) if run.options.config.features.image_quality else ()
    layout = Layout(plate.barcode, run.columns, plate.channels, plate.pixel_um, measures)
    sites = {well: list(members) for well, members in run.wells.items()}
    with PlateWriter(run.options.output, layout, run.settings, sites, run.options.overwrite, last) as store:
        done = {w: members for w, members in run.wells.items() if w not in store.missing_wells()}
        check_inputs(store, {w: {n: inputs_of(plate, s, run.options) for n, s in m.items()} for w, m in done.items()})
        if done:
            run.progress.say(f"{plate.barcode}: {len(done)} of {len(sites)} wells are there already")
            run.progress.advance(sum(map(len, done.values())), before=True)
        yield store


def read(run: Run, wells: Sequence[str]) -> Generator[FieldBatch, None, None]:
    """Batches of these wells' raw fields, decoded ahead on threads that end with the iteration."""
    if not wells:
        return
    batches = read_fields(
        run.plate,
        wells=wells,
        sites=run.options.sites,
        batch=run.batch,
        workers=run.options.threads,
        held=held_by(run.lanes),
        size=(run.illumination.shape[1], run.illumination.shape[2]),
        device=run.device,
    )
    with contextlib.closing(batches):
        yield from batches


def take_masks(fields: FieldBatch, run: Run) -> tuple[FieldBatch, Labels]:
    """The given label images, and the batch without the sites whose images cannot be used; none where none are given."""
    if not run.options.masks:
        return fields, {}
    size = fields.pixels.shape[2], fields.pixels.shape[3]
    masks = read_masks(run.options.masks, run.plate.barcode, fields.sites, size, run.device, run.options.mask_pattern)
    for line in masks.report:
        run.progress.say(line)
    if masks.problems:
        sites = tuple(fields.sites[row] for row in masks.rows)
        fields = dataclasses.replace(
            fields,
            pixels=fields.pixels[list(masks.rows)],
            sites=sites,
            checks=tuple(fields.checks[row] for row in masks.rows),
            quarantined=(*fields.quarantined, *masks.problems),
            flags=tuple(p for p in fields.flags if (p.well, p.site) in sites),
        )
    return fields, masks.labels


@dataclass(frozen=True)
class Outcome:
    """What a plate's run came to, over the wells chosen. `left_out` counts sites, `flagged` images."""

    plate: str
    wells: int
    cells: int
    left_out: int
    flagged: int
    seconds: float

    def __str__(self) -> str:
        line = f"{self.plate}  {self.wells} wells  {self.cells} objects  {self.seconds:.1f} s"
        line += f"  {self.left_out} sites left out" * bool(self.left_out)
        return line + f"  {self.flagged} images flagged" * bool(self.flagged)


def outcome(barcode: str, options: Options, wells: Mapping[str, Any], seconds: float) -> Outcome:
    """The result line's figures, from the records of the wells."""
    plate = open_plate(options.output / f"{barcode}.zarr")
    records = [plate.record(well) for well in wells]
    entries = [(r["well"], q) for r in records for q in r["quarantine"]]
    left_out = {(well, q["site"]) for well, q in entries if not q["used"]}
    cells = sum(r["cells"] for r in records)
    return Outcome(barcode, len(wells), cells, len(left_out), sum(q["used"] for _, q in entries), seconds)


def describe(plate: Plate, options: Options) -> str:
    """What a run would read and write, as a dry run prints it. Nothing is opened but the plate's metadata."""
    wells = chosen_wells(plate, options)
    inputs = [i for members in wells.values() for site in members.values() for i in inputs_of(plate, site, options)]
    names = columns(COMPARTMENTS, plate.channels, options.config.features)
    target = options.output / f"{plate.barcode}.zarr"
    there = set(open_plate(target).wells) & set(wells) if target.exists() else set()
    n_sites = sum(map(len, wells.values()))
    absent = sum(i.bytes < 0 for i in inputs)
    lines = [
        f"{plate.barcode}: {len(wells)} wells, {n_sites} sites, {plate.folder}",
        f"  channels: {plate.channel_line}",
        f"  read: {len(inputs) - absent} files, {sum(max(i.bytes, 0) for i in inputs) / 1e6:.0f} MB"
        + f"; {absent} are missing" * (absent > 0),
        f"  illumination: {options.illumination}; labels: {options.masks or 'segmentation'}",
        f"  write: {target}, {len(names)} features, about {CELLS_A_FIELD * n_sites * len(names) * 4 * 0.8 / 1e6:.0f} MB",
        f"  there already: {len(there)} wells" + (", which would be made again" if there and options.overwrite else ""),
    ]
    return "\n".join(lines)


CELLS_A_FIELD = 90  # for the estimate of a store's size


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    log_json, left_out = False, 0
    try:
        barcodes, options, dry_run = parse(arguments)
        log_json = options.log_json
        plates = [find_source(b, options.images_root, options.config.plate, options.cache) for b in barcodes]
        for plate in plates:
            chosen_wells(plate, options)
        if dry_run:
            print("\n".join(describe(plate, options) for plate in plates))
            return DONE
        if not options.scheduler:
            open_device(options.device, options.threads)
        if options.distributed:
            workers.check(options)
    except ConnectionError as error:
        return failed(error, TRY_AGAIN, log_json)
    except (ValueError, OSError, RuntimeError) as error:
        return failed(error, BAD_USE, log_json)
    try:
        for done in extract_plates(plates, options):
            print(done, flush=True)
            if log_json:
                write_event("summary", **dataclasses.asdict(done))
            left_out += done.left_out
    except STOPPED as error:
        return failed(*explain(error, options.output), log_json)
    if left_out and not log_json:
        print(f"{left_out} sites were left out: see {options.output / 'quarantine.csv'}", file=sys.stderr)
    return QUARANTINED if left_out else DONE


class Command(types.ModuleType):
    """This module, callable: `jumpgpu.extract` is the function to importers and the module to `python -m`."""

    def __call__(self, plate: str, images: str | os.PathLike[str] | None = None, **options: Any) -> StoredPlate:
        return extract(plate, images, **options)


def run_command() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as an interruption does: cleanly, status 75
    sys.exit(main())


if __name__ == "__main__":
    run_command()
else:
    sys.modules[__name__].__class__ = Command
