"""A lab's own CellProfiler output, to be held beside a plate: ExportToSpreadsheet's CSV, or SQLite by ExportToDatabase or
cytominer-database.

Nothing of it is trusted: sizes and numbers of files are bounded, and what is no table is named.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import sqlite3

MAX_FILES = 20_000
MAX_COLUMNS = 100_000
IMAGE, NUMBER, OBJECT = "Image", "ImageNumber", "ObjectNumber"
NOT_OBJECTS = ("Experiment", "Object relationships", "Per_Experiment", "Per_Well", "Experiment_Properties")
WELL = re.compile(r"([A-Za-z]{1,2})[-_ ]?0*(\d{1,2})")
WELL_COLUMNS = ("Metadata_Well", "Metadata_WellID", "Metadata_well", "Metadata_Well_Position")
SITE_COLUMNS = ("Metadata_Site", "Metadata_Field", "Metadata_FieldID", "Metadata_site", "Metadata_FieldNumber")
PLATE_COLUMNS = ("Metadata_Plate", "Metadata_PlateID", "Metadata_Barcode", "Metadata_plate")
KEY = "_image"  # of which image a row is, within what was read


@dataclass
class LabTables:
    """What was read.

    images   a row per image set: `_image`, `_well`, `_site`, `_plate` where they are known, its columns without `Image_`
    objects  set -> a row per object: `_image`, ObjectNumber, columns without the set's name
    longest how long names of columns may be at most, where longer ones were shortened; 0: as long as they are
    notes    what a reader should know
    """

    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    objects: dict[str, pd.DataFrame] = field(default_factory=dict)
    longest: int = 0
    notes: list[str] = field(default_factory=list)


def read_lab_tables(path: Path) -> LabTables:
    """A folder of CSV files, at any depth, or an SQLite file.

    Raises FileNotFoundError where there is nothing, ValueError for what is no CellProfiler output, naming the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"no CellProfiler output at {path}")
    if path.is_file():
        return read_sqlite(path)
    files = sorted(p for p in path.rglob("*.csv") if p.is_file())
    bases = sorted(p for p in path.iterdir() if p.suffix in (".sqlite", ".db", ".db3", ".sqlite3"))
    if not files and len(bases) == 1:
        return read_sqlite(bases[0])
    if not files:
        raise ValueError(f"{path}: no .csv of ExportToSpreadsheet in it, and no single SQLite file")
    if len(files) > MAX_FILES:
        raise ValueError(f"{path}: {len(files)} .csv files; name a folder of at most {MAX_FILES}, some wells of a plate")
    return read_folder(path, files)


