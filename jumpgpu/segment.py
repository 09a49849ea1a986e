"""Label images alone, for looking at and for use elsewhere: no features are measured.

    python -m jumpgpu.segment BR00117010 --images /data/images --outlines

`<output>/<plate>.zarr` holds nuclei, cells and cytoplasm of every site as OME-Zarr labels; `jumpgpu.extract --masks`
reads them.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli import options as command
from .cli.exit_status import BAD_USE, DONE, QUARANTINED, STOPPED, events_only, explain, failed, run_command
from .cli.progress import write_event
from .gpu.open import open_device
from .images.locate import find_source
from .run.label_images import judge_labels, segment_plate
from .run.plate import REFUSED, chosen_wells
from .settings.names import counted
from .store.outline_pictures import PictureStyle


def parser() -> argparse.ArgumentParser:
    """The command line: that of `extract`, less what only measuring needs."""
    return command.parser("segment")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    log_json, left_out, refused = False, 0, False
    try:
        given = vars(parser().parse_args(arguments))
        if log_json := given["log_json"]:
            events_only()
        drawn = {name: given.pop(f"outline_{name}") for name in ("channels", "panels", "format")}
        drawn["channels"] = tuple(c for text in drawn["channels"] for c in text.split(","))
        style = PictureStyle(**drawn)
        outlines = style if given.pop("outlines") or style != PictureStyle() else None
        barcodes, options, dry_run = command.settle(given)
        plates = [find_source(b, options.images_root, options.config.plate, options.cache) for b in barcodes]
        for plate in plates:
            wells = chosen_wells(plate, options)
            if outlines:
                outlines.check(plate.barcode, plate.channels)
            if dry_run:
                target = Path(options.output) / f"{plate.barcode}.zarr"
                n_sites = counted(sum(map(len, wells.values())), "site")
                print(f"{plate.barcode}: labels of {n_sites} of {counted(len(wells), 'well')} to {target}")
                try:
                    judge_labels(plate, options, open_device(options.device, options.threads))
                except (ValueError, OSError) as error:
                    print(f"  {REFUSED}: {error}")
                    refused = True
        if dry_run:
            return BAD_USE if refused else DONE
        device = open_device(options.device, options.threads)
    except STOPPED as error:
        return failed(*explain(error, go_on="", otherwise=BAD_USE), log_json)
    try:
        for plate in plates:
            done = segment_plate(plate, options, device, outlines)
            print(f"{done}  {options.output / done.plate}.zarr", flush=True)
            if log_json:
                write_event("summary", **dataclasses.asdict(done))
            left_out += done.left_out
    except STOPPED as error:
        return failed(*explain(error, options.output), log_json)
    if not (options.quiet or log_json):
        barcode = plates[0].barcode
        print(
            f"next: jumpgpu extract {barcode} --images {options.images_root or 'DIR'} "
            f"--masks {options.output / barcode}.zarr"
            "   (features of these cells)",
            file=sys.stderr,
        )
    return QUARANTINED if left_out else DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
