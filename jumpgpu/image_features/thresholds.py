"""Thresholds of whole images that are measured but cut nothing (MeasureImageQuality), and how well a threshold parts an
image (the Threshold_WeightedVariance and Threshold_SumOfEntropies of CellProfiler's Identify modules).

Both are done on the host, by NumPy, whatever the device is, but for sums over all pixels: they are of sorted pixels and
histograms, and CellProfiler's numbers depend on NumPy's seeded random numbers.

Source: centrosome's threshold.py, otsu.py and smooth.py. Oracle: centrosome (tests/image_features/test_thresholds.py).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from ..gpu.device import Device, on_a_core

METHODS = ("Otsu", "MoG", "Background", "RobustBackground", "RidlerCalvard", "Kapur", "MCT")
ALL = (  # "Use all thresholding methods"
    *("Otsu_3FW", "Otsu_3BW", "Otsu_3FS", "Otsu_3BS", "Otsu_2W", "Otsu_2S", "MoG_5", "MoG_25", "MoG_75", "MoG_95"),
    *("Background", "RobustBackground", "RidlerCalvard", "Kapur", "MCT"),
)
ENTROPY = math.sqrt(2 * math.pi * math.e)
SAMPLE = 512**2  # pixels that a mixture of Gaussians is fitted to
NOISE_BITS = 8


def threshold_of(method: str, ordered: np.ndarray, pixels: np.ndarray, device: Device) -> float:
    """A threshold by one of MeasureImageQuality's methods.

    Parameters
    ----------
    method : a name of METHODS, with its variant after `_`: `Otsu_2W` (classes, what the middle one goes to, weighted
        variance or entropy S), `MoG_25` (percent of the image that objects cover)
    ordered : float32 [n], the pixels in ascending order
    pixels : float32 [n], the same as they stand, where the order of pixels matters
    """
    name, _, variant = method.partition("_")
    if name not in METHODS:
        raise ValueError(f"unknown threshold method {method!r}; expected one of {METHODS}")
    if name == "Otsu":
        return otsu(ordered, variant, device)
    pixels = pixels.ravel()
    if len(pixels) < 3:
        return 1.0 if name == "MoG" else 0.0
    if ordered[0] == ordered[-1]:
        return float(ordered[0])
    if name == "MoG":
        return mixture_of_gaussians(pixels, int(variant) / 100)
    if name == "Kapur":
        return kapur(pixels)
    return ridler_calvard(ordered, device) if name == "RidlerCalvard" else SORTED[name](ordered)


def otsu(ordered: np.ndarray, variant: str, device: Device) -> float:
    """Two or three classes of the logarithms, split between quantiles where weighted variance, or entropy, is least."""
    values = ordered[ordered >= 0]
    if not len(values):
        return 1.0
    minimum, maximum = values[0], values[-1]
    floor = minimum + (maximum - minimum) / np.float32(256) + np.finfo(np.float32).eps
    logs = np.log(np.maximum(values, floor))
    low, high = logs[0], logs[-1]
    scaled = np.zeros_like(logs) if low == high else (logs - low) / (high - low)
    if variant.startswith("2"):
        cut = two_classes(scaled, variant.endswith("S"), device)
    else:
        cut = three_classes(scaled, variant.endswith("S"), device)[0 if "F" in variant else 1]
    return float(np.exp(low + cut * (high - low)))


@on_a_core
def running_variance(values: np.ndarray, at: np.ndarray, back: np.ndarray, device: Device) -> np.ndarray:
    """Variance, sum and sum of squares of the values up to some places, and of those from some places on.

    Parameters
    ----------
    values : float32 [n]
    at, back : int [k], ascending

    float64 [2, k, 3], in the order of `at` and `back`; the variance of one value is 0; sums are added in float32.
    """
    n = len(values)
    result = device.empty(2, len(at), 3, dtype=torch.float64)
    device.launch(
        "running_variance",
        2,
        block=32,
        values=device.tensor(values),
        places=device.tensor(np.stack([at, n - 1 - back[::-1]]), torch.int64),
        n=n,
        count=len(at),
        result=result,
    )
    ahead, behind = result.cpu().numpy()
    return np.stack([ahead, behind[::-1]])


def two_classes(values: np.ndarray, entropy: bool, device: Device) -> float:
    n = len(values)
    if n == 1:
        return float(values[0])
    step = n // min(256, n)
    spare = 1 / 512 if entropy else 0.0
    below, above = np.arange(0, n - 1, step), np.arange(1, n, step)
    low, high = running_variance(values, below, above, device)[..., 0] + spare
    score = np.zeros(len(low))
    for variance, weight in ((low, below), (high, n - above)):
        if entropy:
            with np.errstate(divide="ignore", invalid="ignore"):
                score += np.nan_to_num(weight * np.log(variance * weight * ENTROPY), nan=0.0, posinf=np.inf, neginf=-np.inf)
        else:
            score += variance * weight
    cuts, best = values[above], int(np.argmin(score))
    return float(cuts[max(best - 1, 0)] + cuts[min(best + 1, len(cuts) - 1)]) / 2


def three_classes(values: np.ndarray, entropy: bool, device: Device) -> tuple[float, float]:
    n = len(values)
    bins = min(128, n)
    step = n // bins
    spare = 1 / 512 if entropy else 0.0
    at = np.arange(0, n, step)
    back = (n - 1 - at)[::-1] if entropy else at  # the variance of the last 1, 1 + step ... values, or from each place on
    ahead, behind = running_variance(values, at, back, device)
    low, high = ahead[:, 0] + spare, behind[:, 0] + spare
    total, squares = ahead[:, 1:].T.astype(np.float32)
    i, j = np.meshgrid(np.arange(len(at)), np.arange(len(at)), indexing="ij")
    apart = (at[j] - at[i]).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, mean_square = (total[j] - total[i]) / apart, (squares[j] - squares[i]) / apart
        middle = mean_square - mean**2 + spare
        if entropy:
            share = at / n
            low = entropy_score(low, share)
            high = entropy_score(high[::-1], share)[::-1]
            middle = entropy_score(middle, apart / n)
            of_low, of_high = i, j
        else:
            low, high, middle = low * at, high * (n - at), apart * middle
            of_low, of_high = at[i] * bins // n, at[j] * bins // n
    middle[(i >= j) | np.isnan(middle)] = np.inf
    score = low[of_low] + middle + high[of_high]
    first, second = np.argwhere(score == score.min())[0]
    return float(values[at[first]]), float(values[at[second]])


def entropy_score(variance: np.ndarray, share: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        score = share * np.log(variance * share * ENTROPY)
    score[np.isnan(score)] = np.inf
    return score


def background(ordered: np.ndarray) -> float:
    """Twice the mode of what lies between 2 and 98 % of the range."""
    minimum, maximum = ordered[0], ordered[-1]
    low, high = (share * (maximum - minimum) + minimum for share in (0.02, 0.98))
    inside = ordered[(ordered > low) & (ordered < high)]
    if not len(inside):
        return float(low)
    counts, _ = np.histogram(inside, 256, (float(low), float(high)))
    cutoff = (int(np.argmax(counts)) / 255 + 0.02) / 1.04
    return float(minimum + cutoff * 2 * (maximum - minimum))


def robust_background(ordered: np.ndarray) -> float:
    """Mean and two standard deviations of all but the lowest and highest 5 %."""
    n = len(ordered)
    chop = round(n * 0.05)
    kept = ordered[chop : n - chop] if chop else ordered
    return float(np.mean(kept) + np.std(kept) * 2)


def ridler_calvard(ordered: np.ndarray, device: Device) -> float:
    """Halfway between the means of both classes of the logarithms, until it stays."""
    logs = np.log(np.maximum(ordered, ordered[-1] / 256))
    low, high = logs[0], logs[-1]
    scaled = (logs - low) / (high - low)
    before, cut = 0.0, two_classes(scaled, entropy=False, device=device)
    while abs(before - cut) > 1e-5:
        before = cut
        at = int(np.searchsorted(scaled, before))
        cut = float(np.mean([np.mean(scaled[:at]), np.mean(scaled[at:])]))
    return math.exp(low + (high - low) * cut)


def maximum_correlation(ordered: np.ndarray) -> float:
    """Padmanabhan's: the cut whose two classes go best with the image, of 256 levels."""
    minimum, maximum = ordered[0], ordered[-1]
    levels = ((ordered - minimum) * 255 / (maximum - minimum)).astype(int)
    counts = np.bincount(levels)
    away = np.arange(len(counts)) - np.mean(levels)
    sums = np.cumsum(counts * away)
    above = np.concatenate([[sums[-1]], sums[-1] - sums[:-1]])
    n = len(ordered)
    left = n - np.concatenate([[0], np.cumsum(counts[:-1])])
    scale = np.sqrt(np.sum(counts * away * away) * (n - left) * left / n)
    score = np.divide(above, scale, out=np.zeros_like(above), where=scale != 0)
    return float(minimum + (int(np.argmax(score)) - 1) * (maximum - minimum) / 255)


