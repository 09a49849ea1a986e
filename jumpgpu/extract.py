"""From a plate's images to its store.

    python -m jumpgpu.extract --plate BR00117010 --images /data/images

The exit status is 0 when all is done, 2 for bad use, 3 when sites were left out (`quarantine.csv` names them), 75 when
trying again may help: the disk is full, another run is at work, the device failed, somebody interrupted.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.exit_status import BAD_USE, DONE, QUARANTINED, STOPPED, events_only, explain, failed, run_command
from .cli.options import given, settle
from .cli.progress import write_event
from .gpu.open import open_device
from .images.channels import check_channels
from .images.locate import find_source
from .run.plate import REFUSED, chosen_wells, describe
from .run.plates import extract_plates
from .run.watch import check_watch, watch_plate
from .settings.config import Config, load_config
from .storage.buckets import is_url


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    log_json, left_out = False, 0
    try:
        asked = given(arguments)
        if log_json := asked["log_json"]:
            events_only()
        if asked["pipeline"]:
            asked["images"] = table_in(asked["images"], asked["pipeline"])
            asked["config"] = read_pipelines(asked["pipeline"], asked["config"], asked["accept_differences"], log_json)
        watch = asked["watch"]
        barcodes, options, dry_run = settle(asked)
        if watch is not None:
            check_watch(options, watch)
            if len(barcodes) > 1:
                raise ValueError("--watch: one plate at a time; start another watch for another plate")
            check_channels(options.config.plate)
        plates = []
        if watch is None or dry_run:
            plates = [find_source(b, options.images_root, options.config.plate, options.cache) for b in barcodes]
            barcodes = [plate.barcode for plate in plates]
        for plate in plates:
            chosen_wells(plate, options)
        if dry_run:
            device = open_device(options.device, options.threads) if options.device in ("auto", "cpu") else None
            said = "\n".join(describe(plate, options, device) for plate in plates)
            print(said)
            return BAD_USE if f"\n  {REFUSED}: " in said else DONE
        if not options.scheduler:
            open_device(options.device, options.threads)
        if options.distributed:
            from .run.dask_workers import check

            check(options)
    except STOPPED as error:
        return failed(*explain(error, go_on="", otherwise=BAD_USE), log_json)
    try:
        for done in extract_plates(plates, options) if watch is None else watch_plate(barcodes[0], options, watch):
            print(f"{done}  {options.output / done.plate}.zarr", flush=True)
            if log_json:
                write_event("summary", **dataclasses.asdict(done))
            left_out += done.left_out
    except STOPPED as error:
        return failed(*explain(error, options.output), log_json)
    if left_out and not log_json:
        were = "site was" if left_out == 1 else "sites were"
        print(f"{left_out} {were} left out: see {options.output / 'quarantine.csv'}", file=sys.stderr)
    if not (options.quiet or log_json):
        stores = " ".join(str(options.output / f"{barcode}.zarr") for barcode in barcodes)
        print(f"next: jumpgpu report {stores}   (the plate's page; with --metadata DIR its treatments)", file=sys.stderr)
        names = " ".join(barcodes)
        print(f"      jumpgpu profile {names} --output {options.output} --metadata DIR   (well profiles)", file=sys.stderr)
    return QUARANTINED if left_out else DONE


def read_pipelines(files: Sequence[str], config: str | None, accept: bool, log_json: bool) -> Config:
    """The settings that CellProfiler pipelines mean; their verdict goes to stderr. ValueError where it stops the run."""
    from .cellprofiler.parse import read_pipeline  # only here: a start without pipelines is the faster
    from .cellprofiler.translate import translate
    from .cellprofiler.verdict import settings, stops, told

    base = load_config(config) if config else Config()
    imported = translate([read_pipeline(file) for file in files])
    if log_json:
        write_event("warning", message=told(imported, files))
    else:
        print(told(imported, files), file=sys.stderr)
    if (why := stops(imported)) and not accept:
        raise ValueError(f"{why}; --accept-differences runs the pipeline without what is listed above")
    if not imported.steps:
        raise ValueError(
            "these pipelines make illumination functions and no objects; add the analysis by another --pipeline"
        )
    return settings(imported, base)


def table_in(images: str | None, files: Sequence[str]) -> str | None:
    """The images; LoadData's table where one of the pipelines names one that lies in their folder."""
    from .cellprofiler.parse import read_pipeline
    from .cellprofiler.sources import source_of

    for table in filter(None, (Path(source_of(read_pipeline(file)).table).name for file in files)):
        if images and not is_url(images) and (Path(images) / table).is_file():
            return str(Path(images) / table)
    return images


if __name__ == "__main__":
    sys.exit(run_command(main))
