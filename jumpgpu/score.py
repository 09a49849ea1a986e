"""`python -m jumpgpu.score`: scores of profiles against seeded nulls, by condition, as a table, JSON and figures."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from . import designs, platemaps
from .names import BRIGHTFIELD, CHANNELS, FAMILIES
from .platemaps import SAMPLE, feature_columns
from .profiles import read_profiles, write_table
from .replicating import percent_replicating
from .scores import DRAWS, Score, choose_features, concatenate

TABLES = (  # looked for in this order when --table is not given
    "normalized_feature_select_negcon_batch",
    "normalized_feature_select_negcon_plate",
    "normalized_feature_select_batch",
    "normalized_feature_select_plate",
    "normalized_negcon",
    "normalized",
)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m jumpgpu.score", description=__doc__)
    commands = arguments.add_subparsers(dest="score", required=True)
    replicating = commands.add_parser("replicating", help="Percent Replicating")
    add_common(replicating)
    replicating.add_argument("--group", default=SAMPLE, help=f"column whose equal values are replicates [{SAMPLE}]")
    replicating.add_argument(
        "--null-wells",
        default="typical",
        help="wells a draw: a number, 'typical' (the median group's) or 'matched' [typical]",
    )
    return arguments


def add_common(command: argparse.ArgumentParser) -> None:
    """What every score takes: profiles, conditions, subsets, null, output."""
    add = command.add_argument
    add("--plate", action="append", required=True, help="barcode below <output>/profiles, or a profile file (repeatable)")
    add("--output", type=Path, default=Path("."), help="folder of profiles/; results go to its scores/ [.]")
    add("--table", choices=TABLES, help="which table of a barcode [the first there is: feature-selected, by negcon]")
    add("--metadata", type=Path, help="metadata folder with experiment-metadata.tsv [<output>/metadata]")
    add("--batch", help="batch of the experiment table, where barcodes appear in several")
    add("--by", action="append", default=[], help="column that separates conditions, such as Cell_type or Time (repeatable)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such plates or wells (repeatable)")
    add("--inner", action="store_true", help="leave out the two rows and columns nearest the edge")
    add("--plate-format", type=int, choices=designs.FORMATS, default=384, help="wells of a plate [384]")
    add("--channel", action="append", default=[], choices=(*CHANNELS, *BRIGHTFIELD), help="only features of these channels")
    add("--without-channel", action="append", default=[], choices=(*CHANNELS, *BRIGHTFIELD), help="no feature of these")
    add("--fluorescence", action="store_true", help="no feature of a brightfield channel")
    add("--family", action="append", default=[], choices=FAMILIES, help="only features of these families")
    add("--compartment", action="append", default=[], help="only features of these compartments")
    add("--draws", type=int, default=DRAWS, help=f"sets in the null [{DRAWS}]")
    add("--seed", type=int, default=0, help="another number, another null [0]")
    add("--name", help="name of the results' files [the score's]")


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(argv)
    try:
        start = time.perf_counter()
        profiles = read_all(options)
        scores = [score(part, condition, options) for condition, part in conditions(profiles, options.by)]
        write(scores, options.output / "scores", options.name or options.score)
        for result in scores:
            label = f"  {result.condition}" if result.condition else ""
            scored = int(result.table["value"].notna().sum())
            seconds = time.perf_counter() - start
            print(f"{result.name}{label}  {result.percent:.1f} %  {scored} scored  {seconds:.1f} s")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def read_all(options: argparse.Namespace) -> pd.DataFrame:
    """All profiles asked for, with conditions, wells and features chosen; findings about the design go to stderr."""
    tables = []
    for argument in options.plate:
        path = find_profiles(argument, options.output, options.table)
        print(f"profiles: {path}", file=sys.stderr)
        tables.append(read_profiles(path))
    profiles = concatenate(tables)
    columns = [column_name(c) for c in (*options.by, *(w.partition("=")[0] for w in options.where))]
    if any(c not in profiles for c in columns):
        folder = options.metadata or options.output / "metadata"
        profiles = platemaps.add_conditions(
            profiles, platemaps.read_experiments(folder / platemaps.EXPERIMENTS, options.batch)
        )
    for where in options.where:
        name, _, value = where.partition("=")
        profiles = profiles[column(profiles, name).astype(str) == value]
        if profiles.empty:
            raise ValueError(f"--where {where}: no well is left")
    if options.inner:
        profiles = profiles[designs.is_inner(profiles["Metadata_Well"], options.plate_format)]
    features = choose_features(
        feature_columns(profiles),
        options.channel,
        options.family,
        options.compartment,
        (*options.without_channel, *(BRIGHTFIELD if options.fluorescence else ())),
    )
    return profiles[[*platemaps.metadata_columns(profiles), *features]].reset_index(drop=True)


def find_profiles(argument: str, output: Path, table: str | None) -> Path:
    """A profile file: given by path, or a barcode's table."""
    path = Path(argument)
    if path.name.endswith((".parquet", ".csv", ".csv.gz")):
        return path
    folder = output / "profiles" / argument
    for name in (table,) if table else TABLES:
        if (path := folder / f"{argument}_{name}.parquet").is_file():
            return path
    raise FileNotFoundError(f"plate {argument}: no {table or 'normalized'} table in {folder}; run python -m jumpgpu.profile")


def column_name(name: str) -> str:
    return name if name.startswith("Metadata_") else f"Metadata_{name}"


def column(profiles: pd.DataFrame, name: str) -> pd.Series:
    if column_name(name) not in profiles:
        known = ", ".join(platemaps.metadata_columns(profiles))
        raise ValueError(f"no column {column_name(name)} in profiles or experiment table; there are {known}")
    return profiles[column_name(name)]


def conditions(profiles: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Profiles by condition, `U2OS 48` a name; all together where nothing separates them."""
    if not by:
        yield "", profiles
        return
    keys = [column(profiles, name).astype(str) for name in by]
    for values, rows in profiles.groupby(keys, sort=True):
        yield " ".join(values), rows.reset_index(drop=True)


def score(profiles: pd.DataFrame, condition: str, options: argparse.Namespace) -> Score:
    """The score asked for, over one condition's profiles."""
    for finding in designs.check_replicates(profiles, options.group):
        print(f"{condition or 'plates'}: {finding}", file=sys.stderr)
    null_wells = int(options.null_wells) if options.null_wells.isdigit() else options.null_wells
    return percent_replicating(profiles, options.group, condition, null_wells, options.draws, options.seed)


def write(scores: Sequence[Score], folder: Path, name: str) -> None:
    """`<name>.parquet` (a row a group), `<name>.json` (a record a condition)."""
    write_table(pd.concat([s.tidy() for s in scores], ignore_index=True), folder / f"{name}.parquet")
    (folder / f"{name}.json").write_text(json.dumps([s.summary() for s in scores], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
