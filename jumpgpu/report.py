"""The plate's page: `python -m jumpgpu.report PLATE` writes one HTML file that needs nothing else."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.parser import command_parser
from .outputs.plate_page import report


def multiqc(plates: Sequence[StoredPlate]) -> str:
    """A table for MultiQC (custom content, JSON; name the file `*_mqc.json`): what was found and left out."""
    data = {}
    for plate in plates:
        records = [plate.record(well) for well in plate.wells]
        sites, cells = sum(len(r["sites"]) for r in records), sum(r["cells"] for r in records)
        found = [bool(entry["used"]) for r in records for entry in r["quarantine"]]
        data[plate.barcode] = {
            "wells": len(records),
            "sites": sites,
            "cells": cells,
            "cells_per_site": round(cells / sites, 1) if sites else 0.0,
            "left_out": found.count(False),
            "odd": found.count(True),
        }
    titles = ("Wells", "Sites", "Cells", "Cells per site", "Left-out images", "Odd images used")
    form = ("{:,d}", "{:,d}", "{:,d}", "{:,.1f}", "{:,d}", "{:,d}")
    names = ("wells", "sites", "cells", "cells_per_site", "left_out", "odd")
    table = {
        "id": "jumpgpu",
        "section_name": "jumpgpu",
        "description": "Plates measured: what was found, and what was left out (quarantine.csv says why).",
        "plot_type": "table",
        "pconfig": {"id": "jumpgpu_plates", "title": "jumpgpu: plates", "col1_header": "Plate"},
        "headers": {n: {"title": t, "format": f} for n, t, f in zip(names, titles, form, strict=True)},
        "data": data,
    }
    return json.dumps(table, indent=1) + "\n"


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "report",
        "Write a plate's page: one HTML file that needs nothing else, with heat maps, pictures, distributions, replicates, "
        "what was left out, and how the numbers were made. It works offline, by keyboard and on a phone.",
        "jumpgpu report out/BR00117010 --metadata metadata --scores out/scores/replicating.json",
    )
    add = made.add_argument
    add("plates", nargs="+", metavar="PLATE", help="a plate's .zarr folder, or its path without the suffix")
    add("--output", type=Path, metavar="DIR", help="where <plate>.html goes (default: beside the plate)")
    add("--metadata", type=Path, metavar="DIR", help="folder of plate maps and treatments")
    add("--scores", type=Path, nargs="*", default=[], metavar="FILE", help="what jumpgpu score wrote as .json")
    add("--pictures", default="first", choices=("first", "all", "none"), help="sites of a well shown (default: %(default)s)")
    add("--multiqc", type=Path, metavar="FILE", help="write a table of the plates for MultiQC, *_mqc.json, and no page")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 done, 2 bad use."""
    options = parser().parse_args(argv)
    try:
        if options.multiqc:
            write_whole(options.multiqc, multiqc([open_plate(path) for path in options.plates]))
            print(options.multiqc)
            return 0
        for path in options.plates:
            page = report(path, options.output, metadata=options.metadata, scores=options.scores, pictures=options.pictures)
            print(f"{page.stem}  {page}  {page.stat().st_size / 1e6:.1f} MB")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
