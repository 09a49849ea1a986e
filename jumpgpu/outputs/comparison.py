"""A plate beside a lab's own CellProfiler output: which objects are the same, and whether their numbers are.

Objects are matched within a site and set, by number where their centres agree, else to the nearest of the rest. Numbers are
compared between objects of equal area and centre, so that another outline is told apart from another measurement.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ..store.reader import StoredPlate
from .cellprofiler_tables import object_tables, sets_of
from .comparison_result import EQUAL, TOLERANCE, Column, Comparison, ObjectSet, listed
from .lab_tables import KEY, OBJECT, LabTables, place_by_files, read_lab_tables, shortened

SAME_PLACE, NEAR = 1.0, 5.0  # pixels between centres: of one number, of objects of other numbers
CENTRES = (("AreaShape_Center_X", "AreaShape_Center_Y"), ("Location_Center_X", "Location_Center_Y"))
AREA = "AreaShape_Area"
NUMBERED = ("Number_Object_Number", "Parent_", "Neighbors_FirstClosestObjectNumber", "Neighbors_SecondClosestObjectNumber")
RINGS = "RadialDistribution_"
CHOSEN = (RINGS, "Location_MaxIntensity_")  # of which CellProfiler's means are of choices among equals
AGGREGATES: dict[str, Callable[[np.ndarray], Any]] = {"Mean": np.mean, "Median": np.median, "StDev": np.std}
BOOKS = (  # columns of the Image table that are no measurement
    *("ExecutionTime_", "ModuleError_", "FileName_", "PathName_", "URL_", "MD5Digest_", "Group_", "Frame_", "Series_"),
    *(
        "Channel_",
        "Height_",
        "Width_",
        "Scaling_",
        "Metadata_",
        "ImageSet",
        "ProcessingStatus",
        "Thumbnail_",
        "ObjectsFileName_",
    ),
    *("ObjectsPathName_", "ObjectsURL_", "ObjectsFrame_", "ObjectsChannel_", "ObjectsSeries_", "ObjectsMD5", "_"),
)


@dataclass
class Pairs:
    """Objects of a site that are alike on both sides, a row each.

    whole  whether every object of theirs is matched by number;  tied  bool [n], several pixels are farthest from the edge
    """

    where: str
    ours: pd.DataFrame
    theirs: pd.DataFrame
    whole: bool
    tied: np.ndarray


def compare_tables(plate: StoredPlate, lab: Path, names: Mapping[str, str] | None = None) -> Comparison:
    """Hold a plate beside CellProfiler's own tables of some of its wells.

    Parameters
    ----------
    lab : a folder of ExportToSpreadsheet's CSV files at any depth, or an SQLite file of ExportToDatabase or
        cytominer-database
    names : their name of an object set or image -> ours, where they are called otherwise

    Raises FileNotFoundError and ValueError where there is nothing to compare, saying what was looked for.
    """
    tables = read_lab_tables(lab)
    lengthened(plate, tables, names or {})
    renamed(tables, names or {})
    files = {
        PurePosixPath(i["file"]).name: (well, site["site"])
        for well in plate.wells
        for site in plate.record(well)["sites"]
        for i in site["inputs"]
    }
    place_by_files(tables, files)
    result = Comparison(plate.barcode, str(lab), notes=list(tables.notes))
    keys = site_keys(plate, tables, result)
    for name in tables.objects:
        if name not in sets_of(plate):
            result.sets_lacking.append(name)
    compare_objects(plate, tables, keys, result)
    compare_images(plate, tables, keys, result)
    return result


def lengthened(plate: StoredPlate, tables: LabTables, names: Mapping[str, str]) -> None:
    """Columns that ExportToDatabase shortened under the names that they were made from, where the plate has such ones."""
    if not tables.longest:
        return
    theirs = {own: name for name, own in names.items()}
    words = re.compile("|".join(rf"(?<![^_]){re.escape(own)}(?![^_])" for own in theirs) or "(?!)")
    made: dict[str, dict[str, str]] = {}
    for name, columns in {**sets_of(plate), "Image": tuple(plate.image_table(plate.wells[:1]).columns)}.items():
        whole = [words.sub(lambda match: theirs[match[0]], f"{name}_{c.removeprefix(f'{name}_')}") for c in columns]
        of = theirs.get(name, name)
        short = {shortened(c, tables.longest).removeprefix(f"{of}_"): c.removeprefix(f"{of}_") for c in whole}
        made[of] = {c: long for c, long in short.items() if c not in short.values()}
    for name, columns in sets_of(plate).items():
        of = theirs.get(name, name)
        for aggregate in AGGREGATES:
            whole = [
                words.sub(lambda match: theirs[match[0]], f"{aggregate}_{name}_{c.removeprefix(f'{name}_')}")
                for c in columns
            ]
            made["Image"] |= {shortened(c, tables.longest): c for c in whole if len(c) > tables.longest}
    n = 0
    for name, table in {**tables.objects, "Image": tables.images}.items():
        longer = {c: made.get(name, {}).get(c, c) for c in table.columns}
        longer = {c: long for c, long in longer.items() if c != long and long not in table.columns}
        n += len(longer)
        changed = table.rename(columns=longer)
        if name == "Image":
            tables.images = changed
        else:
            tables.objects[name] = changed
    if n:
        tables.notes.append(
            f"{n} columns are known by the names that ExportToDatabase shortens to {tables.longest} characters"
        )


def renamed(tables: LabTables, names: Mapping[str, str]) -> None:
    """Their names of object sets and images as ours, wherever a column has them as words."""
    if not names:
        return

    def ours(column: str) -> str:
        for theirs, own in names.items():
            parts = f"_{column}_".replace(f"_{theirs}_", f"_{own}_")
            column = parts.replace(f"_{theirs}_", f"_{own}_")[1:-1]
        return column

    tables.images = tables.images.rename(columns={c: ours(c) for c in tables.images.columns if not c.startswith("_")})
    tables.objects = {
        names.get(name, name): table.rename(columns={c: ours(c) for c in table.columns if c not in (KEY, OBJECT)})
        for name, table in tables.objects.items()
    }


def site_keys(plate: StoredPlate, tables: LabTables, result: Comparison) -> dict[tuple[str, int], str]:
    """(well, site) -> their image, of the sites that both have."""
    image = tables.images
    plates = set(image["_plate"].dropna())
    if plate.barcode in plates:
        image = image[image["_plate"] == plate.barcode]
        if len(plates) > 1:
            result.notes.append(f"of their plates {listed(sorted(plates))} only {plate.barcode} is compared")
    elif plates:
        if len(plates) > 1:
            raise ValueError(f"{result.lab}: has plates {listed(sorted(plates))}, and not {plate.barcode}")
        result.notes.append(f"their plate is called {plates.pop()}")
    known = image[image["_well"].notna() & image["_site"].notna()]
    if known.empty:
        raise ValueError(
            f"{result.lab}: its Image table says no well and site (Metadata_Well, Metadata_Site), and no FileName_ in it is "
            f"of an image of {plate.barcode}"
        )
    if unplaced := len(image) - len(known):
        result.notes.append(f"{unplaced} of their images say no well and site and are left out")
    theirs: dict[tuple[str, int], str] = {}
    for key, well, site in zip(known[KEY], known["_well"], known["_site"], strict=True):
        if (str(well), int(site)) in theirs:
            raise ValueError(f"{result.lab}: {well} site {site} is there twice; name a folder with one run of the plate")
        theirs[str(well), int(site)] = str(key)
    ours = {(well, site["site"]) for well in plate.wells for site in plate.record(well)["sites"]}
    result.sites = [spoken(at) for at in sorted(ours & set(theirs))]
    result.only_theirs = [spoken(at) for at in sorted(set(theirs) - ours)]
    if not result.sites:
        raise ValueError(f"{result.lab}: none of its sites ({listed(result.only_theirs)}) is in {plate.barcode}")
    return {at: key for at, key in theirs.items() if at in ours}


def spoken(at: tuple[str, int]) -> str:
    return f"{at[0]} site {at[1]}"


def compare_objects(plate: StoredPlate, tables: LabTables, keys: Mapping[tuple[str, int], str], result: Comparison) -> None:
    """Every set that both have: its objects matched site by site, then its columns."""
    shared = [name for name in tables.objects if name in sets_of(plate)]
    pairs: dict[str, list[Pairs]] = {name: [] for name in shared}
    rows = {name: dict(tuple(tables.objects[name].groupby(KEY, sort=False))) for name in shared}
    for name in shared:
        result.sets[name] = ObjectSet(name)
    for well in dict.fromkeys(well for well, _ in keys):
        ties = ties_of(plate, [at for at in keys if at[0] == well])
        for name, table in object_tables(plate, well).items():
            if name not in rows:
                continue
            for at in (a for a in keys if a[0] == well):
                ours = table[table["Metadata_Site"] == at[1]].drop(columns=["Metadata_Well", "Metadata_Site"])
                theirs = rows[name].get(keys[at], tables.objects[name].iloc[:0]).drop(columns=KEY)
                part = match(ours, theirs, spoken(at), result.sets[name])
                part.tied = part.ours[OBJECT].isin(ties.get((at, name), ())).to_numpy()
                pairs[name].append(part)
    for name in shared:
        ours, theirs = set(sets_of(plate)[name]), set(tables.objects[name].columns) - {KEY, OBJECT}
        own = {c.removeprefix(f"{name}_") for c in ours}
        known = {c: c if c in own else swapped(c) for c in theirs if c in own or swapped(c) in own}
        if missing := sorted(c for c in theirs - set(known) if numeric(tables.objects[name][c])):
            result.lacking[name] = missing
        if more := sorted(own - set(known.values())):
            result.besides[name] = more
        result.columns += compared(name, pairs[name], known)
    left_out = sum(int(p.tied.sum()) for parts in pairs.values() for p in parts)
    rings = [c for c in result.columns if c.name.startswith(RINGS)]
    if left_out and rings:
        result.notes.append(f"{RINGS}: {left_out} objects left out, whose centre CellProfiler chooses of several pixels")
    elif any(c.status == "differs" for c in rings):
        result.notes.append(
            f"{RINGS}: where several pixels are farthest from an object's edge CellProfiler takes any of them for its "
            "centre; of a plate extracted with --save-labels such objects are left out"
        )


def ties_of(plate: StoredPlate, sites: Sequence[tuple[str, int]]) -> dict[tuple[tuple[str, int], str], set[int]]:
    """(site, set) -> numbers of its objects without one centre, where label images are stored."""
    return {(at, name): tied(labels) for at in sites if has_labels(plate, at) for name, labels in plate.labels(*at).items()}


def has_labels(plate: StoredPlate, at: tuple[str, int]) -> bool:
    prefix = f"{at[1]}/labels/"
    return any(key.startswith(prefix) for key in plate.record(at[0])["files"])


def match(ours: pd.DataFrame, theirs: pd.DataFrame, where: str, of: ObjectSet) -> Pairs:
    """Pairs of rows of a site: by number where centres agree, then the nearest that are each other's."""
    ours, theirs = ours.reset_index(drop=True), theirs.reset_index(drop=True)
    numbers = {int(n): i for i, n in enumerate(theirs[OBJECT])}
    same = [(i, numbers[int(n)]) for i, n in enumerate(ours[OBJECT]) if int(n) in numbers]
    names = next((pair for pair in CENTRES if all(c in ours and c in theirs for c in pair)), None)
    near: list[tuple[int, int]] = []
    if names is None:
        of.placed = False
    else:
        a, b = (t[list(names)].to_numpy(float) for t in (ours, theirs))
        same = [(i, j) for i, j in same if not np.linalg.norm(a[i] - b[j]) > SAME_PLACE]
        near = nearest(a, b, {i for i, _ in same}, {j for _, j in same})
    matched = [*same, *near]
    left, right = ours.iloc[[i for i, _ in matched]], theirs.iloc[[j for _, j in matched]]
    alike = np.ones(len(matched), bool)
    for column in (*(names or ()), AREA):
        if column in ours and column in theirs:
            alike &= agreement(left[column].to_numpy(float), right[column].to_numpy(float), column, TOLERANCE)
    of.ours, of.theirs = of.ours + len(ours), of.theirs + len(theirs)
    of.by_number, of.by_place, of.alike = of.by_number + len(same), of.by_place + len(near), of.alike + int(alike.sum())
    of.sites[where] = len(ours), len(theirs), len(matched)
    whole = not near and len(same) == len(theirs)
    return Pairs(where, left[alike], right[alike], whole, np.zeros(int(alike.sum()), bool))


