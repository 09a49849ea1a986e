"""The commands' parsers: how their help reads."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

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
        if needed[:1] and needed[0].dest == "plates":
            needed[0] = argparse.Action([], "plates", nargs="+", metavar="PLATE")  # one at the least
        if usage is None and len(listed) - len(needed) > MAX_SHOWN:
            usage = " ".join(self._format_usage(None, needed, [], "").split()).replace("%", "%%") + " [options]"
        super().add_usage(usage, listed, groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for paragraph in text.strip("\n").split("\n\n"):
            kept = paragraph.startswith(" ")
            parts.append(textwrap.indent(paragraph, indent) if kept else textwrap.fill(" ".join(paragraph.split()), width))
        return "\n\n".join(parts)


class Parser(argparse.ArgumentParser):
    """A parser that proposes the option that was meant, and takes plates with or without `--plate`."""

    plates_needed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        result, rest = super().parse_known_args(args, namespace)
        if self.plates_needed:
            result.plate = [*result.plates, *result.plate]
            result.plates = result.plate
            if not result.plate and not any(word.startswith("-") for word in rest):
                self.error("no plate was given; name one or more, such as BR00117010")
        return result, rest

    def error(self, message: str) -> NoReturn:
        """As argparse, with the nearest options behind those that are none."""
        if message.startswith("unrecognized arguments: "):
            hints = []
            for word in message.removeprefix("unrecognized arguments: ").split():
                option = word.partition("=")[0]
                if not option.startswith("-"):
                    continue
                if having := self.commands_with(option):
                    hints.append(f"{option} is an option of {' and '.join(having)}")
                elif near := get_close_matches(option, self.options(), 1, 0.7):
                    hints.append(f"did you mean {near[0]}?")
            message += "; " + " ".join(dict.fromkeys(hints)) if hints else ""
        super().error(message)

    def commands_with(self, option: str) -> list[str]:
        """The commands within this one that have an option."""
        inner = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return [parser.prog for a in inner for parser in a.choices.values() if option in parser.options()]

    def options(self) -> list[str]:
        """Every option of this parser and of the commands within it."""
        result = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                result += [o for inner in action.choices.values() for o in inner.options()]
        return list(dict.fromkeys(result))


def add_plates(parser: argparse.ArgumentParser, help: str, group: Any = None) -> None:
    """Plates as arguments, and `--plate` for the same; one is needed."""
    assert isinstance(parser, Parser)
    parser.plates_needed = True
    add = (group or parser).add_argument
    add("plates", nargs="*", metavar="PLATE", help=help)
    add("--plate", action="append", default=[], metavar="PLATE", help="the same (repeatable)")


def command_parser(name: str, description: str, *examples: str, status: str = "0 done, 2 bad use") -> Parser:
    """A command's parser: what it does, then its options, examples and exit status."""
    return Parser(
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
