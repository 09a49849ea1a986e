"""One plate, from its images to its store: the whole program, top to bottom.

A run that was stopped is run again: wells that are there are left alone.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..cli.options import Options
from ..cli.progress import Progress
from ..features import image_quality as quality
from ..features.families import columns
from ..gpu.device import Device
from ..gpu.machine import processes_for
from ..images.masks import check_masks, read_masks
from ..images.plate import Plate, Site
from ..images.reader import FieldBatch, at_size, read_fields, well_sizes
from ..segmentation.background import check_width
from ..segmentation.pipeline import check as check_segmentation
from ..segmentation.threshold import check_window
from ..settings.names import COMPARTMENTS, counted
from ..storage.faults import may_pass
from ..store.layout import Layout
from ..store.reader import open_plate
from ..store.writer import PlateWriter
from .batch import Begun, Labels, Raw, Run, begin
from .functions import open_functions
from .network_masks import OURS, check_network_masks
from .networks import check_networks, with_networks
from .pipeline import check_pipeline, launch_steps, tables_of
from .provenance import GROWN, NUCLEI, as_stored, check_inputs, inputs_of, judge, labels_of, made_with, name_of, settings_of
from .worker_threads import held_by, in_threads, trailing
from .writer import BackgroundWriter

if TYPE_CHECKING:
    import pandas

ESTIMATE_BATCH = 4  # fields, summed together
REFUSED = "would be refused"
CELLS_PER_FIELD = 90  # for the estimate of a store's size


def extract_plate(plate: Plate, options: Options, device: Device) -> "Outcome":
    """One plate: the program in one reading."""
    started = time.monotonic()
    wells = chosen_wells(plate, options)
    with Progress(plate.barcode, sum(map(len, wells.values())), options.quiet, options.log_json) as progress:
        run = prepare(plate, wells, options, device, progress)
        with open_store(run) as store:
            fill(store, run)
        listed = open_plate(options.output / f"{plate.barcode}.zarr").quarantine
        done = outcome(plate.barcode, options, wells, time.monotonic() - started, listed)
        say_empty(done, plate, wells, options, progress)
        say_blurred(plate.barcode, options, progress, listed)
    return done


def fill(store: PlateWriter, run: "Run") -> None:
    """Make the wells that the store lacks."""
    for part, wells in run.parts(store.missing_wells()):
        fill_wells(store, part, wells)


def fill_wells(store: PlateWriter, run: "Run", wells: Sequence[str]) -> None:
    """Make wells, whose fields are of one size."""
    name = partial(name_of, plate=run.plate, options=run.options)
    with (
        BackgroundWriter(store, name, run.progress, run.options.strict) as writer,
        run.device.divided(run.threads),
        in_threads(read(run, wells), lambda fields: compute(fields, run), run.threads) as batches,
    ):
        # On CUDA the count of a batch's objects is waited for once the next batch's segmentation is launched, and its table
        # once the next batch's measures are, so that the device is never without work.
        behind = run.device.asynchronous
        launched = ((fields, go_on()) for fields, go_on in trailing(batches, behind))
        for fields, tables in trailing(launched, behind):
            writer.put(fields, tables())


def compute(fields: FieldBatch, run: Run) -> tuple[FieldBatch, Begun]:
    """A batch of raw fields to its tables: on the CPU made here, on CUDA begun."""
    fields, given = take_masks(fields, run)
    work = launch_steps if run.options.config.steps else None
    begun = begin(Raw(fields.sites, fields.pixels, fields.scales, given), run, work)
    if run.device.asynchronous:
        return fields, begun
    tables = begun()()
    return fields, lambda: lambda: tables


def chosen_wells(plate: Plate, options: Options) -> dict[str, dict[int, Site]]:
    """Well -> site number -> site, of what was chosen; ValueError for what the plate has not."""
    if options.config.steps:
        if options.masks:
            raise ValueError("--masks gives label images; an imported pipeline ([[steps]]) finds its own objects")
        check_pipeline([*options.config.functions, *options.config.steps], plate.channels)
    elif not options.masks or options.grow_cells:
        check_segmentation(plate.channels, options.config.segmentation)
        check_network_masks(options.config.segmentation)
    check_networks(plate, options)
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
    steps = options.config.steps
    kind = labels_of(plate, options)
    compartments = COMPARTMENTS[-1:] if kind == NUCLEI else COMPARTMENTS
    names = [] if steps else columns(compartments, plate.channels, options.config.features)
    progress.say(f"{plate.barcode}: channels {plate.channel_line}")
    options, line = as_stored(plate, options, wells)
    if line:
        progress.say(line)
    device.compile(lambda text: progress.say(f"{plate.barcode}: {text}"))
    judge(plate, device, options, wells)
    n_fields = sum(map(len, wells.values()))
    wanted = options.fields_a_batch and max(1, min(options.fields_a_batch, n_fields))
    sizes = well_sizes(plate)
    usual = at_size(plate, sizes, collections.Counter(sizes.values()).most_common(1)[0][0]) if sizes else plate
    several = [usual, *(at_size(plate, sizes, size) for size in sorted(set(sizes.values()) - {usual.size}))]
    result = [
        open_functions(
            part,
            options.config,
            options.illumination,
            device=device,
            folder=options.output / "illum" / (plate.barcode if part is usual else f"{plate.barcode}_{size_name(part)}"),
            batch=wanted or ESTIMATE_BATCH,
            workers=options.threads,
        )
        for part in several
    ]
    illumination = result[0]
    method = options.config.segmentation.method
    labels = f"label images of {options.masks}" if options.masks else "segmentation" + f" by {method}" * (method != OURS)
    labels += ", cells grown from them" * (kind == GROWN)
    labels += ", nuclei alone (--grow-cells finds cells around them)" * (kind == NUCLEI)
    progress.say(f"{plate.barcode}: illumination {illumination.source}; {labels}; {device.description}")
    for note in (*plate.notes, *illumination.notes):
        progress.say(f"{plate.barcode}: {note}")
    if sizes:
        counted = ", ".join(f"{len(part.wells)} wells of {size_name(part)} pixels" for part in several)
        text = f"fields differ in size: {counted}; each is measured at its own, and features in pixels do not compare"
        progress.say(f"{plate.barcode}: {text}", "warning")
    for warning in (*plate.warnings, *(w for one in result for w in one.warnings)):
        progress.say(f"{plate.barcode}: {warning}", "warning")
    settings = settings_of(plate, device, [one.functions for one in result], options)
    functions = device.tensor(illumination.functions)
    options, statistics = with_networks(usual, options, functions, device)
    settings |= {"plate_statistics": {c: list(v) for c, v in statistics.items()}} if statistics else {}
    if not steps and (not options.masks or options.grow_cells):
        segmentation = options.config.segmentation
        height, width = (min(one.functions.shape[side] for one in result) for side in (1, 2))
        for step in (segmentation.nuclei, segmentation.cells):
            check_window(height, width, step.threshold)
        if segmentation.nuclei.background:
            check_width(width, segmentation.nuclei.background)
    batch, threads = device.plan(n_fields, max(one.functions.numel() for one in result), wanted)
    if device.torch.type == "cpu" and (processes := processes_for(threads)):
        progress.say(f"{plate.barcode}: {threads} threads wait for each other now and then; --workers {processes} is faster")
    tables = tables_of(steps, plate.channels, (functions.shape[1], functions.shape[2]), device) if steps else None
    names = tables.of_cells if tables else names
    by_size = {part.size: device.tensor(one.functions) for part, one in zip(several, result, strict=True) if part.size}
    run = Run(plate, wells, options, device, functions, settings, names, progress, batch, threads, tables)
    return dataclasses.replace(run, sizes=sizes, functions=by_size) if sizes else run


def size_name(plate: Plate) -> str:
    """`2160x2160`."""
    return "x".join(map(str, plate.size or ()))


@contextlib.contextmanager
def open_store(run: Run, last: bool = True) -> Iterator[PlateWriter]:
    """The plate's store; wells that are there already are left alone if they were made from the same files.

    `last`: bring the plate's own metadata and `quarantine.csv` up to date at the end.
    """
    plate = run.plate
    measures = quality.columns(plate.channels) if run.options.config.features.image_quality else ()
    others = {}
    if run.pipeline:
        measures, others = run.pipeline.image, run.pipeline.of_others
    layout = Layout(plate.barcode, run.columns, plate.channels, plate.pixel_um, measures, made_with(run.options), others)
    sites = {well: list(members) for well, members in run.wells.items()}
    with PlateWriter(
        run.options.output, layout, run.settings, sites, run.options.overwrite, last, run.options.retry_quarantined
    ) as store:
        done = {w: members for w, members in run.wells.items() if w not in store.missing_wells()}
        touched = check_inputs(
            store, {w: {n: inputs_of(plate, s, run.options) for n, s in m.items()} for w, m in done.items()}
        )
        if touched:
            run.progress.say(
                f"{plate.barcode}: {touched} image files were changed or copied since their wells were measured, "
                "but have the same size; --overwrite measures them again",
                "warning",
            )
        if store.completed:
            run.progress.say(
                f"{plate.barcode}: {counted(store.completed, 'well')} measured again, with the same settings, to have "
                "label images or overviews"
            )
        if done:
            run.progress.say(f"{plate.barcode}: {len(done)} of {len(sites)} wells are measured already")
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
        held=held_by(run.threads),
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
    alone = run.settings["labels"] in (NUCLEI, GROWN)
    masks = read_masks(run.options.masks, run.plate.barcode, fields.sites, size, run.device, run.options.mask_pattern, alone)
    for line in masks.report:
        run.progress.say(line)
    for line in masks.warnings:
        run.progress.say(line, "warning")
    if masks.problems:
        sites = tuple(fields.sites[row] for row in masks.rows)
        fields = dataclasses.replace(
            fields,
            pixels=run.device.take(fields.pixels, masks.rows),
            sites=sites,
            checks=tuple(fields.checks[row] for row in masks.rows),
            scales=tuple(fields.scales[row] for row in masks.rows),
            files=tuple(fields.files[row] for row in masks.rows),
            quarantined=(*fields.quarantined, *masks.problems),
            flags=tuple(p for p in fields.flags if (p.well, p.site) in sites),
        )
    files = tuple(images | labels for images, labels in zip(fields.files, masks.files, strict=True))
    return dataclasses.replace(fields, files=files), masks.labels


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
        parts = [self.plate, counted(self.wells, "well"), counted(self.cells, "cell"), f"{self.seconds:.1f} s"]
        parts += [f"{counted(self.left_out, 'site')} left out"] * bool(self.left_out)
        return "  ".join([*parts, *[f"{counted(self.flagged, 'image')} flagged"] * bool(self.flagged)])


def outcome(
    barcode: str, options: Options, wells: Mapping[str, Any], seconds: float, listed: "pandas.DataFrame | None" = None
) -> Outcome:
    """The result line's figures, from the wells' records; `listed` is the stored plate's quarantine, if it is at hand."""
    plate = open_plate(options.output / f"{barcode}.zarr")
    records = [plate.record(well) for well in wells]
    listed = plate.quarantine if listed is None else listed
    entries = [(q["well"], q) for q in listed.to_dict("records") if q["well"] in wells]
    left_out = {(well, q["site"]) for well, q in entries if not q["used"]}
    cells = sum(r["cells"] for r in records)
    return Outcome(barcode, len(wells), cells, len(left_out), sum(bool(q["used"]) for _, q in entries), seconds)


