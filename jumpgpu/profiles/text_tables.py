"""Tables as text files, and the text of their cells: barcodes, wells and treatments are words, whatever they look like.

`0012345` keeps its zeros, `NA` and `None` are names, `a1` is the well A01, and an integer, a float or a category in
somebody's Parquet is the text that a CSV would hold. Empty cells are missing.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..settings.names import spelled_well

MAX_BYTES = 1 << 28  # of a text table; CPJUMP1's largest has 60 kB
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?(e[+-][0-9]{1,3})?")  # what reads as a number and back
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}


def read_table(path: str | Path, required: Sequence[str] = (), text: Sequence[str] = ()) -> pd.DataFrame:
    """A .csv (commas) or .tsv/.txt (tabs) file in UTF-8.

    Parameters
    ----------
    required : columns that must be there
    text : columns that stay text; others become numbers where all their cells are plain numbers that keep their spelling

    Returns
    -------
    DataFrame
        Empty cells are nan; rows without any cell are left out.

    Raises FileNotFoundError, or ValueError that names the file, and the line or column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; a table of wells or treatments has {MAX_BYTES} at most")
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        text_of_file = path.read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text_of_file, newline=""), delimiter=separator))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error
    header = [c.strip() for c in rows[0]] if rows else []
    while header and not header[-1]:
        header.pop()
    if not header:
        raise ValueError(f"{path}: empty; a table has a line of column names")
    check_header(header, path)
    if lost := [c for c in required if c not in header]:
        hint = f"; {path.suffix} is split at {SEPARATORS[separator]}" if len(header) == 1 else ""
        raise ValueError(f"{path}: no column {lost[0]!r}; found {', '.join(header)}{hint}")
    cells: list[list[str]] = []
    for i, row in enumerate(rows[1:], 2):
        row = [c.strip() for c in row]
        if any(row[len(header) :]):
            raise ValueError(f"{path}: line {i} has {len(row)} cells; the header has {len(header)}")
        if any(row):
            cells.append(row[: len(header)] + [""] * (len(header) - len(row)))
    columns = {name: as_text(pd.Series([r[i] for r in cells], dtype=object)) for i, name in enumerate(header)}
    return pd.DataFrame({c: v if c in set(text) else numbers(v) for c, v in columns.items()})


def check_header(header: Sequence[str], path: Path) -> None:
    """ValueError where a column has no name, or two have one."""
    if "" in header:
        raise ValueError(f"{path}: column {header.index('') + 1} has no name")
    if twice := [c for i, c in enumerate(header) if c in header[:i]]:
        raise ValueError(f"{path}: column {twice[0]!r} appears twice")


def numbers(values: pd.Series) -> pd.Series:
    """Text as numbers where every cell is one and no two spellings become one number; otherwise the text."""
    known = values.dropna()
    if known.empty or not all(isinstance(v, str) and NUMBER.fullmatch(v) for v in known):
        return values
    read = pd.to_numeric(values)
    return read if known.nunique() == read.nunique() else values


def as_text(values: pd.Series) -> pd.Series:
    """Cells as stripped text, object dtype; nan where there is none. 12, 12.0 and " 12 " are "12", a category its word."""
    given = pd.Series(values).astype(object)
    known = given.notna().to_numpy()
    cells = np.full(len(given), np.nan, object)
    cells[known] = [text_of(v) for v in given[known]]
    return pd.Series(cells, index=given.index, name=given.name, dtype=object)


def text_of(value: object) -> object:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip() or np.nan


def as_wells(values: pd.Series, where: str) -> pd.Series:
    """Well names in their one spelling, `A1`, `a01` and `A001` to `A01`; ValueError for a cell that is none."""
    text = as_text(values)
    if (missing := text.isna()).any():
        row = int(np.flatnonzero(missing)[0]) + 1
        raise ValueError(f"{where}: {int(missing.sum())} of {len(text)} rows have no well, the first is row {row}")
    spelled = {}
    for name in text.unique():
        try:
            spelled[name] = spelled_well(name)
        except ValueError as error:
            raise ValueError(f"{where}: {str(error).replace('not a well name;', 'not a well;')}") from error
    return text.map(spelled).astype(object)


def drop_repeats(table: pd.DataFrame, key: str, where: str, advice: str = "") -> pd.DataFrame:
    """The table without rows that repeat another in every column; what was dropped stands in `attrs["findings"]`.

    ValueError for two rows that agree in `key` and not in the rest: it names the column.
    """
    kept = table.drop_duplicates(ignore_index=True)
    if (twice := kept[key].duplicated()).any():
        name = kept.loc[twice, key].iloc[0]
        same = kept[kept[key].isna() if pd.isna(name) else kept[key] == name]
        column = next(c for c in kept if same[c].nunique(dropna=False) > 1)
        values = " and ".join("nothing" if pd.isna(v) else str(v) for v in same[column].unique()[:2])
        raise ValueError(f"{where}: {key} {spoken(name)} appears twice, with {column} {values}{advice}")
    kept.attrs["findings"] = list(table.attrs.get("findings", ()))
    if n := len(table) - len(kept):
        names = ", ".join(spoken(v) for v in table.loc[table.duplicated(), key].unique()[:5])
        kept.attrs["findings"].append(f"{where}: {n} rows repeat another in every column and are dropped ({key} {names})")
    return kept


def spoken(name: object) -> str:
    return "(empty)" if pd.isna(name) else str(name)


def split_labels(values: pd.Series) -> pd.Series:
    """Labels of each cell: `A | B` to ("A", "B"), sorted, each once; () where there is none. `|` separates labels."""
    text = as_text(values)
    known = {v: tuple(sorted({w.strip() for w in v.split("|")} - {""})) for v in text.dropna().unique()}
    return pd.Series([known.get(v, ()) for v in text], index=text.index, dtype=object)


def label_text(values: pd.Series) -> pd.Series:
    """The same as text in one spelling, `B|A ` to `A|B`; nan where there is no label."""
    return pd.Series(["|".join(v) or np.nan for v in split_labels(values)], index=values.index, dtype=object)
