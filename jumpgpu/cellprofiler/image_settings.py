"""Names for the settings of modules that make images, by revision."""

import re

from .rows import Row, Settings

# fmt: off
CALCULATE = (
    "image", "output", "kind", "dilate", "dilation_radius", "block", "rescale", "each", "method", "size_by",
    "object_width", "filter_size", "keep_average", "average", "keep_dilated", "dilated",
)
# fmt: on


def calculate(row: Row, revision: int) -> Settings:
    result = row.named(CALCULATE)
    names = (
        *("auto_splines", "spline_mode", "spline_points", "spline_threshold"),
        *("spline_scale", "spline_iterations", "spline_convergence"),
    )
    if revision == 1:
        return result | dict(zip(names, ("Yes", "auto", "5", "2", "2", "40", "0.001"), strict=True))
    return result | row.named(names)


def apply(row: Row, revision: int) -> Settings:
    """`images`: (input, output, function, how); rescaling went away with revision 3, clipping came with 5."""
    trailing = {4: 1, 5: 2}.get(revision, 0)
    size = 5 if revision < 3 else 4
    n = (len(row.values) - trailing) // size
    images = [row.take(size) for _ in range(n)]
    low, high = row.take(2) if revision == 5 else ("Yes", "Yes")
    rescaled = [i[4] for i in images if revision < 3 and i[4] != "No rescaling"]
    return {"images": [i[:4] for i in images], "low": low, "high": high, "rescaled": rescaled}


def resize(row: Row, revision: int) -> Settings:
    """`images`: (input, output); `factors` of y and x; `size` of rows and columns; `like`: an image, or nothing."""
    first = row.take(2)
    how = row.take()[0]
    factors = row.take(3)[1::-1] if revision == 5 else row.take() * 2
    width, height = row.take(3 if revision == 5 else 2)[:2]
    interpolation = row.take()[0]
    manual, like = row.take(2) if revision > 3 else ("Manual", "None")
    return {
        "by_factor": how.startswith("Resize by a fact") or how.startswith("Resize by a frac"),
        "factors": factors,
        "size": (height, width),
        "like": "" if manual == "Manual" else like,
        "interpolation": interpolation,
        "images": [first, *(row.take(2) for _ in range(row.count() if revision > 2 else 0))],
    }


def image_math(row: Row, revision: int) -> Settings:
    """`operands`: ("Image" or "Measurement", image, factor, measurement)."""
    result = row.named(("operation", "exponent", "factor", "addend", "low", "high"))
    result["replace_nan"] = row.take()[0] if revision > 4 else "Yes"
    result["ignore_mask"] = row.take()[0] if revision > 2 else "No"
    result["output"] = row.take()[0]
    size = 4 if revision > 1 else 2
    operands = [row.take(size) for _ in range(len(row.values) // size)]
    if size == 2:
        operands = [["Image", *o, ""] for o in operands]
    if revision < 4 and result["operation"] == "Log transform (base 2)":
        result["operation"] = "Log transform (legacy)"
    return result | {"operands": operands}


def enhance(row: Row, revision: int) -> Settings:
    names = (
        *("image", "output", "operation", "size", "feature", "hole_size", "smoothing", "angle", "decay"),
        *("neurites", "speckles", "rescale"),
    )
    later = ["Speckles", "1,10", "2.0", "0", ".95", "Gradient", "Slow / circular", "Yes"]
    there = {1: 4, 2: 6, 3: 9, 4: 10, 5: 11, 6: 11, 7: 12}[revision]
    result = row.named(names[:there]) | dict(zip(names[there:], later[there - 4 :], strict=True))
    if revision < 6:
        result["speckles"] = "Slow" if result["speckles"] == "Slow / circular" else "Fast"
    return result


def crop(row: Row, revision: int) -> Settings:
    first = row.take(10)
    row.take(1 if revision < 3 else 0)
    remove = row.take()[0]
    sources = row.take(len(row.values))[:3]
    names = ("image", "output", "shape", "method", "each", "left_right", "top_bottom", "centre", "x_radius", "y_radius")
    result = dict(zip(names, first, strict=True)) | {"remove": remove}
    result["shape"] = "Previous cropping" if result["shape"] == "Cropping" else result["shape"]
    result["each"] = "Every" if result["each"] == "Individually" else result["each"]
    return result | dict(zip(("mask_image", "cropping", "objects"), [*sources, "None", "None", "None"], strict=False))


def mask_image(row: Row, revision: int) -> Settings:
    if revision < 3:
        objects, image, output, invert = row.take(4)
        source = row.take(2) if revision == 2 else ["Image" if objects == "Image" else "Objects", "None"]
        return {
            "image": image,
            "output": output,
            "source": source[0],
            "objects": objects,
            "mask": source[1],
            "invert": invert,
        }
    return row.named(("image", "output", "source", "objects", "mask", "invert"))


def smooth(row: Row, revision: int) -> Settings:
    result = row.named(("image", "output", "method", "auto", "size", "sigma_range"))
    return result | {"clip": row.take()[0] if revision > 1 else "Yes"}


def morph(row: Row, revision: int) -> Settings:
    """`steps`: (operation, how often, number, rescale); what became of structuring elements, no operation has since 4."""
    result = row.named(("image", "output"))
    size = {1: 3, 2: 4, 3: 11, 4: 12, 5: 4, 6: 4}[revision]
    steps = [row.take(size) for _ in range(len(row.values) // size)]
    return result | {"steps": [[*s[:3], s[-1] if revision > 3 else "Yes"] for s in steps]}


def two_images(row: Row, _: int) -> Settings:
    return row.named(("image", "output"))


def objects_to_image(row: Row, _: int) -> Settings:
    return row.named(("objects", "output", "mode"))


def color_to_gray(row: Row, revision: int) -> Settings:
    """`planes`: (which, output) that it is split into; `weights`: (which, weight) of one grey image. Counted from 0."""
    image, how = row.take(2)
    kind = row.take()[0] if revision > 1 else "RGB"
    output, rgb = row.take()[0], [(i, weight) for i, weight in enumerate(row.take(3))]
    split = [(i, name) for i, (want, name) in enumerate(row.take(2) for _ in range(3)) if want == "Yes"]
    hsv = [row.take(2) for _ in range(3)] if revision > 2 else []
    channels = [row.take(3) for _ in range(row.count())] if revision > 1 else []
    if kind == "Channels":
        numbered = [(int(re.sub(r"\D", "", c) or 1) - 1, weight, name) for c, weight, name in channels]
        split, rgb = [(i, name) for i, _, name in numbered], [(i, weight) for i, weight, _ in numbered]
    if how == "Combine":
        return {"image": image, "output": output, "weights": rgb, "planes": [], "kind": kind}
    if kind == "HSV":
        split = [(i, name) for i, (want, name) in enumerate(hsv) if want == "Yes"]
    return {"image": image, "weights": [], "planes": split, "kind": kind}
