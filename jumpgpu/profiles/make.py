"""Plates to well profiles: read, annotated, then normalised and selected by a recipe; written where a folder is given."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..settings.names import check_file_name, counted
from ..storage.atomic import write_whole
from ..storage.buckets import place_of
from ..storage.faults import may_pass
from ..storage.local import check_folder
from ..store.reader import StoredPlate, open_plate
from . import conventions
from . import design_checks as designs
from . import platemap as platemaps
from .aggregate import aggregate
from .apart import steps_of
from .batch import describe_effects, effects_by_step
from .cell_quality import FLAGGED, WithoutFlagged, add_shares, flag_plate, load_cell_rules
from .consensus import consensus as consensus_of
from .excluded import Excluded
from .files import RECORD, TABLES, numbers_beside, read_profiles, write_anndata, write_record, write_table
from .outputs import ProfileOutputs
from .pipeline import FEATURES, barcode_of, make_profiles
from .platemap import common_features, feature_columns
from .recipe import Recipe, in_words, load_recipe, reduce
from .recipe import check as check_recipe
from .standard_errors import standard_errors as errors_of_means
from .together import concatenate

StrPath = str | os.PathLike[str]


def profile(
    plates: Sequence[StoredPlate | StrPath],
    *,
    metadata: StrPath | None = None,
    platemap: StrPath | None = None,
    treatments: StrPath | None = None,
    recipe: StrPath | Recipe = "jumpgpu",
    level: str | None = None,
    references: Sequence[str] | None = None,
    without: Sequence[str] = (),
    controls: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    plate_column: str | None = None,
    well_column: str | None = None,
    folder: StrPath = ".",
    output: StrPath | None = None,
    anndata: bool = False,
    flag_cells: StrPath | None = None,
    drop_flagged: bool = False,
    standard_errors: int | None = None,
    consensus: str | None = None,
    exclude_wells: Sequence[str] = (),
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Well profiles of plates: aggregated, annotated, normalised and selected by a recipe.

    Parameters
    ----------
    plates : sequence
        Open plates, barcodes or `<plate>.zarr` in `folder`, or tables of wells (.parquet, .csv, .csv.gz), of several
        plates too.
    metadata : path, optional
        Folder with platemaps/ and external/; `<folder>/metadata` where None. A table with its own annotation needs none.
    platemap, treatments : paths, optional
        One plate map for all plates, and a treatment table, instead of those in `metadata`.
    recipe : str, path or Recipe
        A recipe's name, a .toml file, or a recipe.
    level : {"plate", "batch"}, optional
        Select features over each plate or over all; the recipe's where None.
    references : sequence of {"all", "negcon"}, optional
        Wells by which the others are normalised; the recipe's where None.
    without : sequence of str
        Steps of the recipe to leave out.
    controls : sequence of "COLUMN=VALUE", optional
        Which wells are negative controls; the recipe's where None.
    features : sequence of patterns, optional
        Columns that are features besides those of Cells, Cytoplasm and Nuclei.
    plate_column, well_column : str, optional
        What foreign tables call the plate and the well.
    folder : path
        Where barcodes are looked for.
    output : path, optional
        Gets `profiles/<plate>/`, a Parquet file per table; nothing is written where None.
    anndata : bool
        Write every table as .h5ad too.
    flag_cells : path, optional
        Flag debris, mis-segmented, blurred and saturated cells by this file's rules (`configs/rules/cell_quality.toml` for
        ""): each flag's share stands in the wells' tables, and with `output` the table `P_cell_flags` is written.
    drop_flagged : bool
        Leave flagged cells out of the wells' means.
    standard_errors : int, optional
        Write `P_standard_errors`, by drawing each well's cells anew so many times; needs `output`.
    consensus : str, optional
        Write a profile per treatment too, the median of its wells on all plates, into `profiles/consensus/`: the column that
        names a treatment, several as A,B; needs `output`.
    exclude_wells : sequence of str
        Wells left out of everything, as "A01" on every plate or "BR00117010:A01" on one; recorded beside the profiles.
    overwrite : bool
        Replace profiles that are there in `output`.
    tell : function
        Called with a line per table and finding.

    Returns
    -------
    DataFrame
        A row per well of all plates, in order of plate and well: `Metadata_` columns, then the features that the plates
        have in common, of the last step (feature-selected and by negative controls where the recipe has both).
        `attrs["plates"]` says how many wells each plate has, and what was selected.

    Raises
    ------
    ValueError, FileNotFoundError
        For plates, maps, treatments or recipes that are missing or do not fit together.
    FileExistsError
        For profiles that are there, without `overwrite`; before anything is read.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(os.fspath(recipe))
    chosen = reduce(chosen, without, level, references)
    chosen = dataclasses.replace(
        chosen, controls=tuple(controls or chosen.controls), features=tuple(features or chosen.features)
    )
    check_recipe(chosen)
    tell(f"recipe {recipe if isinstance(recipe, str) else 'given'}: {in_words(chosen)}")
    rules = (
        load_cell_rules(os.fspath(flag_cells) if flag_cells else None) if flag_cells is not None or drop_flagged else None
    )
    if rules is not None:
        tell(f"cell rules: {json.dumps(dataclasses.asdict(rules))}")
    maps, map_file, treatments_file = (None if p is None else Path(p) for p in (metadata, platemap, treatments))
    given = {"--flag-cells": rules is not None, "--standard-errors": standard_errors}
    needs_cells = [option for option, asked in given.items() if asked]
    if output is None and (standard_errors or consensus):
        raise ValueError("standard_errors and consensus are written beside the profiles; give an output folder")
    excluded = Excluded(exclude_wells)
    if output is not None and not overwrite:
        for plate in plates:
            check_free(Path(output), name_of(plate))
    wells: dict[str, int] = {}
    kept: dict[str, str] = {}
    tables: dict[str, list[str]] = {}
    last: dict[str, tuple[int, pd.DataFrame]] = {}
    numbers: dict[str, dict[str, Any]] = {}

    with contextlib.ExitStack() as stack:
        outputs = None if output is None else stack.enter_context(ProfileOutputs(Path(output) / "profiles"))

        def save(table: pd.DataFrame, plate: str, name: str) -> None:
            if outputs is not None:
                stem = name if plate == "consensus" else f"{plate}_{name}"
                outputs.write(write_table, table, plate, f"{stem}.parquet")
                if anndata and name != FEATURES:
                    write_anndata(table, outputs.path(plate, f"{stem}.h5ad"), chosen.features, name)

        def cells_to_wells(stored: StoredPlate) -> pd.DataFrame:
            cells: StoredPlate | WithoutFlagged = stored
            barcode = stored.barcode
            if rules is not None:
                flags = flag_plate(stored, rules)
                cells = WithoutFlagged(stored, flags) if drop_flagged else stored
                if outputs is not None:
                    write_table(flags, outputs.path(barcode, f"{barcode}_cell_flags.parquet"))
            table = aggregate(cells, chosen.aggregate)
            if rules is not None:
                table = add_shares(table, flags)
                dropped = "left out" if drop_flagged else "kept (--drop-flagged leaves them out)"
                findings = [
                    *flags.attrs["findings"],
                    f"{int(flags[FLAGGED].sum())} of {len(flags)} cells flagged and {dropped}",
                ]
                if gone := sorted(set(flags["Metadata_Well"].astype(str)) - set(table["Metadata_Well"])):
                    findings.append(f"{len(gone)} wells have no cell left and no profile: {platemaps.some(gone)}")
                for finding in findings:
                    tell(f"{stored.barcode}: {finding}")
            if outputs is not None:
                write_table(table, outputs.path(barcode, f"{barcode}.parquet"))
                if standard_errors:
                    errors = errors_of_means(cells, chosen.aggregate, standard_errors)
                    write_table(errors, outputs.path(barcode, f"{barcode}_standard_errors.parquet"))
            return table

        def augmented() -> Iterator[pd.DataFrame]:
            columns = (plate_column, well_column)
            given = (read_wells(p, Path(folder), chosen, columns, cells_to_wells, needs_cells) for p in plates)
            for table, versions in (t for tables in given for t in tables):
                plate = barcode_of(table)
                if output is not None and not overwrite:
                    check_free(Path(output), plate)
                table = excluded.taken_from(table, plate)
                if names := excluded.by_plate.get(plate):
                    tell(f"{plate}: {counted(len(names), 'well')} excluded: {', '.join(names)}")
                if outputs is not None:
                    outputs.take(plate)
                numbers[plate] = versions
                table, result, findings = annotate_plate(table, maps, map_file, treatments_file, Path(folder) / "metadata")
                table, marked = conventions.choose_controls(table, chosen.controls)
                findings += [*conventions.one_line(marked), *table.attrs.get("findings", ())]
                findings += platemaps.feature_findings(table, chosen.features)
                for finding in findings:
                    tell(f"{plate}: {finding}")
                for finding in designs.check_plate(table, result, group=group_of(table)):
                    tell(str(finding))
                if not feature_columns(table, chosen.features):
                    raise ValueError(f"{plate}: no column is a feature; name features by --features")
                wells[plate] = len(table)
                save(table, plate, "augmented")
                yield table

        gathered: dict[str, list[pd.DataFrame]] = {}  # for the consensus
        selected: dict[str, list[pd.DataFrame]] = {}  # each step's controls, and the wells that the steps are fitted on
        batches = [c for c in dict.fromkeys((chosen.combat, chosen.harmony)) if c]
        batches = batches or (["Metadata_Plate"] if chosen.sphere else [])
        for plate, name, table in make_profiles(augmented(), chosen):
            check_usable(plate, name, table, chosen)
            save(table, plate, name)
            tables.setdefault(plate, []).append(name)
            if name == FEATURES:
                kept[plate] = summarize(table)
                tell(f"{plate}  {kept[plate]}")
                continue
            if consensus and "feature_select" in name:
                gathered.setdefault(name, []).append(table)
            if batches and "feature_select" in name:
                whole = (chosen.combat or chosen.harmony) and not steps_of(name)
                selected.setdefault(name, []).append(table if whole else table[platemaps.is_negcon(table)])
            n_features = len(feature_columns(table, chosen.features))
            tell(f"{plate}  {name}  {len(table)} wells  {n_features} features")
            rank = TABLES.index(name) if name in TABLES else -1
            if plate not in last or rank <= last[plate][0]:
                last[plate] = rank, table
        excluded.check(list(wells))
        for name, parts in gathered.items():
            if not common_features(parts, chosen.features):
                tell(f"consensus {name}: no feature is selected on every plate, so there is none")
                continue
            together = concatenate(parts, chosen.features)
            for finding in together.attrs["findings"]:
                tell(f"consensus {name}: {finding}")
            together, group, _ = conventions.group_columns(together, consensus)
            table = consensus_of(together, group, also=chosen.features)
            save(table, "consensus", name)
            tell(f"consensus {name}: {len(table)} treatments by {group}")
        if batches:  # plate effect and drift of the controls
            effects, findings = effects_by_step(
                {k: pd.concat(v, ignore_index=True) for k, v in selected.items()}, chosen, batches
            )
            for line in (*(describe_effects(e["table"], e) for e in effects), *findings):
                tell(line)
            if outputs is not None:
                write_whole(outputs.path("", "batch_effects.json"), json.dumps(effects, indent=1) + "\n")
        for plate, names in tables.items():
            if outputs is not None:
                path = outputs.path(plate, f"{plate}_{RECORD}")
                write_record(path, chosen, names, list(tables), numbers[plate], excluded.by_plate.get(plate, []))
        for finding in designs.check_numbers(numbers):
            tell(str(finding))
        profiles = concatenate([table for _, table in last.values()], chosen.features)
        profiles.attrs["plates"] = {plate: (wells[plate], kept[plate]) for plate in wells}
        return profiles


def plan(
    plates: Sequence[StrPath],
    *,
    metadata: StrPath | None = None,
    platemap: StrPath | None = None,
    folder: StrPath = ".",
    output: StrPath = ".",
    overwrite: bool = False,
) -> list[str]:
    """What `profile` would read and write, a line per plate, or why it would be refused; no cell is read."""
    check_folder(Path(output))
    lines = []
    for plate in plates:
        name = name_of(plate)
        try:
            path = place_of(plate)
            table = isinstance(path, Path) and path.name.endswith((".parquet", ".csv", ".csv.gz"))
            stored = None if table else open_plate(path if path.suffix == ".zarr" else Path(folder) / os.fspath(plate))
            if table and not Path(plate).is_file():
                raise FileNotFoundError(f"{plate}: no such profile file")
            result = f"table {plate}" if stored is None else f"{stored.path}, {counted(len(stored.wells), 'well')}"
            if stored is not None:
                name = stored.barcode
                file = (
                    Path(platemap)
                    if platemap
                    else platemaps.find_platemap(Path(metadata or Path(folder) / "metadata"), name)
                )
                result += f"; plate map {file}, {counted(len(platemaps.read_platemap(file)), 'well')}"
            if not overwrite:
                check_free(Path(output), name)
            lines.append(f"{name}: {result}; would write {Path(output) / 'profiles' / name}")
        except (ValueError, OSError) as error:
            if may_pass(error):
                raise
            lines.append(f"{name}: would be refused: {error}")
    return lines


def check_usable(plate: str, name: str, table: pd.DataFrame, recipe: Recipe) -> None:
    """ValueError for a table of profiles that no feature is left in."""
    if name == FEATURES or feature_columns(table, recipe.features):
        return
    if "feature_select" in name:
        raise ValueError(f"{plate}: {name} has no feature left; loosen [select] of the recipe")
    if name == "normalized":
        raise ValueError(f"{plate}: no feature varies among its {counted(len(table), 'well')}; a plate needs more of them")
    controls = counted(int(platemaps.is_negcon(table).sum()), "negative control")
    raise ValueError(
        f"{plate}: no feature varies among its {controls}, so there is nothing to normalise by; name more of them "
        "(--control COLUMN=VALUE), or normalise by all wells alone (--reference all)"
    )


def name_of(plate: StoredPlate | StrPath) -> str:
    """What a plate is called as far as its argument says: an open plate's barcode, or the name of its file."""
    return plate.barcode if isinstance(plate, StoredPlate) else Path(os.fspath(plate)).name.removesuffix(".zarr")


