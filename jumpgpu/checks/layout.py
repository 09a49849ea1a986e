"""Whether a plate lies as it should: its wells' cells against a sister plate's, and its controls against the plate map."""

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np

from ..images.plate import Plate
from ..images.reader import read_fields
from ..settings.names import well_name, well_position
from .channels import nuclear_score

FORMATS = ((8, 12), (16, 24), (32, 48), (4, 6), (6, 8), (2, 3), (3, 4))  # rows and columns
TURNS = {
    "turned by 180 degrees": (True, True),
    "mirrored left to right": (False, True),
    "mirrored top to bottom": (True, False),
}
FEWEST = 12  # wells that say anything
STRONG = 0.4  # rank correlation with a sister
APART = 3.0  # standard errors between two of them
SURE = 1e-3  # p of controls that vary less than other wells
UNSURE = 0.05

Counts = Mapping[str, float]


def count_wells(plate: Plate, channel: str, workers: int | None = None) -> dict[str, float]:
    """Nuclei of the first site of every well, about: what `nuclear_score` counts in a channel."""
    counts: dict[str, float] = {}
    first: dict[int, list[str]] = {}
    for site in plate.sites:
        if site.well not in counts:
            counts[site.well] = float("nan")
            first.setdefault(site.site, []).append(site.well)
    for site_number, wells in first.items():
        read = read_fields(plate, wells=wells, sites=[site_number], channels=[channel], batch=4, workers=workers)
        with contextlib.closing(read):
            for fields in read:
                for row, (well, _) in enumerate(fields.sites):
                    counts[well] = nuclear_score(fields.pixels[row, 0].numpy())
    return {well: n for well, n in counts.items() if np.isfinite(n)}


def plate_format(wells: Sequence[str]) -> tuple[int, int]:
    """Rows and columns of the smallest usual plate that has these wells."""
    rows, columns = (max(well_position(w)[k] for w in wells) for k in (0, 1))
    fitting = [f for f in FORMATS if f[0] >= rows and f[1] >= columns]
    return min(fitting, key=lambda f: f[0] * f[1])


def turned(well: str, size: tuple[int, int], turn: tuple[bool, bool]) -> str:
    """Where a well lies once rows, or columns, or both are counted from the other end."""
    row, column = well_position(well)
    return well_name(size[0] + 1 - row if turn[0] else row, size[1] + 1 - column if turn[1] else column)


def against_sister(counts: Counts, sister: Counts, name: str) -> list[str]:
    """A finding where a plate's counts are those of a sister plate, of one layout, turned or mirrored."""
    from scipy.stats import spearmanr

    size = plate_format([*counts, *sister])

    def agreement(turn: tuple[bool, bool]) -> tuple[float, int]:
        wells = [w for w in counts if turned(w, size, turn) in sister]
        pairs = [(counts[w], sister[turned(w, size, turn)]) for w in wells]
        if len(pairs) < FEWEST or len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
            return float("nan"), 0
        return float(spearmanr(*zip(*pairs, strict=True)).statistic), len(pairs)

    as_it_lies, n = agreement((False, False))
    if not n:
        return [f"layout: {name} has fewer than {FEWEST} wells to compare cell counts with"]
    findings = []
    for words, turn in TURNS.items():
        other, m = agreement(turn)
        apart = (np.arctanh(min(other, 0.999)) - np.arctanh(min(as_it_lies, 0.999))) / np.sqrt(
            1 / (n - 3) + 1 / (max(m, 4) - 3)
        )
        if m and other >= STRONG and apart >= APART:
            findings.append((other, words))
    if not findings:
        return []
    best, words = max(findings)
    return [
        f"layout: cell counts agree with {name}'s {words} (rank correlation {best:.2f}) and not as the plate lies "
        f"({as_it_lies:.2f}, {n} wells)"
    ]


def against_controls(counts: Counts, controls: Sequence[str], name: str) -> list[str]:
    """A finding where wells vary little at the controls' places turned or mirrored, and not at their own."""
    from scipy.stats import levene

    size = plate_format([*counts, *controls])
    values = {well: float(np.log1p(n)) for well, n in counts.items()}

    def sureness(places: set[str]) -> float:
        """p that the wells at these places do not vary less than the others."""
        inside = [v for w, v in values.items() if w in places]
        outside = [v for w, v in values.items() if w not in places]
        if min(len(inside), len(outside)) < FEWEST // 2 or np.std(inside) >= np.std(outside):
            return 1.0
        return float(levene(inside, outside, center="median").pvalue)

    own = set(controls)
    here = sureness(own)
    result = []
    for words, turn in TURNS.items():
        places = {turned(w, size, turn) for w in own}
        if places != own and here > UNSURE and (p := sureness(places)) < SURE:
            result.append((p, words))
    if not result:
        return []
    p, words = min(result)
    return [
        f"layout: wells at the negative controls' places of {name} {words} vary less than others in cell count (p = "
        f"{p:.1g}), and those at their own places do not (p = {here:.2g})"
    ]
