"""From a plate's images to its store.

    python -m jumpgpu.extract --plate BR00117010 --images /data/images

The exit status is 0 when all is done, 2 for bad use, 3 when sites were left out (`quarantine.csv` names them), 75 when
trying again may help: the disk is full, another run is at work, the device failed, somebody interrupted.
"""

import dataclasses
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from .cli.exit_status import BAD_USE, DONE, QUARANTINED, STOPPED, TRY_AGAIN, explain, failed
from .cli.options import parse
from .cli.progress import write_event
from .gpu.open import open_device
from .images.locate import find_source
from .run import dask_workers as workers
from .run.plate import chosen_wells, describe
from .run.plates import extract_plates


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


def run_command() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as an interruption does: cleanly, status 75
    sys.exit(main())


if __name__ == "__main__":
    run_command()
