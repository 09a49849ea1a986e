"""What docs/embeddings.md says a user types, from plates to the table: the page's own commands and settings, run."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from jumpgpu.__main__ import main as jumpgpu
from jumpgpu.synthetic import SyntheticSettings, draw_plate, plate_map

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embeddings.md"


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text()
    commands = re.findall(r"^    jumpgpu ((?:extract|profile|benchmark) P1 .*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert [c.split()[0] for c in commands] == ["extract", "profile", "benchmark"]
    models = re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1].split("[[features.embedding.models]]")[1:]
    assert len(models) == 2
    if importlib.util.find_spec("torchvision") is None:  # which timm needs
        models = models[1:]
    more = "".join("[[features.embedding.models]]" + m for m in models).replace('"vit_small.safetensors"', '"random"')
    families = '[features]\nfamilies = ["location", "number", "intensity", "radial"]\n'
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(families + more)
    settings = SyntheticSettings(wells=24, sites=1, height=200, width=240, cells=7)
    plates = [f"P{i}" for i in range(1, 5)]
    for plate in plates:
        draw_plate(Path("images"), plate, settings)
    platemaps, external = Path("metadata/platemaps"), Path("metadata/external")
    platemaps.mkdir(parents=True)
    external.mkdir()
    rows = [{"well_position": w, "broad_sample": c.sample, "solvent": "DMSO"} for w, c in plate_map(settings).items()]
    pd.DataFrame(rows).to_csv(platemaps / "drawn.txt", sep="\t", index=False)
    maps = pd.DataFrame({"Assay_Plate_Barcode": plates, "Plate_Map_Name": "drawn"})
    maps.to_csv(platemaps / "barcode_platemap.csv", index=False)
    known = {c.sample: c for c in plate_map(settings).values()}
    table = [
        {
            "broad_sample": s,
            "gene": c.gene,
            "pert_type": "trt" if s else "control",
            "control_type": "" if s else "negcon",
        }
        for s, c in known.items()
    ]
    pd.DataFrame(table).to_csv(external / "drawn_metadata.tsv", sep="\t", index=False)
    for command in commands:
        assert jumpgpu(shlex.split(command.replace("/data/images", "images"))) == 0, command
    rows = json.loads(Path("out/scores/benchmark.json").read_text())["rows"]
    judged = {r["representation"] for r in rows}
    assert {"cell count", "classical", "random"} <= judged
    assert {r["task"] for r in rows} >= {"replicating", "map", "matching"}
    assert all(r["low"] is not None and r["high"] is not None for r in rows if r["task"] == "replicating")
    assert Path("out/scores/benchmark.html").stat().st_size > 10_000
