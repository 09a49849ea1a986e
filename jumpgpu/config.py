"""`python -m jumpgpu.config jump-production`: every setting of a preset or file as TOML, and CPJUMP1's if none is given."""

import argparse
import sys
from collections.abc import Sequence

from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .settings.config import load_config
from .settings.toml import as_toml


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "config",
        "Print every setting of a preset or file as TOML: what a run with it would use, and a file to begin one's own from.",
        "jumpgpu config jump-production > lab.toml",
    )
    output.add_argument("config", nargs="?", default="cpjump1", help="TOML file or preset name (default: %(default)s)")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    print(as_toml(load_config(parser().parse_args(arguments).config)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
