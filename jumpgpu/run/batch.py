"""A batch of corrected fields to finished tables, begun and ended apart: what is asynchronous goes on between the two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..cli.options import Options
from ..cli.progress import Progress
from ..features import embedding, granularity
from ..features import image_quality as quality
from ..features.families import measure_batch
from ..features.objects import ObjectBatch, begin_batch, begin_segmentation, make_batch
from ..gpu.cpu import StaleLibrary
from ..gpu.device import Device
from ..gpu.failures import DeviceLost, Failure, Lasting, NotFinite, failure_of
from ..images.illumination import correct
from ..images.plate import Plate, Site
from ..segmentation.grow import grow_cells
from ..segmentation.pipeline import Segmentation
from ..settings.names import family_of
from ..store.layout import OVERVIEW, SiteTable
from .network_masks import OURS, segment_by_networks
from .provenance import GROWN, inputs_of

Labels = dict[str, torch.Tensor]  # compartment -> int32 [B, H, W]
Tables = Callable[[], list[SiteTable]]  # waits for the device, and has a table per field
Begun = Callable[[], Tables]  # waits for what the host must know of a batch, and launches the rest of it
Work = Callable[["Raw", "Run"], Begun]  # of a batch in one piece, as `launch`
SURE = {"Number", "Children", "Parent"}  # families whose numbers always exist


@dataclass(frozen=True)
class Run:
    """What every batch of a plate needs.

    wells         well -> its chosen sites
    illumination  float32 [C, H, W] on the device
    settings      what the stored numbers depend on
    columns       feature columns in stored order
    batch, threads  fields per batch, and batches at a time
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
    threads: int
    pipeline: Any = None  # an imported pipeline's tables (pipeline.PipelineTables)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of each well's fields, where they differ
    functions: Mapping[tuple[int, int], torch.Tensor] = field(default_factory=dict)  # illumination of each size, then
    ahead: list[list[Begun]] = field(default_factory=list)  # batches that are begun before it is their turn, one in each
    told: set[str] = field(default_factory=set)  # models whose gaps were told

    def parts(self, wells: Sequence[str]) -> "list[tuple[Run, list[str]]]":
        """The run for wells of each size; itself where they do not differ."""
        if not self.sizes:
            return [(self, list(wells))]
        groups = {size: [well for well in wells if self.sizes[well] == size] for size in self.functions}
        return [(replace(self, illumination=self.functions[size], sizes={}), of) for size, of in groups.items() if of]

    @cached_property
    def sure(self) -> list[int]:
        """Places of the columns whose numbers always exist."""
        return [i for i, n in enumerate(self.columns) if family_of(n) in SURE or n.endswith("_AreaShape_Area")]

    @cached_property
    def embedded(self) -> dict[str, list[int]]:
        """Places of each model's columns."""
        return embedding.places(self.columns)

    def tell_gaps(self, table: np.ndarray, well: str, site: int) -> None:
        """Say once for each model that some cell has no finite value of it."""
        for model, (n, surely) in embedding.gaps(table, self.embedded).items():
            if model in self.told:
                continue
            self.told.add(model)
            why = "its network gives nan or infinity" if surely else "no pixel to centre or mask it by, or the network's nan"
            where = f"{self.plate.barcode} {well} site {site}: model {model!r}"
            text = (
                f"{where} has values that are not finite for {n} of {len(table)} cells ({why}); further ones are not named"
            )
            self.progress.say(text, "warning" if surely else "note")


@dataclass(frozen=True)
class Raw:
    """A batch before anything is computed: raw fields and what there is of each.

    pixels  uint16 [B, C, H, W]
    scales  of each field, what its images' counts are divided by
    given   label images, compartment -> int32 [B, H, W]; none where they are to be found
    """

    sites: Sequence[tuple[str, int]]
    pixels: torch.Tensor
    scales: Sequence[Sequence[float]] = ()
    given: Labels = field(default_factory=dict)

    def part(self, start: int, stop: int) -> "Raw":
        given = {c: image[start:stop] for c, image in self.given.items()}
        return Raw(self.sites[start:stop], self.pixels[start:stop], self.scales[start:stop], given)


