"""Whether DNA is where nuclei are: in the channel whose bright objects are many, alone and of a nucleus's size."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, label

SCALE = 4  # pixels of the image in one that is looked at
SMALLEST, LARGEST = 10.0, 75.0  # diameters of a nucleus, pixels of the image (CPJUMP1's)
CLEARLY = 1.5  # times DNA's score, summed over fields
FEWEST = 3  # fields that say anything
WHOLLY = 3.0  # times DNA's score in a field, where only some fields are at fault
SOME = 2  # such fields, before they are a finding


def nuclear_score(image: np.ndarray) -> float:
    """How much an image, uint16 [H, W], looks like nuclei.

    Objects above Otsu's threshold that have a nucleus's size are counted, and weighted by the share that they are of all
    that is above it. On CPJUMP1's real fields DNA has 36 to 133, the others up to 51 (half of DNA's) where cells are many.
    """
    height, width = (n // SCALE * SCALE for n in image.shape)
    small = image[:height, :width].reshape(height // SCALE, SCALE, width // SCALE, SCALE).mean((1, 3))
    if not small.size or small.min() == small.max():
        return 0.0
    from skimage.filters import threshold_otsu  # half a second to import

    smooth = gaussian_filter(small, 1)
    above = smooth > threshold_otsu(smooth)
    areas = np.bincount(label(above)[0].ravel())[1:]
    minimum, maximum = (np.pi * (d / 2 / SCALE) ** 2 for d in (SMALLEST, LARGEST))
    good = areas[(areas >= minimum) & (areas <= maximum)]
    return float(len(good) * good.sum() / max(1, areas.sum()))


def order_findings(scores: Sequence[Mapping[str, float]], places: Sequence[str] = ()) -> list[str]:
    """A finding where another channel than DNA looks like nuclei, over the sampled fields and in most or in some of them.

    places : what the fields are called, for a finding in some
    """
    named = [(s, at) for s, at in zip(scores, places or [""] * len(scores), strict=True) if "DNA" in s and any(s.values())]
    scores = [s for s, _ in named]
    if len(scores) < FEWEST:
        return []
    total = {c: sum(s[c] for s in scores) for c in scores[0]}
    best = max(total, key=lambda c: total[c])
    wins = sum(s[best] > s["DNA"] for s in scores)
    if best == "DNA" or total[best] < CLEARLY * total["DNA"] or 2 * wins <= len(scores):
        return partial_findings(named)
    return [
        f"channel order: nuclei are in the {best} images rather than in the DNA images (objects of their size, weighted: "
        f"{total[best]:.0f} in {best}, {total['DNA']:.0f} in DNA, over {len(scores)} fields); is {best} called DNA?"
    ]


def partial_findings(named: Sequence[tuple[Mapping[str, float], str]]) -> list[str]:
    """A finding for each channel that takes DNA's place in some fields, as strongly as DNA looks like nuclei elsewhere."""
    usual = float(np.median([max(s.values()) for s, _ in named]))
    found: dict[str, list[str]] = {}
    for s, at in named:
        best = max(s, key=lambda c: s[c])
        if best != "DNA" and s[best] >= WHOLLY * s["DNA"] and s[best] >= usual / 2:
            found.setdefault(best, []).append(at)
    return [
        f"channel order: nuclei are in the {c} images rather than in the DNA images of {len(at)} of {len(named)} sampled "
        f"fields ({', '.join(at[:5])}{', ...' * (len(at) > 5)}); is {c} called DNA there?"
        for c, at in found.items()
        if len(at) >= SOME
    ]
