"""Check stored plates: every byte, shape, column and identity against the records written with them.

    python -m jumpgpu.verify BR00117010.zarr

Prints a line per plate, and a line for each thing that is wrong. Exit status 0 when all is right, 1 when something is
not, 2 when there is no plate to check.
"""

import argparse
import sys
from collections.abc import Sequence

from .cli.exit_status import command, run_command
from .cli.parser import add_plates, command_parser
from .settings.names import counted
from .store.reader import open_plate


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "verify",
        "Check stored plates: every byte, shape, column and identity against the records written with them. Prints one "
        "line per plate, and one for each thing that is wrong.",
        "jumpgpu verify out/BR00117010.zarr",
        status="0 all is right, 1 something is not, 2 there is no plate to check",
    )
    add_plates(output, "a plate's .zarr folder, or its path without the suffix")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    status = 0
    for path in parser().parse_args(arguments).plates:
        try:
            plate = open_plate(path)
        except (FileNotFoundError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
            continue
        problems = plate.verify()
        n, listed = len(plate.wells), len(plate.listed_wells())
        wells = counted(n, "well") if n == listed else f"{n} of {counted(listed, 'well')}"
        print(f"{plate.barcode}  {wells}  {counted(len(problems), 'problem') if problems else 'whole'}", flush=True)
        print("\n".join(f"  {problem}" for problem in problems), end="\n" * bool(problems))
        status = status or bool(problems)
    return int(status)


if __name__ == "__main__":
    sys.exit(run_command(main))
