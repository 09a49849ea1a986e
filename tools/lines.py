"""Lines of code by folder, and the budget that CI holds them to (`[tool.jumpgpu.lines]` in pyproject.toml).

    python -m tools.lines            # a table; status 1 where a folder has more lines than its budget

A line counts that is neither blank nor a comment alone. A change that needs more raises the budget where it says why.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = {".py": "#", ".cu": "//", ".cuh": "//", ".h": "//", ".cpp": "//"}


def count(folder: str) -> int:
    """Lines of code of every source file below a folder."""
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in KINDS and "build" not in p.relative_to(ROOT).parts]
    lines = [(line.strip(), KINDS[p.suffix]) for p in files for line in p.read_text(encoding="utf-8").splitlines()]
    return sum(bool(line) and not line.startswith(comment) for line, comment in lines)


def main() -> int:
    budget = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["jumpgpu"]["lines"]
    result = {folder: count(folder) for folder in budget}
    for folder, lines in result.items():
        print(f"{folder:12}{lines:7}  of {budget[folder]}" + "  too many" * (lines > budget[folder]))
    return int(any(result[folder] > budget[folder] for folder in budget))


if __name__ == "__main__":
    sys.exit(main())
