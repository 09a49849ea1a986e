"""The commands as one tool: `jumpgpu extract ...` is `python -m jumpgpu.extract ...`, and so on."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "extract": "a plate's images to single-cell features in a zarr store",
    "segment": "only the label images, and outline pictures",
    "profile": "stored plates to well profiles",
    "score": "Percent Replicating, Percent Matching, mAP of profiles",
    "report": "a plate's page: one HTML file",
    "export": "a stored plate as Parquet, AnnData, CSV or SQLite",
    "verify": "check a stored plate against its records",
    "synthetic": "draw plates with known cells and effects",
    "import-cppipe": "a CellProfiler pipeline to a settings file",
    "config": "print every setting of a preset or file",
    "columns": "list and explain the feature columns",
    "tables": "the metadata's tables: compounds by number of targets",
    "doctor": "what this machine has, and what to install",
}


def module_of(command: str) -> str:
    """`import-cppipe` to `jumpgpu.import_cppipe`."""
    return f"jumpgpu.{command.replace('-', '_')}"


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    return f"usage: jumpgpu COMMAND ...\n\n{lines}\n\njumpgpu COMMAND --help tells a command's options."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its own exit status, or 2 for a command that does not exist."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from . import __version__

        print(f"jumpgpu {__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"jumpgpu: unknown command {words[0]!r}\n{usage()}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(module_of(words[0])).main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
