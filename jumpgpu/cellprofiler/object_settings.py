"""Names for the settings of modules that make object sets, and of thresholds, by revision."""

from .rows import Row, Settings, Values, numbers, some

# fmt: off
THRESHOLD = (
    "strategy", "global_method", "smoothing", "correction", "bounds", "manual", "measurement", "classes", "log", "middle",
    "window", "lower_outliers", "upper_outliers", "averaging", "variance", "deviations", "local_method",
)
PRIMARY = (
    "image", "objects", "diameter", "discard_size", "discard_border", "declump", "lines", "smoothing", "suppression",
    "low_resolution", "fill_holes", "auto_smoothing", "auto_suppression", "limit", "limit_count", "advanced",
)
SECONDARY = (
    "seeds", "objects", "method", "image", "distance", "regularization", "discard_border", "discard_primary",
    "new_primary", "fill_holes",
)
# fmt: on
METHODS = {
    "MCT": "Minimum Cross-Entropy",
    "Minimum cross entropy": "Minimum Cross-Entropy",
    "RobustBackground": "Robust Background",
}


def primary(row: Row, revision: int) -> Settings:
    if revision < 12:  # CellProfiler 2: outlines, and thresholds by Laplacian of Gaussian
        row = Row(row.module, primary_of_two(row, revision))
    result = row.named(PRIMARY[:15])
    row.take(2 if revision == 14 else 0)  # maxima's display
    result["advanced"] = "Yes" if revision <= 12 else row.take()[0]
    return result | {"threshold": threshold(row)}


def primary_of_two(row: Row, revision: int) -> Values:
    """Revisions 10 and 11 in the order of 12."""
    first = row.take(22)
    if revision == 10:
        first[12] = {"No": "Never", "Yes": "After both thresholding and declumping"}.get(first[12], first[12])
    first[6] = "Intensity" if first[6] == "LoG" else first[6]
    first[20] = "None" if first[20] == "Truncate" else first[20]
    return first[:4] + first[5:11] + first[12:15] + first[20:] + row.values


def secondary(row: Row, revision: int) -> Settings:
    if revision == 9:  # with outlines
        first = row.take(13)
        row = Row(row.module, first[:6] + first[8:11] + row.values)
    return row.named(SECONDARY) | {"threshold": threshold(row)}


def threshold(row: Row) -> Settings:
    """The threshold's settings within another module: their own revision, then theirs in the order of revision 12."""
    return threshold_settings(row, row.count())


def threshold_settings(row: Row, revision: int) -> Settings:
    if revision < 4:
        row, revision = Row(row.module, threshold_of_two(row, revision)), 9
    if revision not in (9, 10, 11, 12):
        raise ValueError(
            f"{row.module}: revision {revision} of its threshold's settings is not read; 1 to 3 and 9 to 12 are"
        )
    names = [n for n in THRESHOLD if (n != "log" or revision == 12) and (n != "local_method" or revision > 9)]
    result = row.named(names)
    if revision == 9 and result["strategy"] in ("Manual", "Measurement"):
        result |= {"global_method": result["strategy"], "strategy": "Global"}
    if revision == 9 and result["strategy"] == "Adaptive" and result["global_method"] in ("MCT", "RobustBackground"):
        result["strategy"] = "Global"  # what CellProfiler makes of it
    adaptive = result["strategy"] == "Adaptive"
    result["method"] = result["local_method" if adaptive and revision > 9 else "global_method"]
    result["method"] = METHODS.get(result["method"], result["method"])
    if revision < 12:  # before 4.0 three classes of Otsu were of logarithms
        old_otsu3 = revision < 11 and result["method"] == "Otsu" and result["classes"] == "Three classes"
        result["log"] = "Yes" if old_otsu3 else "No"
    return result


def threshold_of_two(row: Row, revision: int) -> Values:
    """Revisions 1 to 3 of CellProfiler 2 in the order of revision 9."""
    if revision == 3:
        return row.values
    v = ["", *row.values]  # counted from 1, as the revision stood before them
    if revision == 1:
        v += ["Default", "0.05", "0.05", "Mean", "Standard deviation", "2"]
    if len(v) < 23:
        raise ValueError(f"{row.module}: has fewer settings than revision {revision} of its threshold has")
    if v[1] in ("Binary image", "Per object"):
        v[1] = "None"
    if v[1] == "Automatic":
        v[1:7] = ["Global", "MCT", "Manual", "1.3488", "1", "(0.0, 1.0)"]
    if v[2] in ("Kapur", "MoG", "RidlerCalvard"):
        v[2] = "None"
    if v[2] == "Background":
        v[2] = "RobustBackground"
        v[17:23] = ["Custom", "0.02", "0.02", "Mode", "Standard deviation", "0"]
        v[5] = str(2 * (numbers(v[5], row.module)[0] or 1.0))
    v[4] = {"No smoothing": "0", "Automatic": "1.3488"}.get(v[3], v[4])
    if v[17] == "Default":
        v[18:23] = ["0.05", "0.05", "Mean", "Standard deviation", "2"]
    return [*v[1:3], *v[4:7], *v[8:10], v[12], v[14], v[16], *v[18:]]


