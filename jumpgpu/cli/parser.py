"""The commands' parsers: how their help reads."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

WIDEST = 100  # columns of help, however wide the terminal is
MAX_SHOWN = 5  # options that usage spells out


class Help(argparse.HelpFormatter):
    """Paragraphs are filled to the terminal's width; indented ones, such as examples, stay as they are written."""

    def __init__(self, prog: str):
        width = min(shutil.get_terminal_size().columns, WIDEST)
        super().__init__(prog, max_help_position=26, width=width - 2)

    def add_usage(self, usage: Any, actions: Iterable[argparse.Action], groups: Any, prefix: Any = None) -> None:
        """Of many options, usage shows only those that must be given."""
        listed = list(actions)
        needed = [a for a in listed if a.required or not a.option_strings]
        if usage is None and len(listed) - len(needed) > MAX_SHOWN:
            usage = " ".join(self._format_usage(None, needed, [], "").split()).replace("%", "%%") + " [options]"
        super().add_usage(usage, listed, groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for paragraph in text.strip("\n").split("\n\n"):
            kept = paragraph.startswith(" ")
            parts.append(textwrap.indent(paragraph, indent) if kept else textwrap.fill(" ".join(paragraph.split()), width))
        return "\n\n".join(parts)


def command_parser(
    name: str, description: str, *examples: str, status: str = "0 done, 2 bad use"
) -> argparse.ArgumentParser:
    """A command's parser: what it does, then its options, examples and exit status."""
    return argparse.ArgumentParser(
        prog=f"jumpgpu {name}",
        description=description,
        epilog=f"{shown(examples)}Exit status: {status}.",
        formatter_class=Help,
    )


def add_parser(commands: Any, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    """The parser of a command within a command; `what` it does is its line in the other's help too."""
    output: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what[:1].upper() + what[1:] + ".", epilog=shown(examples), formatter_class=Help
    )
    return output


def shown(examples: Sequence[str]) -> str:
    """Examples as a paragraph that stays as it is."""
    lines = "\n".join(f"    {line}" for line in examples)
    return f"Example{'s' * (len(examples) > 1)}:\n\n{lines}\n\n" if examples else ""
