"""Costes' thresholds for every pair of channels of an image, and Manders' coefficients above them (MeasureColocalization).

The threshold of channel a walks the grid of camera values by CellProfiler's 'Faster' search, b's along the regression line
of b on a, down to where the pixels below either are no longer correlated. Off by default: it looks at whole images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..gpu.device import Device
from .objects import ObjectBatch

RUN = 16384  # pixels per block sums (costes.cu)
SUMS = 10
LIMITS = 63  # thresholds of costes_levels
ONE = 2.0**40  # of sums by level (costes.cu)
UNSURE = 1e-11  # of a pixel's part in a sum of products by level: its rounding is a tenth of that
MAX_LEVELS, MAX_PIXELS = 1 << 16, 1 << 22  # beyond, sums by level could overflow
Known = dict[tuple[Any, int, str], list[tuple[float, float]]]  # thresholds by pairs, levels and mode


def coefficients(
    batch: ObjectBatch, pairs: Sequence[Sequence[int]], levels: int, device: Device, mode: str = "faster"
) -> torch.Tensor:
    """float64 [rows, Q, 2]: Costes_ab and Costes_ba of every object row and pair of positions on the C axis.

    nan where no pixel of the object is at or above the threshold; 0 throughout a field and compartment in which no pixel is
    above both.
    """
    objects, wanted = batch.objects, device.tensor(pairs, torch.int32)
    thresholds_of = known_thresholds(batch.derived.setdefault("costes", {}), batch.pixels, pairs, levels, device, mode)
    limits = torch.tensor(thresholds_of, dtype=torch.float64).to(torch.float32)
    result = device.empty(objects.rows, len(pairs), 5, dtype=torch.float64)
    device.launch(
        "costes_objects",
        objects.rows * len(pairs),
        values=batch.values,
        start=objects.start,
        stop=objects.stop,
        schedule=objects.schedule,
        field=objects.field,
        pairs=wanted,
        threshold=device.tensor(limits),
        n_pixels=objects.pixel.numel(),
        cells=objects.n,
        n_pairs=len(pairs),
        result=result,
    )
    k, fields = len(objects.compartments), objects.field.long()
    counted = result.new_zeros(k, objects.shape[0], len(pairs))
    counted.index_add_(1, fields, result[..., 4].view(k, objects.n, len(pairs)))  # whole numbers: any order gives the same
    none = (counted[:, fields] == 0).view(objects.rows, len(pairs), 1)
    return torch.where(none, 0.0, result[..., :2] / result[..., 2:4])


def known_thresholds(
    known: Known, pixels: torch.Tensor, pairs: Sequence[Sequence[int]], levels: int, device: Device, mode: str
) -> list[tuple[float, float]]:
    """`thresholds`, found once: `known` has those of these pixels by what was asked."""
    key = tuple(map(tuple, pairs)), levels, mode
    if key not in known:
        known[key] = thresholds(pixels, pairs, levels, device, mode)
    return known[key]


def thresholds(
    pixels: torch.Tensor, pairs: Sequence[Sequence[int]], levels: int, device: Device, mode: str = "faster"
) -> list[tuple[float, float]]:
    """Of every field and pair, field by field, the thresholds of both channels.

    pixels : float32 [B, C, H, W], 0..1
    levels : steps of the search between 0 and 1, the camera's highest value
    mode : CellProfiler's 'Faster', or 'Fast' or 'Accurate', which go down from the brightest pixel
    """
    sums = Moments(pixels, pairs, device)
    items = pixels.shape[0] * len(pairs)
    lines = [regression(*row) for row in sums(None, [True] * items)]
    if mode != "faster":
        return [
            walk(field[i].flatten().cpu(), field[j].flatten().cpu(), *lines[f * len(pairs) + p], levels, mode == "fast")
            for f, field in enumerate(pixels)
            for p, (i, j) in enumerate(pairs)
        ]
    searches = [Search(levels) for _ in range(items)]
    known = levels_of(sums, lines, levels)
    while any(running := [s.last != s.mid for s in searches]):
        tried = [(s.mid / levels, a * (s.mid / levels) + b) for s, (a, b) in zip(searches, lines, strict=True)]
        rows = [
            None if not r else known[i](s) if i in known else sums.all_below(i, limit)
            for i, (s, r, limit) in enumerate(zip(searches, running, tried, strict=True))
        ]
        unsure = [r and row is None for r, row in zip(running, rows, strict=True)]
        exact = sums(tried, unsure) if any(unsure) else [()] * items
        for search, wanted, quick, row in zip(searches, running, rows, exact, strict=True):
            if wanted:
                search.step(*(quick or row))
    chosen = [(s.valid - 1) / levels for s in searches]
    return [(t, a * t + b) for t, (a, b) in zip(chosen, lines, strict=True)]


def levels_of(sums: "Moments", lines: Sequence[tuple[float, float]], levels: int) -> dict[int, "Below"]:
    """Sums below the levels of the search, of the items where the second threshold rises with the first."""
    if not sums.brightest <= 1 or sums.common["plane"] > MAX_PIXELS or levels > MAX_LEVELS:
        return {}
    return {i: Below(sums, i, line, levels) for i, line in enumerate(lines) if line[0] > 0 and math.isfinite(line[1])}


class Below:
    """What `Search.step` takes, of an item's pixels below a level: None where it hangs on the rounding of the sums.

    Sums are of many levels at once: those that the search asks for as long as it goes down.
    """

    def __init__(self, sums: "Moments", item: int, line: tuple[float, float], levels: int):
        self.sums, self.item, self.line, self.levels = sums, item, line, levels
        self.known: dict[int, list[int]] = {}

    def __call__(self, search: "Search") -> tuple[float, float, float, float] | None:
        level = int(search.mid)
        if level not in self.known:
            self.look(search.ahead(LIMITS - 1))
        n, *rest = self.known[level]
        if n <= 2:
            return float(n), 0.0, 0.0, 0.0
        a, b, aa, bb, ab = (value / ONE for value in rest)
        spreads = aa - a * a / n, bb - b * b / n, ab - a * b / n
        return (float(n), *spreads) if min(spreads[0], spreads[1], abs(spreads[2])) > n * UNSURE else None

    def look(self, levels: list[int]) -> None:
        """Sums of these levels, which rise, beyond those of the highest level that is known below them."""
        base = max((level for level in self.known if level < levels[0]), default=None)
        wanted = levels if base is None else [base, *levels]
        grid = torch.tensor(wanted, dtype=torch.float64) / self.levels
        limit = torch.stack([grid, self.line[0] * grid + self.line[1]]).float()
        so_far = [0] * 6 if base is None else self.known[base]
        for level, row in zip(wanted, self.sums.by_level(self.item, limit, known=base is not None), strict=True):
            so_far = [x + y for x, y in zip(so_far, row, strict=True)]
            self.known[level] = so_far


def walk(first: torch.Tensor, second: torch.Tensor, a: float, b: float, levels: int, fast: bool) -> tuple[float, float]:
    """CellProfiler's linear search, on the host: down from the brightest pixel, a level at a time ('Fast': up to ten while
    the correlation is far above 0), to where the pixels below either threshold are no longer correlated.

    A pixel is below either down to a level of its own, so that sums by that level give every correlation at once.
    """
    step = 1 / levels
    highest = max(first.max().item(), second.max().item())
    at = step * (highest // step + 1)
    tops = first.max().item(), second.max().item()
    while at > tops[0] and a * at + b > tops[1]:
        at -= step
    ladder = [at]
    while ladder[-1] > step:
        ladder.append(ladder[-1] - step)
    if not at > step:
        return at, a * at + b
    rungs = torch.tensor(ladder, dtype=torch.float64, device=first.device)
    by_first, by_second = rungs.float().flip(0).contiguous(), (a * rungs + b).float().flip(0).contiguous()
    n = len(ladder)
    # Rungs at which a pixel is below, from the top on: those whose threshold is above it.
    below = torch.maximum(
        n - torch.searchsorted(by_first, first, right=True), n - torch.searchsorted(by_second, second, right=True)
    )
    x, y = first.double(), second.double()
    shift = x.mean(), y.mean()
    x, y = x - shift[0], y - shift[1]
    sums = [torch.bincount(below, weights=v, minlength=n + 1) for v in (torch.ones_like(x), x, y, x * x, y * y, x * y)]
    count, sx, sy, xx, yy, xy = (v.flip(0).cumsum(0).flip(0)[1:].cpu() for v in sums)  # of pixels below at rung k: below > k
    spread = torch.sqrt((xx - sx * sx / count) * (yy - sy * sy / count))
    together = ((xy - sx * sy / count) / spread).tolist()
    k, chosen, known, r = 0, 0, -1.0, math.nan
    while k < n and ladder[k] > step:
        chosen = k
        if count[k].item() != known:
            if count[k] < 2:
                break
            known, r = count[k].item(), together[k]
        if r <= 0:
            break
        far = 10 if r > 0.45 else 5 if r > 0.35 else 2 if r > 0.25 else 1
        k += far if fast and ladder[k] >= step * 10 else 1
    return ladder[chosen], a * ladder[chosen] + b


@dataclass
class Search:
    """CellProfiler's 'Faster' search for the highest threshold below which correlation is still not negative."""

    right: float
    left: float = 1
    last: float = 0
    valid: float = 1
    mid: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.mid):
            self.mid = (self.right - self.left) // (6 / 5) + self.left

    def ahead(self, maximum: int) -> list[int]:
        """Levels that the search asks for from here on while all correlate, the next `maximum` at most: in rising order. All
        that it may ask for where those are no more."""
        if self.right - self.left + 1 < maximum:
            return list(range(int(min(self.left, self.mid)), int(max(self.right, self.mid)) + 1))
        levels: list[int] = []
        then = replace(self)
        while then.last != then.mid and len(levels) < maximum:
            levels.append(int(then.mid))
            then.step(3.0, 1.0, 1.0, 1.0)
        return sorted(set(levels))

    def step(self, n: float, spread_a: float, spread_b: float, together: float, *_: float) -> None:
        """Narrow the window by what the pixels below the tried threshold say."""
        if n <= 2 or (spread_a > 0 and spread_b > 0 and together < 0):
            self.left = self.mid - 1
        elif spread_a > 0 and spread_b > 0:  # a constant channel has no correlation and moves nothing
            self.right, self.valid = self.mid + 1, self.mid
        self.last = self.mid
        self.mid = (self.right - self.left) // (6 / 5 if self.right - self.left > 6 else 2) + self.left


