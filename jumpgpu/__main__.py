"""The commands as one tool: `jumpgpu extract ...` is `python -m jumpgpu.extract ...`, and so on.

Only the command that was chosen is imported, so that help and mistakes cost nothing.
"""

import importlib
import sys
from collections.abc import Sequence

GROUPS = {
    "Images to numbers": {
        "extract": "measure a plate's images: single-cell features in a zarr store",
        "segment": "find the cells only: label images, and pictures of outlines",
        "profile": "make well profiles of stored plates",
        "score": "score profiles: Percent Replicating, Percent Matching, mAP, hits",
        "benchmark": "compare classical features and networks on the same wells",
    },
    "Looking, checking, handing on": {
        "report": "write a plate's page: one HTML file",
        "compare": "compare a stored plate with a lab's CellProfiler output",
        "export": "write a stored plate as Parquet, AnnData, CSV, SQLite or CellProfiler's files",
        "check-plate": "check a plate's images before a long run",
        "verify": "check a stored plate against its records",
        "columns": "list and explain the feature columns",
        "tables": "count the metadata's compounds by targets, genes by reagents",
    },
    "Settings and set-up": {
        "config": "print every setting of a preset or file",
        "import-cppipe": "turn a CellProfiler pipeline into a settings file",
        "synthetic": "draw plates with known cells and effects",
        "doctor": "say what this machine has, and what to install",
        "completion": "print a script that completes commands in your shell",
    },
}
LIGHT = ("extract", "segment")  # whose parsers are in `options`
COMMANDS = {name: what for group in GROUPS.values() for name, what in group.items()}


def module_of(command: str) -> str:
    """`import-cppipe` to `jumpgpu.import_cppipe`."""
    return f"jumpgpu.{command.replace('-', '_')}"


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: jumpgpu COMMAND ...", "", "Cell Painting images to single-cell features to scored profiles."]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:{width}}  {what}" for name, what in group.items())]
    lines += ["", "jumpgpu COMMAND --help shows a command's options, jumpgpu --version the version."]
    return "\n".join([*lines, "Example: jumpgpu extract BR00117010 --images /data/images --output out"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its own exit status, or 2 for a command that does not exist."""
    if arguments is not None:
        return run(arguments)
    from .cli.exit_status import run_command

    return run_command(run, sys.argv[1:])  # from here on it can be interrupted, while it is imported too


def run(arguments: Sequence[str]) -> int:
    words = list(arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] in COMMANDS:
            return run([words[1], "--help"])
        print(usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        from . import __version__

        print(f"jumpgpu {__version__}")
        return 0
    if words[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "jumpgpu --help lists them"
        print(f"jumpgpu: unknown command {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    if words[0] in LIGHT:  # help and bad use end here, before torch is imported
        importlib.import_module("jumpgpu.cli.options").parser(words[0]).parse_args(words[1:])
    status: int = importlib.import_module(module_of(words[0])).main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
