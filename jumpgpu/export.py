"""A stored plate as one file for other tools: `python -m jumpgpu.export PLATE --format parquet`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd

from .cli.exit_status import command, run_command
from .cli.parser import add_plates, command_parser
from .cli.progress import Progress
from .outputs.crops import FORMATS as CROPS
from .outputs.export import IMAGE, SUFFIXES, TABLES, export, export_profiles, features_of
from .profiles.cell_quality import load_cell_rules
from .settings.limits import LIMITS, check
from .settings.names import check_file_name, counted
from .settings.networks import RANDOM, ModelSettings
from .store.reader import StoredPlate, open_plate

BAD_USE, TRY_AGAIN = 2, 75


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "export",
        "Write a stored plate as one file for other tools: its single cells, metadata first and features in stored order, "
        "or its profile tables.",
        "jumpgpu export out/BR00117010.zarr --format parquet",
        "jumpgpu export out/BR00117010.zarr --format csv --wells A01 --columns 'Nuclei_AreaShape_*'",
        status="0 done, 2 bad use, 75 worth trying again (the disk is full)",
    )
    add = output.add_argument
    add_plates(output, "a plate's .zarr folder, or its path without the suffix")
    formats = (*SUFFIXES, TABLES, *CROPS)
    kinds = f"{', '.join(formats)}; the last three are crops (default: %(default)s)"
    add("--format", choices=formats, default="parquet", metavar="KIND", help=kinds)
    add("--output", type=Path, metavar="DIR", help="where <plate>.<format> goes (default: beside the plate)")
    add("--objects", metavar="NAME", help="another table than the cells': Image, or an object set with rows of its own")
    add("--metadata", type=Path, metavar="DIR", help="platemaps/ and external/: each row gets its well's treatment")
    add("--platemap", type=Path, metavar="FILE", help="the same from one plate map, without --metadata's barcode table")
    add("--treatments", type=Path, metavar="FILE", help="treatment table, instead of the plate map's own in external/")
    add(
        "--flag-cells",
        nargs="?",
        const="",
        metavar="FILE",
        help="add a column for each rule of a file that marks debris, mis-segmented, blurred, saturated cells (default: "
        "configs/rules/cell_quality.toml)",
    )
    add("--level", choices=("cells", "profile"), default="cells", help="single cells, or the plate's profile tables")
    add("--wells", nargs="+", metavar="WELL", help="only these wells: A01 B02, or A01,B02")
    add("--columns", nargs="+", metavar="NAME", help="only these features; patterns such as 'Nuclei_AreaShape_*' too")
    add("--overwrite", action="store_true", help="replace existing files")
    add("--quiet", action="store_true", help="no progress on stderr")
    add_crops(output)
    return output


def add_crops(output: argparse.ArgumentParser) -> None:
    """What says how cells are cut out; the words are those of [[features.embedding.models]]."""
    add = output.add_argument_group("crops, of a plate with --save-labels").add_argument
    usual, words = ModelSettings(), LIMITS["ModelSettings"]
    add("--images", metavar="DIR", help="the plate's images (default: the Cell Painting Gallery)")
    add("--illumination", default="auto", metavar="HOW", help="as extract was given (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    add("--channels", nargs="+", metavar="CHANNEL", help="in this order (default: the plate's)")
    add("--crop", type=float, default=usual.crop, metavar="N", help="side of the window (default: %(default)g)")
    add("--size", type=int, metavar="N", help="pixels of a crop's side (default: the window's)")
    for name, text in (
        ("unit", "of --crop"),
        ("resize", "where --size differs"),
        ("center", "of the window"),
        ("mask", "what is outside is 0"),
        ("padding", "beyond the field"),
        ("precision", "of the values"),
    ):
        default, choices = getattr(usual, name), [str(w) for w in cast(tuple[str, ...], words[name])]
        add(f"--{name}", choices=choices, default=default, help=f"{text} (default: %(default)s)")
    kinds = ("none", "crop", "field", "plate")
    add("--normalize", choices=kinds, default="none", help="less the mean, by the deviation, of it (default: none)")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    wells = [w for text in options.wells or () for w in text.replace(",", " ").split()] or None
    for name in options.plates:
        export_one(name, wells, options)
    return 0


def annotation_of(plate: StoredPlate, options: argparse.Namespace) -> pd.DataFrame | None:
    """The plate's wells with what its plate map says of them; None where no map was named."""
    from .profiles import platemap as platemaps

    if options.metadata is None and options.platemap is None:
        if options.treatments is not None:
            raise ValueError("--treatments describes what a plate map names; give --platemap or --metadata too")
        return None
    path = options.platemap or platemaps.find_platemap(options.metadata, plate.barcode)
    treatments = options.treatments
    if treatments is None and options.metadata is not None:
        treatments = platemaps.find_treatments(options.metadata, path)
    wells = pd.DataFrame({"Metadata_Plate": plate.barcode, "Metadata_Well": plate.wells})
    table = None if treatments is None else platemaps.read_treatments(treatments)
    return platemaps.annotate(wells, platemaps.read_platemap(path), table)