SORTED: dict[str, Callable[[np.ndarray], float]] = {
    "Background": background,
    "RobustBackground": robust_background,
    "MCT": maximum_correlation,
}


def mixture_of_gaussians(pixels: np.ndarray, covered: float) -> float:
    """Three Gaussians fitted to a sample; where those of background and objects are equally likely."""
    if len(pixels) < 3 / min(covered, 1 - covered):
        return 1.0
    if len(pixels) > SAMPLE:
        pixels = pixels[np.random.RandomState(0).permutation(len(pixels))[:SAMPLE]]
    values = np.sort(pixels)
    ends = (len(values) + 99) // 100
    values = values[ends:-ends]
    n = len(values)
    dark, bright = values[round(n * (1 - covered) / 2)], values[round(n * (1 - covered / 2))]
    mean, deviation = np.array([dark, (dark + bright) / 2, bright]), np.full(3, 0.15)
    share = np.array([0.75 * (1 - covered), 0.25, 0.75 * covered])
    seeded = np.random.RandomState(np.frombuffer(values[:100].tobytes(), np.uint8).tolist())
    for data in (seeded.permutation(values)[: n // 10], values):
        moved = 1.0
        while moved > 0.001:
            before = mean.copy()
            likely = np.stack([share[k] * normal(data, mean[k], deviation[k]) for k in range(3)], 1)
            total = likely.sum(1) + 1e-12
            for k in range(3):
                of = likely[:, k] / total
                share[k] = np.mean(of)
                mean[k] = np.sum(of * data) / (share[k] * len(data))
                deviation[k] = math.sqrt(np.sum(of * (data - mean[k]) ** 2) / (len(data) * share[k])) + 1e-6
            moved = float(np.abs(before - mean).sum())
    levels = np.arange(10_000) * ((mean[2] - mean[0]) / 10_000) + mean[0]
    each = np.stack([share[k] * normal(levels, mean[k], deviation[k]) for k in range(3)], 1)
    middle_is_object = abs(share[1] + share[2] - covered) < abs(share[2] - covered)
    parts = (each[:, 0], each[:, 1] + each[:, 2]) if middle_is_object else (each[:, 0] + each[:, 1], each[:, 2])
    return float(levels[np.argmin(np.abs(parts[0] - parts[1]))])


def normal(values: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return np.exp(-(((values - mean) / deviation) ** 2) / 2.0) / math.sqrt(2 * math.pi) / deviation


def kapur(pixels: np.ndarray) -> float:
    """The cut of the logarithms' histogram that leaves both classes the most entropy."""
    logs = noisy_logs(pixels.reshape(-1))
    minimum, maximum = logs.min(), logs.max()
    counts, _ = np.histogram(logs, 256, (minimum, maximum))
    values = minimum + (maximum - minimum) * np.arange(256) / 255
    values, p = values[counts != 0], counts[counts != 0] / counts.sum()
    if len(p) == 1:
        return float(2 ** values[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        below, entropy = np.cumsum(p), np.cumsum(p * np.log2(p))
        above = below[-1] - below
        score = (entropy / below - np.log2(below) + (entropy[-1] - entropy) / above - np.log2(above))[:-1]
    score[~np.isfinite(score)] = np.inf
    best = int(np.argmin(score))
    return float(2 ** ((values[best] + values[best + 1]) / 2))


@lru_cache(maxsize=2)
def noise(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The seeded normal numbers that CellProfiler blurs every image of a shape with, and 1 less each of them."""
    result = np.random.RandomState(0).normal(size=shape)
    return result, 1 - result


def noisy_logs(pixels: np.ndarray) -> np.ndarray:
    """Logarithms to base 2 of pixels that are moved by a normally distributed share of 2^-8, float64; none above 0."""
    small = np.float32(2.0**-NOISE_BITS)
    image = np.clip(pixels, small, 1).astype(pixels.dtype, copy=False)
    lower, (r, rest) = np.log2(image), noise(pixels.shape)
    image += small
    result = np.log2(image, out=image) * r
    result += rest * lower
    return np.minimum(result, 0.0, out=result)


def weighted_variance(pixels: np.ndarray, above: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Variance of the logarithms within foreground and background, weighted by their pixels.

    pixels : float [H, W];  above : bool [H, W], the foreground;  valid : bool [H, W], pixels that count
    """
    chosen, inside = (pixels.ravel(), above.ravel()) if valid is None else (pixels[valid], above[valid])
    floor = chosen.max() / 256 if chosen.size else 0
    if floor == 0:
        return 0.0
    logs = np.log2(np.maximum(chosen, floor)).astype(np.float64)
    parts = [logs[inside], logs[~inside]]
    return float(sum(part.var() * part.size for part in parts if part.size) / logs.size)


def sum_of_entropies(pixels: np.ndarray, above: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Negative entropies of the logarithms' histograms in foreground and background; parameters as `weighted_variance`."""
    chosen = pixels if valid is None else pixels[valid]
    floor = chosen.max() / 256 if chosen.size else 0
    if floor == 0:
        return 0.0
    logs = noisy_logs(np.maximum(pixels, floor))
    lower, upper = logs.min(), logs.max()
    if lower == upper:
        return math.log2(chosen.size)
    logs -= lower
    logs *= 256 / (upper - lower)
    bins = logs.astype(np.int64)
    np.minimum(bins, 255, out=bins)
    bins += above.astype(np.int64) << 8
    both = np.bincount(bins.ravel() if valid is None else bins[valid], minlength=512)
    if not (both[:256].any() and both[256:].any()):
        return 0.0
    result = 0.0
    for counts in (both[256:], both[:256]):
        p = counts[counts > 0] / counts.sum()
        result += float(np.sum(p * np.log2(p)))
    return result
