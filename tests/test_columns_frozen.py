"""The frozen column lists: every family's names, in stored order."""

from pathlib import Path

import pytest

from jumpgpu import features
from jumpgpu.config import FeatureSettings
from jumpgpu.names import BRIGHTFIELD, CHANNELS, family_of, stored_order

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WORDS = {  # CellProfiler's family words by family of ours
    "shape": {"AreaShape"},
    "correlation": {"Correlation"},
    "granularity": {"Granularity"},
    "intensity": {"Intensity"},
    "location": {"Location"},
    "number": {"Number", "Children", "Parent"},
    "neighbors": {"Neighbors"},
    "radial": {"RadialDistribution"},
    "texture": {"Texture"},
}


@pytest.mark.parametrize(
    ("file", "channels"), [("columns.txt", CHANNELS), ("columns_8_channels.txt", CHANNELS + BRIGHTFIELD)]
)
def test_columns_in_stored_order(file: str, channels: tuple[str, ...]) -> None:
    words = set().union(*(WORDS[f] for f in features.existing()))
    wanted = [c for c in (CONFIGS / file).read_text().split() if family_of(c) in words]
    assert features.columns(channels=channels) == wanted


def test_stored_order_is_a_fixed_point() -> None:
    stored = (CONFIGS / "columns.txt").read_text().split()
    assert stored_order(stored) == list(range(len(stored)))


def test_families_by_name() -> None:
    assert features.columns(["Nuclei"], ["DNA"], FeatureSettings(families=("number",))) == ["Nuclei_Number_Object_Number"]
    with pytest.raises(ValueError, match="unknown feature family 'colour'"):
        features.columns(settings=FeatureSettings(families=("colour",)))
