"""A module's values in their stored order, and how its words and numbers are read."""

import math
import re
from collections.abc import Sequence
from typing import Any

from .parse import Module, printable

Values = list[str]
Settings = dict[str, Any]


class Row:
    """A module's values, taken from the front; ValueError where they run out or are not what they should be."""

    def __init__(self, module: Module, values: Values):
        self.module, self.values = module, values

    def take(self, n: int = 1) -> Values:
        if n > len(self.values):
            raise ValueError(f"{self.module}: has fewer settings than revision {self.module.revision} of it has")
        taken, self.values = self.values[:n], self.values[n:]
        return taken

    def count(self) -> int:
        """A hidden count of what follows."""
        text = self.take()[0]
        if not re.fullmatch(r"\d{1,5}", text, re.ASCII):
            raise ValueError(f"{self.module}: expected a count, got {printable(text)}")
        return int(text)

    def named(self, names: Sequence[str]) -> Settings:
        return dict(zip(names, self.take(len(names)), strict=True))


def some(values: Values) -> Values:
    """Values without repeats and without "None", in their order."""
    return [v for v in dict.fromkeys(values) if v != "None"]


def words(text: str) -> Values:
    """A list in one setting: `DNA, ER`."""
    return [w for w in (part.strip() for part in text.split(",")) if w and w != "None"]


def numbers(text: str, module: Module | None, n: int = 1) -> list[float]:
    """`n` finite numbers of a setting: `3`, `10,75`, `(0.0, 1.0)`; ValueError for anything else."""
    parts = text.strip().removeprefix("(").removesuffix(")").split(",")
    try:
        result = [float(part) for part in parts]
    except ValueError:
        result = []
    if len(result) != n or not all(map(math.isfinite, result)):
        raise ValueError(f"{module}: expected {n} number{'s' * (n > 1)}, got {printable(text)}")
    return result