def export_cells(plate: StoredPlate, folder: Path, wells: Sequence[str] | None, options: argparse.Namespace) -> str:
    """Crops of a plate's cells; what was written, in words."""
    from .run.crop_export import export_crops  # torch

    names = ("crop", "size", "unit", "resize", "center", "mask", "padding", "precision", "normalize")
    rule = ModelSettings(
        name="crops",
        model=RANDOM,
        channels=tuple(options.channels or plate.channels),
        **{name: getattr(options, name) for name in names},
    )
    check(rule, "--crop and its options")
    with Progress(plate.barcode, len(wells or plate.wells), options.quiet) as progress:
        cells = export_crops(
            plate,
            folder,
            options.format,
            rule,
            images=options.images,
            illumination=options.illumination,
            wells=wells,
            device=options.device,
            overwrite=options.overwrite,
            advance=lambda well, n: progress.advance(1),
        )
    return f"{counted(len(wells or plate.wells), 'well')}  {counted(cells, 'crop')}"


def export_one(name: str, wells: Sequence[str] | None, options: argparse.Namespace) -> None:
    start = time.monotonic()
    plate = open_plate(name)
    folder = options.output or plate.beside
    if options.format in CROPS:
        print(f"{folder}  {export_cells(plate, folder, wells, options)}  {time.monotonic() - start:.1f} s")
        return
    if options.level == "profile":
        for path in export_profiles(plate.beside, plate.barcode, folder, options.format, options.overwrite):
            print(path)
        return
    objects = None if options.objects == "Cells" else options.objects
    if options.format == TABLES:
        write_tables(plate, folder, wells, objects, options)
        return
    name = f"{plate.barcode}{f'_{objects}' if objects else ''}{SUFFIXES[options.format]}"
    target = folder / check_file_name(name, "the table")
    annotation = annotation_of(plate, options)
    rules = None if options.flag_cells is None else load_cell_rules(options.flag_cells or None)
    n_wells = len(wells or plate.wells)
    with Progress(plate.barcode, n_wells, options.quiet) as progress:

        def advance(done: int) -> None:
            progress.advance(done - progress.done)

        overwrite, columns = options.overwrite, options.columns
        rows = export(plate, target, options.format, wells, columns, overwrite, advance, objects, annotation, rules)
    n_features = len(features_of(plate, options.columns, objects))
    what = counted(rows, {None: "cell", IMAGE: "site"}.get(objects, "object"))
    seconds = f"{time.monotonic() - start:.1f} s"
    print("  ".join([str(target), counted(n_wells, "well"), what, counted(n_features, "feature"), seconds]))


def write_tables(
    plate: StoredPlate, folder: Path, wells: Sequence[str] | None, objects: str | None, options: argparse.Namespace
) -> None:
    """Every table of a plate as CellProfiler's files, in a folder of its own unless one is named."""
    folder = options.output or folder / check_file_name(f"{plate.barcode}_cellprofiler", "the folder")
    if options.flag_cells is not None:
        raise ValueError("CellProfiler's files hold no flags; leave --flag-cells out")
    with Progress(plate.barcode, len(wells or plate.wells), options.quiet) as progress:

        def advance(done: int) -> None:
            progress.advance(done - progress.done)

        annotation, columns = annotation_of(plate, options), options.columns
        rows = export(plate, folder, TABLES, wells, columns, options.overwrite, advance, objects, annotation)
    print("  ".join([str(folder), counted(len(wells or plate.wells), "well"), counted(rows, "row")]))


if __name__ == "__main__":
    sys.exit(run_command(main))
