"""`python -m jumpgpu.score`: scores of profiles against seeded nulls, by condition, as a table, JSON and figures."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .cli.parser import add_parser, command_parser
from .profiles import conventions
from .profiles import design_checks as designs
from .profiles import platemap as platemaps
from .profiles.files import numbers_beside, read_profiles, recorded, write_table
from .profiles.held_out import hold_out
from .profiles.make import TABLES
from .profiles.platemap import SAMPLE, column_name, feature_columns
from .profiles.recipe import load_recipe
from .profiles.text_tables import as_text
from .scores import figures
from .scores import mean_average_precision as maps
from .scores.common import Score, choose_features, concatenate
from .scores.embedding import METHODS, Picture, embed, similarity
from .scores.hits import TOXIC, Hits, dose_response, hits
from .scores.mean_average_precision import MeanPrecision
from .scores.percent_matching import LABEL, percent_matching
from .scores.percent_replicating import percent_replicating
from .scores.transfer import Baselines, baselines, pairs
from .settings.names import BRIGHTFIELD, CHANNELS, COMPARTMENTS, FAMILIES
from .storage.atomic import write_whole

PLATE_FORMAT = 384  # wells of a plate where nobody says


def parser() -> argparse.ArgumentParser:
    produced = command_parser(
        "score",
        "Score profiles against seeded nulls, condition by condition: a table, JSON and figures.",
        "jumpgpu score replicating --plate BR00117010 --plate BR00117011 --output out",
        "jumpgpu score map --help",
    )
    commands = produced.add_subparsers(dest="score", required=True, metavar="SCORE")

    one = add_parser(
        commands,
        "replicating",
        "Percent Replicating: whether replicates are more alike than other wells",
        "jumpgpu score replicating --plate BR00117010 --plate BR00117011 --output out",
    )
    add_common(one)
    one.add_argument(
        "--null-wells",
        metavar="N",
        help="wells a set: a number, typical (the median group's) or matched (default: the recipe's)",
    )

    add_null(one)

    one = add_parser(
        commands,
        "matching",
        "Percent Matching: whether treatments of one gene are more alike than others",
        "jumpgpu score matching --plate BR00117010 --plate BR00117011 --output out",
    )
    add_common(one)
    add_against(one)
    one.add_argument(
        "--label", metavar="COLUMN", help=f"of labels that match, several as a|b (default: {LABEL}, or by convention)"
    )

    one = add_parser(
        commands,
        "map",
        "mean average precision by copairs, both p-value conventions",
        "jumpgpu score map --plate BR00117010 --plate BR00117011 --output out",
    )
    add_common(one)
    one.add_argument(
        "--label", metavar="COLUMN", help="score matching by this column (several labels: a|b) instead of replicability"
    )
    one.add_argument(
        "--across", metavar="COLUMN", help="in which the two of a matching pair must differ, such as Perturbation"
    )
    one.add_argument(
        "--keep",
        choices=(*maps.CONVENTIONS, "all"),
        default="map",
        help="treatments to match: retrieved by (default: %(default)s)",
    )
    one.add_argument(
        "--null-size", type=int, default=maps.NULL_SIZE, metavar="N", help="random rankings (default: %(default)s)"
    )

    add_null(one)

    one = add_parser(
        commands,
        "hits",
        "one table of treatments: retrieved or not, checked by position, what they do to the number of cells, by label",
        "jumpgpu score hits --plate BR00117010 --plate BR00117011 --output out --label gene",
    )
    add_common(one)
    one.add_argument("--label", metavar="COLUMN", help="count treatments by this column too, such as gene (several: a|b)")
    one.add_argument(
        "--convention", choices=maps.CONVENTIONS, default="map", help="p-value that makes a hit (default: %(default)s)"
    )
    one.add_argument(
        "--null-size", type=int, default=maps.NULL_SIZE, metavar="N", help="random rankings (default: %(default)s)"
    )
    add_toxic(one)
    add_null(one)

    one = add_parser(
        commands,
        "dose",
        "how strong profiles are at each dose of a treatment, and at which dose cells die",
        "jumpgpu score dose --plate SQ00015054.csv.gz --dose mmoles_per_liter --output out",
    )
    add_common(one)
    one.add_argument("--dose", required=True, metavar="COLUMN", help="of numbers, such as mmoles_per_liter")
    add_toxic(one)

    one = add_parser(
        commands,
        "embed",
        "wells in a plane, by principal components or UMAP: data for a picture",
        "jumpgpu score embed --plate BR00117010 --plate BR00117011 --output out --method umap",
    )
    add_common(one)
    one.add_argument("--method", choices=METHODS, default="pca", help="umap needs jumpgpu[umap] (default: %(default)s)")

    one = add_parser(
        commands,
        "similarity",
        "how alike every two wells are, replicates side by side: data for a heat map",
        "jumpgpu score similarity --plate BR00117010 --plate BR00117011 --output out",
    )
    add_common(one)

    one = add_parser(
        commands,
        "transfer",
        "predict profiles of one condition from another: the scores of the baselines",
        "jumpgpu score transfer --plate BR00117010 --against BR00117020 --output out --by Cell_type",
    )
    add_common(one)
    add_against(one, required=True)
    return produced


def add_common(command: argparse.ArgumentParser) -> None:
    """What every score takes: profiles, conditions, subsets, null, output."""
    add = command.add_argument_group("profiles").add_argument
    add("--plate", action="append", required=True, metavar="PLATE", help="barcode, or a profile file (repeatable)")
    add(
        "--table",
        choices=TABLES,
        metavar="NAME",
        help="which table of a barcode (default: the first there is: feature-selected, by negcon)",
    )
    add(
        "--group",
        metavar="COLUMN",
        help=f"names a treatment, whose wells are replicates; several as A,B (default: {SAMPLE}, or by convention)",
    )
    add("--metadata", type=Path, metavar="DIR", help="with experiment-metadata.tsv (default: <output>/metadata)")
    add("--treatments", type=Path, metavar="FILE", help="table whose further columns are joined, such as target_list")
    add("--batch", metavar="NAME", help="batch of the experiment table, where barcodes appear in several")
    add("--plate-column", metavar="COLUMN", help="names the plate (default: Metadata_Plate, or by convention)")
    add("--well-column", metavar="COLUMN", help="names the well (default: Metadata_Well, or by convention)")
    add = command.add_argument_group("conditions and subsets").add_argument
    add("--by", action="append", default=[], metavar="COLUMN", help="separates conditions, such as Cell_type (repeatable)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only such plates or wells (repeatable)")
    add(
        "--control",
        action="append",
        metavar="COLUMN=VALUE",
        help="wells that are negative controls (repeatable; default: the recipe's, Metadata_control_type=negcon)",
    )
    add("--inner", action="store_true", help="leave out the two rows and columns nearest the edge")
    add("--plate-format", type=int, choices=designs.FORMATS, help="wells of a plate (default: 384)")
    add(
        "--channel",
        action="append",
        default=[],
        choices=(*CHANNELS, *BRIGHTFIELD),
        metavar="CHANNEL",
        help="only features of this one (repeatable)",
    )
    add(
        "--without-channel",
        action="append",
        default=[],
        choices=(*CHANNELS, *BRIGHTFIELD),
        metavar="CHANNEL",
        help="no feature of this one (repeatable)",
    )
    add("--fluorescence", action="store_true", help="no feature of a brightfield channel")
    add(
        "--family",
        action="append",
        default=[],
        choices=FAMILIES,
        metavar="FAMILY",
        help="only features of this family, such as Texture (repeatable)",
    )
    add("--compartment", action="append", default=[], choices=COMPARTMENTS, help="only features of this one (repeatable)")
    add(
        "--features",
        action="append",
        metavar="PATTERN",
        help="columns that are features besides those of Cells, Cytoplasm and Nuclei, such as 'efficientnet_*' (repeatable)",
    )
    add = command.add_argument_group("null and output").add_argument
    add("--recipe", default="jumpgpu", metavar="FILE", help="whose [score] says how nulls are drawn (default: %(default)s)")
    add("--draws", type=int, metavar="N", help="sets or pairs in the null (default: the recipe's)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random null (default: %(default)s)")
    add("--output", type=Path, default=Path("."), metavar="DIR", help="holds profiles/, gets scores/ (default: .)")
    add("--name", metavar="NAME", help="of the results' files (default: the score's)")
    add("--no-figures", action="store_true", help="write the table and JSON only")


def add_toxic(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--toxic",
        type=float,
        default=TOXIC,
        metavar="SHARE",
        help="of the controls' cells, at which a treatment is flagged as toxic (default: %(default)s)",
    )


def add_null(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--null",
        choices=("wells", "position"),
        default="wells",
        help="what treatments are judged against: wells of other treatments or controls (wells; default), or wells of one "
        "position, of different treatments where the layouts allow it and negative controls otherwise",
    )


def add_against(command: argparse.ArgumentParser, required: bool = False) -> None:
    help = "plates of the other side, such as another modality" + ("" if required else " (default: pairs within --plate)")
    command.add_argument("--against", action="append", default=[], required=required, metavar="PLATE", help=help)
    command.add_argument(
        "--same", action="append", default=[], metavar="COLUMN", help="pair only conditions that agree in this --by column"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(argv)
    try:
        start = time.perf_counter()
        recipe = load_recipe(options.recipe)
        options.draws = recipe.score.draws if options.draws is None else options.draws
        options.null_wells = getattr(options, "null_wells", None) or recipe.score.null_wells
        options.control = tuple(options.control or recipe.controls)
        options.features = tuple(options.features or recipe.features)
        name = options.name or options.score
        results = list(SCORES[options.score](options))
        further = tuple(f for h in options.held_out for f in h.findings)
        results = [dataclasses.replace(r, findings=(*r.findings, *further)) for r in results]
        write(results, options.output / "scores", name, not options.no_figures)
        for result in results:
            seconds = time.perf_counter() - start
            say([check.line() for check in getattr(result, "checks", ())], result.condition or result.name)
            for finding in result.findings:
                print(f"{result.condition or result.name}: {finding}", file=sys.stderr)
            print("  ".join(filter(None, [result.name, result.condition, headline(result), f"{seconds:.1f} s"])))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def score_replicating(options: argparse.Namespace) -> Iterator[Score]:
    null_wells = int(options.null_wells) if options.null_wells.isdecimal() else options.null_wells
    for condition, rows in conditions(read_all(options, options.plate), options.by):
        report_design(rows, condition, options)
        yield percent_replicating(
            rows,
            options.group,
            condition,
            null_wells,
            options.draws,
            options.seed,
            options.features,
            options.null,
            judging_controls(options, rows),
        )


def score_matching(options: argparse.Namespace) -> Iterator[Score]:
    for condition, rows, others in sides(options):
        report_design(rows, condition, options)
        label, said = conventions.choose_label(rows, column_name(options.label) if options.label else None)
        say(conventions.one_line(said), condition or "plates")
        yield percent_matching(
            rows,
            others,
            label,
            options.group,
            condition,
            options.draws,
            options.seed,
            options.features,
            judging_controls(options, rows, others),
        )


def score_map(options: argparse.Namespace) -> Iterator[MeanPrecision]:
    for condition, rows in conditions(read_all(options, options.plate), options.by):
        report_design(rows, condition, options)
        keep = None
        if options.label is None or options.keep != "all":
            result = maps.replicability(
                rows,
                options.group,
                condition,
                options.null_size,
                options.seed,
                options.features,
                options.null,
                judging_controls(options, rows),
            )
            if options.label is None:
                yield result
                continue
            keep = list(result.table.loc[result.table[f"retrieved_{options.keep}"], options.group])
        label = column_name(options.label)
        column(rows, label)
        across = column_name(options.across) if options.across else None
        yield maps.matching(
            rows,
            label,
            options.group,
            keep,
            across,
            condition,
            options.null_size,
            options.seed,
            options.features,
            judging_controls(options, rows),
        )


def score_hits(options: argparse.Namespace) -> Iterator[Hits]:
    for condition, rows in conditions(read_all(options, options.plate), options.by):
        report_design(rows, condition, options)
        label = None if options.label is None else str(column(rows, options.label).name)
        precision = maps.replicability(
            rows,
            options.group,
            condition,
            options.null_size,
            options.seed,
            options.features,
            options.null,
            judging_controls(options, rows),
        )
        yield hits(precision, rows, label, options.toxic, options.convention)


def score_dose(options: argparse.Namespace) -> Iterator[Hits]:
    for condition, rows in conditions(read_all(options, options.plate), options.by):
        report_design(rows, condition, options)
        dose = str(column(rows, options.dose).name)
        yield dose_response(rows, options.group, dose, condition, options.toxic, options.features)


def score_embed(options: argparse.Namespace) -> Iterator[Picture]:
    for condition, rows in conditions(read_all(options, options.plate), options.by):
        yield embed(rows, options.group, options.method, condition, options.seed, options.features)


def score_similarity(options: argparse.Namespace) -> Iterator[Picture]:
    for condition, rows in conditions(read_all(options, options.plate), options.by):
        yield similarity(rows, options.group, condition, options.features)


def score_transfer(options: argparse.Namespace) -> Iterator[Baselines]:
    for condition, rows, others in sides(options):
        assert others is not None
        matched = pairs(rows, others, options.group, seed=options.seed, also=options.features)
        yield baselines(matched, condition, {"on": options.group, "seed": options.seed})


SCORES: dict[str, Callable[[argparse.Namespace], Iterator[Any]]] = {
    "replicating": score_replicating,
    "matching": score_matching,
    "map": score_map,
    "hits": score_hits,
    "dose": score_dose,
    "embed": score_embed,
    "similarity": score_similarity,
    "transfer": score_transfer,
}


def headline(result: Score | MeanPrecision | Hits | Picture | Baselines) -> str:
    """The result in a few words, with what the score says of controls that share a position (or what else is known)."""
    known = [c for c in getattr(result, "checks", ()) if not c.reason]
    controls = f"  controls by {known[0].place} {known[0].percent:.1f} %" if known else ""
    if known:
        controls += f" ({known[0].low:.1f} to {known[0].high:.1f})"
    if isinstance(result, Score):
        scored = int(result.table["value"].notna().sum())
        low, high = result.interval
        interval = "" if low != low else f"  95 % interval {low:.1f} to {high:.1f}"
        return f"{result.percent:.1f} % above  {result.share('below'):.1f} % below  {scored} scored{interval}{controls}"
    if isinstance(result, MeanPrecision):
        shares = "  ".join(f"{result.fraction_retrieved(c):.3f} retrieved (p {c})" for c in maps.CONVENTIONS)
        return f"{shares}  {len(result.table)} scored{controls}"
    if isinstance(result, Hits):
        counts = {k: v for k, v in result.summary().items() if k.startswith("n_")}
        return "  ".join([f"{len(result.table)} rows", *(f"{v} {k.removeprefix('n_')}" for k, v in counts.items())])
    if isinstance(result, Picture):
        explained = [f"{100 * share:.1f} % of variance" for share in result.settings.get("explained", ())]
        return "  ".join([f"{len(result.table)} wells", f"{result.settings['features']} features", *explained])
    rows = result.table.itertuples()
    return "  ".join(
        f"{r.baseline}: r {r.correlation:.2f}, retrieval {r.retrieval:.2f} (chance {r.chance:.2f})" for r in rows
    )


def report_design(profiles: pd.DataFrame, condition: str, options: argparse.Namespace) -> None:
    """What the design means for the score, on stderr, before it."""
    findings = [f"{condition or 'plates'}: {f}" for f in designs.check_replicates(profiles, options.group)]
    for _, plate in profiles.groupby("Metadata_Plate", sort=True):
        findings += designs.check_plate(plate, plate_format=options.plate_format or PLATE_FORMAT, group=options.group)
    for finding in findings:
        print(finding, file=sys.stderr)


def read_all(options: argparse.Namespace, plates: Sequence[str]) -> pd.DataFrame:
    """All profiles asked for, with conditions, wells and features chosen."""
    paths = [find_profiles(p, options.output, options.table) for p in plates]
    same_table(paths, plates)
    for path in paths:
        print(f"profiles: {path}", file=sys.stderr)
    for plate in plates if not options.features else ():  # what profile was asked for
        asked = recorded(options.output / "profiles" / plate, plate).get("recipe", {}).get("features", ())
        options.features = tuple(dict.fromkeys((*options.features, *asked)))
    tables = [read_profiles(p, options.features, options.plate_column, options.well_column) for p in paths]
    for path, table in zip(paths, tables, strict=True):
        say(table.attrs["findings"], str(path))
        say(platemaps.feature_findings(table, options.features), str(path))
    produced = {
        plate: numbers_beside(p, plate)
        for p, table in zip(paths, tables, strict=True)
        for plate in table["Metadata_Plate"].unique()
    }
    say(designs.check_numbers(produced))
    held_out = hold_out(paths, [recorded(p.parent, p.parent.name) for p in paths])
    options.held_out = [*getattr(options, "held_out", ()), held_out]
    if held_out.replace is not None:
        tables = [with_controls(t, held_out.replace, options.features) for t in tables]
    profiles = concatenate(tables, options.features)
    say(profiles.attrs["findings"], "plates")
    if options.treatments:
        treatments = platemaps.read_treatments(options.treatments)
        say(treatments.attrs["findings"])
        treatments = treatments.rename(columns=column_name)
        new = [SAMPLE, *(c for c in treatments if c not in profiles)]
        profiles = profiles.assign(**{SAMPLE: as_text(column(profiles, SAMPLE))})
        profiles = profiles.merge(treatments.loc[treatments[SAMPLE].notna(), new], on=SAMPLE, how="left")
    for where in options.where:
        if not where.partition("=")[1]:
            raise ValueError(f"--where {where}: expected COLUMN=VALUE, such as Cell_type=U2OS")
    columns = [column_name(c) for c in (*options.by, *(w.partition("=")[0].strip() for w in options.where))]
    if any(c not in profiles for c in columns):
        folder = options.metadata or options.output / "metadata"
        experiments = platemaps.read_experiments(folder / platemaps.EXPERIMENTS, options.batch)
        say(experiments.attrs["findings"])
        profiles = platemaps.add_conditions(profiles, experiments)
    elif options.batch:
        print(f"--batch {options.batch} is not used: the profiles have every column asked for", file=sys.stderr)
    profiles, options.group, said = conventions.group_columns(profiles, options.group)
    say(conventions.one_line(said), "plates")
    profiles, controls = conventions.choose_controls(profiles, options.control)
    say(conventions.one_line(controls), "plates")
    for where in options.where:
        name, _, value = where.partition("=")
        held = column(profiles, name.strip())
        here = as_text(held).fillna("") == value.strip()
        if not here.any():
            raise ValueError(f"--where {where}: no well is left; {held.name} holds {platemaps.held(held)}")
        profiles = profiles[here]
    if options.inner:
        if options.plate_format is None and designs.fits(profiles["Metadata_Well"], 96):
            raise ValueError("--inner: every well is one of a plate of 96 too; say --plate-format 96 or 384")
        profiles = profiles[designs.is_inner(profiles["Metadata_Well"], options.plate_format or PLATE_FORMAT)]
    features = choose_features(
        feature_columns(profiles, options.features),
        options.channel,
        options.family,
        options.compartment,
        (*options.without_channel, *(BRIGHTFIELD if options.fluorescence else ())),
    )
    return profiles[[*platemaps.metadata_columns(profiles), *features]].reset_index(drop=True)


def with_controls(table: pd.DataFrame, controls: pd.DataFrame, also: Sequence[str]) -> pd.DataFrame:
    """A plate's table with its negative controls' features from another: those that no step was fitted on."""
    keys = ["Metadata_Plate", "Metadata_Well"]
    features = [f for f in feature_columns(table, also) if f in controls]
    new = table[keys].merge(controls[[*keys, *features]], on=keys, how="left", validate="one_to_one")
    held = new[features[0]].notna().to_numpy()
    values = np.where(held[:, None], new[features].to_numpy(float), table[features].to_numpy(float))
    return pd.concat([table.drop(columns=features), pd.DataFrame(values, columns=features, index=table.index)], axis=1)


def judging_controls(options: argparse.Namespace, *sides: pd.DataFrame | None) -> pd.DataFrame | str | None:
    """Negative controls that may judge these wells: None for their own, or why there are none (`held_out`)."""
    held_out, given = options.held_out, [s for s in sides if s is not None]
    if refused := [h.refused for h in held_out if h.refused]:
        return str(refused[0])
    if all(h.check is None for h in held_out):
        return None
    keys, parts = ["Metadata_Plate", "Metadata_Well"], []
    for h, rows in zip(held_out, given, strict=False):
        if h.check is None:
            parts.append(rows)
            continue
        features = choose_features(
            feature_columns(h.check, options.features),
            options.channel,
            options.family,
            options.compartment,
            (*options.without_channel, *(BRIGHTFIELD if options.fluorescence else ())),
        )
        marks = [*keys, *(c for c in (platemaps.NEGATIVE,) if c in rows)]
        metadata = [c for c in platemaps.metadata_columns(h.check) if c in keys or c not in marks]
        parts.append(h.check[[*metadata, *features]].merge(rows[marks], on=keys))
    return concatenate(parts, options.features)


def say(findings: Sequence[str], of: str = "") -> None:
    for finding in findings:
        print(f"{of}: {finding}" if of else finding, file=sys.stderr)


def find_profiles(argument: str, output: Path, table: str | None) -> Path:
    """A profile file: given by path, or a barcode's table (of the last run of profile, in the order of `TABLES`)."""
    path = Path(argument)
    if path.name.endswith((".parquet", ".csv", ".csv.gz")):
        if table is not None:
            raise ValueError(f"{argument} is a table itself; --table {table} chooses among those of a barcode")
        return path
    folder = output / "profiles" / argument
    produced = recorded(folder, argument).get("tables", TABLES)
    for name in (table,) if table else [t for t in TABLES if t in produced]:
        if (path := folder / f"{argument}_{name}.parquet").is_file():
            return path
    raise FileNotFoundError(f"plate {argument}: no {table or 'normalized'} table in {folder}; run python -m jumpgpu.profile")


