"""The commands as one tool: `jumpgpu extract ...` is `python -m jumpgpu.extract ...`, and so on.

Only the command that was chosen is imported, so that help and mistakes cost nothing.
"""

import importlib
import sys
from collections.abc import Sequence

GROUPS = {
    "Images to numbers": {
        "extract": "a plate's images to single-cell features in a zarr store",
        "segment": "only the label images, and outline pictures",
        "profile": "stored plates to well profiles",
        "score": "Percent Replicating, Percent Matching, mAP of profiles",
        "benchmark": "classical features and networks side by side",
    },
    "Looking, checking, handing on": {
        "report": "a plate's page: one HTML file",
        "compare": "a stored plate beside a lab's own CellProfiler output",
        "export": "a stored plate as Parquet, AnnData, CSV, SQLite or CellProfiler's files",
        "check-plate": "look at a plate's images before a long run",
        "verify": "check a stored plate against its records",
        "columns": "list and explain the feature columns",
        "tables": "the metadata's tables: compounds by number of targets",
    },
    "Settings and set-up": {
        "config": "print every setting of a preset or file",
        "import-cppipe": "a CellProfiler pipeline to a settings file",
        "synthetic": "draw plates with known cells and effects",
        "doctor": "what this machine has, and what to install",
        "completion": "a script for the shell that completes all this",
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
    lines += ["", "jumpgpu COMMAND --help tells a command's options; jumpgpu --version the version."]
    return "\n".join([*lines, "Example: jumpgpu extract --plate BR00117010 --images /data/images --output out"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its own exit status, or 2 for a command that does not exist."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] in COMMANDS:
            return main([words[1], "--help"])
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
    from .cli.exit_status import run_command

    run = importlib.import_module(module_of(words[0])).main
    status: int = run(words[1:]) if arguments is not None else run_command(run, words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
