"""The benchmark of what crops cost runs small: every variant, with its figures, into a JSON file."""

import json
from pathlib import Path

from benchmarks import embedding


def test_every_variant_has_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "embedding.json"
    assert embedding.main(["--size", "256", "--repeats", "2", "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    assert [row["crops"] for row in written["rows"]] == list(embedding.VARIANTS)
    assert all(row["network_s"] > 0 and row["family_s"] > 0 and row["cells"] > 2 for row in written["rows"])
    assert written["machine"]["processor"]


def test_the_kept_figures_hold_the_limit() -> None:
    """Crops of 96 x 96, cut, masked and normalised, add at most 15 % to the small network's own time."""
    kept = json.loads((Path(embedding.__file__).parent / "results" / "embedding.json").read_text())
    unresized = {row["crops"]: row["overhead_percent"] for row in kept["rows"] if "from" not in row["crops"]}
    assert len(unresized) == 4
    assert max(unresized.values()) <= 15
