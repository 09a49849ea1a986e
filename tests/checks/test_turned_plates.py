"""check-plate as a command on a plate that was turned or mirrored, against a stored sister and against a plate map."""

from pathlib import Path

import numpy as np
import pytest

import jumpgpu
from jumpgpu.check_plate import main
from jumpgpu.checks.layout import TURNS, turned
from jumpgpu.drawing.fields import Effects, draw_field, falloff, make_tiles
from jumpgpu.settings.config import Config, FeatureSettings
from jumpgpu.settings.names import CHANNELS, well_name
from tests.helpers.image_plates import NUMBERS, image_name, write_tiff

SIZE, FORMAT = (220, 240), (6, 8)
WELLS = [well_name(r, c) for r in range(1, 7) for c in range(1, 9)]
CELLS = dict(zip(WELLS, np.random.default_rng(3).permutation(np.linspace(0, 26, len(WELLS))).round(), strict=True))


def write(root: Path, barcode: str, seed: int, turn: tuple[bool, bool] = (False, False)) -> None:
    """A plate with as many cells in each well as `CELLS` has, laid down turned."""
    images = root / barcode / "Images"
    images.mkdir(parents=True)
    tiles, light = make_tiles(np.random.default_rng(1), SIZE), falloff(SIZE)
    for well in WELLS:
        rng = np.random.default_rng([seed, WELLS.index(well)])
        drawn = draw_field(rng, SIZE, float(CELLS[turned(well, FORMAT, turn)]), Effects(), tiles, light)
        for channel, number in NUMBERS.items():
            write_tiff(images / image_name(well, 1, number), drawn.images[CHANNELS.index(channel)])


@pytest.fixture(scope="module")
def sister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sister")
    write(root, "S1", 1)
    config = Config(features=FeatureSettings(families=("number",)))
    jumpgpu.extract("S1", root, output=root / "out", config=config, illumination="none", device="cpu", quiet=True)
    return root / "out" / "S1.zarr"


@pytest.mark.parametrize("words", ["as it should be", *TURNS])
def test_a_turned_plate_is_found_beside_its_sister(
    tmp_path: Path, sister: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "P1", 2, TURNS.get(words, (False, False)))
    status = main(["P1", "--images", str(tmp_path), "--sister", str(sister), "--threads", "1"])
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("finding: layout")]
    if words in TURNS:
        assert status == 3
        assert len(found) == 1
        assert f"cell counts agree with S1's {words} (rank correlation 0." in found[0]
    else:
        assert not found