def read_folder(path: Path, files: Iterable[Path]) -> LabTables:
    """ExportToSpreadsheet's files: in every folder an Image table and its objects', `<prefix>Image.csv` and so on."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    images: list[pd.DataFrame] = []
    objects: dict[str, list[pd.DataFrame]] = {}
    for folder, members in by_folder.items():
        tables = [m for m in members if re.search(r"(^|[^A-Za-z])Image$", m.stem)]
        for table in tables:
            prefix = table.stem.removesuffix(IMAGE)
            image = read_csv(table)
            if NUMBER not in image:
                raise ValueError(f"{table}: has no column {NUMBER}, which CellProfiler's Image table has")
            where = f"{folder.relative_to(path)}/{prefix}"
            images.append(keyed(image, image[NUMBER], where))
            longer = [t.stem.removesuffix(IMAGE) for t in tables if t != table]
            for member in members:
                name = member.stem.removeprefix(prefix)
                other = any(p.startswith(prefix) and p != prefix and member.stem.startswith(p) for p in longer)
                if member == table or not member.stem.startswith(prefix) or other or name in NOT_OBJECTS:
                    continue
                for of, rows in object_files(member, name).items():
                    objects.setdefault(of, []).append(keyed(rows, rows[NUMBER], where))
    if not images:
        raise ValueError(f"{path}: no Image.csv of ExportToSpreadsheet in it, which says what well and site a row is of")
    return finished(images, objects)


def keyed(table: pd.DataFrame, numbers: pd.Series, where: str) -> pd.DataFrame:
    """A table with the image that each row is of."""
    key = pd.DataFrame({KEY: [f"{where}{n}" for n in numbers]}, index=table.index)
    return pd.concat([key, table.drop(columns=NUMBER)], axis=1)


def read_csv(file: Path, **options: Any) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, low_memory=False, float_precision="round_trip", **options)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ValueError(f"{file}: not a CSV table: {error}") from error
    if table.shape[1] > MAX_COLUMNS:
        raise ValueError(f"{file}: {table.shape[1]} columns; at most {MAX_COLUMNS} are read")
    return table


def object_files(file: Path, name: str) -> dict[str, pd.DataFrame]:
    """The object sets of a file: one, or several side by side under two rows of headers; none of a file of another kind."""
    with open(file, encoding="utf-8", errors="replace") as stream:
        first = [part.strip().strip('"') for part in stream.readline(1 << 22).split(",")]
    if first[:1] == [IMAGE] and NUMBER not in first:
        table = read_csv(file, header=[0, 1])
        result = {}
        for of in dict.fromkeys(n for n, _ in table.columns if n != IMAGE):
            own = table.loc[:, [(n, c) for n, c in table.columns if n in (IMAGE, of)]]
            own.columns = pd.Index([c for _, c in own.columns])
            if OBJECT not in own:
                own = own.assign(**{OBJECT: table[next(c for c in table.columns if c[1] == OBJECT)].to_numpy()})
            result[of] = own
        return result
    if NUMBER not in first or OBJECT not in first:
        return {}
    return {name: read_csv(file)}


def read_sqlite(file: Path) -> LabTables:
    """Tables `Image` and one per set (cytominer-database), or `<prefix>Per_Image`, `Per_Object`, `Per_<Set>`
    (ExportToDatabase)."""
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as base:
            query = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY type, name"
            kinds = dict(base.execute(query).fetchall())  # tables first
            names = list(kinds)
            image = next((n for n in names if n == IMAGE or n.endswith("Per_Image")), None)
            if image is None:
                raise ValueError(f"{file}: no table Image or Per_Image, which CellProfiler's databases have")
            prefix = image.removesuffix("Per_Image") if image != IMAGE else ""
            images = read_table(base, image)
            if NUMBER not in images:
                raise ValueError(f"{file}: table {image} has no column {NUMBER}, which CellProfiler's Image table has")
            objects: dict[str, list[pd.DataFrame]] = {}
            longest = max(map(len, images.columns))
            for name in names:
                short = name.removeprefix(prefix)
                if name == image or not name.startswith(prefix) or short in NOT_OBJECTS:
                    continue
                table = read_table(base, name)
                if NUMBER in table:
                    longest = max(longest, *map(len, table.columns))
                    for of, rows in sets_of_table(table, short.removeprefix("Per_")).items():
                        if kinds[name] == "table" or of not in objects:  # a view shows what tables of sets hold
                            objects.setdefault(of, []).append(by_image(rows))
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{file}: not an SQLite file: {error}") from error
    result = finished([by_image(images)], objects)
    result.longest = longest if prefix else 0
    return result


def shortened(name: str, longest: int) -> str:
    """A column's name as ExportToDatabase shortens it: other characters become _, then letters go from the end, vowels
    first, those after the first _ before all others."""
    name = re.sub("[^0-9a-zA-Z_$]", "_", name)
    for begin in (max(name.find("_"), 0), 0):
        for letters in ("aeiou", "bcdfghjklmnpqrstvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
            for i in range(len(name) - 1, begin - 1, -1):
                if len(name) <= longest:
                    return name
                if name[i] in letters:
                    name = name[:i] + name[i + 1 :]
    return name


def read_table(base: "sqlite3.Connection", name: str) -> pd.DataFrame:
    quoted = name.replace('"', '""')
    return pd.read_sql(f'SELECT * FROM "{quoted}"', base)


def by_image(table: pd.DataFrame) -> pd.DataFrame:
    """A table keyed by ImageNumber, within TableNumber where there is one."""
    where = table["TableNumber"].astype(str) + "/" if "TableNumber" in table else pd.Series("", index=table.index)
    key = (where + table[NUMBER].astype(str)).rename(KEY)
    return pd.concat([key, table.drop(columns=[c for c in (NUMBER, "TableNumber") if c in table])], axis=1)


def sets_of_table(table: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """The object sets of a database's table, whose columns bear their names: one set, or all side by side (Per_Object)."""
    numbers = [c for c in table.columns if c.endswith("_Number_Object_Number")]
    sets = [c.removesuffix("_Number_Object_Number") for c in numbers] if name == "Object" else [name]
    result = {}
    for of in sets:
        longer = [o for o in sets if o != of and o.startswith(f"{of}_")]
        own = [c for c in table.columns if c.startswith(f"{of}_") and not any(c.startswith(f"{o}_") for o in longer)]
        if not own:
            continue
        known = f"{of}_Number_Object_Number"
        number = OBJECT if OBJECT in table else known
        if number not in table:
            continue
        rows = table[[c for c in (NUMBER, "TableNumber") if c in table] + own]
        rows = rows.set_axis([c.removeprefix(f"{of}_") for c in rows.columns], axis=1)
        rows = pd.concat([table[number].rename(OBJECT), rows], axis=1)
        result[of] = rows[table[known if known in table else number].notna()]
    return result


