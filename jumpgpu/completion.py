"""Shell completion, made from the commands' own parsers: `eval "$(jumpgpu completion bash)"`.

Commands, options, their fixed values, presets and files are completed. What is printed is a plain script for the shell;
nothing of jumpgpu runs while completing.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .__main__ import COMMANDS, LIGHT, module_of
from .cli.parser import command_parser

SHELLS = ("bash", "zsh", "fish")
FILES = {"FILE", "PATH", "DIR", "PLATE"}  # words in help that stand for a path
PRESETS = {"--config": "", "--recipe": "recipes", "config": ""}  # options that take a preset, and its folder in configs/


@dataclass(frozen=True)
class Argument:
    """An option (or, without flags, a positional argument) as a shell needs to know it."""

    flags: tuple[str, ...]
    help: str
    takes_value: bool
    words: tuple[str, ...]  # values known beforehand
    files: bool


@dataclass(frozen=True)
class Described:
    """A command: `("score", "map")`, what it does, its arguments."""

    path: tuple[str, ...]
    help: str
    arguments: tuple[Argument, ...]

    @property
    def options(self) -> list[Argument]:
        return [a for a in self.arguments if a.flags]

    @property
    def words(self) -> list[str]:
        """What a positional argument may be, as far as it is known."""
        return [w for a in self.arguments if not a.flags for w in a.words]

    @property
    def files(self) -> bool:
        return any(a.files for a in self.arguments if not a.flags)


def describe() -> list[Described]:
    """Every command, and the commands within commands."""
    result: list[Described] = []
    for name, what in COMMANDS.items():
        if name in LIGHT:
            output = importlib.import_module("jumpgpu.cli.options").parser(name)
        else:
            output = importlib.import_module(module_of(name)).parser()
        result += walk(output, (name,), what)
    return result


def walk(parser: argparse.ArgumentParser, path: tuple[str, ...], what: str) -> Iterator[Described]:
    arguments = []
    inner: list[Described] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {a.dest: a.help or "" for a in action._choices_actions}
            for name, output in action.choices.items():
                inner += walk(output, (*path, name), helps.get(name, ""))
            arguments.append(Argument((), "", True, tuple(action.choices), False))
        elif action.help != argparse.SUPPRESS:
            arguments.append(argument(action))
    yield Described(path, what, tuple(arguments))
    yield from inner


def argument(action: Any) -> Argument:
    text = " ".join((action.help or "").replace("%(default)s", str(action.default)).split())
    words = [str(c) for c in action.choices or ()]
    key = next((o for o in action.option_strings if o in PRESETS), action.dest if not action.option_strings else "")
    if key in PRESETS:
        words += presets(PRESETS[key])
    files = bool({action.metavar} & FILES) or action.type is Path or key in PRESETS
    takes_value = action.nargs != 0
    return Argument(tuple(action.option_strings), text, takes_value, tuple(words), takes_value and files)


def presets(folder: str) -> list[str]:
    from .settings.config import config_folder

    return sorted(p.stem for p in (config_folder() / folder).glob("*.toml"))


def bash(commands: Sequence[Described]) -> str:
    """A function that knows, for each command, its words and what may follow an option."""
    lines = [
        "# bash completion of jumpgpu",
        "_jumpgpu() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i",
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        case "$command/${COMP_WORDS[i]}" in',
        *(f"            {'/'.join(('', *c.path))}) command={'/'.join(('', *c.path))} ;;" for c in commands),
        "        esac",
        "    done",
        "    local words= files=",
        '    case "$command" in',
        f"        '') words={quoted(' '.join(['--help', '--version', *COMMANDS]))} ;;",
    ]
    for c in commands:
        own = " ".join([*(f for o in c.options for f in o.flags), *c.words])
        lines.append(f"        {'/'.join(('', *c.path))})")
        lines.append(f"            words={quoted(own)} files={'1' * c.files}")
        lines.append('            case "$before" in')
        for option in c.options:
            if option.takes_value:
                value = f"words={quoted(' '.join(option.words))} files={'1' * option.files}"
                lines.append(f"                {'|'.join(option.flags)}) {value} ;;")
        lines += ["            esac ;;"]
    lines += [
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "    if [[ -n $files && $word != -* ]]; then",
        "        compopt -o filenames 2> /dev/null",
        "        local IFS=$'\\n'",
        '        COMPREPLY+=($(compgen -f -- "$word"))',
        "    fi",
        "}",
        "complete -F _jumpgpu jumpgpu",
    ]
    return "\n".join(lines) + "\n"


def zsh(commands: Sequence[Described]) -> str:
    """A `_jumpgpu` function with `_arguments` for each command."""
    lines = ["#compdef jumpgpu", "_jumpgpu() {", "    local command=$words[2] inner=$words[3]"]
    first = [f"{name}:{what.replace(':', ' ')}" for name, what in COMMANDS.items()]
    lines += [
        "    if (( CURRENT == 2 )); then",
        f"        local -a commands=({' '.join(map(quoted, first))})",
        "        _describe command commands; return",
        "    fi",
        '    case "$command/$inner" in',
    ]
    for c in sorted(commands, key=lambda c: -len(c.path)):
        pattern = f"{c.path[0]}/{c.path[1] if len(c.path) > 1 else '*'}"
        specs = [s for o in c.options for s in zsh_specs(o)]
        rest = "_files" if c.files else f"({' '.join(c.words)})" if c.words else ""
        specs += [f"*::{c.path[-1]}:{rest}"] if rest else []
        lines.append(f'        {pattern}) (( CURRENT -= {len(c.path)} )); words=("${{words[@]:{len(c.path)}}}")')
        lines.append("            _arguments -S \\")
        lines += [f"                {quoted(spec)} \\" for spec in specs]
        lines.append("                ;;")
    lines += ["    esac", "}", 'if [[ $funcstack[1] == _jumpgpu ]]; then _jumpgpu "$@"; else compdef _jumpgpu jumpgpu; fi']
    return "\n".join(lines) + "\n"


def zsh_specs(option: Argument) -> Iterator[str]:
    help = option.help.translate(str.maketrans("[]:", "() "))
    value = ""
    if option.takes_value:
        choices = f"({' '.join(option.words)})" if option.words else "_files" if option.files else ""
        value = f":value:{choices}"
    for flag in option.flags:
        yield f"*{flag}[{help}]{value}"


def fish(commands: Sequence[Described]) -> str:
    """`complete` lines, each for the command that its condition names."""
    lines = ["# fish completion of jumpgpu", "complete -c jumpgpu -f"]
    for name, what in COMMANDS.items():
        lines.append(f"complete -c jumpgpu -n __fish_use_subcommand -a {name} -d {quoted(what)}")
    inner = {c.path[0] for c in commands if len(c.path) > 1}
    for c in commands:
        seen = " ; and ".join(f"__fish_seen_subcommand_from {name}" for name in c.path)
        if c.path[0] in inner and len(c.path) == 1:
            seen += f" ; and not __fish_seen_subcommand_from {' '.join(c.words)}"
        start = f"complete -c jumpgpu -n {quoted(seen)}"
        if c.files:
            lines.append(f"{start} -F")
        if c.words:
            lines.append(f"{start} -a {quoted(' '.join(c.words))}")
        for o in c.options:
            flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in o.flags)
            value = " -r" * o.takes_value + (" -F" if o.files else " -f" if o.takes_value else "")
            words = f" -a {quoted(' '.join(o.words))}" if o.words else ""
            lines.append(f"{start} {flags}{value}{words} -d {quoted(o.help)}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """One word of a shell, whatever is in it; bash, zsh and fish agree on this form where no backslash is inside."""
    return "'" + text.replace("\\", "/").replace("'", "\u2019") + "'"


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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    shell = parser().parse_args(arguments).shell
    print({"bash": bash, "zsh": zsh, "fish": fish}[shell](describe()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
