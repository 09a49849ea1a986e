"""Harmony's FlatfieldProfile: the fall-off of a channel's light as a polynomial."""

import json
import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Flatfield:
    """A channel's FlatfieldProfile: the fall-off as a polynomial over the pixel grid.

    value(x, y) = sum of coefficients[d][j] * u**(d - j) * v**j, u = (x - origin[0]) * scale[0], v likewise of y.
    No coefficients: Harmony found nothing to correct (type Identity), and the function is 1.
    problem : why the profile cannot be read, '' where it can; an error for whom it is needed
    """

    coefficients: tuple[tuple[float, ...], ...] = ()
    dims: tuple[int, int] = (0, 0)  # width, height
    origin: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    problem: str = ""

    @property
    def usable(self) -> bool:
        """False where Harmony wrote NaN or INF for a coefficient."""
        numbers = [c for row in self.coefficients for c in row] + [*self.origin, *self.scale]
        return not self.problem and all(math.isfinite(c) for c in numbers)


def parse_flatfield(text: str, where: str) -> Flatfield:
    """A FlatfieldProfile in Acapella's notation, of which only the Background's Profile is read.

    `{Background: {..., Profile: {Coefficients: [[1.2], [0.1, NaN]], Dims: [..], Origin: .., Scale: .., Type: Polynomial}}}`
    """
    match = re.search(r"Background:\s*\{.*?Profile:\s*\{([^{}]*)\}", text, re.DOTALL)
    kind = re.search(r"Type:\s*(\w+)", match[1]) if match else None
    if not match or not kind:
        raise ValueError(f"{where}: FlatfieldProfile without a Background Profile: {text[:80]!r}")
    if kind[1] == "Identity":
        return Flatfield()
    if kind[1] != "Polynomial":
        raise ValueError(f"{where}: FlatfieldProfile of type {kind[1][:40]!r}; Polynomial and Identity are known")

    def numbers(key: str) -> list[object]:
        result = re.search(rf"{key}:\s*(\[[-+\d.eE,\s\[\]A-Za-z]*?\])\s*(?:,\s*[A-Z]\w*:|$)", match[1])
        try:
            value = (
                json.loads(re.sub(r"(?i)\binf(inity)?\b", "Infinity", re.sub(r"(?i)\bnan\b", "NaN", result[1])))
                if result
                else None
            )
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, list) or not value:
            raise ValueError(f"{where}: {key} of the FlatfieldProfile cannot be read: {match[1][:80]!r}")
        return value

    def pair(key: str) -> tuple[float, float]:
        value = numbers(key)
        if len(value) != 2 or not all(isinstance(v, (int, float)) for v in value):
            raise ValueError(f"{where}: {key} of the FlatfieldProfile must be two numbers, got {value}")
        return float(value[0]), float(value[1])  # type: ignore[arg-type]

    rows = numbers("Coefficients")
    if len(rows) > 16 or not all(
        isinstance(row, list) and len(row) == d + 1 and all(isinstance(c, (int, float)) for c in row)
        for d, row in enumerate(rows)
    ):
        raise ValueError(
            f"{where}: Coefficients of the FlatfieldProfile must have 1, 2, 3 .. terms by degree, at most 16 rows"
        )
    width, height = pair("Dims")
    if not (1 <= width <= 65535 and 1 <= height <= 65535):
        raise ValueError(f"{where}: Dims of the FlatfieldProfile are {width} x {height}")
    coefficients = tuple(tuple(float(c) for c in row) for row in rows)  # type: ignore[attr-defined]
    return Flatfield(coefficients, (int(width), int(height)), pair("Origin"), pair("Scale"))
