"""A plate beside a lab's own CellProfiler output: `jumpgpu compare PLATE cellprofiler_output/`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .cli.exit_status import DONE, QUARANTINED, command, run_command
from .cli.parser import command_parser
from .outputs.comparison import compare_tables
from .outputs.comparison_page import comparison_page
from .outputs.comparison_result import as_json, summary
from .settings.names import check_file_name
from .storage.atomic import write_whole
from .store.reader import open_plate

FINDINGS = QUARANTINED  # done, with something to look at


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "compare",
        "Compare a plate with CellProfiler's own tables of some of its wells, column by column: objects matched, numbers "
        "equal, within tolerance or not, columns that one side lacks. Prints ten lines; a page (HTML) and a JSON file have "
        "the rest.",
        "jumpgpu compare out/BR00117010.zarr cellprofiler_output/",
        "jumpgpu compare out/BR00117010.zarr lab.sqlite --names FilteredNuclei=Nuclei CorrDNA=DNA",
        status="0 all columns are equal or within tolerance, 2 bad use, 3 there are findings",
    )
    add = output.add_argument
    add("plate", metavar="PLATE", help="a plate's .zarr folder, or its path without the suffix")
    add("tables", type=Path, metavar="TABLES", help="a folder of ExportToSpreadsheet's .csv files, or an SQLite file")
    add(
        "--names", nargs="+", default=[], metavar="THEIRS=OURS", help="object sets and images that are called otherwise here"
    )
    add("--output", type=Path, metavar="DIR", help="where <plate>_compare.html and .json go (default: beside the plate)")
    add("--quiet", action="store_true", help="print nothing")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    names = dict(pair.split("=", 1) for pair in options.names if pair.count("=") == 1)
    if len(names) < len(options.names):
        raise ValueError(f"--names takes pairs THEIRS=OURS, each once; got {' '.join(options.names)}")
    plate = open_plate(options.plate)
    result = compare_tables(plate, options.tables, names)
    folder = options.output or plate.beside
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / check_file_name(f"{plate.barcode}_compare.html", "the page")
    write_whole(page, comparison_page(result))
    write_whole(page.with_suffix(".json"), json.dumps(as_json(result), indent=1, allow_nan=False) + "\n")
    if not options.quiet:
        print(*summary(result), page, sep="\n")
    return FINDINGS if result.findings else DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
