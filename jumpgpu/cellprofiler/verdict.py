"""What a pipeline comes to here, before anything is run: one line, then a line per cause; the same for programs; and its
settings."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..settings.config import Config, PlateSettings
from .findings import LEVELS, Translated
from .parse import printable

HEADINGS = {
    "labels": "Labels",
    "values": "Values",
    "columns": "Missing columns",
    "image tables": "Image tables",
    "output": "Output",
    "note": "Worth knowing",
}


def as_json(imported: Translated) -> dict[str, Any]:
    """The verdict for programs; `columns` speaks of object columns."""
    findings = [{"level": f.level, "module": f.module, "number": f.number, "line": f.text} for f in imported.findings]
    return {**imported.verdict, "findings": findings}


def refused(error: str) -> dict[str, Any]:
    """The verdict for programs on a pipeline of which a module's settings cannot be read."""
    match = re.match(r"(\w+) \(module (\d+)\): ", error)
    module, number = (match[1], int(match[2])) if match else ("Pipeline", 0)
    finding = {"level": "labels", "module": module, "number": number, "line": error[match.end() if match else 0 :]}
    return {"labels": "refused", "columns": "missing", "image_tables": "missing", "findings": [finding]}


def lines(imported: Translated) -> list[str]:
    """The verdict for people; causes that modules share are one line."""
    verdict = imported.verdict
    result = [f"labels {verdict['labels']}, columns {verdict['columns']}, image tables {verdict['image_tables']}"]
    for level in LEVELS:
        modules: dict[tuple[str, str], list[int]] = {}
        for f in imported.of_level(level):
            modules.setdefault((f.module, f.text), []).append(f.number)
        if modules:
            result.append(f"{HEADINGS[level]}:")
        for (module, text), numbers in modules.items():
            which = ", ".join(map(str, sorted(filter(None, set(numbers)))))
            result.append(f"  {module}{f' ({which})' if which else ''}: {printable(text, 400)[1:-1]}")
    return result


def stops(imported: Translated) -> str:
    """Why a run should not begin without being told to; nothing where labels and values are the pipeline's."""
    verdict = imported.verdict
    if verdict["labels"] != "equal":
        return f"labels {verdict['labels']}"
    return "values differ" if imported.of_level("values") else ""


def settings(imported: Translated, base: Config | None = None) -> Config:
    """The settings that run the steps; ValueError where there are none."""
    if not (imported.steps or imported.function_steps):
        raise ValueError("nothing in this pipeline can be done; the lines above say why")
    base = base or Config()
    channels = tuple(dict.fromkeys([*imported.channels, *imported.functions]))
    known = {c.lower() for c in PlateSettings().channels}
    stains = {c.lower(): c for c in channels if c.lower() not in known}
    plate = replace(base.plate, channels=channels, stains=base.plate.stains | stains)
    rules = imported.source.assign
    told = plate.pattern or plate.assign or plate.numbers != PlateSettings().numbers  # by the user, whose word counts
    if set(channels) <= rules.keys() and not told:  # else files are found as any plate's are
        plate = replace(plate, pattern=imported.source.pattern, assign={c: rules[c] for c in channels})
    return replace(base, plate=plate, steps=imported.steps, functions=imported.function_steps)


def told(imported: Translated, names: Sequence[str]) -> str:
    return "\n".join([f"{', '.join(names)}:", *lines(imported)])
