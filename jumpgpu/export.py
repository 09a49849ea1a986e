"""A stored plate as one file for other tools: `python -m jumpgpu.export PLATE --format parquet`."""

import argparse
import errno
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .cli.parser import command_parser
from .cli.progress import Progress
from .outputs.export import SUFFIXES, export, export_profiles
from .store.reader import open_plate

BAD_USE, TRY_AGAIN = 2, 75


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "export",
        "Write a stored plate as one file for other tools: its single cells, metadata first and features in stored order, "
        "or its profile tables.",
        "jumpgpu export out/BR00117010.zarr --format parquet",
        "jumpgpu export out/BR00117010.zarr --format csv --wells A01 --columns 'Nuclei_AreaShape_*'",
        status="0 done, 2 bad use, 75 worth trying again (the disk is full)",
    )
    add = made.add_argument
    add("plates", nargs="+", metavar="PLATE", help="a plate's .zarr folder, or its path without the suffix")
    add("--format", choices=SUFFIXES, default="parquet", help="kind of file (default: %(default)s)")
    add("--output", type=Path, metavar="DIR", help="where <plate>.<format> goes (default: beside the plate)")
    add("--level", choices=("cells", "profile"), default="cells", help="single cells, or the plate's profile tables")
    add("--wells", nargs="+", metavar="WELL", help="only these wells: A01 B02, or A01,B02")
    add("--columns", nargs="+", metavar="NAME", help="only these features; patterns such as 'Nuclei_AreaShape_*' too")
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--quiet", action="store_true", help="no progress on stderr")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    wells = [w for text in options.wells or () for w in text.replace(",", " ").split()] or None
    try:
        for name in options.plates:
            export_one(name, wells, options)
    except OSError as error:
        place = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"error: {place}", file=sys.stderr)
        return TRY_AGAIN if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else BAD_USE
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USE
    return 0


def export_one(name: str, wells: Sequence[str] | None, options: argparse.Namespace) -> None:
    start = time.monotonic()
    plate = open_plate(name)
    folder = options.output or plate.beside
    if options.level == "profile":
        for path in export_profiles(plate.beside, plate.barcode, folder, options.format, options.overwrite):
            print(path)
        return
    target = folder / f"{plate.barcode}{SUFFIXES[options.format]}"
    n_wells = len(wells or plate.wells)
    with Progress(plate.barcode, n_wells, options.quiet) as progress:

        def advance(done: int) -> None:
            progress.advance(done - progress.done)

        cells = export(plate, target, options.format, wells, options.columns, options.overwrite, advance)
    n_features = len(plate.choose(options.columns))
    print(f"{target}  {n_wells} wells  {cells} cells  {n_features} features  {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
