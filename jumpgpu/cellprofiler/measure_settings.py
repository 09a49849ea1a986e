"""Names for the settings of modules that measure, by revision."""

from .parse import printable
from .rows import Row, Settings, some, words


def colocalization(row: Row, revision: int) -> Settings:
    """Once MeasureCorrelation. What an older file lacks has CellProfiler's default. `ordered`: whether CellProfiler
    keeps the order
    of the images; it reads those of revision 3 into a set."""
    if revision < 4:
        n_images, n_objects = row.count(), row.count()
        images = some(row.take(n_images))
        where = row.take()[0] if revision == 2 else ""
        percent = "15.0" if revision == 2 else row.take()[0]
        where = where or row.take()[0]
        objects = some(row.take(n_objects))
    else:
        images = words(row.take()[0])
        percent, where = row.take(2)
        objects = words(row.take()[0])
    row.values += ["Yes"] * (6 - len(row.values))
    wants = row.named(("all", "correlation", "manders", "rwc", "overlap", "costes"))
    mode = row.take()[0] if revision == 5 and row.values else "Faster"
    return {
        "images": images,
        "objects": objects,
        "percent": percent,
        "where": where,
        "costes_mode": mode,
        "ordered": revision > 3,
        **wants,
    }


def granularity(row: Row, revision: int) -> Settings:
    """CellProfiler 4 measures every image in every object set alike, with the first image's settings where a file has
    several."""
    names = ("subsampling", "background_subsampling", "radius", "spectrum")
    if revision == 4:
        images, inside, objects = row.take(3)
        return {"images": words(images), "objects": words(objects) if inside == "Yes" else [], **row.named(names)}
    result: list[str] = []
    measured: list[str] = []
    chosen: list[Settings] = []
    for _ in range(row.count() if revision == 3 else len(row.values) // 5):
        n_objects = row.count() if revision == 3 else 0
        result += row.take()
        chosen.append(row.named(names))
        measured += row.take(n_objects)
    if not chosen:
        raise ValueError(f"{row.module}: measures no image")
    return {"images": some(result), "objects": some(measured), **chosen[0]}


def intensity(row: Row, revision: int) -> Settings:
    if revision == 2:
        if "Do not use" not in row.values:
            raise ValueError(f"{row.module}: no end of its list of images")
        end = row.values.index("Do not use")
        return {"images": some(row.values[:end]), "objects": some(row.values[end + 1 :])}
    if revision == 3:
        return {"images": some(row.take(row.count())), "objects": some(row.values)}
    images, objects = row.take(2)
    return {"images": words(images), "objects": words(objects)}


def shape(row: Row, revision: int) -> Settings:
    objects = some(row.take(len(row.values) - 1)) if revision == 1 else words(row.take()[0])
    return {"objects": objects, "zernike": row.take()[0], "advanced": row.take()[0] if revision == 3 else "No"}


def neighbors(row: Row, revision: int) -> Settings:
    first = row.take()
    result = {"objects": first[0], "neighbors": (first if revision == 1 else row.take())[0]}
    result |= row.named(("method", "distance"))
    return result | {"discarded": row.take()[0] if revision == 3 else "Yes"}


def distribution(row: Row, revision: int) -> Settings:
    """`objects`: (measured, centre, of which); `bins`: (scaled, number, maximum radius)."""
    first = row.take()[0]
    n_objects, n_bins = row.count(), row.count()
    row.take(0 if revision < 4 else 1)  # heatmaps
    result = row.named(("zernike", "degree")) if revision > 4 else {"zernike": "None", "degree": "9"}
    if revision < 6:
        if not first.isdigit():
            raise ValueError(f"{row.module}: expected a count of images, got {printable(first)}")
        images = some(row.take(int(first)))
    else:
        images = words(first)
    objects = [row.take(3) for _ in range(n_objects)]
    for o in objects:
        o[1] = "Centers of other objects" if o[1] == "Other objects" else o[1]
    if revision == 1:
        return result | {"images": images, "objects": objects, "bins": [["Yes", n, "100"] for n in row.take(n_bins)]}
    return result | {"images": images, "objects": objects, "bins": [row.take(3) for _ in range(n_bins)]}


def texture(row: Row, revision: int) -> Settings:
    """Angles, and Gabor's texture, are no more."""
    if revision < 6:
        n_images, n_objects, n_scales = row.count(), row.count(), row.count()
        images, objects = some(row.take(n_images)), some(row.take(n_objects))
        if revision in (3, 4):
            scales = row.take(2 * n_scales)[::2]
        else:
            scales = row.take(n_scales)
        where = row.values[-1] if revision > 3 and row.values else "Both"
        return {"images": images, "objects": objects, "scales": scales, "where": where, "levels": "256"}
    images, objects = (words(text) for text in row.take(2))
    levels = row.take()[0] if revision == 7 else "256"
    n_scales, where = row.count(), row.take()[0]
    return {"images": images, "objects": objects, "scales": row.take(n_scales), "where": where, "levels": levels}


def image_quality(row: Row, _: int) -> Settings:
    """`groups` of images: what each is asked for."""
    which = row.take()[0]
    counts = [(row.count(), row.count()) for _ in range(row.count())]  # of scales and thresholds
    groups = []
    for n_scales, n_thresholds in counts:
        group: Settings = {"images": words(row.take()[0])} | row.named(("scaling", "blur"))
        group["scales"] = row.take(n_scales)
        group |= row.named(("saturation", "intensity", "thresholds", "all_methods"))
        methods = [row.take(5) for _ in range(n_thresholds)]
        groups.append(group | {"methods": [[m[0], m[2]] for m in methods], "variants": methods})
    return {"all_images": which == "All loaded images", "groups": groups}


def skeleton(row: Row, revision: int) -> Settings:
    result = row.named(("seeds", "image", "branch_image", "branch_name"))
    return result | (row.named(("fill_holes", "hole_size")) if revision > 1 else {"fill_holes": "Yes", "hole_size": "10"})


def calculate_math(row: Row, _: int) -> Settings:
    """`operands`: (what, objects, measurement, factor, exponent)."""
    result = row.named(("name", "operation"))
    result["operands"] = [row.take(5), row.take(5)]
    result |= row.named(("log", "factor", "exponent"))
    result["addend"] = row.take()[0] if row.values and len(row.values) != 4 else "0"
    result["rounding"], result["digits"] = row.take(2) if len(row.values) > 4 else ("Not rounded", "0")
    return result | row.named(("wants_lower", "lower", "wants_upper", "upper"))


def classify(row: Row, revision: int) -> Settings:
    """`groups` of one measurement each: objects, measurement, bins and their names."""
    contrast, n = row.take()[0], row.count()
    row.take(1 if revision > 2 else 0)  # how many classes of a model
    names = ("objects", "measurement", "spacing", "bins", "low", "below", "high", "above", "custom", "named", "names")
    groups = []
    for _group in range(n):
        groups.append(row.named(names))
        row.take(2)  # an image of them
    return {"contrast": contrast, "groups": groups}


def image_intensity(row: Row, revision: int) -> Settings:
    """`runs`: (images, within objects, of which)."""
    if revision < 3:
        runs = [row.take(3) for _ in range(len(row.values) // 3)]
        return {
            "runs": [([image], inside == "Yes", some([objects])) for image, inside, objects in runs],
            "percentiles": "No",
        }
    images, inside, objects = row.take(3)
    percentiles, which = row.take(2) if revision > 3 else ("No", "")
    return {"runs": [(words(images), inside == "Yes", words(objects))], "percentiles": percentiles, "which": which}


def area_occupied(row: Row, revision: int) -> Settings:
    """Of revision 4 CellProfiler 4 makes one list of images and one of objects."""
    if revision == 4:
        rows = [row.take(3) for _ in range(row.count())]
        binary = some([r[2] for r in rows if r[0] == "Binary Image"])
        return {"images": binary, "objects": some([r[1] for r in rows if r[0] == "Objects"])}
    which, images, objects = row.take(3)
    return {
        "images": words(images) if which in ("Binary Image", "Both") else [],
        "objects": words(objects) if which in ("Objects", "Both") else [],
    }


def flag(row: Row, revision: int) -> Settings:
    """`flags`: category, name, how they are linked, whether they skip, and `measurements`."""
    names = ("source", "objects", "measurement", "wants_minimum", "minimum", "wants_maximum", "maximum")
    more = {2: 0, 3: 2, 4: 3, 5: 4}[revision]  # a file of rules, its class, fuzzy names
    flags = []
    for _ in range(row.count()):
        n = row.count()
        result = row.named(("category", "name", "linked", "skip"))
        result["measurements"] = []
        for _ in range(n):
            result["measurements"].append(row.named(names))
            row.take(more)
        flags.append(result)
    return {"flags": flags, "ignore_last": row.take()[0] if row.values else "No"}
