"""What is checked of every raw image as it is read, at less than a hundredth of the cost of measuring it.

An image is counted, on the host by `count_image` and on a GPU by decode.cu, in whole numbers; what follows from the
numbers is the same wherever they come from.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SATURATED = 0.01  # share of pixels at full scale from which an image is flagged
EVERY = 16  # sharpness looks at one row in so many
FULL = 65535


@dataclass(frozen=True)
class Counts:
    """What is counted of a raw image.

    size : height and width
    low, high : its least and greatest count
    zero_rows : rows of nothing but 0, where `low` is 0 and `high` is not
    full : counts at the top or above
    sums : over every 16th row, of pixels a, b, c side by side: of a, b, c, a * b, a * c
    top : count from which a pixel is saturated: full scale
    """

    size: tuple[int, int]
    low: int
    high: int
    zero_rows: int
    full: int
    sums: tuple[int, int, int, int, int]
    top: int = FULL


def top_of(scale: float) -> int:
    """The count from which a pixel is saturated, of images whose counts are divided by `scale`."""
    return min(max(math.ceil(scale), 1), FULL)


def count_image(image: np.ndarray, top: int = FULL) -> Counts:
    """The counts of a raw image, uint16 [H, W]."""
    low, high = int(image.min()), int(image.max())
    zero_rows = int((image.max(axis=1) == 0).sum()) if low == 0 < high else 0
    full = int(np.count_nonzero(image >= top)) if high >= top else 0
    rows = image[::EVERY].astype(np.int64)
    a, b, c = rows[:, :-2].ravel(), rows[:, 1:-1].ravel(), rows[:, 2:].ravel()
    sums = int(a.sum()), int(b.sum()), int(c.sum()), int(a @ b), int(a @ c)
    return Counts((image.shape[0], image.shape[1]), low, high, zero_rows, full, sums, top)


def check_image(counts: Counts) -> tuple[float, float]:
    """How much of a raw image is saturated, and how sharp it is.

    Returns
    -------
    saturated : share of the counts at full scale, 65535 where nothing says otherwise
    sharpness : (c1 - c2) / c1, c_k the covariance of pixels k columns apart, over every 16th row
        Vollath's autofocus F4 over the covariance of neighbours. It falls to 0 with blur; gain and offset leave it, and
        camera noise, which neighbours do not share, hardly moves it. nan where neighbours do not vary together. The
        sums are whole numbers, so it is the same on every machine.
    """
    height, width = counts.size
    pairs = max(width - 2, 0) * -(-height // EVERY)
    a, b, c, ab, ac = counts.sums
    near, far = pairs * ab - a * b, pairs * ac - a * c
    return counts.full / (height * width), (near - far) / near if near > 0 else float("nan")


def oddities(counts: Counts) -> list[str]:
    """Reasons to flag a readable image."""
    low, high = counts.low, counts.high
    if low == high:
        return ["zero-filled: every count is 0" if low == 0 else f"constant: every count is {low}"]
    reasons = []
    if counts.zero_rows:
        reasons.append(f"zero-filled: {counts.zero_rows} of {counts.size[0]} rows are 0")
    if (saturated := check_image(counts)[0]) >= SATURATED:
        reasons.append(f"saturated: {100 * saturated:.1f} % of counts are {counts.top}" + " or more" * (counts.top < FULL))
    return reasons


def copy_of(counts: Sequence[Counts], c: int, equal: Callable[[int, int], bool]) -> int | None:
    """The first image of a site before image `c` that is the same; None without one, and for a constant image.

    `equal(d, c)` compares two images pixel by pixel; it is asked only where the least and the greatest counts agree.
    """
    if counts[c].low == counts[c].high:
        return None
    alike = (d for d in range(c) if (counts[d].low, counts[d].high) == (counts[c].low, counts[c].high))
    return next((d for d in alike if equal(d, c)), None)