def check_free(output: Path, plate: str) -> None:
    """FileExistsError where a plate has profiles there."""
    if (there := output / "profiles" / plate / f"{plate}_{RECORD}").is_file():
        raise FileExistsError(f"{there.parent} has profiles of {plate} already; --overwrite replaces them")


def group_of(table: pd.DataFrame) -> str:
    """The column that names a treatment, by convention."""
    return next(iter(conventions.groups(table)), platemaps.SAMPLE)


def read_wells(
    plate: StoredPlate | StrPath,
    folder: Path,
    recipe: Recipe,
    columns: Sequence[str | None],
    cells_to_wells: Callable[[StoredPlate], pd.DataFrame],
    needs_cells: Sequence[str],
) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """Aggregated wells and numbers versions: of a plate's cells, or of each plate of a table that already has them."""
    if isinstance(plate, StoredPlate):
        return [(cells_to_wells(plate), plate.numbers)]
    path = place_of(plate)
    if isinstance(path, Path) and path.name.endswith((".parquet", ".csv", ".csv.gz")):
        if needs_cells:
            raise ValueError(f"{path}: {needs_cells[0]} needs a plate's cells, and this is a table of wells")
        table = conventions.with_count(read_profiles(path, recipe.features, *columns))
        result: list[tuple[pd.DataFrame, dict[str, Any]]] = []
        for barcode, rows in table.groupby("Metadata_Plate", sort=False):
            check_file_name(str(barcode), f"{path}: the plate (Metadata_Plate)")
            result.append((rows.reset_index(drop=True), numbers_beside(path, str(barcode))))
        return result
    stored = open_plate(path if path.suffix == ".zarr" else folder / os.fspath(plate))
    return [(cells_to_wells(stored), stored.numbers)]


