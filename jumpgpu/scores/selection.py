"""Which profiles a score is of: plates' tables, their conditions, wells, controls and features, chosen and checked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..profiles import conventions
from ..profiles import design_checks as designs
from ..profiles import platemap as platemaps
from ..profiles.files import TABLES, numbers_beside, read_profiles, recorded
from ..profiles.held_out import HeldOut, hold_out
from ..profiles.platemap import SAMPLE, column_name, feature_columns
from ..profiles.text_tables import as_text
from .common import choose_features, concatenate

PLATE_FORMAT = 384  # wells of a plate unless stated

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """What is chosen of the profiles, as `jumpgpu score --help` documents each option.

    output            folder that holds `profiles/` and `metadata/`
    table             which table of a barcode; None: the first there is of `TABLES`
    group             column, or several as "A,B", that names a treatment; None: by convention
    where, control    COLUMN=VALUE: wells that are used, and those that are negative controls
    features          patterns of columns that are features beside those of the compartments
    """

    output: Path = Path(".")
    table: str | None = None
    group: str | None = None
    metadata: Path | None = None
    treatments: Path | None = None
    batch: str | None = None
    plate_column: str | None = None
    well_column: str | None = None
    by: Sequence[str] = ()
    where: Sequence[str] = ()
    control: Sequence[str] = ()
    inner: bool = False
    plate_format: int | None = None
    channels: Sequence[str] = ()
    without_channels: Sequence[str] = ()
    families: Sequence[str] = ()
    compartments: Sequence[str] = ()
    features: Sequence[str] = ()

    def read(self, plates: Sequence[str], tell: Tell) -> "Selected":
        """The profiles of these barcodes or files. `tell` is given each finding as a line.

        Raises ValueError or OSError, naming plate, file or column.
        """

        def tell_all(findings: Sequence[str], of: str = "") -> None:
            for finding in findings:
                tell(f"{of}: {finding}" if of else finding)

        features = tuple(self.features)
        paths = [find_profiles(p, self.output, self.table) for p in plates]
        check_same_table(paths, plates)
        for path in paths:
            tell(f"profiles: {path}")
        for plate in plates if not self.features else ():  # what profile was asked for
            asked = recorded(self.output / "profiles" / plate, plate).get("recipe", {}).get("features", ())
            features = tuple(dict.fromkeys((*features, *asked)))
        tables = [conventions.with_count(read_profiles(p, features, self.plate_column, self.well_column)) for p in paths]
        for path, table in zip(paths, tables, strict=True):
            tell_all(table.attrs["findings"], str(path))
            tell_all(platemaps.feature_findings(table, features), str(path))
        produced = {
            plate: numbers_beside(p, plate)
            for p, table in zip(paths, tables, strict=True)
            for plate in table["Metadata_Plate"].unique()
        }
        tell_all(designs.check_numbers(produced))
        held_out = hold_out(paths, [recorded(p.parent, p.parent.name) for p in paths])
        if held_out.replace is not None:
            tables = [with_controls(t, held_out.replace, features) for t in tables]
        profiles = concatenate(tables, features)
        tell_all(profiles.attrs["findings"], "plates")
        if self.treatments:
            treatments = platemaps.read_treatments(self.treatments)
            tell_all(treatments.attrs["findings"])
            treatments = treatments.rename(columns=column_name)
            new = [SAMPLE, *(c for c in treatments if c not in profiles)]
            profiles = profiles.assign(**{SAMPLE: as_text(column(profiles, SAMPLE))})
            profiles = profiles.merge(treatments.loc[treatments[SAMPLE].notna(), new], on=SAMPLE, how="left")
        for where in self.where:
            if not where.partition("=")[1]:
                raise ValueError(f"--where {where}: expected COLUMN=VALUE, such as Cell_type=U2OS")
        columns = [column_name(c) for c in (*self.by, *(w.partition("=")[0].strip() for w in self.where))]
        if any(c not in profiles for c in columns):
            folder = self.metadata or self.output / "metadata"
            experiments = platemaps.read_experiments(folder / platemaps.EXPERIMENTS, self.batch)
            tell_all(experiments.attrs["findings"])
            profiles = platemaps.add_conditions(profiles, experiments)
        elif self.batch:
            tell(f"--batch {self.batch} is not used: the profiles have every column asked for")
        profiles, group, said = conventions.group_columns(profiles, self.group)
        tell_all(conventions.one_line(said), "plates")
        profiles, controls = conventions.choose_controls(profiles, self.control)
        tell_all(conventions.one_line(controls), "plates")
        for where in self.where:
            name, _, value = where.partition("=")
            held = column(profiles, name.strip())
            here = as_text(held).fillna("") == value.strip()
            if not here.any():
                raise ValueError(f"--where {where}: no well is left; {held.name} holds {platemaps.held(held)}")
            profiles = profiles[here]
        if self.inner:
            if self.plate_format is None and designs.fits(profiles["Metadata_Well"], 96):
                raise ValueError("--inner: every well is one of a plate of 96 too; say --plate-format 96 or 384")
            profiles = profiles[designs.is_inner(profiles["Metadata_Well"], self.plate_format or PLATE_FORMAT)]
        metadata = platemaps.metadata_columns(profiles)
        profiles = profiles[[*metadata, *self.columns(profiles, features)]].reset_index(drop=True)
        return Selected(profiles, group, features, held_out, self)

    def columns(self, table: pd.DataFrame, features: Sequence[str]) -> list[str]:
        """The table's features that the choice of channels, families and compartments leaves."""
        return choose_features(
            feature_columns(table, features), self.channels, self.families, self.compartments, self.without_channels
        )