def finished(images: list[pd.DataFrame], objects: Mapping[str, list[pd.DataFrame]]) -> LabTables:
    """The tables as one each, and which well, site and plate each image is of."""
    image = pd.concat(images, ignore_index=True)
    image = image.rename(columns={c: c.removeprefix("Image_") for c in image.columns})
    image = image.loc[:, ~image.columns.duplicated()]
    wells = first_of(image, WELL_COLUMNS)
    sites, plates = first_of(image, SITE_COLUMNS), first_of(image, PLATE_COLUMNS)
    place = {
        "_well": None if wells is None else wells.map(well_name),
        "_site": None if sites is None else sites.map(site_number),
        "_plate": None if plates is None else plates.astype(str),
    }
    placed = pd.concat([pd.DataFrame(place, index=image.index, dtype=object), image], axis=1)
    result = LabTables(placed, {name: pd.concat(parts, ignore_index=True) for name, parts in objects.items()})
    for name, table in result.objects.items():
        dropped = [c for c in table.columns if c.startswith(("Metadata_", "Image_Metadata_", "FileName_", "PathName_"))]
        number = pd.to_numeric(table[OBJECT], errors="coerce").rename(OBJECT)
        whole = pd.concat([number, table.drop(columns=[OBJECT, *dropped])], axis=1)
        result.objects[name] = whole[number.notna()].reset_index(drop=True)
    return result


def first_of(table: pd.DataFrame, names: Iterable[str]) -> pd.Series | None:
    return next((table[name] for name in names if name in table and table[name].notna().any()), None)


def well_name(text: Any) -> str | None:
    """`a1`, `A-01` as `A01`; None for what names no well."""
    match = WELL.fullmatch(str(text).strip())
    return f"{match[1].upper()}{int(match[2]):02d}" if match else None


def site_number(text: Any) -> int | None:
    """`5`, `5.0`, `f05`, `s5` as 5."""
    match = re.fullmatch(r"[A-Za-z_]*0*(\d{1,6})(\.0*)?", str(text).strip())
    return int(match[1]) if match else None


def place_by_files(tables: LabTables, sites: Mapping[str, tuple[str, int]]) -> None:
    """Find well and site of images that say neither by their files' names, where those are the plate's.

    sites : name of an image file -> well and site
    """
    image = tables.images
    unknown = image["_well"].isna() | image["_site"].isna()
    names = [c for c in image.columns if c.startswith("FileName_")]
    if not unknown.any() or not names:
        return
    known = [
        next((sites[str(n)] for n in row if str(n) in sites), (None, None))
        for row in image.loc[unknown, names].itertuples(index=False)
    ]
    image.loc[unknown, "_well"] = np.array([well for well, _ in known], dtype=object)
    image.loc[unknown, "_site"] = np.array([site for _, site in known], dtype=object)
    n = sum(well is not None for well, _ in known)
    if n:
        tables.notes.append(f"{n} images say no well and site; they are known by their files' names")