def threshold_module(row: Row, revision: int) -> Settings:
    """Threshold, once ApplyThreshold."""
    result = row.named(("image", "output"))
    if revision == 7:
        row.take(4)
        revision = row.count()
        return result | {"threshold": threshold_settings(row, revision)}
    if revision == 8:
        row.take(1)
    return result | {"threshold": threshold_settings(row, max(revision, 9))}


def tertiary(row: Row, revision: int) -> Settings:
    result = row.named(("larger", "smaller", "objects"))
    row.take({1: 2, 2: 2, 3: 0}[revision])  # outlines
    return result | {"shrink": "Yes" if revision == 1 else row.take()[0]}


def filter_objects(row: Row, revision: int) -> Settings:
    """`sets`: (objects, filtered objects), the first those that decide; `limits`: (measurement, lowest, highest), None
    for none."""
    output, objects = row.take(2)
    if revision > 7:
        output, objects = objects, output
    result: Settings = dict(zip(("mode", "choice", "enclosing"), row.take(3), strict=True))
    row.take({4: 5, 5: 4, 6: 5, 7: 5}.get(revision, 3))  # outlines, and where rules lie
    n_limits, additional = row.count(), row.count()
    result["assignment"] = "Both parents" if revision < 7 else row.take()[0]
    result["removed"] = ""
    if revision > 8:
        keep, removed = row.take(2)
        result["removed"] = removed if keep == "Yes" else ""
    limits = [row.take(5) for _ in range(n_limits)]
    result["limits"] = [
        (m, low if want == "Yes" else None, high if wish == "Yes" else None) for m, want, low, wish, high in limits
    ]
    others = [row.take(4 if revision < 8 else 2)[:2] for _ in range(additional)]
    return result | {"sets": [[objects, output], *others]}


def mask_objects(row: Row, revision: int) -> Settings:
    names = ("objects", "output", "source", "by_objects", "mask", "overlap", "share", "numbers")
    result = row.named(names)
    row.take(2 if revision < 3 else 0)  # outlines
    return result | {"invert": row.take()[0] if revision > 1 else "No"}


def expand(row: Row, revision: int) -> Settings:
    result = row.named(("objects", "output", "operation", "pixels"))
    return result | {"fill": row.take()[0] if row.values else "No"}


def relate(row: Row, revision: int) -> Settings:
    if revision == 1:
        child, parent, distances, step, means = row.take(5)
        distances = "None" if distances == "Do not use" else distances
        steps = "No" if step.upper() == "DO NOT USE" else "Yes"
        result = {"parent": parent, "child": child, "distances": distances, "means": means, "steps": steps, "save": "No"}
        return result | {"saved": "None", "step_parents": some([step] if steps == "Yes" else [])}
    first, second = row.take(2)
    if revision == 2:
        first, second = second, first
    saved = row.take()[0] if revision == 4 else "None"
    result = {"parent": first, "child": second} | row.named(("distances", "means", "steps"))
    result["save"] = {2: "No", 3: "No", 4: "Yes"}.get(revision) or row.take()[0]
    result["saved"] = saved if revision == 4 else (row.take()[0] if revision == 5 else "None")
    return result | {"step_parents": some(row.values)}


def resize_objects(row: Row, revision: int) -> Settings:
    """`factors` and `size` of rows and columns; `like`: an image."""
    result = row.named(("objects", "output", "method"))
    if revision == 3:
        x, y, _, width, height, _ = row.take(6)
    else:
        factor, width, height = row.take(3)
        x = y = factor
    like = row.take()[0] if revision > 1 else "None"
    return result | {"factors": [y, x], "size": [height, width], "like": like}


def regroup(row: Row, revision: int) -> Settings:
    """SplitOrMergeObjects, once RelabelObjects and ReassignObjectNumbers."""
    names = ("objects", "output", "method", "distance", "guided", "image", "fraction", "by")
    result = row.named(names) | {"of": "Distance", "parent": "None", "hull": "Disconnected"}
    row.take(2 if revision < 5 else 0)  # outlines
    result["of"], result["parent"] = row.take(2)
    return result | ({"hull": row.take()[0]} if revision > 3 else {})


def watershed(row: Row, revision: int) -> Settings:
    result = row.named(("image", "output")) | {"advanced": row.take()[0] if revision > 2 else "No"}
    result |= row.named(("generate", "markers", "mask"))
    rest = ("connectivity", "compactness") if revision > 1 else ()
    return (
        {"connectivity": "1", "compactness": "0.0"}
        | result
        | row.named((*rest, "footprint", "downsample"))
        | {"lines": row.take()[0] if revision > 1 and row.values else "No"}
    )


def overlap(row: Row, revision: int) -> Settings:
    """MeasureObjectOverlap; `truth` and `test`."""
    result = row.named(("truth", "test"))
    return result | {"distance": row.take()[0] if row.values else "No"}


def image_overlap(row: Row, revision: int) -> Settings:
    if 1 < revision < 5:
        row.take(1)  # objects or images
    return overlap(row, revision)


def image_skeleton(row: Row, _: int) -> Settings:
    return row.named(("image",))
