"""`tests/helpers/numbers.json` anew: the digests of every stored number over drawn fields, beside its numbers version.

    python -m tools.numbers

Refuses where values moved and the version in jumpgpu/settings/numbers.py did not.
"""

import json
import sys

from tests.helpers.numbers_drawn import CASES, RECORD, complaints, version_of


def main() -> int:
    """0 written, 1 refused."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    result = {name: cases() for name, cases in CASES.items()}
    if wrong := [line for name, cases in result.items() for line in complaints(name, cases, record)]:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    output = {name: {"version": version_of(name), "cases": cases} for name, cases in result.items()}
    RECORD.write_text(json.dumps(output, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
