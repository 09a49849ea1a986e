"""What a worker process does for `dask_scheduler.py`: make a plate ready, make some of its wells, finish it.

Each takes a token of the whole run, a barcode and options, and gives a small record of JSON values; pixels and tables go to
the store and never through Dask. Each may be done again by any worker at any time: a well that is there is left alone.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..cli.options import Options
from ..cli.progress import Progress
from ..gpu.cpu import StaleLibrary
from ..gpu.device import Device
from ..gpu.open import open_device
from ..images.locate import find_source
from ..store.layout import Quarantined
from .batch import Run
from .plate import chosen_wells, fill, open_store, outcome, prepare


class Notes(Progress):
    """Keeps what is said, for the process that shows it."""

    def __init__(self) -> None:
        super().__init__("", 0, quiet=True)
        self.lines: list[tuple[str, str, dict[str, Any]]] = []  # text, event, its values

    def say(self, text: str, event: str = "note", **values: Any) -> None:
        self.lines.append((text, event, values))

    def event(self, name: str, **values: Any) -> None:
        if name == "quarantine":  # the others are told by the process that shows these
            self.lines.append(("", name, values))


_device: dict[str, Device] = {}
_runs: dict[tuple[str, ...], Run] = {}  # of the last plates, so that an index is read once a process and run
KEPT = 3


def make_ready(token: str, barcode: str, options: Options) -> dict[str, Any]:
    """Estimate the illumination functions into the output folder, where the wells' tasks find them, and open the store.

    Gives `missing` (well -> number of sites), `there` (sites of wells that are there already) and `lines` to be shown.
    Raises what `extract` does.
    """
    run = prepare_run(token, barcode, options)
    with open_store(run) as store:
        missing = store.missing_wells()
    there = sum(len(members) for well, members in run.wells.items() if well not in missing)
    sites = {well: len(run.wells[well]) for well in missing}
    return {"missing": sites, "there": there, "lines": lines_of(run)}


def make_wells(token: str, barcode: str, options: Options, wells: Sequence[str]) -> dict[str, Any]:
    """Make some wells of a plate that is ready.

    Gives `done` (wells that are whole now), `failed` (what was raised on the way, or None), `process` and `lines`. Raises
    OSError where the disk fails, and ValueError where the plate is another's or `strict` meets a bad image: these end the
    whole run.
    """
    whole = prepare_run(token, barcode, options)
    run = dataclasses.replace(whole, wells={well: whole.wells[well] for well in wells}, progress=Notes())
    failed = None
    with open_store(run, last=False) as store:
        try:
            fill(store, run)
        except (OSError, StaleLibrary):
            raise
        except Exception as error:  # whatever a well's content can raise costs this well
            if options.strict and isinstance(error, ValueError):
                raise
            failed = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        done = sorted(set(wells) - set(store.missing_wells()))
    return {"done": done, "failed": failed, "lines": lines_of(run), "process": os.getpid()}


def finish(token: str, barcode: str, options: Options, lost: Mapping[str, str]) -> dict[str, Any]:
    """Bring the plate's metadata up to date; `lost` wells (well -> why) become empty ones. Gives the outcome."""
    run = prepare_run(token, barcode, options)
    asked = dataclasses.replace(run.options, retry_quarantined=False)
    empty = dataclasses.replace(run, options=asked, progress=Notes(), wells={well: run.wells[well] for well in lost})
    with open_store(empty) as store:
        for well in store.missing_wells():
            for site in run.wells[well]:
                store.leave_out([Quarantined(barcode, well, site, "", "", lost[well])])
    return dataclasses.asdict(outcome(barcode, options, run.wells, 0.0))


def prepare_run(token: str, barcode: str, options: Options) -> Run:
    """What `extract` prepares for a plate, once in this process for the run of all workers that `token` names."""
    key = (token, barcode, options.device, str(options.threads))
    if key in _runs:
        return _runs[key]
    name = f"{options.device} {options.threads}"
    if name not in _device:
        _device[name] = open_device(options.device, options.threads)
        torch.set_num_threads(options.threads or 1)
    plate = find_source(barcode, options.images_root, options.config.plate, options.cache)
    run = prepare(plate, chosen_wells(plate, options), options, _device[name], Notes())
    while len(_runs) >= KEPT:
        del _runs[next(iter(_runs))]
    _runs[key] = run
    return run


def lines_of(run: Run) -> list[tuple[str, str, dict[str, Any]]]:
    return run.progress.lines if isinstance(run.progress, Notes) else []