def same_table(paths: Sequence[Path], plates: Sequence[str]) -> None:
    """ValueError where barcodes led to different tables: their features would not mean the same."""
    kinds = {
        p.stem.removeprefix(f"{plate}_") for p, plate in zip(paths, plates, strict=True) if p.name.startswith(f"{plate}_")
    }
    if len(kinds) > 1:
        raise ValueError(f"the plates have different tables ({', '.join(sorted(kinds))}); choose one by --table")


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
    keys = [as_text(column(profiles, name)).fillna(f"no {name}") for name in by]
    for values, rows in profiles.groupby(keys, sort=True):
        yield " ".join(values), rows.reset_index(drop=True)


def sides(options: argparse.Namespace) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame | None]]:
    """Each condition of --plate with each of --against (or alone), `A549 24 to A549 96` a name."""
    if stray := [s for s in options.same if s not in options.by]:
        raise ValueError(f"--same {stray[0]} is no column of --by")
    first = list(conditions(read_all(options, options.plate), options.by))
    if not options.against:
        yield from ((condition, rows, None) for condition, rows in first)
        return
    second = list(conditions(read_all(options, options.against), options.by))
    met = False
    for condition, rows in first:
        for other, others in second:
            if all(as_text(column(rows, s).iloc[:1]).equals(as_text(column(others, s).iloc[:1])) for s in options.same):
                met = True
                yield f"{condition} to {other}" if condition else "", rows, others
    if not met:
        raise ValueError(f"no two conditions of --plate and --against agree in {', '.join(options.same)}")