def tied(labels: np.ndarray) -> set[int]:
    """Numbers of the objects of which several pixels are farthest from the edge: CellProfiler takes any for their centre."""
    from scipy import ndimage

    result = set()
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            wide = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)  # no edge at the image's border
            inside = labels[wide] == number
            depth = np.rint(ndimage.distance_transform_edt(inside) ** 2)
            if np.count_nonzero(depth == depth.max()) > 1:
                result.add(number)
    return result


def nearest(a: np.ndarray, b: np.ndarray, taken_a: set[int], taken_b: set[int]) -> list[tuple[int, int]]:
    """Of the rows not taken, those that are each other's nearest, within NEAR pixels."""
    from scipy.spatial import cKDTree

    left = [i for i in range(len(a)) if i not in taken_a and np.isfinite(a[i]).all()]
    right = [j for j in range(len(b)) if j not in taken_b and np.isfinite(b[j]).all()]
    if not left or not right:
        return []
    there, back = cKDTree(b[right]), cKDTree(a[left])
    distance, to = there.query(a[left])
    _, fro = back.query(b[right])
    return [(left[i], right[j]) for i, j in enumerate(to) if distance[i] <= NEAR and fro[j] == i]


def compared(table: str, pairs: Sequence[Pairs], known: Mapping[str, str]) -> list[Column]:
    """Every column that both have, over all pairs; of numbers of objects only where all of a site have theirs, of rings only
    where an object has one centre."""
    if not pairs:
        return [Column(table, name, 0, 0, 0) for name in sorted(known)]
    ours, theirs = (pd.concat([getattr(p, side) for p in pairs], ignore_index=True) for side in ("ours", "theirs"))
    whole = np.concatenate([np.full(len(p.ours), p.whole) for p in pairs])
    one_centre = ~np.concatenate([p.tied for p in pairs])
    where = [f"{p.where} object {int(n)}" for p in pairs for n in p.ours[OBJECT]]
    result = []
    for name in sorted(known):
        if not numeric(theirs[name]):
            continue
        chosen = whole if name.startswith(NUMBERED) else one_centre if name.startswith(RINGS) else np.ones(len(ours), bool)
        a = ours[known[name]].to_numpy(float)[chosen]
        b = pd.to_numeric(theirs[name], errors="coerce").to_numpy(float)[chosen]
        result.append(column_of(table, name, a, b, [w for w, c in zip(where, chosen, strict=True) if c]))
    return result


