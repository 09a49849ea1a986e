"""`python -m jumpgpu.columns`: the columns that a configuration gives, and what each of them means."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache, reduce
from typing import Any

from .cli.exit_status import command, run_command
from .cli.parser import command_parser
from .features import families as features
from .features import image_quality as quality
from .features.glossary import FAMILIES, PARTS
from .settings.config import Config, FeatureSettings, load_config
from .settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS


@dataclass(frozen=True)
class Explanation:
    """What one column means, in words."""

    column: str
    compartment: str
    family: str
    parts: str  # measure, channel, scale and so on, as the name says them
    formula: str
    source: str
    computed: str  # kernel file and line, and the module that launches it
    unit: str
    settings: str
    produced: str  # whether the configuration gives this very column
    nan: str

    def __str__(self) -> str:
        rows = {f.name: getattr(self, f.name) for f in fields(self)}
        return "\n".join(f"{name:<12}{value}" for name, value in rows.items())


def explain(column: str, config: Config | None = None) -> Explanation:
    """Family, formula, source, unit, settings and NaN rule of a column, whichever settings its name stands for.

    `parts` are the name's own parameters, `settings` the configuration's, and `produced` says whether the two agree.

    ValueError for a name that is not a column's, with the nearest ones that are, and for one of an unknown channel.
    """
    compartment, _, rest = column.partition("_")
    word, _, rest = rest.partition("_")
    family = FAMILIES.get(word)
    match = family.match(rest) if family and compartment else None
    if family is None or match is None or (word == "ImageQuality") != (compartment == "Image"):
        near = get_close_matches(column, [*features.columns(channels=CHANNELS), *quality.columns(CHANNELS)], 3)
        raise ValueError(f"{column!r} is not a column" + (f"; the nearest are {', '.join(near)}" if near else ""))
    result = {k: v for k, v in match.groupdict().items() if v}
    check_channels(column, result, config or Config())
    formula, unit, nan = family.measures[result.pop("measure", "")]
    said = [match["measure"]] if match["measure"] else []
    said += [f"{PARTS[part]}: {value}" for part, value in result.items()]
    settings = config or Config()
    return Explanation(
        column,
        compartment,
        word,
        "; ".join(said),
        formula,
        f"{family.tool}{family.source}",
        f"{family.place(match['measure'] or '')}, by jumpgpu/features/{family.module}.py",
        unit or family.unit,
        ", ".join(f"{key} = {_setting(settings, key)}" for key in family.settings) or "none",
        _produced(column, compartment, result.get("channel", ""), settings),
        nan or family.nan,
    )


def check_channels(column: str, parts: dict[str, str], config: Config) -> None:
    """ValueError for a column of a channel that neither the configuration nor CellProfiler's Cell Painting names have."""
    known = dict.fromkeys((*config.plate.channels, *CHANNELS, *BRIGHTFIELD))
    named = [parts["channel"]] if "channel" in parts else []
    if "pair" in parts and parts["pair"] not in {f"{a}_{b}" for a in known for b in known}:
        named = [c for c in parts["pair"].split("_") if c not in known] or [parts["pair"]]
    if unknown := [c for c in named if c not in known]:
        near = get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {near[0]}?" if near else "; --channels or a --config names others"
        raise ValueError(f"{column!r}: {unknown[0]!r} is not a channel of this configuration ({', '.join(known)}){hint}")


def matching(pattern: str, config: Config) -> list[str]:
    """The columns of a configuration that a pattern such as `Nuclei_Texture_*_RNA_*` fits; a name without * is itself."""
    if not set(pattern) & set("*?["):
        return [pattern]
    known = [
        *features.columns(COMPARTMENTS, config.plate.channels, config.features),
        *(quality.columns(config.plate.channels) if pattern.startswith("Image") else ()),
    ]
    result = [c for c in known if fnmatchcase(c, pattern)]
    if not result:
        raise ValueError(f"no column of this configuration fits {pattern!r}; jumpgpu columns lists them")
    return result


def _produced(column: str, compartment: str, channel: str, config: Config) -> str:
    channels = tuple(config.plate.channels)
    if column in _configured(compartment, channels, config.features):
        return "yes"
    if channel and channel not in channels:
        return f"not by this configuration: its channels are {', '.join(channels)}"
    return "not by this configuration, whose settings differ from the name's parts"


@lru_cache(maxsize=16)
def _configured(compartment: str, channels: tuple[str, ...], settings: FeatureSettings) -> frozenset[str]:
    if compartment == "Image":
        return frozenset(quality.columns(channels) if settings.image_quality else ())
    known = COMPARTMENTS if compartment in COMPARTMENTS else (compartment,)
    return frozenset(features.columns(known, channels, settings))


def _setting(config: Config, key: str) -> Any:
    value = reduce(getattr, key.split("."), config)
    assert not is_dataclass(value), key
    return list(value) if isinstance(value, tuple) else value


def parser() -> argparse.ArgumentParser:
    output = command_parser(
        "columns",
        "List the feature columns that a configuration gives, in stored order, or say what columns mean: formula, source, "
        "unit, settings, and when a value is NaN.",
        "jumpgpu columns --config jump-production",
        "jumpgpu columns --explain Nuclei_Texture_Variance_RNA_5_03_256",
    )
    add = output.add_argument
    add(
        "--explain",
        metavar="NAME",
        nargs="+",
        help="explain these columns; patterns such as 'Nuclei_Texture_*_RNA_*' too",
    )
    add("--channels", metavar="NAME", nargs="+", help="names of the channels (default: the configuration's)")
    add(
        "--compartments",
        metavar="NAME",
        nargs="+",
        default=COMPARTMENTS,
        help="names of the label images (default: Cells, Cytoplasm, Nuclei)",
    )
    add("--config", metavar="FILE", help="TOML file or preset name (default: cpjump1)")
    return output


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """List the columns, one a line, or explain some; 2 for bad use."""
    args = parser().parse_args(arguments)
    config = load_config(args.config) if args.config else Config()
    if args.channels:
        config = replace(config, plate=replace(config.plate, channels=tuple(args.channels)))
    if args.explain:
        names = dict.fromkeys(name for pattern in args.explain for name in matching(pattern, config))
        print("\n\n".join(str(explain(name, config)) for name in names))
    else:
        print("\n".join(features.columns(args.compartments, config.plate.channels, config.features)))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
