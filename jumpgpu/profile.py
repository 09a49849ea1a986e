"""`python -m jumpgpu.profile`: plates to well profiles, annotated, normalised and selected by a recipe."""

import argparse
import dataclasses
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from . import __version__
from .cli.parser import command_parser
from .profiles import conventions
from .profiles import design_checks as designs
from .profiles import platemap as platemaps
from .profiles.aggregate import aggregate
from .profiles.batch import describe_effects, effects_by_step
from .profiles.cell_quality import FLAGGED, CellRules, WithoutFlagged, add_shares, flag_plate, load_cell_rules
from .profiles.consensus import consensus
from .profiles.files import RECORD, numbers_beside, read_profiles, write_anndata, write_table
from .profiles.pipeline import FEATURES, barcode_of, make_profiles
from .profiles.platemap import feature_columns
from .profiles.recipe import LEVELS, REFERENCES, Recipe, load_recipe
from .profiles.recipe import check as check_recipe
from .profiles.standard_errors import standard_errors
from .scores.common import concatenate
from .storage.atomic import write_whole
from .storage.buckets import place_of
from .store.reader import StoredPlate, open_plate

STEPS = (
    "well_position",
    "cell_count",
    "position",
    "inverse_normal",
    "sphere",
    "combat",
    "harmony",
)  # of --without


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "profile",
        "Make well profiles of stored plates: aggregate, annotate, normalise and select by a recipe. The tables are "
        "Parquet, named as pycytominer names them.",
        "jumpgpu profile --plate BR00117010 --plate BR00117011 --output out --metadata metadata",
    )
    add = made.add_argument
    add(
        "--plate",
        action="append",
        required=True,
        metavar="PLATE",
        help="barcode, <plate>.zarr, or a table of wells (repeatable)",
    )
    add(
        "--output",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="holds <plate>.zarr, gets profiles/<plate>/ (default: .)",
    )
    add("--recipe", default="jumpgpu", metavar="FILE", help="recipe's name, or a .toml file (default: %(default)s)")
    add("--metadata", type=Path, metavar="DIR", help="platemaps/ and external/ (default: <output>/metadata)")
    add("--platemap", type=Path, metavar="FILE", help="one plate map for all plates, instead of the barcode table")
    add("--treatments", type=Path, metavar="FILE", help="treatment table, instead of the plate map's own in external/")
    add("--level", choices=LEVELS, help="select features over a plate or over all given (default: the recipe's)")
    add(
        "--reference",
        action="append",
        choices=REFERENCES,
        help="normalise by these wells (repeatable; default: the recipe's)",
    )
    add(
        "--without",
        action="append",
        default=[],
        choices=STEPS,
        metavar="STEP",
        help=f"leave out a step (repeatable): {', '.join(STEPS)}",
    )
    add(
        "--control",
        action="append",
        metavar="COLUMN=VALUE",
        help="wells that are negative controls (repeatable; default: the recipe's, Metadata_control_type=negcon)",
    )
    add(
        "--features",
        action="append",
        metavar="PATTERN",
        help="columns that are features besides those of Cells, Cytoplasm and Nuclei, such as 'efficientnet_*' (repeatable)",
    )
    add(
        "--consensus",
        metavar="COLUMN",
        help="write a profile a treatment too, the median of its wells on all plates, into profiles/consensus/: the column "
        "that names a treatment, several as A,B",
    )
    add("--plate-column", metavar="COLUMN", help="names the plate in a table (default: Metadata_Plate, or by convention)")
    add("--well-column", metavar="COLUMN", help="names the well in a table (default: Metadata_Well, or by convention)")
    add("--anndata", action="store_true", help="write every table as .h5ad too")
    add(
        "--flag-cells",
        nargs="?",
        const="",
        metavar="FILE",
        help="flag debris, mis-segmented, blurred and saturated cells by this file's rules (default: "
        "configs/cell_quality.toml): the table P_cell_flags, and each flag's share in the wells' tables",
    )
    add("--drop-flagged", action="store_true", help="leave flagged cells out of the wells' means")
    add(
        "--standard-errors",
        type=int,
        metavar="N",
        help="write P_standard_errors, by drawing each well's cells anew N times (200 are enough)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 bad use."""
    options = parser().parse_args(argv)
    try:
        run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    recipe = reduce(load_recipe(options.recipe), options.without, options.level, options.reference)
    recipe = dataclasses.replace(
        recipe,
        controls=tuple(options.control or recipe.controls),
        features=tuple(options.features or recipe.features),
    )
    check_recipe(recipe)
    rules = None
    if options.flag_cells is not None or options.drop_flagged:
        rules = load_cell_rules(options.flag_cells or None)
        print(f"cell rules: {json.dumps(dataclasses.asdict(rules))}", file=sys.stderr)
    folder = options.output / "profiles"
    print(f"recipe {options.recipe}: {json.dumps(dataclasses.asdict(recipe))}", file=sys.stderr)
    wells: dict[str, int] = {}
    kept: dict[str, str] = {}
    gathered: dict[str, list[pd.DataFrame]] = {}  # for the consensus
    tables: dict[str, list[str]] = {}
    numbers: dict[str, dict[str, Any]] = {}

    def augmented() -> Iterator[pd.DataFrame]:
        for argument in options.plate:
            table, versions = read_wells(argument, options, recipe, rules)
            plate = barcode_of(table)
            numbers[plate] = versions
            table, platemap, findings = annotate_plate(table, options)
            table, controls = conventions.choose_controls(table, recipe.controls)
            findings += [*conventions.one_line(controls), *table.attrs.get("findings", ())]
            findings += platemaps.feature_findings(table, recipe.features)
            for finding in (
                *(f"{plate}: {f}" for f in findings),
                *designs.check_plate(table, platemap, group=group_of(table)),
            ):
                print(finding, file=sys.stderr)
            if not feature_columns(table, recipe.features):
                raise ValueError(f"{plate}: no column is a feature; name features by --features")
            wells[plate] = len(table)
            save(table, folder / plate / f"{plate}_augmented", options.anndata, recipe.features)
            yield table

    selected: dict[str, list[pd.DataFrame]] = {}  # negative controls after each step over all plates
    batches = [c for c in dict.fromkeys((recipe.combat, recipe.harmony)) if c]
    batches = batches or (["Metadata_Plate"] if recipe.sphere else [])
    for plate, name, table in make_profiles(augmented(), recipe):
        if batches and "feature_select" in name:
            selected.setdefault(name, []).append(table[platemaps.is_negcon(table)])
        save(table, folder / plate / f"{plate}_{name}", options.anndata and name != FEATURES, recipe.features)
        tables.setdefault(plate, []).append(name)
        if options.consensus and "feature_select" in name:
            gathered.setdefault(name, []).append(table)
        if name == FEATURES:
            kept[plate] = summarize(table)
            print(f"{plate}  {kept[plate]}", file=sys.stderr)
        else:
            n_features = len(feature_columns(table, recipe.features))
            print(f"{plate}  {name}  {len(table)} wells  {n_features} features", file=sys.stderr)
    if batches:
        report_batches({k: pd.concat(v, ignore_index=True) for k, v in selected.items()}, recipe, batches, folder)
    for name, profiles in gathered.items():
        write_consensus(profiles, name, options, recipe)
    for plate, names in tables.items():
        write_record(folder / plate / f"{plate}_{RECORD}", recipe, names, list(tables), numbers[plate])
    for finding in designs.check_numbers(numbers):
        print(finding, file=sys.stderr)
    seconds = time.perf_counter() - start
    for plate in wells:
        print(f"{plate}  {wells[plate]} wells  {kept[plate]}  {seconds:.1f} s")


def report_batches(controls: dict[str, pd.DataFrame], recipe: Recipe, columns: Sequence[str], folder: Path) -> None:
    """Plate effect and drift of the negative controls after each step: said, and in `profiles/batch_effects.json`."""
    effects, findings = effects_by_step(controls, recipe, columns)
    for line in (*(describe_effects(e["table"], e) for e in effects), *findings):
        print(line, file=sys.stderr)
    write_whole(folder / "batch_effects.json", (json.dumps(effects, indent=1) + "\n").encode())


def write_consensus(profiles: Sequence[pd.DataFrame], name: str, options: argparse.Namespace, recipe: Recipe) -> None:
    """`profiles/consensus/<name>.parquet` (and .h5ad): a profile a treatment, over all plates of the run."""
    if not platemaps.common_features(profiles, recipe.features):
        print(f"consensus {name}: no feature is selected on every plate, so there is none", file=sys.stderr)
        return
    together = concatenate(profiles, recipe.features)
    for finding in together.attrs["findings"]:
        print(f"consensus {name}: {finding}", file=sys.stderr)
    together, group, _ = conventions.group_columns(together, options.consensus)
    table = consensus(together, group, also=recipe.features)
    save(table, options.output / "profiles" / "consensus" / name, options.anndata, recipe.features)
    print(f"consensus {name}: {len(table)} treatments by {group}", file=sys.stderr)


def group_of(table: pd.DataFrame) -> str:
    """The column that names a treatment, by convention."""
    return next((c for c in conventions.GROUP if c in table), platemaps.SAMPLE)


def read_wells(
    argument: str, options: argparse.Namespace, recipe: Recipe, rules: CellRules | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A plate's aggregated wells and numbers versions: from its cells, or from a table that already has them."""
    path, output = place_of(argument), options.output
    if isinstance(path, Path) and path.name.endswith((".parquet", ".csv", ".csv.gz")):
        for option, given in (("--flag-cells", rules is not None), ("--standard-errors", options.standard_errors)):
            if given:
                raise ValueError(f"{path}: {option} needs a plate's cells, and this is a table of wells")
        table = read_profiles(path, recipe.features, options.plate_column, options.well_column)
        return table, numbers_beside(path, barcode_of(table))
    stored = open_plate(path if path.suffix == ".zarr" else output / argument)
    beside = output / "profiles" / stored.barcode / stored.barcode
    cells: StoredPlate | WithoutFlagged = stored
    if rules is not None:
        flags = flag_plate(stored, rules)
        write_table(flags, beside.with_name(f"{stored.barcode}_cell_flags.parquet"))
        cells = WithoutFlagged(stored, flags) if options.drop_flagged else stored
    table = aggregate(cells, recipe.aggregate)
    if rules is not None:
        table = add_shares(table, flags)
        dropped = "left out" if options.drop_flagged else "kept (--drop-flagged leaves them out)"
        findings = [*flags.attrs["findings"], f"{int(flags[FLAGGED].sum())} of {len(flags)} cells flagged and {dropped}"]
        if gone := sorted(set(flags["Metadata_Well"].astype(str)) - set(table["Metadata_Well"])):
            findings.append(f"{len(gone)} wells have no cell left and no profile: {platemaps.some(gone)}")
        for finding in findings:
            print(f"{stored.barcode}: {finding}", file=sys.stderr)
    write_table(table, beside.with_name(f"{stored.barcode}.parquet"))
    if options.standard_errors:
        errors = standard_errors(cells, recipe.aggregate, options.standard_errors)
        write_table(errors, beside.with_name(f"{stored.barcode}_standard_errors.parquet"))
    return table, stored.numbers


def annotate_plate(table: pd.DataFrame, options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame | None, list[str]]:
    """The table annotated, its plate map, and findings; a table that brings its own annotation is left alone."""
    if set(conventions.GROUP) & set(table) and options.platemap is None and options.metadata is None:
        ignored = ["--treatments is not used: the table brings its own annotation"] if options.treatments else []
        return table, None, ignored
    folder = options.metadata or options.output / "metadata"
    plate = barcode_of(table)
    path = options.platemap or platemaps.find_platemap(folder, plate)
    platemap = platemaps.read_platemap(path)
    file = options.treatments or platemaps.find_treatments(folder, path)
    treatments = None if file is None else platemaps.read_treatments(file)
    annotated = platemaps.annotate(table, platemap, treatments)
    read = [t.attrs["findings"] for t in (platemap, treatments) if t is not None]
    return annotated, platemap, [f for findings in (*read, annotated.attrs["findings"]) for f in findings]


def reduce(recipe: Recipe, without: Sequence[str], level: str | None, references: Sequence[str] | None) -> Recipe:
    """The recipe without the named steps, with the level of selection and the references that are given."""
    normalize, select = recipe.normalize, recipe.select
    if "inverse_normal" in without:
        normalize = dataclasses.replace(normalize, inverse_normal=False)
    if references:
        normalize = dataclasses.replace(normalize, references=tuple(dict.fromkeys(references)))
    if level is not None:
        select = dataclasses.replace(select, level=level)
    recipe = dataclasses.replace(
        recipe,
        corrections=tuple(c for c in recipe.corrections if c not in without),
        normalize=normalize,
        select=select,
        sphere=None if "sphere" in without else recipe.sphere,
        combat=None if "combat" in without else recipe.combat,
        harmony=None if "harmony" in without else recipe.harmony,
    )
    check_recipe(recipe)
    return recipe


def summarize(features: pd.DataFrame) -> str:
    """`5792 features, negcon: 12 with MAD 0 dropped, 912 selected` for each reference."""
    parts = [f"{features['feature'].nunique()} features"]
    for reference, rows in features.groupby("reference", sort=False):
        dropped = rows["dropped"]
        degenerate = dropped.str.startswith(("MAD 0", "missing in all")).sum()
        parts.append(f"{reference}: {degenerate} without a MAD dropped, {(dropped == '').sum()} selected")
    return "  ".join(parts)


def write_record(path: Path, recipe: Recipe, tables: Sequence[str], plates: Sequence[str], numbers: dict[str, Any]) -> None:
    """Beside a plate's tables: recipe, tables and plates of the run, numbers versions of the cells, programs' versions."""
    versions = {name: importlib.metadata.version(name) for name in ("pycytominer", "pandas", "numpy", "scipy")}
    record = {
        "recipe": dataclasses.asdict(recipe),
        "tables": list(tables),
        "plates": list(plates),
        "numbers": numbers,
        "versions": {"jumpgpu": __version__, **versions},
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")


def save(table: pd.DataFrame, path: Path, with_anndata: bool, also: Sequence[str]) -> None:
    write_table(table, path.with_name(f"{path.name}.parquet"))
    if with_anndata:
        write_anndata(table, path.with_name(f"{path.name}.h5ad"), also)


if __name__ == "__main__":
    sys.exit(main())
