"""`python -m jumpgpu.profile`: plates to well profiles, annotated, normalised and selected by a recipe."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from .cli.exit_status import command, run_command
from .cli.parser import add_plates, command_parser
from .profiles.make import plan, profile
from .profiles.recipe import LEVELS, REFERENCES, STEPS
from .settings.names import counted


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "profile",
        "Make well profiles of stored plates: aggregate, annotate, normalise and select by a recipe. The tables are "
        "Parquet, named as pycytominer names them.",
        "jumpgpu profile BR00117010 BR00117011 --output out --metadata metadata",
    )
    add_plates(output, "barcodes, <plate>.zarr folders, or tables of wells")
    add = output.add_argument
    add(
        "--output",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="holds <plate>.zarr, gets profiles/<plate>/ (default: .)",
    )
    add("--recipe", default="jumpgpu", metavar="FILE", help="recipe's name, or a .toml file (default: %(default)s)")
    add("--metadata", type=Path, metavar="DIR", help="platemaps/ and external/ (default: <output>/metadata)")
    add("--platemap", type=Path, metavar="FILE", help="one plate map for all plates, instead of the barcode table")
    add("--treatments", type=Path, metavar="FILE", help="treatment table, instead of the plate map's own in external/")
    add("--level", choices=LEVELS, help="select features over a plate or over all given (default: the recipe's)")
    add(
        "--reference",
        action="append",
        choices=REFERENCES,
        help="normalise by these wells (repeatable; default: the recipe's)",
    )
    add(
        "--without",
        action="append",
        default=[],
        choices=STEPS,
        metavar="STEP",
        help=f"leave out a step (repeatable): {', '.join(STEPS)}",
    )
    add(
        "--control",
        action="append",
        metavar="COLUMN=VALUE",
        help="wells that are negative controls (repeatable; default: the recipe's, Metadata_control_type=negcon)",
    )
    add(
        "--features",
        action="append",
        metavar="PATTERN",
        help="columns that are features besides those of Cells, Cytoplasm and Nuclei, such as 'efficientnet_*' (repeatable)",
    )
    add("--plate-column", metavar="COLUMN", help="column that names the plate (default: Metadata_Plate, or by convention)")
    add("--well-column", metavar="COLUMN", help="column that names the well (default: Metadata_Well, or by convention)")
    add("--anndata", action="store_true", help="write every table as .h5ad too")
    add(
        "--flag-cells",
        nargs="?",
        const="",
        metavar="FILE",
        help="flag debris, mis-segmented, blurred and saturated cells by this file's rules (default: "
        "configs/rules/cell_quality.toml): the table P_cell_flags, and each flag's share in the wells' tables",
    )
    add("--drop-flagged", action="store_true", help="leave flagged cells out of the wells' means")
    add(
        "--consensus",
        metavar="COLUMN",
        help="write profiles/consensus/ too, one profile per treatment: the median of its wells on all plates. The column "
        "that names a treatment, several as A,B",
    )
    add(
        "--standard-errors",
        type=int,
        metavar="N",
        help="write P_standard_errors, by drawing each well's cells anew N times (200 are enough)",
    )
    add(
        "--exclude-wells",
        nargs="+",
        default=[],
        metavar="WELL",
        help="leave these wells out: A01 B02, or BARCODE:A01 of one plate; recorded beside the profiles",
    )
    add("--overwrite", action="store_true", help="replace existing profiles")
    add("--dry-run", action="store_true", help="print what would be read and written, and stop")
    add("--quiet", action="store_true", help="print only findings and results")
    add("--verbose", action="store_true", help="a line for every table")
    return output


@command
def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(argv)
    if options.dry_run:
        lines = plan(
            options.plate,
            metadata=options.metadata,
            platemap=options.platemap,
            folder=options.output,
            output=options.output,
            overwrite=options.overwrite,
        )
        print("\n".join(lines))
        return 2 if any(": would be refused: " in line for line in lines) else 0
    start = time.perf_counter()
    with Lines(options.quiet, options.verbose) as said:
        output = profile(
            options.plate,
            metadata=options.metadata,
            platemap=options.platemap,
            treatments=options.treatments,
            recipe=options.recipe,
            level=options.level,
            references=options.reference,
            without=options.without,
            controls=options.control,
            features=options.features,
            plate_column=options.plate_column,
            well_column=options.well_column,
            folder=options.output,
            output=options.output,
            anndata=options.anndata,
            flag_cells=options.flag_cells,
            drop_flagged=options.drop_flagged,
            standard_errors=options.standard_errors,
            consensus=options.consensus,
            exclude_wells=[w for text in options.exclude_wells for w in text.replace(",", " ").split()],
            overwrite=options.overwrite,
            tell=said,
        )
    seconds = f"{time.perf_counter() - start:.1f} s"
    for plate, (wells, kept) in output.attrs["plates"].items():
        print("  ".join([plate, counted(wells, "well"), kept, seconds, str(options.output / "profiles" / plate)]))
    if not options.quiet:
        names = " ".join(output.attrs["plates"])
        score = "replicating" if len(output.attrs["plates"]) > 1 else "map"
        print(f"next: jumpgpu score {score} {names} --output {options.output}", file=sys.stderr)
    return 0


class Lines:
    """What `profile` tells, shortened: a finding that several plates share is one line, tables are told with --verbose."""

    def __init__(self, quiet: bool, verbose: bool):
        self.quiet, self.verbose = quiet, verbose
        self.findings: dict[str, list[str]] = {}

    def __call__(self, line: str) -> None:
        plate, colon, finding = line.partition(": ")
        if line.startswith("recipe "):
            if not self.quiet:
                print(line, file=sys.stderr)
        elif not colon or "  " in plate:
            if self.verbose:
                print(line, file=sys.stderr)
        else:
            self.findings.setdefault(finding, []).append(plate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Tell the findings."""
        for finding, plates in self.findings.items():
            named = ", ".join(plates[:3]) + f" and {len(plates) - 3} more" * (len(plates) > 3)
            print(f"{named}: {finding}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
