"""Settings as TOML that `load_config` reads back."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

from .config import Config


def as_toml(config: Config) -> str:
    """Every setting as TOML that `load_config` reads back; what is None is the word "none"."""
    table = dataclasses.asdict(config)
    for key, steps in (("functions", config.functions), ("steps", config.steps)):
        table[key] = [step_table(step) for step in steps]
        if not steps:
            del table[key]
    return "\n".join(toml_lines(table)) + "\n"


def toml_lines(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """A table's own values, then its tables."""
    if path:
        yield f"\n[{'.'.join(path)}]"
    tables = {key for key, value in table.items() if isinstance(value, dict) or is_tables(value)}
    for key, value in table.items():
        if key not in tables:
            yield f"{toml_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        if key in tables and isinstance(value, dict):
            yield from toml_lines(value, (*path, toml_key(key)))
        elif key in tables:
            for entry in value:
                yield from [
                    f"\n[[{'.'.join((*path, toml_key(key)))}]]",
                    *list(toml_lines(entry, (*path, toml_key(key))))[1:],
                ]


def is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(v, dict) for v in value)


def toml_key(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else toml_value(key)


def toml_value(value: Any) -> str:
    """A number, word, truth or list of them; JSON's spelling is TOML's for these."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    text = json.dumps("none" if value is None else value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] if c < "\U00010000" else f"\\U{ord(c):08x}" for c in text)


def step_table(step: Any) -> dict[str, Any]:
    """The table that `read_steps` reads back; what is at its default is left out."""
    result: dict[str, Any] = {"do": step.do}
    for f in dataclasses.fields(step):
        value = getattr(step, f.name)
        if f.default is not dataclasses.MISSING and value == f.default:
            continue
        result[f.name] = (
            dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        )
    return result