def begin(raw: Raw, run: Run, work: "Work | None" = None) -> Begun:
    """Launch a batch up to where the host must know of it, by `launch` or other work; what is returned launches the rest,
    and what that returns ends it.

    Where memory gives out, at any of the three, all of the failed batch is given back, and what was launched of others
    before it was their turn (they begin again then); the batch is done again in halves, at once; later batches are no larger
    than what passed, and where that is one field, none is begun before its turn. Raises RuntimeError (by what is returned,
    too) that names the field that does not pass alone, or the batch of an error that would come again; DeviceLost where the
    device is gone.
    """
    n = len(raw.sites)
    if not n:
        return lambda: list
    maximum = run.device.max_fields(raw.pixels[0].numel())
    if n > maximum:
        first, *others = (raw.part(i, i + maximum) for i in range(0, n, maximum))
        return in_parts(begin(first, run, work), others, run, work)
    ahead: list[Begun] = []
    if maximum > 1:
        begun, wrong = tried(lambda: (work or launch)(raw, run))
        if wrong:
            tables = by_halves(wrong, raw, run, work)
            return lambda: lambda: tables
        ahead.append(begun)
        del begun
        if run.device.asynchronous:
            run.ahead.append(ahead)

    def go_on() -> Tables:
        run.ahead[:] = [other for other in run.ahead if other is not ahead]
        if not ahead and run.device.max_fields(raw.pixels[0].numel()) < n:  # given back for another's sake
            return begin(raw, run, work)()
        end, wrong = tried(lambda: (ahead.pop() if ahead else (work or launch)(raw, run))())
        if wrong:
            tables = by_halves(wrong, raw, run, work)
            return lambda: tables
        kept = [end]
        del end

        def ended() -> list[SiteTable]:
            output, wrong = tried(kept.pop())  # nothing else holds what the batch has made
            return by_halves(wrong, raw, run, work) if wrong else output

        return ended

    return go_on


def in_parts(first: Begun, others: Sequence[Raw], run: Run, work: "Work | None") -> Begun:
    """A batch of which one part is begun, and the others are done when that has ended."""

    def go_on() -> Tables:
        end = first()
        return lambda: [*end(), *(table for part in others for table in begin(part, run, work)()())]

    return go_on


def tried(step: Callable[[], Any]) -> tuple[Any, tuple[Failure, str] | None]:
    """What a step gave, or what went wrong, in words: the error itself would keep all that the step had made alive."""
    try:
        return step(), None
    except (StaleLibrary, NotImplementedError):
        raise
    except NotFinite as error:
        return None, (Failure.MEMORY, str(error))  # the field that it is of is found by halves
    except (MemoryError, RuntimeError) as error:
        return None, (failure_of(error), str(error) or type(error).__name__)