def name_of(results: Sequence[Any]) -> str:
    return str(results[0].name)


def write(results: Sequence[Any], folder: Path, name: str, with_figures: bool) -> None:
    """`<name>.parquet` (one row per group), `<name>.json` (one record per condition), figures as PNG and SVG."""
    write_table(pd.concat([r.tidy() for r in results], ignore_index=True), folder / f"{name}.parquet")
    for summary in {s for r in results if isinstance(r, Hits) for s in r.summaries}:
        parts = [r.summaries[summary].assign(condition=r.condition) for r in results]
        write_table(pd.concat(parts, ignore_index=True), folder / f"{name}_{summary}.parquet")
    records = [
        {k: None if v != v else v for k, v in r.summary().items()}  # JSON has no nan
        | ({"histogram": r.histogram()} if isinstance(r, Score) else {})
        for r in results
    ]
    write_whole(folder / f"{name}.json", json.dumps(records, indent=1) + "\n")
    if not with_figures:
        return
    if all(isinstance(r, Score) for r in results):
        figures.save(figures.distributions(results), folder / name)
        if len(results) > 1:
            figures.save(figures.bars(results), folder / f"{name}_percent")
    elif all(isinstance(r, MeanPrecision) for r in results):
        figures.save(figures.precisions(results), folder / name)
    elif all(isinstance(r, Hits) for r in results):
        figures.save(figures.doses(results) if name_of(results) == "dose" else figures.named_hits(results), folder / name)


if __name__ == "__main__":
    sys.exit(main())
