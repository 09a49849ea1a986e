"""What is checked of every raw image as it is read, at less than a hundredth of the cost of measuring it."""

import numpy as np

SATURATED = 0.01  # share of pixels at 65535 from which an image is flagged
EVERY = 16  # sharpness looks at one row in so many


def check_image(image: np.ndarray, high: int) -> tuple[float, float]:
    """How much of a raw image [H, W] is saturated, and how sharp it is; `high` is its greatest count.

    Returns
    -------
    saturated : share of the counts that are 65535
    sharpness : (c1 - c2) / c1, c_k the covariance of pixels k columns apart, over every 16th row
        Vollath's autofocus F4 over the covariance of neighbours. It falls to 0 with blur; gain and offset leave it, and
        camera noise, which neighbours do not share, hardly moves it. nan where neighbours do not vary together. The
        sums are whole numbers, so it is the same on every machine.
    """
    saturated = float(np.count_nonzero(image == 65535)) / image.size if high == 65535 else 0.0
    rows = image[::EVERY].astype(np.int64)
    here, one, two = rows[:, :-2].ravel(), rows[:, 1:-1].ravel(), rows[:, 2:].ravel()
    total = int(here.sum())
    near, far = (here.size * int(here @ other) - total * int(other.sum()) for other in (one, two))
    return saturated, (near - far) / near if near > 0 else float("nan")


def oddities(image: np.ndarray, low: int, high: int, saturated: float) -> list[str]:
    """Reasons to flag a readable image whose least and greatest counts are `low` and `high`."""
    if low == high:
        return ["zero-filled: every count is 0" if low == 0 else f"constant: every count is {low}"]
    reasons = []
    if low == 0 and (rows := int((image.max(axis=1) == 0).sum())):
        reasons.append(f"zero-filled: {rows} of {image.shape[0]} rows are 0")
    if saturated >= SATURATED:
        reasons.append(f"saturated: {100 * saturated:.1f} % of counts are 65535")
    return reasons