def by_halves(wrong: tuple[Failure, str], raw: Raw, run: Run, work: "Work | None") -> list[SiteTable]:
    """The tables of a batch that failed, where less at a time may pass."""
    (failure, text), n = wrong, len(raw.sites)
    first, last = (f"{well} site {site}" for well, site in (raw.sites[0], raw.sites[-1]))
    where = f"{run.plate.barcode} {first}"
    if failure is Failure.LOST:
        raise DeviceLost(f"{where}: {run.device.description} failed, and this process cannot use it any more: {text}")
    alone = not any(run.ahead)
    lasts = failure is Failure.OTHER and not run.device.asynchronous  # of a GPU nobody knows
    error = Lasting if lasts else RuntimeError
    if n == 1 and (alone or failure is Failure.OTHER):
        raise error(f"{where}: {text}")
    if failure is Failure.OTHER:
        raise error(f"{where} to {last}: {text}")
    for other in run.ahead:
        other.clear()
    half = -(-n // 2)
    run.device.give_back(half * raw.pixels[0].numel())
    what, how = (f" and {n - 1} more fields", f"{half} at a time") if n > 1 else ("", "with nothing beside it")
    run.progress.say(f"{where}{what}: {text}; trying again, {how}", "retry")
    return begin(raw, run, work)()()


def launch(raw: Raw, run: Run) -> Begun:
    """A batch in one piece. What is returned waits for the device where objects are counted, and launches what measures
    them; what that returns waits for the rest.

    The next batch is launched between the two, so that the device has work while the host learns of this one and launches
    its measures. Networks, and cells grown from given nuclei, ask the device on their way: all of theirs comes after.
    """
    options, given, config = run.options, raw.given, run.options.config
    if (given and run.settings["labels"] == GROWN) or (not given and config.segmentation.method != OURS):
        return lambda: measures_of(labelled(raw, run), raw, run)
    pixels = correct(raw.pixels, run.illumination, device=run.device, scales=raw.scales)  # float32 [B, C, H, W], 0..1
    channels = run.plate.channels
    if given:
        counted = begin_batch(channels, pixels, given, {}, run.device)
    else:
        counted = begin_segmentation(pixels, channels, options.config.segmentation, run.device)
    return lambda: measures_of(counted(), raw, run)


def labelled(raw: Raw, run: Run) -> ObjectBatch:
    """The objects of a batch whose labels are found by asking the device on the way."""
    config, channels, device = run.options.config.segmentation, run.plate.channels, run.device
    pixels = correct(raw.pixels, run.illumination, device=device, scales=raw.scales)
    masks: Segmentation
    if raw.given:
        masks = grow_cells(pixels, channels, raw.given["Nuclei"], config, device)
    else:
        names = [f"{run.plate.barcode} {well} site {site}" for well, site in raw.sites]
        masks = segment_by_networks(pixels, channels, config, device, names, run.progress.say)
    return make_batch(channels, pixels, masks.labels, masks.unfiltered, device)


def measures_of(batch: ObjectBatch, raw: Raw, run: Run) -> Tables:
    """Launch what measures a batch's objects; what is returned waits for it, and has the tables."""
    options, fetch, sites = run.options, run.device.fetch, raw.sites
    values = fetch(measure_batch(batch, options.config.features, run.device))
    images = {name: fetch(image) for name, image in batch.labels.items()} if options.save_labels else {}
    overviews = fetch(shrink(batch.pixels)) if options.save_overview or options.save_labels else None
    measures = None
    if options.config.features.image_quality:
        measures = fetch(quality.measure_images(batch.pixels, batch.channels, run.device))
    n_cells = batch.objects.n_cells

    def tables() -> list[SiteTable]:
        table = values()
        check_finite(table, run.columns, run.sure)
        start = np.cumsum([0, *n_cells]).tolist()
        for b, place in enumerate(sites if run.embedded else ()):
            run.tell_gaps(table[start[b] : start[b + 1]], *place)
        odd: list[dict[str, int]] = [{} for _ in sites]
        if granularity.doubtful(table, run.columns):
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
                image=None if measured is None else measured[b],
                flags={channel: f"{n} {granularity.BEYOND}" for channel, n in odd[b].items()},
                position_um=position_of(run.wells[well][site]),
            )
            for b, (well, site) in enumerate(sites)
        ]

    return tables


def position_of(site: Site) -> tuple[float, float] | None:
    """The stage position of a field's centre; None where its plate has none."""
    return None if site.x_um is None or site.y_um is None else (float(site.x_um), float(site.y_um))


def check_finite(values: np.ndarray, names: Sequence[str], sure: Sequence[int]) -> None:
    """NotFinite for a number that is NaN or infinite and cannot be: a device's or memory's fault."""
    bad = ~np.isfinite(values[:, sure]).all(axis=0)
    if bad.any():
        raise NotFinite(f"{names[sure[int(bad.argmax())]]} is not finite, though it should always be")


def shrink(pixels: torch.Tensor) -> torch.Tensor:
    """Corrected fields [B, C, H, W] to int32 [B, C, H // 8, W // 8]: exact means of 8 x 8 squares of 16-bit counts."""
    height, width = (n // OVERVIEW * OVERVIEW for n in pixels.shape[2:])
    counts = (pixels[..., :height, :width] * 65535).round().to(torch.int32)
    squares = counts.unflatten(3, (-1, OVERVIEW)).unflatten(2, (-1, OVERVIEW))
    return (squares.sum(dim=(3, 5), dtype=torch.int32) + OVERVIEW**2 // 2) // OVERVIEW**2