def say_blurred(barcode: str, options: Options, progress: Progress, listed: "pandas.DataFrame | None" = None) -> None:
    """Name the fields that are blurred beside the plate's others, a line; `listed` as of `outcome`."""
    flagged = open_plate(options.output / f"{barcode}.zarr").quarantine if listed is None else listed
    flagged = flagged[flagged["used"].astype(bool) & flagged["reason"].str.startswith("blurred")]
    fields = [
        f"{well} site {site} ({', '.join(members['channel'])})"
        for (well, site), members in flagged.groupby(["well", "site"], sort=False)
    ]
    if fields:
        shown = ", ".join(fields[:5]) + (", ..." if len(fields) > 5 else "")
        progress.say(
            f"{barcode}: {len(fields)} field{'s look' if len(fields) > 1 else ' looks'} blurred and "
            f"{'were' if len(fields) > 1 else 'was'} measured all the same: {shown}; quarantine.csv has the figures",
            "warning",
        )


def say_empty(
    done: Outcome, plate: Plate, wells: Mapping[str, Mapping[int, Site]], options: Options, progress: Progress
) -> None:
    """Say so where a plate was measured and has no object, with what is known of the images."""
    fields = [site for members in wells.values() for site in members.values()]
    if done.cells or done.left_out == len(fields):
        return
    where = f"{plate.barcode}: no object in {len(fields) - done.left_out} fields of {done.wells} wells"
    if options.masks:
        progress.say(f"{where}: the label images of {options.masks} have none", "warning")
        return
    channel = options.config.segmentation.nuclei.channel
    seen = read_fields(plate, wells=[fields[0].well], sites=[fields[0].site], channels=[channel], batch=1, workers=0)
    with contextlib.closing(seen):
        n = len(fields[0].images_of(plate.channels.index(channel))) if plate.projection == "mean" else 1
        images = [int(batch.pixels.to(torch.int32).max()) // n for batch in seen if len(batch.pixels)]
    first = f"{fields[0].well} site {fields[0].site}"
    brightest = f"; the brightest {channel} pixel of {first} has {images[0]} counts" if images else ""
    progress.say(
        f"{where}{brightest}: is {channel} the channel of nuclei ({plate.channel_line}), and is full scale right ([plate] "
        "scale; 65535 by default)?",
        "warning",
    )


def describe(plate: Plate, options: Options, device: Device | None = None) -> str:
    """What a run would read and write, as a dry run prints it, and why it would be refused.

    Nothing is opened but the plate's and the store's metadata. Without a device, settings are not compared.
    """
    wells = chosen_wells(plate, options)
    inputs = [i for members in wells.values() for site in members.values() for i in inputs_of(plate, site, options)]
    steps = options.config.steps
    names = columns(COMPARTMENTS, plate.channels, options.config.features)
    target = options.output / f"{plate.barcode}.zarr"
    there = set(open_plate(target).wells) & set(wells) if target.exists() else set()
    n_sites = sum(map(len, wells.values()))
    absent = sum(i.bytes < 0 for i in inputs)
    megabytes = CELLS_PER_FIELD * n_sites * len(names) * 4 * 0.8 / 1e6
    what = "an imported pipeline's columns" if steps else f"{len(names)} features, about {megabytes:.0f} MB"
    options, note = as_stored(plate, options, wells)
    lines = [
        f"{plate.barcode}: {counted(len(wells), 'well')}, {counted(n_sites, 'site')}, {plate.folder}",
        f"  channels: {plate.channel_line}",
        *(f"  {line}" for line in (*plate.notes, *plate.warnings)),
        f"  read: {len(inputs) - absent} files, {sum(max(i.bytes, 0) for i in inputs) / 1e6:.0f} MB"
        + f"; {absent} {'is' if absent == 1 else 'are'} missing" * (absent > 0),
        f"  illumination: {options.illumination}; labels: {options.masks or 'segmentation'}",
        f"  write: {target}, {what}",
        f"  measured already: {counted(len(there), 'well')}"
        + ", which would be measured again" * bool(there and options.overwrite),
        *[f"  {note.partition(': ')[2]}"] * bool(note),
    ]
    if device:
        try:
            judge(plate, device, options, wells)
        except (ValueError, OSError) as error:
            if may_pass(error):
                raise
            lines.append(f"  {REFUSED}: {error}".replace("\n", "\n  "))
    return "\n".join(lines)
