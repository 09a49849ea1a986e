"""Channels, compartments, wells and feature names: the one place that spells them.

Column names and their stored order are CellProfiler's, as exported for CPJUMP1 (`configs/columns.txt`).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")  # order of the C axis
BRIGHTFIELD = ("HighZBF", "LowZBF", "Brightfield")  # further channels, when configured
LABEL_IMAGE = "Objects"  # ends the name of a channel that is a label image
COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")  # stored order, and the order of object rows
FAMILIES = (  # stored order within a compartment
    "AreaShape",
    "Correlation",
    "Granularity",
    "Intensity",
    "Location",
    "Number",
    "Neighbors",
    "Children",
    "Parent",
    "RadialDistribution",
    "Texture",
    "Embedding",
)
FILE_NAME = re.compile(r'[^/\\:*?"<>|\x00-\x1f]+')
WELL = re.compile(r"([A-Za-z]|[Aa][A-Fa-f])0{0,2}([1-9][0-9]?)")
BARCODE = re.compile(
    r"[\w(\[{#][\w .,;()\[\]{}+#@&=~!'-]{0,127}"
)  # what names a folder on every system, and no option or formula


def feature_name(compartment: str, family: str, *parts: str | int) -> str:
    """A column name, its parts joined as CellProfiler joins them: `Nuclei_Texture_Variance_RNA_5_03_256`."""
    return "_".join([compartment, family, *map(str, parts)])


def split_name(column: str) -> tuple[str, str, str]:
    """Object set, family and the rest of a column: `FilteredNuclei_AreaShape_Area` -> `FilteredNuclei`, `AreaShape`, `Area`.

    An object set's own name may hold underscores; the family is then the first word that is one.
    """
    words = column.split("_")
    place = next((i for i, word in enumerate(words[1:], 1) if word in FAMILIES), min(1, len(words) - 1))
    return "_".join(words[:place]) or column, words[place], "_".join(words[place + 1 :])


def family_of(column: str) -> str:
    """The family word of a column: `Cells_AreaShape_Area` -> `AreaShape`."""
    return split_name(column)[1]


def channel_order(channels: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """Channels in the order of names and pairs, whatever the C axis: those of `first` in its order, then by name."""
    return sorted(channels, key=lambda c: (first.index(c) if c in first else len(first), c))


def stored_order(columns: Sequence[str]) -> list[int]:
    """Positions that put columns into stored order: by compartment, then family; within both, as they come."""
    names = [split_name(column) for column in columns]
    families = {f: i for i, f in enumerate(FAMILIES)}

    def key(i: int) -> tuple[str, int, int]:
        compartment, family, _ = names[i]
        return compartment, families.get(family, len(families)), i

    return sorted(range(len(columns)), key=key)


def well_name(row: int, column: int) -> str:
    """Row and column counted from 1, to `A01` .. `AF48`."""
    if not (1 <= row <= 32 and 1 <= column <= 48):
        raise ValueError(f"no well at row {row}, column {column}; rows are 1..32, columns 1..48")
    letters = chr(64 + row) if row <= 26 else "A" + chr(64 + row - 26)
    return f"{letters}{column:02d}"


def well_position(well: str) -> tuple[int, int]:
    """`A01` to row and column counted from 1; ValueError for anything else."""
    match = re.fullmatch(r"(A?[A-Z])(\d{2})", well)
    if not match:
        raise ValueError(f"{well!r} is not a well name; expected A01 .. P24 (AF48 at most)")
    letters = match[1]
    row = ord(letters[-1]) - 64 + (26 if len(letters) == 2 else 0)
    column = int(match[2])
    if well_name(row, column) != well:
        raise ValueError(f"{well!r} is not a well name; expected A01 .. P24 (AF48 at most)")
    return row, column


def check_file_name(name: str, what: str) -> str:
    """A name from a table, a record or a user that becomes a file's or a folder's: the name itself.

    ValueError where it could lead elsewhere, or is none on some system; `what` says whose name it is.
    """
    long = len(name.encode("utf-8", "replace")) > 200
    if long or not FILE_NAME.fullmatch(name) or not name.isprintable() or name.strip() != name or name.strip(".") == "":
        raise ValueError(
            f'{what} {name[:140]!r} cannot be the name of a file: expected a plain name, without / \\ : * ? " < > | or '
            "control characters, that is not '.' or '..' and has at most 200 bytes"
        )
    return name


def spelled_well(text: str) -> str:
    """A well in its one spelling: `d4`, `D4`, `D04`, `D004` and ` D04 ` to `D04`; ValueError for what is no well."""
    match = WELL.fullmatch(str(text).strip())
    if not match:
        raise ValueError(f"{str(text)[:40]!r} is not a well name; expected A01 .. P24 (AF48 at most)")
    letters = match[1].upper()
    try:
        return well_name(ord(letters[-1]) - 64 + (26 if len(letters) == 2 else 0), int(match[2]))
    except ValueError as error:
        raise ValueError(f"{str(text)[:40]!r} is not a well name; {error}") from error


def counted(n: int, word: str) -> str:
    """`1 well`, `2 wells`."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def check_barcode(plate: str) -> str:
    """The barcode, its umlauts as one character each, if it can safely name a folder; ValueError otherwise."""
    plate = unicodedata.normalize("NFC", plate)
    long = len(plate.encode("utf-8", "replace")) > 200
    if long or not BARCODE.fullmatch(plate) or ".." in plate or plate[-1] in " .":
        raise ValueError(
            f"{plate[:140]!r} is not a plate barcode; expected letters, digits, spaces, brackets and .,;_-+#@&=~!', a "
            "letter, digit or bracket first and no dot or space last, such as BR00117010"
        )
    return plate
