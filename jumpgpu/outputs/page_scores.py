"""What the plate's page shows of the JSON that `jumpgpu score` writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def scores_of(path: Path) -> Iterator[dict[str, Any]]:
    """What the page shows of a score's JSON, a condition at a time: percent, and the values beside their null."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of scores (--scores)")
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            if "histogram" in record:
                known = {k: record[k] for k in ("condition", "percent", "null_95th")}
                known["notes"] = [*control_notes(record), *map(str, record.get("findings", ()))]
                yield {"name": record["score"], **known, **{k: record["histogram"][k] for k in ("edges", "values", "null")}}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what jumpgpu score writes as .json ({error})") from error


def control_notes(record: dict[str, Any]) -> Iterator[str]:
    """What a score's record says of negative controls that share only a place, a line each."""
    for place in ("position", "row", "column", "plate"):
        percent, low, high, n = (record.get(f"controls_{place}_{k}") for k in ("percent", "low", "high", "n"))
        if percent is not None and low is not None and high is not None:
            yield (
                f"Negative controls that share only a {place}: {percent:.1f} % pass "
                f"[{low:.1f}, {high:.1f}] over {n}; chance 5 %"
            )


def hits_of(path: Path) -> Iterator[dict[str, Any]]:
    """What the page shows of `jumpgpu score hits`: a condition, its findings, columns and rows of text, hits only."""
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            if "hits" in record:
                rows = [r for r in record["hits"] if r.get("hit", r.get("active"))]
                columns = [c.removeprefix("Metadata_") for c in (rows[0] if rows else ())]
                yield {
                    "name": record["score"],
                    "condition": record["condition"],
                    "total": record["rows"],
                    "findings": list(record["findings"]),
                    "columns": columns,
                    "rows": [[shown(v) for v in r.values()] for r in rows],
                }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not what jumpgpu score writes as .json ({error})") from error


def shown(value: Any) -> str:
    """A table's cell as text: numbers to three digits, yes and no, nothing for what is missing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
