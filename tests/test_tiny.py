"""The whole program in seconds: draw a plate, extract, open, profile, score (`make smoke`)."""

from pathlib import Path

import numpy as np

import jumpgpu
from jumpgpu.synthetic import SyntheticSettings, draw_plate, write_metadata

SMALL = """
[features]
families = ["shape", "intensity", "location", "number"]
"""


def test_from_drawn_images_to_a_score(tmp_path: Path) -> None:
    settings = SyntheticSettings(wells=12, sites=1, height=160, width=160, cells=6)
    (tmp_path / "small.toml").write_text(SMALL)
    plates = []
    write_metadata(tmp_path, ["TINY1", "TINY2"], settings)
    for barcode in ("TINY1", "TINY2"):
        draw_plate(tmp_path, barcode, settings)
        plates.append(
            jumpgpu.extract(
                barcode,
                images=tmp_path,
                output=tmp_path / "out",
                config=tmp_path / "small.toml",
                illumination="none",
                device="cpu",
                quiet=True,
            )
        )
    cells = plates[0].to_pandas()
    assert len(cells) > 30
    assert np.isfinite(cells["Nuclei_AreaShape_Area"]).all()
    assert jumpgpu.open_plate(tmp_path / "out" / "TINY1").wells == plates[0].wells
    profiles = jumpgpu.profile(plates, metadata=tmp_path / "metadata", level="plate")
    assert 20 <= len(profiles) <= 24  # a well without a cell has no profile
    score = jumpgpu.percent_replicating(profiles, draws=200)
    assert 0 <= score.percent <= 100
