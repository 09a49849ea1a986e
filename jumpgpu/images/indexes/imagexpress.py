"""An ImageXpress's plate description (.HTD): what its wavelengths are called, and which wells and sites were chosen."""

import csv
from collections.abc import Mapping, Sequence

from ...settings.names import well_name
from ..plate import Plate
from .listing import Folder
from .names import SUBFOLDER, Named

MAX_BYTES = 1 << 20  # a plate of 1536 wells has 20 KB
MAX_WAVES = 64


def find_htd(folder: Folder) -> list[tuple[Folder, str]]:
    """Descriptions in a folder and in an ImageXpress's folders of time points and planes: where each lies, and its name."""
    result: list[tuple[Folder, str]] = []
    places = [folder]
    for _ in range(3):
        result += [(place, name) for place in places for name in place.files() if name.lower().endswith(".htd")]
        places = [place.inner(name) for place in places for name in place.folders() if SUBFOLDER.fullmatch(name)]
    return result


def read_htd(barcode: str, described: Sequence[tuple[Folder, str]]) -> tuple[Named, set[tuple[str, int]]]:
    """Channels by number as descriptions name them, and the (well, site) that were chosen.

    ValueError where one is none, or two differ in what they say.
    """
    tables = {folder.place / name: table_of(barcode, folder, name) for folder, name in described}
    path, first = next(iter(tables.items()))
    for other, table in tables.items():
        if differing := next(
            (k for k in {*first, *table} if k.startswith("wavename") and first.get(k) != table.get(k)), None
        ):
            raise ValueError(f"{barcode}: {path} and {other} differ in {differing}; move the wrong one away")
    where = f"{barcode}: {path}"
    n = whole(first, "nwavelengths", where, MAX_WAVES) if yes(first, "waves") else 0
    channels = {w: first.get(f"wavename{w}", [""])[0].strip() or f"w{w}" for w in range(1, n + 1)}
    columns, rows = whole(first, "xwells", where, 48), whole(first, "ywells", where, 32)
    chosen = [
        well_name(r, c + 1)
        for r in range(1, rows + 1)
        for c, cell in enumerate(first.get(f"wellsselection{r}", [])[:columns])
        if cell.strip().upper() == "TRUE"
    ]
    n_sites = 1
    if yes(first, "sites"):
        down = whole(first, "ysites", where, 100)
        n_sites = sum(c.strip().upper() == "TRUE" for r in range(1, down + 1) for c in first.get(f"siteselection{r}", []))
    return Named(path.name, channels or {1: "w1"}), {(well, site) for well in chosen for site in range(1, n_sites + 1)}


def table_of(barcode: str, folder: Folder, name: str) -> Mapping[str, list[str]]:
    """The lines of a description: key in lower case -> its values. ValueError where it is none."""
    path = folder.place / name
    with folder.open(name, MAX_BYTES) as file:
        lines = file.read().decode("utf-8-sig", "replace").splitlines()
    if not lines or not lines[0].strip().lower().startswith('"htsinfofile"'):
        raise ValueError(f"{barcode}: {path}: no ImageXpress plate description; its first line says HTSInfoFile")
    try:
        rows = [row for row in csv.reader(lines, skipinitialspace=True) if row]
    except csv.Error as error:
        raise ValueError(f"{barcode}: {path}: cannot be read ({error})") from error
    return {row[0].strip().lower(): row[1:] for row in rows}


def yes(table: Mapping[str, list[str]], key: str) -> bool:
    return (table.get(key) or [""])[0].strip().upper() == "TRUE"


def whole(table: Mapping[str, list[str]], key: str, where: str, maximum: int) -> int:
    text = (table.get(key) or [""])[0].strip()
    if not text.isdigit() or not 1 <= int(text) <= maximum:
        raise ValueError(f"{where}: {key} must be a number from 1 to {maximum}, got {text[:40]!r}")
    return int(text)


def absent(plate: Plate, chosen: set[tuple[str, int]], source: str) -> tuple[str, ...]:
    """A line on the chosen sites that have no image at all; none where all do."""
    missing = sorted(chosen - {(s.well, s.site) for s in plate.sites})
    if not missing:
        return ()
    shown = ", ".join(f"{well} site {site}" for well, site in missing[:5]) + ", ..." * (len(missing) > 5)
    return (f"{source} lists {len(chosen)} sites, and {len(missing)} of them have no image: {shown}",)
