"""docs/command-line.md: its commands run, and its tables are the program's."""

import re
import shlex
from pathlib import Path

import pytest

from jumpgpu.__main__ import COMMANDS, main
from jumpgpu.cellprofiler.settings import READERS
from jumpgpu.outputs.export import SUFFIXES, TABLES
from tests.cli.test_progress import KEYS, events_of

PIPELINES = (Path(__file__).parents[2] / "docs" / "cellprofiler.md").read_text(encoding="utf-8")
PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def table(heading: str, page: str = PAGE) -> dict[str, list[str]]:
    """A table's rows by their first cell, below the row that begins with `heading`."""
    lines = page[page.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    said = {}
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(line)
        assert words.pop(0) == "jumpgpu"
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[: words.index(">")] if target else words
        assert main(words) == 0, line
        out, err = capsys.readouterr()
        if target:
            Path(target).write_text(out)
        said[line] = out, err
    assert (tmp_path / "demo" / "DEMO.parquet").stat().st_size > 10_000
    assert (tmp_path / "lab.toml").read_text().count("image_quality = true") == 1
    header = (tmp_path / "demo" / "DEMO.csv").read_text().splitlines()[0]
    assert "Metadata_Plate" in header
    assert {c.split("_")[1] for c in re.findall(r'"(\w+)"', header)[4:]} == {"AreaShape", "Texture"}
    assert "whole" in said["jumpgpu verify demo/DEMO"][0]
    assert [e["event"] for e in events_of(list(said.values())[-1][1])].count("well") == 2
    for code in blocks("python"):
        exec(compile(code, "command-line.md", "exec"), {})
    assert (tmp_path / "demo" / "cells.parquet").exists()


def test_the_tables_of_the_page_are_the_programs() -> None:
    assert {name: row[0] for name, row in table("command").items()} == COMMANDS
    assert {name: set(re.findall(r"`(\w+)`", row[1])) for name, row in table("event").items()} == KEYS
    assert set(table("format")) == {*SUFFIXES, TABLES}
    spans = {name: f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for name, (r, _) in READERS.items()}
    rows = table("module | revisions", PIPELINES).items()
    assert {name.split()[0]: row[0] for names, row in rows for name in names.split(", ")} == spans


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_page_says_how_to_complete(shell: str) -> None:
    assert f"jumpgpu completion {shell}" in PAGE
