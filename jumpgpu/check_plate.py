"""Look at a plate before a long run: is all there, in focus, in the right channel, the right way round?

    python -m jumpgpu.check_plate --plate BR00117010 --images /data/images

Exit status 0 where nothing was found, 3 with findings, 2 for bad use.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .checks.images import SITES, check_images
from .checks.layout import against_controls, against_sister, count_wells
from .cli.exit_status import command, run_command
from .cli.parser import add_plates, command_parser
from .images.locate import find_source
from .profiles.platemap import CONTROL, NEGCON, find_platemap, find_treatments
from .settings.config import load_config
from .settings.names import spelled_well
from .storage.atomic import write_whole
from .store.reader import open_plate

FINDINGS = 3


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "check-plate",
        "Look at a plate before a long run: files that are missing or the same, and of the corner wells and some others the "
        "range of counts, saturation, focus, channels that are alike, and whether nuclei are in the DNA channel. With a "
        "sister plate or a plate map, whether the plate was turned or mirrored.",
        "jumpgpu check-plate BR00117010 --images /data/images",
        "jumpgpu check-plate BR00117012 --images /data/images --sister out/BR00117010.zarr --metadata metadata",
        status="0 nothing was found, 3 something was, 2 bad use",
    )
    add_plates(output, "barcode of the plate to look at, one")
    add = output.add_argument
    add("--images", metavar="PATH", help="where its images are, as extract has it")
    add("--config", metavar="FILE", help="TOML file or preset name (default: cpjump1)")
    add("--cache", metavar="DIR", help="keep what is read from a bucket in this folder")
    add("--wells", nargs="+", metavar="WELL", help="look at these wells (default: the corners and eight others)")
    add("--sites", type=int, default=SITES, metavar="N", help="sites to look at per well (default: %(default)s)")
    add("--sister", metavar="PLATE.zarr", help="a stored plate of the same layout: its cell counts by well are compared")
    add("--metadata", metavar="DIR", help="plate maps: the negative controls' places are compared")
    add("--threads", type=int, metavar="N", help="threads that decode (default: all processors)")
    add("--json", metavar="FILE", help="also write what was seen and found to this file")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    if len(options.plate) > 1:
        raise ValueError(f"one plate at a time, got {', '.join(options.plate)}")
    if options.sites < 1:
        raise ValueError(f"--sites must be at least 1, got {options.sites}")
    config = load_config(options.config or "cpjump1")
    wells = [spelled_well(w) for text in options.wells or () for w in text.replace(",", " ").split()]
    cache = Path(options.cache) if options.cache else None
    plate = find_source(options.plate[0], options.images or config.plate.images, config.plate, cache)
    plate.select(wells or None)
    sister = open_plate(options.sister) if options.sister else None
    controls = controls_of(Path(options.metadata), plate.barcode) if options.metadata else None
    print(f"{plate.barcode}: {len(plate.wells)} wells, {len(plate.sites)} sites; channels {plate.channel_line}", flush=True)
    for line in (*plate.notes, *plate.warnings):
        print(f"  {line}")
    report = check_images(plate, wells or None, options.sites, options.threads)
    if sister is not None or controls is not None:
        counts = count_wells(plate, config.segmentation.nuclei.channel, options.threads)
        if sister is not None:
            records = {well: sister.record(well) for well in sister.wells}
            cells = {well: r["cells"] / max(1, len(r["sites"])) for well, r in records.items()}
            report.findings += against_sister(counts, cells, sister.barcode)
        if controls is not None:
            report.findings += against_controls(counts, controls, options.metadata)
    print("\n".join(f"  {line}" for line in report.table()))
    print("\n".join(f"finding: {finding}" for finding in report.findings) or "nothing was found")
    if options.json:
        seen = {"plate": plate.barcode, "findings": report.findings, "images": [dataclasses.asdict(k) for k in report.looks]}
        write_whole(Path(options.json), json.dumps(seen, indent=1, allow_nan=True))
    return FINDINGS if report.findings else 0


def controls_of(folder: Path, barcode: str) -> list[str]:
    """Wells of negative controls, by the plate map of a barcode; ValueError where it names none."""
    import pandas as pd

    from .profiles.platemap import annotate, read_platemap, read_treatments

    path = find_platemap(folder, barcode)
    table = read_platemap(path)
    treatments = find_treatments(folder, path)
    wells = pd.DataFrame({"Metadata_Plate": barcode, "Metadata_Well": sorted(set(table["well_position"]))})
    known = annotate(wells, table, read_treatments(treatments) if treatments else None)
    if CONTROL not in known or not (known[CONTROL] == NEGCON).any():
        raise ValueError(f"{path}: names no negative controls ({CONTROL} {NEGCON})")
    return sorted(known.loc[known[CONTROL] == NEGCON, "Metadata_Well"])


if __name__ == "__main__":
    sys.exit(run_command(main))
