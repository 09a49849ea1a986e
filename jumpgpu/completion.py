"""Shell completion, made from the commands' own parsers: `eval "$(jumpgpu completion bash)"`.

Commands, options, their fixed values, presets and files are completed. What is printed is a plain script for the shell, by
shtab; nothing of jumpgpu runs while completing.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shtab

from .__main__ import COMMANDS, LIGHT, module_of
from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .settings.config import config_folder

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
FILES = {"FILE", "PATH", "DIR", "PLATE"}  # words in help that stand for a path
PRESETS = {"--config": "", "--recipe": "recipes", "config": ""}  # options that take a preset, and its folder in configs/


def whole_parser() -> argparse.ArgumentParser:
    """One parser with every command, its arguments marked with how a shell completes them; it parses nothing."""
    output = argparse.ArgumentParser(prog="jumpgpu")
    output.add_argument("--version", action="version", version="")
    commands = output.add_subparsers(dest="command")
    for name, what in COMMANDS.items():
        module = "jumpgpu.cli.options" if name in LIGHT else module_of(name)
        own = importlib.import_module(module).parser(*([name] if name in LIGHT else []))
        mark(own)
        commands.add_parser(name, parents=[own], add_help=False, help=what)
    return output


def mark(parser: argparse.ArgumentParser) -> None:
    """Set how each argument is completed, where its choices do not say: files, or presets and files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                mark(inner)
            continue
        key = next((o for o in action.option_strings if o in PRESETS), action.dest if not action.option_strings else "")
        if key in PRESETS:
            action.complete = presets(PRESETS[key])  # type: ignore[attr-defined]
        elif action.choices is None and ({action.metavar} & FILES or action.type is Path):
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def presets(folder: str) -> dict[str, Any]:
    """Completion of a settings file: a preset's name, or a file."""
    names = " ".join(sorted(p.stem for p in (config_folder() / folder).glob("*.toml")))
    function = f"_jumpgpu_presets_{folder or 'settings'}"
    return {
        "bash": function,
        "zsh": f"{{ compadd {names}; _files }}",
        "fish": f"(string split ' ' '{names}'; __fish_complete_path (commandline -ct))",
        "tcsh": "f",
        "powershell": shtab.FILE["powershell"],
        "preamble": {"bash": f'{function}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}\n'},
    }


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "completion",
        "Print a script that completes jumpgpu's commands, options, their values and files in a shell.",
        'eval "$(jumpgpu completion bash)"                                    # in ~/.bashrc',
        'eval "$(jumpgpu completion zsh)"                                     # in ~/.zshrc, after compinit',
        "jumpgpu completion fish > ~/.config/fish/completions/jumpgpu.fish",
    )
    output.add_argument("shell", choices=SHELLS, help="the shell to print it for")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    shell = parser().parse_args(arguments).shell
    print(shtab.complete(whole_parser(), shell))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
