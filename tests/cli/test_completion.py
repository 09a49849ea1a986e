"""Completion, in the shells themselves: bash always, zsh and fish where they are installed."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from jumpgpu import completion
from jumpgpu.__main__ import COMMANDS

CASES = [
    (["jumpgpu", "ex"], {"extract", "export"}),
    (["jumpgpu", "import"], {"import-cppipe"}),
    (
        ["jumpgpu", "export", "--format", ""],
        {"parquet", "h5ad", "csv", "sqlite", "cellprofiler", "crops-zarr", "webdataset", "h5sc"},
    ),
    (["jumpgpu", "export", "--le"], {"--level"}),
    (["jumpgpu", "extract", "--plate", "P", "--save-"], {"--save-labels", "--save-overview"}),
    (["jumpgpu", "score", "m"], {"map", "matching"}),
    (["jumpgpu", "score", "map", "--keep", ""], {"map", "geometric", "all"}),
    (["jumpgpu", "score", "replicating", "--null-w"], {"--null-wells"}),
    (["jumpgpu", "profile", "--recipe", "cpjump1-2021-1"], {"cpjump1-2021-12"}),
    (["jumpgpu", "completion", "f"], {"fish"}),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    output = {}
    for shell in completion.SHELLS:
        output[shell] = folder / f"jumpgpu.{shell}"
        output[shell].write_text(shtab.complete(completion.whole_parser(), shell) + "\n", encoding="utf-8")
    return output


def ask_bash(script: Path, words: list[str], folder: Path) -> set[str]:
    asked = f"""
        source {script}
        COMP_WORDS=({" ".join(f"'{w}'" for w in words)}); COMP_CWORD={len(words) - 1}
        _shtab_jumpgpu jumpgpu
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, cwd=folder, check=True)
    assert done.stderr == ""
    return {line for line in done.stdout.split("\n") if line}


@pytest.mark.parametrize(("words", "expected"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_bash_completes(scripts: dict[str, Path], words: list[str], expected: set[str], tmp_path: Path) -> None:
    assert ask_bash(scripts["bash"], words, tmp_path) == expected


def test_bash_completes_presets_and_files_with_spaces(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "my settings.toml").touch()
    (tmp_path / "my plates").mkdir()
    asked = ["jumpgpu", "extract", "--config", ""]
    assert ask_bash(scripts["bash"], asked, tmp_path) == {"cpjump1", "jump-production", "my settings.toml", "my plates"}
    assert ask_bash(scripts["bash"], ["jumpgpu", "verify", "my"], tmp_path) == {"my settings.toml", "my plates"}
    assert ask_bash(scripts["bash"], ["jumpgpu", "export", "--format", "my"], tmp_path) == set()


@pytest.mark.parametrize("path", [("extract",), ("report",), ("score", "map")], ids=" ".join)
def test_every_option_of_a_command_is_offered(scripts, path: tuple[str, ...], tmp_path: Path) -> None:
    parser = completion.whole_parser()
    for name in path:
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = commands.choices[name]
    offered = ask_bash(scripts["bash"], ["jumpgpu", *path, "--"], tmp_path)
    assert offered == {f for a in parser._actions for f in a.option_strings if f.startswith("--")}
    assert "--help" in offered


def test_every_command_is_offered(scripts, tmp_path: Path) -> None:
    assert ask_bash(scripts["bash"], ["jumpgpu", ""], tmp_path) == set(COMMANDS)


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(("words", "expected"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_fish_completes(scripts: dict[str, Path], words: list[str], expected: set[str], tmp_path: Path) -> None:
    asked = f"source {scripts['fish']}; complete -C '{' '.join(words)}'"
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["fish", "-c", asked], capture_output=True, text=True, cwd=tmp_path, env=env, check=True)
    assert {line.split("\t")[0] for line in done.stdout.split("\n") if line} == expected


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_reads_the_script(scripts: dict[str, Path], tmp_path: Path) -> None:
    done = subprocess.run(["zsh", "-n", str(scripts["zsh"])], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    asked = f'autoload -U compinit; compinit -D; eval "$(cat {scripts["zsh"]})"; print $_comps[jumpgpu]'
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["zsh", "-f", "-c", asked], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert (done.stdout.strip(), done.stderr) == ("_shtab_jumpgpu", "")


def test_the_command_prints_the_script(scripts: dict[str, Path], capsys) -> None:
    assert completion.main(["bash"]) == 0
    assert capsys.readouterr().out == scripts["bash"].read_text(encoding="utf-8")