def numeric(values: pd.Series) -> bool:
    return bool(values.isna().all()) or pd.api.types.is_numeric_dtype(values)


def column_of(table: str, name: str, a: np.ndarray, b: np.ndarray, where: Sequence[str]) -> Column:
    equal, within = (agreement(a, b, name, tolerance) for tolerance in (EQUAL, TOLERANCE))
    result = Column(table, name, len(a), int(equal.sum()), int(within.sum()))
    if len(a) and not equal.all():
        distance = gap(a, b, name)
        size = np.where(equal, -1.0, np.where(np.isnan(distance), np.inf, distance / (1e-9 + np.abs(np.nan_to_num(b)))))
        worst = int(np.argmax(size))
        result.worst, result.ours, result.theirs, result.where = (
            float(size[worst]),
            float(a[worst]),
            float(b[worst]),
            where[worst],
        )
    return result


def gap(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    """The distance of values; of orientations, which turn over at 90 degrees, the smaller way."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
        return np.minimum(distance, np.abs(180 - distance)) if name.endswith("AreaShape_Orientation") else distance


def agreement(a: np.ndarray, b: np.ndarray, name: str, tolerance: tuple[float, float]) -> np.ndarray:
    """bool: whether values agree, NaN with NaN."""
    with np.errstate(invalid="ignore"):
        close = gap(a, b, name) <= tolerance[0] + tolerance[1] * np.abs(b)
    return close | (a == b) | (np.isnan(a) & np.isnan(b))


def swapped(column: str) -> str:
    """Correlation and overlap of b and a, which are those of a and b; "" for another column."""
    parts = column.split("_")
    if len(parts) == 4 and parts[:2] in (["Correlation", "Correlation"], ["Correlation", "Overlap"]):
        return "_".join([*parts[:2], parts[3], parts[2]])
    return ""


def aggregates(plate: StoredPlate, wells: Sequence[str], wanted: Sequence[str]) -> pd.DataFrame:
    """ExportToSpreadsheet's means, medians and deviations over a site's objects (`Mean_Nuclei_AreaShape_Area`), of those
    wanted that can be made: a row per site. NaN is left out."""
    asked = [
        (column, of, name, column.removeprefix(f"{of}_{name}_"))
        for column in wanted
        for of in AGGREGATES
        for name in sets_of(plate)
        if column.startswith(f"{of}_{name}_")
    ]
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for well in wells if asked else ():
        tables = object_tables(plate, well)
        for site in plate.record(well)["sites"]:
            row = rows.setdefault((well, site["site"]), {})
            here = {name: table[table["Metadata_Site"] == site["site"]] for name, table in tables.items()}
            for column, of, name, measure in asked:
                if measure in here[name]:
                    values = here[name][measure].to_numpy(float)
                    values = values[~np.isnan(values)]
                    row[column] = float(AGGREGATES[of](values)) if len(values) else np.nan
    index = pd.MultiIndex.from_tuples(list(rows), names=["Metadata_Well", "Metadata_Site"]) if rows else None
    return pd.DataFrame(list(rows.values()), index=index)


def compare_images(plate: StoredPlate, tables: LabTables, keys: Mapping[tuple[str, int], str], result: Comparison) -> None:
    """The Image tables of the sites that both have."""
    wells = list(dict.fromkeys(well for well, _ in keys))
    mine = plate.image_table(wells).set_index(["Metadata_Well", "Metadata_Site"])
    mine.columns = pd.Index([c.removeprefix("Image_") for c in mine.columns])
    for name, of in result.sets.items():  # a preset counts its cells, which are every set's objects
        if f"Count_{name}" not in mine:
            counts = {tuple(site.rsplit(" site ", 1)): n for site, (n, _, _) in of.sites.items()}
            mine[f"Count_{name}"] = [counts.get((well, str(site)), np.nan) for well, site in mine.index]
    theirs = tables.images.drop_duplicates(KEY).set_index(KEY)
    at = sorted(keys)
    mine = pd.concat([mine, aggregates(plate, wells, list(theirs.columns)).reindex(mine.index)], axis=1)
    of_choice = tuple(f"{a}_{name}_{c}" for a in AGGREGATES for name in sets_of(plate) for c in CHOSEN)
    theirs = theirs[[c for c in theirs.columns if not c.startswith(of_choice)]]
    flags = [c for c in theirs.columns if c.startswith("Metadata_") and c in mine]  # FlagImage's may be called so
    measured = [c for c in theirs.columns if (not c.startswith(BOOKS) or c in flags) and numeric(theirs[c])]
    known = {c: c if c in mine else swapped(c) for c in measured if c in mine or swapped(c) in mine}
    if missing := sorted(set(measured) - set(known)):
        result.lacking["Image"] = missing
    if more := sorted(set(mine.columns) - set(known.values()) - {"Metadata_Plate"}):
        result.besides["Image"] = more
    for name in sorted(known):
        a = mine.loc[at, known[name]].to_numpy(float)
        b = pd.to_numeric(theirs.loc[[keys[k] for k in at], name], errors="coerce").to_numpy(float)
        result.columns.append(column_of("Image", name, a, b, [spoken(k) for k in at]))
