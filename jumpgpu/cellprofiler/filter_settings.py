"""Names for the settings of modules that filter images and reshape objects, by revision."""

from .image_settings import two_images
from .rows import Row, Settings

# fmt: off
EDGES = (
    "image", "output", "auto_threshold", "threshold", "factor", "method", "direction", "auto_sigma", "sigma", "auto_low",
    "low",
)
RESCALE = (
    "image", "output", "method", "low_by", "high_by", "low", "high", "range", "out_range", "like", "divisor", "measurement",
)
# fmt: on


def edges(row: Row, revision: int) -> Settings:
    first = row.take(6)
    row.take(1 if revision == 1 else 0)
    row.values = first + row.values
    return row.named(EDGES)


def rescale(row: Row, revision: int) -> Settings:
    if revision == 1:
        row.values[3:5] = [
            f"{word} for each image" if value == "Yes" else "Custom"
            for word, value in zip(("Minimum", "Maximum"), row.values[3:5], strict=True)
        ]
    if revision < 3:
        row.values[9:13] = []
    return row.named(RESCALE)


def with_element(row: Row, revision: int) -> Settings:
    return two_images(row, revision) | row.named(("element",))


def with_size(row: Row, revision: int) -> Settings:
    return two_images(row, revision) | row.named(("size",))


def reduce_noise(row: Row, revision: int) -> Settings:
    return two_images(row, revision) | row.named(("size", "reach", "cutoff"))


def erode_objects(row: Row, _: int) -> Settings:
    return row.named(("objects", "output", "element", "keep_middle", "renumber"))


def dilate_objects(row: Row, _: int) -> Settings:
    return row.named(("objects", "output", "element"))


def fill_objects(row: Row, revision: int) -> Settings:
    result = row.named(("objects", "output", "size", "planewise"))
    return result | {"mode": row.take()[0] if revision > 1 else "Holes"}


def centers(row: Row, _: int) -> Settings:
    return row.named(("objects", "output"))


def image_to_objects(row: Row, _: int) -> Settings:
    return row.named(("image", "output", "binary", "preserve", "background", "connectivity"))
