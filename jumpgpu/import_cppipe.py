"""A CellProfiler pipeline as a settings file, and a line for every cause of what is not the same.

Pipelines that have a preset's form become [illumination], [segmentation] and [features]; all others the steps that
`extract --pipeline` runs. Nothing is put in another's place unless --approximate asks for it.
"""

import argparse
import dataclasses
import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .cellprofiler import verdict
from .cellprofiler.convert import Imported, import_pipelines
from .cellprofiler.parse import Pipeline, printable, read_pipeline
from .cellprofiler.translate import translate
from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .settings.config import Config, PlateSettings, build
from .settings.toml import step_table, toml_lines
from .storage.atomic import write_whole

NOT_HONOURED = 1  # exit status of --strict
HEADINGS = {
    "changes": "Unsupported: values differ from the pipeline's",
    "missing": "Unsupported: the pipeline's measurements that are not made",
    "more": "Made besides",
    "note": "Left out or worth knowing; no measurement depends on it",
}


def as_settings(imported: Imported, pipelines: Sequence[Pipeline]) -> str:
    """The TOML file: findings as comments, then the tables that the pipelines speak of; ValueError for a bad value."""
    lines = [f"# Made by jumpgpu {__version__} import-cppipe from"]
    for pipeline in pipelines:
        by = f", written by {printable(pipeline.written_by)}" if pipeline.written_by else ""
        lines.append(
            f"#   {printable(Path(pipeline.file).name)}: format {pipeline.version}{by}, {len(pipeline.modules)} modules"
        )
    for heading, result in listing(imported):
        lines += ["#", f"# {heading}:", *(f"#   {line}" for line in result)]
    table = dataclasses.asdict(imported.config)
    table["plate"] = {"channels": table["plate"]["channels"]} | (
        {"stains": table["plate"]["stains"]} if imported.config.plate.stains != PlateSettings().stains else {}
    )
    text = "\n".join([*lines, *toml_lines({name: table[name] for name in imported.sections})]) + "\n"
    read_back = build(Config, tomllib.loads(text), "imported settings")
    assert read_back == imported.config, "the file does not say what was imported"
    return text


def listing(imported: Imported) -> Iterator[tuple[str, list[str]]]:
    """Headings, and the lines below them; modules of which the same is to be said share one."""
    files = {f.file for f in imported.findings}
    for kind, heading in HEADINGS.items():
        numbers: dict[tuple[str, str, str], list[str]] = {}
        for f in imported.of_kind(kind):
            numbers.setdefault((f.file, f.module, f.text), []).extend([str(f.number)] * (f.number > 0))
        lines = []
        for (file, module, text), result in numbers.items():
            which = f" (module{'s' * (len(result) > 1)} {', '.join(result)})" if result else ""
            prefix = f"{printable(Path(file).name)}: " if len(files) > 1 else ""
            lines.append(f"{prefix}{module}{which}: {text}")
        if lines:
            yield heading, lines


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "import-cppipe",
        "Turn a CellProfiler pipeline into a settings file: illumination, nuclei, cells, cytoplasm and the Measure modules. "
        "Every unsupported module and setting is listed, on stderr and in the file.",
        "jumpgpu import-cppipe illum.cppipe analysis.cppipe --output lab.toml",
        "jumpgpu extract --plate BR00117010 --images /data/images --config lab.toml",
        status="0 done, 1 --strict and something is unsupported, 2 bad use",
    )
    add = output.add_argument
    add("pipelines", nargs="+", metavar="FILE", help="pipelines that belong together (.cppipe, or .json of CellProfiler 4)")
    add("--output", type=Path, metavar="FILE", help="the settings file to write (default: standard output)")
    add("--json", action="store_true", help="print what extract --pipeline would come to, as JSON, and write nothing")
    add(
        "--steps",
        action="store_true",
        help="write the pipeline step by step ([[steps]]), as extract --pipeline runs it; done anyway where a preset's form "
        "([segmentation], [features]) does not hold all of it",
    )
    add(
        "--approximate",
        action="store_true",
        help="write [segmentation] and [features] although numbers differ or are missing, each of them listed",
    )
    add("--overwrite", action="store_true", help="replace --output if it is there")
    add("--strict", action="store_true", help="write nothing and end with status 1 where numbers would differ or be missing")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    if options.output and options.output.exists() and not options.overwrite:
        raise FileExistsError(f"{options.output} exists already; --overwrite replaces it")
    pipelines = [read_pipeline(path) for path in options.pipelines]
    if options.json or options.steps:
        return by_steps(pipelines, options)
    imported = as_a_whole(pipelines, options.approximate)
    if imported is None:
        return by_steps(pipelines, options)
    text = as_settings(imported, pipelines)
    for heading, result in listing(imported):
        print(f"{heading}:", *(f"  {line}" for line in result), sep="\n", file=sys.stderr)
    if options.strict and (wrong := imported.of_kind("changes", "missing")):
        print(f"error: {len(wrong)} settings are unsupported; without --strict the rest is imported", file=sys.stderr)
        return NOT_HONOURED
    if options.output:
        write_whole(options.output, text)
        print(f"{options.output}  {len(imported.findings)} findings")
    else:
        print(text, end="")
    return 0


def as_a_whole(pipelines: Sequence[Pipeline], approximate: bool) -> Imported | None:
    """The pipelines in a preset's form; None where that does not hold all of them, unless it may be `approximate`."""
    try:
        imported = import_pipelines(pipelines)
    except ValueError:
        if approximate:
            raise
        return None
    return imported if approximate or not imported.of_kind("changes", "missing") else None


def by_steps(pipelines: Sequence[Pipeline], options: argparse.Namespace) -> int:
    """The verdict as JSON, or the settings file of steps, which is not written where labels or values would differ."""
    try:
        result = translate(pipelines)
    except ValueError as error:
        if not options.json:
            raise
        print(json.dumps(verdict.refused(str(error)), indent=1))
        return 0
    if options.json:
        print(json.dumps(verdict.as_json(result), indent=1))
        return 0
    if not (result.steps or result.function_steps or result.findings):
        raise ValueError("nothing in this pipeline makes functions, objects or measurements")
    said = verdict.told(result, options.pipelines)
    print(said, file=sys.stderr)
    short = [f"{what.replace('_', ' ')} {how}" for what, how in result.verdict.items() if how != "equal"]
    if options.strict and (short or verdict.stops(result)):
        print(f"error: {', '.join(short) or verdict.stops(result)}; without --strict the rest is imported", file=sys.stderr)
        return NOT_HONOURED
    config = verdict.settings(result)
    text = "".join(f"# {line}\n" for line in said.splitlines()) + "\n"
    plate, usual = config.plate, PlateSettings()
    own: dict[str, Any] = {"channels": plate.channels} | ({"pattern": plate.pattern} if plate.pattern else {})
    own |= (
        {"stains": {k: v for k, v in plate.stains.items() if usual.stains.get(k) != v}}
        if plate.stains != usual.stains
        else {}
    )
    own |= {"assign": plate.assign} if plate.assign else {}
    table = {"plate": own, "functions": [step_table(step) for step in config.functions]}
    table |= {"steps": [step_table(step) for step in config.steps]}
    text += "\n".join(toml_lines(table)) + "\n"
    back = build(Config, tomllib.loads(text), "imported settings")
    assert back == config, "the file does not say what was imported"
    if options.output:
        write_whole(options.output, text)
        print(f"{options.output}  {len(config.steps)} steps")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