def annotate_plate(
    table: pd.DataFrame, folder: Path | None, map_file: Path | None, treatments_file: Path | None, metadata: Path
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[str]]:
    """The table annotated, its plate map, and findings; a table that brings its own annotation is left alone.

    `metadata` is the folder that is looked in where none is given.
    """
    if conventions.groups(table) and map_file is None and folder is None:
        ignored = ["the treatment table is not used: the table brings its own annotation"] if treatments_file else []
        return table, None, ignored
    folder = folder or metadata
    plate = barcode_of(table)
    path = map_file or platemaps.find_platemap(folder, plate)
    platemap = platemaps.read_platemap(path)
    file = treatments_file or platemaps.find_treatments(folder, path)
    treatments = None if file is None else platemaps.read_treatments(file)
    annotated = platemaps.annotate(table, platemap, treatments)
    read = [t.attrs["findings"] for t in (platemap, treatments) if t is not None]
    return annotated, platemap, [f for findings in (*read, annotated.attrs["findings"]) for f in findings]


def summarize(features: pd.DataFrame) -> str:
    """`5792 features, negcon: 12 with MAD 0 dropped, 912 selected` for each reference."""
    parts = [f"{features['feature'].nunique()} features"]
    for reference, rows in features.groupby("reference", sort=False):
        dropped = rows["dropped"]
        degenerate = dropped.str.startswith(("MAD 0", "missing in all")).sum()
        parts.append(f"{reference}: {degenerate} without a MAD dropped, {(dropped == '').sum()} selected")
    return "  ".join(parts)