@dataclass(frozen=True)
class Selected:
    """Profiles as chosen: text metadata columns, then float features; one row per well."""

    profiles: pd.DataFrame
    group: str  # the column that names a treatment
    features: tuple[str, ...]  # patterns
    held_out: HeldOut
    selection: Selection = field(repr=False)

    def conditions(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Profiles by condition, such as `U2OS 48`; all together, under no name, where nothing separates them."""
        by, profiles = self.selection.by, self.profiles
        if not by:
            yield "", profiles
            return
        keys = [as_text(column(profiles, name)).fillna(f"no {name}") for name in by]
        for values, rows in profiles.groupby(keys, sort=True):
            yield " ".join(values), rows.reset_index(drop=True)

    def design_findings(self, rows: pd.DataFrame, condition: str) -> Iterator[str]:
        """What the design of one condition's plates means for a score."""
        yield from (f"{condition or 'plates'}: {f}" for f in designs.check_replicates(rows, self.group))
        for _, plate in rows.groupby("Metadata_Plate", sort=True):
            wells = self.selection.plate_format or PLATE_FORMAT
            yield from designs.check_plate(plate, plate_format=wells, group=self.group)


def pairs_of_conditions(
    first: Selected, second: Selected, same: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Each condition of the first with each of the second that agrees in the columns `same`, as `A549 24 to A549 96`.

    ValueError where a column separates no conditions, or no two agree.
    """
    if stray := [s for s in same if s not in first.selection.by]:
        raise ValueError(f"--same {stray[0]} is not a column of --by")
    met = False
    others = list(second.conditions())
    for condition, rows in first.conditions():
        for other, other_rows in others:
            if all(as_text(column(rows, s).iloc[:1]).equals(as_text(column(other_rows, s).iloc[:1])) for s in same):
                met = True
                yield f"{condition} to {other}" if condition else "", rows, other_rows
    if not met:
        raise ValueError(f"no two conditions of --plate and --against agree in {', '.join(same)}")


def judging_controls(*sides: tuple[Selected, pd.DataFrame]) -> pd.DataFrame | str | None:
    """Negative controls that may judge each side's wells: None for their own, or why there are none (`held_out`)."""
    if refused := [selected.held_out.refused for selected, _ in sides if selected.held_out.refused]:
        return str(refused[0])
    if all(selected.held_out.check is None for selected, _ in sides):
        return None
    keys, parts = ["Metadata_Plate", "Metadata_Well"], []
    for selected, rows in sides:
        check = selected.held_out.check
        if check is None:
            parts.append(rows)
            continue
        marks = [*keys, *(c for c in (platemaps.NEGATIVE,) if c in rows)]
        metadata = [c for c in platemaps.metadata_columns(check) if c in keys or c not in marks]
        parts.append(check[[*metadata, *selected.selection.columns(check, selected.features)]].merge(rows[marks], on=keys))
    return concatenate(parts, sides[0][0].features)


def with_controls(table: pd.DataFrame, controls: pd.DataFrame, also: Sequence[str]) -> pd.DataFrame:
    """A plate's table with its negative controls' features from another: those that no step was fitted on."""
    keys = ["Metadata_Plate", "Metadata_Well"]
    features = [f for f in feature_columns(table, also) if f in controls]
    new = table[keys].merge(controls[[*keys, *features]], on=keys, how="left", validate="one_to_one")
    held = new[features[0]].notna().to_numpy()
    values = np.where(held[:, None], new[features].to_numpy(float), table[features].to_numpy(float))
    return pd.concat([table.drop(columns=features), pd.DataFrame(values, columns=features, index=table.index)], axis=1)


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
    raise FileNotFoundError(f"plate {argument}: no {table or 'normalized'} table in {folder}; run jumpgpu profile")


def check_same_table(paths: Sequence[Path], plates: Sequence[str]) -> None:
    """ValueError where barcodes led to different tables: their features would not mean the same."""
    kinds = {
        p.stem.removeprefix(f"{plate}_") for p, plate in zip(paths, plates, strict=True) if p.name.startswith(f"{plate}_")
    }
    if len(kinds) > 1:
        raise ValueError(f"the plates have different tables ({', '.join(sorted(kinds))}); choose one by --table")


def column(profiles: pd.DataFrame, name: str) -> pd.Series:
    """A metadata column by its name with or without `Metadata_`; ValueError, naming those there are."""
    if column_name(name) not in profiles:
        known = ", ".join(platemaps.metadata_columns(profiles))
        raise ValueError(f"no column {column_name(name)} in profiles or experiment table; there are {known}")
    return profiles[column_name(name)]
