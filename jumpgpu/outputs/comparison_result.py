"""What a comparison with a lab's own CellProfiler output comes to: objects, columns, findings; as lines and for programs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

EQUAL = 1e-9, 1.2e-7  # absolute and relative: what float32 keeps of a number
TOLERANCE = 1e-6, 1e-4  # docs/parity.md's
SHARE = 0.999  # of the objects that must be within it
STATUS = ("equal", "within", "differs", "nothing to compare")


@dataclass
class Column:
    """How a column came out: `status` is equal, within, differs, or nothing to compare."""

    table: str
    name: str
    n: int
    equal: int
    within: int
    worst: float = 0.0
    ours: float = float("nan")
    theirs: float = float("nan")
    where: str = ""

    @property
    def status(self) -> str:
        if not self.n:
            return "nothing to compare"
        return "equal" if self.equal == self.n else "within" if self.within >= SHARE * self.n else "differs"

    @property
    def family(self) -> str:
        return self.name.split("_")[0]


@dataclass
class ObjectSet:
    """How the objects of a set came out over the sites that both have."""

    name: str
    ours: int = 0
    theirs: int = 0
    by_number: int = 0
    by_place: int = 0
    alike: int = 0
    sites: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # well and site -> ours, theirs, matched
    placed: bool = True

    @property
    def matched(self) -> int:
        return self.by_number + self.by_place


@dataclass
class Comparison:
    """A plate beside a lab's output."""

    plate: str
    lab: str
    sites: list[str] = field(default_factory=list)
    only_theirs: list[str] = field(default_factory=list)
    sets: dict[str, ObjectSet] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)
    lacking: dict[str, list[str]] = field(default_factory=dict)  # table -> columns that we lack
    besides: dict[str, list[str]] = field(default_factory=dict)  # table -> columns that they lack
    sets_lacking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[str]:
        """What a lab should know before it switches; none where all is equal or within tolerance."""
        result = []
        if self.only_theirs:
            result.append(f"{len(self.only_theirs)} of their sites are not in the plate: {listed(self.only_theirs)}")
        result += [f"their objects {name} are not in the plate" for name in self.sets_lacking]
        for s in self.sets.values():
            if s.matched < max(s.ours, s.theirs):
                result.append(f"{s.name}: {s.ours} objects, theirs {s.theirs}; {s.matched} are matched")
            elif s.alike < s.matched:
                result.append(f"{s.name}: {s.matched - s.alike} of {s.matched} objects have another area or centre")
        for tables, names in alike(self.lacking):
            result.append(f"{tables}: {counted(names)} of CellProfiler's not in the plate: {listed(names)}")
        wrong: dict[str, list[str]] = {}
        for column in self.columns:
            if column.status == "differs":
                wrong.setdefault(column.table, []).append(column.name)
        return result + [f"{tables}: {counted(names)} that differ: {listed(names)}" for tables, names in alike(wrong)]


def alike(columns: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Tables with the same columns together: their names, and the columns."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for table, names in columns.items():
        groups.setdefault(tuple(names), []).append(table)
    return [(", ".join(tables), list(names)) for names, tables in groups.items()]


def counted(names: Sequence[str]) -> str:
    return f"{len(names)} column{'s' * (len(names) > 1)}"


def listed(names: Sequence[str], maximum: int = 3) -> str:
    return ", ".join(names[:maximum]) + ", ..." * (len(names) > maximum)


def as_json(result: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "plate": result.plate,
        "lab": result.lab,
        "sites": len(result.sites),
        "findings": result.findings,
        "notes": result.notes,
        "only_theirs": result.only_theirs,
        "objects": {
            s.name: {
                "ours": s.ours,
                "theirs": s.theirs,
                "matched_by_number": s.by_number,
                "matched_by_place": s.by_place,
                "alike": s.alike,
                "sites": {at: {"ours": o, "theirs": t, "matched": m} for at, (o, t, m) in s.sites.items()},
            }
            for s in result.sets.values()
        },
        "objects_lacking": result.sets_lacking,
        "columns_lacking": result.lacking,
        "columns_besides": result.besides,
        "columns": [
            {
                "table": c.table,
                "column": c.name,
                "status": c.status,
                "n": c.n,
                "equal": c.equal,
                "within": c.within,
                **(
                    {}
                    if c.status == "equal" or not c.n
                    else {"worst": {"ours": spelled(c.ours), "theirs": spelled(c.theirs), "where": c.where}}
                ),
            }
            for c in result.columns
        ],
    }


def spelled(value: float) -> float | None:
    return value if math.isfinite(value) else None


def families_of(result: Comparison) -> list[dict[str, Any]]:
    """Counts of columns by table and family, with the worst."""
    groups: dict[tuple[str, str], list[Column]] = {}
    for column in result.columns:
        groups.setdefault((column.table, column.family), []).append(column)
    rows = []
    for (table, family), columns in groups.items():
        counts = {s: sum(c.status == s for c in columns) for s in ("equal", "within", "differs", "nothing to compare")}
        worst = max(columns, key=lambda c: c.worst)
        rows.append(
            {"table": table, "family": family, "columns": len(columns), **counts, "worst": worst if worst.worst else None}
        )
    return rows


def summary(result: Comparison) -> list[str]:
    """Ten lines at most, of what matters most first."""
    counts = {s: sum(c.status == s for c in result.columns) for s in ("equal", "within", "differs")}
    total = sum(counts.values())
    lines = [f"{result.plate} beside {result.lab}: {len(result.sites)} sites"]
    objects = [f"{s.name} {s.alike} of {max(s.ours, s.theirs)}" for s in result.sets.values()]
    lines.append(f"objects alike: {', '.join(objects)}" if objects else "no object set in common")
    lines.append(
        f"columns: {counts['equal']} of {total} equal, {counts['within']} within tolerance, {counts['differs']} differ"
    )
    findings, notes = result.findings, result.notes
    kept = findings[: 6 if len(findings) <= 6 else 5]
    lines += [f"  {f}" for f in kept]
    if len(findings) > len(kept):
        lines.append(f"  and {len(findings) - len(kept)} more findings, in the page")
    lines += notes[: max(0, 9 - len(lines))]
    return lines