def regression(
    n: float, spread_a: float, spread_b: float, together: float, mean_a: float, mean_b: float
) -> tuple[float, float]:
    """Slope and intercept of the orthogonal regression of b on a; nan where the channels do not vary together."""
    apart = spread_b - spread_a
    slope = (apart + math.sqrt(apart * apart + 4 * together * together)) / (2 * together) if together else math.nan
    return slope, mean_b - slope * mean_a


class Moments:
    """Sums over whole images, by field and pair."""

    def __init__(self, pixels: torch.Tensor, pairs: Sequence[Sequence[int]], device: Device):
        fields, channels, height, width = pixels.shape
        self.device, self.items = device, fields * len(pairs)
        self.runs = -(-height * width // RUN)
        middle = pixels.view(fields, channels, -1)[:, :, height * width // 2].to(torch.float64)  # any value near the rest
        self.shift = [[middle[f, c].item() for c in pair] for f in range(fields) for pair in pairs]
        self.common: dict[str, Any] = {
            "pixels": pixels,
            "pairs": device.tensor(pairs, torch.int32),
            "shift": middle.contiguous(),
            "channels": channels,
            "n_pairs": len(pairs),
            "plane": height * width,
            "runs": self.runs,
            "parts": device.zeros(self.items, self.runs, SUMS, dtype=torch.float64),
        }
        self.totals = device.zeros(self.items, SUMS, dtype=torch.float64)
        self.every: list[Any] = [None] * self.items  # of the pixels above 0: their sums, and the brightest of both channels
        self.brightest = max(map(abs, map(float, pixels.aminmax()))) if pixels.numel() else 0.0

    def by_level(self, item: int, limit: torch.Tensor, *, known: bool) -> list[list[int]]:
        """Whole-number sums of one item between thresholds, float32 [2, L] that do not fall: of the pixels below the first,
        0 where they are `known`, and of those below each next one that are not below the one before (costes_levels)."""
        device, common = self.device, self.common
        field, pair = divmod(item, common["n_pairs"])
        limits = limit.shape[1]
        result = device.zeros(limits, 6, dtype=torch.int64)
        runs = self.runs if device.massively_parallel else 1
        device.launch(
            "costes_levels",
            runs,
            limit=device.tensor(torch.nn.functional.pad(limit, (0, LIMITS + 1 - limits), value=math.inf)),
            field=field,
            pair=pair,
            runs=runs,
            limits=limits,
            first=int(known),
            sums=result.view(torch.uint64),
            **{name: common[name] for name in ("pixels", "pairs", "shift", "channels", "plane")},
        )
        rows: list[list[int]] = result.tolist()
        return rows

    def all_below(self, item: int, limit: tuple[float, float]) -> tuple[float, ...] | None:
        """What the call gives of limits of which one is above all pixels, where that is known."""
        if self.every[item] is None:
            return None
        row, highest = self.every[item]
        return row if any(np.float32(value) > top for value, top in zip(limit, highest, strict=True)) else None

    def __call__(self, limits: list[tuple[float, float]] | None, running: list[bool]) -> list[tuple[float, ...]]:
        """Of the pixels below either limit (above 0 in either channel where None), and where `running`: their number,
        sum of squares about the mean of a and of b, of products, and the means."""
        device, mask = self.device, self.device.tensor(running, torch.int32)
        limit = torch.tensor(limits or [(0.0, 0.0)] * self.items, dtype=torch.float64).to(torch.float32)
        device.launch(
            "costes_moments",
            self.items * self.runs,
            threshold=device.tensor(limit),
            running=mask,
            all=int(limits is None),
            **self.common,
        )
        parts, totals = self.common["parts"], self.totals
        device.launch("costes_totals", self.items, parts=parts, running=mask, runs=self.runs, totals=totals)
        result: list[tuple[float, ...]] = []
        for (n, a, b, aa, bb, ab, *ends), (at, bt) in zip(totals.tolist(), self.shift, strict=True):
            many = max(n, 1.0)
            spread_a = (aa - a * a / many) if ends[0] < ends[2] else 0.0  # exactly 0 where the channel is constant
            spread_b = (bb - b * b / many) if ends[1] < ends[3] else 0.0
            result.append((n, spread_a, spread_b, ab - a * b / many, at + a / many, bt + b / many))
        if limits is None:  # where they are of all pixels, they are those of the pixels below what is above all
            tops = totals[:, 8:].to(torch.int32).contiguous().view(torch.float32).tolist()
            self.every = [(r, t) if r[0] == self.common["plane"] else None for r, t in zip(result, tops, strict=True)]
        return result
