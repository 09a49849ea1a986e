"""Wells measured while a microscope writes: each once all its files are there and have not changed for a while.

Nothing is kept beside the store: a watch that was stopped is started again, and goes on with the wells that the store lacks.
"""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from ..cli.options import Options
from ..cli.progress import Progress
from ..images.locate import find_source
from ..images.plate import Plate
from ..images.tiff import MALFORMED, check_written, one_line
from ..storage.buckets import RemotePath
from ..store.reader import open_plate
from .plate import Outcome, chosen_wells
from .plates import extract_plates

LONGEST_WAIT = 15.0  # seconds between two looks at the files
PATIENCE = 10  # times the seconds to settle, for which a file that ends too early is waited for
FIXED = ("none", "flatfield")  # illumination that does not depend on images still to come; a folder's is fixed too


def check_watch(options: Options, settle: float) -> None:
    """ValueError for what needs the whole plate before its first well."""
    if not settle > 0:
        raise ValueError(f"--watch: seconds must be above 0, got {settle:g}")
    if options.illumination in ("auto", "estimate"):
        raise ValueError(
            f"--watch: --illumination {options.illumination} may need all images of the plate, which is being written; "
            f"give {', '.join(FIXED)} or a folder of functions"
        )
    if any(model.normalize == "plate" for model in options.config.features.embedding.models):
        raise ValueError('--watch: a model with normalize = "plate" needs all images of the plate')
    if options.overwrite:
        raise ValueError("--watch measures what is not there yet; --overwrite measures wells again")


def watch_plate(
    barcode: str,
    options: Options,
    settle: float,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Measure a plate's wells as they are complete; the outcome of each round.

    Parameters
    ----------
    settle : seconds for which a well's files must not have changed
    wait, clock : what passes the time, and tells it

    It ends once every well that an index, a table or `options.wells` lists is there, or when `<output>/<plate>.stop`
    appears.
    A plate known by its files' names alone has no end of its own.
    """
    watched = Watched(settle, clock)
    progress = Progress(barcode, 0, options.quiet, options.log_json)
    said = ""
    while True:
        line = ""
        try:
            plate = find_source(barcode, options.images_root, options.config.plate, options.cache)
        except (FileNotFoundError, ValueError) as error:  # its index may be half written
            plate, line = None, f"{barcode}: waiting: {error}"
        if plate:
            stored = options.output / f"{plate.barcode}.zarr"
            there = set(open_plate(stored).wells) if exists(stored) else set()
            ready, waiting = watched.ready(plate, options, there)
            todo = [well for well in ready if well not in there]
            if todo:
                chosen = dataclasses.replace(options, wells=tuple(todo))
                chosen_wells(plate, chosen)
                yield from extract_plates([plate], chosen)
                there |= set(todo)
            if not todo and watched.whole(plate, options) and set(watched.expected(plate, options)) <= there:
                return
            named = next(iter(waiting), "")
            line = f"{plate.barcode}: {len(there)} wells measured, {len(waiting)} not complete"
            line += f" ({named}: {waiting[named]})" if named else ""
        if exists(options.output / f"{barcode}.stop"):
            progress.say(f"{barcode}: {barcode}.stop exists: the watch ends. {line.partition(': ')[2]}", "warning")
            return
        if line != said:
            progress.say(line)
            said = line
        wait(min(LONGEST_WAIT, settle / 4))


def exists(path: "Path | RemotePath") -> bool:
    if isinstance(path, Path):
        return path.exists()
    listing = path.parent.listing()
    return path.name in listing.files or path.name in listing.folders


class Watched:
    """When each well's files, and the plate's list of them, were last seen to change."""

    def __init__(self, settle: float, clock: Callable[[], float] = time.monotonic):
        self.settle, self.clock = settle, clock
        self.changed: dict[str, tuple[int, float]] = {}  # well, or '' for the list -> what was seen, and since when

    def steady(self, key: str, seen: int) -> bool:
        """Whether what is seen of a well has been so for long enough."""
        now = self.clock()
        if key not in self.changed or self.changed[key][0] != seen:
            self.changed[key] = seen, now
        return now - self.changed[key][1] >= self.settle

    def since(self, key: str) -> float:
        """Seconds since what is seen of a well was last seen to change."""
        return self.clock() - self.changed[key][1]

    def ready(self, plate: Plate, options: Options, there: Collection[str] = ()) -> tuple[list[str], dict[str, str]]:
        """Wells that are complete and steady, and what the others wait for; `there`: wells that need no look any more."""
        by_well: dict[str, list[int]] = {}
        files: dict[str, list[str | None]] = {}
        for site in plate.sites:
            by_well.setdefault(site.well, []).append(site.site)
            of_site = [file for c in range(len(plate.channels)) for file in site.images_of(c)]
            files.setdefault(site.well, []).extend(of_site)
        every_site = {n for sites in by_well.values() for n in sites}
        ready, waiting = [], {}
        for well in self.expected(plate, options):
            if well not in files:
                waiting[well] = "no files yet"
                continue
            seen = [plate.images.status(file or "") if file else (-1, "") for file in files[well]]
            steady = self.steady(well, hash((tuple(files[well]), tuple(seen))))
            absent = sum(size <= 0 for size, _ in seen)
            few = 0 if listed(plate) else len(every_site - set(by_well[well]))
            if absent or few:
                waiting[well] = f"{absent} files missing" if absent else f"{few} sites fewer than other wells"
            elif not steady:
                waiting[well] = f"files changed less than {self.settle:g} s ago"
            elif well not in there and self.since(well) < PATIENCE * self.settle and (why := unfinished(plate, files[well])):
                waiting[well] = why
            else:
                ready.append(well)
        return ready, waiting

    def expected(self, plate: Plate, options: Options) -> list[str]:
        """Wells to be measured: those chosen, else those that the plate has."""
        return list(options.wells) if options.wells else list(plate.wells)

    def whole(self, plate: Plate, options: Options) -> bool:
        """Whether the list of wells is the plate's: chosen, or of an index or table that has not changed lately."""
        steady = self.steady("", hash(tuple((s.well, s.site, s.files) for s in plate.sites)))
        return bool(options.wells) or (listed(plate) and steady)


def unfinished(plate: Plate, files: Iterable[str | None]) -> str:
    """Why a well's files are not whole yet, '' where they are: room that was made for a file is not the file."""
    for file in files:
        try:
            check_written(file or "", plate.images)
        except ConnectionError:
            raise
        except MALFORMED as error:
            return f"{plate.images.relative(file or '')}: {one_line(error)}"
    return ""


def listed(plate: Plate) -> bool:
    """Whether something lists the plate's images, so that absent ones are known."""
    return not ("plate.numbers" in plate.channel_source or plate.channel_source.endswith("file names"))
